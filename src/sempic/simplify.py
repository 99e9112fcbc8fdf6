"""Lossy simplification of label maps: removes speckles, spurs and jagged outlines to save bits.

A change gives a neighbour's label to a short row or column of pixels, or to a whole small region.
Its gain is estimated: a pixel costs the code length of its label given which of six causal
neighbours are equal, by the statistics of the map itself. A change is made if the bits saved for
each changed pixel reach a threshold, weighted by the importance of the classes and the certainty
of the segmenter: where it was not sure, another outline is as likely (iterated conditional modes;
Besag, "On the Statistical Analysis of Dirty Pictures", 1986). Only the sender runs this, outside
the format, so floats are allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sempic import checks
from sempic.compiling import kernel
from sempic.errors import InputError
from sempic.palette import PALETTES, Palette, numbers
from sempic.scene import LabelMap, Probabilities

LEVELS = {1: 0.4, 2: 0.7, 3: 1.0, 4: 2.0, 5: 4.0}
"""label_quality → bits that a changed pixel of the picture, of importance 1, must save."""

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
"""Weight of a changed pixel, by name of its class; others: 1. Infinite: never removed."""

_SWEEPS = 3
_LONGEST = 6
"""Most pixels of a row or column that change at once."""
_SURE = 1.2
"""With probabilities: weight of a pixel with a certain label; labels that change rarely are."""
_OUTLINE = 3.0
"""With probabilities: importance of an outline pixel of a class that is never removed."""
_LARGEST = 64
"""Largest region, in pixels of the picture, that may vanish."""
_PATTERNS = 6**5
_BORDER = 3


def class_weights(
    palette: Palette, importance: Mapping[str, float] | None = None
) -> npt.NDArray[np.float64]:
    """The weight of a changed pixel of each class, float64 (classes,).

    importance: by class (`palette.numbers`), overrides IMPORTANCE; 0 or more, `math.inf`: never
        removed.
    Raises InputError: a class that the palette does not have, or an invalid weight.
    """
    weights = [IMPORTANCE.get(name, 1.0) for name in palette.classes]
    given: dict[int, str] = {}
    for name, number in zip(importance or (), numbers(importance or (), palette), strict=True):
        if (other := given.setdefault(number, name)) != name:
            raise InputError(f"{other!r} and {name!r} are one class: {palette.classes[number]}")
        weights[number] = checks.weight(f"the importance of {name!r}", (importance or {})[name])
    return np.array(weights)


def simplify(
    labels: LabelMap,
    quality: int,
    *,
    palette: int,
    importance: Mapping[str, float] | None = None,
    probabilities: Probabilities | None = None,
    area: int = 1,
) -> LabelMap:
    """A map that takes fewer bits: uint8 (H, W), no new ids.

    labels: uint8 (H, W).
    quality: 1 (fewest bits) … 5 (fewest changes), a key of LEVELS.
    palette: id of the palette of the labels.
    importance: as of `class_weights`.
    probabilities: by the segmenter, uint8 (classes, H, W) in 1/255. The weight of a changed pixel
        is then proportional to the loss of probability.
    area: pixels of the picture that a pixel of the map stands for; it must save as many times more.
    Raises InputError for an unknown quality or name, or an invalid weight.
    """
    if quality not in LEVELS:
        raise InputError(f"label quality is {min(LEVELS)}…{max(LEVELS)}, not {quality}")
    threshold = LEVELS[quality] * area
    worth = class_weights(PALETTES[palette], importance) * threshold
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
        outlines = np.where(np.isinf(worth), _OUTLINE * threshold, worth)
    image = image.ravel()
    around = np.array([-1, 1, -stride, stride])
    contexts = np.zeros(image.size, np.uint16)
    inside = contexts.reshape(-1, stride)[_BORDER:-_BORDER, _BORDER:-_BORDER]
    first = _BORDER * (stride + 1)
    _update_contexts(image, stride, n, contexts, first, first + (height - 1) * stride + width - 1)
    for _ in range(_SWEEPS):
        counts = np.bincount(inside.ravel(), minlength=5 * _PATTERNS)
        bits = _price(counts.reshape(-1, 5), n).ravel()
        # Arrays are allocated here: kernels that allocate take twice as long to compile.
        _smooth(
            image, stride, n, contexts, bits, outlines[ids], np.isinf(worth[ids]), likely, around
        )
        region = np.zeros(_LARGEST // area + 1, np.int64)
        border = np.zeros(n + 1, np.int64)
        visited = np.zeros(image.size, np.bool_)
        _merge(
            image, stride, n, contexts, bits, worth[ids], likely, around, visited, region, border
        )
    kept = image.reshape(-1, stride)[_BORDER:-_BORDER, _BORDER:-_BORDER]
    return ids[kept]


def _price(counts: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.float64]:
    """Bits of each answer to each pattern, (patterns, 5)."""
    everywhere = counts.sum(0) + 0.5
    smoothed = counts + 2 * everywhere / everywhere.sum()
    bits: npt.NDArray[np.float64] = -np.log2(smoothed / smoothed.sum(1, keepdims=True))
    bits[:, 4] += math.log2(n)  # names the label
    return bits


@kernel
def _context(image: Any, o: Any, s: Any, n: Any) -> Any:
    """Pattern and answer of a pixel, in one number: which of the neighbours W N NE NW WW NN are
    equal, and the index of the pixel's label among their distinct labels (4: none of them)."""
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
        if i:  # W always has rank 0, or is outside, which N indicates well enough
            pattern = pattern * 6 + rank
    v = image[o]
    answer = 0 if v == a else 1 if v == b else 2 if v == c else 3 if v == d else 4
    return pattern * 5 + answer


@kernel
def _gain(image: Any, s: Any, n: Any, bits: Any, first: Any, last: Any, before: Any, loss: Any,
          least: Any) -> Any:  # fmt: skip
    """Bits saved, less `loss`, after a change in the rectangle from `first` to `last`.

    before: result of `_before` without the change. Stops early and returns `least` when the gain
    falls to `least` or below, because further pixels only lower the gain.
    """
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
    """Bits of all pixels whose price depends on the rectangle from `first` to `last`."""
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
    """Updates the contexts of the pixels that `_before` counts."""
    rows = (last - first) // s
    columns = last - first - rows * s
    for y in range(rows + 3):
        for x in range(-1, columns + 3):
            o = first + y * s + x
            if (y > 0 or x >= 0) and o < image.size and image[o] != n:
                contexts[o] = _context(image, o, s, n)


@kernel
def _loss(worth: Any, likely: Any, a: Any, b: Any, o: Any) -> Any:
    """Bits that a change of pixel `o` from `a` to `b` must save."""
    most = max(worth[a], worth[b])
    if likely.shape[0] == 0:
        return most
    return most * _SURE * max(0, np.int64(likely[a, o]) - np.int64(likely[b, o])) / 255


@kernel
def _smooth(
    image: Any, s: Any, n: Any, contexts: Any, bits: Any, worth: Any, kept: Any, likely: Any,
    around: Any,
) -> None:  # fmt: skip
    """Changes short rows and columns. Classes that are `kept` may get thinner but never vanish.

    contexts: of all pixels; updated.
    """
    for o in range(image.size):
        a = np.int64(image[o])  # one integer type for all numbers
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
    """Merges small regions into the label with the longest common border; the first of several.

    contexts: of all pixels; updated. visited: like `image`, all False. region: buffer for the
    indices of a region's pixels; larger regions stay. border: buffer, one number per label.
    """
    largest = len(region) - 1
    for start in range(image.size):
        a = np.int64(image[start])
        if a == n or visited[start] or worth[a] == np.inf:
            continue
        if (
            image[start + 1] == a
            and image[start + s] == a
            and image[start + s + 1] == a
            and (image[start + 2] == a and image[start + 2 * s] == a)
        ):  # most likely large; if not, another pixel of the region starts the search
            continue
        size, at = 1, 0
        region[0] = start
        visited[start] = True
        for v in range(n + 1):
            border[v] = 0
        while at < size and size <= largest:
            for side in around:
                o = region[at] + side
                if image[o] != a:
                    border[image[o]] += 1
                elif not visited[o] and size <= largest:
                    visited[o] = True
                    region[size] = o
                    size += 1
            at += 1
        if size > largest:
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
