"""Logistic tables, computed with integers only: the same on every machine.

Log odds are fixed point, 256 steps per nat, clamped to ±12 nats. Probabilities have 16 bits
(1 … 65535 of 65536).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

ONE_NAT = 256
LIMIT = 12 * ONE_NAT - 1
"""The largest log odds."""

_UNIT = 1 << 96


def _powers(count: int) -> list[int]:
    """exp(x / 256), 96 fractional bits, for x in 0 … count - 1; exp(1 / 256) by Taylor series."""
    step = term = _UNIT
    for k in range(1, 40):
        term = term // (ONE_NAT * k)
        step += term
    powers = [_UNIT]
    for _ in range(count - 1):
        powers.append(powers[-1] * step >> 96)
    return powers


def _exp_table() -> npt.NDArray[np.int64]:
    """exp[d] = max(1, floor(2^24 exp(-d / 256))) for d in 0 … 4095."""
    return np.array([max(1, (_UNIT << 24) // power) for power in _powers(4096)], np.int64)


def _squash_table() -> npt.NDArray[np.int32]:
    """squash[x + LIMIT] = round(65536 / (1 + exp(-x / 256))), clamped to 1 … 65535."""
    table = np.empty(2 * LIMIT + 1, np.int32)
    for x, power in enumerate(_powers(LIMIT + 1)):
        p = min(65535, ((power << 17) // (power + _UNIT) + 1) >> 1)
        table[LIMIT + x] = p
        table[LIMIT - x] = max(1, 65536 - p)
    return table


def _stretch_table(squash: npt.NDArray[np.int32]) -> npt.NDArray[np.int16]:
    """stretch[p] = the smallest x with squash(x) >= p."""
    return (np.searchsorted(squash, np.arange(65536)) - LIMIT).clip(-LIMIT, LIMIT).astype(np.int16)


class Tables(NamedTuple):
    """Passed to kernels as arguments: constants of this size are slow to compile."""

    squash: npt.NDArray[np.int32]
    """Log odds + LIMIT → probability."""
    stretch: npt.NDArray[np.int16]
    """Probability → log odds."""
    exp: npt.NDArray[np.int64]
    """x → exp(-x / 256), 24 fractional bits."""


def _tables() -> Tables:
    squash = _squash_table()
    return Tables(squash, _stretch_table(squash), _exp_table())


TABLES = _tables()
