"""Large pictures without fine detail: painted at half their size, and enlarged."""

from __future__ import annotations

import numpy as np
import PIL.Image
import PIL.ImageChops
import PIL.ImageFilter

from sempic import pictures, texture
from sempic.scene import Image

MOST_LOSS = {400: 8.0, 300: 6.0}
"""Shorter side that a picture exceeds → largest mean square error, in grey levels, of half the size
for `is_soft` (docs/experiments/scale.md). Networks are trained at the scale of smaller pictures."""

_SHARPENING = 100
"""Percent by which an enlarged picture is sharpened."""


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
    clean = np.empty_like(large)
    for rows, median in texture.medians(large):
        clean[rows] = median
    mask = PIL.ImageFilter.UnsharpMask(radius=1, percent=_SHARPENING, threshold=0)
    return np.array(PIL.Image.fromarray(clean).filter(mask))
