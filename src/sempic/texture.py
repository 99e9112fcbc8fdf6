"""Texture: how strong the finest detail of a picture is, class by class (spec/format.md §9).

A receiver cannot see in a coarse picture whether a road is grainy or blurred, and paints it as it
has learnt to. So a sender says how strong texture is where it is weaker than receivers paint it,
and a receiver takes back what it painted beyond that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sempic.bits import Bits, from_golomb, packed, ue
from sempic.errors import CorruptStream, InputError
from sempic.palette import CITYSCAPES, Palette, alike
from sempic.scene import Image, LabelMap

Texture: TypeAlias = Mapping[int, tuple[int, int]]
"""By id, the median and the 95th percentile of the magnitude of fine luma, as levels, 0…LEVELS - 1;
without a map, id 0 is all of the picture. Fine is what is left of a picture less its mean over some
three pixels (`_fine`)."""
LEVELS = 32
"""Level k is (2^(k / 4) - 1) / 4 grey values, of 255."""
_WIDEST = 15
"""Levels between the two, at most."""
_QUANTILES = (0.5, 0.95)
CONDITION = 4
"""Values by which a network is told of a class (`condition`)."""
_PRECISION = 8
"""Steps of a level in which a receiver measures what it painted."""
_WANTED = 0.8
"""What is asked for, of what is measured: texture that is painted lies at other places than that
which was there, and looks stronger by as much."""
_LEAST = 0.03
"""Share of the picture from which on something is said of a class."""
_SEEN = 0.5
"""By how many grey values, of 255, what is asked for is less than what is usually painted."""
_LESS = 0.65
"""And by which factor."""
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
"""What the bundled receiver paints, the median of 54 pictures of four cities: a sender says nothing
where nothing is to be taken back, and a receiver takes these for what was not said."""
_OTHERS = 22, 29
_EVEN = 13
"""Median at which a receiver begins with as much noise as it was trained with."""
_STEEP, _SLIGHT = (0.1, 0.4, 1.6), (0.05, 0.7, 1.0)
"""By how much more or less for each level, the least and the most: where a level was said, and
where it is but the usual one of a class (docs/experiments/receiver.md)."""
_CHANGE = 2
"""Levels by which one changes, at least, before it is said anew."""
_SOFT = 0.05
"""Grey values that are added to what is divided."""
_ROWS = 64
"""How many are held at a time."""
_ENOUGH = 1 << 19
"""Pixels that say how strong texture is; of larger pictures, only so many are looked at."""
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)

_Floats: TypeAlias = npt.NDArray[np.float32]


def _fine(
    picture: Image, every: int = 1, weights: _Floats | None = None
) -> Iterator[tuple[slice, _Floats]]:
    """Rows of a picture, uint8 (H, W, 3), and what they are more than their smoothed selves: by
    (1 2 1) / 4 and (1 0 2 0 1) / 4 in both directions, edges repeated.

    every: leave all but each n-th of these strips out. weights: (3, n), of sums of the channels
    that are taken instead of them.
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
    """The magnitude at a level, in grey values."""
    return float(2 ** (level / 4) - 1) / 4


def _level(magnitude: _Floats) -> _Floats:
    found: _Floats = 4 * np.log2(1 + 4 * magnitude)
    return found


def _measured(picture: Image, labels: LabelMap | None) -> dict[int, tuple[float, ...]]:
    """Of each class that takes _LEAST of a picture, as `Texture`, in parts of a level."""
    most = LEVELS * _PRECISION
    counts = np.zeros(256 * most, np.int64)
    every = -(-picture[..., 0].size // _ENOUGH)
    for rows, fine in _fine(picture, every, _LUMA[:, None]):
        levels = np.minimum(_level(np.abs(fine[..., 0])) * _PRECISION + 0.5, most - 1)
        places = levels.astype(np.int64)
        if labels is not None:
            places += most * labels[rows].astype(np.int64)
        counts += np.bincount(places.ravel(), minlength=len(counts))
    table = counts.reshape(256, most)
    area = table.sum(1)
    found = {}
    for number in np.flatnonzero(area >= _LEAST * area.sum()).tolist():
        places = np.searchsorted(table[number].cumsum(), [q * area[number] for q in _QUANTILES])
        found[number] = tuple((places / _PRECISION).tolist())
    return found


def measure(
    picture: Image, labels: LabelMap | None, palette: Palette
) -> dict[int, tuple[int, int, bool]]:
    """Of each class of a picture, uint8 (H, W, 3), with a map of uint8 (H, W) or without: what
    would be said of it, and whether a receiver that is not told paints much more."""
    found = {}
    for number, levels in _measured(picture, labels).items():
        wanted = [_WANTED * _grey(level) for level in levels]
        name = alike(palette.classes[number], CITYSCAPES) or "" if labels is not None else ""
        usual = [_grey(level) for level in _USUAL.get(name, _OTHERS)]
        weak = any(w < _LESS * u and w < u - _SEEN for w, u in zip(wanted, usual, strict=True))
        median, high = (min(LEVELS - 1, round(4 * math.log2(1 + 4 * w))) for w in wanted)
        found[number] = median, min(high, median + _WIDEST), weak
    return found


def ask(
    picture: Image, labels: LabelMap | None, palette: Palette, said: Texture | None = None
) -> dict[int, tuple[int, int]]:
    """What is to be said of a picture, as `measure`: of classes that have so little texture that a
    receiver would paint more.

    said: what was said of the pictures before; of those classes only what has changed since.
    """
    found = {}
    for number, (median, high, news) in measure(picture, labels, palette).items():
        if said and number in said:
            before = said[number]
            news = max(abs(median - before[0]), abs(high - before[1])) >= _CHANGE
        if news:
            found[number] = median, high
    return found


def stronger(said: Texture, levels: int) -> Texture:
    """The same, stronger by so many levels."""
    return {
        n: (min(m + levels, LEVELS - 1), min(h + levels, LEVELS - 1)) for n, (m, h) in said.items()
    }


def condition(said: Texture) -> _Floats:
    """What a receiver is told of each id, float32 (256, CONDITION), some -1 … 1: whether anything
    is said, the two levels, and how far they are apart; all zero where nothing is."""
    table = np.zeros((256, CONDITION), np.float32)
    for number, (median, high) in said.items():
        table[number] = 1, median / 16 - 1, high / 16 - 1, (high - median) / 8 - 1
    return table


def cells(said: Texture, labels: LabelMap, patch: int = 4) -> _Floats:
    """`condition` of the class in the middle of each patch, (CONDITION, H / patch, W / patch)."""
    middle = labels[patch // 2 :: patch, patch // 2 :: patch]
    return np.ascontiguousarray(condition(said)[middle].transpose(2, 0, 1))


def usual(palette: Palette | None) -> _Floats:
    """How strong the noise of each id of a palette is where nothing is said, float32 (256,).

    Args:
        palette: of the map; None without one, where id 0 is all of the picture.
    """
    slope, least, most = _SLIGHT
    table = np.ones(256, np.float32)
    for number, name in enumerate(("void",) if palette is None else palette.classes):
        if (known := alike(name, CITYSCAPES)) is not None:
            level = _USUAL.get(known, _OTHERS)[0]
            table[number] = min(max(1 + slope * (level - _EVEN), least), most)
    return table


def noise(told: _Floats, unsaid: _Floats) -> _Floats:
    """How strong the noise is that a receiver makes each id of, float32 (…, N); 1 is even noise.

    Texture is made of noise, so that where it is weak a receiver needs less.

    Args:
        told: `condition`, (…, N, CONDITION). unsaid: `usual`, (N,).
    """
    slope, least, most = _STEEP
    level = 16 * (told[..., 1].astype(np.float64) + 1)
    strong = (1 + slope * (level - _EVEN)).clip(least, most).astype(np.float32)
    found: _Floats = np.where(told[..., 0] > 0, strong, unsaid)
    return found


def heed(picture: Image, labels: LabelMap | None, said: Texture) -> Image:
    """A picture, uint8 (H, W, 3), whose texture is no stronger than was said."""
    if not said:
        return picture
    painted = _measured(picture, labels)
    gains = {
        number: [
            min(1.0, (_grey(w) + _SOFT) / (_grey(h) + _SOFT))
            for w, h in zip(said[number], painted[number], strict=True)
        ]
        for number in said.keys() & painted.keys()
    }
    weakened = {number: gain for number, gain in gains.items() if min(gain) < 1}
    if not weakened:
        return picture
    found = picture.copy()
    for rows, fine in _fine(picture):
        levels = _level(np.abs(fine @ _LUMA))
        share = np.ones_like(levels)
        for number, gain in weakened.items():
            here = ... if labels is None else labels[rows] == number
            share[here] = np.interp(levels[here], painted[number], gain)
        kept = picture[rows] - (1 - share[..., None]) * fine
        found[rows] = np.clip(np.rint(kept), 0, 255)
    return found


def write(texture: Texture) -> bytes:
    """The payload of a texture chunk. Raises InputError if it is not as `Texture` says."""
    if not texture:
        raise InputError("a texture chunk says something of a class")
    bits, last = ue(len(texture) - 1), -1
    for number, (median, high) in sorted(texture.items()):
        if not (last < number < 256 and 0 <= median <= high <= min(LEVELS - 1, median + _WIDEST)):
            raise InputError(f"id {number}: {median}, {high} are no levels of texture")
        bits += ue(number - last - 1) + f"{median:05b}{high - median:04b}"
        last = number
    return packed(bits)


def read(payload: bytes) -> dict[int, tuple[int, int]]:
    """The texture in a payload. Raises a BitstreamError if it is not exactly one."""
    bits = Bits(payload, "the texture")
    found: dict[int, tuple[int, int]] = {}
    number = -1
    for _ in range(from_golomb(bits.golomb()) + 1):
        number += from_golomb(bits.golomb()) + 1
        median = int(bits.take(5), 2)
        high = median + int(bits.take(4), 2)
        if number > 255 or high >= LEVELS:
            raise CorruptStream(f"the texture says {median}, {high} of id {number}")
        found[number] = median, high
    bits.end()
    return found
