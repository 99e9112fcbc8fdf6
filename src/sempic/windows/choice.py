"""Choice of the cells of a picture that windows must or must not cover."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sempic import checks
from sempic.errors import InputError, naming
from sempic.palette import Palette, folded, numbers, rejoined
from sempic.scene import LabelMap, Probabilities
from sempic.windows.layout import Cells, touched

Box: TypeAlias = tuple[int, ...]
"""Left, top, width, height, in pixels."""
Mask: TypeAlias = npt.NDArray[np.bool_]
"""Pixels of a picture, (H, W)."""
MARGIN = 3
"""Pixels around an object that its window covers, too: the window fades there."""
APART = 4
"""Pixels around imagined objects that no window covers: maps are not exact to the pixel."""
LIKELY = 0.25
"""Probability from which a pixel may show what must not be missed."""
_PEOPLE = ("person", "pedestrian", "rider", "bicyclist")
"""If one of these classes is to be imagined, all are: each shows people."""


def kept(objects: Mask, boxes: Collection[Box] = ()) -> Cells:
    """The cells of objects, by a mask of the picture's size, and of boxes.

    Raises InputError: a box outside the picture.
    """
    mask = grown(objects, MARGIN)
    for box in boxes:
        check_box(box, mask.shape[::-1])
        x, y, w, h = box
        mask[max(y, 0) : y + h, max(x, 0) : x + w] = True
    return touched(mask)


def possible(labels: LabelMap, probabilities: Probabilities | None, ids: Collection[int]) -> Mask:
    """Where a network sees one of the ids, or all together have a probability of LIKELY.

    labels: uint8 (H, W). probabilities: of the ids, uint8 (C, H, W) in 1/255; None if unknown.
    """
    found = np.isin(labels, list(ids))
    if probabilities is not None:
        there = [i for i in ids if i < len(probabilities)]
        found |= probabilities[there].sum(0, dtype=np.int32) >= LIKELY * 255
    return found


def check_box(box: Box, size: tuple[int, ...]) -> None:
    """Raises InputError unless a box is at least partly in a picture of (width, height) `size`."""
    width, height = size
    x, y, w, h = (checks.whole("a side of a box", value) for value in box)
    if not (w > 0 and h > 0 and -w < x < width and -h < y < height):
        raise InputError(f"the box {x},{y},{w},{h} is not in the picture of {width}×{height}")


def apart(mask: Mask) -> Cells:
    """The cells that no window may cover, so that none shows pixels of a mask, (height, width)."""
    return touched(grown(mask, APART))


def apart_in(
    palette: Palette, keep: Collection[str], imagine: Collection[str]
) -> tuple[list[str], list[str]]:
    """The classes to keep and those to imagine, from the lists of the options (`rejoined`).

    Raises InputError: a class that the palette does not have, or one to keep and to imagine.
    """
    keep, imagine = rejoined(keep, palette), rejoined(imagine, palette)
    with naming("imagine"):
        never = imagined_numbers(imagine, palette)
    with naming("keep"):
        found = numbers(keep, palette)
    for name, number in zip(keep, found, strict=True):
        if number in never:
            raise InputError(f"class {name!r} cannot be kept and imagined at once")
    return keep, imagine


def imagined_numbers(classes: Collection[str], palette: Palette) -> list[int]:
    """As `numbers`, with all classes of people if one is among them."""
    found = numbers(classes, palette)
    if any(folded(name) in _PEOPLE for name in classes):
        found += [i for i, name in enumerate(palette.classes) if folded(name) in _PEOPLE]
    return found


def grown(mask: Mask, pixels: int) -> Mask:
    """A mask, bool (H, W), dilated by a square of 2 · pixels + 1."""
    for _ in range(2):  # along columns, then, transposed, along rows
        reached = mask.copy("K")
        for i in range(1, pixels + 1):
            reached[i:] |= mask[:-i]
            reached[:-i] |= mask[i:]
        mask = reached.T
    return mask
