"""Files of a `Dataset` → arrays at the working size, as the original resizes them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
from sempic.jobs import read, read_ids, read_picture
from sempic.networks.unet import UNetConfig
from sempic.scene import Image, LabelMap
from sempic.training.data.readers import (
    Dataset,
    Entry,
    open_dataset,
    open_picture,
    read_map,
)
from sempic.training.flags import PaperOptions

ASPECT = {"cityscapes": 2.0, "camvid": 4 / 3}
"""Width of a training picture by its height; the other datasets are cropped to squares."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingScene:
    """What a network learns from."""

    name: str
    image: Image
    """uint8 (H, W, 3)."""
    labels: LabelMap
    """uint8 (H, W); num_classes of its dataset is void."""
    edges: LabelMap | None
    """uint8 (H, W) in {0, 1}: where two instances meet; None if the dataset has no instances."""
    coarse: Image
    """uint8 (h, w, 3), as the receiver decodes it."""
    payload: bytes | None = None
    """What `coarse` was decoded from (`sempic.coarse.decode`), if we coded it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneFolder:
    """The scenes of a dataset, a sequence that loads them one at a time.

    Indexing raises InputError naming the file that cannot be used.
    """

    dataset: Dataset
    image_size: int
    """Short side of the pictures."""
    coarse_factor: int = 4
    quality: int | None = 35
    """Of the coarse picture, as `bpgenc -q` counts; None leaves it as it was scaled."""
    chroma: str = "420"
    """Of the coarse picture, "420" or "444"; bpgenc's default is the former."""

    def __len__(self) -> int:
        return len(self.dataset.entries)

    def __getitem__(self, index: int) -> TrainingScene:
        entry = self.dataset.entries[index]
        image = PIL.Image.fromarray(read_picture(entry.image))
        small = resize_picture(image, self.image_size)
        pixels = np.asarray(small)
        if entry.predicted is None:
            labels = self._human(entry, image.size)
        else:
            labels = _predicted(entry.predicted, self.dataset)
        edges = self._edges(entry, image.size, small.size)
        coarse, payload = self._coarse(entry, pixels)
        return TrainingScene(
            name=entry.name,
            image=pixels,
            labels=pictures.resized(labels, small.size, "NEAREST"),
            edges=edges,
            coarse=coarse,
            payload=payload,
        )

    def human_labels(self, index: int) -> LabelMap:
        """The scene's human label map, uint8 (H, W), even where predicted ones are in use."""
        entry = self.dataset.entries[index]
        height, width = read_picture(entry.image).shape[:2]
        last = working_size((width, height), self.image_size)[-1]
        return pictures.resized(self._human(entry, (width, height)), last, "NEAREST")

    def _human(self, entry: Entry, size: tuple[int, int]) -> LabelMap:
        return self.dataset.ids[read_map(entry.labels, entry.image, size[::-1])]

    def _edges(
        self, entry: Entry, size: tuple[int, int], small: tuple[int, int]
    ) -> LabelMap | None:
        if entry.instances is None:
            return None
        map_ = open_picture(entry.instances)
        if map_.size != size:
            raise InputError(f"{entry.instances} has another size than {entry.image}")
        # Ids beyond 255 stay apart here; the original squeezes them into 8 bits first.
        ids = PIL.Image.fromarray(np.asarray(map_).astype(np.int32)).resize(
            small, Resampling.NEAREST
        )
        return instance_edges(np.asarray(ids))

    def _coarse(self, entry: Entry, image: Image) -> tuple[Image, bytes | None]:
        if entry.coarse is None:
            small = coarse_codec.downscale(image, self.coarse_factor)
            if self.quality is None:
                return small, None
            payload = coarse_codec.encode(small, quality=self.quality, chroma=self.chroma)
            return coarse_codec.to_rgb(coarse_codec.decode(payload)), payload
        if entry.coarse.suffix.lower() == ".bpg":
            with naming(entry.coarse, InputError):
                return coarse_codec.to_rgb(bpg.decode(read(entry.coarse))), None
        return read_picture(entry.coarse), None


# ── of the paper's network ───────────────────────────────────────────────────────────────────


def geometry(options: PaperOptions, unet: UNetConfig) -> tuple[int, tuple[int, int]]:
    """Coarse factor and the (height, width) of a training crop. Raises ModelError."""
    small = options.small_size or unet.image_size // 4
    if small < 1 or unet.image_size % small:
        raise ModelError(f"small_size {small} does not divide image_size {unet.image_size}")
    factor = unet.image_size // small
    grid, short = math.lcm(unet.size_multiple, factor), options.crop_size or unet.image_size
    if not grid <= short <= unet.image_size:
        name = "crop_size" if options.crop_size else "image_size"
        raise ModelError(f"{name} {short} is not within {grid} (the grid) … {unet.image_size}")
    height = short // grid * grid
    width = int(short * ASPECT.get(options.dataset_mode, 1.0)) // grid * grid
    return factor, (height, width)


def open_scenes(options: PaperOptions, unet: UNetConfig, split: str) -> SceneFolder:
    """The dataset of a run, checked against the network. Raises InputError or ModelError."""
    factor, _ = geometry(options, unet)
    dataset = open_dataset(
        options.dataset_mode,
        Path(options.data_dir),
        split,
        num_classes=unet.num_classes,
        generated_semantic=Path(options.generated_semantic) if options.generated_semantic else None,
        coarse_path=Path(options.coarse_path) if options.coarse_path else None,
        image_path=Path(options.image_path) if options.image_path else None,
    )
    if unet.instance_edges:
        lone = [e.image for e in dataset.entries if e.instances is None]
        if lone:
            raise InputError(
                f"no_instance is False, but {lone[0]} has no instance map: give --no_instance True"
            )
    return SceneFolder(
        dataset=dataset,
        image_size=unet.image_size,
        coarse_factor=factor,
        quality=options.quality if options.compression_type == "down+bpg" else None,
        chroma=options.chroma,
    )


# ── crops ────────────────────────────────────────────────────────────────────────────────────


class CropStream:
    """Crops without end, perhaps mirrored; position p is the same one in every run.

    A scene is decoded once, by one of a few threads, before its first crop is due; then it stays
    in memory.
    """

    def __init__(
        self, scenes: SceneFolder, size: tuple[int, int], *, flip: bool, seed: int, threads: int
    ) -> None:
        """`size` is (height, width) of a crop; multiples of the coarse factor."""
        self.scenes, self.size, self.flip, self.seed = scenes, size, flip, seed
        self._threads = ThreadPoolExecutor(max(1, threads))
        self._decoded: dict[int, Future[TrainingScene]] = {}

    def prepare(self, positions: Sequence[int]) -> None:
        """Begin to decode what these positions are cut from."""
        for index in {self._index(position) for position in positions} - self._decoded.keys():
            self._decoded[index] = self._threads.submit(self.scenes.__getitem__, index)

    def __getitem__(self, position: int) -> TrainingScene:
        self.prepare([position])
        scene = self._decoded[self._index(position)].result()
        rng = seeded(self.seed, "crop", position)
        return crop(scene, self.size, self.scenes.coarse_factor, rng, flip=self.flip)

    def _index(self, position: int) -> int:
        epoch, offset = divmod(position, len(self.scenes))
        return int(_order(self.seed, epoch, len(self.scenes))[offset])


_PURPOSES = {"order": 0, "crop": 1, "noise": 2, "time": 3, "dropout": 4, "drop": 5}


def seeded(seed: int, purpose: str, position: int) -> np.random.Generator:
    """What is drawn for one purpose at one place of a run, whatever was drawn before."""
    return np.random.default_rng((seed, _PURPOSES[purpose], position))


@functools.lru_cache(4)
def _order(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    return seeded(seed, "order", epoch).permutation(count)


def crop(
    scene: TrainingScene,
    size: tuple[int, int],
    factor: int,
    rng: np.random.Generator,
    *,
    flip: bool,
) -> TrainingScene:
    """A random crop of (height, width), aligned to the coarse grid, perhaps mirrored."""
    height, width = scene.labels.shape
    expected = (-(-height // factor), -(-width // factor))
    if scene.coarse.shape[:2] != expected:
        raise InputError(
            f"{scene.name}: its coarse picture is {scene.coarse.shape[1]}×{scene.coarse.shape[0]}, "
            f"expected {expected[1]}×{expected[0]}"
        )
    if height < size[0] or width < size[1]:
        raise InputError(
            f"{scene.name} is {width}×{height}, smaller than the crop of {size[1]}×{size[0]}"
        )
    top = int(rng.integers((height - size[0]) // factor + 1)) * factor
    left = int(rng.integers((width - size[1]) // factor + 1)) * factor
    step = -1 if flip and rng.random() < 0.5 else 1

    def cut(array: npt.NDArray[np.uint8], scale: int = 1) -> npt.NDArray[np.uint8]:
        rows = slice(top // scale, (top + size[0]) // scale)
        columns = slice(left // scale, (left + size[1]) // scale)
        return np.ascontiguousarray(array[rows, columns][:, ::step])

    return TrainingScene(
        name=scene.name,
        image=cut(scene.image),
        labels=cut(scene.labels),
        edges=None if scene.edges is None else cut(scene.edges),
        coarse=cut(scene.coarse, factor),
    )


def working_size(size: tuple[int, int], short_side: int) -> list[tuple[int, int]]:
    """(width, height) after each step of `resize_picture`, the result's last."""
    sizes = []
    while min(size) >= 2 * short_side:
        size = (size[0] // 2, size[1] // 2)
        sizes.append(size)
    scale = short_side / min(size)
    return [*sizes, (round(size[0] * scale), round(size[1] * scale))]


def resize_picture(image: PIL.Image.Image, short_side: int) -> PIL.Image.Image:
    """Halved by BOX while twice too large, then BICUBIC to the short side, aspect kept."""
    *halves, last = working_size(image.size, short_side)
    for size in halves:
        image = image.resize(size, Resampling.BOX)
    return image.resize(last, Resampling.BICUBIC)


def instance_edges(ids: npt.NDArray[np.generic]) -> LabelMap:
    """1 where a pixel's id differs from one of its four neighbours', uint8 (H, W)."""
    edges = np.zeros(ids.shape, np.uint8)
    across, down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return edges


def _predicted(path: Path, dataset: Dataset) -> LabelMap:
    """A predicted map: ids as they are, or official colours looked up."""
    map_ = open_picture(path)
    if map_.mode != "RGB":
        return np.minimum(read_ids(path), min(dataset.num_classes, 255)).astype(np.uint8)
    if dataset.palette is None:
        raise InputError(f"{path}: a colour picture, but this dataset has no official colours")
    with naming(path):
        ids = dataset.palette.unpaint(np.asarray(map_.convert("RGB")))
    return np.minimum(ids, dataset.num_classes).astype(np.uint8)
