"""Distances of a picture from its original: PSNR, MS-SSIM, LPIPS and DISTS."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sempic.evaluation.measures.base import Figure, Mean, Record, Reference
from sempic.scene import Image

if TYPE_CHECKING:
    from sempic.evaluation.measure import Settings


class Direct(Mean):
    """A function of `metrics`; no figure if the function returns NaN for any picture."""

    def __init__(self, figure: Figure, compare: Callable[[Image, Image], float]) -> None:
        super().__init__(figure)
        self._compare = compare

    def measure(self, reference: Reference, shown: Reference) -> Record:
        return {self.name: self._compare(reference.picture, shown.picture)}


class Distance(Mean):
    """A distance between the features of the original and of the decoded picture."""

    has_network = True

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
