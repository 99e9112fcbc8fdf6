"""Where a codec's dial must stand for a rate, found with few files coded."""

from __future__ import annotations

import math
from collections.abc import Callable

_DOUBLING = [2**n for n in range(3, 31)]
_NEAR = 0.03
"""The dial is left where the rate is as near as this share."""


def nearest(rate: Callable[[int], float], count: int, target: float) -> int:
    """Where on a rising dial 0…count-1 the rate is nearest to a target, with few looks."""
    low, high = 0, count - 1
    if rate(low) >= target:
        return low
    if rate(high) <= target:
        return high
    while high - low > 1:
        a, b, wanted = math.log(rate(low)), math.log(rate(high)), math.log(target)
        # The secant in log rate, but never closer to an end than an eighth of the stretch.
        share = min(max((wanted - a) / max(b - a, 1e-9), 0.125), 0.875)
        at = min(max(low + round(share * (high - low)), low + 1), high - 1)
        if abs(rate(at) / target - 1) < _NEAR:
            return at
        low, high = (at, high) if rate(at) < target else (low, at)
    return min((low, high), key=lambda at: abs(math.log(rate(at) / target)))


def nearest_from_below(rate: Callable[[int], float], count: int, target: float) -> int:
    """As `nearest`, but never far above the target: codecs are slowest at the upper end."""
    high = next((at for at in _DOUBLING if at >= count - 1 or rate(at) >= target), 0)
    return nearest(rate, min(high + 1, count), target)
