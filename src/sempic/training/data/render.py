"""`sempic train corpus`: renders labelled pictures into a training corpus (`corpus`)."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import multiprocessing
import os
import signal
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageFilter
from tqdm import tqdm

from sempic import coarse, files, pictures, processes, texture
from sempic.api import Codec
from sempic.errors import InputError, OutputError, SempicError, naming, noting, refused
from sempic.networks.compact import PATCH
from sempic.palette import PALETTES
from sempic.places import need_folder
from sempic.scene import Image, LabelMap
from sempic.segment import Segmenter
from sempic.training.data import corpus, taxonomy
from sempic.training.data.corpus import FACTORS, GRID, QPS, USUAL_QP, Sample
from sempic.training.data.readers import Item
from sempic.training.data.sources import Source, open_sources
from sempic.training.data.taxonomy import Taxonomy
from sempic.training.options import CorpusOptions

SHARD = 48 << 20
"""Bytes after which a new shard begins, so that a shard stays below 50 MiB."""
_SHARDS = "shard-[0-9][0-9][0-9][0-9].tar"
"""Names of shards; other tars in a folder are not part of a corpus."""

_LATER = 5
"""Seconds after which SIGTERM ends a worker process."""


# ── one rendition ────────────────────────────────────────────────────────────────────────────


def transmit(image: Image, factor: int, qp: int) -> Image:
    """The decoded coarse picture of a factor, resized to a quarter of the resolution."""
    small = coarse.downscale(image, factor)
    decoded = coarse.to_rgb(coarse.decode(coarse.encode(small, quality=qp)))
    return pictures.resized(decoded, (image.shape[1] // PATCH, image.shape[0] // PATCH))


def sent_map(segmenter: Any, image: Image) -> LabelMap:
    """The map that the encoder sends by default: simplified, void where the segmenter is unsure."""
    with noting():  # left out, as of a map that is void everywhere
        labels, palette = Codec(segmenter).find_labels(image)
    if labels is None:
        return np.full(image.shape[:2], PALETTES[palette].void or 0, np.uint8)
    return labels


def _resized(image: Image, known: LabelMap | None, short: int) -> tuple[Image, LabelMap | None]:
    height, width = image.shape[:2]
    scale = short / min(height, width)
    size = max(11 * GRID, round(width * scale)), max(8 * GRID, round(height * scale))
    rows, columns = size[1] // GRID * GRID, size[0] // GRID * GRID
    image = pictures.resized(image, size)[:rows, :columns]
    if known is not None:
        known = pictures.resized(known, size, "NEAREST")[:rows, :columns]
    return image, known


class Job(NamedTuple):
    """One rendition to make."""

    item: Item
    rendition: int
    judged: bool


def render(job: Job, options: CorpusOptions, classes: Taxonomy, segmenter: Any) -> Sample:
    """Render one sample; its random draws depend on seed, name and number alone. Raises
    InputError."""
    item, rendition, judged = job
    digest = hashlib.sha256(os.fsencode(item.name)).digest()
    rng = np.random.default_rng((options.seed, int.from_bytes(digest[:8], "big"), rendition))
    usual = judged or rng.random() < 0.6
    short = options.side if usual else int(np.exp(rng.uniform(*np.log((200, 480)))))
    image, known = _resized(*item.opened(classes), short)
    if not judged and rng.random() < 0.3:
        gains = np.exp(rng.uniform(-0.2, 0.2) + rng.uniform(-0.06, 0.06, 3))
        image = np.clip(image * gains, 0, 255).astype(np.uint8)
    if not judged and rng.random() < corpus.BLURRED:
        blur = PIL.ImageFilter.GaussianBlur(rng.uniform(*corpus.BLUR))
        image = np.asarray(PIL.Image.fromarray(image).filter(blur))
    coarse = []
    with naming(item.image):
        for _ in range(1 if judged else options.coarse):
            factor = 4 if judged else int(rng.choice(list(FACTORS), p=list(FACTORS.values())))
            drawn = USUAL_QP if rng.random() < 0.4 else int(rng.integers(QPS[0], QPS[1] + 1))
            coarse.append(transmit(image, factor, USUAL_QP if judged else drawn))
    maps = [] if known is None else [classes.settle(known)]
    if segmenter is not None and not (judged and maps):
        maps.append(sent_map(segmenter, image))
    if not maps:
        raise InputError(f"{item.image}: it has no label map: give --segmenter")
    textures = tuple(texture.measure(image, labels, classes.palette) for labels in (*maps, None))
    source, _, _ = item.name.partition("/")
    return Sample(source, item.name, judged, image, tuple(coarse), tuple(maps), textures)


# ── all of them ──────────────────────────────────────────────────────────────────────────────


def make(options: CorpusOptions) -> None:
    """Make a corpus, unless `--out` holds it already.

    Raises:
        InputError: a folder or file that cannot be used, or another corpus at `--out`.
        OutputError: `--out` cannot be written.
    """
    exists = (options.out / "corpus.json").exists()
    if not exists:
        need_folder(options.out)
    if options.segmenter is not None and not options.segmenter.is_file():
        raise InputError(f"{options.segmenter}: no such file")
    classes, _ = _tools(options)
    jobs: list[Job] = []
    sources, shown = {}, []
    for source in open_sources(options.data, classes):
        train, val = _chosen(source, options)
        without = " without label maps" * (not any(item.has_map for item in train))
        shown.append(f"{source.name} {len(train)}{without}")
        jobs += [Job(item, n, False) for item in train for n in range(options.renditions)]
        jobs += [Job(item, 0, True) for item in val]
        sources[source.name] = {"pictures": len(train), "weight": source.weight}
    recipe = _recipe(options, classes, jobs)
    if exists:
        found = corpus.about(options.out)
        there = {**found["recipe"], "folders": sorted(found["sources"])}
        wanted = {**recipe, "folders": sorted(sources)}
        if others := [name for name, value in wanted.items() if there.get(name) != value]:
            is_old = set(others) <= corpus.method(recipe["segmenter"]).keys()
            whose = "another version of sempic" if is_old else "other files or options"
            raise InputError(
                f"{options.out} holds a corpus of {whose} ({', '.join(others)}): choose another "
                "--out"
            )
        new = ""
        if found["sources"] != sources:
            _write_about(options.out, {**found, "sources": sources})
            new = ", with other weights now"
        print(f"{options.out}: this corpus is there already{new}")
        return
    print("pictures:", ", ".join(shown), flush=True)
    with _folder(options.out):
        packed = tqdm(_rendered(jobs, options), total=len(jobs), unit="sample", disable=None)
        samples, shards = _write(options.out, packed)
        made = {"recipe": recipe, "sources": sources, "samples": samples, "shards": shards}
        _write_about(options.out, {"format": corpus.FORMAT, **made})
    print(f"{options.out}: {samples} samples in {shards} shards")


def _write_about(folder: Path, about: dict[str, Any]) -> None:
    files.write(folder / "corpus.json", (json.dumps(about, indent=1) + "\n").encode())


@contextlib.contextmanager
def _folder(out: Path) -> Iterator[None]:
    """Makes a folder without shards, no corpus until it has `corpus.json`. On failure shards are
    removed, and the folders that were made. Raises OutputError if `out` cannot be used."""

    def clear() -> None:
        for shard in out.glob(_SHARDS):
            shard.unlink()

    what = f"{out}: cannot be the folder of a corpus"
    with refused(OutputError, what):
        if out.exists() and not all(path.match(_SHARDS) for path in out.iterdir()):
            raise OutputError(f"{out}: holds something else than a corpus: choose another --out")
        made = [folder for folder in (out, *out.parents) if not folder.exists()]
        out.mkdir(parents=True, exist_ok=True)
    with files.locked(out):
        try:
            with refused(OutputError, what):
                clear()  # of an interrupted run
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # which would hide the first error
                clear()
                for folder in made:
                    folder.rmdir()
            raise


def _chosen(source: Source, options: CorpusOptions) -> tuple[Sequence[Item], Sequence[Item]]:
    """The pictures of a source for training and for validation."""
    if not source.train:
        raise InputError(f"{source.name}: only its val has pictures: give the folder the weight 0")
    if options.segmenter is None:  # only pictures with a map can be used
        source = source.with_maps()
    if not source.train:
        raise InputError(
            f"{source.name}: its pictures have no label maps in a known layout "
            "(docs/guides/train.md): give --segmenter, or the folder the weight 0"
        )
    return source.divided(limit=options.limit, one_in=40, least=5)


def _recipe(options: CorpusOptions, classes: Taxonomy, jobs: Sequence[Job]) -> dict[str, Any]:
    """Everything on which a corpus depends, JSON values."""
    used = [path for item in dict.fromkeys(job.item for job in jobs) for path in item.files]
    segmenter = _digest(options.segmenter)
    return {
        "classes": taxonomy.describe(classes),
        "segmenter": segmenter,
        "renditions": options.renditions,
        "coarse": options.coarse,
        "side": options.side,
        "seed": options.seed,
        "files": digest(used),
        **corpus.method(segmenter),
    }


def digest(paths: Iterable[Path | None]) -> str:
    """Hash of the contents of files; None counts as empty."""
    return hashlib.sha256("".join(map(_digest, paths)).encode()).hexdigest()


def _digest(path: Path | None) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path else ""


def _rendered(jobs: Sequence[Job], options: CorpusOptions) -> Iterator[dict[str, bytes]]:
    """Packed samples in the order of the jobs."""
    work = functools.partial(_work, options)
    if options.workers == 1:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("spawn")  # forked ONNX sessions hang
    with ProcessPoolExecutor(options.workers, context, _begin) as pool:
        ahead = 8 * options.workers  # bounds the memory of finished samples
        try:
            for first in range(0, len(jobs), ahead):
                yield from pool.map(work, jobs[first : first + ahead])
        except BrokenProcessPool:
            few = "fewer --workers take less"
            raise SempicError(f"a worker process died (out of memory? {few})") from None


def _begin() -> None:
    """Called in each worker process."""
    os.environ["SEMPIC_THREADS"] = "1"  # ONNX Runtime reads it at start
    processes.watch_parent()
    # Ctrl-C in a terminal and SIGTERM of a batch system reach workers, too: the parent ends them.
    # SIGTERM ends them later, as a pool uses it if one of its workers has died.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_LATER))


def _work(options: CorpusOptions, job: Job) -> dict[str, bytes]:
    return _packed(render(job, options, *_tools(options)))


@functools.cache
def _tools(options: CorpusOptions) -> tuple[Taxonomy, Segmenter | None]:
    """Classes and segmenter, loaded once per process. Raises InputError or ModelError."""
    classes = taxonomy.load(options.classes)
    if options.segmenter is None:
        return classes, None
    return classes, open_segmenter(options.segmenter, classes)


def open_segmenter(path: Path, classes: Taxonomy) -> Segmenter:
    """Raises ModelError, or InputError for a segmenter of other classes."""
    segmenter = Segmenter(path)
    palette = PALETTES[segmenter.palette]
    if why := classes.palette.unlike(palette.known, palette):
        raise InputError(f"{path} knows {why}")
    return segmenter


# ── shards ───────────────────────────────────────────────────────────────────────────────────


def _packed(sample: Sample) -> dict[str, bytes]:
    """The files of a sample, by their names after the sample's number."""

    def encoded(array: np.ndarray, format: str, **how: Any) -> bytes:
        return pictures.saved(PIL.Image.fromarray(array), format, **how)

    said = {
        "source": sample.source, "name": sample.name, "judged": sample.judged,
        "textures": sample.textures,
    }  # fmt: skip
    image = encoded(sample.image, "WEBP", lossless=True, quality=20, method=1)
    packed = {"json": json.dumps(said).encode(), "image.webp": image}
    for stem, arrays in (("map", sample.maps), ("coarse", sample.coarse)):
        packed |= {f"{stem}{i}.png": encoded(a, "PNG") for i, a in enumerate(arrays)}
    return packed


def _write(folder: Path, samples: Iterable[dict[str, bytes]]) -> tuple[int, int]:
    """Write packed samples as shards; returns the numbers of samples and shards. Raises
    OutputError."""
    shards = count = room = 0
    with refused(OutputError, f"{folder}: cannot write"), contextlib.ExitStack() as opened:
        for packed in samples:
            if room <= 0:
                opened.close()
                tar = opened.enter_context(tarfile.open(folder / f"shard-{shards:04}.tar", "w"))
                shards, room = shards + 1, SHARD
            for name, data in packed.items():
                info = tarfile.TarInfo(f"{count:06}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
                room -= len(data) + 1024
            count += 1
    return count, shards
