"""What compares a picture with its original: PSNR, MS-SSIM, LPIPS and DISTS."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from sempic.evaluation import metrics
from sempic.evaluation.measures.base import Figure, Mean, NetworkCache, Record, Reference

if TYPE_CHECKING:
    from sempic.evaluation import networks


class Psnr(Mean):
    """`metrics.psnr`."""

    def __init__(self) -> None:
        super().__init__(Figure(name="psnr", title="PSNR, dB", digits="{:.2f}"))

    def measure(self, cache: NetworkCache, reference: Reference, shown: Reference) -> Record:
        return {self.name: metrics.psnr(reference.picture, shown.picture)}


class MsSsim(Mean):
    """`metrics.ms_ssim`; absent where one of the pictures is too small."""

    def __init__(self) -> None:
        super().__init__(Figure(name="ms_ssim", title="MS-SSIM", digits="{:.4f}"))

    def measure(self, cache: NetworkCache, reference: Reference, shown: Reference) -> Record:
        found = metrics.ms_ssim(reference.picture, shown.picture)
        return {self.name: float("nan") if found is None else found}


class _Distance(Mean):
    """Between the features of the original and of the decoded picture."""

    has_network = True

    @abstractmethod
    def load(self) -> networks.Lpips | networks.Dists:
        """The network."""

    def measure(self, cache: NetworkCache, reference: Reference, shown: Reference) -> Record:
        network = self.network(cache)
        there, here = (one.find(self.name, network.features) for one in (reference, shown))
        return {self.name: network.distance(there, here)}

    def network(self, cache: NetworkCache) -> Any:
        return cache.once(self.name, self.load)


class Lpips(_Distance):
    """`networks.Lpips` through one of its backbones."""

    def __init__(self, name: str, title: str, backbone: str) -> None:
        brief = backbone == "alexnet"
        super().__init__(Figure(name=name, title=title, digits="{:.4f}", lower=True, brief=brief))
        self.weights = (backbone,)

    def load(self) -> networks.Lpips:
        from sempic.evaluation import networks

        return networks.Lpips(*self.weights)


class Dists(_Distance):
    """`networks.Dists`."""

    weights = ("vgg16", "dists")

    def __init__(self) -> None:
        super().__init__(Figure(name="dists", title="DISTS", digits="{:.4f}", lower=True))

    def load(self) -> networks.Dists:
        from sempic.evaluation import networks

        return networks.Dists()
