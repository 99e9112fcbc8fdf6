"""The standard streams of the program, and texts for people and for other programs."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Mapping
from typing import Any

from sempic.errors import InputError, OutputError, reason

_ASCII = {
    "→": "->",
    "×": "x",
    "…": "...",
    "–": "-",
    "—": "-",
    "⇄": "<->",
    "·": "-",
    "’": "'",
    "∞": "inf",
}


def open_streams() -> None:
    """Prepares the standard streams of the main program: all names and messages can be printed in
    every locale. Opens closed streams, so that no file gets their descriptors. The others wait for
    all bytes: a part must not pass for the whole."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
        else:
            with contextlib.suppress(OSError, AttributeError):  # not on Windows
                os.set_blocking(number, True)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    out: Any = sys.stdout
    if isinstance(getattr(out, "buffer", None), io.RawIOBase):  # PYTHONUNBUFFERED
        encoding, buffered = out.encoding, io.BufferedWriter(out.detach())
        sys.stdout = io.TextIOWrapper(buffered, encoding, line_buffering=True)
    codecs.register_error("sempic", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="sempic")


def stdin() -> Any:
    """Standard input as a buffered file of bytes. Raises InputError if it is closed, or a terminal,
    which would wait for bytes that nobody types."""
    if sys.stdin is None:
        raise InputError("standard input is closed")
    if sys.stdin.buffer.isatty():
        raise InputError("standard input is a terminal; pipe a file into it, or name one")
    return sys.stdin.buffer


def need_stdout(*, for_bytes: bool = False) -> None:
    """Raises OutputError if standard output is closed, or a terminal and meant for bytes."""
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    if for_bytes and sys.stdout.buffer.isatty():
        raise OutputError("standard output is a terminal; name a file with -o, or redirect it")


def to_stdout(data: bytes) -> None:
    """Write to standard output. Raises OutputError, or BrokenPipeError if the reader has gone."""
    need_stdout(for_bytes=True)
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as cause:
        discard_stdout()  # one message is enough
        raise OutputError(f"cannot write to standard output: {reason(cause)}") from cause


def discard_stdout() -> None:
    """Redirect standard output to nowhere, so that the flush at the process's end succeeds."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """An encoding error handler: similar ASCII characters (_ASCII) or escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    ascii = (_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in missing)
    return "".join(ascii), error.end


# ── texts ────────────────────────────────────────────────────────────────────────────────────


def readable(text: str) -> str:
    """The text as valid Unicode: the byte E9 of a file name that is not UTF-8, which Python holds
    as a lone surrogate, becomes the six characters \\udce9."""
    return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """The text on one line: control characters, as in names of files, are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_json(value: Any, *, decimals: int | None = None, **layout: Any) -> str:
    """JSON that every parser reads: texts are `readable`, and infinity and NaN are texts.

    decimals: most decimals of a number; None: as many as it has. layout: of `json.dumps`.
    """

    def plain(part: Any) -> Any:
        if isinstance(part, str):
            return readable(part)
        if isinstance(part, float):
            part = part if decimals is None else round(part, decimals)
            return part if math.isfinite(part) else str(part)
        if isinstance(part, Mapping):
            return {plain(key): plain(inner) for key, inner in part.items()}
        return [plain(inner) for inner in part] if isinstance(part, (list, tuple)) else part

    return json.dumps(plain(value), **layout)


def say(message: str) -> None:
    """Print one line for the user on stderr."""
    print(printable(f"sempic: {message}"), file=sys.stderr)
