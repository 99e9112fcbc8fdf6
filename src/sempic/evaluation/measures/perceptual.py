"""LPIPS and DISTS."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from sempic.evaluation.measures.base import Figure, Mean, Record

if TYPE_CHECKING:
    from sempic.evaluation import networks
    from sempic.evaluation.measure import Measure, Reference


class _Distance(Mean):
    """Between the features of the original and of the decoded picture."""

    looks = True

    @abstractmethod
    def load(self) -> networks.Lpips | networks.Dists:
        """The network."""

    def measure(self, measure: Measure, reference: Reference, shown: Reference) -> Record:
        network = self.network(measure)
        there, here = (one.find(self.name, network.features) for one in (reference, shown))
        return {self.name: network.distance(there, here)}

    def network(self, measure: Measure) -> Any:
        return measure.network(self.name, self.load)


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
