"""Start and end of processes and threads: signals, and child processes that end with their
parent."""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sempic import console
from sempic.errors import InputError, SempicError, refused

if TYPE_CHECKING:
    from concurrent.futures import Future
    from multiprocessing.connection import Connection

_T = TypeVar("_T")
WINDOWS = os.name == "nt"
PER_CORE = 16
"""Most child processes a core: each loads the networks."""
_MOST = 61 if WINDOWS else sys.maxsize
"""Most child processes: Windows waits for no more at once."""
_CGROUP = Path("/sys/fs/cgroup")
_QUOTA = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
"""Files with a container's processor time and the period in which it may take it, by version."""
_GRACE = 3.0
"""Seconds that a process has to clean up after SIGTERM."""


class ForkSafeLock:
    """A reentrant lock, used as `with lock():`. A forked child gets a new lock, because the thread
    that holds the old one does not exist there."""

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def __call__(self) -> contextlib.AbstractContextManager[object]:
        return self._lock


_threaded = weakref.WeakKeyDictionary[object, int]()
"""Of `keep_at_fork`, with the number of the process that each was made in."""


def keep_at_fork(owner: object) -> None:
    """Makes children of a fork never free an object that owns threads of a C library: they do not
    exist there, and freeing would wait for them forever."""
    _threaded[owner] = os.getpid()


def need_threads(owner: object, what: str) -> None:
    """Raises InputError for an object of `keep_at_fork` in the child of a fork, where its work
    would wait for them, too; what: its name for the message."""
    if _threaded[owner] != os.getpid():
        raise InputError(f"{what}: a forked process cannot go on with it; open it there anew")


def _keep_all() -> None:
    for owner in list(_threaded):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_all)


def task(call: Callable[[], _T]) -> tuple[Callable[[], None], Future[_T]]:
    """A function that makes a call, in any thread, and what becomes of it."""
    from concurrent.futures import Future  # imports logging

    done: Future[_T] = Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)

    return run, done


def begun(call: Callable[[], _T]) -> Callable[[], _T]:
    """Begins a call in a thread of its own; returns a function that waits for its result, or raises
    its exception.

    An executor of concurrent.futures begins nothing once the main thread has ended, which other
    threads may outlive. Raises SempicError if the system refuses the thread.
    """
    run, done = task(call)
    with refused(SempicError, "cannot start a thread", RuntimeError):
        threading.Thread(target=run).start()
    return done.result


@contextlib.contextmanager
def no_real_time() -> Iterator[None]:
    """Takes the right to real-time scheduling from this thread and the threads that it starts.

    SVT-AV1 sets its threads and the caller's to SCHED_FIFO 99 where permitted, such as for root in
    a container, and starves all other processes.
    """
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of capget(2), this thread
    held = (ctypes.c_uint32 * 6)()
    libc.capget(header, held)
    fewer = (ctypes.c_uint32 * 6)(*held)
    fewer[0] &= ~(1 << 23)  # CAP_SYS_NICE, of the effective set
    libc.capset(header, fewer)
    try:
        yield
    finally:
        libc.capset(header, held)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Blocks SIGINT, SIGTERM and SIGHUP, also in processes that start within the block."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # multiprocessing's; its start would unblock them
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def cores() -> int:
    """The cores that this process may use: of its affinity, and no more than its container's quota,
    rounded up, or _MOST."""
    try:
        available = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on Linux, or a sandbox does not tell
        available = os.cpu_count() or 1
    return min(available, quota() or available, _MOST)


def quota() -> int | None:
    """The cores that a container (cgroup) may use; None: all of the machine's."""
    for files in _QUOTA:
        with contextlib.suppress(OSError, ValueError):  # there is none, or it is "max"
            time, period = " ".join((_CGROUP / file).read_text("ascii") for file in files).split()
            if int(time) > 0:
                return math.ceil(int(time) / int(period))
    return None


def most() -> int:
    """The largest number of child processes on this machine, PER_CORE a core, _MOST in all."""
    return min(PER_CORE * (os.cpu_count() or 1), _MOST)


def child(target: Callable[..., None], *args: Any) -> tuple[Any, Connection]:
    """Start a process that runs target(pipe, *args); returns the process and our end of the pipe.

    Signals are blocked during the start (`signals_held`). Raises SempicError if the system refuses.
    """
    context = multiprocessing.get_context("spawn")  # forks of threaded libraries hang
    with refused(SempicError, "cannot start a process"), signals_held():
        ours, theirs = context.Pipe()
        process = context.Process(target=target, args=(theirs, *args), daemon=True)
        process.start()
    theirs.close()
    return process, ours


def end_with_parent() -> None:
    """Make this process of `child` end in order at SIGTERM and when its parent ends.

    SIGINT and SIGHUP stay blocked (`signals_held`); on Windows SIGINT is ignored.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
    else:  # Windows, whose Ctrl-C reaches all processes of the console
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def unraisable(ignored: sys.UnraisableHookArgs) -> None:
        if issubclass(ignored.exc_type, SystemExit):
            _signal_again(signal.SIGTERM)
        else:
            sys.__unraisablehook__(ignored)

    sys.unraisablehook = unraisable
    watch_parent()


def _signal_again(number: int) -> None:
    """Python ignores exceptions in a destructor: the signal comes again when it has ended."""
    again = threading.Timer(0.05, os.kill, (os.getpid(), number))
    again.daemon = True
    with contextlib.suppress(RuntimeError):  # Python itself is ending
        again.start()


def watch_parent() -> None:
    """Send SIGTERM to this process of `child` when its parent ends, and kill it _GRACE later."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # cleans up half-written files
        time.sleep(_GRACE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def stop(process: Any) -> None:
    """End a process of multiprocessing: SIGTERM, then SIGKILL after _GRACE."""
    process.terminate()
    process.join(_GRACE)
    if process.is_alive():
        process.kill()
        process.join()


# ── the main program ─────────────────────────────────────────────────────────────────────────

_caught: list[int] = []
"""Signals to the main program, which end it (`as_program`)."""


def as_program(run: Callable[[], int]) -> int:
    """Run the main program; returns its exit code.

    All names and messages can be printed in every locale. SIGINT, SIGTERM and SIGHUP unwind the
    stack, and then the process ends by the same signal, for its parent to see. If the reader of its
    output has gone, it ends by SIGPIPE, without a message. Another failure to write to standard
    output is an error of one line with code 2.
    """
    console.open_streams()

    def interrupt(number: int, _: object) -> None:
        _caught.append(number)
        for handled in signals:  # a second signal ends the process at once
            signal.signal(handled, signal.SIG_DFL)
        raise KeyboardInterrupt

    numbers = (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP"))
    signals = [n for n in numbers if n is not None and signal.getsignal(n) != signal.SIG_IGN]
    for number in signals:
        signal.signal(number, interrupt)

    def unraisable(ignored: sys.UnraisableHookArgs) -> None:
        if not _caught:
            sys.__unraisablehook__(ignored)
        elif issubclass(ignored.exc_type, KeyboardInterrupt):
            signal.signal(_caught[0], interrupt)
            _signal_again(_caught[0])
        # Else a library's object complains that it was interrupted while it was made.

    sys.unraisablehook = unraisable
    try:
        code = _run_and_flush(run)
    except BaseException as error:
        if not _caught and not isinstance(error, KeyboardInterrupt):
            raise
        code = 2
        with contextlib.suppress(OSError, ValueError):
            print("sempic: interrupted", file=sys.stderr, flush=True)
    if _caught:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        signal.signal(_caught[0], signal.SIG_DFL)
        os.kill(os.getpid(), _caught[0])
    return code


def raise_if_interrupted() -> None:
    """Raises KeyboardInterrupt again after a signal to the main program, for loops that go on after
    any Exception: C libraries that are interrupted while they load raise others."""
    if _caught:
        raise KeyboardInterrupt


def _run_and_flush(run: Callable[[], int]) -> int:
    try:
        try:
            code = run()
        except SystemExit as end:  # argparse has printed the message
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 2
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of the output has gone: end as programs in C do
        console.discard_stdout()
        _caught.extend([signal.SIGPIPE] if hasattr(signal, "SIGPIPE") else [])  # not on Windows
    except OSError as cause:
        console.discard_stdout()
        with contextlib.suppress(OSError, ValueError):
            reason = cause.strerror or cause
            print(f"sempic: cannot write to standard output: {reason}", file=sys.stderr)
    return 2
