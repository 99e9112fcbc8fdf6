"""Folders of any layout → pictures and their known maps (`sempic train --data`).

`FOLDER` or `FOLDER=WEIGHT` names a folder. Its layout is recognised:

- one of `readers.LAYOUTS`: CamVid's `train/` and `trainannot/`, Cityscapes' `leftImg8bit/` and
  `gtFine/`, and so on;
- `images/` and `labels/`, with or without `train/` and `val/` below them;
- pictures without labels, in `images/` or in the folder itself.

Any layout may add a teacher's maps in `cityscapes/` (in CamVid's layout `traincityscapes/`):
Cityscapes' ids at any size, under the pictures' names. In a folder of pictures without labels,
`index.json` may give each picture's split; then the folder becomes several sources, by the first
part of the pictures' names (`idd-0001` belongs to `idd`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sempic.errors import JSON_FAULTS, InputError, refused
from sempic.evaluation.folders import find_pictures, spread
from sempic.palette import CAMVID, CITYSCAPES, INDICES, MOST
from sempic.training.data import readers
from sempic.training.data.readers import Item
from sempic.training.data.taxonomy import UNLABELLED, Taxonomy

WEIGHTS = {
    "camvid": 36, "labelmefacade": 12, "idd": 14, "kathmandu": 11, "austin": 8, "nuimages": 15,
    "asphalt": 4, "aerial": 0,
}  # fmt: skip
"""Default weights of the crops, by source: the data of the bundled models. A source of weight 0 is
left out (aerial: our segmenters do not know the view from above)."""
DEFAULT_WEIGHT = 10
"""Weight of other sources."""
_PALETTES = {"labelmefacade": CAMVID}
"""Palettes of the maps of folders whose layout does not imply one; a class file replaces them."""
JUDGED = 24
"""Validation pictures of a source, at most."""
_HELD_BACK = ("nuscenes",)
"""Sources of an indexed folder that are reserved for evaluation and never trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The pictures of one folder, or of one prefix of an indexed folder."""

    name: str
    weight: float
    train: tuple[Item, ...]
    val: tuple[Item, ...]

    def with_maps(self) -> Source:
        """The source without the pictures that have no known map."""
        train, val = (tuple(i for i in part if i.has_map) for part in (self.train, self.val))
        return replace(self, train=train, val=val)

    def divided(
        self, *, limit: int = 0, judged: int = JUDGED, one_in: int = 0, least: int = 2
    ) -> tuple[list[Item], list[Item]]:
        """The pictures to learn from, and those for validation, which are not learned.

        These are the `val` of the source. If it has none, one in `one_in` of the others is held
        out, at least one and at most JUDGED.

        Args:
            limit: pictures of `train` at most, evenly spread; 0 for all.
            judged: pictures of `val` at most, evenly spread; 0 for all.
            one_in: 0 to hold none out.
            least: number of pictures from which on some are held out.
        """
        train, val = spread(self.train, limit), spread(self.val, judged)
        if not val and one_in and len(train) >= least:
            val = spread(train, min(JUDGED, max(1, len(train) // one_in)))
            train = [item for item in train if item not in val]
        return train, val


def open_sources(specs: Sequence[str], taxonomy: Taxonomy) -> list[Source]:
    """The sources in folders given as `FOLDER` or `FOLDER=WEIGHT`.

    Raises InputError: a missing folder, a picture without its map, two sources of one name, or no
    source with a weight.
    """
    found: list[Source] = []
    for spec in specs:
        folder, given = _spec(spec)
        for name, splits in _open_folder(folder, taxonomy).items():
            _check_teachers([item for items in splits.values() for item in items])
            weight = WEIGHTS.get(name, DEFAULT_WEIGHT) if given is None else given
            if weight:
                parts = {split: tuple(items) for split, items in splits.items()}
                found.append(Source(name=name, weight=weight, **parts))
            elif given is None:
                print(f"{name} is left out by default: give {folder}=WEIGHT", flush=True)
    if not found:
        raise InputError(f"{', '.join(specs)}: no pictures to learn from, or all of weight 0")
    names = [source.name for source in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two sources are called {name}: rename a folder")
    return found


def _spec(spec: str) -> tuple[Path, float | None]:
    name, _, weight = spec.rpartition("=")
    if name and not Path(spec).is_dir():  # a folder's name may contain "="
        try:
            value = float(weight)
        except ValueError as error:
            raise InputError(f"{spec}: the weight {weight!r} is no number") from error
        if not 0 <= value < math.inf:
            raise InputError(f"{spec}: a weight must be 0 or more")
        return Path(name), value
    return Path(spec), None


def _open_folder(folder: Path, taxonomy: Taxonomy) -> dict[str, dict[str, list[Item]]]:
    """The items of each split, "train" and "val", of each source."""
    name = folder.resolve().name
    layouts = ((mode, layout.splits(folder)) for mode, layout in readers.LAYOUTS.items())
    mode, present = next(((mode, there) for mode, there in layouts if there), ("folder", ["train"]))
    if mode == "folder" and not (folder / "labels").is_dir():
        return _unlabelled(folder, name, taxonomy)
    splits: dict[str, list[Item]] = {"train": [], "val": []}
    for split in present:
        opened = readers.open_dataset(mode, folder, split)
        palette = opened.palette
        if palette is INDICES:
            palette, count = taxonomy.palette, opened.num_classes
            if palette.identity is None:
                palette = _PALETTES.get(name, palette)
            fits = palette.identity and count in (palette.known, len(palette.classes))
            if mode != "folder" and not fits:
                most = f" ({MOST} at most: merge some, in folders images and labels)"
                raise InputError(
                    f"{folder}: {mode} has {count} classes, {palette.name} {taxonomy.classes}; "
                    "put other data than its into folders images and labels, or name its own with "
                    f"--classes FILE{most * (count > MOST)}"
                )
        if not taxonomy.of(palette).any():
            raise InputError(
                f"{folder}: its maps have classes of {palette.name}, none of "
                f"{taxonomy.palette.name}: name its own with --classes"
            )
        teachers = folder / (f"{split}cityscapes" if mode == "camvid" else "cityscapes")
        splits[split] = [
            replace(
                item,
                name=f"{name}/{item.name}",
                teacher=_teacher(teachers, item.image, taxonomy),
                palette=palette,
                hidden=UNLABELLED.get(name, ()),
            )
            for item in opened.items
        ]
    return {name: splits}


def _unlabelled(folder: Path, name: str, taxonomy: Taxonomy) -> dict[str, dict[str, list[Item]]]:
    pictures = folder / "images" if (folder / "images").is_dir() else folder
    index = _index(folder / "index.json")
    sources: dict[str, dict[str, list[Item]]] = {}
    teachers = folder / "cityscapes"
    for path in find_pictures(pictures):
        source = path.stem.split("-")[0] if index else name
        if path.is_relative_to(teachers) or (index and source in _HELD_BACK):
            continue
        item = Item(
            name=f"{source}/{path.relative_to(pictures).with_suffix('').as_posix()}",
            image=path,
            teacher=_teacher(teachers, path, taxonomy),
            palette=CITYSCAPES,
        )
        splits = sources.setdefault(source, {"train": [], "val": []})
        splits[index.get(path.stem, "train")].append(item)
    return sources


def _index(path: Path) -> dict[str, str]:
    """The split of each picture in an `index.json`; empty without the file."""
    if not path.is_file():
        return {}
    with refused(InputError, f"{path}: cannot be read", *JSON_FAULTS, unfit=True):
        index = {
            name: entry.get("split", "train")
            for name, entry in json.loads(path.read_text("utf-8")).items()
        }
    for name, split in index.items():
        if split not in ("train", "val"):
            raise InputError(f"{path}: the split {split!r} of {name} is neither train nor val")
    return index


def _check_teachers(items: Sequence[Item]) -> None:
    """Raises InputError for two pictures, of several subfolders, with one teacher's map."""
    found: dict[Path, Path] = {}
    for item in items:
        if item.teacher and found.setdefault(item.teacher, item.image) != item.image:
            raise InputError(
                f"{item.teacher}: of {found[item.teacher]} or of {item.image}? Rename them"
            )


def _teacher(folder: Path, image: Path, taxonomy: Taxonomy) -> Path | None:
    """The teacher's map of a picture, if the classes to learn are the teacher's."""
    path = folder / f"{image.stem}.png"
    return path if taxonomy.palette.name == CITYSCAPES.name and path.is_file() else None
