"""ONNX Runtime: all sessions start here."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from sempic import console, processes
from sempic.errors import InputError, ModelError, refused, warn, warnings_held

_T = TypeVar("_T")
_MOST_THREADS = 256
_lock = processes.ForkSafeLock()


class _Worker(threading.local):
    """What a thread of `workers` knows; the defaults are those of other threads."""

    threads = 0
    """Threads per network; 0: as elsewhere."""
    over = threading.Event()
    """Set when nobody waits for results any more."""


_worker = _Worker()
_arena_of: int | None = None
"""The process whose sessions share an arena; not the child of its fork, where the arena may be
locked by a thread that is not there."""


class Session:
    """An ONNX file under ONNX Runtime.

    Sessions can be copied, pickled (by path), and used after a fork: the child of a fork has none
    of the session's threads, so it starts a session of its own.
    """

    def __init__(self, path: Path) -> None:
        """Raises ModelError for a missing file, or one that is no ONNX model."""
        self._path = path.absolute()
        self._shown = path
        self._inner: dict[tuple[int, int], Any] = {}
        """By the process, and `_Worker.threads`."""
        self.inner()

    def inner(self) -> Any:
        """onnxruntime's session in this process: that of all cores, or that of a thread of
        `workers`."""
        share = _worker.threads
        key = os.getpid(), share
        if key not in self._inner:
            with _lock():
                if key not in self._inner:
                    self._inner[key] = _start(self._path, self._shown, share or _usual())
        return self._inner[key]

    def __reduce__(self) -> Any:
        return Session, (self._path,)


def load(path: Path) -> tuple[Session, dict[str, Any]]:
    """A session of an ONNX file, and its metadata under "sempic" ({} if missing).

    Raises:
        ModelError: a missing file, no ONNX model, or malformed metadata.
    """
    session = Session(path)
    with refused(ModelError, f"{path}: not a usable ONNX model", Exception, unfit=True):
        metadata = session.inner().get_modelmeta().custom_metadata_map
        return session, dict(json.loads(metadata.get("sempic", "{}")))


def threads() -> int:
    """Threads per network, from SEMPIC_THREADS; 0: one per core.

    Raises InputError if the variable is no such number.
    """
    given = os.environ.get("SEMPIC_THREADS", "").strip()
    if not given:
        return 0
    if not (given.isascii() and given.isdigit() and len(given) < 5 and int(given) <= _MOST_THREADS):
        raise InputError(
            f"SEMPIC_THREADS is the number of threads of a network, up to {_MOST_THREADS}, or 0 "
            f"for all cores, not {given[:40]!r}"
        )
    return int(given)


def _usual() -> int:
    """Threads per network outside `workers`; 0: as many as ONNX Runtime takes, one per core."""
    return threads() or (processes.cores() if processes.quota() else 0)


def cores() -> int:
    """The cores that networks may use. Raises InputError as `threads`."""
    return threads() or processes.cores()


def at_once(most: int) -> int:
    """How many calls `workers` had better run at a time: one a core, and at most `most`; 1 in its
    own threads, and once the main thread has ended, when some versions of Python start none."""
    if _worker.threads or not threading.main_thread().is_alive():
        return 1
    return min(most, cores())


@contextlib.contextmanager
def workers(count: int) -> Iterator[Callable[[Callable[[], _T]], Callable[[], _T]]]:
    """Threads that run networks at the same time, each on its share of the cores.

    Yields a function that begins a call, and returns another one that waits for its result, or
    raises its exception, after its warnings. At the end calls that have not begun never do, and
    those that run begin no network.
    Two networks on a core each do a fifth more than one after the other on two
    (docs/experiments/speed.md).
    """
    from concurrent import futures  # imports logging

    share, process, over = max(1, cores() // count), os.getpid(), threading.Event()
    calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def work() -> None:
        _worker.threads, _worker.over = share, over
        for run in iter(calls.get, None):
            if not over.is_set():
                run()
            del run  # would keep a picture while the thread waits

    def begin(call: Callable[[], _T]) -> Callable[[], _T]:
        texts: list[str] = []

        def held() -> _T:
            with warnings_held(texts):
                return call()

        run, done = processes.task(held)
        calls.put(run)

        def result() -> _T:
            if os.getpid() != process:  # the child of a fork has none of the threads
                return call()
            futures.wait([done])
            for text in texts:
                warn(text)
            return done.result()

        return result

    ends: list[Callable[[], None]] = []
    try:
        for _ in range(count):
            ends.append(processes.begun(work))
        yield begin
    finally:
        over.set()
        for _ in ends:
            calls.put(None)
        if os.getpid() == process:
            for end in ends:
                end()


def paired(calls: Iterable[Callable[[], _T]]) -> Iterator[_T]:
    """The results of calls, in order. Two run at a time where two may (`at_once`), networks on half
    of the cores each."""
    if at_once(2) < 2:
        yield from (call() for call in calls)
        return
    begun: deque[Callable[[], _T]] = deque()
    with workers(2) as begin:
        for call in calls:
            begun.append(begin(call))
            if len(begun) > 2:  # the third waits for a thread
                yield begun.popleft()()
        while begun:
            yield begun.popleft()()


def _start(path: Path, shown: Path, count: int) -> Any:
    """count: threads, as of `_usual`."""
    _share_arena()
    import onnxruntime as ort

    if not path.is_file():
        raise ModelError(f"{shown}: no such model")
    if shown.suffix.lower() == ".safetensors":
        raise ModelError(f"{shown}: not ONNX: `sempic train export` makes it of these weights")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what stops a run is its exception, too
    options.enable_mem_pattern = False  # would keep memory for each size of picture
    if _arena_of == os.getpid():
        options.add_session_config_entry("session.use_env_allocators", "1")
    # Without threads that spin after a run, and occupy cores, decoding is a third faster.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Limits threads where several processes share a machine.
    options.intra_op_num_threads = count
    # onnxruntime's errors share no base class.
    with (
        refused(ModelError, f"{shown}: not a usable ONNX model", Exception, unfit=True),
        _memory_errors(),
    ):
        # onnxruntime opens no file whose name is not UTF-8.
        model = path if console.readable(str(path)) == str(path) else path.read_bytes()
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    processes.keep_at_fork(session)
    return session


def _share_arena() -> None:
    """Makes an arena for all sessions of this process, unless its program uses onnxruntime itself:
    an arena that the program registers would replace ours for later sessions, and ours its own."""
    global _arena_of
    if _arena_of is None and "onnxruntime" not in sys.modules:
        import onnxruntime as ort

        kind, where = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, ort.OrtMemType.DEFAULT
        ort.create_and_register_allocator(
            ort.OrtMemoryInfo("Cpu", kind, 0, where), ort.OrtArenaCfg(0, -1, -1, -1)
        )
        _arena_of = os.getpid()


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    """Makes a MemoryError of onnxruntime's errors for want of memory, which only their text
    tells."""
    try:
        yield
    except Exception as error:
        if any(text in str(error) for text in ("allocate memory", "bad_alloc")):
            raise MemoryError from error
        raise


_LARGE = 1 << 20
"""Numbers in an input above which a run frees its memory: a picture of 350 000 pixels."""


def run(session: Session, output: str, feed: dict[str, Any]) -> Any:
    """One output of a session of `load`. Raises MemoryError, or an error of onnxruntime's.

    All networks share a memory arena, because mapping each tensor takes a fifth of the time. The
    arena is kept for the next picture, and freed after a large one.
    """
    if _worker.over.is_set():  # a frame of many tiles would delay the end after Ctrl-C
        raise RuntimeError("nobody waits for this network")
    import onnxruntime as ort

    options = ort.RunOptions()
    if max(array.size for array in feed.values()) > _LARGE:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    with _memory_errors():
        (array,) = session.inner().run([output], feed, options)
    return array
