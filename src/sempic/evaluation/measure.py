"""One decoded picture against its original, and many of them in one row of a table.

What is measured of a picture is a Record: numbers and small arrays, which can be kept and added
up. A row adds up records; only then are there an mIoU, an FID and confidence intervals.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sempic import models, segment
from sempic.errors import InputError, ModelError
from sempic.evaluation import metrics, weights
from sempic.palette import INDICES, PALETTES, Palette
from sempic.scene import Image, LabelMap

Record = dict[str, Any]
"""Of one picture, what METRICS say: floats "psnr", "ms_ssim" (or NaN), "lpips", "lpips_vgg" and
"dists"; int64 "confusion" (the judge against human labels) and "agreement" (against its own map
of the original), as `metrics.confusion`; float32 (2048,) "features"."""

METRICS = ("miou", "fid", "psnr", "ms_ssim", "lpips", "lpips_vgg", "dists")
NEEDS = {"lpips": ("alexnet",), "lpips_vgg": ("vgg16",), "dists": ("vgg16", "dists")}
"""The weights behind a metric, names for `weights.load`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What is measured, and by whom."""

    judge: str | None = None
    """The judging segmenter: an ONNX file or "hf:NAME"; None: models/judge.onnx."""
    inception: str | None = None
    """TorchScript file of the FID network; None: where `weights.inception` finds it."""
    metrics: tuple[str, ...] = METRICS
    num_classes: int | None = None
    """Of a judge whose palette is `indices`; None: every id but 255, which is void."""

    @property
    def judge_name(self) -> str:
        return self.judge or "EfficientNet-Lite2 (bundled judge.onnx)"

    def key(self) -> str:
        """All that records depend on besides the pictures, for a cache."""
        parts = []
        if "miou" in self.metrics:
            judge = self.judge or str(models.find(models.JUDGE))
            parts.append(judge if judge.startswith("hf:") else weights.digest(Path(judge)))
        if "fid" in self.metrics:
            parts.append(str(weights.inception(self.inception).stat().st_size))
        return " ".join(["1", *parts])


def available(
    wanted: Sequence[str] | None, inception: str | None, judge: str | None = None
) -> tuple[list[str], list[str]]:
    """The metrics that can be measured here, and a line about each that cannot.

    Args:
        wanted: names out of METRICS; a missing one is then an error. None: whatever there is.
    """
    found, missing = [], []
    for name in METRICS if wanted is None else wanted:
        if name not in METRICS:
            raise InputError(f"metric {name!r} is not one of {', '.join(METRICS)}")
        try:
            if name == "fid":
                weights.inception(inception)
            if name == "miou" and judge is None:
                models.find(models.JUDGE)
            for part in NEEDS.get(name, ()):
                weights.check(part)
        except ModelError as error:
            if wanted is not None:
                raise
            missing.append(f"no {name}: {error}")
        else:
            found.append(name)
    return found, missing


class Reference:
    """A picture, above all an original, and what the networks say of it, found when first asked
    for."""

    def __init__(self, measure: Measure, picture: Image, labels: LabelMap | None) -> None:
        self.picture = picture
        self.labels = labels
        self._measure = measure
        self._features: dict[str, Any] = {}

    @functools.cached_property
    def judged(self) -> LabelMap:
        """The judge's map of the original."""
        return self._measure.judge(self.picture)

    def features(self, name: str) -> Any:
        if name not in self._features:
            self._features[name] = self._measure.network(name).features(self.picture)
        return self._features[name]

    def keep(self, name: str, features: Any) -> None:
        self._features[name] = features


def count_classes(palette: Palette, wanted: int | None = None) -> int:
    """How many classes a palette has, void not counted; `indices` has as many as are wanted."""
    if palette is INDICES:
        return wanted or 255
    return len(palette.classes) - (palette.void is not None)


class Measure:
    """Compares pictures with originals; networks are loaded when first needed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._networks: dict[str, Any] = {}

    @functools.cached_property
    def judge(self) -> Any:
        """The judging segmenter. Raises ModelError if it cannot be loaded."""
        return segment.load(self.settings.judge or str(models.find(models.JUDGE)))

    @property
    def classes(self) -> int:
        """How many classes the judge knows, void not counted."""
        return count_classes(PALETTES[self.judge.palette], self.settings.num_classes)

    def network(self, name: str) -> Any:
        """Behind "fid", "lpips", "lpips_vgg" or "dists"."""
        if name not in self._networks:
            from sempic.evaluation import networks

            self._networks[name] = {
                "fid": lambda: networks.Inception(self.settings.inception),
                "lpips": lambda: networks.Lpips("alexnet"),
                "lpips_vgg": lambda: networks.Lpips("vgg16"),
                "dists": networks.Dists,
            }[name]()
        return self._networks[name]

    @property
    def batch(self) -> int:
        """How many pictures `look` is best given."""
        if not {"fid", *NEEDS} & set(self.settings.metrics):
            return 1
        from sempic.evaluation import networks

        return networks.batch_size()

    def look(self, shown: Sequence[Reference]) -> None:
        """Shows pictures to the networks of all metrics, as many at once as their device takes."""
        pictures = [one.picture for one in shown]
        for name in {"fid", *NEEDS} & set(self.settings.metrics):
            for one, features in zip(shown, self.network(name).features_of(pictures), strict=True):
                one.keep(name, features)

    def reference(self, picture: Image, labels: LabelMap | None = None) -> Reference:
        """An original, uint8 (H, W, 3), with its human labels, uint8 (H, W), if there are any."""
        if labels is not None and labels.shape != picture.shape[:2]:
            raise InputError(f"a label map of {labels.shape} for a picture of {picture.shape[:2]}")
        return Reference(self, picture, labels)

    def __call__(
        self, reference: Reference, shown: Image | Reference, wanted: Sequence[str] | None = None
    ) -> Record:
        """What METRICS (or those of them that are wanted) say of a decoded picture."""
        if not isinstance(shown, Reference):
            shown = reference if shown is reference.picture else self.reference(shown)
        original, picture = reference.picture, shown.picture
        if picture.shape != original.shape:
            raise InputError(f"a picture of {picture.shape} against one of {original.shape}")
        record: Record = {}
        for name in self.settings.metrics if wanted is None else wanted:
            if name == "psnr":
                record[name] = metrics.psnr(original, picture)
            elif name == "ms_ssim":
                found = metrics.ms_ssim(original, picture)
                record[name] = float("nan") if found is None else found
            elif name == "fid":
                record["features"] = shown.features(name)
            elif name == "miou":
                judged = reference.judged if picture is original else self.judge(picture)
                count = self.classes
                record["agreement"] = metrics.confusion(reference.judged, judged, count)
                if reference.labels is not None:
                    record["confusion"] = metrics.confusion(reference.labels, judged, count)
            else:
                there, here = reference.features(name), shown.features(name)
                record[name] = self.network(name).distance(there, here)
        return record


def row(
    records: Sequence[Record], originals: Sequence[Record], bpp: Sequence[float] | None
) -> dict[str, Any]:
    """The figures of one operating point over all its pictures; absent where not measured.

    Keys: pictures; bpp, bpp_ci; miou, miou_ci, iou (list, None for a class that does not occur),
    pixel_accuracy; agreement (mIoU of the judge with itself); fid, kid; means of psnr, ms_ssim,
    lpips, lpips_vgg and dists. Intervals are 95 %, by bootstrap over pictures.

    Args:
        records: of the decoded pictures.
        originals: of the originals themselves, of which only the features count.
        bpp: bits per pixel of each file.
    """
    found: dict[str, Any] = {"pictures": len(records)}
    if bpp is not None:
        found["bpp"] = float(np.mean(bpp))
        if len(records) > 1:
            found["bpp_ci"] = metrics.bootstrap(np.asarray(bpp, np.float64))
    matrices = _stack(records, "confusion")
    if matrices is not None:
        total = matrices.sum(0)
        found["miou"] = metrics.miou(total)
        if len(records) > 1:
            seen = np.append(total.sum(1) + total[:, :-1].sum(0) > 0, True)  # of 255 ids, a few
            some = matrices[:, seen[:-1]][:, :, seen]
            found["miou_ci"] = metrics.bootstrap(some, metrics.miou)
        found["iou"] = [None if np.isnan(x) else float(x) for x in metrics.iou(total)]
        found["pixel_accuracy"] = metrics.pixel_accuracy(total)
    matrices = _stack(records, "agreement")
    if matrices is not None:
        found["agreement"] = metrics.miou(matrices.sum(0))
    there, here = _stack(originals, "features"), _stack(records, "features")
    if there is not None and here is not None and len(here) > 1:
        there, here = there.astype(np.float64), here.astype(np.float64)
        found["fid"] = metrics.frechet(there, here)
        found["kid"] = metrics.kernel_distance(there, here)
    for name in ("psnr", "ms_ssim", "lpips", "lpips_vgg", "dists"):
        if all(name in record for record in records):
            mean = float(np.mean([record[name] for record in records]))
            if np.isfinite(mean):
                found[name] = mean
    return found


def _stack(records: Sequence[Record], key: str) -> Any:
    """All arrays of one key, or None where a record lacks it."""
    there = records and all(key in r for r in records)
    return np.stack([r[key] for r in records]) if there else None
