"""The plan of a benchmark: pictures, sizes, settings, codecs, rates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sempic import pictures
from sempic.errors import InputError, naming
from sempic.evaluation import codecs, human_maps
from sempic.evaluation.folders import by_name, spread
from sempic.evaluation.measure import Settings, check_size
from sempic.options import BUNDLED, Models
from sempic.palette import CAMVID, Palette
from sempic.places import read_picture
from sempic.scene import Image, LabelMap

RATES = (0.05, 0.06, 0.09, 0.12, 0.18, 0.32)
"""Default target rates, in bits per pixel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """Files of a picture and of its human labels."""

    name: str
    picture: Path
    labels: Path | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Everything that a worker process needs to know."""

    items: tuple[Item, ...]
    size: tuple[int, int] | None
    """(width, height) of all pictures, scaled; None: see `short_side`."""
    short_side: int | None = None
    """Pictures with a longer short side are scaled down to this one; None: no scaling."""
    settings: Settings
    palettes: tuple[Palette, Palette] = human_maps.UNKNOWN
    """Of the labels and of the judge, as of `human_maps.palettes_of`."""
    effort: str = codecs.EFFORTS[0]
    models: Models = BUNDLED

    def codec(self, name: str) -> codecs.PictureCodec:
        """As `codecs.load`. Raises InputError also if the codec needs human maps, and there are
        none."""
        palette = CAMVID if self.palettes == human_maps.UNKNOWN else self.palettes[1]
        codec = codecs.load(name, effort=self.effort, models=self.models, palette=palette)
        if codec.needs_labels and self.items[0].labels is None:
            raise InputError(f"codec {name} needs human maps; name their folder with --labels")
        return codec

    def load(self, index: int) -> tuple[Image, LabelMap | None]:
        """A picture (scaled BICUBIC) and its labels (scaled NEAREST). Raises InputError naming the
        file."""
        item = self.items[index]
        picture = self._resize(read_picture(item.picture), "BICUBIC")
        if item.labels is None:
            return picture, None
        labels = self._resize(human_maps.read_as(item.labels, *self.palettes), "NEAREST")
        with naming(item.labels):
            check_size(labels, picture.shape[:2])
        return picture, labels

    def _resize(self, array: Image, how: Literal["BICUBIC", "NEAREST"]) -> Image:
        height, width = array.shape[:2]
        size = self.size or (width, height)
        if self.size is None and self.short_side and min(size) > self.short_side:
            scale = self.short_side / min(size)
            size = round(width * scale), round(height * scale)
        return array if size == (width, height) else pictures.resized(array, size, how)


def items(
    folder: Path, labels: Path | None, limit: int | None, pattern: str = "*"
) -> tuple[Item, ...]:
    """The pictures of a folder, or of a data set's val/ with valannot/ beside it.

    Args:
        labels: folder of human label maps of the same names; None: FOLDERannot, if it exists.
        limit: take only this number of pictures, evenly spread.
        pattern: shell pattern of the file names to take.

    Raises:
        InputError: no pictures, two of one name, or a picture without its label map.
    """
    if (folder / "val").is_dir() and (folder / "valannot").is_dir():
        folder = folder / "val"
    whole = folder.resolve()  # "." has no name
    beside = whole.parent / f"{whole.name}annot"
    labels = labels or (beside if beside.is_dir() else None)
    found = by_name(folder, deep=False, pattern=pattern)
    names = spread(list(found), limit)
    maps = {} if labels is None else by_name(labels, deep=False)
    for name in names:
        if labels is not None and name not in maps:
            raise InputError(f"{labels}: no label map {name}")
    return tuple(Item(name=name, picture=found[name], labels=maps.get(name)) for name in names)
