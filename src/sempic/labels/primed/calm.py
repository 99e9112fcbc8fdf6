"""Calm areas: all neighbours have one label, and one question asks whether the pixel has it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sempic.compiling import inlined, merged
from sempic.labels import mixing
from sempic.labels.arithmetic import Ints, clamp, log2
from sempic.labels.causal import BANDS, predict
from sempic.labels.logistic import LIMIT
from sempic.labels.neighbourhood import PAD
from sempic.labels.primed.evidence import edges, lead
from sempic.labels.primed.state import (
    CALM_CONTEXTS,
    CALM_CONTEXTS_CAUSAL,
    CALM_INPUTS,
    LEAD,
    NETWORK,
    OVER,
)
from sempic.labels.range_coder import code_bit

CALM = 2
"""Radius around a pixel, in pixels, in which all known labels are equal."""
_UNKNOWN = LIMIT + 1
_RATE = 60


class Columns(NamedTuple):
    """Features of each column at the row above the pixel, (stride,) each."""

    high: Ints
    """Length of the run of one label upward."""
    near: Ints
    """Number of columns, up to this one, with one label in at least CALM rows."""
    wide: Ints
    """The same for PAD rows."""


class Memory(NamedTuple):
    """Cached outputs of the causal network where its whole template has one label."""

    expected: Ints
    """(classes, BANDS): log odds in this band of rows by band of columns, or _UNKNOWN."""


def columns(stride: int) -> Columns:
    return Columns(*(np.zeros(stride, np.int64) for _ in Columns._fields))


def memory(classes: int) -> Memory:
    return Memory(np.full((classes, BANDS), _UNKNOWN, np.int64))


@inlined
def measure(columns: Any, image: Any, y: Any, s: Any, width: Any) -> None:
    """Updates the features to the row above row `y`."""
    high, near, wide = columns.high, columns.near, columns.wide
    for x in range(width if y else 0):
        above = (y + PAD - 1) * s + PAD + x
        high[x] = high[x] + 1 if y > 1 and image[above] == image[above - s] else 1
        alike = x > 0 and image[above] == image[above - 1]
        near[x] = 0 if high[x] < CALM else near[x - 1] + 1 if alike else 1
        wide[x] = 0 if high[x] < PAD else wide[x - 1] + 1 if alike else 1


@merged
def forget(memory: Any) -> None:
    for v in range(memory.expected.shape[0]):
        for band in range(BANDS):
            memory.expected[v, band] = _UNKNOWN


@merged
def is_calm(columns: Any, x: Any, width: Any, run_w: Any) -> Any:
    """Whether all pixels around have one label, given that W and N have; run_w: of W's label."""
    return x + CALM < width and columns.near[x + CALM] > 2 * CALM and run_w >= CALM


@merged
def code_calm(coder: Any, frame: Any, o: Any, x: Any, row: Any, run_w: Any, columns: Any,
            memory: Any, mixture: Any, question: Any, net: Any, evidence: Any, trunk: Any,
            tables: Any) -> Any:  # fmt: skip
    """Codes whether calm pixel `o` has the label of its neighbours; returns 1 or 0."""
    image, s, w = frame.image, frame.stride, frame.image[o - 1]
    informed = evidence.scores.size > 0
    wide = columns.wide[x + PAD] if x + PAD < frame.width else 0
    reach = min(wide, run_w + PAD)
    across = down = ahead = np.int64(0)
    if informed:
        across, down = edges(evidence.planes, o, s)
        ahead = lead(trunk, w, np.int64(evidence.scores[w, trunk.at]))
    edge = across + down > 6
    addresses(question.address, w, row, run_w, columns.high[x], reach, across, down, ahead,
              trunk, net.chance.size)  # fmt: skip
    contexts = CALM_CONTEXTS if informed else CALM_CONTEXTS_CAUSAL
    mixing.read_slots(mixture, question, contexts, tables)
    column = x * BANDS // frame.width
    plain = reach > 2 * PAD and run_w >= PAD
    expected = memory.expected[w, column] if plain else _UNKNOWN
    if expected == _UNKNOWN:
        mass = predict(net, image, o, row, column, tables.exp)
        expected = np.int64(tables.stretch[clamp((net.chance[w] << 16) // mass, 1, 65535)])
        if plain:
            memory.expected[w, column] = expected
    odds = clamp(ahead << 5, -LIMIT, LIMIT)
    question.inputs[CALM_CONTEXTS + NETWORK] = expected
    question.inputs[CALM_CONTEXTS + LEAD] = odds
    question.inputs[CALM_CONTEXTS + OVER] = odds if edge else 0
    question.sets[0] = w * 2 + (1 if edge else 0)
    p = mixing.predict(mixture, question, CALM_INPUTS, 1, tables)
    bit = code_bit(coder, 1 if image[o] == w else 0, p)
    mixing.descend(mixture, question, CALM_INPUTS, 0, ((65535 if bit else 0) - p) * _RATE)
    mixing.learn_slots(mixture, question, contexts, bit)
    return bit


@inlined
def addresses(address: Any, w: Any, row: Any, run_w: Any, high: Any, reach: Any, across: Any,
              down: Any, ahead: Any, trunk: Any, classes: Any) -> None:  # fmt: skip
    """Addresses of the slots: not hashed, below `state.calm_slots`."""
    ring = min(reach // 4, 4)
    up = log2(min(high, 31))
    tops = 16 if classes <= 16 else 32
    address[0] = (w * 32 + row) * 8 + ring
    address[1] = ((w * 16 + log2(min(run_w, 16383))) * 8 + up) * 8 + ring
    address[2] = (across * 10 + down) * 6 + ring
    address[3] = (w * 16 + across) * 16 + down
    address[4] = (w * 32 + clamp((ahead >> 2) + 16, 0, 31)) * 6 + (up >> 1)
    address[5] = ((w * tops + trunk.top) * 8 + trunk.sure) * 4 + min(3, across >> 1)
