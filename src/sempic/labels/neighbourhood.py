"""The surroundings of a pixel: candidates for its label, and outlines that reach the pixel.

Contexts contain ranks among the candidates instead of labels, so that statistics of one outline
apply to all outlines, whatever the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sempic.compiling import inlined, integers
from sempic.labels.arithmetic import Ints, fold, log2

PAD = 8
"""Width of the border: no part of the coder looks farther."""
CANDIDATES = 4
NEIGHBOURS = (
    *((0, -1), (-1, 0), (-1, 1), (-1, -1), (0, -2), (-2, 0)),
    *((-2, 1), (-1, 2), (-2, -1), (-1, -2), (0, -3), (-3, 0)),
)
"""Places (dy, dx) of candidates: W N NE NW WW NN, NNE NEE NNW NWW WWW NNN."""
SHARED_CONTEXTS = 8
"""Number of contexts that both coders use (`shared_contexts`)."""
SHARED_CHOICES = 3
"""Number of choices of weights that both coders use (`shared_choices`)."""


class Frame(NamedTuple):
    """A map with a border of PAD on the left, on the right and above."""

    image: Ints
    """Flat: labels 0 … n - 1; n, "outside", in the border. Pixel (0, 0) is at PAD (stride + 1)."""
    stride: int
    height: int
    width: int


class Outlines(NamedTuple):
    """Features shared by all questions about a pixel."""

    near: int
    """Ranks of N, NW, NE. `six`, `twelve`, `eighteen`: with ranks of more neighbours, hashed."""
    six: int
    twelve: int
    eighteen: int
    flat: int
    """1 if the six nearest neighbours have one label."""
    equal: int
    """`flat`, and five bits that say which of the nearest neighbours are equal."""
    run_w: int
    """Length of the run of one label that ends at W; `run_n`: that starts at N, to the right."""
    run_n: int
    ends: tuple[int, int, int]
    """Where W's label ends in each of the three rows above."""


def frame(labels: Ints, outside: int) -> Frame:
    """A copy of labels, int64 (H, W), with a border of `outside`."""
    height, width = labels.shape
    image = np.full((height + PAD, width + 2 * PAD), outside, np.int64)
    image[PAD:, PAD:-PAD] = labels
    return Frame(image.ravel(), image.shape[1], height, width)


def inside(frame: Frame) -> Ints:
    """The map without the border, int64 (H, W)."""
    return frame.image.reshape(-1, frame.stride)[PAD:, PAD:-PAD]


def steps(places: Sequence[tuple[int, int]], stride: int) -> Ints:
    """Places (dy, dx) as distances in a frame's image."""
    return np.array([dy * stride + dx for dy, dx in places], np.int64)


@inlined
def rank_candidates(image: Any, o: Any, neighbours: Any, rank: Any, candidates: Any) -> Any:
    """Finds the candidates of pixel `o`, distinct labels of its neighbours; returns their number.

    rank[label] becomes the index of a candidate, CANDIDATES for other labels, one more for outside.
    """
    clear_ranks(rank)
    return add_candidates(image, o, neighbours, rank, candidates, np.int64(0))


@inlined
def clear_ranks(rank: Any) -> None:
    for v in range(rank.size - 1):
        rank[v] = CANDIDATES
    rank[rank.size - 1] = CANDIDATES + 1


@inlined
def add_candidates(
    image: Any, o: Any, neighbours: Any, rank: Any, candidates: Any, count: Any
) -> Any:
    """Adds labels of neighbours to the first `count` candidates; returns the new number.

    count: np.int64, because numba would compile once more for an `int` constant.
    """
    for step in neighbours:
        v = image[o + step]
        if rank[v] == CANDIDATES and count < CANDIDATES:
            rank[v] = count
            candidates[count] = v
            count += 1
    return count


@integers("int64(int64[::1], int64, int64, int64)")
def run(image: Any, at: Any, step: Any, limit: Any) -> Any:
    """Length of the run of one label from `at`, in steps of `step`; at most `limit`."""
    length = 1
    while length < limit and image[at + length * step] == image[at]:
        length += 1
    return length


@integers("int64(int64[::1], int64, int64, int64)")
def reach(image: Any, at: Any, label: Any, limit: Any) -> Any:
    """Number of pixels from `at` to the right that have `label`; at most `limit`."""
    length = 0
    while length < limit and image[at + length] == label:
        length += 1
    return length


@inlined
def outlines(image: Any, o: Any, s: Any, x: Any, width: Any, rank: Any) -> Any:
    w, n, nw, ne = image[o - 1], image[o - s], image[o - 1 - s], image[o + 1 - s]
    ww, nn = image[o - 2], image[o - 2 * s]
    near = rank[n] + 6 * (rank[nw] + 6 * rank[ne])
    six = near + 216 * (rank[ww] + 6 * rank[nn])
    twelve = fold(
        six,
        rank[image[o + 1 - 2 * s]]
        + 6 * rank[image[o - 1 - 2 * s]]
        + 36 * rank[image[o + 2 - s]]
        + 216 * rank[image[o - 2 - s]]
        + 1296 * rank[image[o - 3]]
        + 7776 * rank[image[o - 3 * s]],
    )
    eighteen = fold(
        twelve,
        rank[image[o + 2 - 2 * s]]
        + 6 * rank[image[o - 2 - 2 * s]]
        + 36 * rank[image[o + 3 - s]]
        + 216 * rank[image[o - 3 - s]]
        + 1296 * rank[image[o - 1 - 3 * s]]
        + 7776 * rank[image[o + 1 - 3 * s]],
    )
    flat = 1 if six == 0 else 0
    equal = (
        flat * 32
        + (16 if nn == n else 0)
        + (8 if ww == w else 0)
        + (4 if nw == w else 0)
        + (2 if ne == n else 0)
        + (1 if n == w else 0)
    )
    run_w = run(image, o - 1, -1, min(32, x + 1))
    run_n = run(image, o - s, 1, min(32, width - x + 1))
    ends = (
        run(image, o - s - 1, 1, 6) if nw == w else 0,
        reach(image, o - 2 * s - 2, w, 7),
        reach(image, o - 3 * s - 3, w, 9),
    )
    return Outlines(near, six, twelve, eighteen, flat, equal, run_w, run_n, ends)


@inlined
def shared_contexts(address: Any, features: Any, image: Any, o: Any, s: Any, c: Any,
                    after: Any) -> None:  # fmt: skip
    """Contexts of the question "is it candidate `c`?", before hashing; `after` is the next one."""
    w, n, nw, ne = image[o - 1], image[o - s], image[o - 1 - s], image[o + 1 - s]
    e1, e2, e3 = features.ends
    pair = c * 257 + after
    address[0] = fold(features.six, c)
    address[1] = fold(fold(e1 + 16 * e2, e3), pair)
    address[2] = features.eighteen
    address[3] = fold(fold(w * 257 + n, ne), nw)
    address[4] = fold(
        fold(w * 257 + n, ne * 257 + image[o - 2 * s]), image[o - 2] * 257 + image[o + 2 - s]
    )
    address[5] = fold(log2(features.run_w) * 8 + log2(features.run_n), features.near)
    address[6] = fold(pair, features.near)
    address[7] = fold(features.twelve, pair)


@inlined
def shared_choices(sets: Any, slots: Any, address: Any, features: Any, k: Any, c: Any,
                   after: Any) -> None:  # fmt: skip
    """Selects weights by equal neighbours, by the largest known pattern, and by labels."""
    known = 0
    if slots[7, address[7]] & 255:
        known = 3
    elif slots[2, address[2]] & 255:
        known = 2
    elif slots[0, address[0]] & 255:
        known = 1
    sets[0] = k * 64 + features.equal
    sets[1] = (k * 4 + known) * 2 + features.flat
    sets[2] = k * 256 + (c & 15) * 16 + (after & 15)
