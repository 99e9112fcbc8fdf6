"""The causal network: scores of a pixel's label from labels coded before. docs/spec/labels.md §6.1.

All integers: the same scores on every machine.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sempic.compiling import inlined, kernel, merged
from sempic.labels import neighbourhood
from sempic.labels.arithmetic import Ints

_ROWS = (
    (0, range(-8, 0)),
    (-1, range(-7, 9)),
    (-2, range(-6, 8)),
    (-3, range(-5, 7)),
    (-4, range(-4, 6)),
    (-5, range(-4, 5, 2)),
    (-7, range(-4, 5, 2)),
)
TEMPLATE = tuple((dy, dx) for dy, columns in _ROWS for dx in columns)
"""Places (dy, dx) of the causal neighbours that are the network's input, row by row."""
HIDDEN = (64, 32)
BANDS = 32
"""Bands of rows, and of columns, by which the network knows the place in the map."""


class Causal(NamedTuple):
    """Weights of the causal network: int32, 8 fractional bits."""

    template: Any
    """(len(TEMPLATE), classes + 1, HIDDEN[0]); the last class is "outside"."""
    rows: Any
    """(BANDS, HIDDEN[0])"""
    columns: Any
    """(BANDS, HIDDEN[0])"""
    second: Any
    """(HIDDEN[0], HIDDEN[1])"""
    second_bias: Any
    last: Any
    """(HIDDEN[1], classes)"""
    last_bias: Any


class Prepared(NamedTuple):
    """A causal network, prepared for prediction.

    Weights of a prior lie within -2048…2047 (`labels.own`) and activations within 0…7936, so that
    16 bits hold both, and 32 bits each sum of products. `second` and `last` have outputs first, so
    that each sum stays in a register.
    """

    runs: Any
    """int16 (len(TEMPLATE) + len(_ROWS), classes + 1, HIDDEN[0]): running sums of the template's
    weights along each of _ROWS, from zero. A run of one label is a difference of two of them."""
    ends: Ints
    """(len(_ROWS),): where each row ends in TEMPLATE."""
    alike: Any
    """(classes + 1, HIDDEN[0]): sum over a template in which all labels are equal."""
    rows: Any
    columns: Any
    second: Any
    second_bias: Any
    last: Any
    last_bias: Any


class Predictor(NamedTuple):
    """A causal network for one map, and its buffers."""

    weights: Prepared
    steps: Ints
    """TEMPLATE as distances in the frame."""
    allowed: Ints
    """(classes,): 1 for the labels in use."""
    sums: Any
    """int32 (HIDDEN[0],)"""
    hidden: Any
    """int16 (HIDDEN[0],): `sums`, clipped."""
    outputs: Any
    """int16 (HIDDEN[1],)"""
    chance: Ints
    """(classes,): the result of `predict`."""


def prepare(network: Causal) -> Prepared:
    template, classes = network.template, network.last.shape[1]
    ends = np.cumsum([len(columns) for _, columns in _ROWS])
    runs = [
        np.pad(row.cumsum(0), ((1, 0), (0, 0), (0, 0))) for row in np.split(template, ends[:-1])
    ]
    alike = np.zeros((classes + 1, HIDDEN[0]), np.int32)
    alike[:] = template.sum(0, dtype=np.int32)
    return Prepared(
        np.concatenate(runs).astype(np.int16),
        ends,
        alike,
        network.rows,
        network.columns,
        np.ascontiguousarray(network.second.T, np.int16),
        network.second_bias,
        np.ascontiguousarray(network.last.T, np.int16),
        network.last_bias,
    )


def predictor(weights: Prepared, allowed: Ints, stride: int) -> Predictor:
    return Predictor(
        weights,
        neighbourhood.steps(TEMPLATE, stride),
        allowed,
        np.zeros(HIDDEN[0], np.int32),
        np.zeros(HIDDEN[0], np.int16),
        np.zeros(HIDDEN[1], np.int16),
        np.zeros(allowed.size, np.int64),
    )


@kernel
def predict(net: Any, image: Any, o: Any, row: Any, column: Any, exp: Any) -> Any:
    """Sets chance[v] = 2^24 exp(score of v - best score) for the allowed labels of pixel `o`.

    Returns the sum of `chance`. Most of the template has the label of the pixel on the left, so
    only runs of other labels change the sum.
    """
    weights, w = net.weights, image[o - 1]
    for j in range(HIDDEN[0]):
        net.sums[j] = weights.rows[row, j] + weights.columns[column, j] + weights.alike[w, j]
    t = np.int64(0)
    for r in range(weights.ends.size):
        while t < weights.ends[r]:
            start, v = t, image[np.uint64(o + net.steps[t])]  # unsigned: no test for -1
            t += 1
            while t < weights.ends[r] and image[np.uint64(o + net.steps[t])] == v:
                t += 1
            if v != w:
                _exchange(net, start + r, t + r, v, w)
    for i in range(HIDDEN[0]):
        net.hidden[i] = _clip(net.sums[i])
    for j in range(HIDDEN[1]):
        total = np.int32(0)
        for i in range(HIDDEN[0]):
            total = np.int32(total + np.int32(net.hidden[i]) * np.int32(weights.second[j, i]))
        net.outputs[j] = _clip(np.int32((total >> 8) + weights.second_bias[j]))
    chance = net.chance
    best = np.int64(-(1 << 40))
    for v in range(chance.size):
        score = np.int32(0)
        for j in range(net.outputs.size):
            score = np.int32(score + np.int32(net.outputs[j]) * np.int32(weights.last[v, j]))
        chance[v] = np.int64(score >> 8) + weights.last_bias[v]
        best = max(best, chance[v])
    mass = np.int64(0)
    for v in range(chance.size):
        chance[v] = exp[min(best - chance[v], exp.size - 1)] * net.allowed[v]
        mass += chance[v]
    return mass


@inlined
def _exchange(net: Any, start: Any, end: Any, v: Any, w: Any) -> None:
    """Adds label v's weights between two of the running sums, and takes those of label w away."""
    weights = net.weights
    for j in range(HIDDEN[0]):
        added = np.int32(weights.runs[end, v, j]) - np.int32(weights.runs[start, v, j])
        taken = np.int32(weights.runs[end, w, j]) - np.int32(weights.runs[start, w, j])
        net.sums[j] += added - taken


@merged
def _clip(x: Any) -> Any:
    """An activation, by its sum (int32): 0…31 with 8 fractional bits."""
    return np.int16(min(max(x, np.int32(0)), np.int32(31 * 256)))
