"""Every codec on every picture: code, decode, measure, keep, and add up.

The work is cut into (picture, codec, quality) and spread over processes; what comes back goes into
a cache by content, so that an interrupted run goes on and another codec costs one codec.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import csv
import fnmatch
import functools
import hashlib
import io
import json
import math
import multiprocessing
import os
import platform
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from tqdm import tqdm

import sempic
from sempic.errors import InputError, OutputError, SempicError
from sempic.evaluation import codecs, metrics
from sempic.evaluation.evaluate import find, read, read_labels
from sempic.evaluation.measure import Measure, Reference, Settings, row
from sempic.evaluation.measures import FIGURES, METRICS, Figure, Record, Row
from sempic.scene import Image, LabelMap

RATES = (0.05, 0.06, 0.09, 0.12, 0.18, 0.32)
"""Bits per pixel to which each codec's dial is set, as near as it goes."""
CODECS = (
    *("sempic", "sempic@4", "bpg", "bpg444", "avif", "svt-av1", "hevc", "jxl", "webp", "jpeg2000"),
    *("jpeg", "coarse"),
)
PROBES = 4
"""Pictures, evenly spread, on which a codec's dial is set."""
_DOUBLING = [2**n for n in range(3, 31)]
_NEAR = 0.03
"""The dial is left where the rate is as near as this share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A picture to be coded, and where its human labels are."""

    name: str
    picture: Path
    labels: Path | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All that a worker has to know."""

    items: tuple[Item, ...]
    size: tuple[int, int] | None
    """(width, height) to which pictures are scaled first."""
    short_side: int | None = None
    """Without a size: pictures whose shorter side is longer are scaled down to it."""
    settings: Settings
    effort: str = codecs.EFFORTS[0]
    receiver: str | None = None
    segmenter: str | None = None

    def codec(self, name: str) -> codecs.PictureCodec:
        return codecs.load(
            name, effort=self.effort, receiver=self.receiver, segmenter=self.segmenter
        )

    def load(self, index: int) -> tuple[Image, LabelMap | None]:
        """A picture and its labels at the working size (pictures BICUBIC, labels NEAREST)."""
        item = self.items[index]
        picture = self._resize(read(item.picture), PIL.Image.Resampling.BICUBIC)
        if item.labels is None:
            return picture, None
        return picture, self._resize(read_labels(item.labels), PIL.Image.Resampling.NEAREST)

    def _resize(self, array: Any, how: PIL.Image.Resampling) -> Any:
        height, width = array.shape[:2]
        size = self.size or (width, height)
        if self.size is None and self.short_side and min(size) > self.short_side:
            scale = self.short_side / min(size)
            size = round(width * scale), round(height * scale)
        if size == (width, height):
            return array
        return np.array(PIL.Image.fromarray(array).resize(size, how))


def items(
    folder: Path, labels: Path | None, limit: int | None, pattern: str = "*"
) -> tuple[Item, ...]:
    """The pictures of a folder, or of a data set's val/ with valannot/ beside it.

    Args:
        labels: index maps of the same names; None: the folder with "annot" after its name.
        limit: so many of them, evenly spread.
        pattern: of the names to take, as in a shell.
    """
    if (folder / "val").is_dir() and (folder / "valannot").is_dir():
        folder = folder / "val"
    whole = folder.resolve()  # "." has no name
    beside = whole.parent / f"{whole.name}annot"
    labels = labels or (beside if beside.is_dir() else None)
    paths = [path for path in find(folder) if fnmatch.fnmatchcase(path.name, pattern)]
    if not paths:
        raise InputError(f"{folder}: no pictures {pattern}")
    if limit is not None and limit < len(paths):
        paths = [paths[i * len(paths) // limit] for i in range(limit)]
    maps = {} if labels is None else {path.stem: path for path in find(labels)}
    for path in paths:
        if labels is not None and path.stem not in maps:
            raise InputError(f"{labels}: no label map {path.stem}")
    return tuple(Item(name=p.stem, picture=p, labels=maps.get(p.stem)) for p in paths)


# ── the cache ────────────────────────────────────────────────────────────────────────────────


class Cache:
    """Arrays by content, in one SQLite file; only the parent process writes."""

    def __init__(self, path: Path) -> None:
        """Raises OutputError if the file cannot be made."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=60)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value BLOB)")
        except (OSError, sqlite3.Error) as cause:
            raise OutputError(f"{path}: the cache cannot be opened ({cause})") from cause

    def get(self, key: str) -> dict[str, Any] | None:
        """The arrays under a key; numbers come back as numbers."""
        found = self._db.execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()
        if found is None:
            return None
        with np.load(io.BytesIO(found[0]), allow_pickle=False) as arrays:
            return {name: a if a.ndim else a.item() for name, a in arrays.items()}

    def put(self, key: str, arrays: dict[str, Any]) -> None:
        out = io.BytesIO()
        np.savez(out, **arrays)
        self._db.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (key, out.getvalue()))


def _key(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


# ── in the workers ───────────────────────────────────────────────────────────────────────────


class _Worker:
    """What one process keeps: the plan, its networks, the last original."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.codec = functools.lru_cache(None)(plan.codec)
        self.measure = Measure(plan.settings)

    @functools.lru_cache(2)  # noqa: B019
    def original(self, index: int) -> Reference:
        return self.measure.reference(*self.plan.load(index))


_worker: _Worker | None = None


def _begin(plan: Plan) -> None:
    global _worker
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us when it has kept our work
    torch.set_num_threads(1)
    _worker = _Worker(plan)


Job = tuple[str, int, bytes | None, tuple[str, ...] | None]
"""Codec, setting, the stream if it is known, and the metrics wanted (None: just the stream)."""


def _run(index: int, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Codes and measures one picture in several ways; one answer for each job."""
    assert _worker is not None
    plan, done = _worker.plan, []
    reference = _worker.original(index)
    height, width = reference.picture.shape[:2]
    for name, setting, stream, wanted in jobs:
        answer: dict[str, Any] = {}
        try:
            codec = _worker.codec(name)
            labels = reference.labels if codec.needs_labels else None
            if stream is None:
                began = time.process_time()
                stream = codec.encode(reference.picture, setting, labels)
                answer["encode_s"] = time.process_time() - began
                answer["stream"] = stream
            if wanted is not None:
                began = time.process_time()
                picture = codec.decode(stream, width, height)
                answer["decode_s"] = time.process_time() - began
                answer["record"] = _worker.measure(reference, picture, wanted)
        except Exception as error:  # codecs raise what they like; say whose it is
            kind = type(error) if isinstance(error, SempicError) else InputError
            raise kind(f"{name} at {setting}, {plan.items[index].name}: {error}") from None
        done.append(answer)
    return done


def _originals(index: int, wanted: tuple[str, ...]) -> Record:
    assert _worker is not None
    reference = _worker.original(index)
    return _worker.measure.original(reference, wanted)


def _peak(plan: Plan, name: str, setting: int) -> int:
    """Peak memory in bytes of a process of its own that codes and decodes the first picture."""
    import resource

    codec = plan.codec(name)
    picture, labels = plan.load(0)
    stream = codec.encode(picture, setting, labels if codec.needs_labels else None)
    codec.decode(stream, picture.shape[1], picture.shape[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# ── in the parent ────────────────────────────────────────────────────────────────────────────


class Benchmark:
    """A plan under way. Use as a context manager: it starts and stops the processes."""

    def __init__(self, plan: Plan, *, cache: Path, jobs: int | None = None) -> None:
        """`jobs`: processes; None: one for each core."""
        self.plan = plan
        self._cache = Cache(cache)
        self._jobs = jobs or os.cpu_count() or 1
        self._digests: list[tuple[str, str]] = []
        self._pixels: list[int] = []
        for index in range(len(plan.items)):
            picture, labels = plan.load(index)
            digests = [
                ""
                if a is None
                else hashlib.sha256(repr(a.shape).encode() + a.tobytes()).hexdigest()
                for a in (picture, labels)
            ]
            self._digests.append((digests[0], digests[1]))
            self._pixels.append(picture.shape[0] * picture.shape[1])
        self._measure_key = plan.settings.key()
        self._codec = functools.lru_cache(None)(plan.codec)

    def __enter__(self) -> Benchmark:
        self._context = multiprocessing.get_context("spawn")
        self._pool = concurrent.futures.ProcessPoolExecutor(
            self._jobs, self._context, _begin, (self.plan,)
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    # keys

    def _stream_key(self, index: int, name: str, setting: int) -> str:
        codec = self._codec(name)
        picture, labels = self._digests[index]
        # How many steps a receiver takes changes what is decoded, not what is sent.
        sent = re.sub(r"@\d+", "", name)
        return _key("stream", sent, codec.version, setting, picture, labels * codec.needs_labels)

    def _record_key(self, index: int, name: str, setting: int) -> str:
        stream = self._stream_key(index, name, setting)
        return _key("record", name, self._measure_key, stream, self._digests[index][1])

    # work

    def _do(self, wanted: Iterable[tuple[int, list[Job]]], title: str) -> None:
        """Have all jobs done and kept; the bar counts them."""
        tasks = list(wanted)
        futures = {self._pool.submit(_run, index, jobs): (index, jobs) for index, jobs in tasks}
        bar = tqdm(total=sum(len(jobs) for _, jobs in tasks), desc=title, unit="file", disable=None)
        with bar:
            for future in concurrent.futures.as_completed(futures):
                index, jobs = futures[future]
                for (name, setting, _, _), answer in zip(jobs, _result(future), strict=True):
                    self._keep(index, name, setting, answer)
                    bar.update()

    def _keep(self, index: int, name: str, setting: int, answer: dict[str, Any]) -> None:
        if "stream" in answer:
            stream = np.frombuffer(answer["stream"], np.uint8)
            self._cache.put(
                self._stream_key(index, name, setting),
                {"stream": stream, "encode_s": answer["encode_s"]},
            )
        if "record" in answer:
            key = self._record_key(index, name, setting)
            old = self._cache.get(key) or {}
            new = {**old, **answer["record"]}
            new.setdefault("decode_s", answer["decode_s"])
            self._cache.put(key, new)

    def stream(self, index: int, name: str, setting: int) -> tuple[bytes, float] | None:
        """A file that was made before, and the seconds that it took."""
        found = self._cache.get(self._stream_key(index, name, setting))
        return None if found is None else (found["stream"].tobytes(), float(found["encode_s"]))

    def _job(
        self, index: int, name: str, setting: int, wanted: tuple[str, ...] | None
    ) -> Job | None:
        """What is left to do of a point, or None."""
        known = self.stream(index, name, setting)
        left: tuple[str, ...] | None = None
        if wanted is not None:
            record = self._cache.get(self._record_key(index, name, setting)) or {}
            left = tuple(m for m in wanted if not METRICS[m].there(record))
        if known is not None and not left:
            return None
        return name, setting, known[0] if known else None, left or None

    def rate(self, name: str, setting: int) -> float:
        """Mean bpp of a codec at a setting over the probe pictures."""
        count = len(self.plan.items)
        probes = sorted({i * count // PROBES for i in range(min(PROBES, count))})
        jobs = [(i, self._job(i, name, setting, None)) for i in probes]
        futures = [(i, job, self._pool.submit(_run, i, [job])) for i, job in jobs if job]
        for i, job, future in futures:
            self._keep(i, job[0], job[1], _result(future)[0])
        return float(np.mean([self.bpp(i, name, setting) for i in probes]))

    def bpp(self, index: int, name: str, setting: int) -> float:
        """Bits per pixel of a file that was made before."""
        found = self.stream(index, name, setting)
        assert found is not None
        return 8 * len(found[0]) / self._pixels[index]

    def dial(self, name: str, rates: Sequence[float]) -> list[int]:
        """The settings whose rates are nearest to those wanted, each rate once."""
        dial = self._codec(name).settings
        rate = functools.lru_cache(None)(lambda at: self.rate(name, dial[at]))
        found = sorted({nearest(rate, len(dial), target) for target in rates})
        # At the ends of some dials neighbours give the same files.
        return [dial[at] for i, at in enumerate(found) if not i or rate(at) > rate(found[i - 1])]

    def code(self, index: int, name: str, setting: int) -> float:
        """Bits per pixel of one file, which is made if it was not before."""
        if job := self._job(index, name, setting, None):
            self._keep(index, name, setting, _result(self._pool.submit(_run, index, [job]))[0])
        return self.bpp(index, name, setting)

    def near(self, index: int, name: str, bpp: float) -> int:
        """The setting of a codec at which one picture comes nearest to a rate."""
        dial = self._codec(name).settings

        def rate(at: int) -> float:
            return self.code(index, name, dial[at])

        # From below, since codecs are slowest at the upper end of their dials.
        high = next((at for at in _DOUBLING if at >= len(dial) - 1 or rate(at) >= bpp), 0)
        return dial[nearest(rate, min(high + 1, len(dial)), bpp)]

    def measure(self, points: Sequence[tuple[str, int]]) -> None:
        """Has every point (codec, setting) coded and measured on every picture."""
        self.measure_each([points] * len(self.plan.items))

    def measure_each(self, points: Sequence[Sequence[tuple[str, int]]]) -> None:
        """Has of each picture its points (codec, setting) coded and measured."""
        wanted = self.plan.settings.metrics
        tasks = []
        for index, mine in enumerate(points):
            for name in dict.fromkeys(name for name, _ in mine):
                jobs = [self._job(index, name, s, wanted) for n, s in mine if n == name]
                if left := [job for job in jobs if job is not None]:
                    tasks.append((index, left))
        if tasks:
            self._do(tasks, "measure")

    def originals(self) -> list[Record]:
        """Of the originals: the ceiling of mIoU, the target of FID, the reference of objects."""
        wanted = tuple(m for m in self.plan.settings.metrics if METRICS[m].of_originals)
        keys = [_key("original", self._measure_key, *digests) for digests in self._digests]
        records = [self._cache.get(key) or {} for key in keys]
        left = [i for i, r in enumerate(records) if any(not METRICS[m].there(r) for m in wanted)]
        futures = {self._pool.submit(_originals, i, wanted): i for i in left}
        for future in tqdm(
            concurrent.futures.as_completed(futures),
            total=len(futures),
            desc="originals",
            unit="file",
            disable=None if futures else True,
        ):
            i = futures[future]
            records[i] = {**records[i], **_result(future)}
            self._cache.put(keys[i], records[i])
        return records

    def memory(self, name: str, setting: int) -> int:
        """Peak bytes of a process that codes and decodes one picture."""
        key = _key("memory", self._stream_key(0, name, setting), name)
        found = self._cache.get(key)
        if found is None:
            with concurrent.futures.ProcessPoolExecutor(1, self._context) as alone:
                peak = alone.submit(_peak, self.plan, name, setting).result()
            self._cache.put(key, found := {"peak": peak})
        return int(found["peak"])

    def point(self, index: int, name: str, setting: int) -> dict[str, Any]:
        """Record, bpp and seconds of one file; it must have been measured."""
        record = self._cache.get(self._record_key(index, name, setting))
        found = self.stream(index, name, setting)
        assert record is not None
        assert found is not None
        return {**record, "bpp": self.bpp(index, name, setting), "encode_s": found[1]}


def nearest(rate: Callable[[int], float], count: int, target: float) -> int:
    """Where on a rising dial 0…count-1 the rate is nearest to a target, with few looks."""
    low, high = 0, count - 1
    if rate(low) >= target:
        return low
    if rate(high) <= target:
        return high
    while high - low > 1:
        a, b, wanted = math.log(rate(low)), math.log(rate(high)), math.log(target)
        # The secant in log rate, but never closer to an end than an eighth of the stretch.
        share = min(max((wanted - a) / max(b - a, 1e-9), 0.125), 0.875)
        at = min(max(low + round(share * (high - low)), low + 1), high - 1)
        if abs(rate(at) / target - 1) < _NEAR:
            return at
        low, high = (at, high) if rate(at) < target else (low, at)
    return min((low, high), key=lambda at: abs(math.log(rate(at) / target)))


def _result(future: concurrent.futures.Future[Any]) -> Any:
    try:
        return future.result()
    except concurrent.futures.process.BrokenProcessPool:
        raise InputError("a worker process died (out of memory?); run again to go on") from None


# ── the whole ────────────────────────────────────────────────────────────────────────────────


def run(bench: Benchmark, names: Sequence[str], rates: Sequence[float]) -> dict[str, Any]:
    """All figures of a benchmark, as report.json holds them.

    Keys: about (what was run, where and by whom it was judged), originals (a row), codecs
    ({name: {title, points: [row with setting, encode_s, decode_s]}}), matched, bd_rate. Rows are
    those of `measure.row`; seconds are medians of processor time over the pictures.
    """
    plan = bench.plan
    originals = bench.originals()
    points: list[tuple[str, int]] = []
    for name in tqdm(names, desc="rates", unit="codec", disable=None):
        points += [(name, setting) for setting in bench.dial(name, rates)]
    bench.measure(points)
    found: dict[str, Any] = {}
    for name in names:
        rows = []
        for setting in [s for n, s in points if n == name]:
            records = [bench.point(i, name, setting) for i in range(len(plan.items))]
            figures = row(records, originals, [r["bpp"] for r in records])
            seconds = {k: float(np.median([r[k] for r in records])) for k in _SECONDS}
            rows.append({"setting": setting, **figures, **seconds})
        rows.sort(key=lambda r: r["bpp"])
        peak = bench.memory(name, rows[len(rows) // 2]["setting"])
        found[name] = {"title": plan.codec(name).title, "peak_bytes": peak, "points": rows}
    ours = [n for n in names if n.startswith("sempic")]
    anchors = [p["bpp"] for p in found[ours[0]]["points"]] if ours else list(rates)
    return {
        "about": _about(plan),
        "originals": row(originals, originals, None),
        "codecs": found,
        "matched": matched(found, anchors),
        "bd_rate": bd_rates(found, ours[0] if ours else names[0]),
    }


_SECONDS = ("encode_s", "decode_s")


def matched(found: dict[str, Any], rates: Sequence[float]) -> list[dict[str, Any]]:
    """Of every codec, its figures at each rate, between its own points; None out of its reach."""
    table = []
    for bpp in rates:
        for name, codec in found.items():
            curves = {f: curve(codec, f) for f in FIGURES}
            figures = {f: metrics.at_rate(c, bpp) for f, c in curves.items() if c}
            table.append({"bpp": bpp, "codec": name, **figures})
    return table


def bd_rates(found: dict[str, Any], anchor: str) -> dict[str, Any]:
    """{figure: {codec: per cent of rate against the anchor at equal figures, or None}}."""
    return {
        figure.name: {
            name: metrics.bd_rate(
                curve(found[anchor], figure.name),
                curve(codec, figure.name),
                falling=figure.lower,
            )
            for name, codec in found.items()
            if name != anchor
        }
        for figure in FIGURES.values()
        if curve(found[anchor], figure.name)
    }


def curve(codec: dict[str, Any], figure: str) -> list[tuple[float, float]]:
    """(bpp, figure) of a codec's points; empty where it was not measured."""
    return [(p["bpp"], p[figure]) for p in codec["points"] if figure in p]


def _about(plan: Plan) -> dict[str, Any]:
    picture, labels = plan.load(0)
    return {
        "sempic": sempic.__version__,
        "folder": str(plan.items[0].picture.parent),
        "pictures": len(plan.items),
        "size": [picture.shape[1], picture.shape[0]],
        "labels": labels is not None,
        "judge": plan.settings.judge_name,
        "effort": plan.effort,
        "metrics": list(plan.settings.metrics),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "settings": {k: v for k, v in asdict(plan.settings).items() if k != "metrics"},
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write_csv(bench: Benchmark, found: dict[str, Any]) -> str:
    """Every file of a benchmark as one line of CSV."""
    out = io.StringIO()
    names = ["codec", "setting", "picture", "bpp", *_SECONDS, *FIGURES]
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writeheader()
    for name, point, index in each(bench, found):
        record = bench.point(index, name, point["setting"])
        line = {"codec": name, "setting": point["setting"], "picture": bench.plan.items[index].name}
        figures = {**record, **row([record], [], None)}
        line |= {k: f"{figures[k]:.6g}" for k in names if isinstance(figures.get(k), float)}
        writer.writerow(line)
    return out.getvalue()


def each(bench: Benchmark, found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Every (codec, point, picture) of a benchmark."""
    for name, codec in found["codecs"].items():
        for point in codec["points"]:
            for index in range(len(bench.plan.items)):
                yield name, point, index


def summary(found: dict[str, Any]) -> str:
    """Two tables in Markdown: the codecs at the same rates, and every point of every codec."""
    ceiling = found["originals"]
    figures = [
        figure
        for figure in FIGURES.values()
        if figure.brief and any(curve(codec, figure.name) for codec in found["codecs"].values())
    ]
    heads = [figure.title + sample_size(figure, ceiling) for figure in figures]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    rates = list(dict.fromkeys(entry["bpp"] for entry in found["matched"]))
    first = figures[:3]
    lines = [
        line([" / ".join(heads[:3]) + " at", *(f"{bpp:.3f} bpp" for bpp in rates)]),
        line(["---"] * (1 + len(rates))),
    ]
    if "miou" in ceiling:
        lines.append(line([f"originals: mIoU {ceiling['miou']:.3f}", *([""] * len(rates))]))
    for name, codec in found["codecs"].items():
        cells = [codec["title"]]
        for entry in (e for e in found["matched"] if e["codec"] == name):
            there = any(entry.get(f.name) is not None for f in first)
            cells.append(" / ".join(f.text(entry) for f in first) if there else "–")
        lines.append(line(cells))
    lines += ["", line(["", "bpp", *heads])]
    lines.append(line(["---"] * (2 + len(figures))))
    for codec in found["codecs"].values():
        for p in codec["points"]:
            cells = [f.text(p) for f in figures]
            lines.append(line([codec["title"], f"{p['bpp']:.4f}", *cells]))
    return "\n".join(lines)


def sample_size(figure: Figure, row: Row) -> str:
    """What stands after the title of a figure that depends on how many pictures there are."""
    return f" (N = {row[figure.biased_by]})" if figure.biased_by in row else ""


def dump(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=1, ensure_ascii=False)
