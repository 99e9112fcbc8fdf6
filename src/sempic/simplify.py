"""Label maps made cheaper to code where bits buy no meaning: speckles, spurs, jagged outlines.

A change is a short row or column of pixels, or a whole small region, that takes a neighbour's
label. What it saves is measured: each pixel costs what its label costs given the equalities of six
causal neighbours, by the statistics of the map itself. Changes are made where the bits saved for
each changed pixel, weighted by the importance of the classes and by how sure the segmenter was,
reach a threshold (iterated conditional modes; Besag, "On the Statistical Analysis of Dirty
Pictures", 1986): where it was not sure, another outline is as likely and may be cheaper. This is
the sender's business alone: the format does not know of it, and floats are welcome.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sempic.compiling import kernel
from sempic.errors import InputError
from sempic.palette import PALETTES
from sempic.scene import LabelMap, Probabilities

LEVELS = {1: 0.4, 2: 0.7, 3: 1.0, 4: 2.0, 5: 4.0}
"""label_quality → bits that each changed pixel of importance 1 must save."""

IMPORTANCE = {
    "pedestrian": math.inf,
    "person": math.inf,
    "bicyclist": math.inf,
    "rider": math.inf,
    "bicycle": math.inf,
    "motorcycle": math.inf,
    "sign": math.inf,
    "traffic sign": math.inf,
    "traffic light": math.inf,
    "pole": 2.0,
    "car": 2.0,
    "truck": 2.0,
    "bus": 2.0,
    "train": 2.0,
    "void": 0.5,
}
"""How much a pixel of a class is worth, by name; 1 for all others. Infinite: never removed."""

_SWEEPS = 3
_LONGEST = 6
"""Pixels of a row or column that may change at once."""
_SURE = 1.2
"""Where probabilities are known, what a certain label counts; those that change are mostly not."""
_OUTLINE = 3.0
"""Where probabilities are known, the importance of a pixel at the outline of what is never
removed."""
_LARGEST = 64
"""Regions of at most so many pixels may vanish whole."""
_PATTERNS = 6**5
_BORDER = 3


def simplify(
    labels: LabelMap,
    quality: int,
    *,
    palette: int,
    importance: Mapping[str, float] | None = None,
    probabilities: Probabilities | None = None,
) -> LabelMap:
    """A map that takes fewer bits; uint8 (H, W) → uint8 (H, W), the same ids or fewer.

    quality: 1 (fewest bits) … 5 (fewest changes), a key of LEVELS.
    palette: whose ids the labels are.
    importance: by class name, over IMPORTANCE; 0 or more, `math.inf` for never.
    probabilities: of the ids, where a segmenter says so: then a changed pixel counts as much as its
        label is likelier than the new one.
    Raises InputError for another quality, name or weight.
    """
    if quality not in LEVELS:
        raise InputError(f"label quality is {min(LEVELS)}…{max(LEVELS)}, not {quality}")
    names = PALETTES[palette].classes
    weights = {name: IMPORTANCE.get(name, 1.0) for name in names}
    for name, weight in (importance or {}).items():
        if name not in weights:
            raise InputError(f"palette {PALETTES[palette].name} has no class {name!r}")
        given: object = weight
        if not isinstance(given, (float, int)) or not weight >= 0:
            raise InputError(f"the importance of {name!r} is {weight}, not 0 or more")
        weights[name] = weight
    worth = np.array([weights[name] for name in names]) * LEVELS[quality]
    ids = np.unique(labels)
    height, width = labels.shape
    n = len(ids)
    index = np.zeros(256, np.int16)
    index[ids] = np.arange(n)
    image = np.full((height + 2 * _BORDER, width + 2 * _BORDER), n, np.int16)
    image[_BORDER:-_BORDER, _BORDER:-_BORDER] = index[labels]
    stride = image.shape[1]
    likely, outlines = np.zeros((0, 0), np.uint8), worth
    if probabilities is not None and ids[-1] < len(probabilities):
        likely = np.zeros((n, *image.shape), np.uint8)
        for plane, number in zip(likely, ids, strict=True):
            plane[_BORDER:-_BORDER, _BORDER:-_BORDER] = probabilities[number]
        likely = likely.reshape(n, -1)
        outlines = np.where(np.isinf(worth), _OUTLINE * LEVELS[quality], worth)
    image = image.ravel()
    around = np.array([-1, 1, -stride, stride])
    contexts = np.zeros(image.size, np.uint16)
    inside = contexts.reshape(-1, stride)[_BORDER:-_BORDER, _BORDER:-_BORDER]
    first = _BORDER * (stride + 1)
    _update_contexts(image, stride, n, contexts, first, first + (height - 1) * stride + width - 1)
    for _ in range(_SWEEPS):
        counts = np.bincount(inside.ravel(), minlength=5 * _PATTERNS)
        bits = _price(counts.reshape(-1, 5), n).ravel()
        # Arrays are made here: functions that made them would take twice as long to compile.
        _smooth(
            image, stride, n, contexts, bits, outlines[ids], np.isinf(worth[ids]), likely, around
        )
        region, border = np.zeros(_LARGEST + 1, np.int64), np.zeros(n + 1, np.int64)
        visited = np.zeros(image.size, np.bool_)
        _merge(
            image, stride, n, contexts, bits, worth[ids], likely, around, visited, region, border
        )
    kept = image.reshape(-1, stride)[_BORDER:-_BORDER, _BORDER:-_BORDER]
    return ids[kept]


def _price(counts: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.float64]:
    """Bits of each answer (5) to each pattern."""
    everywhere = counts.sum(0) + 0.5
    smoothed = counts + 2 * everywhere / everywhere.sum()
    bits: npt.NDArray[np.float64] = -np.log2(smoothed / smoothed.sum(1, keepdims=True))
    bits[:, 4] += math.log2(n)  # which label it is instead
    return bits


@kernel
def _context(image: Any, o: Any, s: Any, n: Any) -> Any:
    """Pattern and answer of a pixel, as one number: which of the neighbours W N NE NW WW NN are
    equal, and the place of the pixel's label among their distinct ones (4: elsewhere)."""
    found = 0
    a = b = c = d = -1
    pattern = 0
    for i in range(6):
        step = -1 if i == 0 else -s if i == 1 else 1 - s if i == 2 else -1 - s if i == 3 else -2
        v = image[o + (step if i < 5 else -2 * s)]
        if v == n:
            rank = 5
        elif v == a:
            rank = 0
        elif v == b:
            rank = 1
        elif v == c:
            rank = 2
        elif v == d:
            rank = 3
        else:
            rank = min(found, 4)
            if found == 0:
                a = v
            elif found == 1:
                b = v
            elif found == 2:
                c = v
            elif found == 3:
                d = v
            found += 1
        if i:  # W is the first, or outside, which N tells well enough
            pattern = pattern * 6 + rank
    v = image[o]
    answer = 0 if v == a else 1 if v == b else 2 if v == c else 3 if v == d else 4
    return pattern * 5 + answer


@kernel
def _gain(image: Any, s: Any, n: Any, bits: Any, first: Any, last: Any, before: Any, loss: Any,
          least: Any) -> Any:  # fmt: skip
    """By how many bits more than `loss` a change of the rectangle from `first` to `last` has made
    the pixels cheaper whose price depends on it, and which took `before`. One that is no more than
    `least` is not looked at to its end: as sums grow, it only falls."""
    rows = (last - first) // s
    columns = last - first - rows * s
    total = 0.0
    for y in range(rows + 3):
        for x in range(-1, columns + 3):
            o = first + y * s + x
            if (y > 0 or x >= 0) and o < image.size and image[o] != n:
                total += bits[_context(image, o, s, n)]
                if before - total - loss <= least:
                    return least
    return before - total - loss


@kernel
def _before(image: Any, s: Any, n: Any, contexts: Any, bits: Any, first: Any, last: Any) -> Any:
    """Bits of the pixels whose price depends on those in the rectangle from `first` to `last`."""
    rows = (last - first) // s
    columns = last - first - rows * s
    total = 0.0
    for y in range(rows + 3):
        for x in range(-1, columns + 3):
            o = first + y * s + x
            if (y > 0 or x >= 0) and o < image.size and image[o] != n:
                total += bits[contexts[o]]
    return total


@kernel
def _update_contexts(image: Any, s: Any, n: Any, contexts: Any, first: Any, last: Any) -> None:
    """Keeps the contexts of the pixels that `_before` counts."""
    rows = (last - first) // s
    columns = last - first - rows * s
    for y in range(rows + 3):
        for x in range(-1, columns + 3):
            o = first + y * s + x
            if (y > 0 or x >= 0) and o < image.size and image[o] != n:
                contexts[o] = _context(image, o, s, n)


@kernel
def _loss(worth: Any, likely: Any, a: Any, b: Any, o: Any) -> Any:
    """Bits that must be saved for pixel `o` to become `b` instead of `a`."""
    most = max(worth[a], worth[b])
    if likely.shape[0] == 0:
        return most
    return most * _SURE * max(0, np.int64(likely[a, o]) - np.int64(likely[b, o])) / 255


@kernel
def _smooth(
    image: Any, s: Any, n: Any, contexts: Any, bits: Any, worth: Any, kept: Any, likely: Any,
    around: Any,
) -> None:  # fmt: skip
    """Short rows and columns. Of what is `kept` they leave a pixel behind them, so that it thins
    but never vanishes. contexts: of all pixels, and kept so."""
    for o in range(image.size):
        a = np.int64(image[o])  # the image is small, and one type of numbers is enough
        if a == n or (image[o - 1] == a and image[o - s] == a
                      and image[o + 1] == a and image[o + s] == a):  # fmt: skip
            continue
        for side in around:
            b = np.int64(image[o + side])
            if b in (n, a) or max(worth[a], worth[b]) == np.inf:
                continue
            best, best_length, best_step = 0.0, 0, 0
            for step in (1, s):
                loss = 0.0
                for length in range(1, _LONGEST + 1):
                    last = o + (length - 1) * step
                    if image[last] != a or (kept[a] and image[last - side] != a):
                        break
                    loss += _loss(worth, likely, a, b, last)
                    if length == 1 and step != 1:
                        continue
                    before = _before(image, s, n, contexts, bits, o, last)
                    if loss >= before:
                        break
                    if before - loss <= best:
                        continue
                    for i in range(length):
                        image[o + i * step] = b
                    gain = _gain(image, s, n, bits, o, last, before, loss, best)
                    for i in range(length):
                        image[o + i * step] = a
                    if gain > best:
                        best, best_length, best_step = gain, length, step
            if best_length:
                for i in range(best_length):
                    image[o + i * best_step] = b
                _update_contexts(image, s, n, contexts, o, o + (best_length - 1) * best_step)
                break


@kernel
def _merge(
    image: Any, s: Any, n: Any, contexts: Any, bits: Any, worth: Any, likely: Any, around: Any,
    visited: Any, region: Any, border: Any,
) -> None:  # fmt: skip
    """Whole small regions, into the label that borders most on them; the first of several.

    contexts: of all pixels, and kept so. visited: as `image`, False. region: room for the places of
    a region. border: for each label.
    """
    for start in range(image.size):
        a = np.int64(image[start])
        if a == n or visited[start] or worth[a] == np.inf:
            continue
        if (
            image[start + 1] == a
            and image[start + s] == a
            and image[start + s + 1] == a
            and (image[start + 2] == a and image[start + 2 * s] == a)
        ):  # most likely large: left to be looked at from elsewhere
            continue
        size, at = 1, 0
        region[0] = start
        visited[start] = True
        for v in range(n + 1):
            border[v] = 0
        while at < size and size <= _LARGEST:
            for side in around:
                o = region[at] + side
                if image[o] != a:
                    border[image[o]] += 1
                elif not visited[o] and size <= _LARGEST:
                    visited[o] = True
                    region[size] = o
                    size += 1
            at += 1
        if size > _LARGEST:
            continue
        b = 0
        for v in range(1, n):
            if border[v] > border[b]:
                b = v
        if border[b] == 0 or worth[b] == np.inf:
            continue
        top = bottom = region[0] // s
        left = right = region[0] % s
        for i in range(size):
            y, x = region[i] // s, region[i] % s
            top, bottom = min(top, y), max(bottom, y)
            left, right = min(left, x), max(right, x)
        first, last = top * s + left, bottom * s + right
        before = _before(image, s, n, contexts, bits, first, last)
        loss = 0.0
        for i in range(size):
            image[region[i]] = b
            loss += _loss(worth, likely, a, b, region[i])
        if _gain(image, s, n, bits, first, last, before, loss, 0.0) <= 0:
            for i in range(size):
                image[region[i]] = a
        else:
            _update_contexts(image, s, n, contexts, first, last)
