"""Where a segmenter does not know, the map says void: region by region, so that no outline is new.

A wrong class costs bits twice: its ragged outlines are coded, and the receiver paints it. Void
costs next to nothing, and the receiver restores what the coarse picture shows there. Whole regions
of the map (connected pixels of one class) are kept or become void, by the mean probability that
the segmenter gives to their class; single pixels would have more outline than the class had. Void
comes after simplification: before it, unsure scraps became void instead of a neighbour's, and the
map took 17 to 37 % more bits (issue 19: CamVid 0.0392 and 0.0335 bpp, India 0.0488 and 0.0356).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sempic.check.objects import ids
from sempic.critical import GROUPS
from sempic.labels.regions import components
from sempic.palette import PALETTES, Palette
from sempic.scene import LabelMap, Probabilities
from sempic.segment.stakes import KNOWN, STAKES

STREET = 0.65
"""A picture of which less than this share is known is sent without a map."""
SURE = 0.77
"""So is a single picture whose pixels' classes have a lower mean probability: elsewhere than in the
streets that receivers know best a map costs more there than it gives (docs/experiments/maps.md)."""
MOST = 0.92
"""And one of whose map one class takes more than this share, if nothing in it is critical: where
what is would be known without it."""


def least(palette: Palette) -> npt.NDArray[np.float64]:
    """The mean probability of each class below which a region of it is void."""
    found = np.full(len(palette.classes), KNOWN)
    for name, stake in STAKES.items():
        found[ids(GROUPS[name], palette)] = stake.known
    return found


class Regions(NamedTuple):
    """The regions of a map, and how sure a segmenter is of each."""

    numbers: npt.NDArray[np.int64]
    """(H, W): of each pixel's region."""
    area: npt.NDArray[np.int64]
    """Of each region, in pixels, as all that follows."""
    label: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float64]
    """Of the probability of its label, in their unit."""


def regions_of(labels: LabelMap, probabilities: npt.NDArray[Any]) -> Regions:
    """The regions of a map, uint8 (H, W), by probabilities of (classes, H, W)."""
    sure = np.take_along_axis(probabilities, np.minimum(labels, len(probabilities) - 1)[None], 0)[0]
    numbers = components(labels)
    area = np.bincount(numbers.ravel())
    label = np.zeros(len(area), np.int64)
    label[numbers.ravel()] = labels.ravel()
    return Regions(numbers, area, label, np.bincount(numbers.ravel(), sure.ravel()) / area)


def known(labels: LabelMap, probabilities: Probabilities, palette: int) -> float:
    """The share of a map that is known: in regions of a mean probability of KNOWN, whatever class.

    Args:
        labels: uint8 (H, W), the likeliest ids of the palette: any other choice is known less.
        probabilities: of the ids, uint8 (classes, H, W) in 1/255, as the segmenter gives them.
        palette: its id.
    """
    _, area, label, mean = regions_of(labels, probabilities)
    unknown = mean < 255 * KNOWN
    if (void := PALETTES[palette].void) is not None:
        unknown |= label == void
    return 1 - float(area[unknown].sum()) / labels.size


def certainty(probabilities: Probabilities) -> float:
    """The mean probability of the likeliest class, 0…1, of uint8 (classes, H, W) in 1/255."""
    return float(probabilities.max(0).mean()) / 255


def tells(labels: LabelMap, palette: int) -> bool:
    """Whether a map, uint8 (H, W) of a palette's ids, tells what is where: not of a picture that is
    one class but for scraps of which none is critical."""
    area = np.bincount(labels.ravel(), minlength=len(PALETTES[palette].classes))
    critical = [i for group in GROUPS.values() for i in ids(group, PALETTES[palette])]
    most = area.max()
    return bool(most <= MOST * labels.size or (most < labels.size and area[critical].any()))


def void_where_unsure(labels: LabelMap, probabilities: Probabilities, palette: int) -> LabelMap:
    """The map with void where the segmenter does not know.

    Args:
        labels: uint8 (H, W), ids of the palette.
        probabilities: of the ids, uint8 (classes, H, W) in 1/255, as the segmenter gives them.
        palette: its id; one without void is left as it is.
    """
    void = PALETTES[palette].void
    if void is None:
        return labels
    numbers, _, label, mean = regions_of(labels, probabilities)
    unsure = mean < 255 * least(PALETTES[palette])[label]
    return np.where(unsure[numbers], np.uint8(void), labels)
