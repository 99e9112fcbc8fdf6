"""Objects kept, lost and invented: people, vehicles and signs in two maps of one picture.

An object is a connected region of a group of classes in a network's map of the original, of at
least the group's least size. The object is kept if the map of the decoded picture has the group on
as many pixels there as KEPT of the region's size. An object of the decoded picture is invented if
the map of the original has no pixel of the group there. "There" is the region grown by GROWN
pixels, so that a shifted outline is no loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from sempic.critical import GROUPS, Group, Groups, Table, Tally
from sempic.errors import InputError, naming
from sempic.labels.regions import components
from sempic.palette import Palette, numbers
from sempic.scene import LabelMap
from sempic.windows.choice import Mask, grown

KEPT = 0.4
GROWN = 2


class Region(NamedTuple):
    """A connected region of a mask."""

    rows: slice
    """Its bounding box."""
    columns: slice
    shape: Mask
    """Which pixels of the box belong to it."""

    @property
    def size(self) -> int:
        """In pixels."""
        return int(self.shape.sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height of its bounding box."""
        height, width = self.shape.shape
        return self.columns.start, self.rows.start, width, height

    def covered(self, mask: Mask) -> float:
        """Pixels of a mask (H, W) in the grown region, as a share of the region's size; may exceed
        1."""
        box, inside = self.grown(GROWN, mask.shape)
        return float((inside & mask[box]).sum() / self.size)

    def grown(self, pixels: int, size: tuple[int, ...]) -> tuple[tuple[slice, slice], Mask]:
        """The box, in a picture of `size` (H, W), of the region grown by a number of pixels, and
        its pixels in the box."""
        spans = zip((self.rows, self.columns), size, strict=True)
        rows, columns = (
            slice(max(span.start - pixels, 0), min(span.stop + pixels, side))
            for span, side in spans
        )
        inside = np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
        y, x = self.rows.start - rows.start, self.columns.start - columns.start
        inside[y : y + self.shape.shape[0], x : x + self.shape.shape[1]] = self.shape
        return (rows, columns), grown(inside, pixels)


class Change(NamedTuple):
    """Objects of a group, before and after."""

    kept: list[Region]
    """In both."""
    lost: list[Region]
    """Only in the original."""
    invented: list[Region]
    """Only in the decoded picture."""

    @property
    def tally(self) -> Tally:
        return Tally(len(self.kept) + len(self.lost), len(self.lost), len(self.invented))


def compare(
    before: LabelMap, after: LabelMap, palette: Palette, groups: Groups = GROUPS
) -> Mapping[str, Change]:
    """Objects of each group, before and after.

    Args:
        before, after: uint8 (H, W), maps of the original and of the decoded picture.
        palette: of both; groups without classes in it have no objects.
    """
    changes = {}
    for name, group in groups.items():
        original, decoded = (mask(labels, group, palette) for labels in (before, after))
        seen, shown = (regions(m, group.least(before.size)) for m in (original, decoded))
        kept, lost = list[Region](), list[Region]()
        for region in seen:
            (kept if region.covered(decoded) >= KEPT else lost).append(region)
        invented = [region for region in shown if region.covered(original) == 0]
        changes[name] = Change(kept, lost, invented)
    return changes


def within(table: Table, palette: Palette) -> Groups:
    """The groups of a table in the class names of a palette, or the nearest classes.

    Raises InputError, which names the table, if the palette lacks a class, or two groups share one.
    """
    groups, taken = {}, dict[str, str]()
    for name, group in table.groups.items():
        with naming(f"{table.source}: {name}"):
            classes = {palette.classes[i] for i in numbers(group.classes, palette)}
        if twice := min(classes & taken.keys(), default=None):
            raise InputError(f"{table.source}: {twice!r} is in {taken[twice]!r} and in {name!r}")
        taken |= dict.fromkeys(classes, name)
        groups[name] = group._replace(classes=tuple(sorted(classes)))
    return groups


def mask(labels: LabelMap, group: Group, palette: Palette) -> Mask:
    """The pixels of a map that belong to a group."""
    found = np.zeros(labels.shape, bool)
    for number in ids(group, palette):  # np.isin takes ten times as long
        found |= labels == number
    return found


def ids(group: Group, palette: Palette) -> list[int]:
    """The ids of a group's classes in a palette."""
    return [i for i, name in enumerate(palette.classes) if name in group.classes]


def critical_ids(palette: Palette) -> list[int]:
    """The ids of the classes of all GROUPS in a palette."""
    return [number for group in GROUPS.values() for number in ids(group, palette)]


def bounds(mask: Mask) -> tuple[slice, slice]:
    """The bounding box of a mask."""
    sides = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    rows, columns = (slice(int(s[0]), int(s[-1]) + 1) if len(s) else slice(0) for s in sides)
    return rows, columns


def regions(mask: Mask, least: float) -> list[Region]:
    """The 8-connected regions of a mask with at least `least` pixels."""
    if np.count_nonzero(mask) < max(least, 1):
        return []
    box = bounds(mask)
    part = mask[box]
    inside = np.flatnonzero(part)
    numbers = components(part.view(np.uint8), corners=True).ravel()[inside]
    inside = inside[np.argsort(numbers, kind="stable")]
    sizes = np.bincount(numbers)
    ends = np.cumsum(sizes)
    found = []
    for number in np.flatnonzero(sizes >= max(least, 1)):
        pixels = inside[ends[number] - sizes[number] : ends[number]]
        y, x = np.divmod(pixels, part.shape[1])
        y, x = y + box[0].start, x + box[1].start
        rows, columns = (slice(int(at.min()), int(at.max()) + 1) for at in (y, x))
        shape = np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
        shape[y - rows.start, x - columns.start] = True
        found.append(Region(rows, columns, shape))
    return found
