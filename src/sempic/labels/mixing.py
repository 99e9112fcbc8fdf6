"""Logistic mixing: a bit's probability from what each of its contexts remembers.

PAQ's machinery (Mahoney, "Adaptive Weighing of Context Models for Lossless Data Compression",
2005). Each context leads to a slot, which holds a probability; their logarithms of odds are the
inputs of a few sets of weights, whose outputs are averaged. Slots move towards the bits that they
see, weights descend the code length. Integers only.
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
"""Of each context; their addresses are hashes, unchecked."""
SETS = 1024
"""Of weights, for each choice among them."""
UNSEEN = 1 << 29
"""A slot at first: probability 1/2, no visits."""
BIAS = 256
"""The last input."""

# Tuned on CamVid train.
_SLOT_RATE = 20
_MOST_VISITS = 254
_RATE = 500
_RATE_LAST = 30
_COOLING = 100
_MOST_USES = 1 << 15


class Mixture(NamedTuple):
    """What is learnt of one kind of question."""

    slots: npt.NDArray[np.int32]
    """(contexts, slots): probability of a 1 (22 bits) << 8 | number of visits (8 bits)."""
    weights: Ints
    """(choices, sets, inputs): 16 fractional bits."""
    uses: Ints
    """(choices, sets): how often a set of weights was used."""


class Question(NamedTuple):
    """What is known of the bit at hand: room to work in."""

    address: Ints
    """(contexts,): of its slots."""
    inputs: Ints
    """(inputs,): logarithms of odds; those of the contexts, others, BIAS."""
    sets: Ints
    """(choices,): the set of weights that each choice takes."""
    outputs: Ints
    """(choices,): the probabilities that these find."""


def unseen(contexts: int, slots: int) -> npt.NDArray[np.int32]:
    return np.full((contexts, slots), UNSEEN, np.int32)


def question(mixture: Mixture) -> Question:
    choices, _, inputs = mixture.weights.shape
    sizes = (len(mixture.slots), inputs, choices, choices)
    room = Question(*(np.zeros(size, np.int64) for size in sizes))
    room.inputs[-1] = BIAS
    return room


@merged
def hash_addresses(question: Any, contexts: Any, number: Any) -> None:
    """Addresses of any numbers below 2^31, apart for each number of a question."""
    for i in range(contexts):
        question.address[i] = fold(question.address[i] + 7, number + 1) & (SLOTS - 1)


@merged
def read_slots(mixture: Any, question: Any, contexts: Any, tables: Any) -> None:
    """The inputs from slots: 0 where nothing was seen yet."""
    for i in range(contexts):
        slot = mixture.slots[i, question.address[i]]
        question.inputs[i] = tables.stretch[slot >> 14] if slot & 255 else 0


@merged
def code(
    coder: Any, bit: Any, mixture: Any, question: Any, inputs: Any, contexts: Any, choices: Any,
    tables: Any,
) -> Any:  # fmt: skip
    """Encodes `bit`, or decodes one, by the mixture; learns from it and returns it.

    inputs: how many there are, a constant, for speed. Of the question's contexts and choices the
    first `contexts` and `choices` take part.
    """
    p = predict(mixture, question, inputs, choices, tables)
    bit = code_bit(coder, bit, p)
    learn_weights(mixture, question, inputs, choices, bit)
    learn_slots(mixture, question, contexts, bit)
    return bit


@merged
def predict(mixture: Any, question: Any, inputs: Any, choices: Any, tables: Any) -> Any:
    """Probability of a 1, of 65536."""
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
    """One step of a set of weights against `error`, 16 + 16 fractional bits."""
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
