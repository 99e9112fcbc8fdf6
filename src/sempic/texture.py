"""Texture: strength of the finest detail of a picture by class (docs/spec/format.md §9).

A coarse picture does not show whether a road is grainy or blurred, so a receiver paints the usual
texture. A sender describes the texture of classes where it is weaker than the usual one, and a
receiver removes the excess.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sempic.bits import Bits, packed, ue
from sempic.errors import CorruptStream, InputError, refused
from sempic.palette import CITYSCAPES, Palette, alike
from sempic.scene import Image, LabelMap

Texture: TypeAlias = Mapping[int, tuple[int, int]]
"""By id: the median and the 95th percentile of the magnitude of fine luma, as levels, 0…LEVELS - 1.
Without a map, id 0 is the whole picture. Fine luma is the picture less its smoothed self
(`_fine`)."""
LEVELS = 32
"""Number of levels; level k is (2^(k / 4) - 1) / 4 grey values of 255."""
_LARGEST_DIFFERENCE = 15
"""Largest difference of the two levels; it stands for any larger one, too."""
_QUANTILES = (0.5, 0.95)
CONDITION = 4
"""Values that describe a class to a network (`condition`)."""
_PRECISION = 8
"""Steps per level of measurements."""
_REQUESTED = 0.8
"""Requested texture as a share of the measured one: painted texture lies at other places than the
original's and therefore looks stronger."""
_LEAST_SHARE = 0.03
"""Least share of the picture of a class that is described."""
_LEAST_DIFFERENCE = 0.5
"""A class is described if its texture is weaker than the usual one by this many grey values …"""
_LARGEST_RATIO = 0.65
"""… and weaker than this share of the usual one."""
_USUAL = {
    "road": (10, 22),
    "sidewalk": (15, 24),
    "building": (16, 27),
    "fence": (18, 27),
    "pole": (22, 29),
    "traffic light": (13, 27),
    "traffic sign": (19, 27),
    "vegetation": (17, 27),
    "terrain": (16, 24),
    "sky": (6, 21),
    "person": (16, 26),
    "rider": (9, 18),
    "car": (19, 29),
    "motorcycle": (18, 29),
    "bicycle": (22, 29),
    "void": (16, 27),
}
"""Levels that the bundled receiver paints by default, medians of 54 pictures of four cities. A
receiver assumes them for classes that the stream does not describe."""
_OTHERS = 22, 29
_NEUTRAL = 13
"""Median level at which a receiver's noise has the strength of its training."""
_SENT_NOISE, _USUAL_NOISE = (0.1, 0.4, 1.6), (0.05, 0.7, 1.0)
"""Change of the noise's strength per level, least and greatest strength: for levels in the stream,
and for usual levels (docs/experiments/receiver.md)."""
_PATTERN = 1.5, 2.0
"""By how many levels the painted median exceeds the sent one where a median filter begins, and
where it takes full effect (docs/experiments/receiver.md)."""
_BLURRED = 20
"""Classes of a map whose 95th percentile is below this level have no strong detail to lose."""
_GRAINY = 15
"""A picture without a map whose 95th percentile is below this level is evenly grainy, as asphalt
seen from above: the filter would take its grain."""
_LEAST_CHANGE = 2
"""Least change of a level, in a sequence, that is sent."""
_EPSILON = 0.05
"""Grey values added to both sides of a division."""
_ROWS = 64
"""Rows that are processed at once."""
_MOST_MEASURED = 1 << 19
"""Most pixels, about, that are measured; larger pictures are sampled."""
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)

_Floats: TypeAlias = npt.NDArray[np.float32]


def _fine(
    picture: Image, every: int = 1, weights: _Floats | None = None
) -> Iterator[tuple[slice, _Floats]]:
    """Strips of a picture, uint8 (H, W, 3), less their smoothed selves, with their rows.

    Smoothing is (1 2 1) / 4 and (1 0 2 0 1) / 4 in both directions, edges repeated.
    every: yields only each `every`-th strip. weights: (3, n), maps the channels to n others first.
    """
    height = len(picture)
    for top in range(0, height, every * _ROWS):
        rows = slice(top, min(top + _ROWS, height))
        around = np.arange(top - 3, rows.stop + 3).clip(0, height - 1)
        part = picture[around].astype(np.float32) if weights is None else picture[around] @ weights
        part = np.pad(part, ((0, 0), (3, 3), (0, 0)), mode="edge")
        smooth = part
        for step in (1, 2):
            smooth = smooth[: -2 * step] + 2 * smooth[step:-step] + smooth[2 * step :]
            smooth = smooth[:, : -2 * step] + 2 * smooth[:, step:-step] + smooth[:, 2 * step :]
        yield rows, (part[3:-3, 3:-3] - smooth / 256).astype(np.float32, copy=False)


def _grey(level: float) -> float:
    """The magnitude of a level, in grey values."""
    return float(2 ** (level / 4) - 1) / 4


def _level(magnitude: _Floats) -> _Floats:
    """The inverse of `_grey`."""
    return 4 * np.log2(1 + 4 * magnitude)


def _measured(picture: Image, labels: LabelMap | None) -> dict[int, tuple[float, ...]]:
    """Fractional levels, as in `Texture`, of each class that takes _LEAST_SHARE of a picture."""
    most = LEVELS * _PRECISION
    counts = np.zeros(256 * most, np.int64)
    every = -(-picture[..., 0].size // _MOST_MEASURED)
    for rows, fine in _fine(picture, every, _LUMA[:, None]):
        levels = np.minimum(_level(np.abs(fine[..., 0])) * _PRECISION + 0.5, most - 1)
        places = levels.astype(np.int64)
        if labels is not None:
            places += most * labels[rows].astype(np.int64)
        counts += np.bincount(places.ravel(), minlength=len(counts))
    table = counts.reshape(256, most)
    area = table.sum(1)
    found = {}
    for number in np.flatnonzero(area >= _LEAST_SHARE * area.sum()).tolist():
        places = np.searchsorted(table[number].cumsum(), [q * area[number] for q in _QUANTILES])
        found[number] = tuple((places / _PRECISION).tolist())
    return found


def measure(
    picture: Image, labels: LabelMap | None, palette: Palette
) -> dict[int, tuple[int, int, bool]]:
    """The requested levels of each class of a picture, and whether they are much weaker than usual.

    picture: uint8 (H, W, 3). labels: uint8 (H, W), or None.
    """
    found = {}
    for number, levels in _measured(picture, labels).items():
        wanted = [_REQUESTED * _grey(level) for level in levels]
        name = alike(palette.classes[number], CITYSCAPES) or "" if labels is not None else ""
        usual = [_grey(level) for level in _USUAL.get(name, _OTHERS)]
        weak = any(
            w < _LARGEST_RATIO * u and w < u - _LEAST_DIFFERENCE
            for w, u in zip(wanted, usual, strict=True)
        )
        median, high = (min(LEVELS - 1, round(4 * math.log2(1 + 4 * w))) for w in wanted)
        found[number] = median, min(high, median + _LARGEST_DIFFERENCE), weak
    return found


def choose(
    picture: Image, labels: LabelMap | None, palette: Palette, earlier: Texture | None = None
) -> dict[int, tuple[int, int]]:
    """The texture to send with a picture: of classes much weaker than usual; arguments: `measure`.

    earlier: the texture sent with earlier pictures; its classes are sent again only after a change.
    """
    found = {}
    for number, (median, high, news) in measure(picture, labels, palette).items():
        if earlier and number in earlier:
            before = earlier[number]
            news = max(abs(median - before[0]), abs(high - before[1])) >= _LEAST_CHANGE
        if news:
            found[number] = median, high
    return found


def strengthen(texture: Texture, levels: int) -> Texture:
    """The same texture, stronger by `levels`."""
    return {
        n: (min(m + levels, LEVELS - 1), min(h + levels, LEVELS - 1))
        for n, (m, h) in texture.items()
    }


def condition(texture: Texture) -> _Floats:
    """The receiver's input for each id, float32 (256, CONDITION), about -1…1.

    1, the two levels, and their difference; all 0 for ids without texture.
    """
    table = np.zeros((256, CONDITION), np.float32)
    for number, (median, high) in texture.items():
        table[number] = 1, median / 16 - 1, high / 16 - 1, (high - median) / 8 - 1
    return table


def condition_map(texture: Texture, labels: LabelMap, patch: int = 4) -> _Floats:
    """`condition` of the class at the middle of each patch, (CONDITION, H / patch, W / patch)."""
    middle = labels[patch // 2 :: patch, patch // 2 :: patch]
    return np.ascontiguousarray(condition(texture)[middle].transpose(2, 0, 1))


def default_noise(palette: Palette | None) -> _Floats:
    """Strength of the noise of each id without texture in the stream, float32 (256,).

    Args:
        palette: of the map; None without a map (id 0 is the whole picture).
    """
    slope, least, most = _USUAL_NOISE
    table = np.ones(256, np.float32)
    for number, name in enumerate(("void",) if palette is None else palette.classes):
        if (known := alike(name, CITYSCAPES)) is not None:
            level = _USUAL.get(known, _OTHERS)[0]
            table[number] = min(max(1 + slope * (level - _NEUTRAL), least), most)
    return table


def noise_strength(condition: _Floats, default: _Floats) -> _Floats:
    """Strength of a receiver's noise for each id, float32 (…, N); 1: as in training.

    The network turns noise into texture, so weak texture needs weak noise.

    Args:
        condition: of the function `condition`, (…, N, CONDITION).
        default: of `default_noise`, (N,).
    """
    slope, least, most = _SENT_NOISE
    level = 16 * (condition[..., 1].astype(np.float64) + 1)
    strong = (1 + slope * (level - _NEUTRAL)).clip(least, most).astype(np.float32)
    return np.where(condition[..., 0] > 0, strong, default)


def weaken(
    picture: Image, labels: LabelMap | None, texture: Texture, *, patterns: bool = True
) -> Image:
    """A picture, uint8 (H, W, 3), with texture weakened to the levels of `texture`.

    Fine detail is scaled. Where far too much was painted, it is a pattern of the network's, and a
    median filter follows.

    Args:
        patterns: False: without the filter, because another one follows (`halving.enlarged`).
    """
    if not texture:
        return picture
    painted = _measured(picture, labels)
    known = texture.keys() & painted.keys()
    gains = {n: _gains(texture[n], painted[n]) for n in known}
    found = _scaled(picture, labels, painted, {n: g for n, g in gains.items() if min(g) < 1})
    if not patterns:
        return found
    mapped = labels is not None
    return _filtered(found, labels, {n: _effect(texture[n], painted[n], mapped) for n in known})


def _effect(wanted: tuple[int, int], painted: tuple[float, ...], mapped: bool) -> float:
    """Effect of the median filter, 0…1: how likely too much painted detail is a pattern.

    mapped: there is a map. Without one, too much weak detail may be noise between strong details,
    such as stars; a pattern makes both too strong.
    """
    likely = wanted[1] < _BLURRED if mapped else painted[1] > wanted[1] >= _GRAINY
    return float(np.interp(painted[0] - wanted[0], _PATTERN, (0, 1))) if likely else 0.0


def _gains(wanted: tuple[int, int], painted: tuple[float, ...]) -> list[float]:
    """Factors of fine detail at the two painted levels."""
    gains = [
        min(1.0, (_grey(w) + _EPSILON) / (_grey(p) + _EPSILON))
        for w, p in zip(wanted, painted, strict=True)
    ]
    if wanted[1] - wanted[0] == _LARGEST_DIFFERENCE:  # strong edges may be stronger than said
        gains[1] = 1.0
    return gains


def _scaled(
    picture: Image,
    labels: LabelMap | None,
    painted: Mapping[int, tuple[float, ...]],
    gains: Mapping[int, list[float]],
) -> Image:
    """A picture with the fine detail of some classes scaled by `gains` at the levels `painted`."""
    if not gains:
        return picture
    found = picture.copy()
    for rows, fine in _fine(picture):
        levels = _level(np.abs(fine @ _LUMA))
        share = np.ones_like(levels)
        for number, gain in gains.items():
            here = ... if labels is None else labels[rows] == number
            share[here] = np.interp(levels[here], painted[number], gain)
        kept = picture[rows] - (1 - share[..., None]) * fine
        found[rows] = np.clip(np.rint(kept), 0, 255)
    return found


def _filtered(picture: Image, labels: LabelMap | None, effects: Mapping[int, float]) -> Image:
    """A picture with a median filter on some classes, whose effect is 0…1."""
    if not any(effects.values()):
        return picture
    table = np.zeros(256, np.float32)
    table[list(effects)] = list(effects.values())
    found = picture.copy()
    for rows, filtered in _medians(picture):
        share = table[0] if labels is None else table[labels[rows]][..., None]
        change = filtered - picture[rows].astype(np.float32)
        found[rows] = np.rint(picture[rows] + share * change)
    return found


def _medians(picture: Image) -> Iterator[tuple[slice, Image]]:
    """Strips of the 3×3 median of a picture, uint8 (H, W, 3), edges repeated, with their rows."""
    height = len(picture)
    for top in range(0, height, _ROWS):  # a strip fits in the processor's cache
        rows = slice(top, min(top + _ROWS, height))
        yield rows, _median(picture[np.arange(top - 1, rows.stop + 1).clip(0, height - 1)])


def _median(picture: Image) -> Image:
    """The 3×3 median, (H - 2, W, 3) of (H, W, 3); the left and right edges are repeated."""
    columns = np.pad(picture, ((0, 0), (1, 1), (0, 0)), mode="edge")
    above, here, below = columns[:-2], columns[1:-1], columns[2:]
    least, most = np.minimum(above, here), np.maximum(above, here)
    least, middle = np.minimum(least, below), np.minimum(most, np.maximum(least, below))
    most = np.maximum(most, below)
    sides = [np.s_[:, i : i + picture.shape[1]] for i in range(3)]
    low = functools.reduce(np.maximum, (least[side] for side in sides))
    high = functools.reduce(np.minimum, (most[side] for side in sides))
    return _median_of_3(low, _median_of_3(*(middle[side] for side in sides)), high)


def _median_of_3(a: Image, b: Image, c: Image) -> Image:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


@refused(InputError, "no texture", AttributeError, TypeError, ValueError)
def write(texture: Texture) -> bytes:
    """The payload of a texture chunk. Raises InputError for an invalid or empty `Texture`."""
    if not texture:
        raise InputError("a texture chunk needs at least one class")
    bits, last = ue(len(texture) - 1), -1
    for number, (median, high) in sorted(texture.items()):
        if not (
            last < number < 256
            and 0 <= median <= high <= min(LEVELS - 1, median + _LARGEST_DIFFERENCE)
        ):
            raise InputError(f"id {number} with levels {median}, {high} is no valid texture")
        bits += ue(number - last - 1) + f"{median:05b}{high - median:04b}"
        last = number
    return packed(bits)


def read(payload: bytes) -> dict[int, tuple[int, int]]:
    """The texture of a payload. Raises a BitstreamError if the payload is invalid."""
    bits = Bits(payload, "the texture")
    found: dict[int, tuple[int, int]] = {}
    number = -1
    for _ in range(bits.ue() + 1):
        number += bits.ue() + 1
        median = bits.number(5)
        high = median + bits.number(4)
        if number > 255 or high >= LEVELS:
            raise CorruptStream(f"the texture has levels {median}, {high} of id {number}")
        found[number] = median, high
    bits.end()
    return found
