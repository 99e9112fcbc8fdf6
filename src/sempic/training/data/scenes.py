"""Scenes of a `Dataset` for the paper's network, resized as in the original code."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL.Image import Resampling

from sempic import coarse as coarse_codec
from sempic import pictures
from sempic.coarse import bpg
from sempic.errors import InputError, ModelError, naming
from sempic.evaluation.measures.segmentation import checked
from sempic.networks.unet import UNetConfig
from sempic.palette import CITYSCAPES, CITYSCAPES_FULL, INDICES
from sempic.places import read, read_ids, read_picture
from sempic.scene import Image, LabelMap
from sempic.training.data.readers import Dataset, Item, open_dataset
from sempic.training.flags import PaperOptions

ASPECT = {"cityscapes": 2.0, "camvid": 4 / 3}
"""Width / height of a training crop; 1 for other datasets."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingScene:
    """A picture and the network's inputs for it."""

    name: str
    image: Image
    """uint8 (H, W, 3)."""
    labels: LabelMap
    """uint8 (H, W); num_classes of its dataset is void."""
    edges: LabelMap | None
    """uint8 (H, W) in {0, 1}: edges of instances; None if the dataset has no instances."""
    coarse: Image
    """uint8 (h, w, 3), as decoded by the receiver."""
    payload: bytes | None = None
    """The bytes of `coarse` (`sempic.coarse.decode`), if we coded it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneFolder:
    """A sequence of the scenes of a dataset; indexing loads one. Raises InputError with the name of
    an unusable file."""

    dataset: Dataset
    image_size: int
    """Short side of the pictures."""
    coarse_factor: int = 4
    quality: int | None = 35
    """QP of the coarse picture (`bpgenc -q`); None: the coarse picture is scaled but not coded."""
    chroma: str = "420"
    """Chroma of the coarse picture: "420" (bpgenc's default) or "444"."""

    def __len__(self) -> int:
        return len(self.dataset.items)

    def __getitem__(self, index: int) -> TrainingScene:
        item = self.dataset.items[index]
        if item.predicted is None:
            pixels, labels = _labelled(item)
        else:
            pixels = read_picture(item.image)
            labels = _predicted(item.predicted, self.dataset)
        image = PIL.Image.fromarray(pixels)
        small = resize_picture(image, self.image_size)
        coarse, payload = self._coarse(item, np.asarray(small))
        return TrainingScene(
            name=item.name,
            image=np.asarray(small),
            labels=pictures.resized(labels, small.size, "NEAREST"),
            edges=self._edges(item, image.size, small.size),
            coarse=coarse,
            payload=payload,
        )

    def human_labels(self, index: int, size: tuple[int, int]) -> LabelMap:
        """The human label map of a scene of size (H, W), even if the scene has a predicted one."""
        return pictures.resized(_labelled(self.dataset.items[index])[1], size[::-1], "NEAREST")

    def _edges(self, item: Item, size: tuple[int, int], small: tuple[int, int]) -> LabelMap | None:
        if item.instances is None:
            return None
        map_ = _decoded(item.instances)
        if map_.size != size:
            raise InputError(f"{item.instances} has another size than {item.image}")
        # We keep ids above 255 distinct; the original reduces ids to 8 bits.
        ids = PIL.Image.fromarray(np.asarray(map_).astype(np.int32))
        return instance_edges(np.asarray(ids.resize(small, Resampling.NEAREST)))

    def _coarse(self, item: Item, image: Image) -> tuple[Image, bytes | None]:
        if item.coarse is None:
            small = coarse_codec.downscale(image, self.coarse_factor)
            if self.quality is None:
                return small, None
            payload = coarse_codec.encode(small, quality=self.quality, chroma=self.chroma)
            return coarse_codec.to_rgb(coarse_codec.decode(payload)), payload
        if item.coarse.suffix.lower() == ".bpg":
            with naming(item.coarse, InputError):
                return coarse_codec.to_rgb(bpg.decode(read(item.coarse))), None
        return read_picture(item.coarse), None


def coarse_factor(options: PaperOptions, unet: UNetConfig) -> int:
    """Side of a picture by that of its coarse picture. Raises ModelError."""
    small = options.small_size or unet.image_size // 4
    if small < 1 or unet.image_size % small:
        raise ModelError(f"small_size {small} does not divide image_size {unet.image_size}")
    return unet.image_size // small


def crop_size(options: PaperOptions, unet: UNetConfig) -> tuple[int, int]:
    """(height, width) of a training crop. Raises ModelError."""
    factor = coarse_factor(options, unet)
    grid, short = math.lcm(unet.size_multiple, factor), options.crop_size or unet.image_size
    if not grid <= short <= unet.image_size:
        name = "crop_size" if options.crop_size else "image_size"
        raise ModelError(f"{name} {short} is not within {grid} (the grid) … {unet.image_size}")
    height = short // grid * grid
    width = int(short * ASPECT.get(options.dataset_mode, 1.0)) // grid * grid
    return height, width


def open_scenes(options: PaperOptions, unet: UNetConfig, split: str, limit: int = 0) -> SceneFolder:
    """The scenes of a run's dataset, or the first `limit` of them. Raises InputError or ModelError,
    also if the network needs instance maps that the dataset lacks."""
    factor = coarse_factor(options, unet)
    names = ("generated_semantic", "coarse_path", "image_path")
    given = {name: Path(path) for name in names if (path := getattr(options, name))}
    mode, folder, classes = options.dataset_mode, Path(options.data_dir), unet.num_classes
    dataset = open_dataset(mode, folder, split, num_classes=classes, limit=limit, **given)
    if unet.instance_edges:
        lone = [item.image for item in dataset.items if item.instances is None]
        if lone:
            raise InputError(
                f"no_instance is False, but {lone[0]} has no instance map: add it, or train with "
                "--no_instance True"
            )
    return SceneFolder(
        dataset=dataset,
        image_size=unet.image_size,
        coarse_factor=factor,
        quality=options.quality if options.compression_type == "down+bpg" else None,
        chroma=options.chroma,
    )


def resize_picture(image: PIL.Image.Image, short_side: int) -> PIL.Image.Image:
    """Halve by BOX while at least twice too large, then resize by BICUBIC to the short side."""
    while min(image.size) >= 2 * short_side:
        image = image.resize((image.width // 2, image.height // 2), Resampling.BOX)
    scale = short_side / min(image.size)
    return image.resize(
        (round(image.width * scale), round(image.height * scale)), Resampling.BICUBIC
    )


def instance_edges(ids: npt.NDArray[np.generic]) -> LabelMap:
    """uint8 (H, W): 1 at pixels whose id differs from one of their four neighbours'."""
    edges = np.zeros(ids.shape, np.uint8)
    across, down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return edges


def _decoded(path: Path) -> PIL.Image.Image:
    with naming(path):
        return pictures.decode(read(path))


def _labelled(item: Item) -> tuple[Image, LabelMap]:
    image, labels = item.labelled()
    assert labels is not None  # of a Dataset
    return image, labels


def _predicted(path: Path, dataset: Dataset) -> LabelMap:
    """A predicted map of ids, or of official colours."""
    map_, palette = _decoded(path), dataset.palette
    if map_.mode not in ("RGB", "RGBA"):
        ids = read_ids(path)
        if palette is CITYSCAPES:  # an id beyond void is a labelId
            with naming(path):
                checked(ids, palette)
        if palette is CITYSCAPES_FULL and path.stem.lower().endswith("trainids"):
            raise InputError(f"{path}: trainIds, but {dataset.num_classes} classes are labelIds")
        return np.minimum(ids, min(dataset.num_classes, 255)).astype(np.uint8)
    if palette is INDICES:
        raise InputError(f"{path}: a colour picture, but this dataset has no official colours")
    with naming(path):
        ids = palette.unpaint(np.asarray(map_.convert("RGB")))
    return np.minimum(ids, dataset.num_classes).astype(np.uint8)
