"""Files of a `Source` → arrays at the working size, as the original resizes them."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from sempic import coarse as coarse_codec
from sempic import formats, pictures
from sempic.coarse import bpg
from sempic.errors import BitstreamError, InputError, LabelMapError
from sempic.palette import INDICES
from sempic.scene import Image as Picture
from sempic.scene import LabelMap
from sempic.training.data.readers import Entry, Source

Box = Image.Resampling.BOX
Bicubic = Image.Resampling.BICUBIC
Nearest = Image.Resampling.NEAREST


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingScene:
    """What a network learns from."""

    name: str
    image: Picture
    """uint8 (H, W, 3)."""
    labels: LabelMap
    """uint8 (H, W); the source's num_classes is void."""
    edges: LabelMap | None
    """uint8 (H, W) in {0, 1}: where two instances meet; None if the dataset has no instances."""
    coarse: Picture
    """uint8 (h, w, 3), as the receiver decodes it."""
    payload: bytes | None = None
    """What `coarse` was decoded from (`sempic.coarse.decode`), if we coded it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneFolder:
    """The scenes of a source, loaded one at a time: a sequence that a DataLoader takes as it is.

    Indexing raises InputError naming the file that cannot be used.
    """

    source: Source
    image_size: int
    """Short side of the pictures."""
    coarse_factor: int = 4
    quality: int | None = 35
    """Of the coarse picture, as `bpgenc -q` counts; None leaves it as it was scaled."""
    chroma: str = "420"
    """Of the coarse picture, "420" or "444"; bpgenc's default is the former."""
    cache: Path | None = None
    """Folder for coarse pictures already coded, by content; shared by any number of processes."""

    def __len__(self) -> int:
        return len(self.source.entries)

    def __getitem__(self, index: int) -> TrainingScene:
        entry = self.source.entries[index]
        image = _open(entry.image).convert("RGB")
        small = resize_picture(image, self.image_size)
        pixels = np.asarray(small)
        labels = self._labels(entry, image.size)
        edges = self._edges(entry, image.size, small.size)
        coarse, payload = self._coarse(entry, pixels)
        return TrainingScene(
            name=entry.name,
            image=pixels,
            labels=np.asarray(Image.fromarray(labels).resize(small.size, Nearest)),
            edges=edges,
            coarse=coarse,
            payload=payload,
        )

    def human_labels(self, index: int) -> LabelMap:
        """The scene's human label map, uint8 (H, W), even where predicted ones are in use."""
        entry = self.source.entries[index]
        size = _size(entry.image)
        labels = Image.fromarray(self._human(entry, size))
        return np.asarray(labels.resize(working_size(size, self.image_size)[-1], Nearest))

    def _labels(self, entry: Entry, size: tuple[int, int]) -> LabelMap:
        if entry.predicted is not None:
            return _predicted(entry.predicted, self.source)
        return self._human(entry, size)

    def _human(self, entry: Entry, size: tuple[int, int]) -> LabelMap:
        ids = _ids(entry.labels)
        if ids.shape != size[::-1]:
            raise InputError(
                f"{entry.labels} is {ids.shape[1]}×{ids.shape[0]}, but {entry.image} is "
                f"{size[0]}×{size[1]}"
            )
        return self.source.ids[ids]

    def _edges(
        self, entry: Entry, size: tuple[int, int], small: tuple[int, int]
    ) -> LabelMap | None:
        if entry.instances is None:
            return None
        map_ = _open(entry.instances)
        if map_.size != size:
            raise InputError(f"{entry.instances} has another size than {entry.image}")
        # Ids beyond 255 stay apart here; the original squeezes them into 8 bits first.
        ids = Image.fromarray(np.asarray(map_).astype(np.int32)).resize(small, Nearest)
        return instance_edges(np.asarray(ids))

    def _coarse(self, entry: Entry, image: Picture) -> tuple[Picture, bytes | None]:
        if entry.coarse is None and self.quality is None:
            return coarse_codec.downscale(image, self.coarse_factor), None
        if entry.coarse is None:
            return coarse_picture(
                image, self.coarse_factor, self.quality or 0, self.chroma, self.cache
            )
        if entry.coarse.suffix.lower() == ".bpg":
            try:
                return coarse_codec.to_rgb(bpg.decode(entry.coarse.read_bytes())), None
            except BitstreamError as error:
                raise InputError(f"{entry.coarse}: {error}") from error
        return np.asarray(_open(entry.coarse).convert("RGB")), None


def working_size(size: tuple[int, int], short_side: int) -> list[tuple[int, int]]:
    """(width, height) after each step of `resize_picture`, the result's last."""
    sizes = []
    while min(size) >= 2 * short_side:
        size = (size[0] // 2, size[1] // 2)
        sizes.append(size)
    scale = short_side / min(size)
    return [*sizes, (round(size[0] * scale), round(size[1] * scale))]


def resize_picture(image: Image.Image, short_side: int) -> Image.Image:
    """Halved by BOX while twice too large, then BICUBIC to the short side, aspect kept."""
    *halves, last = working_size(image.size, short_side)
    for size in halves:
        image = image.resize(size, Box)
    return image.resize(last, Bicubic)


def instance_edges(ids: npt.NDArray[np.generic]) -> LabelMap:
    """1 where a pixel's id differs from one of its four neighbours', uint8 (H, W)."""
    edges = np.zeros(ids.shape, np.uint8)
    across, down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return edges


def coarse_picture(
    image: Picture, factor: int, quality: int, chroma: str, cache: Path | None
) -> tuple[Picture, bytes]:
    """The coarse picture of `image` as a decoder gives it, and its file, which `cache` keeps."""
    small = coarse_codec.downscale(image, factor)
    if cache is None:
        payload = coarse_codec.encode(small, quality=quality, chroma=chroma)
        return coarse_codec.to_rgb(coarse_codec.decode(payload)), payload
    recipe = repr((small.shape, quality, chroma)).encode()
    key = hashlib.sha256(recipe + small.tobytes()).hexdigest()
    path = cache / key[:2] / key[2:]
    try:
        payload = path.read_bytes()
        return coarse_codec.to_rgb(coarse_codec.decode(payload)), payload
    except (OSError, BitstreamError):  # not there yet, or half a file of a full disk
        payload = coarse_codec.encode(small, quality=quality, chroma=chroma)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        part.write_bytes(payload)
        os.replace(part, path)
        return coarse_codec.to_rgb(coarse_codec.decode(payload)), payload


def _open(path: Path) -> Image.Image:
    try:
        image = Image.open(path, formats=formats.readable())
        image.load()
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    return image


def _size(path: Path) -> tuple[int, int]:
    """(width, height), from the header alone."""
    try:
        with Image.open(path, formats=formats.readable()) as image:
            return image.size
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _ids(path: Path) -> LabelMap:
    """The samples of an index map as they are stored, uint8 (H, W)."""
    try:
        return pictures.read_labels(path.read_bytes(), INDICES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except LabelMapError as error:
        raise InputError(f"{path}: {error}") from error


def _predicted(path: Path, source: Source) -> LabelMap:
    """A predicted map: ids as they are, or official colours looked up."""
    map_ = _open(path)
    if map_.mode != "RGB":
        return np.minimum(_ids(path), min(source.num_classes, 255)).astype(np.uint8)
    if source.palette is None:
        raise InputError(f"{path}: a colour picture, but this dataset has no official colours")
    try:
        ids = source.palette.unpaint(np.asarray(map_.convert("RGB")))
    except LabelMapError as error:
        raise InputError(f"{path}: {error}") from None
    return np.minimum(ids, source.num_classes).astype(np.uint8)
