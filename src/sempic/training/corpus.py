"""What the compact receiver learns from: pictures, and what of them will be transmitted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from sempic import coarse
from sempic.api import DEFAULT_LABEL_QUALITY
from sempic.labels.simplify import simplify
from sempic.scene import Image as Picture
from sempic.scene import LabelMap
from sempic.segment import Segmenter
from sempic.training.pairs import Pair

GRID = 16
"""Crops begin at multiples of this: pixels of every coarse factor, and their chroma, align."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    image: Picture
    """uint8 (H, W, 3); H and W multiples of GRID."""
    coarse: Picture
    """uint8 (H / 4, W / 4, 3), as the receiver decodes it."""
    maps: tuple[LabelMap, ...]
    """uint8 (H, W) each: human first, then predicted, where there are any."""


def _draw(pair: Pair, rng: np.random.Generator, native: int) -> tuple[Picture, LabelMap, int, int]:
    """A random size, colour cast, coarse factor and QP for one pair."""
    height, width = pair.labels.shape
    target = native if rng.random() < 0.6 else int(np.exp(rng.uniform(*np.log((200, 480)))))
    shape = max(176, round(width * target / height)), max(128, target)
    image = np.asarray(Image.fromarray(pair.image).resize(shape, Image.Resampling.BICUBIC))
    labels = np.asarray(Image.fromarray(pair.labels).resize(shape, Image.Resampling.NEAREST))
    rows, columns = shape[1] // GRID * GRID, shape[0] // GRID * GRID
    image, labels = image[:rows, :columns], labels[:rows, :columns]
    if rng.random() < 0.3:
        gains = np.exp(rng.uniform(-0.2, 0.2) + rng.uniform(-0.06, 0.06, 3))
        image = np.clip(image * gains, 0, 255).astype(np.uint8)
    factor = 8 if rng.random() < 0.15 else 4
    qp = 35 if rng.random() < 0.4 else int(rng.integers(24, 43))
    return image, labels, factor, qp


def transmit(image: Picture, factor: int, qp: int) -> Picture:
    """The coarse picture as the receiver sees it, on the grid of a quarter of the resolution."""
    small = coarse.downscale(image, factor)
    decoded = coarse.to_rgb(coarse.decode(coarse.encode(small, quality=qp)))
    grid = image.shape[1] // 4, image.shape[0] // 4
    if factor != 4:
        decoded = np.asarray(Image.fromarray(decoded).resize(grid, Image.Resampling.BICUBIC))
    return decoded


def sent_map(segmenter: Segmenter, image: Picture) -> LabelMap:
    """A segmenter's map as the encoder sends it by default: simplified."""
    labels, chances = segmenter.look(image)
    return simplify(labels, DEFAULT_LABEL_QUALITY, palette=segmenter.palette, chances=chances)


def build(
    pairs: list[Pair],
    cache: Path,
    *,
    variants: int,
    seed: int,
    native: int = 256,
    predict: Callable[[Picture], LabelMap] | None = None,
) -> list[Sample]:
    """`variants` random renditions of every pair, made once and cached by what they depend on."""
    key = hashlib.sha256(
        repr([(p.name, p.labels.shape) for p in pairs] + [variants, seed, native]).encode()
    ).hexdigest()[:12]
    path = cache / f"corpus-{key}{'-predicted' if predict else ''}.npz"
    samples: list[Sample] = []
    if path.exists():
        with np.load(path) as stored:
            for index in range(len(stored.files) // 3):
                maps = tuple(stored[f"m{index}"])
                samples.append(Sample(stored[f"i{index}"], stored[f"c{index}"], maps))
        return samples
    for number, pair in enumerate(tqdm(pairs, desc="corpus", mininterval=10)):
        for variant in range(variants):
            rng = np.random.default_rng((seed, number, variant))
            image, labels, factor, qp = _draw(pair, rng, native)
            maps = (labels,) if predict is None else (labels, predict(image))
            samples.append(Sample(image, transmit(image, factor, qp), maps))
    cache.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    arrays: dict[str, np.ndarray] = {}
    for index, sample in enumerate(samples):
        arrays |= {
            f"i{index}": sample.image,
            f"c{index}": sample.coarse,
            f"m{index}": np.stack(sample.maps),
        }
    np.savez(part, **arrays)  # type: ignore[arg-type]
    part.replace(path)
    return samples


def crop(
    sample: Sample,
    rng: np.random.Generator,
    *,
    size: tuple[int, int],
    rare: tuple[int, ...],
    rare_rate: float = 0.5,
) -> tuple[Picture, Picture, LabelMap]:
    """A random crop (picture, coarse, labels), mirrored half of the time.

    With probability `rare_rate` it holds a pixel of a rare class, if there is one.
    """
    height, width = sample.image.shape[:2]
    labels = sample.maps[rng.integers(len(sample.maps))]
    top = int(rng.integers((height - size[0]) // GRID + 1)) * GRID
    left = int(rng.integers((width - size[1]) // GRID + 1)) * GRID
    if rng.random() < rare_rate:
        present = [c for c in rare if (labels[::4, ::4] == c).any()]
        if present:
            ys, xs = np.nonzero(labels[::4, ::4] == rng.choice(present))
            index = rng.integers(len(ys))
            top = int(ys[index] * 4 - rng.uniform(0.2, 0.8) * size[0]) // GRID * GRID
            left = int(xs[index] * 4 - rng.uniform(0.2, 0.8) * size[1]) // GRID * GRID
            top = min(max(0, top), (height - size[0]) // GRID * GRID)
            left = min(max(0, left), (width - size[1]) // GRID * GRID)
    image = sample.image[top : top + size[0], left : left + size[1]]
    small = sample.coarse[top // 4 : (top + size[0]) // 4, left // 4 : (left + size[1]) // 4]
    labels = labels[top : top + size[0], left : left + size[1]]
    if rng.random() < 0.5:
        image, small, labels = image[:, ::-1], small[:, ::-1], labels[:, ::-1]
    return image, small, labels
