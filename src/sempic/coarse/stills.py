"""Coarse pictures in Pillow's formats: AVIF, WebP and, with pillow-jxl-plugin, JPEG XL.

They are here to compare with, and for users who ask. Their decoders give RGB.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL.Image

from sempic.coarse.planes import MAX_SIDE, check_size
from sempic.errors import (
    CorruptStream,
    InputError,
    LimitExceeded,
    TruncatedStream,
    UnsupportedChunk,
    install_hint,
)
from sempic.formats import has_jxl
from sempic.scene import Image

CODECS = ("avif", "webp", "jxl")

# Pillow's settings with about the luma PSNR of BPG at these qualities, found on eight pictures
# of CamVid train at 86×64; straight lines between them.
_QUALITIES = (0, 24, 30, 36, 42, 51)
_SETTINGS = {
    "avif": (100, 77, 60, 44, 20, 0),
    "webp": (100, 90, 78, 36, 6, 0),
    "jxl": (100, 91, 81, 60, 22, 0),
}


def encode(rgb: Image, codec: str, quality: int, chroma: str) -> bytes:
    """A file of the named codec; quality is BPG's 0…51. WebP is always 4:2:0, JPEG XL 4:4:4."""
    if codec == "jxl" and not has_jxl():
        raise InputError(f"JPEG XL needs a plugin: {install_hint('jxl')}")
    options: dict[str, dict[str, Any]] = {
        "avif": {"speed": 2, "max_threads": 1, "subsampling": ":".join(chroma)},
        "webp": {"method": 6},
        "jxl": {"effort": 9, "num_threads": 1, "use_container": False},
    }
    out = io.BytesIO()
    setting = round(float(np.interp(quality, _QUALITIES, _SETTINGS[codec])))
    PIL.Image.fromarray(rgb).save(out, codec.upper(), quality=setting, **options[codec])
    return out.getvalue()


def decode(payload: bytes, codec: str) -> Image:
    """The picture, uint8 (h, w, 3). Raises a BitstreamError; LimitExceeded as check_size does."""
    check_size(*peek(payload, codec))
    try:
        with _open(payload, codec) as picture:
            return np.array(picture.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise whatever they like
        raise CorruptStream(f"the {codec} picture is broken: {error}") from None


def peek(payload: bytes, codec: str) -> tuple[int, int]:
    """(width, height) from the header; raises a BitstreamError."""
    if codec == "jxl":
        if not has_jxl():
            raise UnsupportedChunk(f"a JPEG XL picture needs a plugin: {install_hint('jxl')}")
        return _peek_jxl(payload)
    try:
        with _open(payload, codec) as picture:
            return picture.size
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
        raise LimitExceeded(f"a coarse picture with a side beyond {MAX_SIDE}") from None
    except Exception as error:
        raise CorruptStream(f"not a {codec} picture: {error}") from None


def _open(payload: bytes, codec: str) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(payload), formats=[codec.upper()])


def _peek_jxl(payload: bytes) -> tuple[int, int]:
    """SizeHeader of a bare codestream (ISO/IEC 18181-1, D.2); the plugin decodes on opening."""
    if payload[:2] != b"\xff\x0a"[: len(payload)]:
        raise CorruptStream("not a bare JPEG XL codestream")
    if len(payload) < 12:
        raise TruncatedStream("the JPEG XL codestream ends inside its header")
    bits = int.from_bytes(payload[2:12], "little")

    def take(n: int) -> int:
        nonlocal bits
        value, bits = bits & (1 << n) - 1, bits >> n
        return value

    def side() -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    small = take(1)
    height, ratio = side(), take(3)
    if ratio == 0:
        return side(), height
    x, y = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * x // y, height
