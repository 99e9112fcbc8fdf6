"""Logistic mixing: a bit's probability from the statistics of its contexts, as in PAQ.

Each context selects a slot, which holds a probability. The log odds of the slots are the inputs of
a few sets of weights; the outputs of these sets are averaged. After each bit, slots move towards
the bit, and weights take a gradient step that lowers the code length. Integers only. Source:
Mahoney, "Adaptive Weighing of Context Models for Lossless Data Compression", 2005.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sempic.compiling import merged
from sempic.labels.arithmetic import Ints, clamp, fold
from sempic.labels.logistic import LIMIT
from sempic.labels.range_coder import code_bit

SLOTS = 1 << 16
"""Slots of a context. Addresses are hashes without a check for collisions."""
SETS = 1024
"""Sets of weights of a choice."""
UNSEEN = 1 << 29
"""Initial value of a slot: probability 1/2, no visits."""
BIAS = 256
"""Value of the last input."""

# Tuned on CamVid train.
_SLOT_RATE = 20
_MOST_VISITS = 254
_RATE = 500
_RATE_LAST = 30
_COOLING = 100
_MOST_USES = 1 << 15


class Mixture(NamedTuple):
    """What the coder learns about one kind of question."""

    slots: npt.NDArray[np.int32]
    """(contexts, slots): probability of a 1 (22 bits) << 8 | number of visits (8 bits)."""
    weights: Ints
    """(choices, sets, inputs): 16 fractional bits."""
    uses: Ints
    """(choices, sets): how often a set of weights was used."""


class Question(NamedTuple):
    """Buffers for one bit."""

    address: Ints
    """(contexts,): of the slots."""
    inputs: Ints
    """(inputs,): log odds of the contexts, other log odds, BIAS."""
    sets: Ints
    """(choices,): the set of weights that each choice selects."""
    outputs: Ints
    """(choices,): the probability by each selected set."""


def untrained(weights: Ints, contexts: int, slots: int = SLOTS) -> Mixture:
    """A mixture before its first bit, with these weights."""
    unseen = np.full((contexts, slots), UNSEEN, np.int32)
    return Mixture(unseen, weights, np.zeros(weights.shape[:2], np.int64))


def even(contexts: int, choices: int, weight: int) -> Mixture:
    """An untrained mixture in which each context has the same weight, and the bias none."""
    weights = np.full((choices, SETS, contexts + 1), weight, np.int64)
    weights[:, :, -1] = 0
    return untrained(weights, contexts)


def question(mixture: Mixture) -> Question:
    choices, _, inputs = mixture.weights.shape
    sizes = (len(mixture.slots), inputs, choices, choices)
    buffers = Question(*(np.zeros(size, np.int64) for size in sizes))
    buffers.inputs[-1] = BIAS
    return buffers


@merged
def hash_addresses(question: Any, contexts: Any, number: Any) -> None:
    """Turns numbers below 2^31 into addresses that differ with the `number` of the question."""
    for i in range(contexts):
        question.address[i] = fold(question.address[i] + 7, number + 1) & (SLOTS - 1)


@merged
def read_slots(mixture: Any, question: Any, contexts: Any, tables: Any) -> None:
    """Sets the inputs of the contexts: log odds of their slots, 0 for unvisited slots."""
    for i in range(contexts):
        slot = mixture.slots[i, question.address[i]]
        question.inputs[i] = tables.stretch[slot >> 14] if slot & 255 else 0


@merged
def code(
    coder: Any, bit: Any, mixture: Any, question: Any, inputs: Any, contexts: Any, choices: Any,
    tables: Any,
) -> Any:  # fmt: skip
    """Encodes `bit`, or decodes one; the mixture learns from the bit. Returns the bit.

    inputs: the number of inputs, a compile-time constant for speed. Only the first `contexts`
    contexts and `choices` choices of the question are used.
    """
    p = predict(mixture, question, inputs, choices, tables)
    bit = code_bit(coder, bit, p)
    learn_weights(mixture, question, inputs, choices, bit)
    learn_slots(mixture, question, contexts, bit)
    return bit


@merged
def predict(mixture: Any, question: Any, inputs: Any, choices: Any, tables: Any) -> Any:
    """The probability of a 1, in 1/65536."""
    total = np.int64(0)
    for m in range(choices):
        dot = np.int64(0)
        for i in range(inputs):
            dot += mixture.weights[m, question.sets[m], i] * question.inputs[i]
        dot = clamp(dot >> 16, -LIMIT, LIMIT)
        question.outputs[m] = tables.squash[dot + LIMIT]
        total += dot
    return np.int64(tables.squash[total // choices + LIMIT])


@merged
def learn_weights(mixture: Any, question: Any, inputs: Any, choices: Any, bit: Any) -> None:
    target = 65535 if bit else 0
    for m in range(choices):
        chosen = question.sets[m]
        uses = mixture.uses[m, chosen]
        mixture.uses[m, chosen] = min(uses + 1, _MOST_USES)
        rate = max(_RATE_LAST, _RATE * _COOLING // (_COOLING + uses))
        error = (target - question.outputs[m]) * rate
        descend(mixture, question, inputs, m, error)


@merged
def descend(mixture: Any, question: Any, inputs: Any, choice: Any, error: Any) -> None:
    """A gradient step of the selected set of weights; error: 32 fractional bits."""
    for i in range(inputs):
        step = (question.inputs[i] * error + (1 << 21)) >> 22
        mixture.weights[choice, question.sets[choice], i] += step


@merged
def learn_slots(mixture: Any, question: Any, contexts: Any, bit: Any) -> None:
    goal = (1 << 22) - 1 if bit else 0
    for i in range(contexts):
        slot: Any = np.int64(mixture.slots[i, question.address[i]])
        p, visits = slot >> 8, slot & 255
        p += (goal - p) * 16 // (16 * visits + _SLOT_RATE)
        mixture.slots[i, question.address[i]] = p << 8 | min(visits + 1, _MOST_VISITS)
