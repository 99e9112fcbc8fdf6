"""The setting of a codec's dial for a rate, found with few encodings."""

from __future__ import annotations

import math
from collections.abc import Callable


def nearest(rate: Callable[[int], float], count: int, target: float, near: float = 0.03) -> int:
    """The position 0…count-1 whose rate is nearest to a target; rates rise with the position. The
    search stops within the relative distance `near` from the target."""
    low, high = 0, count - 1
    if rate(low) >= target:
        return low
    if rate(high) <= target:
        return high
    while high - low > 1:
        a, b, wanted = math.log(rate(low)), math.log(rate(high)), math.log(target)
        # Secant in log rate, at least an eighth of the interval away from both ends.
        share = min(max((wanted - a) / max(b - a, 1e-9), 0.125), 0.875)
        at = min(max(low + round(share * (high - low)), low + 1), high - 1)
        if abs(rate(at) / target - 1) < near:
            return at
        low, high = (at, high) if rate(at) < target else (low, at)
    return min((low, high), key=lambda at: abs(math.log(rate(at) / target)))
