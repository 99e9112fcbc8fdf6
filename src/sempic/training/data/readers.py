"""Datasets in known layouts → the files of each picture, and what they hold.

A reader takes a folder and a split and returns a `Dataset`. `LAYOUTS` maps the names of
`--dataset_mode` to readers, and to the folders by which `sempic train` recognises a layout. A file
without its partner is an `InputError`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image

from sempic import jobs, pictures
from sempic.errors import InputError, naming
from sempic.evaluation.folders import by_name, find_pictures, named
from sempic.palette import CAMVID, CITYSCAPES, CITYSCAPES_FULL, INDICES, Palette, translate
from sempic.scene import Image, LabelMap
from sempic.training.data.taxonomy import Taxonomy

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAPS = (".png", ".bmp", ".tif", ".tiff")
COARSE = (*PICTURES, ".bpg")
ENDINGS = ("", "_color", "_gtFine_color", "_trainIds", "_gtFine_trainIds", "_gtFine_labelTrainIds")
"""Endings of predicted maps after the picture's name, in order of preference."""
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
    """Map by a teacher, ids of Cityscapes at any size."""
    coarse: Path | None = None
    """A coarse picture that replaces ours."""
    palette: Palette = INDICES
    """Palette of `labels`, after `ids`; INDICES if the layout has no official classes."""
    ids: tuple[int, ...] = ()
    """The id of each of the 256 values in `labels`; without labels empty."""
    hidden: tuple[str, ...] = ()
    """Classes that were not labelled (`taxonomy.UNLABELLED`)."""

    @property
    def read(self) -> tuple[Path | None, ...]:
        """The files that `opened` reads."""
        return self.image, self.labels, self.teacher

    def opened(self, taxonomy: Taxonomy) -> tuple[Image, LabelMap | None]:
        """The picture, uint8 (H, W, 3), and its known map (`taxonomy`), or None without any map.
        Raises InputError."""
        image, human = self.labelled()
        teacher = None
        if self.teacher is not None and taxonomy.palette.name == CITYSCAPES.name:
            size = image.shape[1], image.shape[0]
            teacher = pictures.resized(jobs.read_ids(self.teacher), size, "NEAREST")
        if human is None and teacher is None:
            return image, None
        return image, taxonomy.known(human, self.palette, teacher, self.hidden)

    def labelled(self) -> tuple[Image, LabelMap | None]:
        """The picture, uint8 (H, W, 3), and its human map if it has one, uint8 (H, W), ids of
        `palette`. Raises InputError."""
        image = jobs.read_picture(self.image)
        if self.labels is None:
            return image, None
        values = jobs.read_ids(self.labels)
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
    """The files of a dataset on disk."""

    read: Callable[[Path, str, int | None], Dataset]
    """(folder, split, num_classes or None for the dataset's own) → Dataset."""
    folders: tuple[str, str]
    """Folders of a split's pictures and of its maps, by which the layout is recognised. {split}
    stands for train or val, {long} for training or validation."""

    def splits(self, folder: Path) -> list[str]:
        """The splits that have pictures; none if no split has both folders."""
        if not any(all(_below(folder, f, split).is_dir() for f in self.folders) for split in _LONG):
            return []
        return [split for split in _LONG if _below(folder, self.folders[0], split).is_dir()]


def open_dataset(
    mode: str,
    folder: Path,
    split: str,
    *,
    num_classes: int | None = None,
    generated_semantic: Path | None = None,
    coarse_path: Path | None = None,
    image_path: Path | None = None,
) -> Dataset:
    """The split (`train`, `val`) of the dataset at `folder`, read as `mode` (see `LAYOUTS`).

    Args:
        generated_semantic: folder of predicted maps that replace the human ones: colour pictures
            in the dataset's official colours, or label maps. A map has its picture's name, with or
            without the dataset's ending, and one of `ENDINGS`.
        coarse_path: folder of coarse pictures that replace ours; names as above, without `ENDINGS`.
        image_path: for cityscapes, folder that replaces leftImg8bit/SPLIT; it may have only some
            of the pictures.

    Raises InputError: an unknown mode, a missing folder, or a file without its partner.
    """
    if mode not in LAYOUTS:
        raise InputError(f"dataset mode {mode!r} is none of {', '.join(sorted(LAYOUTS))}")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    if image_path is None:
        dataset = LAYOUTS[mode].read(folder, split, num_classes)
    elif mode == "cityscapes":
        dataset = cityscapes(folder, split, num_classes, image_path)
    else:
        raise InputError(f"image_path is for cityscapes, not for {mode}")
    items = dataset.items
    if generated_semantic is not None:
        found = _twins(items, generated_semantic, MAPS, "predicted label map", ENDINGS)
        items = tuple(replace(i, predicted=p) for i, p in zip(items, found, strict=True))
    if coarse_path is not None:
        found = _twins(items, coarse_path, COARSE, "coarse picture")
        items = tuple(replace(i, coarse=p) for i, p in zip(items, found, strict=True))
    return replace(dataset, items=items)


# ── the datasets ─────────────────────────────────────────────────────────────────────────────


def cityscapes(
    folder: Path, split: str, num_classes: int | None, image_path: Path | None = None
) -> Dataset:
    """Cityscapes in its official layout: leftImg8bit/SPLIT/CITY, gtFine/SPLIT/CITY.

    19 classes are the trainIds: from `*_labelTrainIds.png` or `*_trainIds.png` if every picture has
    one, else derived from `*_labelIds.png`. 34 classes are the labelIds; 35 add the license plate
    (255 in the files) as id 34.
    """
    classes = num_classes or 19
    if classes not in (19, 34, 35):
        raise InputError(
            f"Cityscapes has 19 classes (trainIds) or 34 or 35 (labelIds), not {classes}"
        )

    def name(path: Path) -> str:
        if not path.stem.endswith("_leftImg8bit"):
            raise InputError(f"{path}: its name does not end in _leftImg8bit{path.suffix}")
        return path.stem.removesuffix("_leftImg8bit")

    left = image_path or folder / "leftImg8bit" / split
    images = named(find_pictures(left, PICTURES), name)
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


def plain(folder: Path, split: str, num_classes: int | None) -> Dataset:
    """Any pictures: images/SPLIT, labels/SPLIT and, optionally, instances/SPLIT; or the same
    folders without SPLIT if `split` is train or val and images has neither.

    Label maps hold ids; ids from num_classes (default 256) on are void.
    """
    classes = num_classes or 256
    if not 1 <= classes <= 256:
        raise InputError(f"a label map holds 1 to 256 classes, not {classes}")

    below = split not in _LONG or any((folder / "images" / known).is_dir() for known in _LONG)

    def part(name: str) -> Path:
        return folder / name / split if below else folder / name

    return _dataset(
        by_name(part("images"), PICTURES),
        by_name(part("labels"), MAPS),
        _perhaps(part("instances")),
        classes=classes,
        ids=_table(classes),
    )


def _same_names(
    dataset: str,
    images: str,
    labels: str,
    *,
    classes: tuple[int, ...],
    first: int = 0,
    instances: str = "",
    palette: Palette = INDICES,
) -> Layout:
    """A layout of folders in which a picture and its maps have the same name.

    Args:
        dataset: its name in errors.
        images, labels, instances: patterns of folders, as in `Layout.folders`.
        classes: allowed values of num_classes, the default first. The default is also the number
            of ids before void.
        first: value of the first class in the files.
    """

    def read(folder: Path, split: str, num_classes: int | None) -> Dataset:
        if num_classes is not None and num_classes not in classes:
            known = " or ".join(map(str, classes))
            raise InputError(f"{dataset} has {known} classes here, not {num_classes}")
        return _dataset(
            by_name(_below(folder, images, split), PICTURES),
            by_name(_below(folder, labels, split), MAPS),
            _perhaps(_below(folder, instances, split)) if instances else {},
            classes=num_classes or classes[0],
            ids=_table(classes[0], first),
            palette=palette,
        )

    return Layout(read=read, folders=(images, labels))


LAYOUTS: dict[str, Layout] = {
    "cityscapes": Layout(read=cityscapes, folders=("leftImg8bit/{split}", "gtFine/{split}")),
    # Scene-parsing challenge; 0 in the files is void. With 151 classes void is a condition channel,
    # as in the original.
    "ade20k": _same_names(
        "ADE20K", "images/{long}", "annotations/{long}", classes=(150, 151), first=1
    ),
    # CelebAMask-HQ with merged part masks.
    "celeba": _same_names("CelebA-Mask", "{split}/images", "{split}/labels", classes=(19,)),
    # COCO-Stuff in SPADE's layout.
    "coco": _same_names(
        "COCO-Stuff", "{split}_img", "{split}_label", classes=(182, 183), instances="{split}_inst"
    ),
    # CamVid of the SegNet tutorial.
    "camvid": _same_names("CamVid", "{split}", "{split}annot", classes=(11,), palette=CAMVID),
    "folder": Layout(read=plain, folders=("images/{split}", "labels/{split}")),
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
    palette: Palette = INDICES,
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
    table = tuple(ids.tolist())
    items = tuple(
        Item(
            name=name,
            image=image,
            labels=labels[name],
            instances=instances.get(name),
            palette=palette,
            ids=table,
        )
        for name, image in images.items()
    )
    return Dataset(items=items, num_classes=classes)


def _below(folder: Path, pattern: str, split: str) -> Path:
    """A folder of a split (`Layout.folders`)."""
    return folder / pattern.format(split=split, long=_LONG.get(split, split))


def _perhaps(folder: Path) -> dict[str, Path]:
    """Instance maps by name; none without the folder."""
    return by_name(folder, MAPS) if folder.is_dir() else {}


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
        names = [name + ending for ending in endings for name in (stem, short)]
        twin = next((by_stem[name] for name in names if name in by_stem), None)
        if twin is None:
            raise InputError(f"{item.image}: its {what} {folder / stem}.png is missing")
        found.append(twin)
    return found


def open_picture(path: Path) -> PIL.Image.Image:
    """A picture or map, decoded. Raises InputError naming it."""
    with naming(path):
        return pictures.decode(jobs.read(path))


def _first_of(paths: list[Path]) -> str:
    return f"{paths[0]}" + (f" (and {len(paths) - 1} more)" if len(paths) > 1 else "")


def _table(classes: int, first: int = 0) -> npt.NDArray[np.uint8]:
    """`Item.ids` of files in which classes have the values from `first` on."""
    table = np.full(256, min(classes, 255), np.uint8)
    table[first : first + classes] = np.arange(classes)
    return table
