"""Rate control by the QP of coarse pictures: a leaky bucket."""

from __future__ import annotations

import math
from dataclasses import dataclass

WINDOW = 3.0
"""Seconds over which the rate is held."""
_MAX_DEBT = 1.25 * WINDOW
"""Seconds of the rate by which the level is limited. Without a limit pictures would stay coarse
after an overload for as long as it lasted. It is more than the level of an overflow."""
_QP_HALVING = 5.0
"""A QP higher by this halves the bits of a coarse picture."""
_MAX_STEP, _MAX_SPEED = 2.0, 20.0
"""The greatest change of QP from one frame to the next, or in a second if that is more: frames are
few where a scene must be followed in seconds."""
_KEPT, _SLOW = 0.7, 10.0
"""Share of earlier pictures in the expected bits of a coarse picture; less below _SLOW frames a
second, for the same reason."""
_KEY_SHARE = 0.33
"""Greatest share of a key frame in the bits of the window, or of the key frame interval."""
_MIN_QP, _MAX_QP = 20.0, 48.0


@dataclass(slots=True)
class Bucket:
    """Encoded bits fill the bucket and leak out at the rate; its level decides the next QP."""

    bitrate: float
    """Bits in a second."""
    frames: float
    """Frames in a second."""
    interval: float = math.inf
    """Seconds between key frames."""
    qp: float = 36.0
    parity: float = 0.0
    """Expected bits of parity for each bit of frames. Parity comes seconds after its frames; as a
    surprise it would make the next frames coarse."""
    _owed: float = 0.0
    """Expected bits of parity since the last parity came."""
    _sent: float = 0.0
    _sums: float = 0.0
    """All bits of frames, and of parity."""
    _fine: float = 0.0
    """Average bits of a fine frame; 0: none has come."""
    _gap: int = 1
    _since_fine: int = 0
    """Other frames before the last fine frame, and since the last fine or key frame."""
    _saved: float = 0.0
    """Bits saved for the next fine frame."""
    _level: float = 0.0
    """Bits sent beyond the rate; negative: bits that are left."""
    _coarse: float | None = None
    """Average bits of a predicted coarse picture at `qp`."""
    _other: float = 0.0
    """Average of all other bits of a frame."""

    def choose(self, *, key: bool) -> int:
        """QP of the next coarse picture, for `sempic.coarse.moving`."""
        if not key and self._coarse is not None:
            window = WINDOW * self.frames
            wanted = (self.bitrate / self.frames - self._level / window) / (1 + self.parity)
            wanted -= self._other + self._saving
            wanted = max(wanted, 0.05 * self.bitrate / self.frames)
            step = _QP_HALVING * math.log2(max(self._coarse, 8.0) / wanted)
            most = max(_MAX_STEP, _MAX_SPEED / self.frames)
            self._set(self.qp + max(-most, min(step, most)))
        return round(self.qp)

    @property
    def _saving(self) -> float:
        """Bits that each frame saves for the next fine frame. As a surprise that frame would leave
        a debt, which stays as long as fine frames come."""
        if self._since_fine >= self._gap or self.qp >= _MAX_QP:
            return 0.0
        beyond = self._fine - self.bitrate / self.frames / (1 + self.parity)
        return max(beyond / self._gap, 0.0)

    @property
    def key_bits(self) -> float:
        """The most bits of a key frame."""
        return _KEY_SHARE * min(WINDOW, self.interval) * self.bitrate

    def too_large(self, bits: int) -> bool:
        """Whether a key frame of so many bits must be encoded again, at the QP that `choose` then
        returns."""
        if bits <= self.key_bits or self.qp >= _MAX_QP:
            return False
        self._set(self.qp + max(1.0, _QP_HALVING * math.log2(bits / self.key_bits)))
        return True

    @property
    def overflows(self) -> bool:
        """Whether the rate is exceeded even at the highest QP."""
        return self.qp >= _MAX_QP and self._level > WINDOW * self.bitrate

    def put(
        self, bits: int, coarse: int, *, key: bool = False, fine: bool = False, parity: int = 0
    ) -> None:
        """Adds a frame. bits: of the whole frame. coarse: of its coarse picture. key: a key frame,
        or as fine as one. fine: finer than others, and one of many. parity: bits of parity that
        comes with it, of earlier frames."""
        expected = bits * self.parity
        self._owed += expected
        self._sent += bits
        self._add(bits + expected - self.bitrate / self.frames)
        if parity:
            self._add(parity - self._owed)
            self._sums += parity
            self.parity, self._owed = self._sums / self._sent, 0.0
        if key or fine:
            self._add(-self._saved)
            if fine:
                self._fine = (self._fine + bits) / 2 if self._fine else bits
                self._gap = max(self._since_fine, 1)
            self._since_fine, self._saved = 0, 0.0
            return
        saving = self._saving * (1 + self.parity)
        self._add(saving)
        self._saved += saving
        self._since_fine += 1
        kept = _KEPT ** max(1.0, _SLOW / self.frames)
        before = coarse if self._coarse is None else self._coarse
        self._coarse = kept * before + (1 - kept) * coarse
        self._other = 0.8 * self._other + 0.2 * (bits - coarse)

    def _add(self, bits: float) -> None:
        level = self._level + bits
        self._level = max(-WINDOW * self.bitrate, min(level, _MAX_DEBT * self.bitrate))

    def _set(self, qp: float) -> None:
        before, self.qp = self.qp, max(_MIN_QP, min(qp, _MAX_QP))
        if self._coarse is not None:
            self._coarse *= 2 ** ((before - self.qp) / _QP_HALVING)
