"""Pictures with label maps, whole in memory, and the augmentations that the bundled models see."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageFilter

from sempic.errors import InputError
from sempic.scene import Image as Picture
from sempic.scene import LabelMap

SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """One picture, uint8 (H, W, 3), and its label map, uint8 (H, W)."""

    name: str
    image: Picture
    labels: LabelMap


def load_pairs(images: Path, labels: Path, size: tuple[int, int] | None = None) -> list[Pair]:
    """Read every picture of `images` with the index map of the same stem in `labels`.

    Args:
        size: (width, height) to resize to, BICUBIC and NEAREST; None keeps each as it is.

    Raises:
        InputError: a folder is empty, a map is missing, or the sizes differ.
    """
    pairs = []
    for path in sorted(p for p in images.glob("*") if p.suffix.lower() in SUFFIXES):
        twin = labels / f"{path.stem}.png"
        if not twin.exists():
            raise InputError(f"{path}: its label map {twin} is missing")
        image, map_ = Image.open(path).convert("RGB"), Image.open(twin).copy()
        if image.size != map_.size:
            raise InputError(f"{path}: {image.size}, but {twin} is {map_.size}")
        if size is not None:
            image = image.resize(size, Image.Resampling.BICUBIC)
            map_ = map_.resize(size, Image.Resampling.NEAREST)
        pairs.append(Pair(path.stem, np.asarray(image), np.asarray(map_, dtype=np.uint8)))
    if not pairs:
        raise InputError(f"{images}: no pictures here")
    return pairs


def random_crop(
    pair: Pair,
    rng: np.random.Generator,
    *,
    size: tuple[int, int],
    heights: tuple[int, int],
    rare: Sequence[int] = (),
    rare_rate: float = 0.5,
    fill: int = 255,
) -> tuple[Picture, LabelMap]:
    """A crop of `size` (height, width) of the pair, scaled and maybe mirrored.

    The scale is log-uniform, such that the whole picture would be between `heights` pixels high.
    With probability `rare_rate` the crop holds a pixel of one of the `rare` classes, if there is
    one. Where the scaled picture is smaller than the crop, it is mirrored outwards and its labels
    are `fill`.
    """
    height, width = pair.labels.shape
    scale = float(np.exp(rng.uniform(*np.log(np.divide(heights, height)))))
    rows, columns = size[0] / scale, size[1] / scale  # the crop's extent in the source
    at = None
    if rare and rng.random() < rare_rate:
        present = [c for c in rare if (pair.labels == c).any()]
        if present:
            ys, xs = np.nonzero(pair.labels == rng.choice(present))
            index = rng.integers(len(ys))
            at = (
                ys[index] - rng.uniform(0.2, 0.8) * rows,
                xs[index] - rng.uniform(0.2, 0.8) * columns,
            )
    if at is None:
        at = rng.random() * (height - rows), rng.random() * (width - columns)
    top = float(np.clip(at[0], 0, max(0.0, height - rows)))
    left = float(np.clip(at[1], 0, max(0.0, width - columns)))
    bottom, right = min(height, top + rows), min(width, left + columns)
    shape = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    shape = min(shape[0], size[1]), min(shape[1], size[0])
    box = (left, top, right, bottom)
    image = np.asarray(Image.fromarray(pair.image).resize(shape, Image.Resampling.BICUBIC, box=box))
    labels = np.asarray(
        Image.fromarray(pair.labels).resize(shape, Image.Resampling.NEAREST, box=box)
    )
    missing = (0, size[0] - shape[1]), (0, size[1] - shape[0])
    if any(after for _, after in missing):
        image = np.pad(image, (*missing, (0, 0)), mode="symmetric")
        labels = np.pad(labels, missing, constant_values=fill)
    if rng.random() < 0.5:
        image, labels = image[:, ::-1], labels[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(labels)


def degrade(image: Picture, rng: np.random.Generator) -> Picture:
    """Change colour, sharpness and compression, as another camera would."""
    picture = Image.fromarray(image)
    for enhance, spread in (
        (ImageEnhance.Brightness, 0.5),
        (ImageEnhance.Contrast, 0.5),
        (ImageEnhance.Color, 0.7),
    ):
        if rng.random() < 0.6:
            picture = enhance(picture).enhance(float(np.exp(rng.uniform(-spread, spread))))
    if rng.random() < 0.4:  # white balance and gamma
        gains, gamma = np.exp(rng.uniform(-0.2, 0.2, 3)), np.exp(rng.uniform(-0.4, 0.4))
        tones = 255 * (np.arange(256)[:, None] / 255) ** gamma * gains
        curve = np.clip(tones, 0, 255).astype(np.uint8)
        picture = picture.point(curve.T.ravel().tolist())
    if rng.random() < 0.2:
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.5))))
    if rng.random() < 0.4:  # a smaller picture, enlarged
        factor = rng.uniform(0.5, 0.9)
        small = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
        picture = picture.resize(small, Image.Resampling.BICUBIC)
        picture = picture.resize((image.shape[1], image.shape[0]), Image.Resampling.BICUBIC)
    if rng.random() < 0.2:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=int(rng.integers(25, 90)))
        picture = Image.open(buffer)
    out: npt.NDArray[np.uint8] = np.asarray(picture)
    if rng.random() < 0.2:
        noise = rng.normal(0, rng.uniform(2, 10), out.shape)
        out = np.clip(out + noise, 0, 255).astype(np.uint8)
    return out
