"""`sempic train corpus`: what a receiver learns from, made once and opened without a codec.

A corpus is a folder of tar shards, as WebDataset reads them, and `corpus.json`. A sample is one
rendition of a picture: `NAME.image.webp` (lossless), its label maps `NAME.map0.png` … (ids of the
corpus's classes, as they will be sent: what is known of the picture first, then a segmenter's,
simplified), and `NAME.coarse0.png` …, the coarse picture as a receiver decodes it, at several
factors and qualities.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import tarfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from sempic.errors import InputError, SempicWarning
from sempic.networks.compact import PATCH
from sempic.palette import PALETTES
from sempic.scene import Image as Picture
from sempic.scene import LabelMap
from sempic.training.data import taxonomy
from sempic.training.data.sources import Item, open_sources
from sempic.training.data.taxonomy import Taxonomy
from sempic.training.options import CorpusOptions

FORMAT = "sempic.corpus/1"
GRID = 16
"""Sides are multiples of this: pixels of every coarse factor, and their chroma, align."""
SHARD = 48 << 20
"""Bytes after which another shard begins; with its last sample it stays below 50 MiB."""
JUDGED = 24
"""Pictures of each source that are kept for validation."""
FACTORS = {4: 0.85, 8: 0.15}
"""Coarse factors and how often each is drawn."""
QPS = (24, 42)
"""Between which the quality of a coarse picture is drawn."""
USUAL_QP = 35
"""What it is four times in ten, and always for validation."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One rendition of a picture."""

    source: str
    name: str
    judged: bool
    """It is for validation."""
    image: Picture
    """uint8 (H, W, 3); H and W multiples of GRID."""
    coarse: tuple[Picture, ...]
    """uint8 (H / 4, W / 4, 3) each, as the receiver decodes it."""
    maps: tuple[LabelMap, ...]
    """uint8 (H, W) each."""


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """What `open_corpus` reads."""

    taxonomy: Taxonomy
    weights: dict[str, float]
    """Of the crops, by source."""
    samples: list[Sample]

    def part(self, *, judged: bool) -> list[Sample]:
        return [sample for sample in self.samples if sample.judged == judged]


# ── one rendition ────────────────────────────────────────────────────────────────────────────


def transmit(image: Picture, factor: int, qp: int) -> Picture:
    """The coarse picture as the receiver sees it, on the grid of a quarter of the resolution."""
    from sempic import coarse

    small = coarse.downscale(image, factor)
    decoded = coarse.to_rgb(coarse.decode(coarse.encode(small, quality=qp)))
    if factor != PATCH:
        grid = image.shape[1] // PATCH, image.shape[0] // PATCH
        decoded = np.asarray(Image.fromarray(decoded).resize(grid, Image.Resampling.BICUBIC))
    return decoded


def sent_map(segmenter: Any, image: Picture) -> LabelMap:
    """A segmenter's map as the encoder sends it by default: void where it does not know, which may
    be everywhere, and simplified."""
    from sempic.api import Codec

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SempicWarning)  # that it is void everywhere
        labels, palette = Codec(segmenter).find_labels(image)
    if labels is None:
        return np.full(image.shape[:2], PALETTES[palette].void or 0, np.uint8)
    return labels


def _resized(image: Picture, known: LabelMap | None, short: int) -> tuple[Picture, LabelMap | None]:
    height, width = image.shape[:2]
    scale = short / min(height, width)
    size = (
        max(11 * GRID, round(width * scale)),
        max(8 * GRID, round(height * scale)),
    )
    rows, columns = size[1] // GRID * GRID, size[0] // GRID * GRID
    image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    image = image[:rows, :columns]
    if known is not None:
        known = np.asarray(Image.fromarray(known).resize(size, Image.Resampling.NEAREST))
        known = known[:rows, :columns]
    return image, known


def render(
    item: Item,
    rendition: int,
    *,
    judged: bool,
    options: CorpusOptions,
    classes: Taxonomy,
    segmenter: Any = None,
) -> Sample:
    """One rendition of a picture, the same for the same arguments: its size, light, coarse pictures
    and maps. Raises InputError."""
    digest = hashlib.sha256(item.name.encode()).digest()
    rng = np.random.default_rng((options.seed, int.from_bytes(digest[:8], "big"), rendition))
    image = item.picture()
    known = item.known(classes, image.shape[:2])
    usual = judged or rng.random() < 0.6
    short = options.side if usual else int(np.exp(rng.uniform(*np.log((200, 480)))))
    image, known = _resized(image, known, short)
    if not judged and rng.random() < 0.3:
        gains = np.exp(rng.uniform(-0.2, 0.2) + rng.uniform(-0.06, 0.06, 3))
        image = np.clip(image * gains, 0, 255).astype(np.uint8)
    coarse = []
    for _ in range(1 if judged else options.coarse):
        factor = 4 if judged else int(rng.choice(list(FACTORS), p=list(FACTORS.values())))
        drawn = USUAL_QP if rng.random() < 0.4 else int(rng.integers(QPS[0], QPS[1] + 1))
        coarse.append(transmit(image, factor, USUAL_QP if judged else drawn))
    maps = [] if known is None else [classes.settle(known)]
    if segmenter is not None and not (judged and maps):
        maps.append(sent_map(segmenter, image))
    if not maps:
        raise InputError(f"{item.image}: it has no label map: give --segmenter")
    return Sample(item.source, item.name, judged, image, tuple(coarse), tuple(maps))


# ── shards ───────────────────────────────────────────────────────────────────────────────────


def _packed(sample: Sample, number: int) -> list[tuple[str, bytes]]:
    def encoded(array: np.ndarray, **how: Any) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, **how)
        return buffer.getvalue()

    key = f"{number:06}"
    about = {"source": sample.source, "name": sample.name, "judged": sample.judged}
    image = encoded(sample.image, format="WEBP", lossless=True, quality=20, method=1)
    files = [("json", json.dumps(about).encode()), ("image.webp", image)]
    files += [(f"map{i}.png", encoded(m, format="PNG")) for i, m in enumerate(sample.maps)]
    files += [(f"coarse{i}.png", encoded(c, format="PNG")) for i, c in enumerate(sample.coarse)]
    return [(f"{key}.{name}", data) for name, data in files]


def _unpacked(files: dict[str, bytes], path: Path) -> Sample:
    def decoded(name: str) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(files[name])))

    def several(stem: str) -> tuple[np.ndarray, ...]:
        names = sorted(name for name in files if name.startswith(stem))
        return tuple(decoded(name) for name in names)

    try:
        about = json.loads(files["json"])
        return Sample(
            about["source"],
            about["name"],
            about["judged"],
            decoded("image.webp"),
            several("coarse"),
            several("map"),
        )
    except (KeyError, ValueError, OSError) as error:
        raise InputError(f"{path}: a sample cannot be read ({error})") from error


class _Writer:
    """Shards one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count, self.room = folder, 0, 0
        self.samples = 0
        self._tar: tarfile.TarFile | None = None

    def add(self, files: list[tuple[str, bytes]]) -> None:
        if self._tar is None or self.room <= 0:
            self.close()
            self._tar = tarfile.open(self.folder / f"shard-{self.count:04}.tar", "w")  # noqa: SIM115
            self.count, self.room = self.count + 1, SHARD
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            self._tar.addfile(info, io.BytesIO(data))
            self.room -= len(data) + 1024
        self.samples += 1

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()


# ── making one ───────────────────────────────────────────────────────────────────────────────

_worker: dict[str, Any] = {}


def _start(options: CorpusOptions) -> None:
    os.environ["SEMPIC_THREADS"] = "1"
    _worker["options"] = options
    _worker["classes"] = taxonomy.load(options.classes)
    _worker["segmenter"] = _segmenter(options, _worker["classes"])


def _segmenter(options: CorpusOptions, classes: Taxonomy) -> Any:
    if options.segmenter is None:
        return None
    from sempic.segment import Segmenter

    segmenter = Segmenter(options.segmenter)
    if segmenter.palette != classes.palette.id:
        raise InputError(f"{options.segmenter} has other classes than {classes.palette.name}")
    return segmenter


def _work(job: tuple[int, Item, int, bool]) -> list[tuple[str, bytes]]:
    number, item, rendition, judged = job
    sample = render(item, rendition, judged=judged, **_worker)
    return _packed(sample, number)


def _spread(items: Sequence[Item], count: int) -> Sequence[Item]:
    """At most `count` of them, evenly."""
    if not 0 < count < len(items):
        return items
    return [items[number * len(items) // count] for number in range(count)]


def _digest(path: Path | None) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path else ""


def make(options: CorpusOptions) -> None:
    """Make the corpus that the options describe, unless it is there already.

    Raises:
        InputError: a folder or file that cannot be used, or another corpus at `--out`.
    """
    classes = taxonomy.load(options.classes)
    sources = open_sources(options.data, classes)
    if options.segmenter is not None and not options.segmenter.is_file():
        raise InputError(f"{options.segmenter}: no such file")
    _segmenter(options, classes)
    jobs: list[tuple[int, Item, int, bool]] = []
    described = {}
    for source in sources:
        train, val = _spread(source.train, options.limit), _spread(source.val, JUDGED)
        if options.segmenter is None:  # what has no map cannot be learned from
            train = [i for i in train if i.labels or i.teacher]
            val = [i for i in val if i.labels or i.teacher]
        if not train:
            raise InputError(
                f"{source.name}: its pictures have no label maps: give --segmenter, or the "
                "folder the weight 0"
            )
        if not val and len(train) > 4 * options.renditions:
            val = _spread(train, max(1, min(JUDGED, len(train) // 40)))
            kept = {item.name for item in val}
            train = [item for item in train if item.name not in kept]
        for item in train:
            jobs += [(0, item, rendition, False) for rendition in range(options.renditions)]
        jobs += [(0, item, 0, True) for item in val]
        described[source.name] = {"pictures": len(train), "weight": source.weight}
    jobs = [(number, *rest) for number, (_, *rest) in enumerate(jobs)]  # type: ignore[misc]
    recipe = {
        "classes": taxonomy.describe(classes),
        "segmenter": _digest(options.segmenter),
        "renditions": options.renditions,
        "coarse": options.coarse,
        "side": options.side,
        "seed": options.seed,
        "factors": {str(k): v for k, v in FACTORS.items()},
        "qps": [*QPS, USUAL_QP],
        "files": hashlib.sha256(
            "".join(
                _digest(path)
                for item in dict.fromkeys(job[1] for job in jobs)
                for path in (item.image, item.labels, item.teacher)
            ).encode()
        ).hexdigest(),
    }
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    about = options.out / "corpus.json"
    if about.exists():
        if _about(options.out).get("key") != key:
            raise InputError(
                f"{options.out} holds a corpus of other files or options: choose another --out"
            )
        print(f"{options.out}: this corpus is there already")
        return
    part = options.out.with_name(options.out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    writer = _Writer(part)
    with contextlib.closing(writer):
        for files in tqdm(_done(jobs, options), total=len(jobs), unit="sample", disable=None):
            writer.add(files)
    written = {
        "format": FORMAT,
        "key": key,
        "recipe": recipe,
        "sources": described,
        "samples": writer.samples,
        "shards": writer.count,
    }
    (part / "corpus.json").write_text(json.dumps(written, indent=1) + "\n")
    options.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(part.iterdir(), key=lambda p: p.suffix == ".json"):
        path.replace(options.out / path.name)
    part.rmdir()
    print(f"{options.out}: {writer.samples} samples in {writer.count} shards")


def _done(
    jobs: list[tuple[int, Item, int, bool]], options: CorpusOptions
) -> Iterator[list[tuple[str, bytes]]]:
    """Packed samples in the order of the jobs."""
    if options.workers == 1:
        _start(options)
        yield from map(_work, jobs)
        return
    context = multiprocessing.get_context("spawn")  # a forked ONNX session would hang
    with ProcessPoolExecutor(
        options.workers, mp_context=context, initializer=_start, initargs=(options,)
    ) as pool:
        ahead = 8 * options.workers  # enough to keep everybody busy, and little memory
        for first in range(0, len(jobs), ahead):
            yield from pool.map(_work, jobs[first : first + ahead])


# ── opening one ──────────────────────────────────────────────────────────────────────────────


def _about(folder: Path) -> dict[str, Any]:
    path = folder / "corpus.json"
    try:
        about: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no corpus of `sempic train corpus` ({error})") from error
    if about.get("format") != FORMAT:
        raise InputError(f"{path}: format {about.get('format')!r}, expected {FORMAT!r}")
    return about


def open_corpus(folders: Sequence[Path], threads: int = 2) -> Corpus:
    """The samples of one or several corpora of the same classes, whole in memory.

    Raises InputError: no corpus, one of other classes, or a damaged one.
    """
    weights: dict[str, float] = {}
    samples: list[Sample] = []
    specs: list[Any] = []
    for folder in folders:
        about = _about(folder)
        specs.append(about["recipe"]["classes"])
        weights |= {name: source["weight"] for name, source in about["sources"].items()}
        shards = sorted(folder.glob("shard-*.tar"))
        if len(shards) != about["shards"]:
            raise InputError(f"{folder}: {len(shards)} shards, expected {about['shards']}")
        for path in shards:
            with ThreadPoolExecutor(threads) as pool:
                samples += pool.map(lambda files, path=path: _unpacked(files, path), _read(path))
    if any(spec != specs[0] for spec in specs):
        raise InputError(f"{', '.join(map(str, folders))}: corpora of different classes")
    return Corpus(taxonomy.from_description(specs[0]), weights, samples)


def _read(path: Path) -> list[dict[str, bytes]]:
    """The files of each sample of a shard, by what follows its number."""
    samples: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                key, name = member.name.split(".", 1)
                data = tar.extractfile(member)
                assert data is not None
                samples.setdefault(key, {})[name] = data.read()
    except (OSError, tarfile.TarError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    return list(samples.values())
