"""Objects kept and invented: people, vehicles and signs that a picture shows before and after.

`sempic.check.objects` says what an object is and when it is kept; here it is the judge who looks.
Even good pictures lose some, since the judge wavers: so the same figures of the originals as JPEG
of quality REFERENCE_QUALITY stand beside.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import PIL.Image

from sempic.check.objects import KEPT, Change, compare, mask
from sempic.critical import GROUPS
from sempic.evaluation.measures.base import Figure, Metric, Record, Reference, Row
from sempic.palette import PALETTES, Palette
from sempic.scene import Image, LabelMap

REFERENCE_QUALITY = 90

_REFERENCE = f"originals as JPEG {REFERENCE_QUALITY}"
_RIDERS = ("people", "two-wheelers")
_COLUMNS = ("there", "kept", "invented")

Counts = npt.NDArray[np.int64]


class _OfObjects(Metric):
    """What the judge finds, beside what it finds in the originals as JPEG."""

    of_originals = True
    judged = True

    def original(self, reference: Reference) -> Record:
        """Of the reference: what even a good picture loses."""
        measure = reference.measure
        shown = reference.find("as JPEG", lambda picture: Reference(measure, as_jpeg(picture)))
        return self.measure(reference, shown)


class Objects(_OfObjects):
    """In a record: int64 "objects" (groups, 3), as `count` gives it.

    The judge alone says what there is, and sees people in fences and wheels, too: see `Confirmed`.
    Behind the figures, which are shares of the objects in the originals: "objects", by group and of
    "all" the counts there, kept and invented, and kept and invented by the reference.
    """

    name = "objects"
    field = "objects"
    figures = (
        Figure(name="objects_kept", title="objects kept", digits="{:.3f}", ceiling=_REFERENCE),
        Figure(
            name="objects_invented",
            title="objects invented",
            digits="{:.3f}",
            lower=True,
            ceiling=_REFERENCE,
        ),
    )

    def measure(self, reference: Reference, shown: Reference) -> Record:
        palette = PALETTES[reference.measure.finder.palette]
        return {self.field: count(reference.searched, shown.searched, palette)}

    def add_up(self, records: Sequence[Record], originals: Sequence[Record]) -> Row:
        counts = _by_group(records)
        beside = _by_group(originals) if originals else {}
        for name, group in counts.items():
            if name in beside:
                group |= {f"jpeg_{key}": beside[name][key] for key in ("kept", "invented")}
        found: Row = {"objects": counts}
        there, kept, invented = (counts["all"][key] for key in _COLUMNS)
        if there:
            found |= {"objects_kept": kept / there, "objects_invented": invented / there}
        return found

    def behind(self, rows: Sequence[tuple[str, Row]]) -> list[list[str]] | None:
        """Of each group "kept / invented"; the reference is the last line."""
        there = [(title, row["objects"]) for title, row in rows if "objects" in row]
        if not there:
            return None
        first = there[0][1]
        table = [["kept / invented", *(f"{name}: {first[name]['there']}" for name in first)]]
        for title, groups in there:
            cells = [f"{group['kept']} / {group['invented']}" for group in groups.values()]
            table.append([title, *cells])
        if all("jpeg_kept" in group for group in first.values()):
            cells = [f"{g['jpeg_kept']} / {g['jpeg_invented']}" for g in first.values()]
            table.append([_REFERENCE, *cells])
        return table


class Confirmed(_OfObjects):
    """In a record: int64 "confirmed" (groups, 2): objects that the original's own map shows, too,
    in the judge's palette, and those of them that are kept. Only where all pictures have maps."""

    name = "confirmed"
    field = "confirmed"
    figures = (
        Figure(
            name="confirmed_kept",
            title="confirmed objects kept",
            digits="{:.3f}",
            ceiling=_REFERENCE,
        ),
    )

    def measure(self, reference: Reference, shown: Reference) -> Record:
        if reference.labels is None:
            return {}
        palette = PALETTES[reference.measure.finder.palette]
        changes = confirmed(reference.searched, shown.searched, reference.labels, palette)
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

    def behind(self, rows: Sequence[tuple[str, Row]]) -> list[list[str]] | None:
        """Of each group how many are kept; the reference is the last line."""
        there = [(title, row) for title, row in rows if "confirmed" in row]
        if not there:
            return None
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
    """`compare`, of those objects of `before` alone that a third map shows, too, by the measure by
    which objects are kept. A rider may be a person to the one and a two-wheeler to the other.

    Args:
        before, after, truth: uint8 (H, W).
        palette: of all three.
    """
    found = {}
    for name, change in compare(before, after, palette).items():
        groups = _RIDERS if name in _RIDERS else (name,)
        there = np.logical_or.reduce([mask(truth, GROUPS[each], palette) for each in groups])
        seen, lost = (
            [region for region in regions if region.covered(there) >= KEPT]
            for regions in (change.seen, change.lost)
        )
        found[name] = Change(seen, lost, [])
    return found


def _by_group(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    counts = np.sum([record["objects"] for record in records], 0)
    rows = zip((*GROUPS, "all"), [*counts, counts.sum(0)], strict=True)
    return {name: dict(zip(_COLUMNS, map(int, row), strict=True)) for name, row in rows}


def count(before: LabelMap, after: LabelMap, palette: Palette) -> Counts:
    """int64 (groups, 3): objects in `before`, those kept in `after`, those invented there.

    Args:
        before, after: uint8 (H, W), maps of the original and of the decoded picture.
        palette: of both; a group none of whose classes it has counts nothing.
    """
    changes = compare(before, after, palette).values()
    tallies = [change.tally for change in changes]
    return np.array([(tally.seen, tally.kept, tally.invented) for tally in tallies], np.int64)


def as_jpeg(picture: Image) -> Image:
    """The picture as JPEG of quality REFERENCE_QUALITY (Pillow, 4:2:0), decoded."""
    out = io.BytesIO()
    PIL.Image.fromarray(picture).save(out, "JPEG", quality=REFERENCE_QUALITY)
    return np.array(PIL.Image.open(out))
