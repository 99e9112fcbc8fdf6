"""The context-mixing coder of label maps: one function that encodes and decodes.

A pixel is a few yes/no questions, "is it the first candidate? the second? …", where the
candidates are the distinct labels among its causal neighbours. Each question is answered with
a probability mixed from many contexts, as in PAQ (Mahoney, "Adaptive Weighing of Context
Models for Lossless Data Compression", 2005). docs/LABELS.md is the normative text.

Integer arithmetic only. All state is int64, so that plain Python (NUMBA_DISABLE_JIT=1) and
machine code agree bit for bit; no intermediate value leaves 63 bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sempic.labels._compiling import compiled
from sempic.labels._tables import EXP, LIMIT, SQUASH, STRETCH
from sempic.labels.prior import BANDS, FEATURES, PAD, TEMPLATE, Causal, Tables

Ints = npt.NDArray[np.int64]

CANDIDATES = 4
NEIGHBOURS = (
    *((0, -1), (-1, 0), (-1, 1), (-1, -1), (0, -2), (-2, 0)),
    *((-2, 1), (-1, 2), (-2, -1), (-1, -2), (0, -3), (-3, 0)),
)
"""Where candidates come from, (dy, dx), the first first."""
CONTEXTS = 11
SLOTS = 1 << 16
INPUTS = CONTEXTS + 2
MIXERS = 4
MIXER_SETS = 1024

# Tuned on CamVid train.
SLOT_COUNT_LIMIT = 254
SLOT_RATE = 20
MIXER_RATE = 500
MIXER_RATE_LAST = 30
MIXER_COOLING = 100
WEIGHT_SLOT = 5500
WEIGHT_PRIOR = 40000
WEIGHT_WITH_PRIOR = 600
SURE = 65500
"""A prior this sure (of 65536) of the first candidate is taken at its word."""

PRIMED_SEEN = 600

MASK48 = (1 << 48) - 1


class State(NamedTuple):
    """What both sides learn while they code."""

    slots: Ints
    """(CONTEXTS, SLOTS): probability (22 bits) << 8 | count (8)."""
    weights: Ints
    """(MIXERS, MIXER_SETS, INPUTS): 16 fractional bits."""
    seen: Ints
    """(MIXERS, MIXER_SETS): how often a weight set was used."""
    frequency: Ints
    """(n + 1, n): counts of escaped labels, by the label of the first candidate; row n: any."""


def fresh_state(n: int, tables: Tables | None = None) -> State:
    """What is known of `n` labels before the first pixel: nothing, or the mixing of a prior."""
    weights = np.full((MIXERS, MIXER_SETS, INPUTS), WEIGHT_SLOT, np.int64)
    weights[:, :, -1] = 0
    seen = np.zeros((MIXERS, MIXER_SETS), np.int64)
    if tables is not None:
        weights[:] = tables.weights.astype(np.int64) << 4
        seen[:] = np.minimum(tables.seen, PRIMED_SEEN)
    frequency = np.zeros((n + 1, n), np.int64)
    frequency[n] = 1
    slots = np.full((CONTEXTS, SLOTS), 1 << 29, np.int64)
    return State(slots, weights, seen, frequency)


def untrained_tables() -> Tables:
    """A mixing that leans on the prior."""
    weights = np.full((MIXERS, MIXER_SETS, INPUTS), WEIGHT_WITH_PRIOR >> 4, np.int16)
    weights[:, :, -2:] = WEIGHT_PRIOR >> 4, 0
    return Tables(weights, np.zeros((MIXERS, MIXER_SETS), np.uint16))


def tables_of(state: State) -> Tables:
    """What a prior keeps of the mixing on its training maps."""
    weights = (state.weights >> 4).clip(-32768, 32767).astype(np.int16)
    return Tables(weights, state.seen.clip(0, 65535).astype(np.uint16))


@compiled(error_model="numpy")
def _code_bit(coder: Any, data: Any, bit: Any, p: Any, decode: Any) -> Any:
    """Binary range coder, carryless, 48 bits. `p` of 65536 is the probability of bit 1.

    `coder` is low, high, the decoder's window, the position in `data`.
    """
    low, high = coder[0], coder[1]
    middle = low + ((high - low) >> 16) * p
    if decode:
        bit = 1 if coder[2] <= middle else 0
    if bit:
        high = middle
    else:
        low = middle + 1
    while (low ^ high) >> 40 == 0:
        at = coder[3]
        if decode:
            byte = np.int64(data[at]) if at < data.size else np.int64(0)
            coder[2] = ((coder[2] << 8) & MASK48) | byte
        elif at < data.size:
            data[at] = high >> 40
        coder[3] = at + 1
        low = (low << 8) & MASK48
        high = ((high << 8) & MASK48) | 255
    coder[0] = low
    coder[1] = high
    return bit


@compiled(error_model="numpy")
def _fold(h: Any, v: Any) -> Any:
    """Hash of two numbers below 2^31, again below 2^31."""
    h = ((h ^ v) * 0x2545F491 + 0x1B873593) & 0x7FFFFFFF
    return h ^ (h >> 15)


@compiled("int64(int64, int64, int64)")
def _clamp(x: Any, low: Any, high: Any) -> Any:
    return low if x < low else high if x > high else x


@compiled("int64(int64[::1], int64, int64, int64)")
def _run(image: Any, at: Any, step: Any, limit: Any) -> Any:
    """How many pixels from `at` on, in steps of `step`, have one label; at most `limit`."""
    length = 1
    while length < limit and image[at + length * step] == image[at]:
        length += 1
    return length


@compiled(error_model="numpy")
def _log2(v: Any) -> Any:
    bits = 0
    while v > 0:
        v >>= 1
        bits += 1
    return bits


@compiled(error_model="numpy")
def _escape(coder: Any, data: Any, label: Any, chance: Any, decode: Any) -> Any:
    """Codes a label by bisecting the weights `chance` (int64, one for each label, below 2^40)."""
    low, high = 0, chance.size
    while high - low > 1:
        middle = (low + high) >> 1
        below = np.int64(0)
        above = np.int64(0)
        for v in range(low, middle):
            below += chance[v]
        for v in range(middle, high):
            above += chance[v]
        if above == 0:
            high = middle
        elif below == 0:
            low = middle
        else:
            p = _clamp((below << 16) // (below + above), 1, 65535)
            if _code_bit(coder, data, 1 if label < middle else 0, p, decode):
                high = middle
            else:
                low = middle
    return low


@compiled(error_model="numpy")
def _is_calm(image: Any, o: Any, steps: Any) -> Any:
    for t in range(steps.size):  # noqa: SIM110, numba knows no all()
        if image[o + steps[t]] != image[o - 1]:
            return False
    return True


@compiled(error_model="numpy")
def _predict(net: Any, calm: Any, image: Any, o: Any, steps: Any, row: Any, column: Any,
             seen: Any, at: Any, still: Any, hidden: Any, extra: Any, second: Any,
             chance: Any, exp: Any) -> None:  # fmt: skip
    """The network of `prior.Causal` at one pixel: chance[v] = 2^24 exp(score - best score).

    still: all neighbours have one label v, whose sum over the template is calm[v].
    seen: the features, those of this pixel beginning at `at`; empty without a coarse picture.
    """
    size, size2 = hidden.size, second.size
    for j in range(size):
        hidden[j] = net.rows[row, j] + net.columns[column, j]
    if still:
        for j in range(size):
            hidden[j] += calm[image[o - 1], j]
    else:
        for t in range(steps.size):
            v = image[o + steps[t]]
            for j in range(size):
                hidden[j] += net.template[t, v, j]
    if seen.size:
        for j in range(size):
            extra[j] = 0
        for f in range(FEATURES):
            a = np.int32(seen[at + f])
            if a:
                for j in range(size):
                    extra[j] += a * net.mix[f, j]
        for j in range(size):
            hidden[j] += extra[j] >> 5
    for j in range(size2):
        second[j] = 0
    for i in range(size):
        a = np.int32(_clamp(hidden[i], 0, 31 * 256))
        if a:
            for j in range(size2):
                second[j] += a * net.second[i, j]
    for v in range(chance.size):
        chance[v] = 0
    for i in range(size2):
        b = np.int64(_clamp((second[i] >> 8) + net.second_bias[i], 0, 31 * 256))
        if b:
            for v in range(chance.size):
                chance[v] += b * net.last[i, v]
    best = np.int64(-(1 << 40))
    for v in range(chance.size):
        chance[v] = (chance[v] >> 8) + net.last_bias[v]
        best = max(best, chance[v])
    for v in range(chance.size):
        chance[v] = exp[min(best - chance[v], exp.size - 1)]


@compiled(error_model="numpy")
def code_map(
    image: Any, height: Any, width: Any, allowed: Any, coder: Any, data: Any, decode: Any,
    state: Any, net: Any, features: Any, steps: Any, squash: Any, stretch: Any, exp: Any,
    neighbours: Any, scratch: Any,
) -> None:  # fmt: skip
    """Encodes (or decodes in place) a map.

    image: int64, flat, (height + PAD) rows of (width + 2 * PAD), labels 0 … n - 1; the border
    is n. allowed: int64 (n,), 1 for the labels in use. coder: int64 (4,). data: uint8, what is
    written or read; never accessed beyond its end. steps: int64, the prior's template as
    distances in `image`; empty without a prior. features: uint8, flat; empty without a coarse
    picture. neighbours: int64, NEIGHBOURS as distances. scratch: room to work in.
    """
    s = width + 2 * PAD
    n = allowed.size
    with_prior = steps.size > 0
    informed = features.size > 0
    cells = (width + 3) // 4
    mixers = MIXERS if with_prior else MIXERS - 1
    used = np.int64(0)
    for v in range(n):
        used += allowed[v]
    (calm, hidden, extra, second, remembered, memory, chance, rank, candidates, base, slot, x_in,
     chosen, guess) = scratch  # fmt: skip
    x_in[INPUTS - 1] = 256
    for y in range(height):
        if y * BANDS // height != (y - 1) * BANDS // height:
            for v in range(n + 1):
                for band in range(BANDS):
                    remembered[v, band] = False
        for x in range(width):
            o = (y + PAD) * s + x + PAD
            w, nn_, nw, ne = image[o - 1], image[o - s], image[o - 1 - s], image[o + 1 - s]
            ww, up2 = image[o - 2], image[o - 2 * s]

            # Candidates: the distinct labels of the neighbours, in order. rank[label] is the
            # place among them, CANDIDATES for any other label, one more for "outside".
            for v in range(n):
                rank[v] = CANDIDATES
            rank[n] = CANDIDATES + 1
            count = 0
            for step in neighbours:
                v = image[o + step]
                if rank[v] == CANDIDATES and count < CANDIDATES:
                    rank[v] = count
                    candidates[count] = v
                    count += 1

            # Geometry: ranks of growing neighbourhoods, runs, the course of w's contour.
            near = rank[nn_] + 6 * (rank[nw] + 6 * rank[ne])
            shape6 = near + 216 * (rank[ww] + 6 * rank[up2])
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
            run_w = _run(image, o - 1, -1, min(32, x + 1))
            run_n = _run(image, o - s, 1, min(32, width - x + 1))
            run_up = _run(image, o - s, -s, 5)
            e1 = _run(image, o - s - 1, 1, 6) if nw == w else 0
            e2 = 0
            while e2 < 7 and image[o - 2 * s + e2 - 2] == w:
                e2 += 1
            e3 = 0
            while e3 < 9 and image[o - 3 * s + e3 - 3] == w:
                e3 += 1
            e4 = 0
            while e4 < 10 and image[o - 4 * s + e4 - 4] == w:
                e4 += 1
            flat = 1 if shape6 == 0 else 0
            left = used
            mass = np.int64(0)
            if with_prior:
                row, column = y * BANDS // height, x * BANDS // width
                still = _is_calm(image, o, steps)
                # Without features such a pixel's outcome depends on nothing else.
                if still and not informed and remembered[w, column]:
                    for v in range(n):
                        chance[v] = memory[w, column, v]
                else:
                    cell = (y >> 2) * cells + (x >> 2)
                    at = ((cell * 4 + (y & 3)) * 4 + (x & 3)) * FEATURES
                    _predict(net, calm, image, o, steps, row, column, features, at, still,
                             hidden, extra, second, chance, exp)  # fmt: skip
                    if still:
                        for v in range(n):
                            memory[w, column, v] = chance[v]
                        remembered[w, column] = True
                for v in range(n):
                    chance[v] *= allowed[v]
                    mass += chance[v]

            label = image[o]
            found = False
            for k in range(count):
                c = candidates[k]
                if left == 1:  # no other label
                    label, found = c, True
                    break
                left -= 1
                expected = np.int64(0)
                if with_prior:
                    q = _clamp((chance[c] << 16) // mass, 1, 65535)
                    mass -= chance[c]
                    if k == 0 and q >= SURE:
                        if _code_bit(coder, data, 1 if label == c else 0, q, decode):
                            label, found = c, True
                            break
                        continue
                    expected = np.int64(stretch[q])
                    x_in[INPUTS - 2] = expected
                    chosen[3] = k * 64 + 32 + expected // 97
                after = candidates[k + 1] if k + 1 < count else n
                base[0] = _fold(shape6, c)
                base[1] = _fold(_fold(e1 + 16 * e2, e3), c * 257 + after)
                base[2] = shape18
                base[3] = _fold(_fold(w * 257 + nn_, ne), nw)
                base[4] = _fold(_fold(w * 257 + nn_, ne * 257 + up2), ww * 257 + image[o + 2 - s])
                base[5] = _fold(_log2(run_w) * 8 + _log2(run_n), near)
                base[6] = _fold(e1 + 16 * e2 + 256 * e3, e4)
                base[7] = _fold(c * 257 + after, near)
                base[8] = _fold(run_up * 64 + run_w, near)
                base[9] = _fold(shape12, c * 257 + after)
                base[10] = _fold(run_n * 8 + run_up, near)
                for i in range(CONTEXTS):
                    slot[i] = _fold(base[i] + 7, k + 1) & (SLOTS - 1)
                    v = state.slots[i, slot[i]]
                    x_in[i] = stretch[v >> 14] if v & 255 else 0

                known = 0
                if state.slots[9, slot[9]] & 255:
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
                total = 0
                for m in range(mixers):
                    dot = 0
                    for i in range(INPUTS):
                        dot += state.weights[m, chosen[m], i] * x_in[i]
                    dot = _clamp(dot >> 16, -LIMIT, LIMIT)
                    guess[m] = squash[dot + LIMIT]
                    total += dot
                mixed = total // mixers
                p = np.int64(squash[mixed + LIMIT])
                bit = _code_bit(coder, data, 1 if label == c else 0, p, decode)

                target = 65535 if bit else 0
                goal = (1 << 22) - 1 if bit else 0
                for m in range(mixers):
                    seen = state.seen[m, chosen[m]]
                    rate = max(
                        MIXER_RATE_LAST, MIXER_RATE * MIXER_COOLING // (MIXER_COOLING + seen)
                    )
                    state.seen[m, chosen[m]] = min(seen + 1, 1 << 20)
                    error = (target - guess[m]) * max(rate, MIXER_RATE_LAST)
                    for i in range(INPUTS):
                        state.weights[m, chosen[m], i] += (x_in[i] * error + (1 << 21)) >> 22
                for i in range(CONTEXTS):
                    v = state.slots[i, slot[i]]
                    q, seen = v >> 8, v & 255
                    q += (goal - q) * 16 // (16 * seen + SLOT_RATE)
                    state.slots[i, slot[i]] = q << 8 | min(seen + 1, SLOT_COUNT_LIMIT)
                if bit:
                    label, found = c, True
                    break
            if not found:
                first = candidates[0] if count else n
                if not with_prior:
                    for v in range(n):
                        chance[v] = state.frequency[n, v] + 4 * state.frequency[first, v]
                for k in range(count):
                    chance[candidates[k]] = 0
                label = _escape(coder, data, label, chance, decode)
                state.frequency[n, label] += 1
                state.frequency[first, label] += 1
            image[o] = label


NO_NETWORK = Causal(*(np.zeros((1,) * d, np.int32) for d in (3, 2, 2, 2, 2, 1, 2, 1)))
NO_FEATURES = np.zeros(0, np.uint8)


def run(
    indices: Ints, coder: Ints, data: npt.NDArray[np.uint8], allowed: Ints, state: State, *,
    decode: bool, network: Causal | None = None, features: npt.NDArray[np.uint8] | None = None,
) -> None:  # fmt: skip
    """`code_map` on a plain map, int64 (H, W), which is overwritten if `decode`."""
    height, width = indices.shape
    s = width + 2 * PAD
    image = np.full((height + PAD, s), allowed.size, np.int64)
    inside = image[PAD:, PAD:-PAD]
    inside[:] = indices
    steps = np.array([dy * s + dx for dy, dx in TEMPLATE if network is not None], np.int64)
    neighbours = np.array([dy * s + dx for dy, dx in NEIGHBOURS], np.int64)
    net = NO_NETWORK if network is None else network
    # Made here: arrays that `code_map` made itself would add half to the time it compiles.
    n = allowed.size
    size, size2 = net.second.shape
    calm = np.zeros((n + 1, size), np.int32)
    calm += net.template.sum(0, dtype=np.int32)
    sizes = (n, n + 1, CANDIDATES, CONTEXTS, CONTEXTS, INPUTS, MIXERS, MIXERS)
    scratch = (
        calm,
        *(np.zeros(length, np.int32) for length in (size, size, size2)),
        np.zeros((n + 1, BANDS), np.bool_),
        np.zeros((n + 1, BANDS, n), np.int64),
        *(np.zeros(length, np.int64) for length in sizes),
    )
    code_map(
        image.ravel(), height, width, allowed, coder, data, decode, state, net,
        NO_FEATURES if features is None else features.ravel(),
        steps, SQUASH, STRETCH, EXP, neighbours, scratch,
    )  # fmt: skip
    indices[:] = inside


def new_coder() -> Ints:
    """Low, high, window, position."""
    return np.array([0, MASK48, 0, 0], np.int64)


def flush_length(coder: Ints) -> int:
    """The fewest bytes whose value, followed by zeros, lies in the coder's interval."""
    low, high = int(coder[0]), int(coder[1])
    return next(k for k in range(7) if (high >> (48 - 8 * k)) << (48 - 8 * k) >= low)
