"""The metrics, with their figures; a new metric needs a line in METRICS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sempic.evaluation import metrics
from sempic.evaluation.measures.base import Figure, Mean, Metric, Record, Reference, Row
from sempic.evaluation.measures.inception import Fid, PatchFid
from sempic.evaluation.measures.objects import Confirmed, Objects
from sempic.evaluation.measures.segmentation import Miou
from sempic.scene import Image

if TYPE_CHECKING:
    from sempic.evaluation.measure import Settings

__all__ = ["FIGURES", "METRICS", "Figure", "Metric", "Record", "Row", "details", "measured"]


class Direct(Mean):
    """A function of `metrics`; no figure if the function returns NaN for any picture."""

    def __init__(self, figure: Figure, compare: Callable[[Image, Image], float]) -> None:
        super().__init__(figure)
        self._compare = compare

    def measure(self, reference: Reference, shown: Reference) -> Record:
        return {self.name: self._compare(reference.picture, shown.picture)}


class Distance(Mean):
    """A distance between the features of the original and of the decoded picture."""

    def __init__(self, figure: Figure, make: Callable[[Any], Any], *weights: str) -> None:
        """`make`: the network, of the module `networks`."""
        super().__init__(figure)
        self._make, self.weights = make, weights

    def load(self, settings: Settings) -> Any:
        from sempic.evaluation import networks

        return self._make(networks)

    def measure(self, reference: Reference, shown: Reference) -> Record:
        network = reference.measure.network(self.name)
        features = (one.features(self.name) for one in (reference, shown))
        return {self.name: network.distance(*features)}


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Miou(),
        Fid(),
        Distance(
            Figure("lpips", "LPIPS (AlexNet)", "{:.4f}", lower=True),
            lambda networks: networks.Lpips("alexnet"),
            "alexnet",
        ),
        Objects(),
        Confirmed(),
        PatchFid(),
        Direct(Figure("psnr", "PSNR, dB", "{:.2f}"), metrics.psnr),
        Direct(Figure("ms_ssim", "MS-SSIM", "{:.4f}"), metrics.ms_ssim),
        Distance(
            Figure("dists", "DISTS", "{:.4f}", lower=True),
            lambda networks: networks.Dists(),
            *("vgg16", "dists"),
        ),
        Distance(
            Figure("lpips_vgg", "LPIPS (VGG-16)", "{:.4f}", lower=True, brief=False),
            lambda networks: networks.Lpips("vgg16"),
            "vgg16",
        ),
    )
}
"""Every metric by name, in the order of tables."""

FIGURES: dict[str, Figure] = {f.name: f for m in METRICS.values() for f in m.figures}
"""Every figure by name, in the order of the metrics."""


def measured(rows: Iterable[Row]) -> dict[str, Figure]:
    """The figures that any of the rows has, by name."""
    found = {name for row in rows for name in row}
    return {name: figure for name, figure in FIGURES.items() if name in found}


def details(rows: Sequence[tuple[str, Row]]) -> list[list[list[str]]]:
    """Tables, heads first, of the counts behind the figures of titled rows."""
    return [table for metric in METRICS.values() if (table := metric.details(rows))]
