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
from numba import njit

from spic.labels._tables import LIMIT, SQUASH

Ints = npt.NDArray[np.int64]

PAD = 6
"""Width of the border, left, right and above, that holds the label "outside"."""
CANDIDATES = 4
CONTEXTS = 13
SLOTS = 1 << 16
INPUTS = 2 * CONTEXTS + 1
MIXERS = 3
MIXER_SETS = 1024
KNOTS = 33
KNOT_STEP = 192

# Tuned on CamVid train.
SLOT_COUNT_LIMIT = 254
SLOT_RATE = 20
HISTORY_COUNT_LIMIT = 254
HISTORY_RATE = 91
HISTORY_PRIOR = 4
MIXER_RATE = 269
MIXER_RATE_LAST = 23
MIXER_COOLING = 35
WEIGHT_SLOT = 3047
WEIGHT_HISTORY = 1434
APM_RATE = 19
APM_SHARE = 5

MASK48 = (1 << 48) - 1


class State(NamedTuple):
    """What both sides learn while they code."""

    slots: Ints
    """(CONTEXTS, SLOTS): probability (22 bits) << 16 | count (8) << 8 | history (8)."""
    histories: Ints
    """(CONTEXTS, CANDIDATES * 256): probability (22 bits) << 8 | count (8)."""
    weights: Ints
    """(MIXERS, MIXER_SETS, INPUTS): 16 fractional bits."""
    seen: Ints
    """(MIXERS, MIXER_SETS): how often a weight set was used."""
    apm: Ints
    """(MIXER_SETS, KNOTS): probability (22 bits)."""
    frequency: Ints
    """(n + 1, n): counts of escaped labels, by the label of the first candidate; row n: any."""


def fresh_state(n: int) -> State:
    """The untrained state for `n` labels."""
    history = np.arange(1, 256)
    length = np.zeros(255, np.int64)
    ones = np.zeros(255, np.int64)
    for bit in range(7):  # bits below the leading one
        inside = history >> (bit + 1) > 0
        length += inside
        ones += inside & (history >> bit & 1)
    prior = ((16 * ones + HISTORY_PRIOR) << 22) // (16 * length + 2 * HISTORY_PRIOR)
    histories = np.full((CANDIDATES, 256), 1 << 21, np.int64)
    histories[:, 1:] = prior
    weights = np.full((MIXERS, MIXER_SETS, INPUTS), WEIGHT_SLOT, np.int64)
    weights[:, :, 1::2] = WEIGHT_HISTORY
    weights[:, :, -1] = 0
    knots = ((np.arange(KNOTS) - KNOTS // 2) * KNOT_STEP).clip(-LIMIT, LIMIT)
    frequency = np.full((n + 1, n), 0, np.int64)
    frequency[n] = 1
    return State(
        slots=np.full((CONTEXTS, SLOTS), (1 << 21) << 16 | 1, np.int64),
        histories=np.tile(histories.reshape(1, -1) << 8, (CONTEXTS, 1)),
        weights=weights,
        seen=np.zeros((MIXERS, MIXER_SETS), np.int64),
        apm=np.tile(SQUASH[knots + LIMIT].astype(np.int64) << 6, (MIXER_SETS, 1)),
        frequency=frequency,
    )


@njit(cache=True)
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


@njit(cache=True)
def _fold(h: Any, v: Any) -> Any:
    """Hash of two numbers below 2^31, again below 2^31."""
    h = ((h ^ v) * 0x2545F491 + 0x1B873593) & 0x7FFFFFFF
    return h ^ (h >> 15)


@njit(cache=True)
def _clamp(x: Any, low: Any, high: Any) -> Any:
    return low if x < low else high if x > high else x


@njit(cache=True)
def _run(image: Any, at: Any, step: Any, limit: Any) -> Any:
    """How many pixels from `at` on, in steps of `step`, have one label; at most `limit`."""
    length = 1
    while length < limit and image[at + length * step] == image[at]:
        length += 1
    return length


@njit(cache=True)
def _log2(v: Any) -> Any:
    bits = 0
    while v > 0:
        v >>= 1
        bits += 1
    return bits


@njit(cache=True)
def _escape(
    coder: Any, data: Any, label: Any, n: Any, rank: Any, first: Any, f: Any, decode: Any
) -> Any:
    """Codes a label that is no candidate, by bisecting the adaptive frequencies `f`."""
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) >> 1
        below = above = 0
        for v in range(low, middle):
            if rank[v] == CANDIDATES:
                below += f[n, v] + 4 * f[first, v]
        for v in range(middle, high):
            if rank[v] == CANDIDATES:
                above += f[n, v] + 4 * f[first, v]
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
    f[n, low] += 1
    f[first, low] += 1
    return low


@njit(cache=True)
def code_map(
    image: Any, height: Any, width: Any, n: Any, coder: Any, data: Any, decode: Any,
    state: Any, squash: Any, stretch: Any,
) -> None:  # fmt: skip
    """Encodes (or decodes in place) a map.

    image: int64, flat, (height + PAD) rows of (width + 2 * PAD), labels 0 … n - 1; the border
    is n. coder: int64 (4,). data: uint8, what is written or read; never accessed beyond its end.
    """
    s = width + 2 * PAD
    neighbours = np.array(
        [-1, -s, 1 - s, -1 - s, -2, -2 * s, 1 - 2 * s, 2 - s, -1 - 2 * s, -2 - s, -3, -3 * s]
    )
    rank = np.zeros(n + 1, np.int64)
    candidates = np.zeros(CANDIDATES, np.int64)
    base = np.zeros(CONTEXTS, np.int64)
    slot = np.zeros(CONTEXTS, np.int64)
    event = np.zeros(CONTEXTS, np.int64)
    x_in = np.zeros(INPUTS, np.int64)
    x_in[INPUTS - 1] = 256
    chosen = np.zeros(MIXERS, np.int64)
    guess = np.zeros(MIXERS, np.int64)
    for y in range(height):
        for x in range(width):
            o = (y + PAD) * s + x + PAD
            w, nn_, nw, ne = image[o - 1], image[o - s], image[o - 1 - s], image[o + 1 - s]
            ww, up2 = image[o - 2], image[o - 2 * s]

            # Candidates: the distinct labels of the neighbours, in order. rank[label] is the
            # place among them, CANDIDATES for any other label, one more for "outside".
            rank[:] = CANDIDATES
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
            run_up = _run(image, o - s, -s, PAD - 1)
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
            band = y * 16 // height
            area = x * 8 // width * 16 + band

            label = image[o]
            found = False
            for k in range(count):
                c = candidates[k]
                if k == n - 1:  # no other label is left
                    label, found = c, True
                    break
                after = candidates[k + 1] if k + 1 < count else n
                base[0] = _fold(shape6, c)
                base[1] = _fold(_fold(e1 + 16 * e2, e3), c * 257 + after)
                base[2] = shape18
                base[3] = _fold(_fold(w * 257 + nn_, ne), nw)
                base[4] = _fold(_fold(w * 257 + nn_, ne * 257 + up2), ww * 257 + image[o + 2 - s])
                base[5] = _fold(_log2(run_w) * 8 + _log2(run_n), near)
                base[6] = _fold(e1 + 16 * e2 + 256 * e3, e4)
                base[7] = _fold(c * 16 + band, near)
                base[8] = _fold(c * 257 + after, near)
                base[9] = _fold(run_up * 64 + run_w, near)
                base[10] = _fold(c * 8 + rank[nn_], area)
                base[11] = _fold(shape12, c * 257 + after)
                base[12] = _fold(run_n * 8 + run_up, near)
                for i in range(CONTEXTS):
                    slot[i] = _fold(base[i] + 7, k + 1) & (SLOTS - 1)
                    v = state.slots[i, slot[i]]
                    x_in[2 * i] = 0
                    if (v >> 8) & 255:
                        x_in[2 * i] = stretch[v >> 22]
                    event[i] = k * 256 + (v & 255)
                    x_in[2 * i + 1] = stretch[state.histories[i, event[i]] >> 14]

                known = 0
                if (state.slots[11, slot[11]] >> 8) & 255:
                    known = 3
                elif (state.slots[2, slot[2]] >> 8) & 255:
                    known = 2
                elif (state.slots[0, slot[0]] >> 8) & 255:
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
                for m in range(MIXERS):
                    dot = 0
                    for i in range(INPUTS):
                        dot += state.weights[m, chosen[m], i] * x_in[i]
                    dot = _clamp(dot >> 16, -LIMIT, LIMIT)
                    guess[m] = squash[dot + LIMIT]
                    total += dot
                mixed = total // MIXERS
                p = np.int64(squash[mixed + LIMIT])

                # Adaptive probability map: what such a probability has meant so far.
                place = _clamp(mixed + KNOTS // 2 * KNOT_STEP, 0, (KNOTS - 1) * KNOT_STEP - 1)
                knot = place // KNOT_STEP
                part = place - knot * KNOT_STEP
                row = (k * 2 + flat) * 32 + (c & 31)
                refined = (
                    state.apm[row, knot] * (KNOT_STEP - part) + state.apm[row, knot + 1] * part
                ) // (KNOT_STEP << 6)
                p = _clamp(p + ((refined - p) * APM_SHARE >> 4), 1, 65535)

                bit = _code_bit(coder, data, 1 if label == c else 0, p, decode)

                target = 65535 if bit else 0
                goal = (1 << 22) - 1 if bit else 0
                knot += 1 if 2 * part > KNOT_STEP else 0
                state.apm[row, knot] += (goal - state.apm[row, knot]) * APM_RATE >> 10
                for m in range(MIXERS):
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
                    q, seen, past = v >> 16, (v >> 8) & 255, v & 255
                    q += (goal - q) * 16 // (16 * seen + SLOT_RATE)
                    seen = min(seen + 1, SLOT_COUNT_LIMIT)
                    past = past * 2 + bit
                    if past > 255:
                        past = (past & 127) | 128
                    state.slots[i, slot[i]] = q << 16 | seen << 8 | past
                    v = state.histories[i, event[i]]
                    q, seen = v >> 8, v & 255
                    q += (goal - q) // (seen + HISTORY_RATE)
                    state.histories[i, event[i]] = q << 8 | min(seen + 1, HISTORY_COUNT_LIMIT)
                if bit:
                    label, found = c, True
                    break
            if not found:
                first = candidates[0] if count else n
                label = _escape(coder, data, label, n, rank, first, state.frequency, decode)
            image[o] = label


def new_coder() -> Ints:
    """Low, high, window, position."""
    return np.array([0, MASK48, 0, 0], np.int64)


def flush_length(coder: Ints) -> int:
    """The fewest bytes whose value, followed by zeros, lies in the coder's interval."""
    low, high = int(coder[0]), int(coder[1])
    return next(k for k in range(7) if (high >> (48 - 8 * k)) << (48 - 8 * k) >= low)
