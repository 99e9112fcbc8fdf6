"""Training corpus of receivers: `sempic train corpus` writes it (`render`), `open_corpus` reads it.

A corpus is a folder of tar shards (in the format of WebDataset) and `corpus.json`. A sample is one
rendition of a picture:

- `N.image.webp`: the picture, lossless;
- `N.map0.png` …: label maps, ids of the corpus's classes: first the known one, then a segmenter's,
  simplified as it is sent;
- `N.coarse0.png` …: decoded coarse pictures of several factors and qualities;
- `N.json`: source, name, whether it is for validation, and measured textures.
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

from sempic.errors import JSON_FAULTS, InputError, refused, warn
from sempic.scene import Image, LabelMap
from sempic.texture import Texture
from sempic.training.data import taxonomy
from sempic.training.data.taxonomy import Taxonomy

Measured = Mapping[int, tuple[int, int, bool]]
"""What `texture.measure` returns."""
FORMAT = "sempic.corpus/1"
GRID = 16
"""Sides are multiples of this, so that coarse pixels of every factor, and their chroma, align."""
FACTORS = {4: 0.85, 8: 0.15}
"""Probabilities of the coarse factors."""
QPS = (24, 42)
"""Range of the QP of coarse pictures."""
USUAL_QP = 35
"""QP of four in ten coarse pictures, and of all for validation."""
SENT_MAPS = "of half the size"
"""How encoders make the maps that they send (`sent_map`). Change this text with it: then `sempic
train corpus` and `label-prior` do not take older maps for theirs."""
BLURRED = 0.3
"""Share of the renditions that are blurred first: many cameras are less sharp than those of the
training pictures, and senders transmit how sharp a picture is (`sempic.texture`)."""
BLUR = 0.4, 1.4
"""Range of the blur's standard deviation, in pixels."""


def method(segmenter: str) -> dict[str, Any]:
    """The part of a recipe that this version of sempic decides: how renditions are made, JSON
    values. `segmenter`: the digest of the one whose maps are added, "" for none."""
    made = {
        "factors": {str(k): v for k, v in FACTORS.items()},
        "qps": [*QPS, USUAL_QP],
        "blur": [BLURRED, *BLUR],
    }
    return made | {"maps": SENT_MAPS} if segmenter else made


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One rendition of a picture."""

    source: str
    name: str
    judged: bool
    """For validation, not for training."""
    image: Image
    """uint8 (H, W, 3); H and W multiples of GRID."""
    coarse: tuple[Image, ...]
    """uint8 (H / 4, W / 4, 3) each, as decoded by a receiver."""
    maps: tuple[LabelMap, ...]
    """uint8 (H, W) each."""
    textures: tuple[Measured, ...]
    """`texture.measure` with each map, then without a map."""


def sent_texture(measured: Measured, *, wholly: bool = False) -> Texture:
    """The texture that a sender transmits: of weak classes, or of all if `wholly`."""
    return {n: (median, high) for n, (median, high, weak) in measured.items() if weak or wholly}


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Samples in memory, and what their ids mean."""

    taxonomy: Taxonomy
    weights: dict[str, float]
    """Shares of the crops by source, not normalised."""
    samples: list[Sample]

    def part(self, *, judged: bool) -> list[Sample]:
        return [sample for sample in self.samples if sample.judged == judged]


def common_size(samples: Sequence[Sample]) -> tuple[int, int]:
    """The least height and the least width."""
    heights, widths, _ = zip(*(sample.image.shape for sample in samples), strict=True)
    return min(heights), min(widths)


def about(folder: Path) -> dict[str, Any]:
    """The content of `corpus.json`, with "recipe" and "sources". Raises InputError."""
    path = folder / "corpus.json"
    with refused(
        InputError, f"{path}: no corpus of `sempic train corpus`", *JSON_FAULTS, unfit=True
    ):
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if found.get("format") != FORMAT:
            raise InputError(f"{path}: format {found.get('format')!r}, expected {FORMAT!r}")
        if not all(isinstance(found.get(part), dict) for part in ("recipe", "sources")):
            raise InputError(f"{path}: damaged")
    return found


def open_corpus(folders: Sequence[Path], threads: int = 2) -> Corpus:
    """All samples of one or several corpora of the same classes.

    Warns of a corpus of another version of sempic (`method`). Raises InputError: no corpus, the
    same one twice, corpora of different classes or with different weights of a source, or a
    damaged corpus.
    """
    real = [folder.resolve() for folder in folders]
    if twice := [str(f) for f, place in zip(folders, real, strict=True) if real.count(place) > 1]:
        raise InputError(f"{', '.join(twice)}: the same corpus twice")
    weights: dict[str, float] = {}
    samples: list[Sample] = []
    classes: list[Any] = []
    for folder in folders:
        found, before = about(folder), len(samples)
        with refused(InputError, f"{folder / 'corpus.json'}: damaged", KeyError, TypeError):
            classes.append(found["recipe"]["classes"])
            _warn_if_old(folder, found["recipe"])
            for name, source in found["sources"].items():
                if weights.setdefault(name, source["weight"]) != source["weight"]:
                    raise InputError(
                        f"{folder}: {name} has the weight {source['weight']:g} here, but "
                        f"{weights[name]:g} in another corpus"
                    )
            shard_count, sample_count = found["shards"], found["samples"]
        shards = sorted(folder.glob("shard-*.tar"))
        if len(shards) != shard_count:
            raise InputError(f"{folder}: {len(shards)} shards, expected {shard_count}")
        for path in shards:
            with ThreadPoolExecutor(threads) as pool:
                samples += pool.map(lambda files, path=path: _unpacked(files, path), _read(path))
        if len(samples) - before != sample_count:
            raise InputError(f"{folder}: {len(samples) - before} samples, expected {sample_count}")
        if foreign := {sample.source for sample in samples[before:]} - found["sources"].keys():
            raise InputError(
                f"{folder}: samples of {min(foreign)}, of which corpus.json says nothing"
            )
    if any(description != classes[0] for description in classes):
        raise InputError(f"{', '.join(map(str, folders))}: corpora of different classes")
    return Corpus(taxonomy.from_description(classes[0]), weights, samples)


def _warn_if_old(folder: Path, recipe: dict[str, Any]) -> None:
    made = method(recipe["segmenter"])
    if old := [name for name, value in made.items() if recipe.get(name) != value]:
        given = "--segmenter FILE " * bool(recipe["segmenter"])
        given += " ".join(f"--{k} {recipe[k]}" for k in ("renditions", "coarse", "side", "seed"))
        warn(
            f"{folder}: used as it is, but another version of sempic made its {' and '.join(old)} "
            f"in another way: `sempic train corpus DATA {given} --out NEW` makes it anew"
        )


def _read(path: Path) -> list[dict[str, bytes]]:
    """The files of each sample of a shard, by their names after the sample's number."""
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
        about = json.loads(files["json"])
        said = about["source"], about["name"], about["judged"]
        textures = (
            {int(number): tuple(levels) for number, levels in part.items()}
            for part in about["textures"]
        )
        arrays = decoded("image.webp"), several("coarse"), several("map")
        return Sample(*said, *arrays, tuple(textures))
    except Exception as error:  # Pillow's plugins raise many kinds on damaged files
        raise InputError(f"{path}: a sample cannot be read ({error!r})") from error
