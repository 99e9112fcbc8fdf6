"""Windows: parts of the original picture, sent as pixels (docs/spec/format.md §7).

Coded are the differences between the original and the enlarged coarse picture. All windows of a
stream form one intra picture of HEVC, the atlas. `blend` puts windows into a painted picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sempic import checks
from sempic.coarse import bpg
from sempic.coarse.planes import MAX_SIDE, enlarged, from_rgb, to_rgb
from sempic.errors import CorruptStream, InputError
from sempic.scene import Coarse, Image, Window, padded
from sempic.windows import layout
from sempic.windows.choice import grown
from sempic.windows.layout import CELL, MOST, Place, grid

QP = 28
"""Default QP of windows, HEVC's: docs/experiments/check.md."""
FADE = 4
"""Width, in pixels, of a window's border that fades into the painted picture."""
_MIDDLE = 128


def encode(
    picture: Image, places: Sequence[Place], coarse: Coarse | None, *, qp: int = QP
) -> bytes:
    """The payload of a windows chunk.

    Args:
        picture: uint8 (H, W, 3), the original.
        places: of the windows, in cells; no two overlap.
        coarse: the planes of the stream's BPG chunk, None if it has none.
        qp: HEVC's, 0 (best) … 51.

    Raises InputError: no or too many windows, or an atlas with a side beyond MAX_SIDE.
    """
    checks.whole("qp", qp, 0, 51)
    if not 1 <= len(places) <= MOST:
        raise InputError(f"a stream has 1…{MOST} windows, not {len(places)}")
    height, width = picture.shape[:2]
    spots, columns, rows = layout.atlas([(p.width, p.height) for p in places])
    if max(columns, rows) * CELL > MAX_SIDE:
        raise InputError(
            f"the windows are too large: all of them must fit into {MAX_SIDE}×{MAX_SIDE} pixels"
        )
    differences = np.full((3, rows * CELL, columns * CELL), _MIDDLE, np.uint8)
    for place, spot in zip(places, spots, strict=True):
        part = padded(picture[place.pixels], place.height * CELL, place.width * CELL)
        more = np.stack(from_rgb(part).planes) - _base(coarse, width, height, place)
        differences[(slice(None), *spot.pixels)] = np.clip(more + _MIDDLE, 0, 255)
    y, cb, cr = differences
    file = bpg.encode(Coarse(y=y, cb=cb, cr=cr), qp=qp, chroma_qp=0)
    usual = bpg.opening(columns * CELL, rows * CELL)
    unusual = not file.startswith(usual)
    header = layout.write(places, *grid(width, height), unusual)
    return header + file[len(bpg.MAGIC) if unusual else len(usual) :]


def decode(payload: bytes, width: int, height: int, coarse: Coarse | None) -> tuple[Window, ...]:
    """The windows of a payload.

    Args:
        payload: of a windows chunk.
        width, height: of the picture.
        coarse: the planes of the stream's BPG chunk, None if it has none.

    Raises a BitstreamError: windows outside the picture, overlapping, or too many; an atlas too
    large or not decodable.
    """
    places, unusual, end = layout.read(payload, *grid(width, height))
    spots, columns, rows = layout.atlas([(p.width, p.height) for p in places])
    size = columns * CELL, rows * CELL
    file = (bpg.MAGIC if unusual else bpg.opening(*size)) + payload[end:]
    opened = bpg.CODEC.open(file)
    if opened.size != size:
        raise CorruptStream("the windows' atlas is not as large as they need")
    atlas = opened.decode()
    if atlas.chroma != "444":
        raise CorruptStream("the windows' atlas is not 4:4:4")
    differences = np.stack(atlas.planes)
    found = []
    for place, spot in zip(places, spots, strict=True):
        part = differences[(slice(None), *spot.pixels)].astype(np.int64)
        planes = part - _MIDDLE + _base(coarse, width, height, place)
        y, cb, cr = np.clip(planes, 0, 255).astype(np.uint8)
        x, top = place.x * CELL, place.y * CELL
        shown = to_rgb(Coarse(y=y, cb=cb, cr=cr))[: height - top, : width - x]
        found.append(Window(x=x, y=top, picture=shown))
    return tuple(found)


def where(payload: bytes, width: int, height: int) -> list[list[int]]:
    """Left, top, width and height, in pixels, of a payload's windows, without decoding them.

    Raises a BitstreamError: windows outside the picture, overlapping, or too many.
    """
    places, _, _ = layout.read(payload, *grid(width, height))
    found = []
    for place in places:
        rows, columns = place.pixels
        x, y = columns.start, rows.start
        found.append([x, y, min(columns.stop, width) - x, min(rows.stop, height) - y])
    return found


def blend(picture: Image, windows: Iterable[Window]) -> Image:
    """The picture with its windows, whose borders fade into the picture over FADE pixels.

    Edges that touch another window or the picture's edge do not fade.
    """
    shown = picture.copy()
    windows = tuple(windows)
    if not windows:
        return shown
    inside = np.zeros(picture.shape[:2], bool)
    for window in windows:
        h, w = window.picture.shape[:2]
        inside[window.y : window.y + h, window.x : window.x + w] = True
    inside = np.pad(inside, FADE, mode="edge")
    for window in windows:
        h, w = window.picture.shape[:2]
        rows, columns = slice(window.y, window.y + h), slice(window.x, window.x + w)
        around = inside[window.y : window.y + h + 2 * FADE, window.x : window.x + w + 2 * FADE]
        share = _depth(around)[..., None]
        painted = picture[rows, columns].astype(np.int32)
        mixed = painted * (FADE - share) + window.picture * share
        shown[rows, columns] = (mixed + FADE // 2) // FADE
    return shown


def _depth(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Each pixel's distance from the next pixel outside, at most FADE; without a border of FADE."""
    within = np.s_[FADE:-FADE, FADE:-FADE]
    near = np.stack([grown(~inside, reach)[within] for reach in range(FADE)])
    depth: npt.NDArray[np.int32] = FADE - near.sum(0, dtype=np.int32)
    return depth


def _base(coarse: Coarse | None, width: int, height: int, place: Place) -> Any:
    """The prediction of a window's pixels, int64 (3, h, w) or one number."""
    return _MIDDLE if coarse is None else enlarged(coarse, width, height, *place.pixels)
