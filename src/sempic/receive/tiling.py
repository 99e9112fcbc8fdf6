"""Large pictures in overlapping tiles, which a network paints two at a time."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sempic.models import runtime
from sempic.scene import LabelMap

_Floats = npt.NDArray[np.float32]

AREA = 1 << 19
"""Most pixels of a tile; smaller pictures are one tile."""
OVERLAP = 96
"""Least overlap of neighbouring tiles, in pixels, in which they are cross-faded."""
_STEP = 128
"""Least distance of neighbouring tiles, in pixels."""
PATCH = 4
"""Side of the network's patches, in pixels."""
MULTIPLE = 16
"""The sides of the network's input are multiples of this."""


def tiled(
    denoise: Callable[[_Floats, _Floats, LabelMap], _Floats],
    noisy: _Floats,
    small: _Floats,
    labels: LabelMap,
    advance: Callable[[], object],
) -> _Floats:
    """The residual, (3, H, W), of cross-faded tiles.

    Args:
        denoise: (noisy, small, labels) of a tile → its residual.
        noisy: (3, H, W).
        small: (C, H / PATCH, W / PATCH), the network's inputs for each patch.
        labels: uint8 (H, W).
        advance: called after each tile.
    """
    rows, columns = labels.shape
    boxes = tiles(rows, columns)
    if len(boxes) == 1:
        whole = denoise(noisy, small, labels)
        advance()
        return whole
    calls = []
    for (top, bottom), (left, right) in boxes:
        patches = small[:, top // PATCH : bottom // PATCH, left // PATCH : right // PATCH]
        tile = noisy[:, top:bottom, left:right], patches, labels[top:bottom, left:right]
        calls.append(functools.partial(denoise, *tile))
    total = np.zeros_like(noisy)
    weights = np.zeros((rows, columns), np.float32)
    for ((top, bottom), (left, right)), part in zip(boxes, runtime.paired(calls), strict=True):
        fade = np.outer(_fade(top, bottom, rows), _fade(left, right, columns))
        total[:, top:bottom, left:right] += part * fade
        weights[top:bottom, left:right] += fade
        advance()
    total /= weights
    return total


def tiles(rows: int, columns: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Tiles of at most AREA that cover a picture, with the fewest pixels: start and end of the rows
    and of the columns of each."""

    def pixels(counts: tuple[int, ...]) -> tuple[bool, int]:
        """Whether tiles are too large, and the pixels of all."""
        area = _length(rows, counts[0]) * _length(columns, counts[1])
        return area > AREA, area * counts[0] * counts[1]

    counts = (range(1, max(1, side // _STEP) + 1) for side in (rows, columns))
    down, across = min(itertools.product(*counts), key=pixels)
    return list(itertools.product(_spread(rows, down), _spread(columns, across)))


def _length(size: int, count: int) -> int:
    """Length of `count` tiles that cover `size`."""
    return -(-(size + (count - 1) * OVERLAP) // (count * MULTIPLE)) * MULTIPLE


def _spread(size: int, count: int) -> list[tuple[int, int]]:
    """Start and end of `count` evenly spread tiles that cover `size`."""
    length = _length(size, count)
    starts = [
        (size - length) * step // max(1, count - 1) // MULTIPLE * MULTIPLE for step in range(count)
    ]
    return [(start, start + length) for start in starts]


def _fade(start: int, end: int, size: int) -> _Floats:
    """Weights along a side of a tile: a ramp at each end that overlaps another tile.

    The weight of the outermost quarter of the overlap is 0, because padding affects the network
    there.
    """
    ramp = (np.arange(end - start, dtype=np.float32) + 0.5 - OVERLAP / 4) / (OVERLAP / 2)
    ramp = np.clip(ramp, 0, 1)
    weight = np.ones(end - start, np.float32)
    if start > 0:
        weight = np.minimum(weight, ramp)
    if end < size:
        weight = np.minimum(weight, ramp[::-1])
    return weight
