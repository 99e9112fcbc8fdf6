"""When key frames are due, and which frames are coded finer than the others.

Frames are predicted from the last fine frame. In a still scene they show little else: fine frames
are rare and very fine there, and the bits between them go to what moves. The first frame cannot
tell whether the scene is still. Once it is, one predicted frame is coded finer.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum
from fractions import Fraction
from typing import NamedTuple

_INTERVAL = 2.0
"""Seconds between key frames."""
_STILL_INTERVAL = 10.0
"""Seconds between key frames in a still scene."""
_BECOMES_STILL = 0.75
"""A scene becomes still if this share of it is still, on average over _INTERVAL. A street filmed
from a car has 0.6, a busy street from a pole 0.9."""
_STAYS_STILL = 0.65
"""A still scene ends below this share, on average over _STILL_WINDOW. A passing bus is no end."""
_STILL_WINDOW = 4.0


class Precision(NamedTuple):
    """QP offsets against a single picture."""

    key: int
    """Of key frames and other fine frames."""
    other: int


_MOVING = Precision(-6, -2)
_STILL = Precision(-13, 3)
"""At _FAST frames a second. Each frame refines what moves. At lower rates each must refine more:
`other` is 0 at _SLOW frames a second."""
_FAST, _SLOW = 10, 2.5


class Role(Enum):
    """How a frame is coded."""

    KEY = "intra-coded, and fine"
    FINER = "predicted, and as fine as a key frame"
    OTHER = "predicted"


class Keys:
    """The key frames of one sequence."""

    def __init__(self, rate: Fraction, interval: float | None) -> None:
        """rate: frames in a second. interval: seconds between key frames; None: by the scene."""
        self._rate, self._is_adaptive = rate, interval is None
        self.interval = interval or _INTERVAL
        """Seconds between key frames in a moving scene."""
        speed = math.log(rate / _SLOW, _FAST / _SLOW)
        self._when_still = Precision(_STILL.key, round(_STILL.other * min(max(speed, 0), 1)))
        self._since_key = 0
        """Frames since the last key frame, which counts, too."""
        self._still_shares = deque[float](maxlen=max(1, round(_STILL_WINDOW * rate)))
        self.precision = _MOVING
        """Of the last fine frame and the frames after it."""

    @property
    def is_moving(self) -> bool:
        """Whether the scene is known to move: not in the first frame."""
        return len(self._still_shares) > 0 and not self._is_still

    @property
    def _is_still(self) -> bool:
        was_still = self.precision is self._when_still
        window = (_STILL_WINDOW, _STAYS_STILL) if was_still else (_INTERVAL, _BECOMES_STILL)
        seconds, least = window
        shares = list(self._still_shares)[-max(1, round(seconds * self._rate)) :]
        return self._is_adaptive and sum(shares) >= least * len(shares) > 0

    def next(self, *, cut: bool = False) -> Role:
        """The role of the next frame; cut: it shows another scene than the last one."""
        if cut:
            self._still_shares.clear()
        is_still, was_still = self._is_still, self.precision is self._when_still
        seconds = _STILL_INTERVAL if is_still and was_still else self.interval
        if self._since_key and not cut and self._since_key < max(1, round(seconds * self._rate)):
            return Role.OTHER
        self.precision = self._when_still if is_still else _MOVING
        if is_still and not was_still:
            return Role.FINER
        self._since_key = 0
        return Role.KEY

    def saw(self, still: float | None) -> None:
        """Counts a frame. still: share of it that is as in the frame before, 0…1; None for the
        first frame."""
        self._since_key += 1
        if still is not None:
            self._still_shares.append(still)
