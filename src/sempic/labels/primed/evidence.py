"""The primed coder's features of the coarse picture: colours and the trunk's class scores."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sempic.compiling import inlined, kernel, merged
from sempic.labels import trunk as trunk_network
from sempic.labels.arithmetic import Ints, clamp, fold, log2
from sempic.labels.neighbourhood import CANDIDATES, PAD
from sempic.labels.primed.state import CONTEXTS_CAUSAL
from sempic.labels.prior import Prior
from sempic.labels.trunk import CELL

Bytes = npt.NDArray[np.uint8]
Shorts = npt.NDArray[np.int16]

NONE = -1000
"""Score of a label that does not occur."""


class CoarseFeatures(NamedTuple):
    """Features that depend only on the coarse picture; empty arrays without one."""

    planes: Bytes
    """(3, …): Y, Cb, Cr enlarged to the map's size, with a border of PAD; flat."""
    scores: Bytes
    """(classes, rows · width): the trunk's class scores, in 1/8 nat."""
    width: int


class Evidence(NamedTuple):
    """`CoarseFeatures`, and the best scores among the labels in use."""

    planes: Bytes
    scores: Bytes
    width: int
    best: Shorts
    """(rows · width,): the best score of a label in use; NONE without scores."""
    second: Shorts
    """The second-best score."""
    top: Shorts
    """The first label with the best score."""


class Trunk(NamedTuple):
    """The trunk's scores at a pixel, summarised; zeros and NONE without a coarse picture."""

    at: int
    """Index of the pixel in the scores."""
    best: int
    second: int
    top: int
    sure: int
    """0 … 7: difference of the best and the second-best score, in nats."""


def coarse_features(prior: Prior, grid: Bytes | None, height: int, width: int) -> CoarseFeatures:
    """The features of the planes of `trunk.grid` for a map of this size."""
    if grid is None:
        return CoarseFeatures(np.zeros((3, 0), np.uint8), np.zeros((0, 0), np.uint8), 0)
    assert prior.readout is not None
    cells = trunk_network.scores(prior.layers, prior.readout, grid)
    return CoarseFeatures(
        enlarge(grid, height, width), cells.reshape(len(cells), -1), cells.shape[2]
    )


def evidence(features: CoarseFeatures, allowed: Ints) -> Evidence:
    """allowed: 1 for each label in use."""
    return Evidence(*features, *leaders(features.scores, allowed))


def enlarge(grid: Bytes, height: int, width: int) -> Bytes:
    """Planes (3, ⌈h/4⌉, ⌈w/4⌉) enlarged to the map's size, bilinear, with a border of PAD; flat."""
    rows, columns = _taps(height, grid.shape[1]), _taps(width, grid.shape[2])
    framed = np.empty((3, height + 2 * PAD, width + 2 * PAD), np.uint8)
    for plane, large in zip(
        grid.astype(np.int16), framed, strict=True
    ):  # one at a time, to save memory
        a, b, f = rows
        tall: Any = plane[a] * (8 - f[:, None]) + plane[b] * f[:, None]
        a, b, f = columns
        full = (tall[:, a] * (8 - f) + tall[:, b] * f + np.int16(32)) >> 6
        large[...] = np.pad(full.astype(np.uint8), PAD, mode="edge")
    return framed.reshape(3, -1)


def _taps(size: int, cells: int) -> tuple[Shorts, Shorts, Shorts]:
    """The cells before and after each pixel, and the distance from the first, in eighths."""
    at = 2 * np.arange(size) - CELL + 1
    first = at >> 3
    a, b, f = first.clip(0, cells - 1), (first + 1).clip(0, cells - 1), at & 7
    return a.astype(np.int16), b.astype(np.int16), f.astype(np.int16)


def leaders(scores: Bytes, allowed: Ints) -> tuple[Shorts, Shorts, Shorts]:
    """`best`, `second` and `top` of the labels in use."""
    best = np.full(scores.shape[1], NONE, np.int16)
    second = best.copy()
    top = np.zeros_like(best)
    for v in np.flatnonzero(allowed[: len(scores)]):
        here = scores[v].astype(np.int16)
        np.maximum(second, np.minimum(best, here), out=second)
        top[here > best] = v
        np.maximum(best, here, out=best)
    return best, second, top


@merged
def trunk_at(evidence: Any, y: Any, x: Any) -> Any:
    """Summarises the trunk's scores at pixel (y, x)."""
    at = y * evidence.width + x
    best: Any = np.int64(NONE)
    second: Any = best
    top: Any = np.int64(0)
    if evidence.scores.size:
        best, second = np.int64(evidence.best[at]), np.int64(evidence.second[at])
        top = np.int64(evidence.top[at])
    return Trunk(at, best, second, top, clamp((best - second) >> 3, 0, 7))


@merged
def lead(trunk: Any, label: Any, score: Any) -> Any:
    """A label's score less the best score of the other labels."""
    return score - (trunk.second if trunk.top == label else trunk.best)


@inlined
def edges(planes: Any, o: Any, s: Any) -> Any:
    """Strength of the coarse picture's edges at pixel `o`, across and down: log2 of the sums of
    absolute differences over the planes."""
    across = down = np.int64(0)
    for z in range(3):
        across += abs(np.int64(planes[z, o + 2]) - planes[z, o - 4])
        down += abs(np.int64(planes[z, o + 2 * s]) - planes[z, o - 4 * s])
    return log2(across), log2(down)


@kernel
def average(colours: Any, planes: Any, image: Any, o: Any, steps: Any, rank: Any,
            count: Any) -> None:  # fmt: skip
    """Sets colours[candidate, plane] to 4 times the candidate's mean colour in the template."""
    pixels = 3
    for k in range(CANDIDATES):
        for z in range(4):
            colours[k, z] = 0
    for step in steps:
        k = rank[image[o + step]]
        if k < CANDIDATES:
            colours[k, pixels] += 1
            for z in range(3):
                colours[k, z] += planes[z, o + step]
    for k in range(count):
        for z in range(3):
            colours[k, z] = colours[k, z] * 4 // colours[k, pixels]


@merged
def colour(planes: Any, o: Any) -> Any:
    """The pixel's colour in 10 bits."""
    return (
        (np.int64(planes[0, o]) >> 4) * 64
        + clamp((np.int64(planes[1, o]) - 104) // 6, 0, 7) * 8
        + clamp((np.int64(planes[2, o]) - 104) // 6, 0, 7)
    )


class Part(NamedTuple):
    """Position of the pixel's colour between the colours of two candidates."""

    here: int
    """0 … 11."""
    ways: int
    """0 … 15: the positions of the next coarse pixel on the right and of the one below."""
    contrast: int
    """0 … 6: distance of the two colours; 7 if there is only one candidate."""


@inlined
def between(planes: Any, o: Any, s: Any, colours: Any, k: Any, count: Any) -> Any:
    """`Part` for candidate `k` and its rival; without a rival, distances from its own colour."""
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
        r = 4 * np.int64(planes[z, o + CELL]) - m
        b = 4 * np.int64(planes[z, o + CELL * s]) - m
        if count > 1:
            here, right, below = here + u * d, right + r * d, below + b * d
            span += d * d
        else:
            here, right, below = here + abs(u), right + abs(r), below + abs(b)
    if count > 1:
        here = clamp(here * 8 // max(span, 1) + 2, 0, 11)
        right = clamp(right * 4 // max(span, 1), 0, 3)
        below = clamp(below * 4 // max(span, 1), 0, 3)
        contrast = clamp((log2(span) - 4) >> 1, 0, 6)
    else:
        here, contrast = clamp(log2(here >> 2), 0, 8), np.int64(7)
        right = clamp(log2(right >> 2) >> 1, 0, 3)
        below = clamp(log2(below >> 2) >> 1, 0, 3)
    return Part(here, right * 4 + below, contrast)


@inlined
def contexts(address: Any, features: Any, own: Any, part: Any, trunk: Any, ahead: Any, over: Any,
             pair: Any, ranks: Any) -> None:  # fmt: skip
    """Contexts of a question that need the coarse picture, before hashing.

    own: `colour`. ahead: the candidate's score less the best other score. over: the candidate's
    score less the next candidate's. ranks: of N and NE.
    """
    e1, e2, _ = features.ends
    leading = clamp((ahead >> 2) + 16, 0, 31)
    i = CONTEXTS_CAUSAL
    address[i] = fold(part.here * 8 + part.contrast, features.near)
    address[i + 1] = fold((part.here >> 1) * 16 + part.ways, part.contrast * 36 + ranks)
    address[i + 2] = fold(own, pair)
    address[i + 3] = fold((part.here * 8 + part.contrast) * 4 + (part.ways >> 2), features.six)
    address[i + 4] = fold((leading * 256 + trunk.top) * 8 + trunk.sure, pair)
    address[i + 5] = fold(clamp((over >> 2) + 16, 0, 31) * 13 + part.here, features.near)
    address[i + 6] = fold((part.ways * 12 + part.here) * 8 + part.contrast, e1 + 16 * e2)
