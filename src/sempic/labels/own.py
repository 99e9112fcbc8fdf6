"""Users' own priors. The files are untrusted, so every assumption of the coder is checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sempic.errors import ModelError
from sempic.labels import prior
from sempic.labels.causal import BANDS, HIDDEN, TEMPLATE, Causal
from sempic.labels.mixing import SETS, SLOTS
from sempic.labels.primed import state
from sempic.labels.prior import Arrays, Prior
from sempic.labels.trunk import CELL, LAYERS
from sempic.palette import BY_NAME, IDENTITY

MOST = 255
"""Classes of a prior, at most."""
_EXACT = 1 << 24
"""Integers below this are exact in float32."""


def load(path: Path) -> Prior:
    """Reads a file of `sempic train label-prior tables`; raises ModelError with file and fault."""
    arrays, digest = prior.contents(path)
    if (fault := _fault(arrays)) is not None:
        raise ModelError(f"{path} is no prior of the label coder: {fault}")
    return prior.parsed(arrays, digest)


def _fault(arrays: Arrays) -> str | None:
    """The first reason why the coder cannot use these arrays; None if there is none."""
    if "palette" not in arrays:
        return "it names no palette; files of `sempic train label-prior` name one"
    palette = arrays["palette"]
    if palette.shape != () or not (IDENTITY.fullmatch(str(palette)) or str(palette) in BY_NAME):
        return "its palette is not the full name of one"
    if "classes" not in arrays or _beyond(arrays["classes"], (), 2, MOST):
        return f"classes is not a number of 2…{MOST}"
    classes = int(arrays["classes"])
    for name, shape, low, high in _expected(classes):
        if name not in arrays:
            return f"{name} is missing"
        if _beyond(arrays[name], shape, low, high):
            return f"{name} is not {'×'.join(map(str, shape))} whole numbers of {low}…{high}"
    for name in (*(f"layer{i}" for i in range(len(LAYERS))), "readout"):
        weights = np.abs(arrays[f"{name}.weight"].astype(np.int64))
        if int(weights.sum(1).max()) * 255 >= _EXACT:
            return f"{name}.weight makes sums of 2^24 and more"
    slots = arrays.get("primed.calm_slots")
    if slots is None or slots.ndim != 2 or slots.shape[1] > state.calm_slots(classes):
        return "primed.calm_slots is missing, or of another shape"
    if _beyond(slots, (state.CALM_CONTEXTS, slots.shape[1]), 0, 255):
        return f"primed.calm_slots is not bytes of {state.CALM_CONTEXTS} contexts"
    return None


def _beyond(array: npt.NDArray[Any], shape: tuple[int, ...], low: int, high: int) -> bool:
    """Whether an array has another shape, or other numbers than integers of low … high."""
    if array.shape != shape or array.dtype.kind not in "iu":
        return True
    return array.size > 0 and (int(array.min()) < low or int(array.max()) > high)


def _expected(n: int) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
    """Name, shape, least and greatest number of each array whose shape depends only on n classes.

    Within these ranges every index is valid. No sum overflows; the one shift that can is defined
    (labels.md §3).
    """
    first, second = HIDDEN
    causal = Causal(
        template=(len(TEMPLATE), n + 1, first),
        rows=(BANDS, first),
        columns=(BANDS, first),
        second=(first, second),
        second_bias=(second,),
        last=(second, n),
        last_bias=(n,),
    )
    for name, shape in causal._asdict().items():
        yield f"causal.{name}", shape, -2048, 2047
    layers = [
        (f"layer{i}", outputs, size * size * inputs)
        for i, (inputs, outputs, size, _) in enumerate(LAYERS)
    ]
    for name, outputs, inputs in (*layers, ("readout", CELL * CELL * n, LAYERS[-1][1])):
        yield f"{name}.weight", (outputs, inputs), -127, 127
        yield f"{name}.multiplier", (outputs,), 0, (1 << 31) - 1
        yield f"{name}.bias", (outputs,), -(1 << 60), 1 << 60
    yield "primed.slots", (state.CONTEXTS, SLOTS), 0, 255
    for kind, choices in (("causal", state.CHOICES_CAUSAL), ("informed", state.CHOICES)):
        yield f"primed.{kind}.weights", (choices, SETS, state.INPUTS), -(1 << 15), (1 << 15) - 1
        yield f"primed.{kind}.seen", (choices, SETS), 0, (1 << 16) - 1
        yield f"primed.{kind}.calm_weights", (2 * n, state.CALM_INPUTS), -(1 << 31), (1 << 31) - 1
