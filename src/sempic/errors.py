"""Every error that sempic raises on purpose.

    SempicError
    ├── BitstreamError          the bytes are not a file that we can decode
    │   ├── NotSempic             the magic is missing
    │   ├── UnsupportedVersion  written by a newer format
    │   ├── UnsupportedChunk    a chunk that is required and unknown
    │   ├── UnsupportedProfile  a palette or a model that is unknown
    │   ├── TruncatedStream     the bytes end too early
    │   ├── CorruptStream       the checksum or an invariant fails
    │   └── LimitExceeded       a size beyond what we agree to allocate
    ├── InputError              a picture or a label map that cannot be coded
    │   ├── ImageError          a picture that cannot be read or coded
    │   ├── LabelMapError       a label map of the wrong size, type or palette
    │   └── RateError           a target rate that cannot be met
    ├── ModelError              weights that are missing, foreign or unfit
    └── OutputError             a result that cannot be written

Each message is one line that a user can act on. Files are named by whoever opened them
(the command line), since the codec itself sees only bytes and arrays.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any


class SempicError(Exception):
    """Base of all errors that sempic raises on purpose."""


class SempicWarning(UserWarning):
    """Something was done, but not quite what one may have meant: a part of a picture that a stream
    does not hold, a rate that no setting uses up."""


class BitstreamError(SempicError):
    """The bytes are not a stream that this version decodes."""


class NotSempic(BitstreamError):
    """The stream does not start with the magic."""


class UnsupportedVersion(BitstreamError):
    """The stream names a format version that is not known here."""


class UnsupportedChunk(BitstreamError):
    """The stream holds a required chunk that is not known here."""


class UnsupportedProfile(BitstreamError):
    """The stream names a palette or a model that is not known here."""


class TruncatedStream(BitstreamError):
    """The stream ends before what it announces."""


class CorruptStream(BitstreamError):
    """A checksum or an invariant of the format does not hold."""


class LimitExceeded(BitstreamError):
    """The stream claims a size beyond the limits; nothing was allocated."""


class InputError(SempicError):
    """What was given to the encoder cannot be coded."""


class ImageError(InputError):
    """A picture that cannot be read or coded."""


class LabelMapError(InputError):
    """A label map of the wrong size, type or palette."""


class RateError(InputError):
    """A target rate that no quality level meets."""


class ModelError(SempicError):
    """Model weights are missing, foreign or unfit for the task."""


class OutputError(SempicError):
    """A result cannot be written where it was asked for."""


JSON_FAULTS = OSError, ValueError, AttributeError, RecursionError
"""What comes of a file that cannot be read, is no JSON, or holds no object."""
_PACKAGE = os.path.dirname(__file__) + os.sep


def warn(text: str) -> None:
    """Warns (SempicWarning) of the line outside sempic that led here, however deep that is."""
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
def warnings_to(tell: Callable[[str], None]) -> Iterator[None]:
    """Tells what sempic warns of within, as soon as it does; other warnings go where they went."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def told(message: Any, category: Any, *where: Any, **more: Any) -> None:
            if issubclass(category, SempicWarning):
                tell(str(message))
            else:
                show(message, category, *where, **more)

        warnings.showwarning = told
        yield


@contextlib.contextmanager
def notes_to(tell: Callable[[str], None]) -> Iterator[None]:
    """As `warnings_to`, each text once, however often and from wherever it is warned of, and
    whatever Python's filters say."""
    said = set()

    def note(text: str) -> None:
        if text not in said:
            said.add(text)
            tell(text)

    with warnings_to(note):
        warnings.simplefilter("always", SempicWarning)
        yield


def line(cause: BaseException) -> str:
    """What an exception says, on one line, for messages of ours."""
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]


def reason(cause: BaseException) -> str:
    """Why the system refused, without the number and the name of the file."""
    return getattr(cause, "strerror", None) or line(cause)


@contextlib.contextmanager
def refused(
    kind: type[SempicError], what: str, *causes: type[Exception], unfit: bool = False
) -> Iterator[None]:
    """Makes an error of ours of what the system refuses within it, or of other causes: `what`, and
    why, in brackets where it is what was given that is `unfit`. Errors of ours stay as they are."""
    causes = causes or (OSError,)
    try:
        yield
    except SempicError:
        raise
    except causes as cause:
        why = f" ({reason(cause)})" if unfit else f": {reason(cause)}"
        raise kind(what + why) from cause


@contextlib.contextmanager
def naming(what: object, kind: type[SempicError] | None = None) -> Iterator[None]:
    """Puts what is at fault, a file mostly, before the message of an error of ours, which becomes
    one of a `kind` if that is told."""
    try:
        yield
    except SempicError as error:
        raise (kind or type(error))(f"{what}: {error}") from error


def install_hint(extra: str) -> str:
    """How to get what an extra brings, for messages: there is no release on an index yet."""
    return f"pip install '.[{extra}]' in sempic's source folder"
