"""Worker processes, which encode, decode and measure one picture at a time."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from sempic import processes
from sempic.errors import InputError, SempicError, SempicWarning
from sempic.evaluation.benchmark.plan import Plan
from sempic.evaluation.measure import Measure
from sempic.evaluation.measures import Record
from sempic.evaluation.measures.base import Reference

T = TypeVar("T")
_STATUS = Path("/proc/self/status")


class Job(NamedTuple):
    """Encode a picture with a codec at a setting, and measure it."""

    picture: int
    """Its index in the plan."""
    codec: str | None = None
    """None: measure the original."""
    setting: int = 0
    stream: bytes | None = None
    """The cached stream, which is then not encoded again."""
    metrics: tuple[str, ...] | None = None
    """Of the decoded picture; None: only encode, (): also decode."""


class Answer(NamedTuple):
    """Results of a job, as they are cached; None for steps that it did not need."""

    stream: dict[str, Any] | None = None
    """The stream, uint8, and "encode_s", processor time in seconds, as "decode_s"."""
    records: Mapping[str, Record] = {}
    """By metric; of a decoded picture each with "decode_s", too."""


class Workers:
    """A pool of processes that have the plan; they start with the first job."""

    def __init__(self, plan: Plan, count: int) -> None:
        import torch  # noqa: F401  # if it is missing, the error is that of this process

        self._processes = functools.partial(
            concurrent.futures.ProcessPoolExecutor,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(plan,),
        )
        self._pool = self._processes(count)

    def stop(self) -> None:
        """Ends the processes, also amid a job, which can take minutes and has no taker any more."""
        _end(self._pool)

    def code(self, jobs: Sequence[Job], title: str = "") -> Iterator[tuple[Job, Answer]]:
        """Yields jobs with their answers, in order of completion. Raises InputError.

        One process does all jobs of a picture and codec. A title shows a progress bar.
        """
        tasks: dict[tuple[int, str | None], list[Job]] = {}
        for job in jobs:
            tasks.setdefault((job.picture, job.codec), []).append(job)
        futures = {self._pool.submit(_run, task): task for task in tasks.values()}
        hidden = None if title and jobs else True
        with tqdm(total=len(jobs), desc=title, unit="file", disable=hidden) as bar:
            for future in concurrent.futures.as_completed(futures):
                for job, answer in zip(futures[future], _result(future), strict=True):
                    yield job, answer
                    bar.update()

    def memory(self, codec: str, setting: int) -> int:
        """Peak bytes of a fresh process that encodes and decodes the first picture; 0: unknown."""
        alone = self._processes(1)
        try:
            return int(_result(alone.submit(_peak, Job(0, codec, setting, metrics=()))))
        finally:
            _end(alone)


def _end(pool: concurrent.futures.ProcessPoolExecutor) -> None:
    for process in [*(pool._processes or {}).values()]:  # `kill_workers` is new in Python 3.14
        process.kill()  # they hold no files, and an encoder heeds no SIGTERM
    pool.shutdown(cancel_futures=True)


def _result(future: concurrent.futures.Future[Any]) -> Any:
    try:
        return future.result()
    except concurrent.futures.process.BrokenProcessPool:
        raise InputError("a worker process died (out of memory?); run again to go on") from None


# ── in the processes ─────────────────────────────────────────────────────────────────────────


class _Worker:
    """State of one process: the plan, loaded codecs and networks, the last originals."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.codec = functools.cache(plan.codec)
        self.measure = Measure(plan.settings)
        self._done: set[str] = set()

    @functools.lru_cache(2)  # noqa: B019
    def original(self, index: int) -> Reference:
        return self.measure.reference(*self.plan.load(index))

    def run(self, job: Job) -> Answer:
        reference = self.original(job.picture)
        if job.codec is None:
            metrics = job.metrics or ()
            return Answer(records={m: self.measure.original(reference, [m]) for m in metrics})
        codec = self.codec(job.codec)
        height, width = reference.picture.shape[:2]
        encoded, records, stream = None, {}, job.stream
        if stream is None:
            labels = reference.labels if codec.needs_labels else None
            encode = functools.partial(codec.encode, reference.picture, job.setting, labels)
            made, seconds = self._timed(f"{job.codec} encodes", encode)
            encoded = {"stream": np.frombuffer(made, np.uint8), "encode_s": seconds}
            stream = made
        if job.metrics is not None:
            decode = functools.partial(codec.decode, stream, width, height)
            picture, seconds = self._timed(f"{job.codec} decodes", decode)
            shown = self.measure.reference(picture)
            for metric in job.metrics:
                record = self.measure(reference, shown, [metric])
                records[metric] = {**record, "decode_s": seconds}
        return Answer(encoded, records)

    def _timed(self, what: str, work: Callable[[], T]) -> tuple[T, float]:
        """What some work gives, and its processor time in seconds. Its first time here, which also
        loads networks and libraries, does not count: it is repeated."""
        if what not in self._done:
            work()
            self._done.add(what)
        began = time.process_time()
        return work(), time.process_time() - began


_worker: _Worker | None = None


def _begin(plan: Plan) -> None:
    global _worker
    processes.end_with_parent()
    warnings.simplefilter("ignore", SempicWarning)  # would repeat for each setting
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us
    # One thread for PyTorch, which most metrics do not need and which takes seconds to import.
    os.environ["OMP_NUM_THREADS"] = "1"
    _worker = _Worker(plan)


def _run(jobs: Sequence[Job]) -> list[Answer]:
    assert _worker is not None
    done = []
    for job in jobs:
        try:
            done.append(_worker.run(job))
        except Exception as error:  # libraries raise all kinds of errors; name codec and picture
            kind = type(error) if isinstance(error, SempicError) else InputError
            coded = f"{job.codec} at {job.setting}, " if job.codec else ""
            name = _worker.plan.items[job.picture].name
            raise kind(f"{coded}{name}: {error}") from None
    return done


def _peak(job: Job) -> int:
    _run([job])
    # getrusage would count what the parent had when it started us, which is more.
    with contextlib.suppress(OSError, TypeError):  # no such file, or no such line in it
        high: Any = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text("utf-8", "replace"))
        return 1024 * int(high[1])
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
