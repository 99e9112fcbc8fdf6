"""Trained priors of the label coder, and their files. docs/spec/labels.md §8."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sempic.errors import ModelError, reason
from sempic.labels.causal import Causal, Prepared, prepare
from sempic.labels.trunk import LAYERS, Layer

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prior:
    classes: int
    palette: str | None
    """Full name of the palette of its classes; None in bundled priors."""
    digest: str
    """First eight hexadecimal digits of the SHA-256 of the file."""
    causal: Causal
    layers: tuple[Layer, ...]
    """Of the trunk."""
    readout: Layer | None
    """Layer from the trunk's output to class scores; None before its training."""
    primed: dict[str, npt.NDArray[Any]]
    """Tables of `primed.state` after the training maps; empty before these were coded."""

    @cached_property
    def prepared(self) -> Prepared:
        """The causal network, prepared once for all maps."""
        return prepare(self.causal)


@lru_cache
def load(path: Path) -> Prior:
    """Reads a trusted file of `sempic train label-prior`, finished or not; raises ModelError.

    `sempic.labels.own` reads untrusted files.
    """
    arrays, digest = contents(path)
    try:
        return parsed(arrays, digest)
    except (ValueError, KeyError) as error:
        raise ModelError(f"{path} is no prior of the label coder: {error}") from error


def contents(path: Path) -> tuple[Arrays, str]:
    """The arrays of a file by name, and its digest; raises ModelError."""
    try:
        data = path.read_bytes()
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return dict(file), hashlib.sha256(data).hexdigest()[:8]
    except Exception as error:  # zipfile, zlib and numpy raise errors of many classes
        # NumPy's own ValueError tells how to load the file unsafely.
        fault = "not arrays of np.savez" if isinstance(error, ValueError) else reason(error)
        raise ModelError(f"{path} is no prior of the label coder: {fault}") from error


def parsed(arrays: Arrays, digest: str) -> Prior:
    """The prior in these arrays; raises ValueError or KeyError."""

    def layer(name: str) -> Layer:
        return Layer(
            arrays[f"{name}.weight"].astype(np.float32),
            arrays[f"{name}.multiplier"].astype(np.int64),
            arrays[f"{name}.bias"].astype(np.int64),
        )

    # One memory layout for all priors, so that numba compiles once.
    fields = (arrays[f"causal.{field}"] for field in Causal._fields)
    return Prior(
        classes=int(arrays["classes"]),
        palette=str(arrays["palette"]) if "palette" in arrays else None,
        digest=digest,
        causal=Causal(*(np.ascontiguousarray(field, np.int32) for field in fields)),
        layers=tuple(layer(f"layer{i}") for i in range(len(LAYERS))),
        readout=layer("readout") if "readout.weight" in arrays else None,
        primed={k.removeprefix("primed."): v for k, v in arrays.items() if k.startswith("primed.")},
    )
