"""The interface of coarse codecs. `sempic.coarse.CODECS` has all codecs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from sempic.scene import Coarse, Image


class Opened(NamedTuple):
    """A payload of which only the header has been read."""

    size: tuple[int, int]
    """(width, height) in pixels, not checked against any limit."""
    decode: Callable[[], Coarse]
    """The planes. Raises a BitstreamError: LimitExceeded for a side beyond MAX_SIDE, before any
    allocation, and others for errors after the header."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CoarseCodec:
    """A codec for coarse pictures."""

    name: str
    chunk: int
    """Type of the chunk of its payloads (docs/spec/format.md §3)."""
    exact: bool
    """Whether planes are the same on every machine: labels are coded in their context then."""
    encode: Callable[[Image, int, str], bytes]
    """(rgb, quality, chroma) → payload; arguments as in `sempic.coarse.encode`."""
    open: Callable[[bytes], Opened]
    """Raises a BitstreamError for an invalid header."""
