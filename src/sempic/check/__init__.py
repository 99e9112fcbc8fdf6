"""Check of critical objects at the encoder, before a stream is sent.

The encoder decodes its own stream. A verifier, a network without part in the coding, compares the
decoded picture with the original. Regions in doubt are sent in windows, within a budget. The
verifier's final counts travel in the stream as a receipt.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sempic import coarse, container, critical, processes, windows
from sempic.check.objects import compare, critical_ids, ids, mask, regions, within
from sempic.codec import Draft, check_prediction, unpack
from sempic.critical import BUDGET, GROUPS, FoundObject, Groups, Receipt, Table
from sempic.errors import InputError
from sempic.palette import PALETTES, Palette, alike, by_id, spelt
from sempic.scene import Coarse, Image, LabelMap, Probabilities, Scene
from sempic.windows import choice, layout
from sempic.windows.layout import Cells

Likely: TypeAlias = npt.NDArray[np.uint16]
"""Probability in 1/255, uint16 (H, W); a sum of rounded ones may exceed 255."""

__all__ = ["SIDES", "Verifier", "find", "imagined", "once", "run", "wanted"]

CHUNK = 3
"""Most bytes of a chunk's head, for payloads below 2^17 bytes."""
SIDES = 320, 384
"""Least and greatest short side of the verifier's input. 512 takes twice as long and finds little
more (docs/experiments/check.md)."""
LESS = 0.1
"""A region is in doubt if its group is less probable in the other picture by at least this much."""
SMALLEST = 0.7
"""Least size of a region, as a share of an object's least size."""
COARSER = 4
"""Added to the QP of windows if not even the smallest fits into the budget."""
RATE = 6.0
"""First estimate of the bytes of a window's cell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verifier:
    """The network of a check."""

    predict: Callable[[Image], tuple[LabelMap, Probabilities | None]]
    """uint8 (H, W, 3) → (map of ids of `palette`, uint8 (H, W); probabilities of the ids in 1/255,
    uint8 (C, H, W), or None if unknown)."""
    palette: int
    """Palette id."""
    digest: str
    """The first eight hexadecimal digits of the model file's SHA-256."""
    label: Callable[[Image], LabelMap] | None = None
    """The map of `predict` alone, if that takes less; None: `predict` is used."""

    def __post_init__(self) -> None:
        by_id(self.palette)


def once(verifier: Verifier, picture: Image, *, ahead: bool) -> Verifier:
    """The verifier, which predicts `picture` once: from now on, on another thread (`ahead`), or
    when `predict` first gets this very array."""
    copy = picture.copy()  # it may work in place
    if ahead:
        first = processes.begun(lambda: verifier.predict(copy))
    else:
        first = functools.cache(lambda: verifier.predict(copy))

    def predict(shown: Image) -> tuple[LabelMap, Probabilities | None]:
        return first() if shown is picture else verifier.predict(shown)

    return dataclasses.replace(verifier, predict=predict)


def imagined(
    picture: Image, verifier: Verifier, classes: Collection[str], palette: Palette
) -> Cells:
    """The cells of objects of classes to imagine, by the verifier, also where it is not sure: a
    check would send them.

    picture: uint8 (H, W, 3), the original. classes: names of `palette`, or of classes alike; those
    that the verifier lacks have no objects.
    """
    own = PALETTES[verifier.palette]
    names = [name for name in classes if spelt(name, own) is not None]
    # CamVid's car is the verifier's truck, too.
    meant = {spelt(name, palette) for name in classes}
    names += [name for name in own.classes if alike(name, palette) in meant]
    numbers = list(set(choice.imagined_numbers(names, own)))
    labels, probabilities = check_prediction("verifier", verifier.predict(picture), picture, own.id)
    return choice.apart(choice.possible(labels, probabilities, numbers))


def wanted(table: Table | None, verifier: Verifier) -> Groups:
    """The groups that a check looks for: those of a table in the verifier's classes, or GROUPS.

    Raises InputError: the verifier lacks a class of the table, or all classes of GROUPS.
    """
    palette = PALETTES[verifier.palette]
    if table is not None:
        return within(table, palette)
    if not critical_ids(palette):
        raise InputError(
            f"the verifier's palette, {palette.name}, has no people, two-wheelers, vehicles or "
            "signs; critical (--critical) names groups of its classes"
        )
    return GROUPS


def run(
    picture: Image,
    draft: Draft,
    stream: bytes,
    *,
    verifier: Verifier,
    paint: Callable[[Scene], Image],
    sent: Cells,
    never: Cells,
    qp: int = windows.QP,
    budget: float = BUDGET,
    table: Table | None = None,
) -> bytes:
    """The stream of a draft, with windows for regions in doubt, and a receipt.

    Args:
        picture: uint8 (H, W, 3), the original.
        draft: the parts of the stream; its windows, if any, show the cells `sent`.
        stream: the draft, packed.
        verifier: compares the pictures.
        paint: the receiver, for a scene without windows.
        sent: the cells of the draft's windows, which stay.
        never: the cells that windows must not show.
        qp: HEVC's, of the draft's windows; added ones may be coarser if there are none.
        budget: largest growth of the stream, as a share of its size, without the receipt.
        table: groups of objects; None: GROUPS.

    Raises InputError: the verifier lacks a class of the table.
    """
    palette = PALETTES[verifier.palette]
    groups = wanted(table, verifier)
    already = 0 if draft.windows is None else len(draft.windows) + CHUNK
    room = int(budget * len(stream)) + already
    before, probable_before = _seen(picture, verifier, groups)
    scene = unpack(stream, only="coarse", max_pixels=picture.size)  # labels take longer to decode
    planes = scene.coarse if coarse.CODECS[draft.coarse_codec].exact else None
    size = draft.width, draft.height
    shown = () if draft.windows is None else windows.decode(draft.windows, *size, planes)
    painted = paint(dataclasses.replace(scene, labels=draft.labels))
    after, probable_after = _seen(windows.blend(painted, shown), verifier, groups)
    found = _doubtful(probable_before, probable_after, groups)
    del probable_before, probable_after  # large
    doubtful = [cells for region in found if (cells := region & ~never).any()]
    payload = _within_budget(picture, planes, doubtful, sent, room, qp)
    if payload is None and not sent.any():  # better a coarser window than none
        payload = _within_budget(picture, planes, doubtful, sent, room, min(qp + COARSER, 51))
    if payload is not None:
        draft = dataclasses.replace(draft, windows=payload)
        shown = windows.decode(payload, *size, planes)
        after = _labelled(windows.blend(painted, shown), verifier)
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


def find(
    picture: Image, decoded: Image, *, verifier: Verifier, groups: Groups = GROUPS
) -> list[FoundObject]:
    """The objects that a receipt of the same verifier and groups counts.

    picture, decoded: uint8 (H, W, 3), the original and the receiver's picture.
    """
    before, after = (_labelled(shown.copy(), verifier) for shown in (picture, decoded))
    found = []
    for name, change in compare(before, after, PALETTES[verifier.palette], groups).items():
        found += [FoundObject(name, "kept", region.box) for region in change.kept]
        found += [FoundObject(name, "lost", region.box) for region in change.lost]
        found += [FoundObject(name, "invented", region.box) for region in change.invented]
    return found


def _labelled(picture: Image, verifier: Verifier) -> LabelMap:
    """The verifier's map of a picture."""
    alone = verifier.label
    output = verifier.predict(picture) if alone is None else (alone(picture), None)
    return check_prediction("verifier", output, picture, verifier.palette)[0]


def _seen(picture: Image, verifier: Verifier, groups: Groups) -> tuple[LabelMap, list[Likely]]:
    """The verifier's map of a picture, and the probability of each group."""
    output, palette = verifier.predict(picture), PALETTES[verifier.palette]
    labels, probabilities = check_prediction("verifier", output, picture, palette.id)
    if probabilities is None:
        masks = (mask(labels, group, palette) for group in groups.values())
        return labels, [inside * np.uint16(255) for inside in masks]
    known = [
        [i for i in ids(group, palette) if i < len(probabilities)] for group in groups.values()
    ]
    return labels, [probabilities[classes].sum(0, dtype=np.uint16) for classes in known]


def _doubtful(before: list[Likely], after: list[Likely], groups: Groups) -> list[Cells]:
    """Window cells for each region whose group is probable in one picture and less so in the other.

    Regions are sorted by falling worth, divided by the square root of their cells. The worth is the
    loss of probability times the probability, because improbable objects mostly do not exist
    (docs/experiments/check.md).
    """
    found: list[tuple[float, Cells]] = []
    least = math.ceil(255 * choice.LIKELY)  # numpy compares with integers faster
    pairs = zip((*before, *after), (*after, *before), (*groups.values(),) * 2, strict=True)
    for one, other, group in pairs:
        for region in regions(one >= least, SMALLEST * group.least(one.size)):
            box = region.rows, region.columns
            there = (p[box][region.shape] / np.float32(255) for p in (one, other))
            probability, opposite = (float(p.mean()) for p in there)
            if probability - opposite >= LESS:
                worth = probability * (probability - opposite)
                (rows, columns), inside = region.grown(choice.MARGIN, one.shape)
                cells = layout.touched(inside, (rows.start, columns.start), one.shape)
                found.append((worth / math.sqrt(cells.sum()), cells))
    return [cells for _, cells in sorted(found, key=lambda pair: -pair[0])]


def _within_budget(
    picture: Image,
    planes: Coarse | None,
    doubtful: list[Cells],
    cells: Cells,
    room: int,
    qp: int,
) -> bytes | None:
    """The windows of `cells`, of the first doubtful regions that fit into `room` bytes with them,
    and of smaller ones after them; None if no region fits."""
    unions = np.logical_or.accumulate([cells, *doubtful])
    area = unions.sum((1, 2)).tolist()
    rate = RATE

    def coded(shown: Cells) -> bytes | None:
        """The payload, if it fits; sets the rate."""
        nonlocal rate
        with contextlib.suppress(InputError):  # too many windows, or too large an atlas
            payload = windows.encode(picture, layout.rectangles(shown), planes, qp=qp)
            rate = len(payload) / shown.sum()
            if len(payload) + CHUNK <= room:
                return payload
        return None

    best, low, high = None, 0, len(doubtful)  # low fits
    while low < high:
        estimate = bisect.bisect_right(area, room / rate) - 1
        count = min(max(estimate, low + 1), high)
        if (payload := coded(unions[count])) is not None:
            low, best = count, payload
        else:
            high = count - 1
    wider = [unions[low]]
    for region in doubtful[low:]:
        if (more := wider[-1] | region).sum() * rate <= room:
            wider.append(more)
    for shown in reversed(wider[1:]):
        if (payload := coded(shown)) is not None:
            return payload
    return best
