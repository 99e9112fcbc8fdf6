"""A pool of worker processes behind a bounded queue.

Processes, not threads, because the label coder holds the GIL, because a job can be stopped at its
time limit only by ending its process, and because a native decoder may crash on a hostile file.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import signal
import time
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from sempic import processes, progress
from sempic.errors import ImageError, SempicError, noting

log = logging.getLogger("sempic.server")

POLL = 1.0
"""Seconds between two looks whether the client of a waiting job has disconnected."""


class Busy(Exception):
    """No worker was free in time."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """In seconds."""


class QueueFull(Busy):
    """The queue is full."""


class TooSlow(Exception):
    """The job was stopped at its time limit."""


class InternalError(Exception):
    """The worker failed unexpectedly; the log holds the traceback."""


class Disconnected(Exception):
    """The client disconnected while the job waited."""


@dataclass(frozen=True, slots=True)
class Done:
    """A worker's answer."""

    value: Any
    waited: float
    """Seconds in the queue."""
    worked: float
    """Seconds in the worker."""
    notes: list[str]
    """Warnings of the job (SempicWarning)."""


class Pool:
    """Worker processes behind a bounded queue, first come, first served."""

    def __init__(
        self, make: Callable[[], object], *, workers: int, queue: int, seconds: float
    ) -> None:
        """
        Args:
            make: picklable; called once in each worker. The methods of its result (a `Coder`) are
                the verbs.
            workers: number of processes, which run one job at a time each.
            queue: number of jobs that may wait for a worker.
            seconds: time limit of a job, waiting included.
        """
        self._make = make
        self._count, self._limit, self.seconds = workers, workers + queue, seconds
        self.workers: set[Worker] = set()
        self._free: asyncio.Queue[Worker] = asyncio.Queue()
        self._threads = ThreadPoolExecutor(2 * workers, "sempic-worker")
        self._replacing: set[asyncio.Task[None]] = set()
        self._mean = 1.0  # seconds of a job, exponential moving average
        self.accepted = 0
        """Jobs that wait or run."""
        self.running = 0
        self.replaced = 0
        """Workers ended since the start."""

    async def start(self) -> None:
        """Start the workers and wait until all are ready; nothing if they are started already.

        Raises SempicError or InternalError if a worker cannot start.
        """
        if self.workers:
            return
        self._free = asyncio.Queue()  # of this event loop
        try:
            # The first worker compiles missing kernels and keeps them on disk for the others.
            await self._add()
            await asyncio.gather(*(self._add() for _ in range(self._count - 1)))
        except BaseException:
            self.kill()
            raise

    async def run(
        self,
        verb: str,
        *args: Any,
        disconnected: Callable[[], Awaitable[bool]] | None = None,
        **kwargs: Any,
    ) -> Done:
        """A worker's answer to a verb.

        disconnected: tells whether the client has disconnected; a waiting job is dropped then.

        Raises SempicError as the verb does; QueueFull, Busy, TooSlow, InternalError or
        Disconnected.
        """
        if self.accepted >= self._limit:
            raise QueueFull(
                f"the queue is full: {self._limit} requests run or wait", self._retry_after()
            )
        self.accepted += 1
        start = time.perf_counter()
        try:
            worker = await self._turn(disconnected)
            waited = time.perf_counter() - start
            return await self._work(worker, (verb, args, kwargs), waited)
        finally:
            self.accepted -= 1

    async def _turn(self, disconnected: Callable[[], Awaitable[bool]] | None) -> Worker:
        """A worker, when the turn of a job has come. Raises Busy or Disconnected."""
        end = time.perf_counter() + self.seconds
        free = asyncio.ensure_future(self._free_worker())
        try:
            while True:
                left = end - time.perf_counter()
                await asyncio.wait({free}, timeout=min(POLL, left))
                if disconnected is not None and await disconnected():
                    raise Disconnected
                if free.done():
                    return free.result()
                if left <= 0:
                    message = f"no worker was free within {self.seconds:g} s"
                    raise Busy(message, self._retry_after())
        except BaseException:
            if not free.cancel():
                self._free.put_nowait(free.result())
            raise

    def is_alive(self) -> bool:
        """Whether a worker lives or starts; dead ones that wait for a job are replaced."""
        for _ in range(self._free.qsize()):
            worker = self._free.get_nowait()
            if worker.process.is_alive():
                self._free.put_nowait(worker)
            else:
                self._discard(worker)
        return any(worker.process.is_alive() for worker in self.workers)

    async def _free_worker(self) -> Worker:
        """The next free worker that lives; dead ones are replaced."""
        while not (worker := await self._free.get()).process.is_alive():
            self._discard(worker)
        return worker

    async def _work(self, worker: Worker, job: Any, waited: float) -> Done:
        self.running += 1
        start = time.perf_counter()
        try:
            loop = asyncio.get_running_loop()
            call = loop.run_in_executor(self._threads, worker.call, job)
            answer = await asyncio.wait_for(call, self.seconds - waited)
        except BaseException as error:  # the worker is still at the job, or dead
            self._discard(worker)  # which ends the call in its thread, too
            if isinstance(error, asyncio.TimeoutError):
                raise TooSlow(f"stopped after {self.seconds:g} s, the limit of a job") from None
            raise
        finally:
            self.running -= 1
        self._free.put_nowait(worker)
        worked = time.perf_counter() - start
        self._mean += 0.1 * (worked - self._mean)
        if isinstance(answer, SempicError):
            raise answer
        if isinstance(answer, InternalError):
            log.error("a job failed", extra={"fields": {"verb": job[0], "cause": str(answer)}})
            raise InternalError("an internal error")
        value, notes = answer
        return Done(value, waited, worked, notes)

    def kill(self) -> None:
        """End all workers at once; `run` must not be called afterwards."""
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
        fault = await loop.run_in_executor(self._threads, worker.wait_until_ready)
        if fault is not None:
            self.workers.discard(worker)
            worker.kill()
            raise fault
        self._free.put_nowait(worker)

    def _discard(self, worker: Worker) -> None:
        if worker not in self.workers:  # the pool has ended
            return
        self.workers.remove(worker)
        worker.kill()
        self.replaced += 1
        log.warning("a worker is replaced", extra={"fields": {"pid": worker.process.pid}})
        task = asyncio.get_running_loop().create_task(self._replace())
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _replace(self) -> None:
        """Starts a new worker, with retries until one starts."""
        for pause in itertools.chain((0, 1, 5), itertools.repeat(30)):
            await asyncio.sleep(pause)
            try:
                return await self._add()
            except (SempicError, InternalError) as fault:
                log.error("a worker cannot be replaced", extra={"fields": {"cause": str(fault)}})

    def _retry_after(self) -> int:
        return min(60, max(1, math.ceil(self._mean * self.accepted / self._count)))


class Worker:
    """A worker process, seen from the server. Methods block, so threads call them."""

    def __init__(self, make: Callable[[], object]) -> None:
        self.process, self._pipe = processes.child(_serve, make)

    def wait_until_ready(self) -> SempicError | InternalError | None:
        """Wait for the start of the process; returns the error if it fails."""
        try:
            while isinstance(message := self._pipe.recv(), str):
                log.info(message)
        except (EOFError, OSError):
            return InternalError("a worker process ended while it started")
        assert message is None or isinstance(message, (SempicError, InternalError))
        return message

    def call(self, job: Any) -> Any:
        """Raises InternalError if the process dies."""
        try:
            self._pipe.send(job)
            return self._pipe.recv()
        except (EOFError, OSError):
            raise InternalError("the worker process died") from None

    def kill(self) -> None:
        self.process.kill()
        self.process.join(5)


def _serve(pipe: Connection, make: Callable[[], object]) -> None:
    """The main loop of a worker process, until the pipe closes.

    The worker sends lines of text while it starts, then None, then for each job a value with its
    notes, a SempicError, or InternalError with the traceback of any other exception.
    """
    # Ctrl-C and service managers signal the whole process group; accepted jobs are finished first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    processes.watch_parent()
    try:
        with progress.shown(pipe.send):
            verbs = make()
    except BaseException as error:
        last_line = traceback.format_exc().strip().splitlines()[-1]
        broken = InternalError(f"a worker process cannot start: {last_line}")
        pipe.send(error if isinstance(error, SempicError) else broken)
        return
    pipe.send(None)
    with contextlib.suppress(EOFError, OSError):  # the server has ended
        while True:
            verb, args, kwargs = pipe.recv()
            answer: Any
            try:
                with noting() as notes:
                    value = getattr(verbs, verb)(*args, **kwargs)
                answer = value, notes
            except SempicError as error:
                answer = error
            except MemoryError:
                answer = ImageError("not enough memory for this request")
            except Exception:
                answer = InternalError(traceback.format_exc())
            pipe.send(answer)
