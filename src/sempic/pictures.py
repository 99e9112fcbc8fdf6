"""Picture files ⇄ arrays: whatever Pillow opens comes out as sRGB, whole or with a reason.

Bytes in, arrays out, and the reverse; `sempic.files` is what touches the disk.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageChops
import PIL.ImageFilter
from PIL import ImageCms, ImagePalette, UnidentifiedImageError

from sempic import formats, processes
from sempic.checks import whole
from sempic.container import MAX_PIXELS, MAX_SIDE
from sempic.errors import ImageError, LabelMapError, OutputError, install_hint, line, warn
from sempic.palette import CAMVID, INDICES, Palette
from sempic.scene import Image, LabelMap

_Found = TypeVar("_Found")
SUFFIXES = frozenset(formats.by_suffix())
"""What counts as a picture when a folder is searched; a file named outright is always tried."""
_EXACT = ("PNG", "BMP", "DIB", "GIF", "PPM", "TIFF", "TGA")
"""Formats that keep ids as they are."""

SOFT = {400: 8.0, 300: 6.0}
"""By the shorter side that a picture exceeds: the mean square, in grey levels, of what half its
size may lose (docs/experiments/scale.md). Smaller ones are of the scale that networks were taught.
"""

_ENLARGED = 100
"""Percent by which an enlarged picture is sharpened."""
_ROWS = 64
"""How many are worked on at a time: they stay in a processor's cache."""
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""Brands of pictures that phones make and Pillow does not open by itself."""


def read(data: bytes) -> Image:
    """A picture file as uint8 (H, W, 3), sRGB, upright (see `to_rgb`).

    Damaged metadata is left aside: only pixels that cannot be had are an error.

    Raises ImageError: not a picture, cut short, damaged, or too large.
    """
    return _whatever_its_metadata(data, to_rgb)


def peek(data: bytes) -> tuple[int, int]:
    """(width, height) of a picture file as stored, from its header; raises ImageError as `read`."""
    return _whatever_its_metadata(data, lambda picture: picture.size)


def _whatever_its_metadata(data: bytes, use: Callable[[PIL.Image.Image], _Found]) -> _Found:
    """What is made of a picture file; of its pixels alone, if what is around them is damaged."""
    data = _checked(data, ImageError)
    try:
        return use(_open(data, ImageError))
    except ImageError:
        for bare in _without_metadata(data):
            with contextlib.suppress(ImageError):  # the first error says more
                return use(_open(bare, ImageError))
        raise


def kind(data: bytes) -> str | None:
    """The format of a picture file, as Pillow names it; None if it is not one."""
    try:
        return _open(data, ImageError).format
    except ImageError:
        return None


def read_labels(data: bytes, palette: Palette = CAMVID) -> LabelMap:
    """A label map as uint8 (H, W): the samples as they are stored, whatever their bit depth.

    Grey pictures and palette pictures of 1 to 16 bits hold label maps; the index is the id. Where
    the colours in use are all of `palette`, but in another order (optimisers sort them anew), the
    colour tells the id.

    Raises LabelMapError: not a picture, not one of indices, ids above 255, a format that does not
    keep them exactly, or colours and indices that contradict each other.
    """
    picture = _open(_checked(data, LabelMapError), LabelMapError)
    if picture.format not in _EXACT or picture.info.get("compression") in ("jpeg", "webp"):
        raise LabelMapError(
            f"{picture.format} files (this one has mode {picture.mode}) do not keep ids exactly; "
            "a label map is a grey or palette PNG"
        )
    raw = _raw_mode(picture)
    _load(picture, LabelMapError)
    if picture.mode == "P":
        return _by_colour(np.array(picture, np.uint8), picture.getpalette("RGB") or [], palette)
    if picture.mode not in ("1", "L") and not picture.mode.startswith("I"):
        raise LabelMapError(
            "a label map is a grey or palette picture of ids, this one has mode " + picture.mode
        )
    ids = _as_stored(np.array(picture).astype(np.int64), picture.mode, *raw)
    if ids.min() < 0 or ids.max() > 255:
        raise LabelMapError(f"ids are 0…255, this label map has {ids.min()}…{ids.max()}")
    return ids.astype(np.uint8)


def is_map(data: bytes) -> bool | None:
    """Whether a picture file looks like a label map rather than a photograph: a format without
    loss, and one channel or at most 256 colours. None if it cannot be read."""
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


def decode(data: bytes) -> PIL.Image.Image:
    """A file as Pillow has it, whose mode tells indices from colours; raises ImageError."""
    picture = _open(data, ImageError)
    _load(picture, ImageError)
    return picture


def to_rgb(picture: PIL.Image.Image | npt.NDArray[np.uint8]) -> Image:
    """A picture as uint8 (H, W, 3) in sRGB.

    EXIF rotation is applied, an embedded colour profile is converted to sRGB in every mode that it
    fits, transparency of every kind is laid over white, 16-bit grey is scaled by 255/65535, of an
    animation the first frame is taken. Warns (SempicWarning) of further frames and of transparency,
    since they are lost. An array must be uint8 (H, W, 3) already.

    Raises ImageError: another type or shape, sides outside 1…65535, more than 2^26 pixels,
    pixels without a defined range (32-bit integers, floats), or damaged data.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ImageError(
                f"an array must be uint8 (height, width, 3), not {picture.dtype} {picture.shape}"
            )
        _check_size(picture.shape[1], picture.shape[0], ImageError)
        return picture
    if not isinstance(picture, PIL.Image.Image):
        raise ImageError(f"a picture is a PIL image or a uint8 array, not {type(picture).__name__}")
    _check_size(*picture.size, ImageError)
    clear = _transparent(picture)
    _load(picture, ImageError)
    turn, profile = _turn(picture), picture.info.get("icc_profile")
    more = _has_more_frames(picture)
    try:
        with _quiet():
            alpha = _alpha(picture, clear)
            if picture.mode.startswith("I"):
                picture = _from_16_bit(picture)
            if picture.mode == "F":
                raise ImageError(
                    "floating-point pixels have no defined range; convert the picture first"
                )
            picture = _to_srgb(picture, profile)
            if alpha is not None:
                white = PIL.Image.new("RGB", picture.size, "white")
                picture = PIL.Image.composite(picture, white, alpha)
            if turn is not None:
                picture = picture.transpose(turn)
            pixels = np.array(picture, np.uint8)
    except (ImageError, MemoryError):
        raise
    except Exception as cause:
        raise ImageError(f"mode {picture.mode} cannot become RGB: {line(cause)}") from cause
    if more:
        warn("an animation or several pages: the first is taken, the others are left out")
    if alpha is not None and alpha.getextrema() != (255, 255):
        warn("transparency is laid over white; a .sempic file has none")
    return pixels


def shrink(picture: Image, labels: LabelMap | None, max_side: int) -> tuple[Image, LabelMap | None]:
    """Both scaled down so that the longer side is at most `max_side` pixels; never up.

    Pictures by bicubic filtering, label maps by nearest neighbour.
    """
    whole("max_side", max_side, 1)
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


def is_soft(picture: Image) -> bool:
    """Whether a picture is large and has no detail that half its size would lose, as most frames of
    a camera; uint8 (H, W, 3)."""
    height, width = picture.shape[:2]
    allowed = [loss for side, loss in SOFT.items() if min(height, width) > side]
    if not allowed:
        return False
    grey = PIL.Image.fromarray(picture[: height // 2 * 2, : width // 2 * 2]).convert("L")
    again = grey.reduce(2).resize(grey.size, PIL.Image.Resampling.BICUBIC)
    counts = np.array(PIL.ImageChops.difference(grey, again).histogram())
    return float(counts @ np.arange(256) ** 2 / counts.sum()) <= allowed[0]


def doubled(picture: Image) -> Image:
    """A painted picture at twice its size: bicubic, without the specks that this makes of single
    pixels, and as sharp as before (docs/experiments/receiver.md)."""
    large = resized(picture, (2 * picture.shape[1], 2 * picture.shape[0]))
    clean = np.empty_like(large)
    for top in range(0, len(large), _ROWS):
        stop = min(top + _ROWS, len(large))
        clean[top:stop] = _median(large[np.arange(top - 1, stop + 1).clip(0, len(large) - 1)])
    return sharpened(clean, _ENLARGED)


def _median(picture: Image) -> Image:
    """The median of each 3×3 pixels, (H - 2, W, 3) of (H, W, 3); columns left and right go on."""
    columns = np.pad(picture, ((0, 0), (1, 1), (0, 0)), mode="edge")
    above, here, below = columns[:-2], columns[1:-1], columns[2:]
    least, most = np.minimum(above, here), np.maximum(above, here)
    least, middle = np.minimum(least, below), np.minimum(most, np.maximum(least, below))
    most = np.maximum(most, below)
    sides = [np.s_[:, i : i + picture.shape[1]] for i in range(3)]
    low = functools.reduce(np.maximum, (least[side] for side in sides))
    high = functools.reduce(np.minimum, (most[side] for side in sides))
    return _middle(low, _middle(*(middle[side] for side in sides)), high)


def _middle(a: Image, b: Image, c: Image) -> Image:
    """The middle one of three, pixel by pixel."""
    found: Image = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))
    return found


def sharpened(picture: Image, percent: int) -> Image:
    """A picture, uint8 (H, W, 3), with so much more of what is finer than some two pixels."""
    mask = PIL.ImageFilter.UnsharpMask(radius=1, percent=percent, threshold=0)
    return np.array(PIL.Image.fromarray(picture).filter(mask))


def encode(picture: Image, suffix: str) -> bytes:
    """A picture as a file of the format that `suffix` (".png", ".jpg", …) names.

    picture may be grey, uint8 (H, W), too.

    Raises OutputError: a suffix that is not written, or a picture too large for the format;
    ImageError: no such array.
    """
    given: object = picture
    if not isinstance(given, np.ndarray) or given.dtype != np.uint8 or given.ndim not in (2, 3):
        raise ImageError("a picture to be written is a uint8 array, (height, width, 3) or grey")
    return _save(PIL.Image.fromarray(picture), suffix)


def encode_labels(labels: LabelMap, palette: Palette, suffix: str) -> bytes:
    """A label map in its palette's colours, as a file of the format that `suffix` names.

    In PNG and BMP the stored index of a pixel is its id, so `read_labels` gives the map back.

    Raises OutputError as `encode` does.
    """
    if suffix.lower() not in (".png", ".bmp"):
        return encode(palette.paint(labels), suffix)
    picture = PIL.Image.fromarray(labels)
    picture.putpalette(palette.table().tobytes())
    return _save(picture, suffix)


def animation(frames: Sequence[Image], rate: float, format: str, **told: Any) -> bytes:
    """A picture file that plays over and over.

    Args:
        frames: uint8 (H, W, 3), one at least, all of one size.
        rate: frames in a second.
        format: one that moves, as Pillow calls it.
        told: to Pillow's writer of it.
    """
    out = io.BytesIO()
    first, *rest = map(PIL.Image.fromarray, frames)
    first.save(out, format, save_all=True, append_images=rest, duration=1000 / rate, loop=0, **told)
    return out.getvalue()


def _save(picture: PIL.Image.Image, suffix: str) -> bytes:
    format = formats.by_suffix().get(suffix.lower())
    if format is None:
        hint = f"; {install_hint('jxl')}" if suffix.lower() == ".jxl" else ""
        raise OutputError(f"cannot write pictures of type {suffix or '(no suffix)'}{hint}")
    out = io.BytesIO()
    lossy = format in ("JPEG", "MPO", "WEBP", "AVIF")
    try:
        picture.save(out, format, **({"quality": 95} if lossy else {}))
    except MemoryError:
        raise
    except Exception as cause:  # each plugin has its own
        raise OutputError(f"cannot write this picture as {format}: {line(cause)}") from cause
    return out.getvalue()


_Kind: TypeAlias = type[ImageError] | type[LabelMapError]


def _checked(data: bytes, error: _Kind) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise error(f"a picture file is bytes, not {type(data).__name__}")
    return bytes(data)


def _open(data: bytes, error: _Kind) -> PIL.Image.Image:
    """A Pillow image whose pixels are not yet loaded; whatever Pillow raises becomes `error`."""
    if not data:
        raise error("the file is empty")
    try:
        if formats.has_jxl() and (claimed := formats.jxl_size(data)) is not None:
            _check_size(*claimed, error)
        with _quiet():
            picture = PIL.Image.open(io.BytesIO(data), formats=formats.readable())
    except error:
        raise
    except UnidentifiedImageError as cause:
        raise error(_what(data[:32])) from cause
    except PIL.Image.DecompressionBombError as cause:
        raise error(f"more than the limit of {MAX_PIXELS} pixels") from cause
    except Exception as cause:  # Pillow's plugins raise many kinds on damaged files
        raise error(f"a damaged picture: {line(cause)}") from cause
    _check_size(*picture.size, error)
    return picture


def _what(start: bytes) -> str:
    """Why a file is not read, as far as its first bytes tell."""
    if start[:2] == b"\xff\x0a" or start[4:12] == b"JXL \r\n\x87\n":
        return f"JPEG XL needs a plugin: {install_hint('jxl')}"
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC:
        return "a HEIC picture; convert it to JPEG or PNG first"
    others = {b"%!PS": "PostScript", b"%PDF": "PDF", b"8BPS": "Photoshop", b"<svg": "SVG"}
    known = others.get(start[:4])
    return "not a picture that can be read" + (f": {known} is left to others" if known else "")


def _has_more_frames(picture: PIL.Image.Image) -> bool:
    if picture.format == "MPO":  # a JPEG with previews or a second view, as phones make them
        return False
    try:
        return bool(getattr(picture, "is_animated", False))
    except Exception:  # of a damaged second frame; the first is whole
        return True


def _load(picture: PIL.Image.Image, error: _Kind) -> None:
    try:
        with _quiet():
            picture.load()
    except MemoryError:
        raise
    except Exception as cause:
        raise error(f"a damaged picture: {line(cause)}") from cause


def _check_size(width: int, height: int, error: _Kind) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise error(f"{width}×{height}: each side must be 1…{MAX_SIDE} pixels; make it fit first")
    if width * height > MAX_PIXELS:
        raise error(
            f"{width}×{height} is more than the limit of {MAX_PIXELS} pixels; make it smaller first"
        )


_lock = processes.ForkSafeLock()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's warnings: sizes are checked here, and damaged tags are harmless."""
    with _lock(), warnings.catch_warnings():  # filters are the process's, not the thread's
        warnings.simplefilter("ignore")
        yield


# ── what lies around the pixels ──────────────────────────────────────────────────────────────

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
    """What makes the picture upright, by EXIF or XMP; None if nothing, or if they are damaged."""
    try:
        with _quiet():
            return _TURNS.get(int(picture.getexif().get(0x0112, 1)))
    except Exception:  # Pillow's readers raise whatever they like on damaged tags
        return None


def _without_metadata(data: bytes) -> Iterator[bytes]:
    """A PNG or JPEG file with nothing in it but what its pixels need; then without what says how
    they are meant (transparency, CMYK), too. None of other files."""
    for helpful in (True, False):
        bare = _bare(data, helpful=helpful)
        if bare != data:
            yield bare


def _bare(data: bytes, *, helpful: bool) -> bytes:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        out, at = data[:8], 8
        while at + 8 <= len(data):
            size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            if kind[:1].isupper() or (helpful and kind == b"tRNS"):
                out += data[at : at + size + 12]
            at += size + 12
        return out
    if data.startswith(b"\xff\xd8"):
        out, at = data[:2], 2
        while at + 4 <= len(data) and data[at] == 0xFF:
            marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
            if marker == 0xDA:  # the pixels
                break
            adobe = marker == 0xEE and helpful
            if adobe or (marker != 0xFE and not 0xE0 < marker < 0xF0):
                out += data[at : at + size + 2]
            at += size + 2
        return out + data[at:]
    return data


def _raw_mode(picture: PIL.Image.Image) -> tuple[str, int]:
    """How the samples of an unloaded grey picture are stored: Pillow's raw mode, and the largest
    sample where Pillow stretches it to the full range (PGM), else 0."""
    tile = getattr(picture, "tile", None)
    if not tile:
        return picture.mode, 0
    args = tile[0][3] if isinstance(tile[0][3], tuple) else (tile[0][3],)
    raw = args[0] if args and isinstance(args[0], str) else picture.mode
    most = args[1] if tile[0][0] in ("ppm", "ppm_plain") and len(args) > 1 else 0
    return raw, most if isinstance(most, int) else 0


def _as_stored(
    samples: npt.NDArray[np.int64], mode: str, raw: str, most: int
) -> npt.NDArray[np.int64]:
    """The samples in the file, from those that Pillow gives (stretched, inverted)."""
    if most:
        full = 255 if mode == "L" else 65535
        return (samples * most + full // 2) // full
    found = re.fullmatch(r"[1L](?:;(\d+)?(I)?R?)?", raw)
    if found is None:
        return samples
    bits = 1 if mode == "1" else int(found[1] or 8)
    stored = samples if mode == "1" else samples // (255 // ((1 << bits) - 1))
    return (1 << bits) - 1 - stored if found[2] else stored


def _by_colour(ids: LabelMap, colours: list[int], palette: Palette) -> LabelMap:
    """The ids of a palette picture; by their colours if these say that the order was changed."""
    stored = [tuple(colours[i : i + 3]) for i in range(0, len(colours) - 2, 3)]
    while stored and not any(stored[-1]):  # what fills up a palette
        stored.pop()
    stored.append((0, 0, 0))
    used = [int(i) for i in np.unique(ids)]
    if used[-1] >= len(stored):
        return ids
    own: dict[int, tuple[int, ...]] = dict(enumerate(palette.colours))
    shown = {i: stored[i] for i in used}
    if all(own.get(i) == c for i, c in shown.items()) or len(set(shown.values())) < len(used):
        return ids
    table = np.arange(256, dtype=np.uint8)
    if all(c == (c[0],) * 3 and c[0] < len(own) for c in shown.values()):
        table[used] = [c[0] for c in shown.values()]  # grey ids whose file became a palette's
        return table[ids]
    known = {c: i for i, c in reversed(own.items())}
    if palette is INDICES or not all(c in known for c in shown.values()):
        return ids  # colours of another kind: only for show
    if any(c not in known for c in stored if any(c)):
        raise LabelMapError(
            f"its indices and its colours name different classes of palette {palette.name}; "
            "save the ids as a grey PNG"
        )
    table[used] = [known[c] for c in shown.values()]
    return table[ids]


def _transparent(picture: PIL.Image.Image) -> int | tuple[int, ...] | bytes | None:
    """The colour that is transparent, in the samples that Pillow gives; it keeps the file's."""
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
    """How opaque each pixel is, mode L, or None if all are."""
    mode = picture.mode
    if mode in ("La", "RGBa"):
        return picture.convert("LA" if mode == "La" else "RGBA").getchannel("A")
    if mode in ("RGBA", "LA", "PA"):
        return picture.getchannel("A")
    if mode == "P":
        rgba = isinstance(picture.palette, ImagePalette.ImagePalette) and picture.palette.mode
        if clear is None and rgba not in ("RGBA", "LA"):
            return None
        return picture.convert("RGBA").getchannel("A")
    if clear is None or isinstance(clear, bytes) or mode not in ("1", "L", "RGB", "I", "I;16"):
        return None
    pixels = np.array(picture.convert("L") if mode == "1" else picture)
    if mode == "RGB":
        same = isinstance(clear, tuple) and (pixels == clear[:3]).all(2)
    else:
        same = pixels == (clear[0] if isinstance(clear, tuple) else clear)
    return PIL.Image.fromarray(np.where(same, 0, 255).astype(np.uint8))


def _from_16_bit(picture: PIL.Image.Image) -> PIL.Image.Image:
    pixels = np.array(picture).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ImageError("32-bit pixels have no defined range; convert the picture first")
    return PIL.Image.fromarray(((pixels * 255 + 32767) // 65535).astype(np.uint8))


_SPACES = {
    "RGB": ("RGB", "1 L P PA RGB RGBA RGBX LA"),
    "GRAY": ("L", "1 L LA"),
    "CMYK": ("CMYK", "CMYK"),
    "Lab": ("LAB", "LAB"),
}
"""Colour space of a profile → the mode whose pixels it reads, and the modes that become that."""


def _to_srgb(picture: PIL.Image.Image, profile: bytes | None) -> PIL.Image.Image:
    """RGB without alpha, by the embedded profile if it fits the pixels, else by plain formulas."""
    if picture.mode in ("La", "RGBa"):
        picture = picture.convert("LA" if picture.mode == "La" else "RGBA")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            mode, modes = _SPACES.get(source.profile.xcolor_space.strip(), ("", ""))
            if picture.mode in modes.split():
                converted = ImageCms.profileToProfile(
                    _plain(picture, mode),
                    source,
                    ImageCms.createProfile("sRGB"),
                    outputMode="RGB",
                )
                assert converted is not None  # not in place
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # a broken or foreign profile is no reason to refuse the picture
    return _plain(picture, "RGB")


def _plain(picture: PIL.Image.Image, mode: str) -> PIL.Image.Image:
    """Another mode by Pillow's formulas, transparent colours as they are."""
    if picture.mode == mode:
        return picture
    if picture.mode == "P" and picture.palette is not None and picture.palette.mode != "RGB":
        picture = picture.convert("RGBA")
    return picture.convert(mode)
