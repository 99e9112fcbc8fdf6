"""What a stream loses of critical objects, found at the encoder, and mended before it is sent.

The stream is decoded as a receiver would, and a verifier, a network that took no part in the
coding, looks at the original and at the decoded picture. Where it doubts that both show the same,
windows are sent, within a budget, and its verdict travels in the stream as a receipt.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sempic import container, critical, windows
from sempic.check.objects import compare, ids, mask, regions, within
from sempic.codec import Draft
from sempic.critical import BUDGET, GROUPS, Groups, Receipt, Table
from sempic.palette import PALETTES
from sempic.scene import Image, LabelMap, Probabilities, Scene
from sempic.windows import choice, layout
from sempic.windows.layout import Cells

Likely: TypeAlias = npt.NDArray[np.float32]
"""float32 (H, W), 0…1."""

__all__ = ["SIDE", "Verifier", "checked", "looking"]

CHUNK = 3
"""Bytes of a chunk beside its payload, at most, as long as that is below 2^17."""
SIDE = 384
"""Shorter side at which verifiers look; at 512 they take twice as long and see little more."""
LIKELY = 0.25
"""Probability of a group from which a region may be an object of it."""
LESS = 0.1
"""By how much a group is less likely in the other picture, at least, where a region is in doubt."""
SMALLEST = 0.7
"""Such a region takes at least this share of an object's least size."""
QP = 32
"""HEVC's, of windows that a check adds: of coarser ones, small objects are not seen."""
RATE = 6.0
"""Bytes that a cell of a window takes, about: where to begin to look for how many there is room."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verifier:
    """Who looks."""

    predict: Callable[[Image], tuple[LabelMap, Probabilities | None]]
    """uint8 (H, W, 3) → uint8 (H, W), ids of `palette`, and how likely each id is, uint8 (C, H, W)
    in 1/255; None where that is not known."""
    palette: int
    """Its id."""
    digest: str
    """The first eight hexadecimal digits of the SHA-256 of its file."""


def looking(verifier: Verifier, picture: Image) -> Verifier:
    """The verifier, which looks at this picture from now on, on another thread: whoever asks it
    for this very array waits for that."""
    helper = ThreadPoolExecutor(1)
    seen = helper.submit(verifier.predict, picture)
    helper.shutdown(wait=False)

    def predict(shown: Image) -> tuple[LabelMap, Probabilities | None]:
        return seen.result() if shown is picture else verifier.predict(shown)

    return dataclasses.replace(verifier, predict=predict)


def checked(
    picture: Image,
    draft: Draft,
    stream: bytes,
    *,
    verifier: Verifier,
    paint: Callable[[Scene], Image],
    budget: float = BUDGET,
    table: Table | None = None,
    sent: Cells | None = None,
    never: Callable[[LabelMap], Cells] | None = None,
) -> bytes:
    """The stream of a draft, mended, with a receipt.

    Args:
        picture: uint8 (H, W, 3), the original.
        draft: what is to be sent; its windows, if it has any, are those of `sent`.
        stream: the draft, packed.
        verifier: who says what is lost.
        paint: the receiver, for a scene without windows.
        budget: the stream may grow by this share of its size; the receipt is not counted.
        table: of groups to look for; None: GROUPS.
        sent: the cells of the draft's windows, which are sent in any case.
        never: given the verifier's map of the original, the cells that no window may have.

    Raises InputError: a class of the table that the verifier does not know.
    """
    palette = PALETTES[verifier.palette]
    groups = GROUPS if table is None else within(table, palette)
    room = int(budget * len(stream))
    before, hoped = _seen(picture, verifier, groups)
    scene = draft.scene()
    painted = paint(scene)
    after, left = _seen(windows.blend(painted, scene.windows), verifier, groups)
    columns, rows = layout.grid(draft.width, draft.height)
    cells = np.zeros((rows, columns), bool) if sent is None else sent
    forbidden = np.zeros_like(cells) if never is None else never(before)
    wanted = [cells_of & ~forbidden for cells_of in _doubtful(hoped, left, groups)]
    more = _afforded(picture, draft, wanted, cells, room)
    if more is not None:
        draft = dataclasses.replace(draft, windows=more)
        after, _ = _seen(windows.blend(painted, draft.scene().windows), verifier, groups)
    changes = compare(before, after, palette, groups)
    receipt = Receipt(
        verifier=verifier.digest,
        groups={name: change.tally.capped for name, change in changes.items()},
        table=None if table is None else table.digest,
    )
    parts = dataclasses.replace(
        container.read(stream, max_pixels=picture.size),
        windows=draft.windows,
        receipt=critical.write(receipt),
        own_groups=table is not None,
    )
    return container.write(parts)


def _seen(picture: Image, verifier: Verifier, groups: Groups) -> tuple[LabelMap, list[Likely]]:
    """The verifier's map of a picture, and how likely it thinks each group, float32 (H, W)."""
    labels, probabilities = verifier.predict(picture)
    palette = PALETTES[verifier.palette]
    if probabilities is None:
        return labels, [mask(labels, each, palette).astype(np.float32) for each in groups.values()]
    inside = [[i for i in ids(each, palette) if i < len(probabilities)] for each in groups.values()]
    return labels, [probabilities[some].sum(0, dtype=np.float32) / 255 for some in inside]


def _doubtful(before: list[Likely], after: list[Likely], groups: Groups) -> list[Cells]:
    """Of each region where a group is likely in one of the pictures and less so in the other, the
    cells of a window that would show the truth; what is worth most for its size comes first.

    That is how much less likely the group is, times how likely it was: what is hardly seen is
    mostly not there at all (docs/experiments/check.md).
    """
    found: list[tuple[float, Cells]] = []
    pairs = zip((*before, *after), (*after, *before), (*groups.values(),) * 2, strict=True)
    for one, other, group in pairs:
        for region in regions(one >= LIKELY, SMALLEST * group.least(one.size)):
            box = region.rows, region.columns
            here, there_too = (float(p[box][region.shape].mean()) for p in (one, other))
            worth = here * (here - there_too)
            if here - there_too >= LESS:
                cells = layout.touched(region.around(choice.MARGIN, one.shape))
                found.append((worth / math.sqrt(cells.sum()), cells))
    return [cells for _, cells in sorted(found, key=lambda pair: -pair[0])]


def _afforded(
    picture: Image, draft: Draft, wanted: list[Cells], cells: Cells, room: int
) -> bytes | None:
    """The windows of as many of the regions that are wanted, in their order, as there is room for,
    with the cells that are sent in any case; None if that is none."""
    qp = windows.QP if cells.any() else QP
    given = 0 if draft.windows is None else len(draft.windows) + CHUNK
    unions = np.logical_or.accumulate([cells, *wanted])
    area = unions.sum((1, 2)).tolist()
    found, rate = None, RATE
    planes = draft.planes() if wanted else None
    low, high = 0, len(wanted)  # low fits
    while low < high:
        likely = bisect.bisect_right(area, (room + given) / rate) - 1
        count = min(max(likely, low + 1), high)
        places = layout.rectangles(unions[count])
        fits = 0 < len(places) <= layout.MOST
        if fits:
            payload = windows.encode(picture, places, planes, qp=qp)
            rate = len(payload) / area[count]
            fits = len(payload) + CHUNK - given <= room
        if fits:
            low, found = count, payload
        else:
            high = count - 1
    return found
