"""Objects kept and invented: people, vehicles and signs.

`sempic.check.objects` defines objects, kept and invented; the maps are the judge's. The judge loses
objects even in good pictures, so the same figures of the originals as JPEG are the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sempic.check.objects import KEPT, Change, compare, mask
from sempic.critical import GROUPS
from sempic.evaluation import metrics
from sempic.evaluation.measures.base import JPEG_QUALITY, Figure, Metric, Record, Reference, Row
from sempic.evaluation.measures.segmentation import checked
from sempic.palette import PALETTES, Palette
from sempic.scene import LabelMap

_REFERENCE = f"originals as JPEG {JPEG_QUALITY}"
_RIDERS = ("people", "two-wheelers")


class _OfObjects(Metric):
    """Counts of objects that the judge finds in decoded pictures, and in the originals as JPEG.

    Record: int64 (groups, counts). The figures are shares of the objects in the originals. Row:
    also, under the metric's name, for each group and "all" the counts by name, and with "jpeg_"
    those of the originals as JPEG.
    """

    judged = True
    title: str
    """Of `details`."""
    counts: tuple[str, ...]
    """The names of the counts, first of the objects in the originals."""

    def original(self, reference: Reference) -> Record:
        """The record of the original as JPEG, which shows what even a good picture loses."""
        return self.measure(reference, reference.as_jpeg)

    def add_up(self, records: Sequence[Record], originals: Sequence[Record]) -> Row:
        table, names = np.sum([record[self.name] for record in records], 0), [*self.counts]
        if originals:
            by_jpeg = np.sum([record[self.name] for record in originals], 0)
            table = np.concatenate([table, by_jpeg[:, 1:]], 1)
            names += [f"jpeg_{name}" for name in self.counts[1:]]
        rows = zip((*GROUPS, "all"), [*table.tolist(), table.sum(0).tolist()], strict=True)
        groups = {group: dict(zip(names, row, strict=True)) for group, row in rows}
        there, *others = (groups["all"][name] for name in self.counts)
        shares = zip(self.figures, others, strict=True) if there else ()
        return {self.name: groups} | {figure.name: count / there for figure, count in shares}

    def details(self, rows: Sequence[tuple[str, Row]]) -> list[list[str]]:
        """The counts of each group; the reference is the last line."""
        found = [(title, row[self.name]) for title, row in rows if self.name in row]
        if not found:
            return []

        def line(title: str, groups: dict[str, dict[str, int]], of: str = "") -> list[str]:
            kinds = [of + name for name in self.counts[1:]]
            return [title, *(" / ".join(str(group[k]) for k in kinds) for group in groups.values())]

        first = found[0][1]
        heads = [self.title, *(f"{name}: {group['there']}" for name, group in first.items())]
        by_jpeg = [line(_REFERENCE, first, "jpeg_")] if "jpeg_kept" in first["all"] else []
        return [heads, *(line(*pair) for pair in found), *by_jpeg]


class Objects(_OfObjects):
    """The counts are those of `count`. The judge sees people in fences and wheels, too: see
    `Confirmed`."""

    name = "objects"
    title = "kept / invented"
    counts = ("there", "kept", "invented")
    figures = (
        Figure("objects_kept", "objects kept", "{:.3f}", ceiling=_REFERENCE),
        Figure("objects_invented", "objects invented", "{:.3f}", lower=True, ceiling=_REFERENCE),
    )

    def measure(self, reference: Reference, shown: Reference) -> Record:
        palette = PALETTES[reference.measure.finder.palette]
        return {self.name: count(reference.searched, shown.searched, palette)}


class Confirmed(_OfObjects):
    """Only objects that the human map confirms, which is in the judge's palette. Absent unless all
    pictures have maps."""

    name = "confirmed"
    of_maps = True
    title = "confirmed, kept"
    counts = ("there", "kept")
    figures = (Figure("confirmed_kept", "confirmed objects kept", "{:.3f}", ceiling=_REFERENCE),)

    def measure(self, reference: Reference, shown: Reference) -> Record:
        if reference.labels is None:
            return {}
        palette = PALETTES[reference.measure.finder.palette]
        truth = checked(reference.labels, palette)
        changes = confirmed(reference.searched, shown.searched, truth, palette)
        return {self.name: np.array([(c.tally.seen, c.tally.kept) for c in changes.values()])}


def confirmed(
    before: LabelMap, after: LabelMap, truth: LabelMap, palette: Palette
) -> Mapping[str, Change]:
    """`compare` for the objects of `before` that `truth` confirms: it covers KEPT of their size.

    People and two-wheelers confirm each other, since maps differ on riders.

    Args:
        before, after, truth: uint8 (H, W).
        palette: of all three.
    """
    changes = {}
    for name, change in compare(before, after, palette).items():
        groups = _RIDERS if name in _RIDERS else (name,)
        true = np.logical_or.reduce([mask(truth, GROUPS[group], palette) for group in groups])
        kept, lost = (
            [region for region in regions if region.covered(true) >= KEPT]
            for regions in (change.kept, change.lost)
        )
        changes[name] = Change(kept, lost, [])
    return changes


def count(before: LabelMap, after: LabelMap, palette: Palette) -> metrics.Counts:
    """int64 (groups, 3): objects in `before`, objects kept in `after`, objects invented in `after`.

    Args:
        before, after: uint8 (H, W), maps of the original and of the decoded picture.
        palette: of both; groups without classes in it have no objects.
    """
    tallies = [change.tally for change in compare(before, after, palette).values()]
    return np.array([(tally.seen, tally.kept, tally.invented) for tally in tallies], np.int64)
