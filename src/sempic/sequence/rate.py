"""A bit rate held by the quantisation of coarse pictures: a leaky bucket."""

from __future__ import annotations

import math
from dataclasses import dataclass

WINDOW = 3.0
"""Seconds over which the rate is held."""
_DEBT = 1.25 * WINDOW
"""The most of what was sent too much that is still to be saved, in seconds: else pictures would
stay coarse as long behind an overload as that was. It is more than what counts as an overflow."""
_HALVES = 5.0
"""QP that halve the bits of a coarse picture."""
_STEP = 2.0
"""The most that QP changes from one frame to the next."""
_KEY_SHARE = 0.5
"""Of the bits of the window, or of the time until the next key frame, which one may take."""
_RANGE = (20.0, 48.0)


@dataclass(slots=True)
class Bucket:
    """Bits go in as they are made and leak out at the rate; the level chooses the next QP."""

    bitrate: float
    """Bits in a second."""
    frames: float
    """Frames in a second."""
    interval: float = math.inf
    """Seconds between key frames."""
    qp: float = 36.0
    _level: float = 0.0
    """Bits that are still to leak out; below zero: not used yet."""
    _coarse: float | None = None
    """Bits of a predicted coarse picture at `qp`, an average."""
    _other: float = 0.0
    """All other bits of a frame, an average."""

    def choose(self, *, key: bool) -> int:
        """QP of the next coarse picture, for `sempic.coarse.moving`."""
        if not key and self._coarse is not None:
            window = WINDOW * self.frames
            wanted = self.bitrate / self.frames - self._level / window - self._other
            wanted = max(wanted, 0.05 * self.bitrate / self.frames)
            step = _HALVES * math.log2(max(self._coarse, 8.0) / wanted)
            self._set(self.qp + max(-_STEP, min(step, _STEP)))
        return round(self.qp)

    @property
    def key_bits(self) -> float:
        """What a key frame may take."""
        return _KEY_SHARE * min(WINDOW, self.interval) * self.bitrate

    def too_large(self, bits: int) -> bool:
        """Whether a key frame of so many bits should be made anew, coarser; `choose` is then to be
        asked again."""
        if bits <= self.key_bits or self.qp >= _RANGE[1]:
            return False
        self._set(self.qp + max(1.0, _HALVES * math.log2(bits / self.key_bits)))
        return True

    @property
    def overflows(self) -> bool:
        """Whether the rate is not held, although pictures are as coarse as can be."""
        return self.qp >= _RANGE[1] and self._level > WINDOW * self.bitrate

    def put(self, bits: int, coarse: int, *, key: bool) -> None:
        """What a frame took, and its coarse picture thereof."""
        self.add(bits - self.bitrate / self.frames)
        if key:
            return
        self._coarse = coarse if self._coarse is None else 0.7 * self._coarse + 0.3 * coarse
        self._other = 0.8 * self._other + 0.2 * (bits - coarse)

    def add(self, bits: float) -> None:
        """What is sent besides, of no one frame."""
        level = self._level + bits
        self._level = max(-WINDOW * self.bitrate, min(level, _DEBT * self.bitrate))

    def _set(self, qp: float) -> None:
        before, self.qp = self.qp, max(_RANGE[0], min(qp, _RANGE[1]))
        if self._coarse is not None:
            self._coarse *= 2 ** ((before - self.qp) / _HALVES)
