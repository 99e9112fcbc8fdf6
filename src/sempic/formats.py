"""Which picture files are read and written: an allowlist, whatever else Pillow may know.

Pillow tries every plugin that some import has registered, and one of them (EPS) starts an external
program on what it is given. So the formats are named here, and nothing else is ever opened.
"""

from __future__ import annotations

import importlib

_FORMATS = {
    "AVIF": ".avif",
    "BMP": ".bmp",
    "DIB": ".dib",
    "GIF": ".gif",
    "JPEG": ".jpeg .jpg .jpe .jfif",
    "JPEG2000": ".jp2 .j2k .jpc .jpf .jpx .j2c",
    "MPO": ".mpo",
    "PNG": ".png .apng",
    "PPM": ".ppm .pgm .pbm .pnm",
    "TIFF": ".tif .tiff",
    "WEBP": ".webp",
    "TGA": ".tga",  # last: it has no magic number, and takes much for its own
}
_OTHERS = """
    .3fr .ai .arw .bpg .cr2 .cr3 .dds .dng .eps .exr .flif .hdr .heic .heif .hif .icns .ico .iiq
    .jxl .jxr .mrw .nef .orf .pcx .pef .pfm .ps .psd .qoi .raf .ras .raw .rw2 .sgi .srw .svg .wdp
    .xcf
"""
FOREIGN = frozenset(_OTHERS.split())
"""Suffixes of pictures that may not be read here: in folders they are counted, and said."""


def has_jxl() -> bool:
    """Whether Pillow knows JPEG XL: the plugin is imported here, before Pillow is asked."""
    try:
        importlib.import_module("pillow_jxl")  # registers itself with Pillow
    except ImportError:
        return False
    return True


def readable() -> tuple[str, ...]:
    """Pillow's names of the formats that are opened, in the order in which they are tried."""
    ours = (name for name in _FORMATS if name != "MPO")  # which the reader of JPEG opens
    return (*(("JXL",) if has_jxl() else ()), *ours)


def by_suffix() -> dict[str, str]:
    """Suffix, in lower case and with its dot → Pillow's name of the format."""
    found = {s: name for name, suffixes in _FORMATS.items() for s in suffixes.split()}
    return found | ({".jxl": "JXL"} if has_jxl() else {})
