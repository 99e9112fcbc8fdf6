"""Label maps and coarse pictures that the label coder's prior is trained on, rendered once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from tqdm import tqdm

from sempic import coarse, files, models
from sempic.errors import InputError, refused
from sempic.labels import trunk
from sempic.scene import half_map
from sempic.segment import Segmenter
from sempic.training.data import taxonomy
from sempic.training.data.corpus import SENT_MAPS
from sempic.training.data.readers import Item
from sempic.training.data.render import digest, open_segmenter, sent_map
from sempic.training.data.sources import open_sources
from sempic.training.data.taxonomy import Taxonomy
from sempic.training.options import PriorData

SIZE = (341, 256)
"""Width and height of the maps as they are coded. Known ones are coded at their picture's size, the
segmenter's at half of it: their pictures are rendered twice as large."""
VIEWS = ((35, "420"), (35, "444"), (41, "444"), (29, "444"))
"""QP and chroma of the coarse pictures of each map."""

Bytes = npt.NDArray[np.uint8]


class Maps(NamedTuple):
    """N label maps, one or two of each picture: known labels, and the encoder's map."""

    labels: Bytes
    """uint8 (N, H, W)."""
    planes: Bytes
    """uint8 (N, len(VIEWS), 3, ⌈H/4⌉, ⌈W/4⌉): coarse pictures (`trunk.grid`)."""
    weight: npt.NDArray[np.float64]
    """float64 (N,): probability of drawing each map."""


def maps_of(
    sources: Sequence[Sequence[Item]],
    weights: Sequence[float],
    classes: Taxonomy,
    segmenter: Path | None,
    folder: Path,
) -> Maps:
    """The maps of each source's items, from a cache in `folder` whose name is a digest of the
    inputs, or rendered now. Raises InputError or ModelError."""
    items = [item for source in sources for item in source]
    used = digest([segmenter, *(path for item in items for path in item.files)])
    counts = list(map(len, sources))
    inputs = json.dumps([taxonomy.describe(classes), used, counts, SENT_MAPS, SIZE, VIEWS])
    cache = folder / f"prior-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}.npz"
    if not cache.exists():
        files.make_folder(folder)
        with files.making(cache) as part, part.open("wb") as file:
            np.savez(file, **_rendered(sources, classes, segmenter))  # type: ignore[arg-type]
    with (  # zipfile, zlib and numpy raise errors of many classes
        refused(InputError, f"{cache}: damaged, delete it", Exception, unfit=True),
        cache.open("rb") as kept,
        np.load(kept, allow_pickle=False) as arrays,
    ):
        labels, planes, source = (arrays[name] for name in ("labels", "planes", "source"))
    share = np.array(weights)[source] / np.bincount(source, minlength=len(weights))[source]
    return Maps(labels, planes, share / share.sum())


def _segmenter(options: PriorData, classes: Taxonomy) -> Path | None:
    """--segmenter, or the bundled one if its classes are the same; else None."""
    if options.segmenter is not None:
        return options.segmenter
    bundled = models.find(models.SEGMENTER)
    return bundled if Segmenter(bundled).palette == classes.palette.id else None


def _rendered(
    sources: Sequence[Sequence[Item]], classes: Taxonomy, segmenter: Path | None
) -> dict[str, npt.NDArray[Any]]:
    sender = None if segmenter is None else open_segmenter(segmenter, classes)
    found: list[tuple[Bytes, Bytes, int]] = []
    items = [(number, item) for number, part in enumerate(sources) for item in part]
    for number, item in tqdm(items, desc="rendering", disable=None):
        image, known = item.opened(classes)
        coded = []
        if known is not None:
            labels = _cut(classes.settle(known), Image.Resampling.NEAREST)
            coded.append((_cut(image, Image.Resampling.BICUBIC), labels))
        if sender is not None:
            large = _cut(image, Image.Resampling.BICUBIC, 2)
            coded.append((large, half_map(sent_map(sender, large))))
        for picture, labels in coded:
            if labels.min() < labels.max():  # a map of one label needs no prior
                found.append((labels, _planes(picture), number))
    if not found:
        raise InputError(
            "no label maps to learn the prior from: give two pictures at least whose maps "
            "have more than one class, or --segmenter"
        )
    names = "labels", "planes", "source"
    return {k: np.array(part) for k, part in zip(names, zip(*found, strict=True), strict=True)}


def _planes(picture: Bytes) -> Bytes:
    """The coarse pictures of a picture as the label coder sees them: `Maps.planes` of a map."""
    small = coarse.downscale(picture, 4)
    decoded = (coarse.decode(coarse.encode(small, quality=q, chroma=c)) for q, c in VIEWS)
    return np.stack([trunk.grid(c, SIZE[1], SIZE[0]) for c in decoded])


def _cut(array: Bytes, filter_: Image.Resampling, times: int = 1) -> Bytes:
    """The largest central crop of the proportions of SIZE, resized to SIZE, or `times` as large."""
    size = times * SIZE[0], times * SIZE[1]
    return np.asarray(ImageOps.fit(Image.fromarray(array), size, filter_))


def opened(options: PriorData) -> tuple[Maps, Maps]:
    """Maps for training and for validation: each folder's `val`, or a few of its pictures.

    Raises InputError or ModelError.
    """
    classes = taxonomy.load(options.classes)
    sources = open_sources(options.data, classes)
    weights = [source.weight for source in sources]
    segmenter = _segmenter(options, classes)
    splits = [source.divided(limit=options.limit, one_in=10) for source in sources]
    train, val = (
        maps_of(items, weights, classes, segmenter, options.out.parent)
        for items in zip(*splits, strict=True)
    )
    return train, val
