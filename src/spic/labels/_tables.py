"""Integer logistic tables, made with integer arithmetic only: the same on every machine.

The logistic domain is fixed point, 256 steps per nat, clamped to ±12 nats; probabilities
are 16 bit (1 … 65535 of 65536).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ONE_NAT = 256
LIMIT = 12 * ONE_NAT - 1


def _squash_table() -> npt.NDArray[np.int32]:
    """squash[x + LIMIT] = round(65536 / (1 + exp(-x / 256))), kept in 1 … 65535."""
    unit = 1 << 96
    step = term = unit
    for k in range(1, 40):  # exp(1/256) by its Taylor series, in 96-bit fixed point
        term = term // (ONE_NAT * k)
        step += term
    table = np.empty(2 * LIMIT + 1, np.int32)
    power = unit
    for x in range(LIMIT + 1):  # power = exp(x / 256)
        p = min(65535, ((power << 17) // (power + unit) + 1) >> 1)
        table[LIMIT + x] = p
        table[LIMIT - x] = max(1, 65536 - p)
        power = power * step >> 96
    return table


def _stretch_table(squash: npt.NDArray[np.int32]) -> npt.NDArray[np.int16]:
    """stretch[p] = the smallest x with squash(x) >= p."""
    return (np.searchsorted(squash, np.arange(65536)) - LIMIT).clip(-LIMIT, LIMIT).astype(np.int16)


SQUASH = _squash_table()
STRETCH = _stretch_table(SQUASH)
