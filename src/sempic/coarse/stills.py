"""Coarse pictures in Pillow's formats: AVIF, WebP and, with pillow-jxl-plugin, JPEG XL.

They serve comparisons and users who request them. Their decoders give RGB.
"""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from sempic.coarse.codec import CoarseCodec, Opened
from sempic.coarse.planes import MAX_SIDE, check_size, from_rgb
from sempic.errors import (
    CorruptStream,
    InputError,
    LimitExceeded,
    TruncatedStream,
    UnsupportedChunk,
    install_hint,
    line,
)
from sempic.formats import has_jxl, jxl_size, quiet
from sempic.scene import Coarse, Image

if TYPE_CHECKING:
    import PIL.Image

# Pillow's settings with about BPG's luma PSNR at these qualities, measured on eight pictures of
# CamVid train at 86×64; linear in between.
_QUALITIES = (0, 24, 30, 36, 42, 51)
_SETTINGS = {
    "avif": (100, 77, 60, 44, 20, 0),
    "webp": (100, 90, 78, 36, 6, 0),
    "jxl": (100, 91, 81, 60, 22, 0),
}


def _encode(codec: str, rgb: Image, quality: int, chroma: str) -> bytes:
    """A file of the named codec; WebP is always 4:2:0, JPEG XL 4:4:4."""
    import PIL.Image

    if codec == "jxl" and not has_jxl():
        raise InputError(f"JPEG XL needs a plugin: {install_hint('jxl')}")
    options: dict[str, dict[str, Any]] = {
        "avif": {"speed": 2, "max_threads": 1, "subsampling": ":".join(chroma)},
        "webp": {"method": 6},
        "jxl": {"effort": 9, "num_threads": 1, "use_container": False},
    }
    out = io.BytesIO()
    setting = round(float(np.interp(quality, _QUALITIES, _SETTINGS[codec])))
    if codec == "jxl":
        setting = min(setting, 99)  # 100 asks for lossless mode, which the plugin refuses here
    PIL.Image.fromarray(rgb).save(out, codec.upper(), quality=setting, **options[codec])
    return out.getvalue()


def _open(codec: str, payload: bytes) -> Opened:
    """Raises a BitstreamError."""
    # The plugin of JPEG XL decodes when it opens a file.
    size = _peek_jxl(payload) if codec == "jxl" else _picture(payload, codec).size

    def decode() -> Coarse:
        check_size(*size)
        try:
            with _picture(payload, codec) as picture:
                rgb = np.array(picture.convert("RGB"))
        except Exception as error:  # Pillow's decoders raise errors of many classes
            raise CorruptStream(f"the {codec} picture is broken: {line(error)}") from None
        return from_rgb(rgb, "444")

    return Opened(size, decode)


def _picture(payload: bytes, codec: str) -> PIL.Image.Image:
    import PIL.Image

    try:
        with quiet():  # the caller checks the size
            return PIL.Image.open(io.BytesIO(payload), formats=[codec.upper()])
    except PIL.Image.DecompressionBombError:
        raise LimitExceeded(f"a coarse picture with a side beyond {MAX_SIDE}") from None
    except PIL.UnidentifiedImageError:  # its text is of Python's object
        raise CorruptStream(f"the {codec} picture is broken: its header cannot be read") from None
    except Exception as error:
        raise CorruptStream(f"not a {codec} picture: {line(error)}") from None


def _peek_jxl(payload: bytes) -> tuple[int, int]:
    """Size of a bare codestream."""
    if not has_jxl():
        raise UnsupportedChunk(f"a JPEG XL picture needs a plugin: {install_hint('jxl')}")
    if payload[:2] != b"\xff\x0a"[: len(payload)]:
        raise CorruptStream("not a bare JPEG XL codestream")
    if len(payload) < 12:
        raise TruncatedStream("the JPEG XL codestream ends inside its header")
    size = jxl_size(payload)
    assert size is not None
    return size


CODECS = tuple(
    CoarseCodec(
        name=name,
        chunk=chunk,
        exact=False,
        encode=functools.partial(_encode, name),
        open=functools.partial(_open, name),
    )
    for name, chunk in (("avif", 3), ("webp", 4), ("jxl", 5))
)
