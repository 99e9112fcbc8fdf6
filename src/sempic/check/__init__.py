"""What a stream loses of critical objects, found at the encoder, and mended before it is sent.

The stream is decoded as a receiver would, and a verifier, a network that took no part in the
coding, looks at the original and at the decoded picture. What it misses is sent as windows, within
a budget, and its verdict travels in the stream as a receipt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from sempic import container, critical, windows
from sempic.check.objects import Change, Region, compare
from sempic.codec import Draft
from sempic.critical import BUDGET, Receipt
from sempic.palette import PALETTES
from sempic.scene import Image, LabelMap, Scene
from sempic.windows import Cells, choice

__all__ = ["OVERHEAD", "SIDE", "Verifier", "checked"]

CHUNK = 3
"""Bytes of a chunk beside its payload, at most, as long as that is below 2^17."""
SIDE = 512
"""Shorter side at which verifiers look, as the judge of evaluation does."""
OVERHEAD = 32
"""More bytes than a receipt ever takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verifier:
    """Who looks."""

    see: Callable[[Image], LabelMap]
    """uint8 (H, W, 3) → uint8 (H, W), ids of `palette`."""
    palette: int
    """Its id."""
    digest: str
    """The first eight hexadecimal digits of the SHA-256 of its file."""


def checked(
    picture: Image,
    draft: Draft,
    *,
    verifier: Verifier,
    paint: Callable[[Scene], Image],
    budget: float = BUDGET,
    sent: Cells | None = None,
    never: Callable[[LabelMap], Cells] | None = None,
) -> bytes:
    """The stream of a draft, mended, with a receipt.

    Args:
        picture: uint8 (H, W, 3), the original.
        draft: what is to be sent; its windows, if it has any, are those of `sent`.
        verifier: who says what is lost.
        paint: the receiver, for a scene without windows.
        budget: the stream may grow by this share of its size; the receipt is not counted.
        sent: the cells of the draft's windows, which are sent in any case.
        never: given the verifier's map of the original, the cells that no window may have.
    """
    stream = draft.pack()
    room = int(budget * len(stream))
    before = verifier.see(picture)
    painted = paint(draft.scene())
    changes = _changes(before, painted, draft, verifier)
    columns, rows = windows.grid(draft.width, draft.height)
    cells = np.zeros((rows, columns), bool) if sent is None else sent
    forbidden = np.zeros_like(cells) if never is None else never(before)
    more = _afforded(picture, draft, [c & ~forbidden for c in _cells(changes, draft)], cells, room)
    if more is not None:
        draft = dataclasses.replace(draft, windows=more)
        changes = _changes(before, painted, draft, verifier)
    tallies = {name: change.tally for name, change in changes.items()}
    receipt = Receipt(verifier=verifier.digest, groups=tallies)
    parts = dataclasses.replace(
        container.read(stream, max_pixels=picture.size),
        windows=draft.windows,
        receipt=critical.write(receipt),
    )
    return container.write(parts)


def _changes(
    before: LabelMap, painted: Image, draft: Draft, verifier: Verifier
) -> Mapping[str, Change]:
    """What the verifier misses where the draft's windows are put into what was painted."""
    shown = windows.blend(painted, draft.scene().windows)
    return compare(before, verifier.see(shown), PALETTES[verifier.palette])


def _cells(changes: Mapping[str, Change], draft: Draft) -> list[Cells]:
    """Of each object that is lost or invented, the cells of a window that would show the truth; the
    smallest first, since they cost least."""
    found = []
    for change in changes.values():
        for region in (*change.lost, *change.invented):
            found.append(_cells_of(region, draft))
    return sorted(found, key=lambda cells: int(cells.sum()))


def _cells_of(region: Region, draft: Draft) -> Cells:
    mask = np.zeros((draft.height, draft.width), bool)
    mask[region.rows, region.columns] = region.shape
    return windows.touched(choice.grown(mask, choice.MARGIN))


def _afforded(
    picture: Image, draft: Draft, wanted: list[Cells], cells: Cells, room: int
) -> bytes | None:
    """The windows of as many of the objects that are wanted, in their order, as there is room for,
    with the cells that are sent in any case; None if that is none."""
    given = 0 if draft.windows is None else len(draft.windows) + CHUNK
    found = None
    low, high = 0, len(wanted)  # low fits
    while low < high:
        count = (low + high + 1) // 2
        places = windows.rectangles(np.logical_or.reduce([cells, *wanted[:count]]))
        fits = 0 < len(places) <= windows.MOST
        if fits:
            payload = windows.encode(picture, places, draft.planes())
            fits = len(payload) + CHUNK - given <= room
        if fits:
            low, found = count, payload
        else:
            high = count - 1
    return found
