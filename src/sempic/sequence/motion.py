"""Motion of a scene, estimated by sender and receiver from coarse pictures alone: it costs no bits.

First the mean around each pixel is subtracted, to remove changes of exposure. Block matching
searches the last coarse luma in whole steps within REACH. Vectors are then smoothed among
neighbours and refined to quarters of a coarse pixel. Each coarse pixel takes the best vector of its
own and neighbouring blocks, so that motion ends at the edges of objects. All arithmetic is in
integers (docs/spec/sequence.md §5): both sides move the last label map in the same way.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from sempic.compiling import kernel
from sempic.scene import Plane

Vectors: TypeAlias = npt.NDArray[np.int16]
"""int16 (2, h, w): how far down and to the right the content of each coarse pixel was in the last
picture, in quarters of a coarse pixel."""

BLOCK = 4
"""Side of a block, in coarse pixels."""
REACH = 10
"""Greatest motion of a block along each axis, in coarse pixels."""
STEPS = 4
"""Steps of a vector in a coarse pixel."""
_WINDOW = 2
"""Coarse pixels around a block that are compared, too."""
_SPAN = BLOCK + 2 * _WINDOW
_PAD = REACH + _SPAN + 2
_OWN = 12
"""Difference that a neighbour's vector must save, over 3 × 3 coarse pixels."""


class Inertia(NamedTuple):
    """Regularisation of the block matching, in sums of absolute differences over a window."""

    same: int
    """A block that differs by less from the same place in the last picture has not moved."""
    still: int
    """Penalty of a vector for each pixel of its length."""
    smooth: int
    """Penalty for each quarter of difference from each of the four neighbours."""


INERTIA = {1: Inertia(96, 8, 3), 2: Inertia(192, 12, 3)}
"""By the version of the format that introduced it."""
_MEAN_REACH = 8
"""Coarse pixels along each axis of which the mean is subtracted."""

_T = TypeVar("_T", bound=np.generic)


def levelled(plane: Plane) -> Plane:
    """Luma, uint8 (h, w), less the mean around each pixel, plus 128."""
    side = 2 * _MEAN_REACH + 1
    sums = np.pad(plane.astype(np.int64), _MEAN_REACH, mode="edge").cumsum(0).cumsum(1)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    total = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    levelled: Plane = (plane - total // side**2 + 128).clip(0, 255).astype(np.uint8)
    return levelled


def estimate(last: Plane, now: Plane, version: int = max(INERTIA)) -> Vectors:
    """Where the content of each pixel of `now` was in `last`, both uint8 (h, w).

    version: of the format; since 2 changes of exposure do not count.
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
    """Where each pixel was: flat indices, int32 (height, width), clipped to the picture.

    factor: size of the picture over that of the coarse one.
    """
    places = np.empty((height, width), np.int32)
    _places(vectors, factor, places)
    return places


def move(plane: npt.NDArray[_T], places: npt.NDArray[np.int32]) -> npt.NDArray[_T]:
    """A plane of the last picture, (…, height, width), moved along; places: of `enlarge`."""
    flat = plane.reshape(*plane.shape[:-2], -1)
    moved: npt.NDArray[_T] = np.take(flat, places, axis=-1)
    return moved


@kernel
def _difference(before: Any, after: Any, y: Any, x: Any, span: Any, dy: Any, dx: Any,
                most: Any) -> Any:  # fmt: skip
    """Sum of absolute differences over span × span pixels from (y, x), for a vector in quarters; it
    stops at `most`."""
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
    """Finds the best vector of each block in whole pixels."""
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
    """The vector of the block below, above, right or left; at the edge the block's own."""
    r = min(max(row + (side == 0) - (side == 1), 0), blocks.shape[1] - 1)
    c = min(max(column + (side == 2) - (side == 3), 0), blocks.shape[2] - 1)
    return np.int64(blocks[0, r, c]), np.int64(blocks[1, r, c])


@kernel
def _refine(before: Any, after: Any, blocks: Any, step: Any, still: Any, smooth: Any) -> None:
    """Gives each block the best of its own vector, its neighbours' vectors, the zero vector, and
    the vectors around its own at this step."""
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
    """Gives each pixel the vector of its block, or a neighbour's that fits better."""
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
