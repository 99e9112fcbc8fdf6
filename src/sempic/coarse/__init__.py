"""Coarse picture ⇄ payload of a coarse chunk, and the planes in it (docs/spec/format.md §6).

`encode`, `decode` and `open` speak to every codec by name: "bpg", which the format relies on, and
"avif", "webp", "jxl". `sempic.coarse.bpg` has whole BPG files.
"""

from __future__ import annotations

from sempic import checks
from sempic.coarse import bpg, stills
from sempic.coarse.codec import CoarseCodec, Opened
from sempic.coarse.planes import MAX_SIDE, check_picture, downscale, factor, from_rgb, to_rgb
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
        quality: 0 (best) … 51, on the scale of `bpgenc -q`, which is HEVC's QP plus 2. The other
            codecs get the setting of about the same PSNR.
        chroma: "444" costs a fifth more than "420" at the same luma, and its chroma is 5 dB better,
            7 dB on the most colourful pixels (benchmarks/coarse.py).

    Raises InputError: ImageError for the picture, else for the options.
    """
    checks.one_of("coarse codec", codec, CODECS)
    checks.whole("coarse quality", quality, 0, 51)
    height, width = check_picture(rgb, chroma)
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"a coarse picture of {width}×{height} has a side beyond {MAX_SIDE}")
    return CODECS[codec].encode(rgb, quality, chroma)


def open(payload: bytes, codec: str = "bpg") -> Opened:
    """A payload with its header read; for "bpg", a whole BPG file does too.

    Raises a BitstreamError: UnsupportedChunk for an unknown codec, UnsupportedProfile,
    TruncatedStream or CorruptStream for a header that is none.
    """
    payload = checks.stream(payload)
    if codec not in CODECS:
        raise UnsupportedChunk(f"coarse codec {codec!r} is not one of {', '.join(CODECS)}")
    return CODECS[codec].open(payload)


def decode(payload: bytes, *, codec: str = "bpg") -> Coarse:
    """The planes of a payload.

    Raises a BitstreamError as `open` does, LimitExceeded for a side beyond MAX_SIDE before
    anything is allocated, and others for what cannot be decoded. A changed payload may still decode
    to planes of the size that it announces: checksums belong to the container.
    """
    return open(payload, codec).decode()
