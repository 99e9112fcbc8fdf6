"""Large pictures without fine detail: painted at half their size, and enlarged."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageChops

from sempic import pictures
from sempic.compiling import kernel
from sempic.scene import Image

MOST_LOSS = {400: 8.0, 300: 6.0}
"""Shorter side that a picture exceeds → largest mean square error, in grey levels, of half the size
for `is_soft` (docs/experiments/scale.md). Networks are trained at the scale of smaller pictures."""

_ROWS = 64
"""Rows that are sharpened at a time; they fit in a cache."""
_REACH = 3
"""Pixels on which a sharpened pixel depends, besides its median."""


def is_soft(picture: Image, factor: float = 1.0) -> bool:
    """Whether a picture, uint8 (H, W, 3), is large and loses no detail at half its size
    (`MOST_LOSS` times `factor`), like most frames of cameras."""
    height, width = picture.shape[:2]
    allowed = [loss for side, loss in MOST_LOSS.items() if min(height, width) > side]
    if not allowed:
        return False
    grey = PIL.Image.fromarray(picture[: height // 2 * 2, : width // 2 * 2]).convert("L")
    back = grey.reduce(2).resize(grey.size, PIL.Image.Resampling.BICUBIC)
    counts = np.array(PIL.ImageChops.difference(grey, back).histogram())
    return float(counts @ np.arange(256) ** 2 / counts.sum()) <= factor * allowed[0]


def enlarged(picture: Image) -> Image:
    """A painted picture at twice its size: bicubic, a 3×3 median against specks, and sharpening
    (docs/experiments/receiver.md)."""
    large = pictures.resized(picture, (2 * picture.shape[1], 2 * picture.shape[0]))
    height, width = large.shape[:2]
    found = np.empty_like(large)
    for top in range(0, height, _ROWS):
        end = min(top + _ROWS, height)
        first, last = max(top - _REACH, 0), min(end + _REACH, height)
        rows = large[np.arange(first - 1, last + 1).clip(0, height - 1)]
        rows = np.pad(rows, ((0, 0), (1, 1), (0, 0)), mode="edge").reshape(len(rows), -1)
        clean = np.empty((len(rows) + 1, rows.shape[1]), np.uint8)
        blurred = np.empty((2, last - first, rows.shape[1]), np.uint8)
        _sharpen(rows, clean, blurred[0], blurred[1], first == 0, last == height)
        found[top:end] = clean[top - first : end - first, 3:-3].reshape(-1, width, 3)
    return found


@kernel
def _sharpen(rows: Any, clean: Any, blurred: Any, other: Any, begins: Any, ends: Any) -> None:
    """Pillow's MedianFilter(3), then its UnsharpMask(1, 100, 0), which takes ten times as long.

    Args:
        rows: uint8 (n + 2, 3 columns + 6), values of pixels, with those around them.
        clean: uint8 (n + 3, …); its first n rows become the result, but for the first and last
            three rows unless these are the picture's.
        blurred, other: uint8 (n, …), for results in between.
        begins, ends: whether the rows are the picture's first and last ones.
    """
    n, width = blurred.shape
    low, middle, high = clean[n], clean[n + 1], clean[n + 2]
    for y in range(n):
        for x in range(width):
            a, b, c = rows[y, x], rows[y + 1, x], rows[y + 2, x]
            less, more = min(a, b), max(a, b)
            low[x], middle[x], high[x] = min(less, c), min(more, max(less, c)), max(more, c)
        for x in range(width - 6):
            least = max(low[x], max(low[x + 3], low[x + 6]))
            most = min(high[x], min(high[x + 3], high[x + 6]))
            less, more = min(middle[x], middle[x + 3]), max(middle[x], middle[x + 3])
            typical = min(more, max(less, middle[x + 6]))
            less, more = min(least, most), max(least, most)
            clean[y, x + 3] = min(more, max(less, typical))
        for turn in range(3):
            source = clean[y] if turn == 0 else low if turn == 1 else high
            target = low if turn == 0 else high if turn == 1 else blurred[y]
            for x in range(3):  # edges are repeated
                source[x], source[width - 3 + x] = source[3 + x], source[width - 6 + x]
            _smooth(source[:-6], source[3:-3], source[6:], target[3:-3])
    top, end = 0, n
    for turn in range(3):
        # Two arrays: of rows of one array the compiler does not know that they do not overlap.
        if turn == 1:
            _smooth_columns(other, blurred, top, end)
        else:
            _smooth_columns(blurred, other, top, end)
        top, end = top + (not begins), end - (not ends)
    for y in range(top, end):
        for x in range(width):
            sharp = 2 * np.int32(clean[y, x]) - np.int32(other[y, x])
            clean[y, x] = min(max(sharp, 0), 255)


@kernel
def _smooth_columns(source: Any, target: Any, top: Any, end: Any) -> None:
    """Each row from `top` to `end` with the rows above and below it; edges are repeated."""
    for y in range(top, end):
        _smooth(source[max(y - 1, top)], source[y], source[min(y + 1, end - 1)], target[y])


@kernel
def _smooth(before: Any, here: Any, after: Any, target: Any) -> None:
    """Means with weights 1, 4 and 1, rounded as Pillow's: three make a Gaussian blur of radius 1
    (Gwosdek et al., "Theoretical Foundations of Gaussian Convolution by Extended Box Filtering",
    2011)."""
    for i in range(target.shape[0]):
        far, near = np.int32(before[i]) + np.int32(after[i]), np.int32(here[i])
        target[i] = (far + 4 * near + 2 + (near >= 2 * far)) * 10923 >> 16  # a sixth
