"""Every codec on every picture: encode, decode, measure, cache.

Jobs are (picture, codec, setting). Worker processes do them; their answers go into the cache.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sempic import batch, models, processes
from sempic.evaluation.benchmark.cache import Cache, digest, key
from sempic.evaluation.benchmark.plan import Plan
from sempic.evaluation.benchmark.workers import Job, Workers
from sempic.evaluation.dial import nearest
from sempic.evaluation.folders import spread
from sempic.evaluation.measure import row
from sempic.evaluation.measures import METRICS, Record, Row

PROBES = 4
"""Number of pictures, evenly spread, on which a codec's dial is set."""


class File(NamedTuple):
    """A file that was encoded, decoded and measured."""

    stream: bytes
    record: Record
    bpp: float
    encode_s: float
    """Processor time in seconds, as `decode_s`."""
    decode_s: float


class Benchmark:
    """A plan in execution. A context manager: its end stops the worker processes."""

    def __init__(self, plan: Plan, *, cache: Path | None = None, jobs: int | None = None) -> None:
        """`cache`: its file; None: `models.cache`/benchmark.sqlite. `jobs`: number of processes;
        None: one a core.

        Raises InputError for more than `processes.most`, OutputError if the cache cannot be
        opened.
        """
        self.plan = plan
        self._workers = Workers(plan, batch.bounded(jobs or processes.cores()))
        self.sizes: list[tuple[int, int]] = []
        """(width, height) of each picture."""
        self._digests: list[tuple[str, str]] = []
        for picture, labels in map(plan.load, range(len(plan.items))):
            self.sizes.append((picture.shape[1], picture.shape[0]))
            self._digests.append((digest(picture), digest(labels)))
        self._metrics = {m: METRICS[m].key(plan.settings) for m in plan.settings.metrics}
        self.codec = functools.cache(plan.codec)
        """Codec by name, each loaded once."""
        self._version = functools.cache(lambda name: self.codec(name).version)
        # Last, since a failure after it would leave it open.
        self._cache = Cache(cache or models.cache() / "benchmark.sqlite")

    def __enter__(self) -> Benchmark:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.stop()
        self._cache.close()

    def _stream_key(self, index: int, name: str, setting: int) -> str:
        codec = self.codec(name)
        picture, labels = self._digests[index]
        encoder = re.sub(r"@\d+", "", name)  # the receiver's steps do not change the stream
        version = self._version(name)
        return key("stream", encoder, version, setting, picture, labels * codec.needs_labels)

    def _record_keys(self, index: int, name: str | None, setting: int) -> dict[str, str]:
        """By metric; the codec None stands for the original."""
        shown = None if name is None else self._stream_key(index, name, setting)
        about = ("record", name, shown, *self._digests[index])
        return {metric: key(*about, measured) for metric, measured in self._metrics.items()}

    def _record(self, index: int, name: str | None, setting: int) -> Record:
        """The cached measurements of a file, or of the original."""
        record: Record = {}
        for at in self._record_keys(index, name, setting).values():
            record |= self._cache.get(at) or {}
        return record

    def stream(self, index: int, name: str, setting: int) -> tuple[bytes, float] | None:
        """A cached stream and its encoding time in seconds."""
        cached = self._cache.get(self._stream_key(index, name, setting))
        return None if cached is None else (cached["stream"].tobytes(), float(cached["encode_s"]))

    def bpp(self, index: int, name: str, setting: int) -> float:
        """Bits per pixel of a cached stream."""
        cached = self.stream(index, name, setting)
        assert cached is not None
        return 8 * len(cached[0]) / math.prod(self.sizes[index])

    def file(self, index: int, name: str, setting: int) -> File:
        """A file that was measured before."""
        record = self._record(index, name, setting)
        cached = self.stream(index, name, setting)
        assert cached is not None
        stream, encode_s = cached
        decode_s = float(record.pop("decode_s"))
        return File(stream, record, self.bpp(index, name, setting), encode_s, decode_s)

    def row(self, points: Iterable[tuple[int, str, int]], originals: Sequence[Record]) -> Row:
        """The figures over files that were measured before, as of `measure.row`, and the medians
        "encode_s" and "decode_s". `originals`: records of their originals."""
        files = [self.file(*point) for point in points]
        figures = row([file.record for file in files], originals, [file.bpp for file in files])
        times = np.median([(file.encode_s, file.decode_s) for file in files], 0).tolist()
        return figures | dict(zip(("encode_s", "decode_s"), times, strict=True))

    def _do(
        self,
        points: Iterable[tuple[int, str | None, int]],
        metrics: tuple[str, ...] = (),
        title: str = "",
    ) -> None:
        """Encodes and measures points (picture, codec, setting), as far as streams and metrics are
        not cached; the codec None stands for the originals."""
        jobs = []
        for index, name, setting in points:
            coded = None if name is None else self.stream(index, name, setting)
            keys = self._record_keys(index, name, setting)
            missing = tuple(m for m in metrics if keys[m] not in self._cache) or None
            if missing or (name is not None and coded is None):
                jobs.append(Job(index, name, setting, coded and coded[0], missing))
        for job, answer in self._workers.code(jobs, title):
            if answer.stream is not None and job.codec is not None:
                at = self._stream_key(job.picture, job.codec, job.setting)
                self._cache.put(at, answer.stream)
            keys = self._record_keys(job.picture, job.codec, job.setting)
            for metric, record in answer.records.items():
                self._cache.put(keys[metric], record)

    def measure(self, points: Iterable[tuple[int, str, int]]) -> None:
        """Encodes and measures points (picture, codec, setting)."""
        self._do(points, self.plan.settings.metrics, "measure")

    def originals(self) -> list[Record]:
        """Records of the originals: ceiling of mIoU, target of FID, reference of objects."""
        metrics = tuple(m for m in self.plan.settings.metrics if METRICS[m].of_originals)
        points = [(index, None, 0) for index in range(len(self.plan.items))]
        self._do(points, metrics, "originals")
        return [self._record(*point) for point in points]

    def memory(self, name: str, setting: int) -> int:
        """Peak bytes of a process that encodes and decodes one picture."""
        at = key("peak", self._stream_key(0, name, setting), name)
        entry = self._cache.get(at)
        if entry is None:
            self._cache.put(at, entry := {"peak": self._workers.memory(name, setting)})
        return int(entry["peak"])

    def rate(self, name: str, setting: int, *indices: int) -> float:
        """Mean bpp of a codec at a setting over some pictures, by default the probes."""
        indices = indices or tuple(spread(range(len(self.plan.items)), PROBES))
        self._do((i, name, setting) for i in indices)
        return float(np.mean([self.bpp(i, name, setting) for i in indices]))

    def dial(self, name: str, rates: Sequence[float]) -> list[int]:
        """The settings nearest to the given rates, without settings of equal rate."""
        settings = self.codec(name).settings
        rate = functools.cache(lambda at: self.rate(name, settings[at]))
        places = sorted({nearest(rate, len(settings), target) for target in rates})
        # At the ends of some dials, neighbouring settings give the same file.
        return [
            settings[at] for i, at in enumerate(places) if not i or rate(at) > rate(places[i - 1])
        ]
