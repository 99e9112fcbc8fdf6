"""When a key frame is due, and which frames are worth being made finer than the others.

All frames behind a fine one are made of it. Where the scene stands still that is most of what they
show, for as long as it stands: so fine frames are rare there and very fine, and the few bits
between them go to what moves. Nobody knows at the first frame whether it will: once that is seen
one frame is made finer, predicted from the others as any.
"""

from __future__ import annotations

from enum import Enum
from fractions import Fraction
from typing import NamedTuple

_INTERVAL = 2.0
"""Seconds between key frames."""
_STANDING = 10.0
"""The same in a scene that stands still."""
_STANDS = 0.75
"""The share of the pixels, on average since the last key frame, that neither move nor change in
one. A street from a car has 0.55, from a pole, full of cars, 0.8."""


class Precision(NamedTuple):
    """By how much QP is more, or less, than in a single picture."""

    key: int
    """Of what is fine."""
    other: int


_MOVING = Precision(-6, -2)
_STILL = Precision(-13, 3)


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
        self._since = 0
        """Frames since the last one, with it."""
        self._still = 0.0
        """The sum of what `saw` was told since."""
        self.precision = _MOVING
        """Of the last fine frame, and of what is made of it."""

    @property
    def _stands(self) -> bool:
        return self._free and self._still >= _STANDS * max(1, self._since - 1)

    def next(self, *, cut: bool = False) -> Role:
        """What the next frame is; cut: it has little to do with the last one."""
        stands = self._stands and not cut
        long = stands and self.precision is _STILL
        seconds = _STANDING if long else self.interval
        if self._since and not cut and self._since < max(1, round(seconds * self._rate)):
            return Role.OTHER
        if self._since and stands and not long:
            self.precision = _STILL
            return Role.FINER
        self.precision = _STILL if self._since and stands else _MOVING
        self._since, self._still = 0, 0.0
        return Role.KEY

    def saw(self, still: float) -> None:
        """A frame went by, with that share of it still."""
        self._since += 1
        self._still += still
