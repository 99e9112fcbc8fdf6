"""Folders of pictures → what is known of them, whatever the layout.

A folder is given as `FOLDER` or `FOLDER=WEIGHT`. Its layout is recognised:

- one of `readers.LAYOUTS`: CamVid's `train/` and `trainannot/`, Cityscapes' `leftImg8bit/` and
  `gtFine/`, and so on;
- `images/` and `labels/`, with or without `train/` and `val/` below them;
- pictures without labels, in `images/` or in the folder itself.

Beside any of them a teacher's maps may lie in `cityscapes/` (in CamVid's layout
`traincityscapes/`): Cityscapes' ids at any size, under the pictures' names. Where an `index.json`
says which split a picture belongs to, it is obeyed, and pictures are weighed by the name that
theirs begins with (`idd-0001` by `idd`), since frames of one drive resemble each other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from sempic import pictures
from sempic.errors import JSON_FAULTS, InputError, refused
from sempic.jobs import read_ids, read_picture
from sempic.palette import CAMVID, CITYSCAPES, Palette
from sempic.scene import Image, LabelMap
from sempic.training.data import readers
from sempic.training.data.readers import read_map
from sempic.training.data.taxonomy import UNLABELLED, Taxonomy

T = TypeVar("T")

WEIGHTS = {
    "camvid": 36, "labelmefacade": 12, "idd": 14, "kathmandu": 11, "austin": 8, "nuimages": 15,
    "asphalt": 4, "aerial": 0,
}  # fmt: skip
"""Of the crops, by source: what the bundled models learn from. What has none is left out: no
segmenter of ours knows the view from above."""
DEFAULT_WEIGHT = 10
"""Of a source that is not among them."""
_LABELS_OF = {"labelmefacade": CAMVID}
"""Whose ids the maps of a folder hold, where its layout does not say."""
_NEVER = ("nuscenes",)
"""Kept for judging: pictures whose names begin so are never trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """The files of one picture, and how its maps are read."""

    source: str
    name: str
    image: Path
    labels: Path | None = None
    teacher: Path | None = None
    palette: Palette
    """Of `labels`, after `ids`."""
    ids: tuple[int, ...] = ()
    """The id of each value in `labels`; empty: as it is."""
    hidden: tuple[str, ...] = ()
    """Classes that nobody labelled."""

    def opened(self, taxonomy: Taxonomy) -> tuple[Image, LabelMap | None]:
        """Its picture, uint8 (H, W, 3), and what is known of it, a known map (`taxonomy`); None: it
        has no maps at all. Raises InputError."""
        image, human = self.labelled()
        teacher = None
        if self.teacher is not None and taxonomy.palette.name == CITYSCAPES.name:
            size = image.shape[1], image.shape[0]
            teacher = pictures.resized(read_ids(self.teacher), size, "NEAREST")
        if human is None and teacher is None:
            return image, None
        return image, taxonomy.known(human, self.palette, teacher, self.hidden)

    def labelled(self) -> tuple[Image, LabelMap | None]:
        """Its picture, uint8 (H, W, 3), and its human map, uint8 (H, W), ids of `palette`, if there
        is one. Raises InputError."""
        image = read_picture(self.image)
        if self.labels is None:
            return image, None
        ids = read_map(self.labels, self.image, image.shape[:2])
        return image, np.array(self.ids, np.uint8)[ids] if self.ids else ids


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Pictures of one kind."""

    name: str
    weight: float
    train: tuple[Item, ...]
    val: tuple[Item, ...]


def open_sources(specs: Sequence[str], taxonomy: Taxonomy) -> list[Source]:
    """The sources in folders given as `FOLDER` or `FOLDER=WEIGHT`.

    Raises InputError: no folder, an unknown layout, a picture without its map, two sources of one
    name, or none that has a weight.
    """
    found: list[Source] = []
    for spec in specs:
        folder, weight = _spec(spec)
        found += [s for s in _open_folder(folder, weight, taxonomy) if s.weight]
    if not found:
        raise InputError(f"{', '.join(specs)}: no pictures to learn from, or all of weight 0")
    names = [source.name for source in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two sources are called {name}: rename a folder")
    return found


def hold_out(items: Sequence[Item], count: int) -> tuple[Sequence[Item], Sequence[Item]]:
    """What is left of the items without `count` of them, and these, evenly spread."""
    held = spread(items, count)
    names = {item.name for item in held}
    return [item for item in items if item.name not in names], held


def spread(items: Sequence[T], count: int) -> Sequence[T]:
    """At most `count` of them, evenly; 0 for all."""
    if not 0 < count < len(items):
        return items
    return [items[number * len(items) // count] for number in range(count)]


def _spec(spec: str) -> tuple[Path, float | None]:
    name, _, weight = spec.rpartition("=")
    if name and not Path(spec).is_dir():  # a folder may have such a name
        try:
            value = float(weight)
        except ValueError as error:
            raise InputError(f"{spec}: the weight {weight!r} is no number") from error
        if not 0 <= value < math.inf:
            raise InputError(f"{spec}: a weight must be 0 or more")
        return Path(name), value
    return Path(spec), None


def _open_folder(folder: Path, weight: float | None, taxonomy: Taxonomy) -> list[Source]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    name = folder.resolve().name
    layouts = ((mode, layout.splits(folder)) for mode, layout in readers.LAYOUTS.items())
    mode, present = next(((mode, there) for mode, there in layouts if there), ("folder", ["train"]))
    if mode == "folder" and not (folder / "labels").is_dir():
        return _unlabelled(folder, name, weight)
    splits: dict[str, list[Item]] = {"train": [], "val": []}
    for split in present:
        own = len(taxonomy.palette.classes) if mode == "folder" else None
        opened = readers.open_dataset(mode, folder, split, num_classes=own)
        palette = opened.palette or _LABELS_OF.get(name, taxonomy.palette)
        if mode != "folder" and opened.num_classes > len(palette.classes):
            raise InputError(
                f"{folder}: {mode} has {opened.num_classes} classes, {palette.name} "
                f"{taxonomy.classes}; name them with --classes FILE"
            )
        teachers = folder / (f"{split}cityscapes" if mode == "camvid" else "cityscapes")
        splits[split] = [
            Item(
                source=name,
                name=f"{name}/{entry.name}",
                image=entry.image,
                labels=entry.labels,
                teacher=_twin(teachers, entry.image),
                palette=palette,
                ids=() if mode == "folder" else tuple(opened.ids.tolist()),
                hidden=UNLABELLED.get(name, ()),
            )
            for entry in opened.entries
        ]
    return [_source(name, weight, splits)]


def _unlabelled(folder: Path, name: str, weight: float | None) -> list[Source]:
    pictures = folder / "images" if (folder / "images").is_dir() else folder
    told = _index(folder / "index.json")
    kinds: dict[str, dict[str, list[Item]]] = {}
    for path in readers.find_pictures(pictures):
        if path.stem.startswith(_NEVER):
            continue
        kind = path.stem.split("-")[0] if told else name
        item = Item(
            source=kind,
            name=f"{kind}/{path.relative_to(pictures).with_suffix('').as_posix()}",
            image=path,
            teacher=_twin(folder / "cityscapes", path),
            palette=CITYSCAPES,
        )
        kinds.setdefault(kind, {"train": [], "val": []})[told.get(path.stem, "train")].append(item)
    return [_source(kind, weight, splits) for kind, splits in kinds.items()]


def _index(path: Path) -> dict[str, str]:
    """The split of each picture that an `index.json` names; empty if there is no such file."""
    if not path.is_file():
        return {}
    with refused(InputError, f"{path}: cannot be read", *JSON_FAULTS, unfit=True):
        told = {
            name: entry.get("split", "train")
            for name, entry in json.loads(path.read_text("utf-8")).items()
        }
    for name, split in told.items():
        if split not in ("train", "val"):
            raise InputError(f"{path}: the split {split!r} of {name} is neither train nor val")
    return told


def _source(name: str, weight: float | None, splits: dict[str, list[Item]]) -> Source:
    return Source(
        name=name,
        weight=WEIGHTS.get(name, DEFAULT_WEIGHT) if weight is None else weight,
        train=tuple(splits["train"]),
        val=tuple(splits["val"]),
    )


def _twin(folder: Path, image: Path) -> Path | None:
    path = folder / f"{image.stem}.png"
    return path if path.is_file() else None
