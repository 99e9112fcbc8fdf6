"""A segmenter's class planes at the size of a picture: bilinear, with Pillow's results.

Pillow resizes one plane at a time. Here all classes of a pixel are adjacent in memory, so that SIMD
instructions process several, and `best` never stores resized planes. The results are Pillow's bit
for bit (on x86-64): its weights, order of sums, and rounding after each direction (Resample.c).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sempic.compiling import inlined, kernel
from sempic.scene import LabelMap, Probabilities

_BITS = 22
"""Fractional bits of the weights for uint8 planes."""


class _Taps(NamedTuple):
    """Filter of each output sample along a side."""

    first: npt.NDArray[np.int64]
    """(samples,): index of the first input sample."""
    number: npt.NDArray[np.int64]
    """(samples,): number of input samples."""
    weights: npt.NDArray[Any]
    """(samples, largest number): float64, or int32 with _BITS fractional bits."""


def best(
    logits: npt.NDArray[np.float32], share: tuple[float, float], size: tuple[int, int]
) -> LabelMap:
    """The best class of each pixel, uint8 `size`; the first of several equal ones.

    Args:
        logits: float32 (C, h, w).
        share: shares of h and w without padding.
        size: (height, width).
    """
    rows, columns = _taps(logits.shape[1:], share, size)
    buffers = _buffers(logits, rows, size, np.float64)
    ids, most = np.empty(size, np.uint8), np.empty(size[1], np.float32)
    _best(np.ascontiguousarray(logits), rows, columns, *buffers, most, ids)
    return ids


def enlarge(
    levels: npt.NDArray[np.uint8], share: tuple[float, float], size: tuple[int, int]
) -> Probabilities:
    """Planes, uint8 (C, h, w), resized to `size`, larger or smaller; arguments as in `best`."""
    rows, columns = (
        side._replace(weights=(side.weights * (1 << _BITS) + 0.5).astype(np.int32))
        for side in _taps(levels.shape[1:], share, size)
    )
    found = np.empty((len(levels), *size), np.uint8)
    buffers = _buffers(levels, rows, size, np.int32)
    _enlarge(np.ascontiguousarray(levels), rows, columns, *buffers, found)
    return found


def _taps(
    source: tuple[int, ...], share: tuple[float, float], size: tuple[int, int]
) -> tuple[_Taps, ...]:
    """Filters of the rows and of the columns."""
    found = []
    for samples, part, wanted in zip(source, share, size, strict=True):
        scale = float(np.float32(samples * part)) / wanted
        reach = max(scale, 1.0)
        center = (np.arange(wanted) + 0.5) * scale
        first = (center - reach + 0.5).clip(0).astype(np.int64)
        count = (center + reach + 0.5).astype(np.int64).clip(None, samples) - first
        at = np.arange(2 * int(np.ceil(reach)) + 1)
        away = np.abs((at + first[:, None] - center[:, None] + 0.5) * (1 / reach))
        weights = np.where((away < 1) & (at < count[:, None]), 1 - away, 0)
        found.append(_Taps(first, count, weights / np.cumsum(weights, 1)[:, -1:]))
    return tuple(found)


def _buffers(planes: npt.NDArray[Any], rows: _Taps, size: tuple[int, int], kind: Any) -> Any:
    """Buffers: an input row of all classes; this row at the output width; the last such rows by
    class, as many as a filter needs; an output row of one class."""
    classes, _, w = planes.shape
    width = size[1]
    return (
        np.empty((w, classes), kind),
        np.empty((width, classes), kind),
        np.empty((rows.weights.shape[1], classes, width), planes.dtype),
        np.empty(width, kind),
    )


@inlined
def _across(planes: Any, y: Any, columns: Any, row: Any, wide: Any, half: Any) -> None:
    """Sets `wide` to input row `y` at the output width, plus `half`."""
    for v in range(planes.shape[0]):
        for x in range(planes.shape[2]):
            row[x, v] = planes[v, y, x]
    for x in range(wide.shape[0]):
        for v in range(wide.shape[1]):
            wide[x, v] = half
        for t in range(columns.number[x]):
            at, weight = columns.first[x] + t, columns.weights[x, t]
            for v in range(wide.shape[1]):
                wide[x, v] += row[at, v] * weight


@inlined
def _down(last: Any, v: Any, y: Any, rows: Any, line: Any, half: Any) -> None:
    """Sets `line` to output row `y` of class `v`, plus `half`."""
    for x in range(line.size):
        line[x] = half
    for t in range(rows.number[y]):
        at, weight = (rows.first[y] + t) % last.shape[0], rows.weights[y, t]
        for x in range(line.size):
            line[x] += last[at, v, x] * weight


@kernel
def _best(
    planes: Any, rows: Any, columns: Any, row: Any, wide: Any, last: Any, line: Any, most: Any,
    ids: Any,
) -> None:  # fmt: skip
    done = 0
    for y in range(ids.shape[0]):
        while done < rows.first[y] + rows.number[y]:
            _across(planes, done, columns, row, wide, 0.0)
            for v in range(last.shape[1]):
                for x in range(line.size):
                    last[done % last.shape[0], v, x] = wide[x, v]
            done += 1
        for x in range(line.size):
            ids[y, x], most[x] = 0, -np.inf
        for v in range(last.shape[1]):
            _down(last, v, y, rows, line, 0.0)
            for x in range(line.size):
                value = np.float32(line[x])
                better = value > most[x]
                ids[y, x] = v if better else ids[y, x]
                most[x] = value if better else most[x]


@kernel
def _enlarge(
    planes: Any, rows: Any, columns: Any, row: Any, wide: Any, last: Any, line: Any, found: Any
) -> None:
    half = np.int32(1 << _BITS - 1)
    done = 0
    for y in range(found.shape[1]):
        while done < rows.first[y] + rows.number[y]:
            _across(planes, done, columns, row, wide, half)
            for v in range(last.shape[1]):
                for x in range(line.size):
                    last[done % last.shape[0], v, x] = wide[x, v] >> _BITS
            done += 1
        for v in range(last.shape[1]):
            _down(last, v, y, rows, line, half)
            for x in range(line.size):
                found[v, y, x] = line[x] >> _BITS
