"""Every codec on every picture: code, decode, measure, keep.

The work is cut into (picture, codec, setting) and spread over processes; what comes back goes into
a cache by content.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sempic.evaluation.benchmark import dial
from sempic.evaluation.benchmark.cache import Cache, digest, key
from sempic.evaluation.benchmark.plan import Plan
from sempic.evaluation.benchmark.workers import Job, Workers
from sempic.evaluation.measures import METRICS, Record

PROBES = 4
"""Pictures, evenly spread, on which a codec's dial is set."""


class File(NamedTuple):
    """One file that was coded, decoded and measured."""

    stream: bytes
    record: Record
    bpp: float
    encode_s: float
    """Processor time."""
    decode_s: float


class Benchmark:
    """A plan under way. Use as a context manager, which stops the processes at its end."""

    def __init__(self, plan: Plan, *, cache: Path, jobs: int | None = None) -> None:
        """`jobs`: processes; None: one for each core. Raises OutputError for the cache."""
        self.plan = plan
        self._cache = Cache(cache)
        self._workers = Workers(plan, jobs or os.cpu_count() or 1)
        loaded = map(plan.load, range(len(plan.items)))
        sizes = [(p.shape[0] * p.shape[1], digest(p), digest(labels)) for p, labels in loaded]
        self._pixels = [pixels for pixels, *_ in sizes]
        self._digests = [digests for _, *digests in sizes]
        self._measure_key = plan.settings.key()
        self.codec = functools.lru_cache(None)(plan.codec)
        """A codec by its name: once, as some load networks."""

    def __enter__(self) -> Benchmark:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.stop()

    # keys

    def _stream_key(self, index: int, name: str, setting: int) -> str:
        codec = self.codec(name)
        picture, labels = self._digests[index]
        # How many steps a receiver takes changes what is decoded, not what is sent.
        sent = re.sub(r"@\d+", "", name)
        return key("stream", sent, codec.version, setting, picture, labels * codec.needs_labels)

    def _record_key(self, index: int, name: str, setting: int) -> str:
        stream = self._stream_key(index, name, setting)
        return key("record", name, self._measure_key, stream, self._digests[index][1])

    # what was done before

    def stream(self, index: int, name: str, setting: int) -> tuple[bytes, float] | None:
        """A file that was made before, and the seconds that it took."""
        kept = self._cache.get(self._stream_key(index, name, setting))
        return None if kept is None else (kept["stream"].tobytes(), float(kept["encode_s"]))

    def bpp(self, index: int, name: str, setting: int) -> float:
        """Bits per pixel of a file that was made before."""
        kept = self.stream(index, name, setting)
        assert kept is not None
        return 8 * len(kept[0]) / self._pixels[index]

    def file(self, index: int, name: str, setting: int) -> File:
        """All of one file; it must have been measured."""
        record = self._cache.get(self._record_key(index, name, setting))
        kept = self.stream(index, name, setting)
        assert record is not None
        assert kept is not None
        seconds = float(record.pop("decode_s"))
        return File(kept[0], record, self.bpp(index, name, setting), kept[1], seconds)

    # work

    def _left(
        self, points: Iterable[tuple[int, str, int]], wanted: tuple[str, ...] | None
    ) -> list[Job]:
        """What is to be done of points (picture, codec, setting)."""
        jobs = []
        for index, name, setting in points:
            known = self.stream(index, name, setting)
            left = None
            if wanted is not None:
                record = self._cache.get(self._record_key(index, name, setting)) or {}
                left = tuple(m for m in wanted if not METRICS[m].there(record)) or None
            if known is None or left:
                jobs.append(Job(index, name, setting, known[0] if known else None, left))
        return jobs

    def _do(self, jobs: Sequence[Job], title: str = "") -> None:
        for job, answer in self._workers.code(jobs, title):
            assert job.codec is not None
            point = job.picture, job.codec, job.setting
            if answer.stream is not None:
                stream = np.frombuffer(answer.stream, np.uint8)
                kept = {"stream": stream, "encode_s": answer.encode_s}
                self._cache.put(self._stream_key(*point), kept)
            if answer.record is not None:
                old = self._cache.get(self._record_key(*point)) or {}
                new = {"decode_s": answer.decode_s, **old, **answer.record}
                self._cache.put(self._record_key(*point), new)

    def measure(self, points: Sequence[tuple[str, int]]) -> None:
        """Has every point (codec, setting) coded and measured on every picture."""
        self.measure_each([points] * len(self.plan.items))

    def measure_each(self, points: Sequence[Sequence[tuple[str, int]]]) -> None:
        """Has of each picture its points (codec, setting) coded and measured."""
        flat = [(index, *point) for index, mine in enumerate(points) for point in mine]
        self._do(self._left(flat, self.plan.settings.metrics), "measure")

    def originals(self) -> list[Record]:
        """Of the originals: the ceiling of mIoU, the target of FID, the reference of objects."""
        wanted = tuple(m for m in self.plan.settings.metrics if METRICS[m].of_originals)
        keys = [key("original", self._measure_key, *digests) for digests in self._digests]
        records = [self._cache.get(k) or {} for k in keys]
        left = [i for i, r in enumerate(records) if any(not METRICS[m].there(r) for m in wanted)]
        jobs = [Job(index, wanted=wanted) for index in left]
        for (index, *_), answer in self._workers.code(jobs, "originals"):
            records[index] |= answer.record or {}
            self._cache.put(keys[index], records[index])
        return records

    def memory(self, name: str, setting: int) -> int:
        """Peak bytes of a process that codes and decodes one picture."""
        at = key("memory", self._stream_key(0, name, setting), name)
        kept = self._cache.get(at)
        if kept is None:
            self._cache.put(at, kept := {"peak": self._workers.memory(name, setting)})
        return int(kept["peak"])

    # the dial

    def code(self, index: int, name: str, setting: int) -> float:
        """Bits per pixel of one file, which is made if it was not before."""
        self._do(self._left([(index, name, setting)], None))
        return self.bpp(index, name, setting)

    def rate(self, name: str, setting: int) -> float:
        """Mean bpp of a codec at a setting over the probe pictures."""
        count = len(self.plan.items)
        probes = sorted({i * count // PROBES for i in range(min(PROBES, count))})
        self._do(self._left([(i, name, setting) for i in probes], None))
        return float(np.mean([self.bpp(i, name, setting) for i in probes]))

    def dial(self, name: str, rates: Sequence[float]) -> list[int]:
        """The settings whose rates are nearest to those wanted, each rate once."""
        settings = self.codec(name).settings
        rate = functools.lru_cache(None)(lambda at: self.rate(name, settings[at]))
        places = sorted({dial.nearest(rate, len(settings), target) for target in rates})
        # At the ends of some dials neighbours give the same files.
        return [
            settings[at] for i, at in enumerate(places) if not i or rate(at) > rate(places[i - 1])
        ]

    def near(self, index: int, name: str, bpp: float) -> int:
        """The setting of a codec at which one picture comes nearest to a rate."""
        settings = self.codec(name).settings

        def rate(at: int) -> float:
            return self.code(index, name, settings[at])

        return settings[dial.nearest_from_below(rate, len(settings), bpp)]
