"""What a coarse codec is. `sempic.coarse.CODECS` has all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sempic.scene import Coarse, Image


class Opened(Protocol):
    """A payload whose header has been read, and nothing more."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, not judged yet."""

    def decode(self) -> Coarse:
        """The planes. Raises a BitstreamError: LimitExceeded for a side beyond MAX_SIDE before
        anything is allocated, or whatever is wrong with what follows the header."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CoarseCodec:
    """One way to code a coarse picture."""

    name: str
    chunk: int
    """Type of the chunk that its payloads go into (docs/spec/format.md §3)."""
    exact: bool
    """Whether planes are the same on every machine: then labels are coded in their context."""
    encode: Callable[[Image, int, str], bytes]
    """(rgb, quality, chroma) → payload; arguments as of `sempic.coarse.encode`."""
    open: Callable[[bytes], Opened]
    """Raises a BitstreamError for a header that is none of this codec."""
