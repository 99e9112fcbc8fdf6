"""mIoU of the judge's maps of decoded pictures: against human labels, and against its own maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sempic.errors import LabelMapError
from sempic.evaluation import metrics
from sempic.evaluation.measures.base import Figure, Metric, Record, Reference, Row
from sempic.palette import INDICES, Palette
from sempic.scene import LabelMap


class Miou(Metric):
    """Record: "agreement", and with human labels "confusion", as of `metrics.confusion`; "classes",
    their names.

    Row: also "miou_ci", "classes", and "iou" of each class, None for one that does not occur.
    """

    name = "miou"
    judged = True
    figures = (
        Figure("miou", "mIoU", "{:.4f}", ceiling="originals"),
        Figure("pixel_accuracy", "pixel accuracy", "{:.4f}", brief=False),
        Figure("agreement", "agreement", "{:.4f}", brief=False),
    )

    def measure(self, reference: Reference, shown: Reference) -> Record:
        wanted = reference.measure.settings.num_classes
        palette = reference.measure.palette
        classes = count_classes(palette, wanted)
        record: Record = {"classes": palette.classes[:classes]}
        record["agreement"] = confusion(reference.judged, shown.judged, palette, classes)
        if reference.labels is not None:
            truth = checked(reference.labels, palette)
            record["confusion"] = confusion(truth, shown.judged, palette, classes)
        return record

    def measured_in(self, record: Record) -> bool:
        """With predictions of another segmenter there is "confusion" without "agreement"."""
        return "agreement" in record or "confusion" in record

    def add_up(self, records: Sequence[Record], originals: Sequence[Record]) -> Row:
        found: Row = {}
        if (total := _total(records, "confusion")) is not None:
            found["miou"] = metrics.miou(total)
            if len(records) > 1:
                matrices = np.stack([record["confusion"] for record in records])
                # Of 255 possible ids few occur: the others only cost time.
                occurs = np.append(total.sum(1) + total[:, :-1].sum(0) > 0, True)
                matrices = matrices[:, occurs[:-1]][:, :, occurs]
                found["miou_ci"] = metrics.bootstrap(matrices, metrics.miou)
            found["classes"] = [str(name) for name in records[0]["classes"]]
            found["iou"] = [None if np.isnan(x) else float(x) for x in metrics.iou(total)]
            found["pixel_accuracy"] = metrics.pixel_accuracy(total)
        if (total := _total(records, "agreement")) is not None:
            found["agreement"] = metrics.miou(total)
        return found

    def details(self, rows: Sequence[tuple[str, Row]]) -> list[list[str]]:
        found = [(title, row) for title, row in rows if "iou" in row]
        if not found:
            return []
        listed = [
            (number, name)
            for number, name in enumerate(found[0][1]["classes"])
            # Classes without a name are listed only if they occur.
            if name != str(number) or any(row["iou"][number] is not None for _, row in found)
        ]
        table = [["", *(f"IoU {name}" for _, name in listed)]]
        for title, row in found:
            shown = (row["iou"][number] for number, _ in listed)
            table.append([title, *("–" if x is None else f"{x:.4f}" for x in shown)])
        return table


def _total(records: Sequence[Record], field: str) -> metrics.Counts | None:
    """The sum of all pictures' matrices; None if a record lacks it, or if all is void."""
    if not all(field in record for record in records):
        return None
    total: metrics.Counts = np.sum([record[field] for record in records], 0)
    return total if total.any() else None


def confusion(truth: LabelMap, guess: LabelMap, palette: Palette, classes: int) -> metrics.Counts:
    """`metrics.confusion` of ids of a palette, whose void is no class even if it is the first."""
    if palette.void is not None:
        truth, guess = (np.where(ids == palette.void, np.uint8(255), ids) for ids in (truth, guess))
    return metrics.confusion(truth, guess, classes)


def count_classes(palette: Palette, wanted: int | None = None) -> int:
    """The number of ids of a palette that are compared; for `indices`, `wanted` or 255."""
    if palette is INDICES:
        return wanted or 255
    return palette.known


def checked(labels: LabelMap, palette: Palette) -> LabelMap:
    """The labels, uint8 (H, W). Raises LabelMapError for an id, but 255, that the palette lacks."""
    if (highest := palette.settle(labels).max()) >= len(palette.classes):
        raise LabelMapError(f"the label map has id {highest}, which palette {palette.name} lacks")
    return labels
