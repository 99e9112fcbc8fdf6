"""Coder 1, for any palette: it learns only from the map that it codes. docs/spec/labels.md §5.

A pixel is a few yes/no questions: "is it the first candidate? the second? …". If all answers are
no, the label is coded by the frequencies of labels so far.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sempic.compiling import kernel, merged
from sempic.labels import mixing, neighbourhood
from sempic.labels.arithmetic import Ints, fold
from sempic.labels.logistic import TABLES
from sempic.labels.mixing import Mixture, Question
from sempic.labels.neighbourhood import (
    CANDIDATES,
    NEIGHBOURS,
    PAD,
    SHARED_CHOICES,
    SHARED_CONTEXTS,
    outlines,
    rank_candidates,
    reach,
    run,
    shared_choices,
    shared_contexts,
)
from sempic.labels.range_coder import RangeCoder, code_choice

_CONTEXTS = SHARED_CONTEXTS + 3
_INPUTS = _CONTEXTS + 1
_WEIGHT = 5500


class _State(NamedTuple):
    """What encoder and decoder learn, and buffers."""

    mixture: Mixture
    question: Question
    frequency: Ints
    """(n + 1, n): how often each label was coded without being a candidate, by first candidate.
    Row n, which begins at 1, counts pixels with any first candidate or none."""
    rank: Ints
    candidates: Ints
    weights: Ints
    """(n,): of each label, if it is no candidate."""


def code(coder: RangeCoder, indices: Ints, labels: int) -> Ints:
    """Encodes `indices`, int64 (H, W) below `labels`, or decodes a map of this size; returns it."""
    mixture = mixing.even(_CONTEXTS, SHARED_CHOICES, _WEIGHT)
    frequency = np.zeros((labels + 1, labels), np.int64)
    frequency[labels] = 1
    sizes = (labels + 1, CANDIDATES, labels)
    buffers = (np.zeros(size, np.int64) for size in sizes)
    state = _State(mixture, mixing.question(mixture), frequency, *buffers)
    frame = neighbourhood.frame(indices, labels)
    _code_map(coder, frame, state, neighbourhood.steps(NEIGHBOURS, frame.stride), TABLES)
    return neighbourhood.inside(frame)


@kernel
def _code_map(coder: Any, frame: Any, state: Any, neighbours: Any, tables: Any) -> None:
    image, s = frame.image, frame.stride
    for y in range(frame.height):
        for x in range(frame.width):
            o = (y + PAD) * s + x + PAD
            count = rank_candidates(image, o, neighbours, state.rank, state.candidates)
            label = _code_candidates(coder, frame, o, x, count, state, tables)
            if label < 0:
                label = _code_other(coder, image[o], count, state)
            image[o] = label


@merged
def _code_candidates(
    coder: Any, frame: Any, o: Any, x: Any, count: Any, state: Any, tables: Any
) -> Any:
    """The pixel's label if it is a candidate, else -1."""
    image, s = frame.image, frame.stride
    question, candidates = state.question, state.candidates
    n = state.weights.size
    features = outlines(image, o, s, x, frame.width, state.rank)
    e1, e2, e3 = features.ends
    e4 = reach(image, o - 4 * s - 4, image[o - 1], 10)
    run_up = run(image, o - s, -s, 5)
    for k in range(count):
        c = candidates[k]
        if n - k == 1:  # no other label
            return c
        after = candidates[k + 1] if k + 1 < count else n
        address = question.address
        shared_contexts(address, features, image, o, s, c, after)
        address[8] = fold(run_up * 64 + features.run_w, features.near)
        address[9] = fold(features.run_n * 8 + run_up, features.near)
        address[10] = fold(e1 + 16 * e2 + 256 * e3, e4)
        mixing.hash_addresses(question, _CONTEXTS, k)
        mixing.read_slots(state.mixture, question, _CONTEXTS, tables)
        shared_choices(question.sets, state.mixture.slots, address, features, k, c, after)
        yes = 1 if image[o] == c else 0
        if mixing.code(
            coder, yes, state.mixture, question, _INPUTS, _CONTEXTS, SHARED_CHOICES, tables
        ):
            return c
    return np.int64(-1)


@merged
def _code_other(coder: Any, label: Any, count: Any, state: Any) -> Any:
    """Codes a label that is no candidate; returns it."""
    n = state.weights.size
    first = state.candidates[0] if count else n
    for v in range(n):
        state.weights[v] = state.frequency[n, v] + 4 * state.frequency[first, v]
    for k in range(count):
        state.weights[state.candidates[k]] = 0
    label = code_choice(coder, label, state.weights)
    state.frequency[n, label] += 1
    state.frequency[first, label] += 1
    return label
