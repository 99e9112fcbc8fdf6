"""Pixels at outlines: one question for each candidate."""

from __future__ import annotations

from typing import Any

import numpy as np

from sempic.compiling import inlined, merged
from sempic.labels import mixing
from sempic.labels.arithmetic import clamp, fold
from sempic.labels.logistic import LIMIT
from sempic.labels.neighbourhood import outlines, shared_choices, shared_contexts
from sempic.labels.primed import evidence as coarse
from sempic.labels.primed.state import (
    CHOICES,
    CHOICES_CAUSAL,
    CONTEXTS,
    CONTEXTS_CAUSAL,
    INPUTS,
    LEAD,
    NETWORK,
    OVER,
)


@inlined
def upright(image: Any, at: Any, s: Any, outside: Any) -> Any:
    """Shape of the contour on the right of pixel `at`, upward: length in this column, last step,
    length in the column before."""
    w = image[at]
    length = 1
    while length < 15 and image[at - length * s] == w and image[at - length * s + 1] != w:
        length += 1
    if length == 15:
        return length * 128
    at -= length * s
    step = 0
    if image[at] == w:
        while step < 3 and image[at + step + 1] == w:
            step += 1
    else:
        while step > -3 and image[at + step] != w and image[at + step] != outside:
            step -= 1
    at += step
    before = 0
    while before < 15 - length and image[at - before * s] == w and image[at - before * s + 1] != w:
        before += 1
    return (length * 8 + step + 4) * 16 + before


@inlined
def level(image: Any, o: Any, s: Any) -> Any:
    """The same for the contour between W and N, to the left."""
    w, above = image[o - 1], image[o - s]
    length = 1
    while length < 31 and image[o - 1 - length] == w and image[o - s - 1 - length] == above:
        length += 1
    o -= 1 + length
    if length == 31 or image[o] != w:
        return length * 64 + 16
    if image[o - s] != w:
        return length * 64 + 32
    before = 0
    while before < 15 and image[o - s - before] == w and image[o - 2 * s - before] == above:
        before += 1
    return length * 64 + 48 + before


@inlined
def stairs(image: Any, o: Any, s: Any, features: Any, outside: Any) -> Any:
    """`upright` at the region of W, and `level` between W and N; 0 without such a contour."""
    e1, _, _ = features.ends
    up = across = np.int64(0)
    if 0 < e1 < 6:
        up = 1 + e1 + 8 * upright(image, o - s + e1 - 2, s, outside)
    if image[o - s] != image[o - 1]:
        across = 1 + min(features.run_n, 15) + 16 * level(image, o, s)
    return up, across


@merged
def code_candidates(
    coder: Any, frame: Any, o: Any, x: Any, count: Any, used: Any, mass: Any, mixture: Any,
    question: Any, net: Any, evidence: Any, trunk: Any, buffers: Any, tables: Any,
) -> Any:  # fmt: skip
    """Codes which of the first `count` candidates pixel `o` has; returns the label, -1 for none.

    used: number of labels that occur. mass: sum of net.chance; the chances of refused candidates
    become 0.
    """
    image, s, rank, candidates = frame.image, frame.stride, buffers.rank, buffers.candidates
    planes, scores, chance = evidence.planes, buffers.scores, net.chance
    n = chance.size
    informed = evidence.scores.size > 0
    contexts, choices = CONTEXTS_CAUSAL, CHOICES_CAUSAL
    features = outlines(image, o, s, x, frame.width, rank)
    up, across = stairs(image, o, s, features, n)
    ranks = rank[image[o - s]] * 6 + rank[image[o + 1 - s]]
    own = np.int64(0)
    if informed:
        contexts, choices = CONTEXTS, CHOICES
        coarse.average(buffers.colours, planes, image, o, net.steps, rank, count)
        own = coarse.colour(planes, o)
    address, inputs, sets = question.address, question.inputs, question.sets
    for k in range(count):
        c = candidates[k]
        if used - k == 1:  # no other label
            return c
        after = candidates[k + 1] if k + 1 < count else n
        q = clamp((chance[c] << 16) // mass, 1, 65535)
        mass -= chance[c]
        chance[c] = 0
        expected = np.int64(tables.stretch[q])
        shared_contexts(address, features, image, o, s, c, after)
        address[8] = fold(up, features.near)
        address[9] = fold(across, features.near)
        ahead = over = np.int64(0)
        if informed:
            ahead = coarse.lead(trunk, c, scores[c])
            over = scores[c] - scores[after] if after < n else ahead
            part = coarse.between(planes, o, s, buffers.colours, k, count)
            coarse.contexts(
                address, features, own, part, trunk, ahead, over, c * 257 + after, ranks
            )
            sets[4] = (k * 8 + part.contrast) * 12 + part.here
            sets[5] = (k * 16 + clamp((ahead >> 3) + 8, 0, 15)) * 16 + clamp((over >> 3) + 8, 0, 15)
        mixing.hash_addresses(question, contexts, k)
        mixing.read_slots(mixture, question, contexts, tables)
        inputs[CONTEXTS + NETWORK] = expected
        inputs[CONTEXTS + LEAD] = clamp(ahead << 5, -LIMIT, LIMIT)
        inputs[CONTEXTS + OVER] = clamp(over << 5, -LIMIT, LIMIT)
        shared_choices(sets, mixture.slots, address, features, k, c, after)
        sets[3] = k * 64 + 32 + expected // 97
        yes = 1 if image[o] == c else 0
        if mixing.code(coder, yes, mixture, question, INPUTS, contexts, choices, tables):
            return c
    return np.int64(-1)
