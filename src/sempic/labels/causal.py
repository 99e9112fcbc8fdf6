"""The causal network: scores of a pixel's label from labels coded before. docs/spec/labels.md §6.1.

All integers: the same scores on every machine.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sempic.compiling import kernel
from sempic.labels import neighbourhood
from sempic.labels.arithmetic import Ints, clamp

TEMPLATE = tuple(
    [(0, dx) for dx in range(-8, 0)]
    + [(-1, dx) for dx in range(-7, 9)]
    + [(-2, dx) for dx in range(-6, 8)]
    + [(-3, dx) for dx in range(-5, 7)]
    + [(-4, dx) for dx in range(-4, 6)]
    + [(-5, dx) for dx in (-4, -2, 0, 2, 4)]
    + [(-7, dx) for dx in (-4, -2, 0, 2, 4)]
)
"""Places (dy, dx) of the causal neighbours that are the network's input."""
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


class Predictor(NamedTuple):
    """A causal network prepared for one map, and its buffers.

    The first seven fields are those of `Causal`, but `second` and `last` have outputs first, so
    that each sum stays in a register.
    """

    template: Any
    rows: Any
    columns: Any
    second: Any
    second_bias: Any
    last: Any
    last_bias: Any
    alike: Any
    """(classes + 1, HIDDEN[0]): sum over a template in which all labels are equal."""
    steps: Ints
    """TEMPLATE as distances in the frame."""
    allowed: Ints
    """(classes,): 1 for the labels in use."""
    hidden: Any
    outputs: Any
    chance: Ints
    """(classes,): the result of `predict`."""


def predictor(network: Causal, allowed: Ints, stride: int) -> Predictor:
    template, classes = network.template, allowed.size
    sizes = network.second.shape
    alike = np.zeros((classes + 1, sizes[0]), np.int32)
    alike[:] = template.sum(0, dtype=np.int32)
    hidden, outputs = (np.zeros(size, np.int32) for size in sizes)
    return Predictor(
        template,
        network.rows,
        network.columns,
        np.ascontiguousarray(network.second.T),
        network.second_bias,
        np.ascontiguousarray(network.last.T),
        network.last_bias,
        alike,
        neighbourhood.steps(TEMPLATE, stride),
        allowed,
        hidden,
        outputs,
        np.zeros(classes, np.int64),
    )


@kernel
def predict(net: Any, image: Any, o: Any, row: Any, column: Any, exp: Any) -> Any:
    """Sets chance[v] = 2^24 exp(score of v - best score) for the allowed labels of pixel `o`.

    Returns the sum of `chance`. Most of the template has the label of the pixel on the left, so
    only the other neighbours are summed one by one.
    """
    hidden, outputs, chance = net.hidden, net.outputs, net.chance
    w = image[o - 1]
    for j in range(hidden.size):
        hidden[j] = net.rows[row, j] + net.columns[column, j] + net.alike[w, j]
    for t in range(net.steps.size):
        v = image[o + net.steps[t]]
        if v != w:
            for j in range(hidden.size):
                hidden[j] += net.template[t, v, j] - net.template[t, w, j]
    for i in range(hidden.size):
        hidden[i] = clamp(hidden[i], 0, 31 * 256)
    for j in range(outputs.size):
        total = np.int32(0)
        for i in range(hidden.size):
            total = np.int32(total + hidden[i] * net.second[j, i])
        outputs[j] = clamp((total >> 8) + net.second_bias[j], 0, 31 * 256)
    best = np.int64(-(1 << 40))
    for v in range(chance.size):
        score = np.int64(0)
        for j in range(outputs.size):
            score += np.int64(outputs[j]) * net.last[v, j]
        chance[v] = (score >> 8) + net.last_bias[v]
        best = max(best, chance[v])
    mass = np.int64(0)
    for v in range(chance.size):
        chance[v] = exp[min(best - chance[v], exp.size - 1)] * net.allowed[v]
        mass += chance[v]
    return mass
