"""Large pictures without fine detail: painted at half their size, and enlarged."""

from __future__ import annotations

import functools

import numpy as np
import PIL.Image
import PIL.ImageChops
import PIL.ImageFilter

from sempic import pictures
from sempic.scene import Image

MOST_LOSS = {400: 8.0, 300: 6.0}
"""Shorter side that a picture exceeds → largest mean square error, in grey levels, of half the size
for `is_soft` (docs/experiments/scale.md). Networks are trained at the scale of smaller pictures."""

_SHARPENING = 100
"""Percent by which an enlarged picture is sharpened."""
_ROWS = 64
"""Rows per block in `doubled`: a block fits in the processor's cache."""


def is_soft(picture: Image, factor: float = 1.0) -> bool:
    """Whether a picture, uint8 (H, W, 3), is large and loses no detail at half its size
    (`MOST_LOSS` times `factor`), like most frames of cameras."""
    height, width = picture.shape[:2]
    allowed = [loss for side, loss in MOST_LOSS.items() if min(height, width) > side]
    if not allowed:
        return False
    grey = PIL.Image.fromarray(picture[: height // 2 * 2, : width // 2 * 2]).convert("L")
    enlarged = grey.reduce(2).resize(grey.size, PIL.Image.Resampling.BICUBIC)
    counts = np.array(PIL.ImageChops.difference(grey, enlarged).histogram())
    return float(counts @ np.arange(256) ** 2 / counts.sum()) <= factor * allowed[0]


def doubled(picture: Image) -> Image:
    """A painted picture at twice its size: bicubic, a 3×3 median against specks, and sharpening
    (docs/experiments/receiver.md)."""
    large = pictures.resized(picture, (2 * picture.shape[1], 2 * picture.shape[0]))
    clean = np.empty_like(large)
    for top in range(0, len(large), _ROWS):
        stop = min(top + _ROWS, len(large))
        clean[top:stop] = _median(large[np.arange(top - 1, stop + 1).clip(0, len(large) - 1)])
    mask = PIL.ImageFilter.UnsharpMask(radius=1, percent=_SHARPENING, threshold=0)
    return np.array(PIL.Image.fromarray(clean).filter(mask))


def _median(picture: Image) -> Image:
    """The 3×3 median, (H - 2, W, 3) of (H, W, 3); the left and right edges are repeated."""
    columns = np.pad(picture, ((0, 0), (1, 1), (0, 0)), mode="edge")
    above, here, below = columns[:-2], columns[1:-1], columns[2:]
    least, most = np.minimum(above, here), np.maximum(above, here)
    least, middle = np.minimum(least, below), np.minimum(most, np.maximum(least, below))
    most = np.maximum(most, below)
    sides = [np.s_[:, i : i + picture.shape[1]] for i in range(3)]
    low = functools.reduce(np.maximum, (least[side] for side in sides))
    high = functools.reduce(np.minimum, (most[side] for side in sides))
    return _median_of_3(low, _median_of_3(*(middle[side] for side in sides)), high)


def _median_of_3(a: Image, b: Image, c: Image) -> Image:
    median: Image = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))
    return median
