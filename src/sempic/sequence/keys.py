"""When a key frame is due, and which frames are worth being made finer than the others.

All frames behind a fine one are made of it. Where the scene stands still that is most of what they
show, for as long as it stands: so fine frames are rare there and very fine, and the few bits
between them go to what moves. Nobody knows at the first frame whether it will: once that is seen
one frame is made finer, predicted from the others as any.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum
from fractions import Fraction
from typing import NamedTuple

_INTERVAL = 2.0
"""Seconds between key frames."""
_STANDING = 10.0
"""The same in a scene that stands still."""
_STANDS = 0.75
"""Share of a picture that is still, on average over _INTERVAL, from which on a scene stands. A
street from a car has 0.6, from a pole, full of cars, 0.9."""
_STAYS = 0.65
"""The same over _LONG seconds while it has stood: a bus that passes by is no other scene."""
_LONG = 4.0


class Precision(NamedTuple):
    """By how much QP is more, or less, than in a single picture."""

    key: int
    """Of what is fine."""
    other: int


_MOVING = Precision(-6, -2)
_STILL = Precision(-13, 3)
"""At _OFTEN frames a second. Each frame refines what moves; where they are few each must do more:
other is 0 at _SELDOM frames a second."""
_OFTEN, _SELDOM = 10, 2.5


class Role(Enum):
    """What a frame is for those behind it."""

    KEY = "predicted from nothing, and fine"
    FINER = "predicted, and as fine as a key frame"
    OTHER = "predicted"


class Keys:
    """The key frames of one sequence."""

    def __init__(self, rate: Fraction, interval: float | None) -> None:
        """rate: frames in a second. interval: seconds between them; None: as the scene is."""
        self._rate, self._free = rate, interval is None
        self.interval = interval or _INTERVAL
        """Seconds between them where the scene does not stand still."""
        often = math.log(rate / _SELDOM, _OFTEN / _SELDOM)
        self._when_still = Precision(_STILL.key, round(_STILL.other * min(max(often, 0), 1)))
        self._since = 0
        """Frames since the last one, with it."""
        self._still = deque[float](maxlen=max(1, round(_LONG * rate)))
        """What `saw` was told lately."""
        self.precision = _MOVING
        """Of the last fine frame, and of what is made of it."""

    @property
    def _stands(self) -> bool:
        has_stood = self.precision is self._when_still
        seconds, least = (_LONG, _STAYS) if has_stood else (_INTERVAL, _STANDS)
        last = list(self._still)[-max(1, round(seconds * self._rate)) :]
        return self._free and sum(last) >= least * len(last) > 0

    def next(self, *, cut: bool = False) -> Role:
        """What the next frame is; cut: it has little to do with the last one."""
        if cut:
            self._still.clear()
        stands, has_stood = self._stands, self.precision is self._when_still
        seconds = _STANDING if stands and has_stood else self.interval
        if self._since and not cut and self._since < max(1, round(seconds * self._rate)):
            return Role.OTHER
        self.precision = self._when_still if stands else _MOVING
        if stands and not has_stood:
            return Role.FINER
        self._since = 0
        return Role.KEY

    def saw(self, still: float | None) -> None:
        """A frame goes by, of which that share is as in the frame before, 0…1; None: there was
        none before it."""
        self._since += 1
        if still is not None:
            self._still.append(still)
