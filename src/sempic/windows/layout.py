"""Places of windows: in picture, atlas, and the payload's header (docs/spec/format.md §7).

The unit is the cell, a square of CELL pixels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from sempic.bits import Bits, packed, ue
from sempic.coarse.planes import MAX_SIDE
from sempic.errors import CorruptStream, LimitExceeded

CELL = 8
"""Side of a cell, in pixels."""
MOST = 255
"""Windows of a stream, at most."""
LONGEST = MAX_SIDE // CELL
"""Longest side of a window, in cells: that of the atlas."""

Cells: TypeAlias = npt.NDArray[np.bool_]
"""bool (rows, columns), a value per cell of a picture; the last cells may exceed the picture."""


class Place(NamedTuple):
    """A rectangle, in cells."""

    x: int
    y: int
    width: int
    height: int

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns in an array of cells."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    @property
    def pixels(self) -> tuple[slice, slice]:
        """Rows and columns in an array of pixels."""
        return Place(*(CELL * cells for cells in self)).inside


def grid(width: int, height: int) -> tuple[int, int]:
    """Columns and rows of cells of a picture; width, height: in pixels."""
    return -(-width // CELL), -(-height // CELL)


def touched(
    mask: npt.NDArray[np.bool_], corner: tuple[int, int] = (0, 0), size: tuple[int, ...] = ()
) -> Cells:
    """The cells that contain a pixel of a mask, bool (h, w).

    corner: row and column of the mask's first pixel in a picture of `size` (height, width). Without
    a size, the mask is that of the whole picture.
    """
    height, width = size or mask.shape
    columns, rows = grid(width, height)
    found = np.zeros((rows, columns), bool)
    y, x = np.nonzero(mask)
    found[(y + corner[0]) // CELL, (x + corner[1]) // CELL] = True
    return found


def rectangles(cells: Cells) -> list[Place]:
    """Places that cover these cells exactly, without overlap, none longer than LONGEST.

    They are sorted by falling height, then width, and so fill the atlas's shelves well.
    """
    left = cells.copy()
    places = []
    while left.any():
        y, x = map(int, np.unravel_index(left.argmax(), left.shape))
        places.append(max(_extended(left, x, y), key=lambda place: place.width * place.height))
        left[places[-1].inside] = False
    return sorted(places, key=lambda place: (-place.height, -place.width, place.y, place.x))


def covered(cells: Cells, never: Cells) -> Cells:
    """These cells and, if they take more than MOST rectangles, cells around them, except `never`.

    Whole squares are taken, 2, 4, … cells wide, until MOST rectangles are enough or a square is as
    large as the picture (and `never` still divides it).
    """
    found, side = cells, 1
    while len(rectangles(found)) > MOST and side < max(cells.shape):
        squares, side = cells, 2 * side
        for axis, length in enumerate(cells.shape):
            squares = np.logical_or.reduceat(squares, range(0, length, side), axis)
            squares = squares.repeat(side, axis).take(range(length), axis)
        found = squares & ~never
    return found


def atlas(sizes: Sequence[tuple[int, int]]) -> tuple[list[Place], int, int]:
    """The places of windows in the atlas, and the atlas's width and height.

    sizes: (width, height) of each window. The atlas consists of shelves from top to bottom. Windows
    fill a shelf from the left, in their order; a window that does not fit begins the next shelf. A
    shelf is as high as its highest window.
    """
    area = sum(width * height for width, height in sizes)
    width = max(2, 1 + math.isqrt(area - 1), *(width for width, _ in sizes))
    places = []
    x = y = shelf = 0
    for w, h in sizes:
        if x + w > width:
            x, y, shelf = 0, y + shelf, 0
        places.append(Place(x, y, w, h))
        x, shelf = x + w, max(shelf, h)
    return places, width, max(2, y + shelf)


def write(places: Sequence[Place], columns: int, rows: int, flag: bool) -> bytes:
    """The header of the payload: number and places of windows, a flag; columns, rows: `grid`."""
    bits = ue(len(places) - 1)
    for place in places:
        bits += _fixed(place.x, columns) + _fixed(place.y, rows)
        bits += _side(place.width) + _side(place.height)
    return packed(bits + "01"[flag])


def read(payload: bytes, columns: int, rows: int) -> tuple[list[Place], bool, int]:
    """The places, the flag, and the length of the header in bytes; columns, rows: `grid`.

    Raises a BitstreamError: TruncatedStream; LimitExceeded for more than MOST windows;
    CorruptStream for windows outside the picture or overlapping, and for padding bits other than 0.
    """
    bits = Bits(payload, "the header of the windows")
    count = bits.ue() + 1
    if count > MOST:
        raise LimitExceeded(f"{count} windows are more than the limit of {MOST}")
    taken = np.zeros((rows, columns), bool)
    places = []
    for number in range(1, count + 1):
        x, y = (bits.number((most - 1).bit_length()) for most in (columns, rows))
        place = Place(x, y, *(2 * bits.ue() + bits.number(1) + 1 for _ in range(2)))
        if x + place.width > columns or y + place.height > rows:
            raise CorruptStream(f"window {number} reaches beyond the picture")
        if taken[place.inside].any():
            raise CorruptStream(f"window {number} overlaps another")
        taken[place.inside] = True
        places.append(place)
    flag = bits.take(1) == "1"
    if "1" in bits.take(-bits.at % 8):
        raise CorruptStream("the header of the windows is longer than need be")
    return places, flag, bits.at // 8


def _extended(left: Cells, x: int, y: int) -> Iterator[Place]:
    """Two rectangles of `left` from a cell: extended right, then down; and down, then right."""
    left = left[y : y + LONGEST, x : x + LONGEST]
    width = _run(left[0])
    yield Place(x, y, width, _run(left[:, :width].all(1)))
    height = _run(left[:, 0])
    yield Place(x, y, _run(left[:height].all(0)), height)


def _run(row: Any) -> int:
    """The number of true values before the first false one."""
    return sum(1 for _ in itertools.takewhile(bool, row))


def _fixed(value: int, count: int) -> str:
    """The bits of a number below `count`, as many as `count` - 1 needs."""
    length = (count - 1).bit_length()
    return f"{value:0{length}b}" if length else ""


def _side(cells: int) -> str:
    """The Exp-Golomb code of order 1 of a side: one to six cells take two to four bits."""
    more, last = divmod(cells - 1, 2)
    return ue(more) + str(last)
