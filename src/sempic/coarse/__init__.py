"""Coarse picture ⇄ payload of a coarse chunk, and the planes in it (docs/spec/format.md §6).

`encode`, `decode` and `peek` speak to every codec by name: "bpg", which the format relies on, and
"avif", "webp", "jxl". `sempic.coarse.bpg` has whole BPG files.
"""

from __future__ import annotations

from sempic import checks
from sempic.coarse import bpg, stills
from sempic.coarse.planes import MAX_SIDE, downscale, factor, from_rgb, to_rgb
from sempic.errors import ImageError, UnsupportedChunk
from sempic.scene import Coarse, Image

__all__ = [
    "CODECS",
    "MAX_SIDE",
    "decode",
    "downscale",
    "encode",
    "factor",
    "from_rgb",
    "peek",
    "to_rgb",
]

CODECS = ("bpg", *stills.CODECS)


def encode(rgb: Image, *, codec: str = "bpg", quality: int = 35, chroma: str = "444") -> bytes:
    """The payload of a picture.

    Args:
        rgb: uint8 (h, w, 3), no side beyond MAX_SIDE.
        codec: one of CODECS.
        quality: 0 (best) … 51, on the scale of `bpgenc -q`, which is HEVC's QP plus 2. The other
            codecs get the setting of about the same PSNR.
        chroma: "444" costs a fifth more than "420" at the same luma, and its chroma is 5 dB better,
            7 dB on the most colourful pixels (benchmarks/coarse.py).

    Raises InputError: ImageError for the picture, else for the options.
    """
    checks.one_of("coarse codec", codec, CODECS)
    checks.whole("coarse quality", quality, 0, 51)
    planes = from_rgb(rgb, chroma)
    height, width = planes.y.shape
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"a coarse picture of {width}×{height} has a side beyond {MAX_SIDE}")
    if codec == "bpg":
        return bpg.shorten(bpg.encode(planes, qp=max(quality - 2, 0)))
    return stills.encode(rgb, codec, quality, chroma)


def decode(payload: bytes, *, codec: str = "bpg") -> Coarse:
    """The planes of a payload; for "bpg", a whole BPG file does too.

    Raises a BitstreamError: UnsupportedChunk for an unknown codec, LimitExceeded for a side
    beyond MAX_SIDE before anything is allocated, UnsupportedProfile, TruncatedStream or
    CorruptStream for what cannot be decoded. A changed payload may still decode to planes of the
    size that it announces: checksums belong to the container.
    """
    payload = checks.stream(payload)
    if codec == "bpg":
        return bpg.decode(bpg.lengthen(payload))
    _check_codec(codec)
    return from_rgb(stills.decode(payload, codec), "444")


def peek(payload: bytes, codec: str = "bpg") -> tuple[int, int]:
    """(width, height) in pixels, from the header alone; raises a BitstreamError as decode does,
    but does not judge the size."""
    payload = checks.stream(payload)
    if codec == "bpg":
        return bpg.peek(bpg.lengthen(payload))
    _check_codec(codec)
    return stills.peek(payload, codec)


def _check_codec(codec: str) -> None:
    if codec not in CODECS:
        raise UnsupportedChunk(f"coarse codec {codec!r} is not one of {', '.join(CODECS)}")
