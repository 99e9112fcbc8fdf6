"""How strong detail is: what a picture shows beyond its coarse picture, class by class.

A receiver cannot see in a coarse picture whether asphalt is grainy or blurred, and paints it as it
has learnt to. So a sender says how strong detail usually is in each class, and the receiver takes
back what it has painted beyond that.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from sempic.scene import LabelMap

Strengths = Mapping[int, int]
"""By id, or WITHOUT: the median of the magnitude of detail, in luma, in 1/UNIT levels."""
UNIT = 8
WITHOUT = 256
"""Stands for all of a picture without a map."""
_MOST = 255
_AREA = 400
"""Pixels of a class that is measured."""
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)
_WANTED = 0.75
"""What is asked for, of what is measured: detail that is painted is at other places than that which
was there, and looks stronger by as much (LPIPS of both clips, docs/guides/sequences.md)."""
_CHANGE = 1 / 6
"""A strength is said anew if it changed by so much of itself, and by more than one unit."""


def strengths(detail: npt.NDArray[np.float32], labels: LabelMap | None) -> dict[int, int]:
    """Of what a picture is more than its coarse picture, float32 (H, W, 3).

    labels: uint8 (H, W). Small classes are left out.
    """
    levels = np.minimum(np.abs(detail @ _LUMA) * UNIT + 0.5, _MOST).astype(np.int64)
    if labels is None:
        labels = np.zeros(levels.shape, np.uint8)
        names: npt.NDArray[np.int64] = np.array([WITHOUT])
    else:
        names = np.arange(int(labels.max()) + 1)
    places = (labels.astype(np.int64) * (_MOST + 1) + levels).ravel()
    counts = np.bincount(places, minlength=len(names) * (_MOST + 1)).reshape(len(names), -1)
    area = counts.sum(1)
    medians = (2 * counts.cumsum(1) >= area[:, None]).argmax(1)
    return {int(n): int(m) for n, m, a in zip(names, medians, area, strict=True) if a >= _AREA}


def news(found: Strengths, said: Strengths) -> dict[int, int]:
    """What is to be said of a picture, given what was said before."""
    wanted = {number: round(_WANTED * strength) for number, strength in found.items()}
    return {
        number: strength
        for number, strength in wanted.items()
        if number not in said
        or abs(strength - said[number]) > max(1, _CHANGE * max(strength, said[number]))
    }


def heed(detail: npt.NDArray[np.float32], labels: LabelMap | None, said: Strengths) -> None:
    """Weakens detail, float32 (H, W, 3), where it is stronger than was said; arguments as of
    `strengths`."""
    for number, strength in strengths(detail, labels).items():
        if number not in said or strength <= said[number]:
            continue
        share = np.float32(said[number] / strength)
        if labels is None:
            detail *= share
        else:
            detail[labels == number] *= share
