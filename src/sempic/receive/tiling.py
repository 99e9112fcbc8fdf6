"""Large pictures in overlapping tiles, which a network paints one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sempic.scene import LabelMap

_Floats = npt.NDArray[np.float32]

TILE = 1024
"""Longest side of a tile, in pixels; smaller pictures are one tile."""
OVERLAP = 128
"""Least overlap of neighbouring tiles, in pixels, in which they are cross-faded."""
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
    _, rows, columns = noisy.shape
    if max(rows, columns) <= TILE:
        whole = denoise(noisy, small, labels)
        advance()
        return whole
    total = np.zeros_like(noisy)
    weights = np.zeros((rows, columns), np.float32)
    for top, bottom in tiles(rows):
        for left, right in tiles(columns):
            part = denoise(
                noisy[:, top:bottom, left:right],
                small[:, top // PATCH : bottom // PATCH, left // PATCH : right // PATCH],
                labels[top:bottom, left:right],
            )
            fade = np.outer(_fade(top, bottom, rows), _fade(left, right, columns))
            total[:, top:bottom, left:right] += part * fade
            weights[top:bottom, left:right] += fade
            advance()
    total /= weights
    return total


def tiles(size: int) -> list[tuple[int, int]]:
    """Start and end of evenly spread tiles that cover `size` and overlap by OVERLAP or more."""
    count = max(1, -(-(size - OVERLAP) // (TILE - OVERLAP)))
    length = min(size, TILE)
    starts = [
        (size - length) * index // max(1, count - 1) // MULTIPLE * MULTIPLE
        for index in range(count)
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
