"""When a key frame is due, and how much finer than the others it is worth making.

All frames behind a key frame are made of it. Where the scene stands still that is most of what they
show, for as long as it stands: so key frames are rare there and fine, and the few bits between them
go to what moves. Nobody knows at the first frame whether it will.
"""

from __future__ import annotations

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
    other: int


_MOVING = Precision(-7, -3)
_STILL = Precision(-14, 0)


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
        """Of the last key frame, and of what is made of it."""

    @property
    def _stands(self) -> bool:
        return self._free and self._still >= _STANDS * max(1, self._since - 1)

    def due(self) -> bool:
        """Whether the next frame is to be one."""
        seconds = _STANDING if self.precision is _STILL and self._stands else self.interval
        return self._since >= max(1, round(seconds * self._rate))

    def begin(self, *, cut: bool) -> None:
        """The next frame is one; cut: of another scene."""
        self.precision = _STILL if self._since and self._stands and not cut else _MOVING
        self._since, self._still = 0, 0.0

    def saw(self, still: float) -> None:
        """A frame went by, with that share of it still."""
        self._since += 1
        self._still += still
