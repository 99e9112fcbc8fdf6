"""The metrics, with their figures; a new metric needs a line in METRICS."""

from __future__ import annotations

from sempic.evaluation import metrics
from sempic.evaluation.measures.base import Figure, Metric, Record, Row
from sempic.evaluation.measures.distances import Direct, Dists, Lpips
from sempic.evaluation.measures.inception import Fid, PatchFid
from sempic.evaluation.measures.objects import Confirmed, Objects
from sempic.evaluation.measures.segmentation import Miou

__all__ = ["FIGURES", "METRICS", "Figure", "Metric", "Record", "Row"]

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Miou(),
        Fid(),
        Lpips("lpips", "LPIPS (AlexNet)", "alexnet"),
        Objects(),
        Confirmed(),
        PatchFid(),
        Direct(Figure(name="psnr", title="PSNR, dB", digits="{:.2f}"), metrics.psnr),
        Direct(Figure(name="ms_ssim", title="MS-SSIM", digits="{:.4f}"), metrics.ms_ssim),
        Dists(),
        Lpips("lpips_vgg", "LPIPS (VGG-16)", "vgg16"),
    )
}
"""Every metric by name, in the order of tables."""

FIGURES: dict[str, Figure] = {f.name: f for m in METRICS.values() for f in m.figures}
"""Every figure by name, in the order of the metrics."""
