"""The trained prior of the label coder: an integer network, exact on every machine.

For each pixel it gives class scores from the causal neighbourhood and, if the decoder holds a
coarse picture, from features of it. The features come from a convolutional trunk with uint8
activations and int8 weights: every partial sum is an integer below 2^24, hence exact in float32
whatever the order of summation (after Ballé et al., "Integer Networks for Data Compression with
Latent-Variable Models", ICLR 2019). docs/LABELS.md §4.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from sempic.errors import ModelError
from sempic.labels._compiling import compiled
from sempic.scene import Coarse

Floats = npt.NDArray[np.float32]
T = TypeVar("T")

PAD = 8
"""How far the template reaches left, right and up."""
TEMPLATE = tuple(
    [(0, dx) for dx in range(-8, 0)]
    + [(-1, dx) for dx in range(-7, 9)]
    + [(-2, dx) for dx in range(-6, 8)]
    + [(-3, dx) for dx in range(-5, 7)]
    + [(-4, dx) for dx in range(-4, 6)]
    + [(-5, dx) for dx in (-4, -2, 0, 2, 4)]
    + [(-7, dx) for dx in (-4, -2, 0, 2, 4)]
)
"""Causal neighbours (dy, dx) that the network sees."""
CELL = 4
"""The trunk works on cells of 4×4 pixels of the map."""
HIDDEN = (64, 32)
BANDS = 32
"""Rows and columns of the map are told apart by 32 bands each."""
FEATURES = 16
"""Of the coarse picture, for each pixel of the map."""
LAYERS = (
    # inputs, outputs, kernel, stride
    (5, 24, 3, 1),
    (24, 32, 3, 1),
    (32, 48, 3, 2),
    (48, 48, 3, 1),
    (48, 64, 3, 2),
    (64, 64, 3, 1),
    (64, 64, 3, 1),
    (112, 48, 1, 1),
    (80, 48, 1, 1),
    (48, 40, 3, 1),
    (40, 16 * FEATURES, 1, 1),
)
"""Convolutions of the trunk; padding kernel // 2, each followed by a clamp to uint8."""


def trunk(x: T, conv: Callable[[int, T], T], join: Callable[[T, T], T]) -> T:
    """The trunk's drawing, for arrays and tensors alike: conv(i, x) is layer i; join(a, b) puts
    a, its resolution doubled and cropped to b's, before b."""
    full = conv(1, conv(0, x))
    half = conv(3, conv(2, full))
    quarter = conv(6, conv(5, conv(4, half)))
    half = conv(7, join(quarter, half))
    full = conv(8, join(half, full))
    return conv(10, conv(9, full))


class Causal(NamedTuple):
    """The per-pixel network; int32, fixed point with 8 fractional bits."""

    template: Any
    """(len(TEMPLATE), classes + 1, HIDDEN[0]); the last class is "outside"."""
    rows: Any
    """(BANDS, HIDDEN[0])"""
    columns: Any
    """(BANDS, HIDDEN[0])"""
    mix: Any
    """(FEATURES, HIDDEN[0])"""
    second: Any
    """(HIDDEN[0], HIDDEN[1])"""
    second_bias: Any
    last: Any
    """(HIDDEN[1], classes)"""
    last_bias: Any


class Tables(NamedTuple):
    """What the mixing learnt on training maps: fields of `_model.State`, shortened."""

    weights: Any
    seen: Any


class Layer(NamedTuple):
    weights: Floats
    """(outputs, kernel · kernel · inputs)"""
    multipliers: npt.NDArray[np.int64]
    biases: npt.NDArray[np.int64]


class Prior(NamedTuple):
    classes: int
    causal: Causal
    """Without a coarse picture."""
    informed: Causal | None
    """With one."""
    causal_tables: Tables | None
    informed_tables: Tables | None
    layers: tuple[Layer, ...]
    """Of the trunk."""
    readout: Layer | None = None
    """Model 2: a last layer that gives class scores, in place of the trunk's own."""
    primed: dict[str, npt.NDArray[Any]] | None = None
    """Model 2: the tables of `_primed.begin`."""


def grid(planes: Coarse, height: int, width: int) -> npt.NDArray[np.uint8]:
    """The planes at one quarter of the map's resolution, nearest: uint8 (3, ⌈h/4⌉, ⌈w/4⌉)."""
    h, w = (height + 3) // 4, (width + 3) // 4
    result = np.empty((3, h, w), np.uint8)
    for i, plane in enumerate((planes.y, planes.cb, planes.cr)):
        rows = (2 * np.arange(h) + 1) * plane.shape[0] // (2 * h)
        columns = (2 * np.arange(w) + 1) * plane.shape[1] // (2 * w)
        result[i] = plane[rows[:, None], columns]
    return result


def signed(planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    """What enters the trunk: the planes and the place in the picture, int16 (5, h, w), within
    -128…127."""
    _, h, w = planes.shape
    place = np.broadcast_arrays((np.arange(h) * 256 // h)[:, None], np.arange(w) * 256 // w)
    return np.concatenate([planes, np.stack(place)]).astype(np.int16) - np.int16(128)


def features(prior: Prior, planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8 (3, h, w) → uint8 (h, w, 4, 4, FEATURES): of each cell, its 4×4 pixels."""
    x = convolve(prior.layers, planes)
    _, h, w = x.shape
    return np.ascontiguousarray(x.reshape(4, 4, FEATURES, h, w).transpose(3, 4, 0, 1, 2))


def scores(prior: Prior, planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8 (3, h, w) → uint8 (classes, 4h, 4w): logits of the trunk's readout, 8 to a nat, 128
    for none."""
    assert prior.readout is not None
    x = convolve((*prior.layers[:-1], prior.readout), planes)
    _, h, w = x.shape
    cells = x.reshape(CELL, CELL, prior.classes, h, w).transpose(2, 3, 0, 4, 1)
    return np.ascontiguousarray(cells).reshape(prior.classes, CELL * h, CELL * w)


@compiled(error_model="numpy")
def _requantise(sums: Any, multipliers: Any, biases: Any) -> None:
    """Whole sums, (outputs, pixels), to the next layer's uint8, in place."""
    for i in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            v = np.int64(sums[i, j]) * multipliers[i] + biases[i] >> 24
            sums[i, j] = min(max(v, 0), 255)


def convolve(layers: tuple[Layer, ...], planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The trunk with these layers: uint8 (3, h, w) → uint8 (outputs, h, w)."""

    def conv(i: int, x: Floats) -> Floats:
        _, _, kernel, stride = LAYERS[i]
        weights, multiplier, bias = layers[i]
        _, h, w = x.shape
        rows, columns = -(-h // stride), -(-w // stride)
        if kernel == 3:
            x = np.pad(x, ((0, 0), (1, 1), (1, 1)))
            taps = [
                x[:, dy : dy + h : stride, dx : dx + w : stride]
                for dy in range(3)
                for dx in range(3)
            ]
            x = np.concatenate(taps)
        sums: Floats = weights @ x.reshape(len(x), -1)
        _requantise(sums, multiplier, bias)
        return sums.reshape(len(weights), rows, columns)

    def join(a: Floats, b: Floats) -> Floats:
        double = a.repeat(2, 1).repeat(2, 2)[:, : b.shape[1], : b.shape[2]]
        return np.concatenate([double, b])

    return trunk(signed(planes).astype(np.float32), conv, join).astype(np.uint8)


@lru_cache
def load(*paths: Path) -> Prior:
    """Reads files of `train label-prior`, later ones adding to the first. Raises ModelError."""
    path = paths[0]
    try:
        arrays: dict[str, npt.NDArray[Any]] = {}
        for path in paths:
            with np.load(path, allow_pickle=False) as file:
                arrays |= file

        def network(name: str) -> Causal | None:
            if f"{name}.template" not in arrays:
                return None
            fields = (arrays[f"{name}.{field}"] for field in Causal._fields)
            # One memory layout, so that numba compiles once.
            return Causal(*(np.ascontiguousarray(field, np.int32) for field in fields))

        def tables(name: str) -> Tables | None:
            if f"{name}.{Tables._fields[0]}" not in arrays:
                return None
            return Tables(*(arrays[f"{name}.{f}"] for f in Tables._fields))

        causal, informed = network("causal"), network("informed")
        if causal is None:
            raise KeyError("causal.template")

        def layer(name: str) -> Layer:
            return Layer(
                arrays[f"{name}.weight"].astype(np.float32),
                arrays[f"{name}.multiplier"].astype(np.int64),
                arrays[f"{name}.bias"].astype(np.int64),
            )

        primed = {k.removeprefix("primed."): v for k, v in arrays.items() if k[:7] == "primed."}
        return Prior(
            int(arrays["classes"]),
            causal,
            informed,
            tables("causal"),
            tables("informed"),
            tuple(layer(f"layer{i}") for i in range(len(LAYERS) if informed else 0)),
            layer("readout") if "readout.weight" in arrays else None,
            primed or None,
        )
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ModelError(f"{path.name} is no prior of the label coder: {error}") from error
