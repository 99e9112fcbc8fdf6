"""Large pictures without fine detail: painted at half their size, and enlarged."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

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
_REACH = 8
"""Rows around a part of a picture on which its enlarged rows may depend."""

Run = Callable[[Sequence[Callable[[], Image]]], Iterable[Image]]
"""Makes calls, and gives their results in order."""


def in_turn(calls: Sequence[Callable[[], Image]]) -> Iterator[Image]:
    """One call after the other."""
    return (call() for call in calls)


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


def enlarged(picture: Image, run: Run = in_turn) -> Image:
    """A painted picture at twice its size: bicubic, a 3×3 median against specks, and sharpening
    (docs/experiments/receiver.md). `run` may do both halves at once."""
    height = len(picture)
    spans = [(top, end) for top, end in ((0, height // 2), (height // 2, height)) if end > top]
    return np.concatenate([*run([functools.partial(_enlarged, picture, *s) for s in spans])])


def _enlarged(picture: Image, top: int, end: int) -> Image:
    """The enlarged rows from `top` to `end`."""
    first = max(0, top - _REACH)
    part = picture[first : end + _REACH]
    large = pictures.resized(part, (2 * part.shape[1], 2 * part.shape[0]))
    clean = np.empty_like(large)
    for rows, median in texture.medians(large):
        clean[rows] = median
    mask = PIL.ImageFilter.UnsharpMask(radius=1, percent=_SHARPENING, threshold=0)
    return np.array(PIL.Image.fromarray(clean).filter(mask))[2 * (top - first) : 2 * (end - first)]
