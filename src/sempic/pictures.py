"""Picture files ⇄ arrays in sRGB, by Pillow. Works on bytes: `sempic.files` accesses the disk."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ImageCms, UnidentifiedImageError

from sempic import checks, formats
from sempic.container import MAGIC, MAX_PIXELS, MAX_SIDE, SEQUENCE_MAGIC
from sempic.errors import (
    ImageError,
    LabelMapError,
    OutputError,
    SizeError,
    install_hint,
    line,
    refused,
    warn,
)
from sempic.palette import CAMVID, CITYSCAPES, CITYSCAPES_FULL, INDICES, Palette
from sempic.scene import Image, LabelMap

_Result = TypeVar("_Result")
SUFFIXES = formats.suffixes()
"""Suffixes of pictures in a search of folders; files that are named are always tried."""
_PNM = {".ppm": "RGB", ".pgm": "L", ".pbm": "1"}
"""Modes of the formats of PNM; Pillow writes the one that fits a picture under any of the names."""
_CODESTREAMS = frozenset((".j2k", ".jpc", ".j2c"))
"""Suffixes of bare codestreams of JPEG 2000; Pillow writes JP2 unless told not to."""
_ErrorType: TypeAlias = type[ImageError] | type[LabelMapError]


def read(data: bytes) -> Image:
    """A picture file as uint8 (H, W, 3), sRGB, upright (see `to_rgb`).

    Damaged metadata is ignored.

    Raises ImageError: not a picture, cut short, damaged, or too large (SizeError).
    """
    return _despite_metadata(data, to_rgb)


def peek(data: bytes) -> tuple[int, int]:
    """(width, height) of a picture file as stored, from its header; raises ImageError as `read`."""
    return _despite_metadata(data, lambda picture: picture.size)


def _despite_metadata(data: bytes, use: Callable[[PIL.Image.Image], _Result]) -> _Result:
    """`use` of the picture; if that fails, of the picture without its metadata; then also without
    transparency and colour transform."""
    data = _checked(data, ImageError)
    try:
        return use(_open(data, ImageError))
    except ImageError:
        for keep_colour in (True, False):
            bare = _bare(data, keep_colour=keep_colour)
            if bare != data:
                with contextlib.suppress(ImageError):  # the first error is more specific
                    return use(_open(bare, ImageError))
        raise


def kind(data: bytes) -> str | None:
    """Pillow's name of a picture file's format; None: not a picture."""
    try:
        return _open(data, ImageError).format
    except ImageError:
        return None


def decode(data: bytes) -> PIL.Image.Image:
    """A picture file as a loaded PIL image, upright, whose mode distinguishes indices from colours;
    raises ImageError."""
    picture = _open(data, ImageError)
    _load(picture, ImageError)
    return _upright(picture)


def to_rgb(picture: PIL.Image.Image | npt.NDArray[np.uint8]) -> Image:
    """A picture as uint8 (H, W, 3) in sRGB.

    Applies EXIF rotation, converts from the embedded colour profile to sRGB, lays transparency over
    white, scales 16-bit grey by 255/65535, and takes the current frame of an animation: of a file
    the first. Warns (SempicWarning) of lost frames and lost transparency. An array must be uint8
    (H, W, 3).

    Raises ImageError: another type or shape, sides outside 1…65535, more than 2^26 pixels, samples
    without a defined range (32-bit or signed integers, floats), the preview in a raw photograph, or
    damaged data.
    """
    if isinstance(picture, np.ndarray):
        if not checks.is_uint8(picture, 3) or picture.shape[2] != 3:
            raise ImageError(
                f"an array must be uint8 (height, width, 3), not {checks.kind(picture)}"
            )
        _check_size(picture.shape[1], picture.shape[0])
        return picture
    if not isinstance(picture, PIL.Image.Image):
        raise ImageError(
            "a picture is a PIL image (PIL.Image.open) or a uint8 array, not "
            f"{type(picture).__name__}"
        )
    _check_size(*picture.size)
    clear = _transparent(picture)
    _load(picture, ImageError)
    turn, profile = _turn(picture), picture.info.get("icc_profile")
    frame, several = picture.tell(), _has_more_frames(picture)
    with refused(ImageError, f"mode {picture.mode} cannot become RGB", Exception), formats.quiet():
        if reason := _unreadable(picture):
            raise ImageError(f"{reason}; convert the picture first")
        if picture.mode in ("La", "RGBa"):  # samples multiplied by their opacity
            picture = picture.convert("LA" if picture.mode == "La" else "RGBA")
        alpha = _alpha(picture, clear)
        if picture.mode.startswith("I"):
            picture = _from_16_bit(picture)
        picture = _to_srgb(picture, profile)
        if alpha is not None:
            white = PIL.Image.new("RGB", picture.size, "white")
            picture = PIL.Image.composite(picture, white, alpha)
        if turn is not None:
            picture = picture.transpose(turn)
        pixels = np.array(picture, np.uint8)
    if several:
        taken = f"number {frame + 1}" if frame else "the first"
        warn(f"an animation or several pages: {taken} is taken, the others are left out")
    if alpha is not None and alpha.getextrema() != (255, 255):
        warn("transparency is laid over white; a .sempic file has none")
    return pixels


def shrink(picture: Image, labels: LabelMap | None, max_side: int) -> tuple[Image, LabelMap | None]:
    """A picture (bicubic) and its label map (nearest neighbour), scaled down to a longer side of at
    most `max_side` pixels; smaller pictures stay unchanged."""
    checks.whole("max_side", max_side, 1)
    height, width = to_rgb(picture).shape[:2]
    if max(width, height) <= max_side:
        return picture, labels
    scale = max_side / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return resized(picture, size), None if labels is None else resized(labels, size, "NEAREST")


def resized(
    array: npt.NDArray[np.uint8],
    size: tuple[int, int],
    how: Literal["BICUBIC", "NEAREST", "BOX", "LANCZOS"] = "BICUBIC",
) -> npt.NDArray[np.uint8]:
    """A picture or a label map, uint8 (H, W, 3) or (H, W), at another size, (width, height)."""
    return np.array(PIL.Image.fromarray(array).resize(size, PIL.Image.Resampling[how]))


def encode(picture: Image, suffix: str) -> bytes:
    """A picture, uint8 (H, W, 3) or grey (H, W), as a file of the format of `suffix` (".png", …).

    Raises OutputError: an unsupported suffix, or a picture too large for the format; ImageError:
    another type or shape.
    """
    colour = checks.is_uint8(picture, 3) and picture.shape[2] == 3
    if not (colour or checks.is_uint8(picture, 2)) or not picture.size:
        raise ImageError("a picture to be written is a uint8 array, (height, width, 3) or grey")
    return _save(PIL.Image.fromarray(picture), suffix)


def saved(picture: PIL.Image.Image, format: str, **options: Any) -> bytes:
    """A picture as a file of one of Pillow's formats, with the options and errors of its writer."""
    out = io.BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()


def animation(frames: Sequence[Image], rate: float, format: str, **options: Any) -> bytes:
    """An animation that loops forever.

    Args:
        frames: uint8 (H, W, 3), at least one, all of one size.
        rate: frames per second.
        format: "PNG" or "WEBP".
        options: of Pillow's writer.

    Raises OutputError, for a rate too low for the format, say.
    """
    first, *rest = map(PIL.Image.fromarray, frames)
    options |= {"save_all": True, "append_images": rest, "duration": 1000 / rate, "loop": 0}
    with refused(OutputError, f"cannot write this animation as {format}", Exception):
        return saved(first, format, **options)


def format_of(suffix: str) -> str:
    """Pillow's name of the format in which files with `suffix` are written; raises OutputError."""
    format = formats.by_suffix().get(suffix.lower())
    if format is None:
        hint = f"; {install_hint('jxl')}" if suffix.lower() == ".jxl" else ""
        if not suffix:
            hint = "; the name of a folder ends in /"
        raise OutputError(f"cannot write pictures of type {suffix or '(no suffix)'}{hint}")
    return format


def _save(picture: PIL.Image.Image, suffix: str) -> bytes:
    format, suffix = format_of(suffix), suffix.lower()
    options: dict[str, Any] = {}
    if format in ("JPEG", "MPO", "WEBP", "AVIF"):
        options["quality"] = 95
    elif suffix in _CODESTREAMS:
        options["no_jp2"] = True
    elif format == "GIF" and picture.mode == "P":
        options["optimize"] = False  # which would renumber the colours
    mode = _PNM.get(suffix, picture.mode)
    if mode not in (picture.mode, "RGB"):
        raise OutputError(f"a {suffix} file cannot hold this picture; a .ppm file can")
    if mode != picture.mode:
        picture = picture.convert(mode)
    with refused(OutputError, f"cannot write this picture as {format}", Exception):
        return saved(picture, format, **options)  # which errors there are varies by plugin


def _checked(data: bytes, error: _ErrorType) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise error(f"a picture file is bytes, not {type(data).__name__}")
    return bytes(data)


def _open(data: bytes, error: _ErrorType) -> PIL.Image.Image:
    """A PIL image before its pixels are loaded; exceptions of Pillow become `error`."""
    if not (data := _checked(data, error)):
        raise error("the file is empty")
    try:
        if formats.has_jxl() and (claimed := formats.jxl_size(data)) is not None:
            _check_size(*claimed)
        with formats.quiet():
            picture = PIL.Image.open(io.BytesIO(data), formats=formats.readable(data[:12]))
    except error:
        raise
    except UnidentifiedImageError as cause:
        raise error(_why_not_read(data[:512])) from cause
    except PIL.Image.DecompressionBombError as cause:
        raise SizeError(f"more than the limit of {MAX_PIXELS} pixels") from cause
    except Exception as cause:  # varies by plugin
        raise error(f"a damaged picture: {line(cause)}") from cause
    _check_size(*picture.size)
    return picture


def _why_not_read(start: bytes) -> str:
    """Why a file is not read, from its first bytes."""
    if start.startswith((MAGIC, SEQUENCE_MAGIC)):
        return "a .sempic file, not a picture; sempic decode makes one"
    if start[:2] == b"\xff\x0a" or start[4:12] == b"JXL \r\n\x87\n":
        return f"JPEG XL needs a plugin: {install_hint('jxl')}"
    if formats.is_heif(start):
        if formats.has_heif():
            return "a damaged HEIC picture, or one of a kind that is not supported"
        return f"a HEIC picture; convert it to JPEG or PNG, or {install_hint('heic')}"
    if formats.is_video(start):
        return "a video, not a picture"
    others = {b"%!PS": "PostScript", b"%PDF": "PDF", b"8BPS": "Photoshop", b"<svg": "SVG"}
    others |= dict.fromkeys((b"II*\0", b"MM\0*"), "a damaged TIFF, or one of a kind that")
    known = others.get(start[:4])
    return "not a picture that can be read" + (f": {known} is not supported" if known else "")


def _has_more_frames(picture: PIL.Image.Image) -> bool:
    if picture.format == "MPO":  # a JPEG of a phone, with previews or a second view
        return False
    try:
        return bool(getattr(picture, "is_animated", False))
    except Exception:  # the second frame is damaged; the first is complete
        return True


def _load(picture: PIL.Image.Image, error: _ErrorType) -> None:
    with refused(error, "a damaged picture", Exception), formats.quiet():
        picture.load()


def _check_size(width: int, height: int) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise SizeError(
            f"{width}×{height}: each side must be 1…{MAX_SIDE} pixels; make it fit first"
        )
    if width * height > MAX_PIXELS:
        raise SizeError(
            f"{width}×{height} is more than the limit of {MAX_PIXELS} pixels, which max_side does "
            "not lift; make it smaller first"
        )


# ── metadata and pixel formats ───────────────────────────────────────────────────────────────

_TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}


def _turn(picture: PIL.Image.Image) -> PIL.Image.Transpose | None:
    """The transposition that makes the picture upright, by EXIF or XMP; None: none, or damaged."""
    if picture.format in ("HEIF", "JXL") and not getattr(picture, "jpeg", False):
        return None  # they have an orientation of their own, which their decoders apply
    try:
        with formats.quiet():
            return _TURNS.get(int(picture.getexif().get(0x0112, 1)))
    except Exception:  # damaged tags; the exception varies
        return None


def _upright(picture: PIL.Image.Image) -> PIL.Image.Image:
    """A loaded picture, turned as its metadata says."""
    turn = _turn(picture)
    return picture if turn is None else picture.transpose(turn)


def _bare(data: bytes, *, keep_colour: bool) -> bytes:
    """A PNG or JPEG file of the chunks or segments needed to decode, and if `keep_colour` of tRNS
    and Adobe; other files unchanged."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        out, at = bytearray(data[:8]), 8
        while at + 8 <= len(data):
            size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            if kind[:1].isupper() or (keep_colour and kind == b"tRNS"):
                out += data[at : at + size + 12]
            at += size + 12
        return bytes(out)
    if data.startswith(b"\xff\xd8"):
        out, at = bytearray(data[:2]), 2
        while at + 4 <= len(data) and data[at] == 0xFF:
            marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
            if marker == 0xDA:  # the pixels
                break
            adobe = marker == 0xEE and keep_colour
            if adobe or (marker != 0xFE and not 0xE0 < marker < 0xF0):
                out += data[at : at + size + 2]
            at += size + 2
        return bytes(out + data[at:])
    return data


def _raw_mode(picture: PIL.Image.Image) -> tuple[str, int]:
    """How an unloaded grey picture stores samples: Pillow's raw mode, and the largest sample if
    Pillow stretches samples to the full range (PGM), else 0."""
    tile = getattr(picture, "tile", None)
    if not tile:
        return picture.mode, 0
    args = tile[0][3] if isinstance(tile[0][3], tuple) else (tile[0][3],)
    raw = args[0] if args and isinstance(args[0], str) else picture.mode
    largest = args[1] if tile[0][0] in ("ppm", "ppm_plain") and len(args) > 1 else 0
    return raw, largest if isinstance(largest, int) else 0


def _transparent(picture: PIL.Image.Image) -> int | tuple[int, ...] | bytes | None:
    """The transparent colour in Pillow's samples; `info` holds the colour in the file's samples."""
    clear = picture.info.get("transparency")
    raw, _ = _raw_mode(picture)
    if isinstance(clear, int) and picture.format == "PNG" and raw in ("L;2", "L;4"):
        return clear * (85 if raw == "L;2" else 17)
    if isinstance(clear, tuple) and raw == "RGB;16B":
        return tuple(c >> 8 for c in clear)
    return clear if isinstance(clear, (int, tuple, bytes)) else None


def _alpha(
    picture: PIL.Image.Image, clear: int | tuple[int, ...] | bytes | None
) -> PIL.Image.Image | None:
    """The opacity of each pixel, mode L; None: all pixels are opaque."""
    mode = picture.mode
    if mode in ("RGBA", "LA", "PA"):
        return picture.getchannel("A")
    if mode == "P":
        opaque = clear is None and not (picture.palette and picture.palette.mode.endswith("A"))
        return None if opaque else picture.convert("RGBA").getchannel("A")
    if clear is None or isinstance(clear, bytes) or mode not in ("1", "L", "RGB", "I", "I;16"):
        return None
    pixels = np.array(picture.convert("L") if mode == "1" else picture)
    if mode == "RGB":
        same = isinstance(clear, tuple) and (pixels == clear[:3]).all(2)
    else:
        same = pixels == (clear[0] if isinstance(clear, tuple) else clear)
    return PIL.Image.fromarray(np.where(same, 0, 255).astype(np.uint8))


_BITS, _PHOTOMETRIC, _PLANES, _SAMPLES = 258, 262, 284, 339
_REDUCED, _RAW = 254, 50706
"""Tags of TIFF; _RAW: of DNG."""


def _unreadable(picture: PIL.Image.Image) -> str | None:
    """Why the loaded samples have no meaning, or another one than in the file; None: they have."""
    tags = getattr(picture, "tag_v2", {})
    bits = max(tags.get(_BITS, (8,)))
    if _RAW in tags or tags.get(_REDUCED) == 1:
        return "only a preview of a raw photograph or of a larger picture"
    if picture.mode == "F":
        return "floating-point samples have no defined range"
    if 2 in tags.get(_SAMPLES, ()):
        return "signed samples have no defined range"
    if bits > 16 or (picture.mode == "I" and picture.format not in ("PNG", "PPM")):
        return "32-bit samples have no defined range"
    raw = picture.info.get("compression") == "raw"
    if raw and bits > 8 and tags.get(_PLANES) == 2 and len(picture.getbands()) > 1:
        return "Pillow cannot read uncompressed 16-bit planes"
    return None


def _from_16_bit(picture: PIL.Image.Image) -> PIL.Image.Image:
    """8-bit grey; from TIFF also of 12 bits, or where 0 means white."""
    tags = getattr(picture, "tag_v2", {})
    largest = 4095 if tags.get(_BITS) == (12,) else 65535
    pixels = (np.array(picture).astype(np.int64) * 255 + largest // 2) // largest
    if tags.get(_PHOTOMETRIC) == 0:
        pixels = 255 - pixels
    return PIL.Image.fromarray(pixels.astype(np.uint8))


_SPACES = {
    "RGB": ("RGB", "1 L P PA RGB RGBA RGBX LA"),
    "GRAY": ("L", "1 L LA"),
    "CMYK": ("CMYK", "CMYK"),
    "Lab": ("LAB", "LAB"),
}
"""Colour space of a profile → its mode in Pillow, and the modes that convert to this mode."""


def _to_srgb(picture: PIL.Image.Image, profile: bytes | None) -> PIL.Image.Image:
    """RGB without alpha, by the embedded profile if it suits the mode, else by formulas."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            mode, modes = _SPACES.get(source.profile.xcolor_space.strip(), ("", ""))
            if picture.mode in modes.split():
                converted = ImageCms.profileToProfile(
                    _converted(picture, mode),
                    source,
                    ImageCms.createProfile("sRGB"),
                    outputMode="RGB",
                )
                assert converted is not None  # not in place
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # the picture is usable without its profile
    return _converted(picture, "RGB")


def _converted(picture: PIL.Image.Image, mode: str) -> PIL.Image.Image:
    """Another mode by Pillow's formulas; transparent pixels keep their colours."""
    if picture.mode == mode:
        return picture
    if picture.mode == "P" and picture.palette is not None and picture.palette.mode != "RGB":
        picture = picture.convert("RGBA")
    return picture.convert(mode)


# ── label maps ───────────────────────────────────────────────────────────────────────────────

_EXACT = ("PNG", "BMP", "DIB", "GIF", "PPM", "TIFF", "TGA")
"""Formats that keep ids exactly."""


def read_labels(data: bytes, palette: Palette = CAMVID) -> LabelMap:
    """A label map file as uint8 (H, W), upright as `to_rgb`: the stored samples of any bit depth.

    Label maps are grey or palette pictures of 1 to 16 bits; the sample is the id. If all colours
    in use are of `palette` in another order (some optimisers sort colours), the colour is the id.

    Raises LabelMapError: not a picture, not grey or palette, ids above 255, a format that does not
    keep ids exactly, or colours that contradict the indices.
    """
    picture = _open(data, LabelMapError)
    if picture.format not in _EXACT or picture.info.get("compression") in ("jpeg", "webp"):
        raise LabelMapError(
            f"{picture.format} files (this one has mode {picture.mode}) do not keep ids exactly; "
            "a label map is a grey or palette PNG"
        )
    raw = _raw_mode(picture)
    _load(picture, LabelMapError)
    picture = _upright(picture)
    if picture.mode == "P":
        return _ids_of(np.array(picture, np.uint8), picture.getpalette("RGB") or [], palette)
    if picture.mode not in ("1", "L") and not picture.mode.startswith("I"):
        raise LabelMapError(
            "a label map is a grey or palette picture of ids, this one has mode " + picture.mode
        )
    ids = _stored_samples(np.array(picture).astype(np.int64), picture.mode, *raw)
    if ids.min() < 0 or ids.max() > 255:
        raise LabelMapError(f"ids are 0…255, this label map has {ids.min()}…{ids.max()}")
    return ids.astype(np.uint8)


def palette_of(data: bytes) -> Palette:
    """The palette of a label map file: that which has all colours of a palette picture, as
    `encode_labels` writes it; CamVid for grey maps and for colours of no built-in palette. Warns of
    the latter.

    Raises LabelMapError: not a picture, or damaged.
    """
    picture = _open(data, LabelMapError)
    _load(picture, LabelMapError)
    colours = (picture.mode == "P" and picture.getpalette("RGB")) or []
    listed = {tuple(colours[i : i + 3]) for i in range(0, len(colours) - 2, 3)}
    for palette in (CAMVID, CITYSCAPES, CITYSCAPES_FULL):
        if listed <= {*palette.colours, (0, 0, 0)}:  # black fills palettes up
            return palette
    if listed == {*INDICES.colours}:
        return INDICES
    if any(len({*colour}) > 1 for colour in listed):  # not a grey map
        warn("the label map has colours of no palette: its ids are read as those of camvid")
    return CAMVID


def is_map(data: bytes) -> bool | None:
    """Whether a picture file looks like a label map and not like a photograph: lossless format, and
    one channel or at most 256 colours. None if the file cannot be read."""
    try:
        picture = _open(data, ImageError)
        if picture.format not in _EXACT:
            return False
        _load(picture, ImageError)
        if len(picture.getbands()) == 1:
            return True
        return picture.getcolors(256) is not None
    except ImageError:
        return None


def encode_labels(labels: LabelMap, palette: Palette, suffix: str) -> bytes:
    """A label map in the colours of its palette, as a file of the format of `suffix`.

    PNG, BMP and GIF files store ids as indices, so `read_labels` restores the map.

    Raises OutputError as `encode`.
    """
    if suffix.lower() not in (".png", ".bmp", ".gif"):
        return encode(palette.paint(labels), suffix)
    picture = PIL.Image.fromarray(labels)
    picture.putpalette(palette.table().tobytes())
    return _save(picture, suffix)


def _stored_samples(
    samples: npt.NDArray[np.int64], mode: str, raw: str, largest: int
) -> npt.NDArray[np.int64]:
    """The samples in the file, from Pillow's stretched or inverted samples."""
    if largest:
        full = 255 if mode == "L" else 65535
        return (samples * largest + full // 2) // full
    match = re.fullmatch(r"[1L](?:;(\d+)?(I)?R?)?", raw)
    if match is None:
        return samples
    bits = 1 if mode == "1" else int(match[1] or 8)
    stored = samples if mode == "1" else samples // (255 // ((1 << bits) - 1))
    return (1 << bits) - 1 - stored if match[2] else stored


def _ids_of(indices: LabelMap, colours: list[int], palette: Palette) -> LabelMap:
    """The ids of a palette picture: the indices, or the colours if a program reordered them."""
    stored = [tuple(colours[i : i + 3]) for i in range(0, len(colours) - 2, 3)]
    while stored and not any(stored[-1]):  # padding
        stored.pop()
    stored.append((0, 0, 0))
    used = [int(i) for i in np.unique(indices)]
    if used[-1] >= len(stored):
        return indices
    expected: dict[int, tuple[int, ...]] = dict(enumerate(palette.colours))
    shown = {i: stored[i] for i in used}
    if all(expected.get(i) == c for i, c in shown.items()) or len(set(shown.values())) < len(used):
        return indices
    table = np.arange(256, dtype=np.uint8)
    greys = {c[0] for c in shown.values() if c == (c[0],) * 3}
    ids = {*expected}
    if palette.last is not None and not greys <= {0, 255}:  # not a mask in black and white
        ids.add(255)
    if len(greys) == len(used) and greys <= ids:
        table[used] = [c[0] for c in shown.values()]  # grey ids, converted to a palette picture
        return table[indices]
    known = {c: i for i, c in reversed(expected.items())}
    if palette is INDICES or not all(c in known for c in shown.values()):
        return indices  # the colours are of no palette
    if any(c not in known for c in stored if any(c)):
        raise LabelMapError(
            f"its indices and its colours name different classes of palette {palette.name}; "
            "save the ids as a grey PNG"
        )
    table[used] = [known[c] for c in shown.values()]
    return table[indices]
