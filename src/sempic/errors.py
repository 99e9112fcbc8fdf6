"""The errors of sempic, the warning, and helpers to raise and report them.

A message is one line that a user can act on. The caller that opened a file adds its name
(`naming`), because the codec sees only bytes and arrays.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any


class SempicError(Exception):
    """Base class of all errors of sempic."""


class SempicWarning(UserWarning):
    """The result may differ from the intention: part of a picture is lost, or a target rate is not
    used up."""


class BitstreamError(SempicError):
    """Not a stream that this version decodes."""


class NotSempic(BitstreamError):
    """The stream does not start with the magic number."""


class UnsupportedVersion(BitstreamError):
    """The stream has an unknown format version."""


class UnsupportedChunk(BitstreamError):
    """The stream has an unknown chunk that is required."""


class UnsupportedProfile(BitstreamError):
    """The stream names an unknown palette or model."""


class TruncatedStream(BitstreamError):
    """The stream ends too early."""


class CorruptStream(BitstreamError):
    """A checksum or an invariant of the format does not hold."""


class LimitExceeded(BitstreamError):
    """The stream states a size beyond the limits; nothing was allocated."""


class InputError(SempicError):
    """The input cannot be coded, or an argument is invalid."""


class ImageError(InputError):
    """A picture that cannot be read or coded."""


class LabelMapError(InputError):
    """A label map of the wrong size, type or palette."""


class SizeError(ImageError, LabelMapError, LimitExceeded):
    """A picture or a label map of a size beyond the limits of streams."""


class RateError(InputError):
    """A target rate that no quality level meets."""


class ModelError(SempicError):
    """Model weights are missing, foreign or unsuitable."""


class OutputError(SempicError):
    """A result cannot be written."""


JSON_FAULTS = OSError, ValueError, AttributeError, RecursionError
"""Exceptions for a file that cannot be read, is not JSON, or does not hold an object."""
_PACKAGE = os.path.dirname(__file__) + os.sep
_held: ContextVar[list[str] | None] = ContextVar("held", default=None)
"""Of `warnings_held`."""


def warn(text: str) -> None:
    """Warn (SempicWarning); the warning points to the calling line outside sempic."""
    if (texts := _held.get()) is not None:
        texts.append(text)
        return
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_PACKAGE, "<frozen ")):
        frame = frame.f_back
    names = frame.f_globals
    warnings.warn_explicit(
        text,
        SempicWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        names.get("__name__"),
        names.setdefault("__warningregistry__", {}),
    )


@contextlib.contextmanager
def warnings_held(texts: list[str]) -> Iterator[None]:
    """Appends the texts of this thread's warnings to `texts`, for another thread to warn with: a
    worker does not know the calling line."""
    token = _held.set(texts)
    try:
        yield
    finally:
        _held.reset(token)


@contextlib.contextmanager
def notes_to(tell: Callable[[str], None]) -> Iterator[None]:
    """Passes the text of each SempicWarning to `tell`, once, also where Python's filters would hide
    it; other warnings are shown as before."""
    texts: set[str] = set()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_or_tell(message: Any, category: Any, *where: Any, **more: Any) -> None:
            if not issubclass(category, SempicWarning):
                show(message, category, *where, **more)
            elif (text := str(message)) not in texts:
                texts.add(text)
                tell(text)

        warnings.showwarning = show_or_tell
        warnings.simplefilter("always", SempicWarning)
        yield


@contextlib.contextmanager
def noting() -> Iterator[list[str]]:
    """Yields a list of the texts that `notes_to` passes on in the block."""
    notes: list[str] = []
    with notes_to(notes.append):
        yield notes


def line(cause: BaseException) -> str:
    """The first line of an exception's message, or its type."""
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]


def reason(cause: BaseException) -> str:
    """The message of an OSError without its number and file name; `line` of other exceptions."""
    return getattr(cause, "strerror", None) or line(cause)


@contextlib.contextmanager
def refused(
    kind: type[SempicError], what: str, *causes: type[Exception], unfit: bool = False
) -> Iterator[None]:
    """Turns `causes` (default: OSError) into an error of `kind`: "what: why", or "what (why)" if
    `unfit`. A SempicError passes unchanged, and so does a MemoryError."""
    causes = causes or (OSError,)
    try:
        yield
    except (SempicError, MemoryError):
        raise
    except causes as cause:
        why = f" ({reason(cause)})" if unfit else f": {reason(cause)}"
        raise kind(what + why) from cause


@contextlib.contextmanager
def naming(what: object, kind: type[SempicError] | None = None) -> Iterator[None]:
    """Puts `what` (usually a file) before the message of a SempicError; `kind`: its new class."""
    try:
        yield
    except SempicError as error:
        raise (kind or type(error))(f"{what}: {error}") from error


def install_hint(extra: str) -> str:
    """The command that installs an extra, for messages; sempic is not on a package index yet."""
    return f"""pip install ".[{extra}]" in sempic's source folder"""  # these quotes suit all shells
