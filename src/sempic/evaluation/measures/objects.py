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
_COLUMNS = ("there", "kept", "invented", "jpeg_kept", "jpeg_invented")


class _OfObjects(Metric):
    """Objects that the judge finds in decoded pictures, and in the originals as JPEG."""

    of_originals = True
    judged = True

    def original(self, reference: Reference) -> Record:
        """The record of the original as JPEG, which shows what even a good picture loses."""
        return self.measure(reference, reference.as_jpeg)


class Objects(_OfObjects):
    """Record: "objects", int64 (groups, 3), as of `count`.

    The figures are shares of the objects in the originals. Row: also "objects", which has for each
    group and "all" the counts there, kept and invented, and the reference's kept and invented. The
    judge sees people in fences and wheels, too: see `Confirmed`.
    """

    name = "objects"
    field = "objects"
    figures = (
        Figure("objects_kept", "objects kept", "{:.3f}", ceiling=_REFERENCE),
        Figure("objects_invented", "objects invented", "{:.3f}", lower=True, ceiling=_REFERENCE),
    )

    def measure(self, reference: Reference, shown: Reference) -> Record:
        palette = PALETTES[reference.measure.finder.palette]
        return {self.field: count(reference.searched, shown.searched, palette)}

    def add_up(self, records: Sequence[Record], originals: Sequence[Record]) -> Row:
        table = np.sum([record[self.field] for record in records], 0)
        if originals:
            by_jpeg = np.sum([record[self.field] for record in originals], 0)
            table = np.concatenate([table, by_jpeg[:, 1:]], 1)
        rows = zip((*GROUPS, "all"), [*table.tolist(), table.sum(0).tolist()], strict=True)
        counts = {name: dict(zip(_COLUMNS, row, strict=False)) for name, row in rows}
        there, kept, invented, *_ = counts["all"].values()
        found: Row = {"objects": counts}
        if there:
            found |= {"objects_kept": kept / there, "objects_invented": invented / there}
        return found

    def details(self, rows: Sequence[tuple[str, Row]]) -> list[list[str]]:
        """ "kept / invented" for each group; the reference is the last line."""
        there = [(title, row["objects"]) for title, row in rows if "objects" in row]
        if not there:
            return []

        def line(title: str, groups: dict[str, dict[str, int]], of: str = "") -> list[str]:
            return [title, *(f"{g[f'{of}kept']} / {g[f'{of}invented']}" for g in groups.values())]

        first = there[0][1]
        heads = ["kept / invented", *(f"{name}: {first[name]['there']}" for name in first)]
        by_jpeg = [line(_REFERENCE, first, "jpeg_")] if "jpeg_kept" in first["all"] else []
        return [heads, *(line(*pair) for pair in there), *by_jpeg]


class Confirmed(_OfObjects):
    """Record: "confirmed", int64 (groups, 2): objects that the human map confirms, and those kept.

    Human maps are in the judge's palette. Absent unless all pictures have maps.
    """

    name = "confirmed"
    of_maps = True
    field = "confirmed"
    figures = (Figure("confirmed_kept", "confirmed objects kept", "{:.3f}", ceiling=_REFERENCE),)

    def measure(self, reference: Reference, shown: Reference) -> Record:
        if reference.labels is None:
            return {}
        palette = PALETTES[reference.measure.finder.palette]
        truth = checked(reference.labels, palette)
        changes = confirmed(reference.searched, shown.searched, truth, palette)
        return {self.field: np.array([(c.tally.seen, c.tally.kept) for c in changes.values()])}

    def add_up(self, records: Sequence[Record], originals: Sequence[Record]) -> Row:
        there, kept = np.sum([record[self.field] for record in records], 0).T.tolist()
        found: Row = {"confirmed": dict(zip(GROUPS, zip(kept, there, strict=True), strict=True))}
        if originals:
            by_jpeg = np.sum([record[self.field] for record in originals], 0)[:, 1].tolist()
            found["confirmed_jpeg"] = dict(zip(GROUPS, by_jpeg, strict=True))
        if sum(there):
            found["confirmed_kept"] = sum(kept) / sum(there)
        return found

    def details(self, rows: Sequence[tuple[str, Row]]) -> list[list[str]]:
        """Kept objects of each group; the reference is the last line."""
        there = [(title, row) for title, row in rows if "confirmed" in row]
        if not there:
            return []
        first = there[0][1]
        heads = [f"{name}: {seen}" for name, (_, seen) in first["confirmed"].items()]
        table = [["confirmed, kept", *heads]]
        for title, row in there:
            table.append([title, *(str(kept) for kept, _ in row["confirmed"].values())])
        if "confirmed_jpeg" in first:
            table.append([_REFERENCE, *map(str, first["confirmed_jpeg"].values())])
        return table


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
    changes = compare(before, after, palette).values()
    tallies = [change.tally for change in changes]
    return np.array([(tally.seen, tally.kept, tally.invented) for tally in tallies], np.int64)
