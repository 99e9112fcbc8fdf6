"""Three ways to have work done; each yields (job, records) as they come.

Failures are records, so that one bad file never stops the rest.
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

from sempic import processes
from sempic.batch.work import Record, Work, attempt
from sempic.errors import InputError, install_hint, line, refused
from sempic.jobs import Job

ENGINES = ("pool", "ray")
_BLOCK = 16
"""Jobs that travel together through Ray Data; what is under way at an interruption is lost."""
Done = Iterator[tuple[Job, list[Record]]]


def run(work: Work, jobs: list[Job], *, engine: str = "pool", workers: int = 1) -> Done:
    """By one of ENGINES: "pool", processes of this machine (this one, for one worker), or "ray"."""
    if engine == "ray" and jobs:
        return in_ray(work, jobs, workers)
    if workers > 1 and len(jobs) > 1:
        return in_processes(work, jobs, workers)
    return here(work, jobs)


def here(work: Work, jobs: list[Job]) -> Done:
    """One after another, in this process."""
    for job in jobs:
        yield job, attempt(work, job)


def in_processes(work: Work, jobs: list[Job], workers: int) -> Done:
    """In so many processes of one thread each; in the order of the jobs.

    A process that dies costs the file that it was at, and is replaced. None outlives this one.
    """
    for name, value in _one_thread().items():
        os.environ.setdefault(name, value)
    waiting = deque(enumerate(jobs))
    done: dict[int, list[Record]] = {}
    crew: list[_Process] = []
    idle: list[_Process] = []
    try:
        for number, job in enumerate(jobs):
            while number not in done:
                while waiting and (idle or len(crew) < workers):
                    if not idle:
                        crew.append(_Process(work))
                        idle.append(crew[-1])
                    idle.pop().begin(*waiting.popleft())
                for process in _ready(crew):
                    at, records = process.end()
                    done[at] = records
                    if process.lost:
                        crew.remove(process)
                    else:
                        idle.append(process)
            yield job, done.pop(number)
    finally:
        for process in crew:
            process.stop()


class _Process:
    """The parent's end of a process that does one job after another.

    Not concurrent.futures': there a process that dies takes all jobs with it, and the processes
    stay behind when the parent is killed.
    """

    def __init__(self, work: Work) -> None:
        self._process, self.pipe = processes.child(_live, work)
        self._job: tuple[int, Job] | None = None
        self.lost = False

    def begin(self, number: int, job: Job) -> None:
        self._job = number, job
        with contextlib.suppress(OSError):  # it has died: `end` says so
            self.pipe.send(job)

    def end(self) -> tuple[int, list[Record]]:
        assert self._job is not None
        number, job = self._job
        self._job = None
        try:
            records: list[Record] = self.pipe.recv()
        except (EOFError, OSError):
            self.lost = True
            self.stop()
            return number, [{"path": job.name, "error": "a worker process died"}]
        return number, records

    @property
    def busy(self) -> bool:
        return self._job is not None

    def stop(self) -> None:
        self.pipe.close()
        processes.stop(self._process)


def _ready(crew: list[_Process]) -> list[_Process]:
    """Those that have answered or died; waits for one."""
    pipes = {process.pipe: process for process in crew if process.busy}
    found: Any = wait(list(pipes))
    return [pipes[pipe] for pipe in found]


def _live(pipe: Connection, work: Work) -> None:
    """The life of a process: until the pipe closes or the parent ends."""
    processes.end_with_parent()
    with contextlib.suppress(EOFError, OSError):
        while True:
            pipe.send(attempt(work, pipe.recv()))


def in_ray(work: Work, jobs: list[Job], workers: int) -> Done:
    """By so many actors of Ray Data, in whatever order they finish; extra `ray`.

    The cluster is the one that RAY_ADDRESS names, else one on this machine that ends with us.

    Raises:
        InputError: Ray is missing, or the cluster fails.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_worker_niceness", "0")  # how nice to be is the user's to say
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise InputError(f"--engine ray needs ray; {install_hint('ray')}") from error

    ours = not ray.is_initialized()
    if ours:
        with refused(InputError, "ray", Exception):  # Ray raises plain ones, too
            ray.init(
                num_cpus=None if "RAY_ADDRESS" in os.environ else workers + 1,  # one for Ray Data
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = [{"id": i, "job": pickle.dumps(job)} for i, job in enumerate(jobs)]
    worker: Any = _Worker
    try:
        blocks = max(workers, -(-len(jobs) // _BLOCK))
        done = ray.data.from_items(rows, override_num_blocks=min(len(jobs), blocks)).map(
            worker,
            fn_constructor_args=(work,),
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(jobs))),
            num_cpus=1,
        )
        for row in done.iter_rows():
            yield jobs[row["id"]], json.loads(row["records"])
    except ray.exceptions.RayError as error:
        raise InputError(f"ray: {line(error)}") from error
    finally:
        if ours:
            ray.shutdown()


class _Worker:
    """An actor of Ray Data: rows with a pickled job come back with its records as JSON."""

    def __init__(self, work: Work) -> None:
        os.environ |= _one_thread()
        self._work = work

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        records = attempt(self._work, pickle.loads(row["job"]))
        return {"id": row["id"], "records": json.dumps(records)}


def _one_thread() -> dict[str, str]:
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "SEMPIC_THREADS"), "1")
