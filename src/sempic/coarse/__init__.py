"""Coarse picture ⇄ payload of a coarse chunk (docs/spec/format.md §6).

`encode`, `decode` and `open` take the name of a codec: "bpg", the default, "avif", "webp" or "jxl".
`sempic.coarse.bpg` reads and writes complete BPG files.
"""

from __future__ import annotations

from sempic import checks
from sempic.coarse import bpg, planes, stills
from sempic.coarse.codec import CoarseCodec, Opened
from sempic.coarse.planes import MAX_SIDE, downscale, factor, from_rgb, to_rgb
from sempic.errors import ImageError, UnsupportedChunk
from sempic.scene import Coarse, Image

__all__ = [
    "BY_CHUNK",
    "CODECS",
    "MAX_SIDE",
    "CoarseCodec",
    "decode",
    "downscale",
    "encode",
    "factor",
    "from_rgb",
    "open",
    "to_rgb",
]

CODECS = {codec.name: codec for codec in (bpg.CODEC, *stills.CODECS)}
"""By name."""
BY_CHUNK = {codec.chunk: codec for codec in CODECS.values()}
"""By type of chunk."""


def encode(rgb: Image, *, codec: str = "bpg", quality: int = 35, chroma: str = "444") -> bytes:
    """The payload of a picture.

    Args:
        rgb: uint8 (h, w, 3), no side beyond MAX_SIDE.
        codec: one of CODECS.
        quality: 0 (best) … 51, on the scale of `bpgenc -q` (HEVC's QP plus 2). Other codecs get the
            setting with about the same PSNR.
        chroma: "444" or "420". "444" costs a fifth more at the same luma; its chroma is 5 dB
            better, 7 dB on the most colourful pixels (benchmarks/coarse.py).

    Raises InputError for an option, ImageError for the picture.
    """
    checks.one_of("coarse codec", codec, CODECS)
    checks.whole("coarse quality", quality, 0, 51)
    height, width = planes.check_picture(rgb, chroma)
    planes.check_size(width, height, ImageError)
    return CODECS[codec].encode(rgb, quality, chroma)


def open(payload: bytes, codec: str = "bpg") -> Opened:
    """A payload after reading its header; for "bpg" also a complete BPG file.

    Raises a BitstreamError: UnsupportedChunk for an unknown codec; UnsupportedProfile,
    TruncatedStream or CorruptStream for an invalid header.
    """
    payload = checks.stream(payload)
    if codec not in CODECS:
        raise UnsupportedChunk(f"coarse codec {codec!r} is not one of {', '.join(CODECS)}")
    return CODECS[codec].open(payload)


def decode(payload: bytes, *, codec: str = "bpg") -> Coarse:
    """The planes of a payload.

    Raises a BitstreamError as `open`, LimitExceeded for a side beyond MAX_SIDE (before any
    allocation), and others for data that cannot be decoded. A damaged payload may decode to wrong
    planes of the announced size: only the container has a checksum.
    """
    return open(payload, codec).decode()
