"""Trained priors of the label coder, and the files that they are kept in."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from sempic.errors import ModelError
from sempic.labels.network import LAYERS, Causal, Layer


class Prior(NamedTuple):
    classes: int
    causal: Causal
    layers: tuple[Layer, ...]
    """Of the trunk."""
    readout: Layer | None
    """What makes class scores of the trunk's output; None before it is trained."""
    primed: dict[str, npt.NDArray[Any]]
    """What `primed.state` keeps of the training maps; empty before they were coded."""


@lru_cache
def load(path: Path) -> Prior:
    """Reads a file of `sempic train label-prior`, other names in it apart; raises ModelError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, npt.NDArray[Any]] = dict(file)

        def layer(name: str) -> Layer:
            return Layer(
                arrays[f"{name}.weight"].astype(np.float32),
                arrays[f"{name}.multiplier"].astype(np.int64),
                arrays[f"{name}.bias"].astype(np.int64),
            )

        # One memory layout, so that numba compiles once.
        fields = (arrays[f"causal.{field}"] for field in Causal._fields)
        return Prior(
            int(arrays["classes"]),
            Causal(*(np.ascontiguousarray(field, np.int32) for field in fields)),
            tuple(layer(f"layer{i}") for i in range(len(LAYERS))),
            layer("readout") if "readout.weight" in arrays else None,
            {k.removeprefix("primed."): v for k, v in arrays.items() if k.startswith("primed.")},
        )
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ModelError(f"{path.name} is no prior of the label coder: {error}") from error
