"""Decoded pictures against their originals.

`Measure` makes a Record of one picture, which can be cached. `row` adds records up to mIoU, FID and
the other figures, with confidence intervals.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sempic import models, segment
from sempic.errors import InputError
from sempic.evaluation import metrics
from sempic.evaluation.measures import METRICS, Record, Row
from sempic.evaluation.measures.base import Mean, Metric, Reference
from sempic.palette import PALETTES, Palette
from sempic.scene import Image, LabelMap

SIDE = 512
"""Short side at which the bundled judge looks for objects (reasons: docs/guides/evaluate.md)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What is measured, and with which networks."""

    judge: str | None = None
    """The judge: an ONNX file or "hf:NAME"; None: models/judge.onnx."""
    inception: str | None = None
    """TorchScript file of the FID network; None: see `weights.inception`."""
    metrics: tuple[str, ...] = tuple(METRICS)
    num_classes: int | None = None
    """Classes of a judge with the palette `indices`; None: 255, since id 255 is void."""

    @property
    def judge_name(self) -> str:
        return self.judge or "EfficientNet-Lite2 (bundled judge.onnx)"

    @property
    def judged(self) -> bool:
        """Whether a metric needs the judge."""
        return any(METRICS[name].judged for name in self.metrics)


class Measure:
    """Compares pictures with originals. Networks are loaded when first needed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._networks = [m for m in settings.metrics if type(METRICS[m]).load is not Metric.load]
        self.network = functools.cache(lambda metric: METRICS[metric].load(settings))
        """The network of a metric by the metric's name."""

    @functools.cached_property
    def judge(self) -> Any:
        """The judge, for label maps. Raises ModelError if it cannot be loaded."""
        return segment.load(self.settings.judge or str(models.find(models.JUDGE)))

    @property
    def palette(self) -> Palette:
        """The judge's."""
        return PALETTES[self.judge.palette]

    @functools.cached_property
    def finder(self) -> Any:
        """The judge, for objects: the bundled one works at SIDE."""
        if self.settings.judge is not None:
            return self.judge
        return segment.load(str(models.find(models.JUDGE)), side=SIDE)

    def batch(self, picture: Image) -> int:
        """The best number of originals of this size, each with a decoded picture, for `show`."""
        if not self._networks:
            return 1
        from sempic.evaluation import networks

        return networks.batch_size(picture)

    def show(self, references: Sequence[Reference]) -> None:
        """Computes the features of pictures for all metrics with networks, in batches."""
        pictures = [reference.picture for reference in references]
        for metric in self._networks:
            found = self.network(metric).features_of(pictures)
            for reference, features in zip(references, found, strict=True):
                reference.cached[metric] = features

    def reference(self, picture: Image, labels: LabelMap | None = None) -> Reference:
        """An original, uint8 (H, W, 3), and its human labels, uint8 (H, W), if there are any."""
        if labels is not None:
            check_size(labels, picture.shape[:2])
        return Reference(self, picture, labels)

    def __call__(
        self, reference: Reference, shown: Image | Reference, wanted: Sequence[str] | None = None
    ) -> Record:
        """The record of a decoded picture, by the wanted metrics (None: all of the settings)."""
        if not isinstance(shown, Reference):
            shown = self.reference(shown)
        original, picture = reference.picture, shown.picture
        if picture.shape != original.shape:
            a, b = (f"{p.shape[1]}×{p.shape[0]}" for p in (picture, original))
            raise InputError(f"a picture of {a} against one of {b}")
        record: Record = {}
        for name in self.settings.metrics if wanted is None else wanted:
            record |= METRICS[name].measure(reference, shown)
        return record

    def original(self, reference: Reference, wanted: Sequence[str] | None = None) -> Record:
        """The record of the original itself, by the wanted metrics with `of_originals`."""
        record: Record = {}
        for name in self.settings.metrics if wanted is None else wanted:
            if METRICS[name].of_originals:
                record |= METRICS[name].original(reference)
        return record


def check_size(labels: LabelMap, size: tuple[int, ...]) -> None:
    """Raises InputError unless a label map has the size (H, W) of its picture."""
    if labels.shape != size:
        found, wanted = (f"{width}×{height}" for height, width in (labels.shape, size))
        raise InputError(f"a label map of {found} for a picture of {wanted}")


def row(records: Sequence[Record], originals: Sequence[Record], bpp: Sequence[float] | None) -> Row:
    """The figures over all pictures; figures that were not measured are absent.

    Keys: pictures; bpp, bpp_ci; and the keys of each metric (`sempic.evaluation.measures`). Keys
    NAME_ci are 95 % confidence intervals, by bootstrap over pictures.

    Args:
        records: of the decoded pictures.
        originals: as `Measure.original` gives them; may be empty.
        bpp: bits per pixel of each file.
    """
    found: Row = {"pictures": len(records)}
    if bpp is not None:
        found["bpp"] = float(np.mean(bpp))
        if len(records) > 1:
            found["bpp_ci"] = metrics.bootstrap(np.asarray(bpp, np.float64))
    for metric in METRICS.values():
        if records and all(map(metric.measured_in, records)):
            beside = originals if all(map(metric.measured_in, originals)) else []
            found |= metric.add_up(records, beside)
    return found


def lacking(
    measured: Collection[str],
    rows: Iterable[Row],
    records: Collection[Record] = (),
    *,
    of_maps: bool,
) -> list[str]:
    """A note for each metric that was measured but has no figure.

    Reasons: pictures are few, too small, or the same as their originals, or all of their human maps
    is void.

    Args:
        measured: names of metrics.
        rows: none of which has the figure.
        records: of the row; they are counted in the notes.
        of_maps: whether there are human maps.
    """
    notes, found = [], {name for row in rows for name in row}
    if of_maps and "miou" in measured and "miou" not in found:
        notes.append("no mIoU: the human maps are all void")
    for metric in (METRICS[name] for name in measured if name not in found):
        title = " and ".join(figure.title for figure in metric.figures)
        if metric.of_sets:
            notes.append(f"no {title} of fewer than two {metric.of_sets}")
        elif isinstance(metric, Mean):
            without = sum(not np.isfinite(record[metric.name]) for record in records)
            some = (
                f"{without} of {len(records)} samples have none, as they" if records else "samples"
            )
            notes.append(f"no {title}: {some} are the same as their originals, or too small for it")
    return notes
