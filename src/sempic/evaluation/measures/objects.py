"""Objects kept and invented: people, vehicles and signs that a picture shows before and after.

An object is a connected region of a group of classes in the judge's map, of at least SHARE of the
picture. It is kept if the map of the decoded picture has pixels of the group there, as many as KEPT
of the region's size; an object of the decoded picture is invented if the map of the original has
none there. "There" is the region grown by GROWN pixels, so that a shifted outline is no loss. Even
good pictures lose some, since the judge wavers: so the same figures of the originals as JPEG of
quality REFERENCE_QUALITY stand beside.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import PIL.Image

from sempic.evaluation.measures.base import Figure, Metric, Record, Row
from sempic.palette import PALETTES, Palette
from sempic.scene import Image, LabelMap

if TYPE_CHECKING:
    from sempic.evaluation.measure import Measure, Reference

SIDE = 512
"""Shorter side at which the bundled judge looks for objects; docs/guides/evaluate.md says why."""
GROUPS = {
    "people": ("pedestrian", "person", "rider"),
    "two-wheelers": ("bicyclist", "bicycle", "motorcycle"),
    "vehicles": ("car", "truck", "bus", "train", "caravan", "trailer"),
    "signs and lights": ("sign", "traffic sign", "traffic light"),
}
"""Classes by name, in whatever palette. CamVid's bicyclist is the rider and what he rides."""
SHARE = 0.001
KEPT = 0.4
GROWN = 2
REFERENCE_QUALITY = 90

_NEIGHBOURS = np.ones((3, 3), bool)  # the eight

_REFERENCE = f"originals as JPEG {REFERENCE_QUALITY}"
_COLUMNS = ("there", "kept", "invented")

Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Objects(Metric):
    """In a record: int64 "objects" (groups, 3), as `count` gives it.

    Behind the figures, which are shares of the objects in the originals: "objects", by group and of
    "all" the counts there, kept and invented, and kept and invented by the reference.
    """

    name = "objects"
    field = "objects"
    of_originals = True
    judged = True
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

    def measure(self, measure: Measure, reference: Reference, shown: Reference) -> Record:
        there, here = (one.find(self.name, measure.finder) for one in (reference, shown))
        return {self.field: count(there, here, PALETTES[measure.finder.palette])}

    def original(self, measure: Measure, reference: Reference) -> Record:
        """Of the reference: what even a good picture loses."""
        return self.measure(measure, reference, measure.reference(as_jpeg(reference.picture)))

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
    found = np.zeros((len(GROUPS), 3), np.int64)
    for number, names in enumerate(GROUPS.values()):
        ids = [i for i, name in enumerate(palette.classes) if name in names]
        there, here = np.isin(before, ids), np.isin(after, ids)
        kept = covered(there, here)
        found[number] = len(kept), (kept >= KEPT).sum(), (covered(here, there) == 0).sum()
    return found


def covered(mask: Mask, other: Mask) -> npt.NDArray[np.float64]:
    """Of each object in a mask, how much of another mask lies in it, grown, as a share of its size.

    It can be above 1, since the growth does not count as size.
    """
    from scipy import ndimage

    regions, _ = ndimage.label(mask, _NEIGHBOURS)
    shares = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(regions), 1):
        around = tuple(slice(max(0, s.start - GROWN), s.stop + GROWN) for s in (rows, columns))
        region = regions[around] == number
        if (size := region.sum()) >= SHARE * mask.size:
            grown = ndimage.binary_dilation(region, _NEIGHBOURS, GROWN)
            shares.append((grown & other[around]).sum() / size)
    return np.array(shares)


def as_jpeg(picture: Image) -> Image:
    """The picture as JPEG of quality REFERENCE_QUALITY (Pillow, 4:2:0), decoded."""
    out = io.BytesIO()
    PIL.Image.fromarray(picture).save(out, "JPEG", quality=REFERENCE_QUALITY)
    return np.array(PIL.Image.open(out))
