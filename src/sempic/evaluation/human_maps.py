"""Human label maps of a folder, and maps of another segmenter to compare with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from sempic import pictures, places
from sempic.errors import InputError, naming
from sempic.evaluation import metrics
from sempic.evaluation.folders import by_name
from sempic.evaluation.measure import Measure, check_size
from sempic.evaluation.measures.segmentation import checked, confusion, count_classes
from sempic.palette import BY_NAME, CITYSCAPES, CITYSCAPES_FULL, INDICES, Palette, find, translate
from sempic.scene import LabelMap

_LABEL_IDS = CITYSCAPES_FULL, CITYSCAPES
"""Palette of maps, and another in whose ids they may be compared."""
UNKNOWN = INDICES, INDICES
"""As of `palettes_of`, for ids without a judge."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HumanMaps:
    """The human maps of a folder, by name."""

    paths: dict[str, Path]
    folder: Path
    palette: Palette
    """Of the files."""
    compared: Palette
    """The palette in whose ids maps are compared: train ids for Cityscapes' label ids, if the judge
    has them or there is no judge; else `palette`."""
    classes: int
    """Compared classes; higher ids are void."""

    @classmethod
    def find(
        cls,
        folder: Path,
        palette: str | None,
        sent: str | None,
        judge: Palette | None,
        num_classes: int | None,
    ) -> HumanMaps:
        """The maps of a folder. Raises InputError.

        Args:
            palette: of the files, as `sempic.palette.find` takes it; None: with `num_classes` that
                of the streams or `indices`, else Cityscapes' for maps of the original's code,
                that whose colours the first map has, that of the streams, or the judge's.
            sent: the palette of the streams.
            judge: the judge's palette; None: there is no judge.
            num_classes: see `Settings`.
        """
        paths = by_name(folder)
        if palette is None and num_classes is not None:
            palette = sent or INDICES.name
        truth = _palette(palette, sent, next(iter(paths.values())), judge)
        as_train_ids = truth is CITYSCAPES_FULL and judge in (None, CITYSCAPES)
        compared = CITYSCAPES if as_train_ids else truth
        if num_classes is not None and truth is not INDICES:
            raise InputError(f"num_classes is of the palette indices; {folder} has {truth.name}")
        return cls(
            folder=folder,
            paths=paths,
            palette=truth,
            compared=compared,
            classes=count_classes(compared, num_classes),
        )

    def read(self, name: str, size: tuple[int, int]) -> LabelMap:
        """A map of size (H, W) in ids of `compared`, void as 255. Raises InputError."""
        if name not in self.paths:
            raise InputError(f"{self.folder}: no label map {name}")
        labels = read_as(self.paths[name], self.palette, self.compared)
        with naming(self.paths[name]):
            check_size(labels, size)
        return np.where(labels < self.classes, labels, 255).astype(np.uint8)

    def confusion(self, truth: LabelMap, predicted: Path) -> metrics.Counts:
        """`metrics.confusion` of a human map with a predicted one, which may have another size, and
        the colours of Cityscapes' label ids where train ids are compared."""
        size, palette, compared = (truth.shape[1], truth.shape[0]), self.compared, self.compared
        if compared == CITYSCAPES:
            with naming(predicted):
                found = _with_colours(pictures.decode(places.read(predicted)), compared)
            palette = CITYSCAPES_FULL if found == CITYSCAPES_FULL else compared
        labels = pictures.resized(read_as(predicted, palette, compared), size, "NEAREST")
        return confusion(truth, labels, compared, self.classes)


def _palette(name: str | None, sent: str | None, example: Path, judge: Palette | None) -> Palette:
    if name is not None:
        return find(name)
    with naming(example):
        picture = pictures.decode(places.read(example))
        for palette in (CITYSCAPES, CITYSCAPES_FULL):
            if _unscaled(picture, palette) is not None:
                return palette
    streams = BY_NAME.get(sent or "")  # None: there are none, or they have a custom palette
    found = _with_colours(picture, *filter(None, (streams, judge)))
    found = found or (judge if sent is None else streams)
    if found is None:
        raise InputError(f"{example}: the palette of its ids is unknown: name it with --palette")
    return found


def palettes_of(path: Path | None, measure: Measure) -> tuple[Palette, Palette]:
    """The palette of a map, and the judge's, in whose ids it is compared, for `read_as`; UNKNOWN
    for no map.

    The first is that whose colours the map has, else the judge's. Raises InputError naming the file
    if the judge does not know the palette.
    """
    if path is None:
        return UNKNOWN
    known = measure.palette if measure.settings.judged else None
    with naming(path):
        picture = pictures.decode(places.read(path))
        found = _with_colours(picture, *filter(None, [known])) or known or INDICES
        if known is None or found is known or (found, known) == _LABEL_IDS:
            return found, known or found
        raise InputError(
            f"it has the colours of palette {found.name}, and the judge knows {known.name}; name "
            "another --judge"
        )


def _with_colours(picture: PIL.Image.Image, *likely: Palette) -> Palette | None:
    """The palette whose ids have the colours of a palette picture, or which has all colours of an
    RGB picture. Of several one that is likely; None: none, or no one of them is."""
    if picture.mode not in ("P", "RGB", "RGBA"):
        return None
    if picture.mode == "P":
        colours = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        used = np.unique(np.array(picture))
        used = used[used < 255]  # may be void
        fitting = [
            palette
            for palette in BY_NAME.values()
            if used.max(initial=0) < min(len(colours), len(palette.classes))
            and (palette.table()[used] == colours[used]).all()
        ]
    else:
        seen = picture.convert("RGB").getcolors(256) or [(0, None)]  # None: more are no map
        fitting = [p for p in BY_NAME.values() if {colour for _, colour in seen} <= {*p.colours}]
        if CITYSCAPES in fitting and CITYSCAPES_FULL not in likely:
            fitting.remove(CITYSCAPES_FULL)  # has the same colours, and more
    if len(fitting) == 1:
        return fitting[0]
    return next((palette for palette in likely if palette in fitting), None)


def read_as(path: Path, palette: Palette, compared: Palette) -> LabelMap:
    """`read_map` in ids of `compared`: a class that it lacks becomes the nearest one or void, but
    void among Cityscapes' train ids, as in its own evaluation."""
    near = (palette, compared) != _LABEL_IDS
    return translate(read_map(path, palette), palette.id, compared.id, near=near)


def read_map(path: Path, palette: Palette) -> LabelMap:
    """A label map, uint8 (H, W).

    The file holds ids, or colours of the palette, or, as the original's code writes maps, grey in
    RGB: id · 255/35, void 255. Errors name the file, also if ids are not of the palette.
    """
    with naming(path):
        data = places.read(path)
        picture = pictures.decode(data)
        if picture.mode not in ("RGB", "RGBA"):
            return checked(pictures.read_labels(data, palette), palette)
        ids = _unscaled(picture, palette)
        return palette.unpaint(np.array(picture.convert("RGB"))) if ids is None else ids


def _unscaled(picture: PIL.Image.Image, palette: Palette) -> LabelMap | None:
    """The ids of a map of the original's code; None for other pictures."""
    if picture.mode not in ("RGB", "RGBA"):
        return None
    levels = np.array(picture.convert("RGB"))
    grey = levels[..., 0]
    scale = np.rint(np.arange(count_classes(palette)) * 255 / 35)
    if (levels != grey[..., None]).any() or not np.isin(grey, [*scale[scale < 255], 255]).all():
        return None
    return np.where(grey == 255, 255, np.rint(grey * (35 / 255))).astype(np.uint8)
