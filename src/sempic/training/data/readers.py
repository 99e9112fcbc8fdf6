"""Datasets in known layouts → the files of each picture, and what they hold.

`LAYOUTS` maps the names of `--dataset_mode` to layouts, which `sempic train` recognises by their
folders. A file without its partner is an `InputError`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sempic import pictures, places
from sempic.errors import InputError
from sempic.evaluation.folders import ENDINGS, by_name, find_pictures, named, twin
from sempic.palette import CAMVID, CITYSCAPES, CITYSCAPES_FULL, INDICES, Palette, translate
from sempic.scene import Image, LabelMap
from sempic.training.data.taxonomy import Taxonomy

MAPS = (".png", ".bmp", ".tif", ".tiff")
COARSE = (*pictures.SUFFIXES, ".bpg")
_LONG = {"train": "training", "val": "validation"}
"""ADE20K's names of the splits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """The files of one picture, and the meaning of its maps."""

    name: str
    """Its path in the folder of pictures, without suffix; of a `Source`, after the source's name
    and a slash."""
    image: Path
    labels: Path | None = None
    """Map by humans."""
    instances: Path | None = None
    predicted: Path | None = None
    """A predicted label map that replaces `labels`."""
    teacher: Path | None = None
    """Map by a teacher, ids of Cityscapes at any size; None if other classes are learned."""
    coarse: Path | None = None
    """A coarse picture that replaces ours."""
    palette: Palette = INDICES
    """Palette of `labels`, after `ids`; INDICES if the layout has no official classes."""
    ids: tuple[int, ...] = ()
    """The id of each of the 256 values in `labels`; without labels empty."""
    hidden: tuple[str, ...] = ()
    """Classes that were not labelled (`taxonomy.UNLABELLED`)."""

    @property
    def has_map(self) -> bool:
        """Whether it has a known map (`taxonomy`)."""
        return self.labels is not None or self.teacher is not None

    @property
    def files(self) -> tuple[Path | None, ...]:
        """The files that `opened` reads."""
        return self.image, self.labels, self.teacher

    def opened(self, taxonomy: Taxonomy) -> tuple[Image, LabelMap | None]:
        """The picture, uint8 (H, W, 3), and its known map (`taxonomy`), or None without any map.
        Raises InputError."""
        image, human = self.labelled()
        teacher = None
        if self.teacher is not None:
            size = image.shape[1], image.shape[0]
            teacher = pictures.resized(places.read_ids(self.teacher), size, "NEAREST")
        if not self.has_map:
            return image, None
        return image, taxonomy.known(human, self.palette, teacher, self.hidden)

    def labelled(self) -> tuple[Image, LabelMap | None]:
        """The picture, uint8 (H, W, 3), and its human map if it has one, uint8 (H, W), ids of
        `palette`. Raises InputError."""
        image = places.read_picture(self.image)
        if self.labels is None:
            return image, None
        values = places.read_ids(self.labels)
        (rows, columns), (height, width) = values.shape, image.shape[:2]
        if (rows, columns) != (height, width):
            raise InputError(
                f"{self.labels} is {columns}×{rows}, but {self.image} is {width}×{height}"
            )
        return image, np.array(self.ids, np.uint8)[values]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Dataset:
    """The pictures of a split, all with maps by humans."""

    items: tuple[Item, ...]
    num_classes: int
    """Ids run from 0 to num_classes - 1; num_classes itself is void."""

    @property
    def palette(self) -> Palette:
        return self.items[0].palette


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The files of a dataset on disk. In names of folders, {split} stands for train or val, {long}
    for training or validation."""

    images: str
    labels: str
    """Folders of a split's pictures and maps, by which the layout is recognised."""
    instances: str = ""
    classes: tuple[int, ...] = ()
    """Allowed values of num_classes; the first is the default, and the number of ids before void.
    (): 1 to 256, default 256."""
    first: int = 0
    """Value of the first class in the files."""
    palette: Palette = INDICES
    reader: Callable[[Path, str, int, Path | None], Dataset] | None = None
    """(folder, split, num_classes, image_path) → Dataset; None if a picture and its maps have the
    same name."""

    def splits(self, folder: Path) -> list[str]:
        """The splits that have pictures; none if no split has both folders."""
        both = (self.images, self.labels)
        if not any(all(_below(folder, f, split).is_dir() for f in both) for split in _LONG):
            return []
        return [split for split in _LONG if _below(folder, self.images, split).is_dir()]

    def read(
        self, folder: Path, split: str, num_classes: int | None, image_path: Path | None = None
    ) -> Dataset:
        """A split, with num_classes or the dataset's own. Raises InputError."""
        known = self.classes or range(256, 0, -1)
        classes = num_classes or known[0]
        if classes not in known:
            own = " or ".join([f"{known[0]} classes", *map(str, known[1:])])
            which = own if self.classes else "1 to 256 classes"
            raise InputError(f"{folder}: its layout has {which}, not {classes} (--num_classes)")
        if self.reader is not None:
            return self.reader(folder, split, classes, image_path)
        undivided = split in _LONG and not any(
            _below(folder, self.images, other).is_dir() for other in _LONG
        )

        def part(pattern: str) -> Path:
            return _below(folder, pattern.removesuffix("/{split}" * undivided), split)

        instances = part(self.instances)
        return _dataset(
            by_name(part(self.images)),
            by_name(part(self.labels), MAPS),
            by_name(instances, MAPS) if self.instances and instances.is_dir() else {},
            classes=classes,
            ids=_table(self.classes[0] if self.classes else classes, self.first),
            palette=self.palette,
        )


def open_dataset(
    mode: str,
    folder: Path,
    split: str,
    *,
    num_classes: int | None = None,
    generated_semantic: Path | None = None,
    coarse_path: Path | None = None,
    image_path: Path | None = None,
    limit: int = 0,
) -> Dataset:
    """The split (`train`, `val`) of the dataset at `folder`, read as `mode` (see `LAYOUTS`).

    Args:
        generated_semantic: folder of predicted maps that replace the human ones: colour pictures
            in the dataset's official colours, or label maps. A map has its picture's name, with or
            without the dataset's ending, and one of `ENDINGS`.
        coarse_path: folder of coarse pictures that replace ours; names as above, without `ENDINGS`.
        image_path: for cityscapes, folder that replaces leftImg8bit/SPLIT; it may have only some
            of the pictures.
        limit: number of pictures, from the first; 0 for all.

    Raises InputError: an unknown mode, a missing folder, or a file without its partner.
    """
    if mode not in LAYOUTS:
        raise InputError(f"dataset mode {mode!r} is none of {', '.join(sorted(LAYOUTS))}")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    if image_path is not None and mode != "cityscapes":
        raise InputError(f"image_path is for cityscapes, not for {mode}")
    dataset = LAYOUTS[mode].read(folder, split, num_classes, image_path)
    items = dataset.items[: limit or None]
    if generated_semantic is not None:
        found = _twins(items, generated_semantic, MAPS, "predicted label map", ENDINGS)
        items = tuple(replace(i, predicted=p) for i, p in zip(items, found, strict=True))
    if coarse_path is not None:
        found = _twins(items, coarse_path, COARSE, "coarse picture")
        items = tuple(replace(i, coarse=p) for i, p in zip(items, found, strict=True))
    return replace(dataset, items=items)


# ── the datasets ─────────────────────────────────────────────────────────────────────────────


def _cityscapes(folder: Path, split: str, classes: int, image_path: Path | None) -> Dataset:
    """Cityscapes in its official layout: leftImg8bit/SPLIT/CITY, gtFine/SPLIT/CITY.

    19 classes are the trainIds: from `*_labelTrainIds.png` or `*_trainIds.png` if every picture has
    one, else derived from `*_labelIds.png`. 34 classes are the labelIds; 35 add the license plate
    (255 in the files) as id 34.
    """

    def name(path: Path) -> str:
        if not path.stem.endswith("_leftImg8bit"):
            raise InputError(f"{path}: its name does not end in _leftImg8bit{path.suffix}")
        return path.stem.removesuffix("_leftImg8bit")

    left = image_path or folder / "leftImg8bit" / split
    images = named(find_pictures(left), name)
    truth = find_pictures(folder / "gtFine" / split, MAPS)

    def ending_in(*endings: str) -> dict[str, Path]:
        found = {}
        for path in truth:
            ending = next((e for e in endings if path.stem.endswith(e)), None)
            name = path.stem.removesuffix(ending or "")
            # image_path may lack pictures of the split: their maps are ignored.
            if ending and (image_path is None or name in images):
                found[name] = path
        return found

    label_ids, instances = ending_in("_gtFine_labelIds"), ending_in("_gtFine_instanceIds")
    train_ids = ending_in("_gtFine_labelTrainIds", "_gtFine_trainIds", "_trainIds")
    labels, ids = label_ids, _table(classes)
    if classes == 19 and train_ids.keys() >= images.keys():
        labels = train_ids
    elif classes == 19:
        values = np.arange(256, dtype=np.uint8)
        ids = translate(values, CITYSCAPES_FULL.id, CITYSCAPES.id, near=False)
    elif classes == 35:
        ids[255] = 34
    return _dataset(
        images,
        labels,
        instances,
        ending="_gtFine_labelIds.png",
        classes=classes,
        ids=ids,
        palette=CITYSCAPES if classes == 19 else CITYSCAPES_FULL,
    )


LAYOUTS = {
    "cityscapes": Layout(
        images="leftImg8bit/{split}",
        labels="gtFine/{split}",
        classes=(19, 34, 35),
        reader=_cityscapes,
    ),
    # Scene-parsing challenge; 0 in the files is void. With 151 classes void is a condition channel,
    # as in the original.
    "ade20k": Layout(
        images="images/{long}",
        labels="annotations/{long}",
        classes=(150, 151),
        first=1,
    ),
    # CelebAMask-HQ with merged part masks.
    "celeba": Layout(images="{split}/images", labels="{split}/labels", classes=(19,)),
    # COCO-Stuff in SPADE's layout.
    "coco": Layout(
        images="{split}_img",
        labels="{split}_label",
        instances="{split}_inst",
        classes=(182, 183),
    ),
    # CamVid of the SegNet tutorial.
    "camvid": Layout(
        images="{split}",
        labels="{split}annot",
        classes=(11,),
        palette=CAMVID,
    ),
    # Any pictures; without {split} if images has neither train nor val. Higher ids are void.
    "folder": Layout(
        images="images/{split}",
        labels="labels/{split}",
        instances="instances/{split}",
    ),
}
"""In the order in which a folder's layout is recognised."""


# ── files and partners ───────────────────────────────────────────────────────────────────────


def _dataset(
    images: dict[str, Path],
    labels: dict[str, Path],
    instances: dict[str, Path],
    *,
    ending: str = ".png",
    classes: int,
    ids: npt.NDArray[np.uint8],
    palette: Palette,
) -> Dataset:
    """Pictures and maps joined by their names. Raises InputError for a picture or map without a
    partner; `ending` completes the name of a missing map in the message."""
    if lone := [labels[name] for name in labels if name not in images]:
        raise InputError(f"{_first_of(lone)}: no picture belongs to it")
    if missing := [name for name in images if name not in labels]:
        raise InputError(
            f"{_first_of([images[name] for name in missing])}: its label map "
            f"{missing[0]}{ending} is missing"
        )
    item = functools.partial(Item, palette=palette, ids=tuple(ids.tolist()))
    items = (
        item(name=name, image=image, labels=labels[name], instances=instances.get(name))
        for name, image in images.items()
    )
    return Dataset(items=tuple(items), num_classes=classes)


def _below(folder: Path, pattern: str, split: str) -> Path:
    """A folder of a split (`Layout`)."""
    return folder / pattern.format(split=split, long=_LONG.get(split, split))


def _twins(
    items: tuple[Item, ...],
    folder: Path,
    suffixes: Collection[str],
    what: str,
    endings: Sequence[str] = ("",),
) -> list[Path]:
    """For each item, the file of `folder` with its picture's name, plus one of `endings`."""
    by_stem = named(find_pictures(folder, suffixes), lambda path: path.stem)
    found = []
    for item in items:
        stem, short = item.image.stem, item.name.rsplit("/", 1)[-1]
        path = twin(by_stem, (stem, short), endings)
        if path is None:
            raise InputError(f"{item.image}: its {what} {folder / stem}.png is missing")
        found.append(path)
    return found


def _first_of(paths: list[Path]) -> str:
    return f"{paths[0]}" + (f" (and {len(paths) - 1} more)" if len(paths) > 1 else "")


def _table(classes: int, first: int = 0) -> npt.NDArray[np.uint8]:
    """`Item.ids` of files in which classes have the values from `first` on."""
    table = np.full(256, min(classes, 255), np.uint8)
    table[first : first + classes] = np.arange(classes)
    return table
