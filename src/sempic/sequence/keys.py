"""When key frames are due, and which frames are coded finer than the others.

Frames are predicted from those before: what a fine frame shows lasts. A key frame is the finest,
and the finer, the longer it lasts. In a moving scene other fine frames follow it, since what they
show leaves the picture. In a still scene none do, and the bits between key frames go to what moves.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum
from fractions import Fraction

_INTERVAL, _LONGEST = 10.0, 1e9
"""Seconds between key frames: as a rule, and at most, so that numbers of frames are finite."""
_FINE_EVERY = 10
"""Frames from one fine frame to the next in a moving scene."""
_BECOMES_STILL = 0.75
"""A scene becomes still if this share of it is still, on average over _MOVING_WINDOW. A street
filmed from a car has 0.6, a busy street from a pole 0.9."""
_STAYS_STILL = 0.65
"""A still scene ends below this share, on average over _STILL_WINDOW. A passing bus is no end."""
_MOVING_WINDOW, _STILL_WINDOW = 2.0, 4.0
"""Seconds."""
_FINE, _MOVING = -5, 0
"""QP of fine frames and of the others in a moving scene, relative to a single picture's."""
_STILL = 3
"""QP of predicted frames in a still scene at _FAST frames a second. Each frame refines what moves.
At lower rates each must refine more: 0 at _SLOW frames a second."""
_FAST, _SLOW = 10, 2.5


class Role(Enum):
    """How a frame is coded."""

    KEY = "intra-coded, and finest"
    FINEST = "predicted, and as fine as a key frame"
    FINE = "predicted, and finer than other predicted frames"
    OTHER = "predicted"


class Keys:
    """The key frames of one sequence."""

    def __init__(self, rate: Fraction, interval: float | None) -> None:
        """rate: frames in a second. interval: seconds between key frames; None: ten, and scenes may
        stand still."""
        self._rate, self._is_adaptive = rate, interval is None
        self.interval = min(interval or _INTERVAL, _LONGEST)
        """Seconds between key frames."""
        speed = math.log(rate / _SLOW, _FAST / _SLOW)
        self._when_still = round(_STILL * min(max(speed, 0), 1))
        self._finest = -round(6 + 3 * min(max(math.log2(self.interval / 2), 0), 7 / 3))
        self._since_key = self._since_fine = 0
        """Frames since the last key frame, or the last fine one, which counts, too."""
        self._shares = deque[float](maxlen=self._frames(_STILL_WINDOW))
        """Of the last frames, the share that is as in the frame before."""
        self._is_still = False

    @property
    def is_moving(self) -> bool:
        """Whether the scene is known to move: not in the first frame."""
        return len(self._shares) > 0 and not self._is_still

    def offset(self, role: Role) -> int:
        """QP of a frame, relative to a single picture's."""
        if role is Role.OTHER:
            return self._when_still if self._is_still else _MOVING
        return _FINE if role is Role.FINE else self._finest

    def begin(self) -> Role:
        """Makes the next frame a key frame, whatever `next` said."""
        self._since_key = self._since_fine = 0
        return Role.KEY

    def next(self, *, cut: bool = False) -> Role:
        """The role of the next frame; cut: it shows another scene than the last one."""
        if cut:
            self._shares.clear()
        was_still, self._is_still = self._is_still, self._stands_still()
        if self._is_still and not was_still:
            while len(self._shares) > self._frames(_MOVING_WINDOW):
                self._shares.popleft()  # what was before must not end it
        if cut or not 0 < self._since_key < self._frames(self.interval):
            return self.begin()
        if self._is_still:
            # A key frame of the last seconds has shown this scene.
            if was_still or self._since_key <= self._frames(_STILL_WINDOW):
                return Role.OTHER
        elif self._since_fine < _FINE_EVERY:
            return Role.OTHER
        self._since_fine = 0
        return Role.FINEST if self._is_still else Role.FINE

    def saw(self, still: float | None) -> None:
        """Counts a frame. still: share of it that is as in the frame before, 0…1; None for the
        first frame."""
        self._since_key += 1
        self._since_fine += 1
        if still is not None:
            self._shares.append(still)

    def _stands_still(self) -> bool:
        seconds, least = _MOVING_WINDOW, _BECOMES_STILL
        if self._is_still:
            seconds, least = _STILL_WINDOW, _STAYS_STILL
        shares = list(self._shares)[-self._frames(seconds) :]
        is_known = self._is_still or len(shares) + 1 >= self._frames(seconds)  # of the first: none
        return self._is_adaptive and is_known and sum(shares) >= least * len(shares) > 0

    def _frames(self, seconds: float) -> int:
        return max(1, round(seconds * self._rate))
