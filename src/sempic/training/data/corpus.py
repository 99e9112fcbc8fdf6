"""What a receiver learns from, made once by `sempic train corpus` and opened without a codec.

A corpus is a folder of tar shards, as WebDataset reads them, and `corpus.json`. A sample is one
rendition of a picture: `NAME.image.webp` (lossless), its label maps `NAME.map0.png` … (ids of the
corpus's classes, as they will be sent: what is known of the picture first, then a segmenter's,
simplified), and `NAME.coarse0.png` …, the coarse picture as a receiver decodes it, at several
factors and qualities.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from sempic.errors import JSON_FAULTS, InputError, refused
from sempic.scene import Image, LabelMap
from sempic.texture import Texture
from sempic.training.data import taxonomy
from sempic.training.data.taxonomy import Taxonomy

Measured = Mapping[int, tuple[int, int, bool]]
FORMAT = "sempic.corpus/1"
GRID = 16
"""Sides are multiples of this: pixels of every coarse factor, and their chroma, align."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One rendition of a picture."""

    source: str
    name: str
    judged: bool
    """It is for validation."""
    image: Image
    """uint8 (H, W, 3); H and W multiples of GRID."""
    coarse: tuple[Image, ...]
    """uint8 (H / 4, W / 4, 3) each, as the receiver decodes it."""
    maps: tuple[LabelMap, ...]
    """uint8 (H, W) each."""
    textures: tuple[Measured, ...] = ()
    """`texture.measure` of the picture with each map, and without."""

    def said(self, map_: int) -> Texture:
        """What a sender says of its texture beside one of the maps."""
        return said_of(self.textures[map_] if self.textures else {})


def said_of(measured: Measured, *, wholly: bool = False) -> Texture:
    """What a sender says of texture that was measured; wholly: of every class, weak or not."""
    return {n: (median, high) for n, (median, high, weak) in measured.items() if weak or wholly}


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """What `open_corpus` reads."""

    taxonomy: Taxonomy
    weights: dict[str, float]
    """Of the crops, by source."""
    samples: list[Sample]

    def part(self, *, judged: bool) -> list[Sample]:
        return [sample for sample in self.samples if sample.judged == judged]


def about(folder: Path) -> dict[str, Any]:
    """What a corpus says of itself. Raises InputError."""
    path = folder / "corpus.json"
    with refused(
        InputError, f"{path}: no corpus of `sempic train corpus`", *JSON_FAULTS, unfit=True
    ):
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if found.get("format") != FORMAT:
            raise InputError(f"{path}: format {found.get('format')!r}, expected {FORMAT!r}")
    return found


def open_corpus(folders: Sequence[Path], threads: int = 2) -> Corpus:
    """The samples of one or several corpora of the same classes, whole in memory.

    Raises InputError: no corpus, one of other classes, or a damaged one.
    """
    weights: dict[str, float] = {}
    samples: list[Sample] = []
    specs: list[Any] = []
    for folder in folders:
        found, before = about(folder), len(samples)
        try:
            specs.append(found["recipe"]["classes"])
            weights |= {name: source["weight"] for name, source in found["sources"].items()}
            counts = found["shards"], found["samples"]
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{folder / 'corpus.json'}: damaged ({error!r})") from error
        shards = sorted(folder.glob("shard-*.tar"))
        if len(shards) != counts[0]:
            raise InputError(f"{folder}: {len(shards)} shards, expected {counts[0]}")
        for path in shards:
            with ThreadPoolExecutor(threads) as pool:
                samples += pool.map(lambda files, path=path: _unpacked(files, path), _read(path))
        if len(samples) - before != counts[1]:
            raise InputError(f"{folder}: {len(samples) - before} samples, expected {counts[1]}")
        if foreign := {sample.source for sample in samples[before:]} - found["sources"].keys():
            raise InputError(
                f"{folder}: samples of {min(foreign)}, of which corpus.json says nothing"
            )
    if any(spec != specs[0] for spec in specs):
        raise InputError(f"{', '.join(map(str, folders))}: corpora of different classes")
    return Corpus(taxonomy.from_description(specs[0]), weights, samples)


def _read(path: Path) -> list[dict[str, bytes]]:
    """The files of each sample of a shard, by what follows its number."""
    samples: dict[str, dict[str, bytes]] = {}
    causes = OSError, tarfile.TarError, ValueError
    with (
        refused(InputError, f"{path}: cannot be read", *causes, unfit=True),
        tarfile.open(path) as tar,
    ):
        for member in tar:
            key, name = member.name.split(".", 1)
            data = tar.extractfile(member)
            if data is None:
                raise ValueError(f"{member.name} is no file")
            samples.setdefault(key, {})[name] = data.read()
    return list(samples.values())


def _unpacked(files: dict[str, bytes], path: Path) -> Sample:
    def decoded(name: str) -> np.ndarray:
        return np.asarray(PIL.Image.open(io.BytesIO(files[name])))

    def several(stem: str) -> tuple[np.ndarray, ...]:
        names = sorted(name for name in files if name.startswith(stem))
        return tuple(decoded(name) for name in names)

    try:
        told = json.loads(files["json"])
        return Sample(
            told["source"],
            told["name"],
            told["judged"],
            decoded("image.webp"),
            several("coarse"),
            several("map"),
            tuple(
                {int(number): (levels[0], levels[1], levels[2]) for number, levels in of.items()}
                for of in told.get("textures", ())
            ),
        )
    except Exception as error:  # Pillow's plugins raise many kinds on damaged files
        raise InputError(f"{path}: a sample cannot be read ({error!r})") from error
