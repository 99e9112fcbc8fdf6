"""The processes of a benchmark: each codes, decodes and measures one picture at a time."""

from __future__ import annotations

import concurrent.futures
import functools
import multiprocessing
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tqdm import tqdm

from sempic import processes
from sempic.errors import InputError, SempicError, SempicWarning
from sempic.evaluation.benchmark.plan import Plan
from sempic.evaluation.measure import Measure
from sempic.evaluation.measures import Record
from sempic.evaluation.measures.base import Reference


class Job(NamedTuple):
    """A picture to be coded by a codec at a setting, and measured."""

    picture: int
    """Its index in the plan."""
    codec: str | None = None
    """None: the original itself is to be measured."""
    setting: int = 0
    stream: bytes | None = None
    """If it was made before."""
    wanted: tuple[str, ...] | None = None
    """Metrics; None: just the stream."""


class Answer(NamedTuple):
    """What was done of a job; None where that was not asked for."""

    stream: bytes | None = None
    encode_s: float | None = None
    """Processor time."""
    record: Record | None = None
    decode_s: float | None = None


class Workers:
    """Processes that know a plan; they start when there is something to do."""

    def __init__(self, plan: Plan, count: int) -> None:
        self._plan, self._context = plan, multiprocessing.get_context("spawn")
        self._pool = concurrent.futures.ProcessPoolExecutor(count, self._context, _begin, (plan,))

    def stop(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def code(self, jobs: Sequence[Job], title: str = "") -> Iterator[tuple[Job, Answer]]:
        """Jobs as they are done. Those of one picture and codec that follow each other go to one
        process; a bar counts them if there is a title. Raises InputError."""
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
        """Peak bytes of a process of its own that codes and decodes the first picture."""
        with concurrent.futures.ProcessPoolExecutor(1, self._context) as alone:
            return int(_result(alone.submit(_peak, self._plan, codec, setting)))


def _result(future: concurrent.futures.Future[Any]) -> Any:
    try:
        return future.result()
    except concurrent.futures.process.BrokenProcessPool:
        raise InputError("a worker process died (out of memory?); run again to go on") from None


# ── in the processes ─────────────────────────────────────────────────────────────────────────


class _Worker:
    """What one process keeps: the plan, its networks, the last originals."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.codec = functools.lru_cache(None)(plan.codec)
        self.measure = Measure(plan.settings)

    @functools.lru_cache(2)  # noqa: B019
    def original(self, index: int) -> Reference:
        return self.measure.reference(*self.plan.load(index))

    def run(self, job: Job) -> Answer:
        reference = self.original(job.picture)
        if job.codec is None:
            return Answer(record=self.measure.original(reference, job.wanted))
        codec = self.codec(job.codec)
        height, width = reference.picture.shape[:2]
        made, record, encode_s, decode_s = None, None, None, None
        if job.stream is None:
            began = time.process_time()
            labels = reference.labels if codec.needs_labels else None
            made = codec.encode(reference.picture, job.setting, labels)
            encode_s = time.process_time() - began
        if job.wanted is not None:
            began = time.process_time()
            picture = codec.decode(job.stream or made or b"", width, height)
            decode_s = time.process_time() - began
            record = self.measure(reference, picture, job.wanted)
        return Answer(made, encode_s, record, decode_s)


_worker: _Worker | None = None


def _begin(plan: Plan) -> None:
    global _worker
    import torch

    processes.end_with_parent()
    warnings.simplefilter("ignore", SempicWarning)  # each picture's own, at each setting
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us when it has kept our work
    torch.set_num_threads(1)
    _worker = _Worker(plan)


def _run(jobs: Sequence[Job]) -> list[Answer]:
    assert _worker is not None
    done = []
    for job in jobs:
        try:
            done.append(_worker.run(job))
        except Exception as error:  # codecs raise what they like; say whose it is
            kind = type(error) if isinstance(error, SempicError) else InputError
            coded = f"{job.codec} at {job.setting}, " if job.codec else ""
            name = _worker.plan.items[job.picture].name
            raise kind(f"{coded}{name}: {error}") from None
    return done


def _peak(plan: Plan, name: str, setting: int) -> int:
    import resource

    processes.end_with_parent()
    warnings.simplefilter("ignore", SempicWarning)
    codec = plan.codec(name)
    picture, labels = plan.load(0)
    stream = codec.encode(picture, setting, labels if codec.needs_labels else None)
    codec.decode(stream, picture.shape[1], picture.shape[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
