"""The allowlist of picture formats, and their suffixes and signatures.

Pillow tries every registered plugin by default, and its EPS plugin runs an external program on the
file. Only the formats here are opened.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path

from sempic import processes
from sempic.errors import OutputError

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
    "TGA": ".tga",  # last: TGA has no magic number and accepts many other files
}
_OTHERS = """
    .3fr .ai .arw .bpg .cr2 .cr3 .dds .dng .eps .exr .flif .hdr .heic .heif .hif .icns .ico .iiq
    .jxl .jxr .mrw .nef .orf .pcx .pef .pfm .ps .psd .qoi .raf .ras .raw .rw2 .sgi .srw .svg .wdp
    .xcf
"""
FOREIGN = frozenset(_OTHERS.split())
"""Suffixes of pictures that may be unsupported: a search of folders reports their number."""
COMPRESSED = frozenset({".gz", ".tgz", ".bz2", ".xz", ".zst"})
"""Suffixes of compressed tars, which are reported likewise."""
VIDEOS = frozenset((
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg",
    ".ogv", ".flv", ".3gp", ".y4m", ".hevc", ".h264",
))  # fmt: skip
"""Suffixes of files that are read as videos."""
_FILES = frozenset((
    ".sempic", ".tar", ".zip", ".html", ".json", ".jsonl", ".csv", ".md", ".txt", ".pdf", ".npz",
    ".npy", ".onnx", ".safetensors", ".pt",
))  # fmt: skip
"""Suffixes of other files."""


_lock = processes.ForkSafeLock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Pillow's warnings: readers check sizes, and damaged tags are harmless.

    Filters belong to the process, not to the thread, so warnings of other modules stay.
    """
    with _lock(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b|pillow_(jxl|heif)")
        yield


def has_jxl() -> bool:
    """Whether the JPEG XL plugin of Pillow is installed; imports the plugin."""
    try:
        importlib.import_module("pillow_jxl")  # registers itself with Pillow
    except ImportError:
        return False
    return True


def has_heif() -> bool:
    """Whether the HEIF plugin of Pillow is installed, which is imported at its first use."""
    return importlib.util.find_spec("pillow_heif") is not None


def is_video(data: bytes) -> bool:
    """Whether a file has the signature of a video: MP4, MOV, Matroska, AVI, FLV, Ogg, YUV4MPEG, or
    a program or transport stream of MPEG."""
    if data[4:8] == b"ftyp":
        return not is_picture_brand(data[8:12])
    return (
        data.startswith((b"\x1aE\xdf\xa3", b"FLV", b"OggS", b"YUV4MPEG2 ", b"\0\0\1\xba"))
        or (data.startswith(b"RIFF") and data[8:12] == b"AVI ")
        or data[:377:188] == b"GGG"  # each packet of 188 bytes begins so
    )


def is_tar(data: bytes) -> bool:
    """Whether a file has the signature of a tar, or of what compresses tars: gzip, bzip2, xz."""
    return data[257:262] == b"ustar" or data.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ"))


def is_picture_brand(brand: bytes) -> bool:
    """Whether an ISO base media file of this major brand is a picture."""
    return brand.startswith((b"avi", b"crx", *_HEIF))  # AVIF, Canon raw


_HEIF = (b"hei", b"hev", b"mif1", b"msf1")
"""Starts of the brands of HEIF."""


def is_heif(data: bytes) -> bool:
    """Whether a file has the signature of HEIF, as pictures from phones. It may be AVIF, too."""
    return data[4:8] == b"ftyp" and data[8:12].startswith(_HEIF)


def jxl_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in the header of a JPEG XL file; None: not JPEG XL.

    Check the size before opening the file: the plugin decodes at once, and ends the process if the
    memory does not suffice.

    Raises ValueError: the header is missing or incomplete.
    """
    if data[4:7] != b"JXL" and data[:2] != _CODESTREAM:
        return None
    start = data[:_HEADER] if data[:2] == _CODESTREAM else _codestream(data)
    if len(start) < _HEADER or start[:2] != _CODESTREAM:
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
_HEADER = 12
"""Bytes of a codestream that hold its size."""


def _codestream(data: bytes) -> bytes:
    """The start of the codestream in a JPEG XL container (ISO/IEC 18181-2)."""
    start, at = b"", 0
    while at + 8 <= len(data) and len(start) < _HEADER:
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        head = 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        end = at + size if size else len(data)
        if end < at + head:
            break
        if kind == b"jxlp":  # a partial codestream, after its index
            head += 4
        if kind in (b"jxlc", b"jxlp"):
            start += data[at + head : min(end, at + head + _HEADER)]
        at = end
    return start[:_HEADER]


def readable(start: bytes) -> tuple[str, ...]:
    """Pillow's names of the formats to try, in this order, for a file with these first bytes."""
    if is_heif(start) and has_heif():
        importlib.import_module("pillow_heif").register_heif_opener()
        return "AVIF", "HEIF"
    formats = (name for name in _FORMATS if name != "MPO")  # Pillow's JPEG reader opens MPO
    return (*(("JXL",) if has_jxl() else ()), *formats)


def is_name_of_file(path: Path) -> bool:
    """Whether a name has the suffix of a kind of file."""
    return path.suffix.lower() in {*by_suffix()} | FOREIGN | COMPRESSED | VIDEOS | _FILES


def check_name(path: Path, *own: str) -> None:
    """Raises OutputError if a name has the suffix of another kind of file than `own`, of which the
    first names the kind."""
    suffix = path.suffix.lower()
    if suffix not in own and is_name_of_file(path):
        raise OutputError(f"{path}: a {own[0]} file under the name of a {suffix} file")


def suffixes() -> frozenset[str]:
    """Suffixes of pictures that can be read."""
    return frozenset(by_suffix()) | (HEIF if has_heif() else frozenset())


HEIF = frozenset((".heic", ".heif", ".hif"))
"""Suffixes of HEIF, which is read and not written."""


def by_suffix() -> dict[str, str]:
    """Suffix, in lower case with its dot → Pillow's name of the format that is written."""
    names = {s: name for name, suffixes in _FORMATS.items() for s in suffixes.split()}
    return names | ({".jxl": "JXL"} if has_jxl() else {})
