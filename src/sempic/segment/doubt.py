"""Uncertain regions of a map become void; uncertain pictures are sent without a map.

A wrong class does harm twice: its ragged outline costs bits, and the receiver paints the wrong
class. Void costs almost no bits, and the receiver then restores the coarse picture. A region
(connected pixels of one class) is kept or voided as a whole, by the mean probability of its class;
voiding single pixels would add outlines. Voiding follows simplification. In the opposite order
uncertain specks became void instead of a neighbour's class, and maps took 17 to 37 % more bits
(issue 19: CamVid 0.0392 and 0.0335 bpp, India 0.0488 and 0.0356).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sempic.check.objects import critical_ids, ids
from sempic.critical import GROUPS
from sempic.labels.regions import components
from sempic.palette import PALETTES, Palette
from sempic.scene import LabelMap, Probabilities
from sempic.segment.stakes import KNOWN, STAKES

STREET = 0.65
"""Least share of a picture that the segmenter must know for a map to be sent."""
CERTAIN = 0.77
"""Least mean probability of the likeliest classes for a map to be sent with a single picture. In
less certain pictures, other than the streets that receivers know best, maps cost more than they
gain (docs/experiments/maps.md)."""
MOST = 0.92
"""Share of one class above which a map without critical classes is not informative."""


def least(palette: Palette) -> npt.NDArray[np.float64]:
    """Mean probability of each class below which its regions become void."""
    levels = np.full(len(palette.classes), KNOWN)
    for name, stake in STAKES.items():
        levels[ids(GROUPS[name], palette)] = stake.known
    return levels


class Regions(NamedTuple):
    """The regions of a map, and their probabilities."""

    numbers: npt.NDArray[np.int64]
    """(H, W): index of each pixel's region."""
    area: npt.NDArray[np.int64]
    """(regions,): in pixels."""
    label: npt.NDArray[np.int64]
    """(regions,)"""
    mean: npt.NDArray[np.float64]
    """(regions,): mean probability of the region's label, in the unit of the probabilities."""


def regions_of(labels: LabelMap, probabilities: npt.NDArray[Any]) -> Regions:
    """The regions of a map, uint8 (H, W), with probabilities, (classes, H, W)."""
    sure = np.take_along_axis(probabilities, np.minimum(labels, len(probabilities) - 1)[None], 0)[0]
    numbers = components(labels)
    area = np.bincount(numbers.ravel())
    label = np.zeros(len(area), np.int64)
    label[numbers.ravel()] = labels.ravel()
    return Regions(numbers, area, label, np.bincount(numbers.ravel(), sure.ravel()) / area)


def known(labels: LabelMap, probabilities: Probabilities, palette: int) -> float:
    """Share of a map, 0…1, in regions with a mean probability of at least KNOWN, without void.

    Args:
        labels: uint8 (H, W), the likeliest id of each pixel.
        probabilities: of the ids, uint8 (classes, H, W) in 1/255, as the segmenter gives them.
        palette: its id.
    """
    _, area, label, mean = regions_of(labels, probabilities)
    unknown = mean < 255 * KNOWN
    if (void := PALETTES[palette].void) is not None:
        unknown |= label == void
    return 1 - float(area[unknown].sum()) / labels.size


def certainty(probabilities: Probabilities) -> float:
    """Mean probability of the likeliest class, 0…1, from uint8 (classes, H, W) in 1/255."""
    return float(probabilities.max(0).mean()) / 255


def is_informative(labels: LabelMap, palette: int) -> bool:
    """Whether a map, uint8 (H, W), is worth its bits: False if one class takes all of it, or more
    than MOST without any critical class."""
    area = np.bincount(labels.ravel(), minlength=len(PALETTES[palette].classes))
    critical = area[critical_ids(PALETTES[palette])].any()
    most = area.max()
    return bool(most <= MOST * labels.size or (most < labels.size and critical))


def void_where_unsure(labels: LabelMap, probabilities: Probabilities, palette: int) -> LabelMap:
    """The map with void in uncertain regions.

    Args:
        labels: uint8 (H, W), ids of the palette.
        probabilities: of the ids, uint8 (classes, H, W) in 1/255, as the segmenter gives them.
        palette: its id; maps of palettes without void are returned unchanged.
    """
    void = PALETTES[palette].void
    if void is None:
        return labels
    numbers, _, label, mean = regions_of(labels, probabilities)
    unsure = mean < 255 * least(PALETTES[palette])[label]
    return np.where(unsure[numbers], np.uint8(void), labels)
