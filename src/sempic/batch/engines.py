"""Three engines that run work and yield (job, records).

A failure becomes a record, so that a bad file does not stop the others.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from sempic import checks, processes
from sempic.batch.work import Record, Work, attempt
from sempic.errors import InputError, install_hint, line, refused
from sempic.jobs import Job

ENGINES = ("pool", "ray")
_BLOCK = 16
"""Jobs in a block of Ray Data; an interruption loses unfinished blocks."""
Done = Iterator[tuple[Job, list[Record]]]


def run(work: Work, jobs: list[Job], *, engine: str = "pool", workers: int = 1) -> Done:
    """Run work with one of ENGINES: "pool" (local processes; this process for one worker) or
    "ray". Raises InputError for another engine, or more than `processes.most` local ones."""
    if checks.one_of("engine", engine, ENGINES) == "ray":
        return in_ray(work, jobs, workers)
    count = bounded(min(workers, len(jobs)))
    if count > 1:
        return in_processes(work, jobs, count)
    return here(work, jobs)


def bounded(count: int) -> int:
    """A number of local processes. Raises InputError for more than `processes.most`."""
    if count > (most := processes.most()):
        raise InputError(f"{count} processes at once: this machine takes at most {most} --jobs")
    return count


def here(work: Work, jobs: list[Job]) -> Done:
    """Run jobs one after another in this process."""
    for job in jobs:
        yield job, attempt(work, job)


def in_processes(work: Work, jobs: list[Job], workers: int) -> Done:
    """Run jobs in `workers` processes of one thread each; yields in the order of the jobs.

    If a process dies, its job fails and a new process replaces it. All processes end with this one.
    """
    inherited = {name: v for name, v in _one_thread().items() if name not in os.environ}
    os.environ |= inherited
    waiting = deque(enumerate(jobs))
    done: dict[int, list[Record]] = {}
    running = [_Process(work) for _ in jobs[:workers]]
    try:
        for process in running:
            process.begin(*waiting.popleft())
        for number, job in enumerate(jobs):
            while number not in done:
                busy = {process.pipe: process for process in running if process.busy}
                ready: Any = wait(list(busy))  # until a process has answered or died
                for process in map(busy.__getitem__, ready):
                    finished, records = process.end()
                    done[finished] = records
                    if waiting:
                        process.begin(*waiting.popleft())
            yield job, done.pop(number)
    finally:
        for process in running:
            process.stop()
        for name in inherited:
            os.environ.pop(name, None)


class _Process:
    """A worker process, seen from the parent; begun anew after a job that ended it.

    In place of concurrent.futures, where all jobs fail if a process dies, and where processes
    outlive a parent that is killed.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._process: Any = None
        self.pipe: Any = None
        self._job: tuple[int, Job] | None = None

    def begin(self, number: int, job: Job) -> None:
        if self._process is None:
            self._process, self.pipe = processes.child(_serve, self._work)
        self._job = number, job
        with contextlib.suppress(OSError):  # the process has died: `end` reports that
            self.pipe.send(job)

    def end(self) -> tuple[int, list[Record]]:
        """The number and records of the job."""
        assert self._job is not None
        number, job = self._job
        self._job = None
        try:
            return number, self.pipe.recv()
        except (EOFError, OSError):
            self.stop()
            return number, [{"path": job.name, "error": "a worker process died"}]

    @property
    def busy(self) -> bool:
        return self._job is not None

    def stop(self) -> None:
        if self._process is not None:
            self.pipe.close()
            processes.stop(self._process)
            self._process = None


def _serve(pipe: Connection, work: Work) -> None:
    """The main loop of a worker process, until the pipe closes or the parent ends."""
    processes.end_with_parent()
    with contextlib.suppress(EOFError, OSError):
        while True:
            pipe.send(attempt(work, pipe.recv()))


def in_ray(work: Work, jobs: list[Job], workers: int) -> Done:
    """Run jobs in `workers` actors of Ray Data (extra `ray`); yields in the order of completion.

    Uses the cluster of RAY_ADDRESS, or starts a local cluster and ends it.

    Raises:
        InputError: Ray is missing, or the cluster fails.
    """
    if not jobs:  # Ray Data takes no empty lists
        return
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_worker_niceness", "0")  # keep the user's niceness
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise InputError(f"--engine ray needs ray; {install_hint('ray')}") from error

    started_here = not ray.is_initialized()
    if started_here:
        with refused(InputError, "ray", Exception):  # Ray's exceptions have no common base class
            ray.init(
                num_cpus=None if "RAY_ADDRESS" in os.environ else workers + 1,  # one for Ray Data
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = [{"id": i, "job": pickle.dumps(job)} for i, job in enumerate(jobs)]
    actor: Any = _Actor
    try:
        blocks = max(workers, -(-len(jobs) // _BLOCK))
        done = ray.data.from_items(rows, override_num_blocks=min(len(jobs), blocks)).map(
            actor,
            fn_constructor_args=(work,),
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(jobs))),
            num_cpus=1,
        )
        for row in done.iter_rows():
            yield jobs[row["id"]], json.loads(row["records"])
    except ray.exceptions.RayError as error:
        raise InputError(f"ray: {line(error)}") from error
    finally:
        if started_here:
            ray.shutdown()


class _Actor:
    """An actor of Ray Data: row with a pickled job → row with its records as JSON.

    The work is done in a process of its own: Ray would repeat a job that ends its actor for ever.
    """

    def __init__(self, work: Work) -> None:
        os.environ |= _one_thread()
        self._process = _Process(work)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        self._process.begin(row["id"], pickle.loads(row["job"]))
        number, records = self._process.end()
        return {"id": number, "records": json.dumps(records)}


def _one_thread() -> dict[str, str]:
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "SEMPIC_THREADS"), "1")
