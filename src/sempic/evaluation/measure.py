"""One decoded picture against its original, and many of them in one row of a table.

What is measured of a picture is a Record, which can be kept. A row adds up records; only then are
there an mIoU, an FID and confidence intervals.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sempic import models, segment
from sempic.errors import InputError, ModelError
from sempic.evaluation import metrics, weights
from sempic.evaluation.measures import METRICS, Metric, Record, Row
from sempic.evaluation.measures.base import Reference
from sempic.scene import Image, LabelMap

SIDE = 512
"""Shorter side at which the bundled judge looks for objects; docs/guides/evaluate.md says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What is measured, and by whom."""

    judge: str | None = None
    """The judging segmenter: an ONNX file or "hf:NAME"; None: models/judge.onnx."""
    inception: str | None = None
    """TorchScript file of the FID network; None: where `weights.inception` finds it."""
    metrics: tuple[str, ...] = tuple(METRICS)
    num_classes: int | None = None
    """Of a judge whose palette is `indices`; None: every id but 255, which is void."""

    @property
    def judge_name(self) -> str:
        return self.judge or "EfficientNet-Lite2 (bundled judge.onnx)"

    def key(self) -> str:
        """All that records depend on besides the pictures, for a cache."""
        parts = ["4"]
        if any(METRICS[name].judged for name in self.metrics):
            judge = self.judge or str(models.find(models.JUDGE))
            parts.append(judge if judge.startswith("hf:") else weights.digest(Path(judge)))
            parts.append(str(SIDE))
        if {"fid", "patch_fid"} & set(self.metrics):
            parts.append(str(weights.inception(self.inception).stat().st_size))
        return " ".join(parts)


def available(
    wanted: Sequence[str] | None,
    inception: str | None,
    judge: str | None = None,
    usual: Collection[str] | None = None,
) -> tuple[list[str], list[str]]:
    """The metrics that can be measured here, and a line about each that cannot.

    Args:
        wanted: names out of METRICS; a missing one is then an error. None: whatever there is of
            the usual ones.
        usual: names likewise; None: all but the costly ones.
    """
    found, missing = [], []
    if usual is None:
        usual = [m.name for m in METRICS.values() if not m.costly]
    chosen = [name for name in METRICS if name in usual] if wanted is None else wanted
    for name in chosen:
        if name not in METRICS:
            raise InputError(f"metric {name!r} is not one of {', '.join(METRICS)}")
        try:
            METRICS[name].check(inception, judge)
        except ModelError as error:
            if wanted is not None:
                raise
            missing.append(f"no {name}: {error}")
        else:
            found.append(name)
    return found, missing


class Measure:
    """Compares pictures with originals. What looks at them is loaded when first needed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._loaded: dict[str, Any] = {}

    @functools.cached_property
    def judge(self) -> Any:
        """The judging segmenter. Raises ModelError if it cannot be loaded."""
        return segment.load(self.settings.judge or str(models.find(models.JUDGE)))

    @functools.cached_property
    def finder(self) -> Any:
        """The judge as it looks for objects: at the bundled one's best size, others as they are."""
        if self.settings.judge is not None:
            return self.judge
        return segment.load(str(models.find(models.JUDGE)), side=SIDE)

    def once(self, name: str, load: Callable[[], Any]) -> Any:
        """What `load` gives, loaded once under a name."""
        if name not in self._loaded:
            self._loaded[name] = load()
        return self._loaded[name]

    @property
    def _through_networks(self) -> list[Metric]:
        return [METRICS[name] for name in self.settings.metrics if METRICS[name].has_network]

    def batch(self, picture: Image) -> int:
        """How many originals like this one, each with its copy, `show` is best given at once."""
        if not self._through_networks:
            return 1
        from sempic.evaluation import networks

        return networks.batch_size(picture)

    def show(self, shown: Sequence[Reference]) -> None:
        """Shows pictures to the networks of all metrics, as many at once as their device takes."""
        pictures = [one.picture for one in shown]
        for metric in self._through_networks:
            seen = metric.network(self).features_of(pictures)
            for one, features in zip(shown, seen, strict=True):
                one.keep(metric.name, features)

    def reference(self, picture: Image, labels: LabelMap | None = None) -> Reference:
        """An original, uint8 (H, W, 3), with its human labels, uint8 (H, W), if there are any."""
        if labels is not None and labels.shape != picture.shape[:2]:
            raise InputError(f"a label map of {labels.shape} for a picture of {picture.shape[:2]}")
        return Reference(self, picture, labels)

    def __call__(
        self, reference: Reference, shown: Image | Reference, wanted: Sequence[str] | None = None
    ) -> Record:
        """What the metrics (or those of them that are wanted) say of a decoded picture."""
        if not isinstance(shown, Reference):
            shown = reference if shown is reference.picture else self.reference(shown)
        original, picture = reference.picture, shown.picture
        if picture.shape != original.shape:
            a, b = (f"{p.shape[1]}×{p.shape[0]}" for p in (picture, original))
            raise InputError(f"a picture of {a} against one of {b}")
        record: Record = {}
        for name in self.settings.metrics if wanted is None else wanted:
            record |= METRICS[name].measure(reference, shown)
        return record

    def original(self, reference: Reference, wanted: Sequence[str] | None = None) -> Record:
        """What they say of the original itself, for those that need that."""
        record: Record = {}
        for name in self.settings.metrics if wanted is None else wanted:
            if METRICS[name].of_originals:
                record |= METRICS[name].original(reference)
        return record


def row(records: Sequence[Record], originals: Sequence[Record], bpp: Sequence[float] | None) -> Row:
    """The figures of one operating point over all its pictures; absent where not measured.

    Keys: pictures; bpp, bpp_ci; and what each metric adds up to (`sempic.evaluation.measures`).
    Intervals, NAME_ci, are 95 %, by bootstrap over pictures.

    Args:
        records: of the decoded pictures.
        originals: of the originals, as `Measure.original` gives them; or none.
        bpp: bits per pixel of each file.
    """
    found: Row = {"pictures": len(records)}
    if bpp is not None:
        found["bpp"] = float(np.mean(bpp))
        if len(records) > 1:
            found["bpp_ci"] = metrics.bootstrap(np.asarray(bpp, np.float64))
    for metric in METRICS.values():
        if records and all(map(metric.there, records)):
            beside = originals if all(map(metric.there, originals)) else []
            found |= metric.add_up(records, beside)
    return found
