"""Mixtures predict, and learn from, the contexts of a bit."""

from __future__ import annotations

import numpy as np

from sempic.labels import mixing
from sempic.labels.logistic import TABLES
from sempic.labels.mixing import Mixture

CONTEXTS, INPUTS = 2, 3
learn_slots, predict, read_slots, learn_weights = (
    getattr(f, "py_func", f)  # plain Python: machine code has them inlined
    for f in (mixing.learn_slots, mixing.predict, mixing.read_slots, mixing.learn_weights)
)


def mixture() -> Mixture:
    weights = np.full((1, 4, INPUTS), 30000, np.int64)
    return mixing.untrained(weights, CONTEXTS, 8)


def test_a_new_slot_predicts_one_half() -> None:
    m = mixture()
    q = mixing.question(m)
    read_slots(m, q, CONTEXTS, TABLES)
    assert q.inputs.tolist() == [0, 0, mixing.BIAS]


def test_slots_are_updated_as_specified() -> None:
    m = mixture()
    q = mixing.question(m)
    q.address[:] = 3, 5
    learn_slots(m, q, 1, 1)
    half = 1 << 21
    assert m.slots[0, 3] == (half + ((1 << 22) - 1 - half) * 16 // 20) << 8 | 1
    assert m.slots[1, 5] == mixing.UNSEEN  # only the first context takes part


def test_a_constant_context_becomes_certain() -> None:
    """The first context determines the bit; the second is noise."""
    m, rng = mixture(), np.random.default_rng(0)
    q = mixing.question(m)
    for _ in range(400):
        bit = int(rng.integers(2))
        q.address[:] = bit, rng.integers(8)
        read_slots(m, q, CONTEXTS, TABLES)
        p = predict(m, q, INPUTS, 1, TABLES)
        learn_weights(m, q, INPUTS, 1, bit)
        learn_slots(m, q, CONTEXTS, bit)
    assert (p if bit else 65536 - p) > 64000
    assert m.uses[0].tolist() == [400, 0, 0, 0]
    assert m.weights[0, 0, 0] > m.weights[0, 0, 1]
    assert (m.weights[0, 1:] == 30000).all()
