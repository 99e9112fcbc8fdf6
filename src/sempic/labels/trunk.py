"""The trunk: class scores from the coarse picture, in exact integers. docs/spec/labels.md §7.

Its convolutions have uint8 activations and int8 weights. Every partial sum is an integer below
2^24 and therefore exact in float32, in any order of summation (after Ballé et al., "Integer
Networks for Data Compression with Latent-Variable Models", ICLR 2019).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from sempic.compiling import kernel
from sempic.scene import Coarse

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
T = TypeVar("T")

CELL = 4
"""Side of the trunk's cells, in pixels of the map."""
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
)
"""The trunk's convolutions: padding kernel // 2, then a clamp to uint8."""


def trunk(x: T, conv: Callable[[int, T], T], join: Callable[[T, T], T]) -> T:
    """The trunk's graph, for arrays and tensors.

    conv(i, x): layer i. join(a, b): a at twice its resolution, cropped to b's, followed by b.
    """
    full = conv(1, conv(0, x))
    half = conv(3, conv(2, full))
    quarter = conv(6, conv(5, conv(4, half)))
    half = conv(7, join(quarter, half))
    full = conv(8, join(half, full))
    return conv(9, full)


class Layer(NamedTuple):
    weights: Floats
    """(outputs, kernel · kernel · inputs)"""
    multipliers: npt.NDArray[np.int64]
    biases: npt.NDArray[np.int64]


def grid(planes: Coarse, height: int, width: int) -> Bytes:
    """The planes at one quarter of the map's resolution, nearest: uint8 (3, ⌈h/4⌉, ⌈w/4⌉)."""
    h, w = (height + 3) // 4, (width + 3) // 4
    result = np.empty((3, h, w), np.uint8)
    for i, plane in enumerate((planes.y, planes.cb, planes.cr)):
        rows = (2 * np.arange(h) + 1) * plane.shape[0] // (2 * h)
        columns = (2 * np.arange(w) + 1) * plane.shape[1] // (2 * w)
        result[i] = plane[rows[:, None], columns]
    return result


def signed(planes: Bytes) -> npt.NDArray[np.int16]:
    """The trunk's input: the planes and each cell's row and column, int16 (5, h, w), -128…127."""
    _, h, w = planes.shape
    place = np.broadcast_arrays((np.arange(h) * 256 // h)[:, None], np.arange(w) * 256 // w)
    return np.concatenate([planes, np.stack(place)]).astype(np.int16) - np.int16(128)


def scores(layers: tuple[Layer, ...], readout: Layer, planes: Bytes) -> Bytes:
    """Logits of each pixel, uint8 (classes, 4h, 4w), from planes, uint8 (3, h, w).

    A step is 1/8 nat; 128 is logit 0.
    """
    _, h, w = planes.shape
    classes = len(readout.weights) // (CELL * CELL)
    logits = np.empty((classes, h, CELL, w, CELL), np.uint8)
    step = max(1, _AT_ONCE // (len(readout.weights) * w))
    for first, strip in _strips(layers, planes):
        for top in range(0, strip.shape[1], step):
            hidden = strip[:, top : top + step]
            rows = hidden.shape[1]
            with _one_thread():
                sums: Floats = readout.weights @ hidden.reshape(len(hidden), -1)
            _place(sums, readout.multipliers, readout.biases, logits, first + top, rows)
    return logits.reshape(classes, CELL * h, CELL * w)


@kernel
def _requantise(sums: Any, multipliers: Any, biases: Any) -> None:
    """Turns integer sums, (outputs, pixels), into the next layer's 0…255, in place."""
    for i in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            v = np.int64(sums[i, j]) * multipliers[i] + biases[i] >> 24
            sums[i, j] = min(max(v, 0), 255)


@kernel
def _place(sums: Any, multipliers: Any, biases: Any, logits: Any, top: Any, rows: Any) -> None:
    """Requantises the readout's sums into `logits`, (classes, h, CELL, w, CELL), from row `top`."""
    classes, columns = logits.shape[0], logits.shape[3]
    for i in range(sums.shape[0]):
        place, label = i // classes, i % classes
        for y in range(rows):
            for x in range(columns):
                v = np.int64(sums[i, y * columns + x]) * multipliers[i] + biases[i] >> 24
                logits[label, top + y, place // CELL, x, place % CELL] = min(max(v, 0), 255)


def convolve(layers: tuple[Layer, ...], planes: Bytes) -> Bytes:
    """The trunk's output, uint8 (LAYERS[-1][1], h, w), of planes, uint8 (3, h, w)."""
    parts = [part.astype(np.uint8) for _, part in _strips(layers, planes)]
    return np.concatenate(parts, 1)


_STRIP = 1 << 18
"""Cells that the trunk processes at once, at about a thousand bytes each."""
_AT_ONCE = 1 << 18
"""Numbers in an operand or result of a matrix product: few enough for the cache."""
_HALO = 24
"""Rows above and below a strip that influence it, rounded up to a multiple of all strides."""


def _strips(layers: tuple[Layer, ...], planes: Bytes) -> Iterator[tuple[int, Floats]]:
    """The first row and the trunk's output, (outputs, rows, w), of each strip."""
    seen = signed(planes)
    _, h, w = seen.shape
    rows = max(_HALO, _STRIP // w // 8 * 8)
    for first in range(0, h, rows):
        start, end = max(0, first - _HALO), min(h, first + rows + _HALO)
        with _one_thread():
            part = _trunk(layers, seen[:, start:end].astype(np.float32))
        yield first, part[:, first - start : first - start + rows]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Runs BLAS in one thread.

    These products are so small that waiting for threads costs more than threads save: the trunk
    takes three times as long if one of two cores is busy. The number of threads belongs to the
    process. A concurrent caller may read 1 here and must not restore this 1 later.
    """
    before = [(library, library.num_threads) for library in _blas()]
    for library, _ in before:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, count in before:
            if count != 1:
                library.set_num_threads(count)


@functools.cache
def _blas() -> list[Any]:
    """The BLAS libraries of this process."""
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


def _trunk(layers: tuple[Layer, ...], x: Floats) -> Floats:
    def conv(i: int, x: Floats) -> Floats:
        inputs, outputs, kernel, stride = LAYERS[i]
        weights, multiplier, bias = layers[i]
        _, h, w = x.shape
        rows, columns = -(-h // stride), -(-w // stride)
        sums = np.empty((outputs, rows * columns), np.float32)
        if kernel == 1:
            np.matmul(weights, x.reshape(inputs, -1), out=sums)
        else:
            inside, x = x, np.zeros((inputs, h + 2, w + 2), np.float32)
            x[:, 1:-1, 1:-1] = inside  # np.pad takes four times as long
            step = max(1, _AT_ONCE // (9 * inputs * columns))
            for top in range(0, rows, step):
                bottom = min(rows, top + step)
                taps = [
                    x[:, top * stride + dy : bottom * stride + dy : stride, dx : dx + w : stride]
                    for dy in range(3)
                    for dx in range(3)
                ]
                part = np.concatenate(taps).reshape(9 * inputs, -1)
                sums[:, top * columns : bottom * columns] = weights @ part
        _requantise(sums, multiplier, bias)
        return sums.reshape(outputs, rows, columns)

    def join(a: Floats, b: Floats) -> Floats:
        double = a.repeat(2, 1).repeat(2, 2)[:, : b.shape[1], : b.shape[2]]
        return np.concatenate([double, b])

    return trunk(x, conv, join)
