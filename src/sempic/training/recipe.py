"""What a training is for the loop (`trainer`), and what all our trainings share.

To add one: a subclass of `OwnRecipe` in `recipes`, its options, and an entry in `TRAININGS`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from sempic.networks import weights
from sempic.training.data.taxonomy import Taxonomy
from sempic.training.device import set_up
from sempic.training.optimizer import Ema, Optimizer
from sempic.training.options import RunOptions
from sempic.training.trainer import need_folders, train


class Recipe(ABC):
    """One training: its networks, data, loss and validation.

    All state that changes is in `network`, `networks`, `optimizers`, `averages` and `memory`: a
    checkpoint holds nothing else of a recipe.
    """

    kind: str
    """Kind of the trained weights in their metadata (`networks.weights`)."""
    network: nn.Module
    """The network that is trained, averaged and exported."""
    networks: Mapping[str, nn.Module] = MappingProxyType({})
    """Other trained networks, for example a discriminator."""
    optimizers: dict[str, Optimizer]
    memory: Mapping[str, Tensor] = MappingProxyType({})
    """Other state, such as running means; changed in place."""
    decay: float
    """Decay of the EMA of `network`."""
    first: int = 0
    """Number of the first step, read after `prepare`; above 0 if that continues a foreign run."""

    @cached_property
    def averages(self) -> dict[str, Ema]:
        """EMAs of `network` by the names of their files; the first is validated and exported."""
        return {self.kind: Ema(self.network, self.decay)}

    def averaged(self, state: dict[str, Tensor]) -> Any:
        """A copy of the network with averaged weights, in evaluation mode."""
        network = copy.deepcopy(self.network).eval()
        network.load_state_dict(state)
        return network

    def fixed(self) -> dict[str, Any]:
        """Settings that a resumed run must share with its checkpoint, JSON values."""
        return {}

    def prepare(self) -> None:  # noqa: B027 - optional
        """Called before the first step of a new run, not of a resumed one."""

    @abstractmethod
    def step(self, number: int) -> dict[str, Tensor]:
        """Make one step. Returns figures for the log: tensors of any shape, on the device."""

    @abstractmethod
    def validate(self, state: dict[str, Tensor], sheet: Path) -> dict[str, float]:
        """Figures of merit of averaged weights; may write a picture to `sheet`."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """Metadata of the weights, JSON values."""

    def save(self, state: dict[str, Tensor], folder: Path, name: str, step: int) -> Path:
        """Write the weights of `averages[name]` after a step; returns the file."""
        path = folder / f"{name}.safetensors"
        weights.save_tensors(state, self.kind, self.about(), path)
        return path

    def export(self, state: dict[str, Tensor], folder: Path) -> None:  # noqa: B027 - optional
        """Write further files of averaged weights, such as ONNX, into --export-dir."""


class OwnRecipe(Recipe):
    """A training with `RunOptions`, for the classes of a taxonomy: all but the paper's."""

    network: Any

    def __init__(self, options: Any, device: torch.device, taxonomy: Taxonomy) -> None:
        """`options`: the recipe's kind of RunOptions."""
        self.options, self.device, self.taxonomy = options, device, taxonomy

    def fixed(self) -> dict[str, Any]:
        classes = {
            "classes": self.taxonomy.palette.full_name,
            "rare": sorted(self.taxonomy.rare),
            "importance": self.taxonomy.importance,
        }
        return {"recipe": type(self).__name__, **classes, **self.options.fixed()}

    def about(self) -> dict[str, Any]:
        return weights.about(self.network)

    @classmethod
    def run(cls, options: RunOptions) -> None:
        """The command `sempic train`. Raises SempicError."""
        need_folders(options)  # before the data are read
        train(cls(options, set_up(options)), options)  # type: ignore[call-arg]  # of a subclass
