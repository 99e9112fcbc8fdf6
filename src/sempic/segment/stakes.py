"""The class of each pixel by least risk: some errors are worse than others.

The likeliest class is the best choice only if all errors cost the same. A missed person is lost,
because a receiver paints what the map says; a falsely detected person costs a few bits. So each
probability is multiplied by the worth of its class (minimum risk; Chan et al., "Application of
Decision Rules for Handling Class Imbalance in Semantic Segmentation", arXiv 1901.08394).
docs/experiments/maps.md has the gains and costs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sempic.check.objects import bounds, ids
from sempic.critical import GROUPS
from sempic.labels.regions import components
from sempic.palette import Palette
from sempic.scene import LabelMap, Probabilities

KNOWN = 0.62
"""Mean probability below which regions of classes without a stake become void."""
SPECK = 0.0005
"""Share of the picture below which a region of a group is a speck: receivers paint no object there,
but its outline costs as much as an object's."""
SPECK_KNOWN = 0.6
"""Mean probability of the group from which a speck is sent."""


class Stake(NamedTuple):
    """The costs of errors about a group of classes."""

    worth: float
    """Cost of a missed object relative to that of a false one."""
    known: float
    """Mean probability below which regions of the group become void."""


_SMALL = Stake(worth=4, known=0.3)
STAKES = {
    "people": _SMALL,
    "two-wheelers": _SMALL,
    "vehicles": Stake(worth=1.5, known=KNOWN),
    "signs and lights": _SMALL,
}
"""By names of `critical.GROUPS`."""
_THIN = ("pole", "sign", "traffic sign", "traffic light")


def worth(palette: Palette) -> npt.NDArray[np.float32]:
    """The worth of each id, float32 (256,)."""
    found = np.ones(256, np.float32)
    for name, stake in STAKES.items():
        found[ids(GROUPS[name], palette)] = stake.worth
    return found


def small(palette: Palette) -> list[int]:
    """The ids of classes whose objects are small."""
    names = [name for name, stake in STAKES.items() if stake == _SMALL]
    return [number for name in names for number in ids(GROUPS[name], palette)]


def thin(palette: Palette) -> list[int]:
    """The ids of classes that are often a pixel or two wide."""
    return [i for i, name in enumerate(palette.classes) if name in _THIN]


def decide(labels: LabelMap, probabilities: Probabilities, palette: Palette) -> LabelMap:
    """The map of least risk, without uncertain specks.

    Args:
        labels: uint8 (H, W), the likeliest class of each pixel.
        probabilities: of the classes, uint8 (classes, H, W) in 1/255.
        palette: of the labels; maps of a palette without critical groups are returned unchanged.
    """
    count = len(probabilities)
    groups = [[i for i in ids(GROUPS[name], palette) if i < count] for name in STAKES]
    critical = [i for group in groups for i in group]
    if not critical:
        return labels
    others = [i for i in range(count) if i not in critical]
    weights = worth(palette)
    at = np.minimum(labels, count - 1)[None]
    risk, decided = np.take_along_axis(probabilities, at, 0)[0] * weights[labels], labels.copy()
    for i in critical:
        weighed = probabilities[i] * weights[i]
        decided[weighed > risk] = i
        np.maximum(weighed, risk, out=risk)
    for group in groups:
        shown = np.isin(decided, group)
        if not shown.any() or not others:
            continue
        box = bounds(shown)
        shown, likely = shown[box], probabilities[(slice(None), *box)]
        numbers = components(shown.view(np.uint8))
        area = np.bincount(numbers.ravel())
        there = likely[group].sum(0, dtype=np.int32)
        sure = np.bincount(numbers.ravel(), there.ravel()) / area
        speck = (area < SPECK * labels.size) & (sure < 255 * SPECK_KNOWN)
        gone = shown & speck[numbers]
        best = np.stack([likely[i][gone] for i in others]).argmax(0)
        decided[box][gone] = np.array(others, np.uint8)[best]
    return decided
