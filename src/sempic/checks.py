"""Checks of arguments of public functions: each returns the value or raises a SempicError."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Collection, Iterator
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from sempic.errors import BitstreamError, InputError


def stream(value: Any) -> bytes:
    """A stream (bytes, bytearray or memoryview) as bytes; raises BitstreamError for other types."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    hint = ""
    if hasattr(value, "read"):
        hint = "; file.read() gives them"
    elif isinstance(value, np.ndarray):
        hint = "; array.tobytes() gives them"
    elif isinstance(value, (str, os.PathLike)):
        hint = "; open(path, 'rb').read() gives them"
    raise BitstreamError(f"a stream is bytes, not {type(value).__name__}{hint}")


def several(name: str, value: Any) -> Iterator[Any]:
    """An iterator over an iterable; raises InputError for other types."""
    try:
        return iter(value)
    except TypeError:
        raise InputError(f"{name} are an iterable, not {type(value).__name__}") from None


def switch(name: str, value: Any) -> bool:
    """True or False; raises InputError."""
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} is True or False, not {shown(value)}")
    return bool(value)


def whole(name: str, value: Any, low: float | None = None, high: float | None = None) -> int:
    """A whole number from `low` to `high`; raises InputError."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise InputError(f"{name} is a whole number, not {shown(value)}")
    number(name, value)  # refuses numbers too large for the arithmetic that follows
    return int(_within(name, int(value), low, high))


def number(name: str, value: Any, low: float | None = None, high: float | None = None) -> float:
    """A finite number from `low` to `high`; raises InputError."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise InputError(f"{name} is a number, not {shown(value)}")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise InputError(f"{name} is a finite number, not {shown(value)}")
    return _within(name, result, low, high)


def weight(name: str, value: Any) -> float:
    """A number of 0 or more, or infinity; raises InputError."""
    if isinstance(value, numbers.Real) and value == math.inf:
        return math.inf
    return number(name, value, 0)


def one_of(name: str, value: Any, options: Collection[str]) -> str:
    """One of the words in `options`; raises InputError that lists them."""
    if not isinstance(value, str) or value not in options:
        raise InputError(f"{name} {shown(value)} is not one of {', '.join(options)}")
    return value


def is_uint8(value: Any, dimensions: int) -> TypeGuard[npt.NDArray[np.uint8]]:
    """Whether a value is a uint8 array of so many dimensions, without a mask (`numpy.ma`)."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and value.ndim == dimensions
        and not hasattr(value, "mask")
    )


def kind(value: Any) -> str:
    """Dtype and shape of an array, type of any other value; for messages."""
    if not isinstance(value, np.ndarray):
        return type(value).__name__
    return f"{'masked ' if hasattr(value, 'mask') else ''}{value.dtype} {value.shape}"


def _within(name: str, value: float, low: float | None, high: float | None) -> float:
    if (low is None or value >= low) and (high is None or value <= high):
        return value
    if low is not None and high is not None:
        raise InputError(f"{name} is {low:.12g}…{high:.12g}, not {shown(value)}")
    bound = f"{low:.12g} or more" if low is not None else f"{high:.12g} or less"
    raise InputError(f"{name} must be {bound}, not {shown(value)}")


def shown(value: Any) -> str:
    """A value for a message: short, on one line."""
    if isinstance(value, int) and value.bit_length() > 100:
        return "a number of that many digits"
    text = repr(value) if isinstance(value, (str, int, float, type(None))) else type(value).__name__
    return text if len(text) <= 40 else text[:39] + "…"
