"""Processes that start and end as they should: with the streams that there are, by a signal, with
their parent, and never in the middle."""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import io
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_GRACE = 3.0
"""Seconds to clean up between the wish to end and the end."""


class ForkSafeLock:
    """Gives the reentrant lock of this process, `with lock():`. A forked child has another one: it
    must not wait for a thread that it does not have."""

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def __call__(self) -> contextlib.AbstractContextManager[object]:
        return self._lock


@contextlib.contextmanager
def no_real_time() -> Iterator[None]:
    """Takes the right to real-time scheduling from this thread and those that it starts.

    SVT-AV1 puts its threads, and the caller's, at SCHED_FIFO 99 wherever it may, as it does for
    root in a container, and nothing else on the machine gets its turn.
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
    """SIGINT and SIGTERM wait, also in processes that are started meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def child(target: Callable[..., None], *args: Any) -> tuple[Any, Connection]:
    """A new process that runs target(pipe, *args), and our end of that pipe.

    Ctrl-C while it starts is for this process, which ends it.
    """
    context = multiprocessing.get_context("spawn")  # forks of threaded libraries hang
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *args), daemon=True)
    with signals_held():
        process.start()
    theirs.close()
    return process, ours


def end_with_parent() -> None:
    """Makes this process, started by multiprocessing, end when its parent does, however that was.

    SIGTERM ends it too, in order; SIGINT stays held if it was (`signals_held`).
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))

    watch_parent()


def watch_parent() -> None:
    """As `end_with_parent`, and SIGTERM stays as it is."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # so that no half-written file stays behind
        time.sleep(_GRACE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def stop(process: Any) -> None:
    """Ends a process of multiprocessing: in order, or else at once."""
    process.terminate()
    process.join(_GRACE)
    if process.is_alive():
        process.kill()
        process.join()


# ── being the program ────────────────────────────────────────────────────────────────────────

_ASCII = {"→": "->", "×": "x", "…": "...", "–": "-", "—": "-", "⇄": "<->", "·": "-", "’": "'"}


def as_program(run: Callable[[], int]) -> int:
    """Runs the command that this process is; returns its exit code.

    Whatever the locale, names and messages can be printed. SIGINT, SIGTERM and SIGHUP unwind what
    is under way, and then the process ends by that signal, so that whoever waits for it knows. What
    cannot be written to standard output is an error of one line and code 2.
    """
    _open_streams()
    codecs.register_error("sempic", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="sempic")
    caught: list[int] = []

    def interrupt(number: int, _: object) -> None:
        caught.append(number)
        for each in handled:  # a second one ends it at once
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt

    numbers = (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP"))
    handled = [n for n in numbers if n is not None and signal.getsignal(n) != signal.SIG_IGN]
    for each in handled:
        signal.signal(each, interrupt)
    try:
        code = _flushed(run)
    except BaseException as end:
        # A library in C that is interrupted as it loads raises an error of its own.
        if not caught and not isinstance(end, KeyboardInterrupt):
            raise
        code = 2
        with contextlib.suppress(OSError, ValueError):
            print("sempic: interrupted", file=sys.stderr, flush=True)
    if caught:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        signal.signal(caught[0], signal.SIG_DFL)
        os.kill(os.getpid(), caught[0])
    return code


def _flushed(run: Callable[[], int]) -> int:
    try:
        try:
            code = run()
        except SystemExit as end:  # of argparse, which has printed
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 2
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read our output has gone; keep the shutdown quiet
        leave_stdout()
    except OSError as cause:
        leave_stdout()
        with contextlib.suppress(OSError, ValueError):
            reason = cause.strerror or cause
            print(f"sempic: cannot write to standard output: {reason}", file=sys.stderr)
    return 2


def leave_stdout() -> None:
    """What is still in its buffer goes nowhere, so that the end of the process does not fail."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """No file that is opened later may get the number of a standard stream that is closed."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What an encoding lacks, in ASCII: arrows and the like by their looks, else escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    shown = (_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking)
    return "".join(shown), error.end


def printable(text: str) -> str:
    """On one line, whatever names of files hold: control characters are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(message: str) -> None:
    """One line on stderr, from the program to who uses it."""
    print(printable(f"sempic: {message}"), file=sys.stderr)
