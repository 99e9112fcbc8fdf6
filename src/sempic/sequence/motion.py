"""How a scene moved, by what sender and receiver both see of it: no bit is sent for it.

What exposure changes is taken away first: of each pixel the mean around it. Blocks of the
present coarse luma are looked for in the last one: every whole step within REACH,
then smoothed among neighbours, then refined to quarters of a coarse pixel. Each coarse pixel takes
the vector of its own or a neighbouring block that fits it best, so that motion ends where things
do. Integers only, docs/spec/sequence.md §5: both sides move the last label map alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from sempic.compiling import kernel
from sempic.scene import Plane

Vectors: TypeAlias = npt.NDArray[np.int16]
"""int16 (2, h, w): for each coarse pixel, by how many quarters of one its content was further down
and to the right in the last picture."""

BLOCK = 4
"""Side of a block, in coarse pixels."""
REACH = 10
"""How far a block may have moved, in coarse pixels, along each axis."""
STEPS = 4
"""Of a vector, in a coarse pixel."""
_WINDOW = 2
"""What is compared reaches so far beyond a block."""
_SPAN = BLOCK + 2 * _WINDOW
_PAD = REACH + _SPAN + 2
_OWN = 12
"""What a neighbour's vector must save at a coarse pixel, over 3 × 3 of them."""


class Inertia(NamedTuple):
    """What speaks for a vector beside that it fits."""

    same: int
    """A block that differs by less from the same place in the last picture has not moved."""
    still: int
    """What a vector must save, in sums of differences over a window, for each pixel of it."""
    smooth: int
    """The same for each quarter by which it is unlike each of its four neighbours."""


INERTIA = {1: Inertia(96, 8, 3), 2: Inertia(192, 12, 3)}
"""By version of the format, and of those since."""
_AROUND = 8
"""What is taken away is the mean of all that is so near, along each axis."""

_T = TypeVar("_T", bound=np.generic)


def levelled(plane: Plane) -> Plane:
    """A luma, uint8 (h, w), about 128: each pixel less the mean around it."""
    side = 2 * _AROUND + 1
    sums = np.pad(plane.astype(np.int64), _AROUND, mode="edge").cumsum(0).cumsum(1)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    total = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    found: Plane = (plane - total // side**2 + 128).clip(0, 255).astype(np.uint8)
    return found


def estimate(last: Plane, now: Plane, version: int = max(INERTIA)) -> Vectors:
    """Where the content of each pixel of `now` was in `last`; both are uint8 (h, w).

    version: of the format; from 2 on exposure does not count.
    """
    inertia = INERTIA[min(version, max(INERTIA))]
    if version > 1:
        last, now = levelled(last), levelled(now)
    if np.array_equal(last, now):
        return np.zeros((2, *now.shape), np.int16)
    height, width = now.shape
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    pad = (
        (_PAD, _PAD + rows * BLOCK - height),
        (_PAD, _PAD + columns * BLOCK - width),
    )
    before, after = (np.pad(plane, pad, mode="edge").astype(np.int32) for plane in (last, now))
    blocks = np.zeros((2, rows, columns), np.int16)
    _search(before, after, blocks, *inertia[:2])
    for step in (STEPS, 2, 1):
        _refine(before, after, blocks, step, *inertia[1:])
    vectors = np.zeros((2, height, width), np.int16)
    _assign(before, after, blocks, vectors)
    return vectors


def enlarge(vectors: Vectors, factor: int, height: int, width: int) -> npt.NDArray[np.int32]:
    """Where each pixel of a picture was: flat places in it, int32 (height, width).

    factor: by which the picture is larger than the coarse one. Places beyond the edge are moved to
    the edge.
    """
    places = np.empty((height, width), np.int32)
    _places(vectors, factor, places)
    return places


def move(plane: npt.NDArray[_T], places: npt.NDArray[np.int32]) -> npt.NDArray[_T]:
    """A plane of the last picture, (…, height, width), as it should look now."""
    flat = plane.reshape(*plane.shape[:-2], -1)
    moved: npt.NDArray[_T] = np.take(flat, places, axis=-1)
    return moved


@kernel
def _difference(before: Any, after: Any, y: Any, x: Any, span: Any, dy: Any, dx: Any,
                most: Any) -> Any:  # fmt: skip
    """Sum of absolute differences over span × span pixels from (y, x), of a vector in quarters;
    any number from `most` on where it is no less."""
    iy, ix = y + (dy >> 2), x + (dx >> 2)
    fy, fx = dy & 3, dx & 3
    total = 0
    for i in range(span):
        for j in range(span):
            if fy == 0 and fx == 0:
                found = before[iy + i, ix + j]
            else:
                upper = before[iy + i, ix + j] * (4 - fx) + before[iy + i, ix + j + 1] * fx
                lower = before[iy + i + 1, ix + j] * (4 - fx) + before[iy + i + 1, ix + j + 1] * fx
                found = (upper * (4 - fy) + lower * fy + 8) >> 4
            total += abs(after[y + i, x + j] - found)
        if total >= most:
            break
    return total


@kernel
def _search(before: Any, after: Any, blocks: Any, same: Any, still: Any) -> None:
    """The best whole step of each block."""
    for row in range(blocks.shape[1]):
        for column in range(blocks.shape[2]):
            y, x = row * BLOCK + _PAD - _WINDOW, column * BLOCK + _PAD - _WINDOW
            best = _difference(before, after, y, x, _SPAN, 0, 0, 1 << 30)
            by = bx = 0
            if best < same:
                continue
            for dy in range(-REACH, REACH + 1):
                for dx in range(-REACH, REACH + 1):
                    price = still * (abs(dy) + abs(dx))
                    if price >= best:
                        continue
                    cost = price + _difference(
                        before, after, y, x, _SPAN, STEPS * dy, STEPS * dx, best - price
                    )
                    if cost < best:
                        best, by, bx = cost, dy, dx
            blocks[0, row, column], blocks[1, row, column] = STEPS * by, STEPS * bx


@kernel
def _beside(blocks: Any, row: Any, column: Any, side: Any) -> Any:
    """The vector of the block below, above, on the right or on the left; at the edge its own."""
    r = min(max(row + (side == 0) - (side == 1), 0), blocks.shape[1] - 1)
    c = min(max(column + (side == 2) - (side == 3), 0), blocks.shape[2] - 1)
    return np.int64(blocks[0, r, c]), np.int64(blocks[1, r, c])


@kernel
def _refine(before: Any, after: Any, blocks: Any, step: Any, still: Any, smooth: Any) -> None:
    """Each block takes the best of its own vector, those of its neighbours, none, and those around
    its own at this step."""
    limit: Any = STEPS * REACH
    for row in range(blocks.shape[1]):
        for column in range(blocks.shape[2]):
            y, x = row * BLOCK + _PAD - _WINDOW, column * BLOCK + _PAD - _WINDOW
            oy: Any = np.int64(blocks[0, row, column])
            ox: Any = np.int64(blocks[1, row, column])
            best: Any = 1 << 30
            by, bx = oy, ox
            for which in range(14):
                vy: Any = oy
                vx: Any = ox
                if 0 < which < 5:
                    vy, vx = _beside(blocks, row, column, which - 1)
                elif which == 5:
                    vy = vx = np.int64(0)
                elif which > 5:
                    around = which - 6 + (which > 9)
                    vy = min(max(oy + step * (around // 3 - 1), -limit), limit)
                    vx = min(max(ox + step * (around % 3 - 1), -limit), limit)
                if which and vy == oy and vx == ox:
                    continue
                price = still * (abs(vy) + abs(vx)) // STEPS
                for side in range(4):
                    ny, nx = _beside(blocks, row, column, side)
                    price += smooth * (abs(vy - ny) + abs(vx - nx))
                if price >= best:
                    continue
                cost = price + _difference(before, after, y, x, _SPAN, vy, vx, best - price)
                if cost < best:
                    best, by, bx = cost, vy, vx
            blocks[0, row, column], blocks[1, row, column] = by, bx


@kernel
def _assign(before: Any, after: Any, blocks: Any, vectors: Any) -> None:
    """Each pixel takes the vector of its block, or of a neighbouring one where that fits better."""
    for y in range(vectors.shape[1]):
        for x in range(vectors.shape[2]):
            row, column = y // BLOCK, x // BLOCK
            oy, ox = np.int64(blocks[0, row, column]), np.int64(blocks[1, row, column])
            vectors[0, y, x], vectors[1, y, x] = oy, ox
            fy, fx = y + _PAD - 1, x + _PAD - 1
            best: Any = np.int64(-1)
            for side in range(4):
                vy, vx = _beside(blocks, row, column, side)
                if vy == oy and vx == ox:
                    continue
                if best < 0:
                    best = _difference(before, after, fy, fx, 3, oy, ox, 1 << 30) - _OWN
                cost = _difference(before, after, fy, fx, 3, vy, vx, best)
                if cost < best:
                    best = cost
                    vectors[0, y, x], vectors[1, y, x] = vy, vx


@kernel
def _places(vectors: Any, factor: Any, places: Any) -> None:
    height, width = places.shape
    for y in range(height):
        for x in range(width):
            dy, dx = vectors[0, y // factor, x // factor], vectors[1, y // factor, x // factor]
            fy = y + ((dy * factor + 2) >> 2)
            fx = x + ((dx * factor + 2) >> 2)
            fy, fx = min(max(fy, 0), height - 1), min(max(fx, 0), width - 1)
            places[y, x] = fy * width + fx
