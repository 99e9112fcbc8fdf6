"""The bounded pool of worker processes behind the server.

Processes, not threads: the label coder holds Python's lock, a job that takes too long can only be
stopped by ending its process, and a native decoder that crashed on a hostile file would take
the server with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import math
import signal
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from sempic import processes, progress
from sempic.batch.work import noting
from sempic.errors import ImageError, SempicError

log = logging.getLogger("sempic.server")


class Busy(Exception):
    """No worker was free in time."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """In seconds."""


class QueueFull(Busy):
    """No place in the queue."""


class TooSlow(Exception):
    """The job was stopped at its time limit."""


class Broken(Exception):
    """The worker failed in a way that is no error of ours; the log knows more."""


class Gone(Exception):
    """Whoever asked hung up while the job waited."""


@dataclass(frozen=True, slots=True)
class Done:
    """An answer of a worker."""

    value: Any
    waited: float
    """Seconds in the queue."""
    worked: float
    """Seconds in the worker."""
    notes: Sequence[str] = ()
    """What is to be said of it (SempicWarning)."""


class Pool:
    """Worker processes behind a bounded queue, first come, first served."""

    def __init__(
        self, make: Callable[[], object], *, workers: int, queue: int, seconds: float
    ) -> None:
        """
        Args:
            make: run once in each worker, so it must pickle; the methods of what it returns (a
                `Coder`) are the verbs.
            workers: processes, each of which does one job at a time.
            queue: jobs that may wait for one.
            seconds: limit of a job, waiting included.
        """
        self._make = make
        self._count, self._places, self.seconds = workers, workers + queue, seconds
        self.workers: set[Worker] = set()
        self._free: asyncio.Queue[Worker] = asyncio.Queue()
        self._threads = ThreadPoolExecutor(2 * workers, "sempic-worker")
        self._replacing: set[asyncio.Task[None]] = set()
        self._mean = 1.0  # seconds of a job, recent ones counting most
        self.accepted = 0
        """Jobs that wait or run."""
        self.running = 0
        self.replaced = 0
        """Workers that had to be ended, since the start."""

    async def start(self) -> None:
        """Returns when all workers are ready, at once if they are; raises SempicError or Broken if
        one of them cannot be."""
        if self.workers:
            return
        self._free = asyncio.Queue()
        try:
            # The first compiles what is not on disk yet; the others find it there.
            await self._add()
            await asyncio.gather(*(self._add() for _ in range(self._count - 1)))
        except BaseException:
            self.kill()
            raise

    async def run(
        self,
        verb: str,
        *args: Any,
        gone: Callable[[], Awaitable[bool]] | None = None,
        **kwargs: Any,
    ) -> Done:
        """The answer of a worker's verb.

        `gone` is asked when the job's turn comes; a job that nobody waits for is not done.

        Raises SempicError as the verb does; QueueFull, Busy, TooSlow, Broken or Gone.
        """
        if self.accepted >= self._places:
            raise QueueFull(f"all {self._places} places are taken", self._retry_after())
        self.accepted += 1
        start = time.perf_counter()
        try:
            try:
                worker = await asyncio.wait_for(self._alive(), self.seconds)
            except asyncio.TimeoutError:
                message = f"no worker was free within {self.seconds:g} s"
                raise Busy(message, self._retry_after()) from None
            waited = time.perf_counter() - start
            if gone is not None and await gone():
                self._free.put_nowait(worker)
                raise Gone
            return await self._work(worker, (verb, args, kwargs), waited)
        finally:
            self.accepted -= 1

    async def _alive(self) -> Worker:
        """The next free worker; those that died while they waited are replaced."""
        while not (worker := await self._free.get()).process.is_alive():
            self._discard(worker)
        return worker

    async def _work(self, worker: Worker, job: Any, waited: float) -> Done:
        self.running += 1
        start = time.perf_counter()
        try:
            call = functools.partial(worker.call, job, max(0.0, self.seconds - waited))
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except BaseException as error:  # cut off in the middle: this worker is of no more use
            self._discard(worker)
            if isinstance(error, TooSlow):
                raise TooSlow(f"stopped after {self.seconds:g} s, the limit of a job") from None
            raise
        finally:
            self.running -= 1
        self._free.put_nowait(worker)
        worked = time.perf_counter() - start
        self._mean += 0.1 * (worked - self._mean)
        if isinstance(answer, SempicError):
            raise answer
        if isinstance(answer, Broken):
            log.error("a job failed", extra={"fields": {"verb": job[0], "cause": str(answer)}})
            raise Broken("an internal error")
        value, notes = answer
        return Done(value, waited, worked, notes)

    def kill(self) -> None:
        """Ends all workers at once; there is no run after that."""
        for task in self._replacing:
            task.cancel()
        for worker in list(self.workers):
            worker.kill()
        self.workers.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _add(self) -> None:
        worker = Worker(self._make)
        self.workers.add(worker)
        loop = asyncio.get_running_loop()
        fault = await loop.run_in_executor(self._threads, worker.ready)
        if fault is not None:
            self.workers.discard(worker)
            worker.kill()
            raise fault
        self._free.put_nowait(worker)

    def _discard(self, worker: Worker) -> None:
        self.workers.discard(worker)
        worker.kill()
        self.replaced += 1
        log.warning("a worker is replaced", extra={"fields": {"pid": worker.process.pid}})
        task = asyncio.get_running_loop().create_task(self._replace())
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _replace(self) -> None:
        """A new worker in place of one that ended, however often it must be tried."""
        for pause in itertools.chain((0, 1, 5), itertools.repeat(30)):
            await asyncio.sleep(pause)
            try:
                return await self._add()
            except (SempicError, Broken) as fault:
                log.error("a worker cannot be replaced", extra={"fields": {"cause": str(fault)}})

    def _retry_after(self) -> int:
        return min(60, max(1, math.ceil(self._mean * self.accepted / self._count)))


class Worker:
    """The parent's end of one process. Methods block; they are called in threads."""

    def __init__(self, make: Callable[[], object]) -> None:
        self.process, self._pipe = processes.child(_serve, make)

    def ready(self) -> SempicError | Broken | None:
        """Waits for the process to be ready; what went wrong if it cannot be."""
        try:
            while isinstance(fault := self._pipe.recv(), str):
                log.info(fault)
        except (EOFError, OSError):
            return Broken("a worker process ended while it started")
        assert fault is None or isinstance(fault, (SempicError, Broken))
        return fault

    def call(self, job: Any, seconds: float) -> Any:
        """Raises TooSlow after `seconds`, Broken if the process dies."""
        try:
            self._pipe.send(job)
            if not self._pipe.poll(seconds):
                raise TooSlow
            return self._pipe.recv()
        except (EOFError, OSError):
            raise Broken("the worker process died") from None

    def kill(self) -> None:
        self.process.kill()
        self.process.join(5)


def _serve(pipe: Connection, make: Callable[[], object]) -> None:
    """The life of a worker process: until the pipe closes.

    It sends lines of text while it starts, then None, then an answer to each job: a value and notes
    of it. An error of ours is sent as it is, any other as Broken with its traceback.
    """
    # Ctrl-C and a service manager signal the whole group, but accepted work is to be finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    processes.watch_parent()
    try:
        with progress.shown(pipe.send):
            verbs = make()
    except BaseException as error:
        last = traceback.format_exc().strip().splitlines()[-1]
        broken = Broken(f"a worker process cannot start: {last}")
        pipe.send(error if isinstance(error, SempicError) else broken)
        return
    pipe.send(None)
    with contextlib.suppress(EOFError, OSError):  # the server has gone
        while True:
            verb, args, kwargs = pipe.recv()
            answer: Any
            try:
                with noting() as record:
                    value = getattr(verbs, verb)(*args, **kwargs)
                answer = value, record.get("notes", ())
            except SempicError as error:
                answer = error
            except MemoryError:
                answer = ImageError("not enough memory for this")
            except Exception:
                answer = Broken(traceback.format_exc())
            pipe.send(answer)
