"""The coder of label model 2: context mixing that begins with what training maps taught it.

As `_model`, one function encodes and decodes. What differs: the slots begin primed, calm pixels
(one label all around) take a short path, and the coarse picture enters by the colours around a
contour and by the class scores of the trunk. docs/LABELS.md §5 is the normative text. Integers
only; no intermediate value leaves 63 bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sempic.labels import prior
from sempic.labels._compiling import compiled
from sempic.labels._model import (
    CANDIDATES,
    NEIGHBOURS,
    Ints,
    _clamp,
    _code_bit,
    _escape,
    _fold,
    _log2,
    _run,
)
from sempic.labels._tables import EXP, LIMIT, SQUASH, STRETCH
from sempic.labels.prior import BANDS, CELL, PAD, TEMPLATE, Causal, Prior

CONTEXTS = 17
INFORMED = 10
"""Contexts from this one on need the coarse picture."""
SLOTS = 1 << 16
INPUTS = CONTEXTS + 4
MIXERS = 6
MIXERS_CAUSAL = 4
SETS = 1024
CALM = 2
"""How far one label must reach around a pixel for the short path."""
CALM_CONTEXTS = 6
CALM_INFORMED = 2
CALM_SLOTS = 1 << 15
CALM_INPUTS = CALM_CONTEXTS + 4
COUNT_LIMIT = 254
UNKNOWN = LIMIT + 1
"""In place of a remembered stretch of the network's chance."""

# Tuned on CamVid train.
SLOT_RATE = 20
MIXER_RATE = 500
MIXER_RATE_LAST = 30
MIXER_COOLING = 100
MIXER_SEEN = 600
CALM_RATE = 60
ESCAPE_SHARPNESS = 3


class State(NamedTuple):
    """What both sides learn while they code; where a file begins is in the model."""

    slots: npt.NDArray[np.int32]
    """(CONTEXTS, SLOTS): probability (22 bits) << 8 | count (8)."""
    weights: Ints
    """(MIXERS, SETS, INPUTS): 16 fractional bits."""
    seen: Ints
    """(MIXERS, SETS): how often a weight set was used."""
    calm_slots: npt.NDArray[np.int32]
    """(CALM_CONTEXTS, CALM_SLOTS)"""
    calm_weights: Ints
    """(2 · classes, CALM_INPUTS)"""


class Evidence(NamedTuple):
    """The coarse picture, as the coder sees it; empty arrays if there is none."""

    planes: npt.NDArray[np.uint8]
    """(3, …): Y, Cb, Cr enlarged to the map's size, with its border of PAD."""
    scores: npt.NDArray[np.uint8]
    """The trunk's class scores, (classes, rows · width); 8 to a nat."""
    width: int


NO_EVIDENCE = Evidence(np.zeros((3, 0), np.uint8), np.zeros((0, 0), np.uint8), 0)


def unprimed(classes: int) -> State:
    """The state before any training map."""
    weights = np.full((MIXERS, SETS, INPUTS), 4000, np.int64)
    weights[:, :, CONTEXTS] = 15000
    weights[:, :, CONTEXTS + 1 :] = 500
    weights[:, :, -1] = 0
    calm_weights = np.zeros((2 * classes, CALM_INPUTS), np.int64)
    calm_weights[:, :CALM_CONTEXTS] = 6000
    calm_weights[:, CALM_CONTEXTS] = 40000
    return State(
        np.full((CONTEXTS, SLOTS), 1 << 29, np.int32),
        weights,
        np.zeros((MIXERS, SETS), np.int64),
        np.full((CALM_CONTEXTS, CALM_SLOTS), 1 << 29, np.int32),
        calm_weights,
    )


def begin(tables: dict[str, npt.NDArray[Any]], *, informed: bool) -> State:
    """The state that a model's tables describe; `tables_of` and its packing, undone."""
    kind = "informed" if informed else "causal"
    shape = (CONTEXTS if informed else INFORMED, SLOTS)
    classes = tables[f"{kind}.calm_weights"].shape[0] // 2
    state = unprimed(classes)
    state.slots[: shape[0]] = _unpack(tables["slots"][: shape[0]])
    stored = _unpack(tables["calm_slots"])  # of few classes: models 2 and 3 keep half
    state.calm_slots[:, : stored.shape[1]] = stored
    if not informed:
        state.calm_slots[CALM_INFORMED:] = 1 << 29
    mixers = MIXERS if informed else MIXERS_CAUSAL
    state.weights[:mixers] += tables[f"{kind}.weights"].astype(np.int64) << 4
    state.seen[:mixers] = tables[f"{kind}.seen"]
    state.calm_weights[:] = tables[f"{kind}.calm_weights"]
    return state


def tables_of(causal: State, informed: State) -> dict[str, npt.NDArray[Any]]:
    """What a model keeps of the states after its training maps, in the types it is stored in."""
    tables: dict[str, npt.NDArray[Any]] = {
        "slots": _pack(informed.slots),
        "calm_slots": _pack(informed.calm_slots),
    }
    for kind, state, mixers in (
        ("causal", causal, MIXERS_CAUSAL),
        ("informed", informed, MIXERS),
    ):
        change = (state.weights - unprimed(len(state.calm_weights) // 2).weights)[:mixers] >> 4
        change[state.seen[:mixers] == 0] = 0
        tables |= {
            f"{kind}.weights": change.clip(-32768, 32767).astype(np.int16),
            f"{kind}.seen": state.seen[:mixers].clip(0, MIXER_SEEN).astype(np.uint16),
            f"{kind}.calm_weights": state.calm_weights.astype(np.int32),
        }
    return tables


# A stored slot is a byte: 64 levels of its logarithm of odds, and how well it is known.
_KNOWN = (0, 4, 16, 60)
_LEVEL = 96


def _pack(slots: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    count = slots & 255
    known = (count >= 3).astype(np.int32) + (count >= 10) + (count >= 40)
    level = (STRETCH[slots >> 14].astype(np.int32) + LIMIT + 1) // _LEVEL
    packed: npt.NDArray[np.uint8] = np.where(known, level << 2 | known, 0).astype(np.uint8)
    return packed


def _unpack(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    level = np.arange(256) >> 2
    p = SQUASH[(level * _LEVEL + _LEVEL // 2).clip(0, 2 * LIMIT)].astype(np.int32) << 6
    values = p << 8 | np.array(_KNOWN, np.int32)[np.arange(256) & 3]
    values[0] = 1 << 29
    slots: npt.NDArray[np.int32] = values[packed].astype(np.int32)
    return slots


def _taps(size: int, cells: int) -> tuple[Ints, Ints, Ints]:
    """Each pixel's cells before and after it, and how far it is from the first, in eighths."""
    at = 2 * np.arange(size) - CELL + 1
    first = at >> 3
    return first.clip(0, cells - 1), (first + 1).clip(0, cells - 1), at & 7


def enlarge(grid: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Planes (3, ⌈h/4⌉, ⌈w/4⌉) at the map's size, bilinear, with a border of PAD; (3, …) flat."""
    a, b, f = (t.astype(np.int16) for t in _taps(height, grid.shape[1]))
    g = grid.astype(np.int16)
    tall: Any = g[:, a] * (8 - f[:, None]) + g[:, b] * f[:, None]
    a, b, f = (t.astype(np.int16) for t in _taps(width, grid.shape[2]))
    full = (tall[:, :, a] * (8 - f) + tall[:, :, b] * f + np.int16(32)) >> 6
    framed = np.pad(full.astype(np.uint8), ((0, 0), (PAD, PAD), (PAD, PAD)), mode="edge")
    return framed.reshape(3, -1)


def evidence(known: Prior, grid: npt.NDArray[np.uint8] | None, height: int, width: int) -> Evidence:
    """What the coder sees of the planes of `prior.grid`."""
    if grid is None:
        return NO_EVIDENCE
    scores = prior.scores(known, grid)
    return Evidence(enlarge(grid, height, width), scores.reshape(len(scores), -1), scores.shape[2])


@compiled(error_model="numpy")
def _network(
    net: Any, still: Any, image: Any, o: Any, steps: Any, row: Any, column: Any, allowed: Any,
    hidden: Any, second: Any, chance: Any, exp: Any,
) -> Any:  # fmt: skip
    """The network of `prior.Causal` at one pixel: chance[v] = 2^24 exp(score - best score) of
    the allowed labels; returns their sum.

    net: with its two last layers transposed, outputs first: sums need no stores on the way.
    still: the template's sum where all of it has one label, for each label. Most of it has that of
    the pixel on the left, so that only the rest is summed.
    """
    n = chance.size
    w = image[o - 1]
    for j in range(hidden.size):
        hidden[j] = net.rows[row, j] + net.columns[column, j] + still[w, j]
    for t in range(steps.size):
        v = image[o + steps[t]]
        if v != w:
            for j in range(hidden.size):
                hidden[j] += net.template[t, v, j] - net.template[t, w, j]
    for i in range(hidden.size):
        hidden[i] = _clamp(hidden[i], 0, 31 * 256)
    for j in range(second.size):
        total = np.int32(0)
        for i in range(hidden.size):
            total = np.int32(total + hidden[i] * net.second[j, i])
        second[j] = _clamp((total >> 8) + net.second_bias[j], 0, 31 * 256)
    for v in range(n):
        score = np.int64(0)
        for j in range(second.size):
            score += np.int64(second[j]) * net.last[v, j]
        chance[v] = score
    best = np.int64(-(1 << 40))
    for v in range(n):
        chance[v] = (chance[v] >> 8) + net.last_bias[v]
        best = max(best, chance[v])
    mass = np.int64(0)
    for v in range(n):
        chance[v] = exp[min(best - chance[v], exp.size - 1)] * allowed[v]
        mass += chance[v]
    return mass


def _leaders(scores: npt.NDArray[np.uint8], allowed: Ints) -> tuple[npt.NDArray[np.int16], ...]:
    """Of each pixel the best score of an allowed label, the next best, and the first label that
    has the best; -1000 for none."""
    best = np.full(scores.shape[1], -1000, np.int16)
    runner = best.copy()
    top = np.zeros_like(best)
    for v in np.flatnonzero(allowed[: len(scores)]):
        here = scores[v].astype(np.int16)
        np.maximum(runner, np.minimum(best, here), out=runner)
        top[here > best] = v
        np.maximum(best, here, out=best)
    return best, runner, top


@compiled(error_model="numpy")
def _learn(slots: Any, chosen: Any, count: Any, bit: Any) -> None:
    goal = (1 << 22) - 1 if bit else 0
    for i in range(count):
        v: Any = np.int64(slots[i, chosen[i]])
        p, seen = v >> 8, v & 255
        p += (goal - p) * 16 // (16 * seen + SLOT_RATE)
        slots[i, chosen[i]] = p << 8 | min(seen + 1, COUNT_LIMIT)


@compiled(error_model="numpy")
def _vertical(image: Any, at: Any, s: Any, outside: Any) -> Any:
    """The stairs of the contour on the right of pixel `at`, upward: how long it has kept its
    column, its last step, how long it had kept the column before."""
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


@compiled(error_model="numpy")
def _horizontal(image: Any, o: Any, s: Any) -> Any:
    """The same of the contour between W and N, leftward."""
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


@compiled(error_model="numpy")
def code_map(
    image: Any, height: Any, width: Any, allowed: Any, coder: Any, data: Any, decode: Any,
    state: Any, net: Any, evidence: Any, steps: Any, squash: Any, stretch: Any, exp: Any,
    scratch: Any,
) -> None:  # fmt: skip
    """Encodes (or decodes in place) a map; the arguments are those of `_model.code_map`.

    Of the columns of the row above, `high` is the run of one label upward, `near` and `wide` how
    many columns up to this one have one label and runs of at least CALM and PAD.
    """
    s = width + 2 * PAD
    n = allowed.size
    planes, scores = evidence.planes, evidence.scores
    informed = scores.size > 0
    contexts = CONTEXTS if informed else INFORMED
    mixers = MIXERS if informed else MIXERS_CAUSAL
    used = np.int64(0)
    for v in range(n):
        used += allowed[v]
    (bests, runners, tops, neighbours, still, hidden, second, chance, score, memory, rank,
     candidates, slot, x_in, chosen, guess, calm_slot, calm_in, colours, high, near,
     wide) = scratch  # fmt: skip
    tops_kept = 16 if n <= 16 else 32
    for y in range(height):
        o = (y + PAD) * s + PAD
        for x in range(width if y else 0):
            above = o + x - s
            high[x] = high[x] + 1 if y > 1 and image[above] == image[above - s] else 1
            alike = x > 0 and image[above] == image[above - 1]
            near[x] = 0 if high[x] < CALM else near[x - 1] + 1 if alike else 1
            wide[x] = 0 if high[x] < PAD else wide[x - 1] + 1 if alike else 1
        row = y * BANDS // height
        if row != (y - 1) * BANDS // height:
            for v in range(n):
                for band in range(BANDS):
                    memory[v, band] = UNKNOWN
        run_w = 0
        for x in range(width):
            o = (y + PAD) * s + x + PAD
            w, nn_ = image[o - 1], image[o - s]
            run_w = run_w + 1 if x > 1 and w == image[o - 2] else min(x, 1)
            column = x * BANDS // width
            calm = (
                x + CALM < width
                and near[x + CALM] > 2 * CALM
                and nn_ == w
                and run_w >= CALM
                and used > 1
            )

            # The trunk: its best two classes.
            top: Any = np.int64(0)
            best = runner = np.int64(-1000)
            at = y * evidence.width + x
            if informed:
                best, runner = np.int64(bests[at]), np.int64(runners[at])
                top = np.int64(tops[at])
            sure = _clamp((best - runner) >> 3, 0, 7)

            if calm:
                reach = min(wide[x + PAD] if x + PAD < width else 0, run_w + PAD)
                ring = min(reach // 4, 4)
                across = down = lead = np.int64(0)
                if informed:
                    for z in range(3):
                        across += abs(np.int64(planes[z, o + 2]) - planes[z, o - 4])
                        down += abs(np.int64(planes[z, o + 2 * s]) - planes[z, o - 4 * s])
                    across, down = _log2(across), _log2(down)
                    lead = np.int64(scores[w, at]) - (runner if top == w else best)
                up = _log2(min(high[x], 31))
                calm_slot[0] = (w * 32 + row) * 8 + ring
                calm_slot[1] = ((w * 16 + _log2(min(run_w, 16383))) * 8 + up) * 8 + ring
                calm_slot[2] = (across * 10 + down) * 6 + ring
                calm_slot[3] = (w * 16 + across) * 16 + down
                calm_slot[4] = (w * 32 + _clamp((lead >> 2) + 16, 0, 31)) * 6 + (up >> 1)
                calm_slot[5] = ((w * tops_kept + top) * 8 + sure) * 4 + min(3, across >> 1)
                active = CALM_CONTEXTS if informed else CALM_INFORMED
                for i in range(active):
                    v = state.calm_slots[i, calm_slot[i]]
                    calm_in[i] = stretch[v >> 14] if v & 255 else 0
                # With one label as far as the network sees, only the place matters to it.
                plain = reach > 2 * PAD and run_w >= PAD
                if plain and memory[w, column] != UNKNOWN:
                    calm_in[CALM_CONTEXTS] = memory[w, column]
                else:
                    mass = _network(net, still, image, o, steps, row, column, allowed,
                                    hidden, second, chance, exp)  # fmt: skip
                    q = _clamp((chance[w] << 16) // mass, 1, 65535)
                    calm_in[CALM_CONTEXTS] = stretch[q]
                    if plain:
                        memory[w, column] = stretch[q]
                edge = across + down > 6
                calm_in[CALM_CONTEXTS + 1] = _clamp(lead << 5, -LIMIT, LIMIT)
                calm_in[CALM_CONTEXTS + 2] = calm_in[CALM_CONTEXTS + 1] if edge else 0
                calm_in[CALM_CONTEXTS + 3] = 256
                which = w * 2 + (1 if edge else 0)
                dot = np.int64(0)
                for i in range(CALM_INPUTS):
                    dot += state.calm_weights[which, i] * calm_in[i]
                p = np.int64(squash[_clamp(dot >> 16, -LIMIT, LIMIT) + LIMIT])
                bit = _code_bit(coder, data, 1 if image[o] == w else 0, p, decode)
                error = ((65535 if bit else 0) - p) * CALM_RATE
                for i in range(CALM_INPUTS):
                    state.calm_weights[which, i] += (calm_in[i] * error + (1 << 21)) >> 22
                _learn(state.calm_slots, calm_slot, active, bit)
                if bit:
                    image[o] = w
                    continue

            # Candidates: the distinct labels of the neighbours, in order; none where a calm pixel
            # is not its neighbours' one. rank[label] is the place among them, CANDIDATES for any
            # other label, one more for "outside".
            for v in range(n):
                rank[v] = CANDIDATES
            rank[n] = CANDIDATES + 1
            count = 0
            if not calm:
                for step in neighbours:
                    v = image[o + step]
                    if rank[v] == CANDIDATES and count < CANDIDATES:
                        rank[v] = count
                        candidates[count] = v
                        count += 1
            mass = _network(net, still, image, o, steps, row, column, allowed,
                            hidden, second, chance, exp)  # fmt: skip
            if calm:
                chance[w] = 0

            label = image[o]
            found = False
            for v in range(n if informed else 0):
                score[v] = np.int64(scores[v, at]) if allowed[v] else np.int64(-1000)
            if count:
                nw, ne = image[o - 1 - s], image[o + 1 - s]
                ww, up2 = image[o - 2], image[o - 2 * s]
                # Geometry: ranks of growing neighbourhoods, runs, the course of w's contour.
                around = rank[nn_] + 6 * (rank[nw] + 6 * rank[ne])
                shape6 = around + 216 * (rank[ww] + 6 * rank[up2])
                shape12 = _fold(
                    shape6,
                    rank[image[o + 1 - 2 * s]]
                    + 6 * rank[image[o - 1 - 2 * s]]
                    + 36 * rank[image[o + 2 - s]]
                    + 216 * rank[image[o - 2 - s]]
                    + 1296 * rank[image[o - 3]]
                    + 7776 * rank[image[o - 3 * s]],
                )
                shape18 = _fold(
                    shape12,
                    rank[image[o + 2 - 2 * s]]
                    + 6 * rank[image[o - 2 - 2 * s]]
                    + 36 * rank[image[o + 3 - s]]
                    + 216 * rank[image[o - 3 - s]]
                    + 1296 * rank[image[o - 1 - 3 * s]]
                    + 7776 * rank[image[o + 1 - 3 * s]],
                )
                run_n = _run(image, o - s, 1, min(32, width - x + 1))
                run_left = _run(image, o - 1, -1, min(32, x + 1))
                e1 = _run(image, o - s - 1, 1, 6) if nw == w else 0
                e2 = e3 = 0
                while e2 < 7 and image[o - 2 * s + e2 - 2] == w:
                    e2 += 1
                while e3 < 9 and image[o - 3 * s + e3 - 3] == w:
                    e3 += 1
                course = _fold(e1 + 16 * e2, e3)
                upright = np.int64(0)
                if nw == w and e1 < 6:
                    upright = 1 + e1 + 8 * _vertical(image, o - s + e1 - 2, s, n)
                level = np.int64(0)
                if nn_ != w:
                    level = 1 + min(run_n, 15) + 16 * _horizontal(image, o, s)
                flat = 1 if shape6 == 0 else 0
                colour = np.int64(0)
                if informed:
                    for k in range(CANDIDATES):
                        for z in range(4):
                            colours[k, z] = 0
                    for step in steps:
                        k = rank[image[o + step]]
                        if k < CANDIDATES:
                            colours[k, 3] += 1
                            for z in range(3):
                                colours[k, z] += planes[z, o + step]
                    for k in range(count):
                        for z in range(3):
                            colours[k, z] = colours[k, z] * 4 // colours[k, 3]
                    colour = (
                        (np.int64(planes[0, o]) >> 4) * 64
                        + _clamp((np.int64(planes[1, o]) - 104) // 6, 0, 7) * 8
                        + _clamp((np.int64(planes[2, o]) - 104) // 6, 0, 7)
                    )
            left = used
            for k in range(count):
                c = candidates[k]
                if left == 1:  # no other label
                    label, found = c, True
                    break
                left -= 1
                after = candidates[k + 1] if k + 1 < count else n
                pair = c * 257 + after
                q = _clamp((chance[c] << 16) // mass, 1, 65535)
                mass -= chance[c]
                chance[c] = 0
                expected = np.int64(stretch[q])
                slot[0] = _fold(shape6, c)
                slot[1] = _fold(course, pair)
                slot[2] = shape18
                slot[3] = _fold(_fold(w * 257 + nn_, ne), nw)
                slot[4] = _fold(_fold(w * 257 + nn_, ne * 257 + up2), ww * 257 + image[o + 2 - s])
                slot[5] = _fold(_log2(run_left) * 8 + _log2(run_n), around)
                slot[6] = _fold(pair, around)
                slot[7] = _fold(shape12, pair)
                slot[8] = _fold(upright, around)
                slot[9] = _fold(level, around)
                lead = over = contrast = part = np.int64(0)
                if informed:
                    # Where the colour lies between those of this label and of its rival: here,
                    # a coarse pixel to the right, and one below.
                    rival = k + 1 if k + 1 < count else 0
                    here: Any
                    right: Any
                    below: Any
                    span: Any
                    here = right = below = span = np.int64(0)
                    for z in range(3):
                        m = colours[k, z]
                        d = colours[rival, z] - m if count > 1 else np.int64(0)
                        u = 4 * np.int64(planes[z, o]) - m
                        r = 4 * np.int64(planes[z, o + 4]) - m
                        b = 4 * np.int64(planes[z, o + 4 * s]) - m
                        if count > 1:
                            here, right, below = here + u * d, right + r * d, below + b * d
                            span += d * d
                        else:
                            here, right, below = here + abs(u), right + abs(r), below + abs(b)
                    if count > 1:
                        part = _clamp(here * 8 // max(span, 1) + 2, 0, 11)
                        right = _clamp(right * 4 // max(span, 1), 0, 3)
                        below = _clamp(below * 4 // max(span, 1), 0, 3)
                        contrast = _clamp((_log2(span) - 4) >> 1, 0, 6)
                    else:
                        part, contrast = _clamp(_log2(here >> 2), 0, 8), np.int64(7)
                        right = _clamp(_log2(right >> 2) >> 1, 0, 3)
                        below = _clamp(_log2(below >> 2) >> 1, 0, 3)
                    lead = score[c] - (runner if top == c else best)
                    over = score[c] - score[after] if after < n else lead
                    ways = right * 4 + below
                    leading = _clamp((lead >> 2) + 16, 0, 31)
                    slot[10] = _fold(part * 8 + contrast, around)
                    slot[11] = _fold((part >> 1) * 16 + ways,
                                     contrast * 36 + rank[nn_] * 6 + rank[ne])  # fmt: skip
                    slot[12] = _fold(colour, pair)
                    slot[13] = _fold((part * 8 + contrast) * 4 + right, shape6)
                    slot[14] = _fold((leading * 256 + top) * 8 + sure, pair)
                    slot[15] = _fold(_clamp((over >> 2) + 16, 0, 31) * 13 + part, around)
                    slot[16] = _fold((ways * 12 + part) * 8 + contrast, e1 + 16 * e2)
                for i in range(contexts):
                    slot[i] = _fold(slot[i] + 7, k + 1) & (SLOTS - 1)
                    v = state.slots[i, slot[i]]
                    x_in[i] = stretch[v >> 14] if v & 255 else 0
                x_in[CONTEXTS] = expected
                x_in[CONTEXTS + 1] = _clamp(lead << 5, -LIMIT, LIMIT)
                x_in[CONTEXTS + 2] = _clamp(over << 5, -LIMIT, LIMIT)
                x_in[CONTEXTS + 3] = 256

                known = 0
                if state.slots[7, slot[7]] & 255:
                    known = 3
                elif state.slots[2, slot[2]] & 255:
                    known = 2
                elif state.slots[0, slot[0]] & 255:
                    known = 1
                chosen[0] = (
                    k * 64
                    + flat * 32
                    + (16 if up2 == nn_ else 0)
                    + (8 if ww == w else 0)
                    + (4 if nw == w else 0)
                    + (2 if ne == nn_ else 0)
                    + (1 if nn_ == w else 0)
                )
                chosen[1] = (k * 4 + known) * 2 + flat
                chosen[2] = k * 256 + (c & 15) * 16 + (after & 15)
                chosen[3] = k * 64 + 32 + expected // 97
                chosen[4] = (k * 8 + contrast) * 12 + part
                chosen[5] = (
                    k * 256 + _clamp((lead >> 3) + 8, 0, 15) * 16 + _clamp((over >> 3) + 8, 0, 15)
                )
                total = np.int64(0)
                for m in range(mixers):
                    dot = np.int64(0)
                    for i in range(INPUTS):
                        dot += state.weights[m, chosen[m], i] * x_in[i]
                    dot = _clamp(dot >> 16, -LIMIT, LIMIT)
                    guess[m] = squash[dot + LIMIT]
                    total += dot
                p = np.int64(squash[total // mixers + LIMIT])
                bit = _code_bit(coder, data, 1 if label == c else 0, p, decode)

                target = 65535 if bit else 0
                for m in range(mixers):
                    seen = state.seen[m, chosen[m]]
                    rate = max(
                        MIXER_RATE_LAST, MIXER_RATE * MIXER_COOLING // (MIXER_COOLING + seen)
                    )
                    state.seen[m, chosen[m]] = min(seen + 1, 1 << 15)
                    error = (target - guess[m]) * rate
                    for i in range(INPUTS):
                        state.weights[m, chosen[m], i] += (x_in[i] * error + (1 << 21)) >> 22
                _learn(state.slots, slot, contexts, bit)
                if bit:
                    label, found = c, True
                    break
            if not found:
                if informed:
                    for v in range(n):
                        doubt = _clamp((best - score[v]) << ESCAPE_SHARPNESS, 0, exp.size - 1)
                        chance[v] = chance[v] * exp[doubt] >> 6
                for v in range(n):
                    if allowed[v] and (rank[v] == CANDIDATES and (count or v != w)):
                        chance[v] += 1
                label = _escape(coder, data, label, chance, decode)
            image[o] = label


def run(
    indices: Ints, coder: Ints, data: npt.NDArray[np.uint8], allowed: Ints, state: State, *,
    decode: bool, network: Causal, evidence: Evidence = NO_EVIDENCE,
) -> None:  # fmt: skip
    """`code_map` on a plain map, int64 (H, W), which is overwritten if `decode`."""
    height, width = indices.shape
    s = width + 2 * PAD
    image = np.full((height + PAD, s), allowed.size, np.int64)
    inside = image[PAD:, PAD:-PAD]
    inside[:] = indices
    steps = np.array([dy * s + dx for dy, dx in TEMPLATE], np.int64)
    neighbours = np.array([dy * s + dx for dy, dx in NEIGHBOURS], np.int64)
    turned = network._replace(
        second=np.ascontiguousarray(network.second.T), last=np.ascontiguousarray(network.last.T)
    )
    # Made here: arrays that `code_map` made itself would add a quarter to the time it compiles.
    n = allowed.size
    still = np.zeros((n + 1, network.second.shape[0]), np.int32)
    still[:] = network.template.sum(0, dtype=np.int32)
    sizes: tuple[int | tuple[int, int], ...] = (
        n, n, (n, BANDS), n + 1, CANDIDATES, CONTEXTS, INPUTS, MIXERS, MIXERS,
        CALM_CONTEXTS, CALM_INPUTS, (CANDIDATES, 4), s, s, s,
    )  # fmt: skip
    scratch = (
        *_leaders(evidence.scores, allowed),
        neighbours,
        still,
        np.zeros(turned.second.shape[1], np.int32),
        np.zeros(turned.second.shape[0], np.int32),
        *(np.zeros(size, np.int64) for size in sizes),
    )
    code_map(
        image.ravel(), height, width, allowed, coder, data, decode, state, turned, evidence,
        steps, SQUASH, STRETCH, EXP, scratch,
    )  # fmt: skip
    indices[:] = inside
