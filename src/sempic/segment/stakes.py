"""Which class a pixel is sent as, where one error is worse than another.

The likeliest class of each pixel is the best choice only if all errors are alike. Here they are
not: a person who is missed is gone, since a receiver paints what the map says, and one who is
painted in vain costs some bits. So a class counts its worth times its probability (minimum risk;
Chan et al., "Application of Decision Rules for Handling Class Imbalance in Semantic Segmentation",
arXiv 1901.08394). docs/experiments/maps.md says what that gains and costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from sempic.check.objects import bounds, ids
from sempic.critical import GROUPS
from sempic.labels.regions import components
from sempic.palette import Palette
from sempic.scene import LabelMap, Probabilities

KNOWN = 0.62
"""Mean probability below which a region of a class without a stake is void."""
SPECK = 0.0005
"""Share of the picture below which a region of a group is a speck: no receiver makes an object of
it, and its outline costs as much as one's."""
SURE = 0.6
"""Mean probability of its group from which a speck is sent all the same."""


class Stake(NamedTuple):
    """What hangs on the objects of a group."""

    worth: float
    """How many times worse it is to miss one than to send one that is not there."""
    known: float
    """Mean probability below which a region of it is void."""


Stakes: TypeAlias = Mapping[str, Stake]
"""By names of `critical.GROUPS`."""


_SMALL = Stake(worth=4, known=0.3)
STAKES: Stakes = {
    "people": _SMALL,
    "two-wheelers": _SMALL,
    "vehicles": Stake(worth=1.5, known=KNOWN),
    "signs and lights": _SMALL,
}


def worth(palette: Palette, stakes: Stakes = STAKES) -> npt.NDArray[np.float32]:
    """What a pixel of each id counts, float32 (256,)."""
    found = np.ones(256, np.float32)
    for name, stake in stakes.items():
        found[ids(GROUPS[name], palette)] = stake.worth
    return found


def decide(
    labels: LabelMap, probabilities: Probabilities, palette: Palette, stakes: Stakes = STAKES
) -> LabelMap:
    """The map of least risk, without specks that are unsure.

    Args:
        labels: uint8 (H, W), the likeliest class of each pixel.
        probabilities: of the classes, uint8 (classes, H, W) in 1/255.
        palette: of the labels.
        stakes: of its groups; a palette that has none of them is left as it is.
    """
    groups = {
        name: [i for i in ids(GROUPS[name], palette) if i < len(probabilities)] for name in stakes
    }
    critical = [i for inside in groups.values() for i in inside]
    if not critical:
        return labels
    others = [i for i in range(len(probabilities)) if i not in critical]
    weights = worth(palette, stakes)
    at = np.minimum(labels, len(probabilities) - 1)[None]
    risk, decided = np.take_along_axis(probabilities, at, 0)[0] * weights[labels], labels.copy()
    for i in critical:
        weighed = probabilities[i] * weights[i]
        decided[weighed > risk] = i
        np.maximum(weighed, risk, out=risk)
    for inside in groups.values():
        shown = np.isin(decided, inside)
        if not shown.any() or not others:
            continue
        box = bounds(shown)
        shown, likely = shown[box], probabilities[(slice(None), *box)]
        numbers = components(shown.view(np.uint8))
        area = np.bincount(numbers.ravel())
        group = likely[inside].sum(0, dtype=np.int32)
        sure = np.bincount(numbers.ravel(), group.ravel()) / area
        speck = (area < SPECK * labels.size) & (sure < 255 * SURE)
        gone = shown & speck[numbers]
        best = np.stack([likely[i][gone] for i in others]).argmax(0)
        decided[box][gone] = np.array(others, np.uint8)[best]
    return decided
