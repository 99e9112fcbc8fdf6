"""The primed coder's loop over the pixels of a map."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sempic.compiling import kernel, merged
from sempic.labels import mixing, neighbourhood
from sempic.labels.arithmetic import Ints, clamp
from sempic.labels.causal import BANDS, predict, predictor
from sempic.labels.logistic import TABLES
from sempic.labels.mixing import Question
from sempic.labels.neighbourhood import CANDIDATES, NEIGHBOURS, PAD, rank_candidates
from sempic.labels.primed import calm, outline
from sempic.labels.primed.evidence import (
    NONE,
    Bytes,
    CoarseFeatures,
    coarse_features,
    evidence,
    trunk_at,
)
from sempic.labels.primed.state import State
from sempic.labels.prior import Prior
from sempic.labels.range_coder import RangeCoder, code_choice

_DOUBT = 3
"""Shift from scores (1/8 nat) to steps of `exp` (1/256 nat), less 2: escapes use the trunk's
probabilities to the power 1/4."""


class _Buffers(NamedTuple):
    """Buffers."""

    calm_question: Question
    outline_question: Question
    columns: calm.Columns
    memory: calm.Memory
    neighbours: Ints
    rank: Ints
    candidates: Ints
    scores: Ints
    """(classes,): the trunk's scores of a pixel."""
    colours: Ints
    """(CANDIDATES, 4): `evidence.average`."""


def code(
    coder: RangeCoder,
    labels: Ints,
    allowed: Ints,
    prior: Prior,
    state: State,
    grid: Bytes | None,
    features: CoarseFeatures | None = None,
) -> Ints:
    """Encodes a map, int64 (H, W), or decodes one of this size; returns it.

    allowed: int64 (classes,), 1 for labels that occur. state: updated in place. grid: the result of
    `trunk.grid`, None without a coarse picture. features: the result of `coarse_features`; None:
    computed here.
    """
    classes = allowed.size
    frame = neighbourhood.frame(labels, classes)
    buffers = _Buffers(
        mixing.question(state.calm),
        mixing.question(state.outline),
        calm.columns(frame.stride),
        calm.memory(classes),
        neighbourhood.steps(NEIGHBOURS, frame.stride),
        np.zeros(classes + 1, np.int64),
        np.zeros(CANDIDATES, np.int64),
        np.zeros(classes, np.int64),
        np.zeros((CANDIDATES, 4), np.int64),
    )
    net = predictor(prior.prepared, allowed, frame.stride)
    features = features or coarse_features(prior, grid, frame.height, frame.width)
    _code_map(coder, frame, state, net, evidence(features, allowed), buffers, TABLES)
    return neighbourhood.inside(frame)


@kernel
def _code_map(
    coder: Any, frame: Any, state: Any, net: Any, evidence: Any, buffers: Any, tables: Any
) -> None:
    image, s, height, width = frame.image, frame.stride, frame.height, frame.width
    rank, candidates = buffers.rank, buffers.candidates
    used = np.int64(0)
    for v in range(net.allowed.size):
        used += net.allowed[v]
    for y in range(height):
        calm.measure(buffers.columns, image, y, s, width)
        row = y * BANDS // height
        if row != (y - 1) * BANDS // height:
            calm.forget(buffers.memory)
        run_w: Any = np.int64(0)
        for x in range(width):
            o = (y + PAD) * s + x + PAD
            w = image[o - 1]
            run_w = run_w + 1 if x > 1 and w == image[o - 2] else min(x, 1)
            trunk = trunk_at(evidence, y, x)
            calm_here = (
                calm.is_calm(buffers.columns, x, width, run_w) and image[o - s] == w and used > 1
            )
            if calm_here and calm.code_calm(
                coder, frame, o, x, row, run_w, buffers.columns, buffers.memory, state.calm,
                buffers.calm_question, net, evidence, trunk, tables,
            ):  # fmt: skip
                image[o] = w
                continue
            label = np.int64(-1)
            mass = predict(net, image, o, row, x * BANDS // width, tables.exp)
            for v in range(net.chance.size if evidence.scores.size else 0):
                known = net.allowed[v]
                buffers.scores[v] = np.int64(evidence.scores[v, trunk.at]) if known else NONE
            if calm_here:
                deny(rank, net.chance, w)
            else:
                count = rank_candidates(image, o, buffers.neighbours, rank, candidates)
                label = outline.code_candidates(
                    coder, frame, o, x, count, used, mass, state.outline, buffers.outline_question,
                    net, evidence, trunk, buffers, tables,
                )  # fmt: skip
            if label < 0:
                label = code_other(coder, image[o], net, evidence, trunk, buffers, tables)
            image[o] = label


@merged
def deny(rank: Any, chance: Any, label: Any) -> None:
    """Excludes a label, as if it were the only candidate."""
    for v in range(chance.size):
        rank[v] = CANDIDATES
    rank[label] = 0
    chance[label] = 0


@merged
def code_other(
    coder: Any, label: Any, net: Any, evidence: Any, trunk: Any, buffers: Any, tables: Any
) -> Any:
    """Codes a label that is no candidate; returns it."""
    chance, exp = net.chance, tables.exp
    for v in range(chance.size):
        if evidence.scores.size:
            doubt = clamp((trunk.best - buffers.scores[v]) << _DOUBT, 0, exp.size - 1)
            chance[v] = chance[v] * exp[doubt] >> 6
        if net.allowed[v] and buffers.rank[v] == CANDIDATES:
            chance[v] += 1
    return code_choice(coder, label, chance)
