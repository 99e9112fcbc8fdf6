"""The part that all our recipes share; the paper's has its own options."""

from __future__ import annotations

from typing import Any

import torch

from sempic.networks import weights
from sempic.training.data.taxonomy import Taxonomy
from sempic.training.device import set_up
from sempic.training.options import RunOptions
from sempic.training.recipe import Recipe
from sempic.training.trainer import train


class OwnRecipe(Recipe):
    """A training with `RunOptions`, for the classes of a taxonomy."""

    network: Any

    def __init__(self, options: Any, device: torch.device, taxonomy: Taxonomy) -> None:
        """`options`: the recipe's kind of RunOptions."""
        self.options, self.device, self.taxonomy = options, device, taxonomy

    def fixed(self) -> dict[str, Any]:
        classes = self.taxonomy.palette.full_name
        return {"recipe": type(self).__name__, "classes": classes, **self.options.fixed()}

    def about(self) -> dict[str, Any]:
        return weights.about(self.network)

    @classmethod
    def run(cls, options: RunOptions) -> None:
        """The command `sempic train`. Raises SempicError."""
        train(cls(options, set_up(options)), options)  # type: ignore[call-arg]  # of a subclass
