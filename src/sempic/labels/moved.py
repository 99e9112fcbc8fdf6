"""Label map of a P frame ⇄ bytes, given the last map, motion compensated. docs/spec/sequence.md §6.

A flag for each block says whether the block changed; most flags cost a fraction of a bit. A pixel
of a changed block is a few questions: "is it the expected label? the next candidate? …". The
statistics carry over from map to map.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sempic.compiling import kernel, merged
from sempic.labels import mixing, range_coder
from sempic.labels.arithmetic import Ints, fold, log2
from sempic.labels.logistic import TABLES
from sempic.labels.mixing import Mixture, Question
from sempic.labels.neighbourhood import (
    CANDIDATES,
    NEIGHBOURS,
    PAD,
    add_candidates,
    clear_ranks,
    reach,
    run,
    steps,
)
from sempic.labels.range_coder import RangeCoder, code_choice
from sempic.scene import LabelMap

BLOCK = 8
"""Side of a block, in pixels of the map."""
LEVELS = 6
"""Values of the hint."""

_FLAG_CONTEXTS = 6
_CONTEXTS = 12
_CHOICES = 3
_FLAG_WEIGHT = 14000
_WEIGHT = 7000


class Memory(NamedTuple):
    """Statistics of encoder and decoder from map to map; new after each key frame."""

    flags: Mixture
    """For the flags of blocks."""
    pixels: Mixture
    """For the questions about pixels."""
    changed: Ints
    """(rows + 2, columns + 2): 1 for blocks that changed in the last map, with a border of 0."""
    frequency: Ints
    """(n,): 1 + 8 times how often each label was coded without being a candidate."""


class _Buffers(NamedTuple):
    """Inputs and buffers of one map. Flat arrays have a border of PAD pixels on all sides."""

    image: Ints
    """Flat: the map. While decoding, the expected map where nothing is decoded yet."""
    moved: Ints
    """Flat: the expected map."""
    hint: Ints
    """Flat."""
    edges: Ints
    """(rows, columns): log2 of the number of pixels of a block whose label differs from that on
    the right or below."""
    levels: Ints
    """(rows, columns): the largest hint of each block."""
    changed: Ints
    """As in Memory, for this map."""
    flag: Question
    pixel: Question
    rank: Ints
    candidates: Ints
    weights: Ints
    causal: Ints
    """NEIGHBOURS as distances in `image`."""


def memory(height: int, width: int, labels: int) -> Memory:
    """The memory before the first map of this size; ids are below `labels`."""
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    return Memory(
        mixing.even(_FLAG_CONTEXTS, 1, _FLAG_WEIGHT),
        mixing.even(_CONTEXTS, _CHOICES, _WEIGHT),
        np.zeros((rows + 2, columns + 2), np.int64),
        np.ones(labels, np.int64),
    )


def encode(labels: LabelMap, moved: LabelMap, hint: LabelMap, memory: Memory) -> bytes:
    """The bytes of a map whose expected labels are `moved`; empty if all labels are as expected.

    labels, moved: uint8 (H, W), ids below the memory's `labels`. hint: uint8 (H, W), below LEVELS;
    higher where the coarse picture contradicts `moved`. memory: updated in place.
    """
    if np.array_equal(labels, moved):  # the memory learns only from maps that are sent
        return b""
    coder = range_coder.encoder(labels.size * 2 + 64)
    _code(coder, labels, moved, hint, memory)
    return range_coder.finish(coder)


def decode(body: bytes, moved: LabelMap, hint: LabelMap, memory: Memory) -> LabelMap:
    """The map, uint8 (H, W); arguments as in `encode`.

    Any bytes decode to some map; the frame's checksum detects damage.
    """
    return _code(range_coder.decoder(body), moved, moved, hint, memory)


def _code(
    coder: RangeCoder, labels: LabelMap, moved: LabelMap, hint: LabelMap, memory: Memory
) -> LabelMap:
    n = memory.frequency.size
    expected = _frame(moved, n)
    shape = tuple(size - 2 for size in memory.changed.shape)
    buffers = _Buffers(
        _frame(labels, n).ravel(),
        expected.ravel(),
        _frame(hint, 0).ravel(),
        np.zeros(shape, np.int64),
        np.zeros(shape, np.int64),
        np.zeros_like(memory.changed),
        mixing.question(memory.flags),
        mixing.question(memory.pixels),
        np.zeros(n + 1, np.int64),
        np.zeros(CANDIDATES, np.int64),
        np.zeros(n, np.int64),
        steps(NEIGHBOURS, expected.shape[1]),
    )
    height, width = labels.shape
    _measure(buffers, height, width, expected.shape[1])
    if not coder.decodes:
        _compare(buffers, height, width, expected.shape[1])
    _code_blocks(coder, buffers, memory, TABLES)
    _code_pixels(coder, buffers, memory, height, width, expected.shape[1], TABLES)
    memory.changed[:] = buffers.changed
    coded = buffers.image.reshape(expected.shape)[PAD:-PAD, PAD:-PAD]
    return coded.astype(np.uint8)


def _frame(plane: npt.NDArray[np.uint8], outside: int) -> Ints:
    return np.pad(plane.astype(np.int64), PAD, constant_values=outside)


@kernel
def _measure(buffers: Any, height: Any, width: Any, s: Any) -> None:
    """Sets `edges` and `levels`."""
    moved, edges, levels = buffers.moved, buffers.edges, buffers.levels
    for y in range(height):
        for x in range(width):
            o = (y + PAD) * s + x + PAD
            v = moved[o]
            if (x + 1 < width and moved[o + 1] != v) or (y + 1 < height and moved[o + s] != v):
                edges[y // BLOCK, x // BLOCK] += 1
            levels[y // BLOCK, x // BLOCK] = max(levels[y // BLOCK, x // BLOCK], buffers.hint[o])
    for row in range(edges.shape[0]):
        for column in range(edges.shape[1]):
            edges[row, column] = log2(edges[row, column])


@kernel
def _compare(buffers: Any, height: Any, width: Any, s: Any) -> None:
    """Sets `changed` of the blocks that differ from the expected map."""
    for y in range(height):
        for x in range(width):
            o = (y + PAD) * s + x + PAD
            if buffers.image[o] != buffers.moved[o]:
                buffers.changed[1 + y // BLOCK, 1 + x // BLOCK] = 1


@kernel
def _code_blocks(coder: Any, buffers: Any, memory: Any, tables: Any) -> None:
    """Codes the flags of all blocks in raster order."""
    edges, levels, changed, last = buffers.edges, buffers.levels, buffers.changed, memory.changed
    question, rows, columns = buffers.flag, edges.shape[0], edges.shape[1]
    for row in range(rows):
        for column in range(columns):
            r, c = row + 1, column + 1
            edge, level = edges[row, column], levels[row, column]
            near = (changed[r, c - 1] + 2 * changed[r - 1, c]
                    + 4 * changed[r - 1, c - 1] + 8 * changed[r - 1, c + 1])  # fmt: skip
            before = last[r, c] + 2 * min(
                last[r, c - 1] + last[r, c + 1] + last[r - 1, c] + last[r + 1, c], 3
            )
            right = edges[row, column + 1] if column + 1 < columns else np.int64(0)
            below = edges[row + 1, column] if row + 1 < rows else np.int64(0)
            ahead = min(log2(right + below), 3)
            address = question.address
            address[0] = near * 64 + edge * 8 + level
            address[1] = (before * 8 + edge) * 8 + level
            address[2] = near * 8 + before
            address[3] = (edge * 8 + level) * 4 + ahead
            address[4] = fold(near * 8 + before, (edge * 8 + level) * 4 + ahead)
            address[5] = fold(row * 1024 + column, edge)
            mixing.hash_addresses(question, _FLAG_CONTEXTS, 0)
            mixing.read_slots(memory.flags, question, _FLAG_CONTEXTS, tables)
            question.sets[0] = (near > 0) * 64 + edge * 8 + level
            changed[r, c] = mixing.code(
                coder, changed[r, c], memory.flags, question, _FLAG_CONTEXTS + 1, _FLAG_CONTEXTS,
                1, tables,
            )  # fmt: skip


@kernel
def _code_pixels(
    coder: Any, buffers: Any, memory: Any, height: Any, width: Any, s: Any, tables: Any
) -> None:
    """Codes the pixels of changed blocks row by row."""
    image, rank, candidates = buffers.image, buffers.rank, buffers.candidates
    for y in range(height):
        for column in range(buffers.edges.shape[1]):
            if not buffers.changed[1 + y // BLOCK, 1 + column]:
                continue
            for x in range(column * BLOCK, min(column * BLOCK + BLOCK, width)):
                o = (y + PAD) * s + x + PAD
                clear_ranks(rank)
                candidates[0] = buffers.moved[o]
                rank[candidates[0]] = 0
                count = add_candidates(image, o, buffers.causal, rank, candidates, np.int64(1))
                label = _code_candidates(coder, buffers, memory, o, s, count, tables)
                if label < 0:
                    label = _code_other(coder, buffers, memory, image[o], count)
                image[o] = label


@merged
def _code_candidates(
    coder: Any, buffers: Any, memory: Any, o: Any, s: Any, count: Any, tables: Any
) -> Any:
    """The pixel's label if it is a candidate, else -1."""
    image, moved, rank, question = buffers.image, buffers.moved, buffers.rank, buffers.pixel
    n = buffers.weights.size
    w, north = image[o - 1], image[o - s]
    four = (rank[w] + 6 * rank[north] + 36 * rank[image[o - s - 1]]
            + 216 * rank[image[o - s + 1]])  # fmt: skip
    six = four + 1296 * (rank[image[o - 2]] + 6 * rank[image[o - 2 * s]])
    cross = (rank[moved[o - 1]] + 6 * rank[moved[o + 1]] + 36 * rank[moved[o - s]]
             + 216 * rank[moved[o + s]])  # fmt: skip
    corners = (rank[moved[o - s - 1]] + 6 * rank[moved[o - s + 1]]
               + 36 * rank[moved[o + s - 1]] + 216 * rank[moved[o + s + 1]])  # fmt: skip
    ring = cross + 1296 * corners
    kept = np.int64(0)
    for i in range(12):
        step = buffers.causal[i]
        kept += (1 << i) if image[o + step] == moved[o + step] else 0
    few = (kept & 15) * 4 + (kept >> 4 & 3)
    right, left = run(moved, o, 1, 8), run(moved, o, -1, 8)
    down, up = run(moved, o, s, 8), run(moved, o, -s, 8)
    away = (min(log2(right), 3) + 4 * min(log2(left), 3)
            + 16 * min(log2(down), 3) + 64 * min(log2(up), 3))  # fmt: skip
    was, north_was = run(moved, o - s, 1, 8), reach(moved, o - s - 3, w, 8)
    ends = run(image, o - s, 1, 8) * 8 + reach(image, o - s - 3, w, 8)
    hint = buffers.hint[o] * 8 + buffers.hint[o + 4]
    edge = 1 if cross != 0 else 0
    for k in range(count):
        c = buffers.candidates[k]
        if n - k == 1:  # no other label
            return c
        after = buffers.candidates[k + 1] if k + 1 < count else n
        pair = c * 257 + after
        address = question.address
        address[0] = fold(six, k)
        address[1] = fold(six, cross)
        address[2] = fold(four, ring)
        address[3] = fold(kept, edge)
        address[4] = fold(few, away)
        address[5] = fold(pair, fold(rank[w] * 6 + rank[north], cross))
        address[6] = fold(w * 257 + north, moved[o + 1] * 257 + c)
        address[7] = fold(hint, few * 2 + edge)
        address[8] = fold(six, ring)
        address[9] = fold(right * 4096 + was * 256 + ends, rank[w] * 6 + rank[north])
        address[10] = fold(fold(north_was * 64 + ends, left), four)
        address[11] = fold(pair, buffers.hint[o] * 64 + few)
        mixing.hash_addresses(question, _CONTEXTS, k)
        mixing.read_slots(memory.pixels, question, _CONTEXTS, tables)
        question.sets[0] = k * 128 + (kept & 15) * 8 + edge * 4 + min(buffers.hint[o] >> 1, 3)
        question.sets[1] = k * 256 + (c & 15) * 16 + (after & 15)
        question.sets[2] = k * 256 + away
        yes = 1 if image[o] == c else 0
        if mixing.code(coder, yes, memory.pixels, question, _CONTEXTS + 1, _CONTEXTS, _CHOICES,
                       tables):  # fmt: skip
            return c
    return np.int64(-1)


@merged
def _code_other(coder: Any, buffers: Any, memory: Any, label: Any, count: Any) -> Any:
    """Codes a label that is no candidate; returns it."""
    for v in range(buffers.weights.size):
        buffers.weights[v] = memory.frequency[v]
    for k in range(count):
        buffers.weights[buffers.candidates[k]] = 0
    label = code_choice(coder, label, buffers.weights)
    memory.frequency[label] += 8
    return label
