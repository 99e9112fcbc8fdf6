"""Integer functions of the label coders; every intermediate value fits in int64."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sempic.compiling import integers

Ints: TypeAlias = npt.NDArray[np.int64]


@integers("int64(int64, int64, int64)")
def clamp(x: Any, low: Any, high: Any) -> Any:
    return low if x < low else high if x > high else x


@integers("int64(int64, int64)")
def fold(h: Any, v: Any) -> Any:
    """A hash below 2^31 of two numbers below 2^31."""
    h = ((h ^ v) * 0x2545F491 + 0x1B873593) & 0x7FFFFFFF
    return h ^ (h >> 15)


@integers("int64(int64)")
def log2(v: Any) -> Any:
    """The number of binary digits of `v`; 0 has none."""
    bits = 0
    while v > 0:
        v >>= 1
        bits += 1
    return bits
