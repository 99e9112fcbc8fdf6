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


def is_video(data: bytes) -> bool:
    """Whether a file begins as videos do: MP4 and its kin, Matroska, AVI, YUV4MPEG."""
    if data[4:8] == b"ftyp":
        return not data[8:12].startswith(_PICTURE_BRANDS)
    return data.startswith((b"\x1aE\xdf\xa3", b"YUV4MPEG2 ")) or (
        data.startswith(b"RIFF") and data[8:12] == b"AVI "
    )


_PICTURE_BRANDS = (b"avi", b"hei", b"hev", b"mif1", b"msf1", b"crx")
"""What files of boxes begin with that are pictures: AVIF, HEIF, raw ones of Canon."""


def jxl_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that a JPEG XL file claims; None if it is none.

    The plugin decodes all when it opens, and where a claim takes more memory than there is, it ends
    the process: nothing is to be opened before its size was looked at.

    Raises ValueError: no header, or only its beginning.
    """
    if data[4:7] != b"JXL" and data[:2] != _CODESTREAM:
        return None
    start = data[:_ENOUGH] if data[:2] == _CODESTREAM else _codestream(data)
    if len(start) < _ENOUGH or start[:2] != _CODESTREAM:
        raise ValueError("a JPEG XL file without a whole header")
    bits = int.from_bytes(start[2:], "little")  # SizeHeader: ISO/IEC 18181-1, D.2

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


_CODESTREAM = b"\xff\x0a"
_ENOUGH = 12
"""Bytes of a codestream, with what its size is in."""


def _codestream(data: bytes) -> bytes:
    """The beginning of the codestream in a file of boxes (ISO/IEC 18181-2)."""
    found, at = b"", 0
    while at + 8 <= len(data) and len(found) < _ENOUGH:
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        head = 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        end = at + size if size else len(data)
        if end < at + head:
            break
        if kind == b"jxlp":  # one of several parts, after its number
            head += 4
        if kind in (b"jxlc", b"jxlp"):
            found += data[at + head : min(end, at + head + _ENOUGH)]
        at = end
    return found[:_ENOUGH]


def readable() -> tuple[str, ...]:
    """Pillow's names of the formats that are opened, in the order in which they are tried."""
    ours = (name for name in _FORMATS if name != "MPO")  # which the reader of JPEG opens
    return (*(("JXL",) if has_jxl() else ()), *ours)


def by_suffix() -> dict[str, str]:
    """Suffix, in lower case and with its dot → Pillow's name of the format."""
    found = {s: name for name, suffixes in _FORMATS.items() for s in suffixes.split()}
    return found | ({".jxl": "JXL"} if has_jxl() else {})
