"""Picture files ⇄ arrays: whatever Pillow opens comes out as sRGB, whole or with a reason.

Bytes in, arrays out, and the reverse; `write_file` is the one function that touches the disk.
"""

from __future__ import annotations

import io
import os
import secrets
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ImageCms, ImageOps, UnidentifiedImageError

from sempic.container import MAX_PIXELS, MAX_SIDE
from sempic.errors import ImageError, InputError, LabelMapError, OutputError, SempicWarning
from sempic.palette import Palette
from sempic.scene import Image, LabelMap

SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".gif",
        ".heic",
        ".heif",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pgm",
        ".png",
        ".pnm",
    }
    | {".ppm", ".tga", ".tif", ".tiff", ".webp"}
)
"""What counts as a picture when a folder is searched; a file named outright is always tried."""

_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""Brands of pictures that phones make and Pillow does not open by itself."""


def read(data: bytes) -> Image:
    """A picture file as uint8 (H, W, 3), sRGB, upright (see `to_rgb`).

    Raises ImageError: not a picture, cut short, damaged, or too large.
    """
    return to_rgb(_open(data, ImageError))


def peek(data: bytes) -> tuple[int, int]:
    """(width, height) of a picture file as stored, from its header; raises ImageError as `read`."""
    return _open(data, ImageError, load=False).size


def kind(data: bytes) -> str | None:
    """The format of a picture file, as Pillow names it; None if it is not one."""
    try:
        return _open(data, ImageError, load=False).format
    except ImageError:
        return None


def read_labels(data: bytes) -> LabelMap:
    """An index map (8-bit grey or palette picture: the index is the id) as uint8 (H, W).

    Raises LabelMapError: not a picture, or not one of indices.
    """
    picture = _open(data, LabelMapError)
    if picture.mode in ("L", "P"):
        return np.array(picture, np.uint8)
    if picture.mode.startswith("I"):
        ids = np.array(picture)
        if ids.min() >= 0 and ids.max() <= 255:
            return ids.astype(np.uint8)
    raise LabelMapError(
        f"a label map is an 8-bit grey or palette picture of ids, this one has mode {picture.mode}"
    )


def decode(data: bytes) -> PIL.Image.Image:
    """A file as Pillow has it, whose mode tells indices from colours; raises ImageError."""
    return _open(data, ImageError)


def to_rgb(picture: PIL.Image.Image | npt.NDArray[np.uint8]) -> Image:
    """A picture as uint8 (H, W, 3) in sRGB.

    EXIF rotation is applied, an embedded colour profile is converted to sRGB, transparency is
    laid over white, 16-bit grey is scaled by 255/65535, of an animation the first frame is taken.
    Warns (SempicWarning) of further frames and of transparency, since they are lost. An array must
    be uint8 (H, W, 3) already.

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
    _load(picture, ImageError)
    if _has_more_frames(picture):
        _warn("an animation or several pages: the first is taken, the others are left out")
    picture = ImageOps.exif_transpose(picture)
    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I"):
        picture = _from_16_bit(picture)
    if picture.mode == "F":
        raise ImageError("floating-point pixels have no defined range; convert the picture first")
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        if np.asarray(picture.getchannel("A")).min() < 255:
            _warn("transparency is laid over white; a .sempic file has none")
        white = PIL.Image.new("RGBA", picture.size, "white")
        picture = PIL.Image.alpha_composite(white, picture).convert("RGB")
    return np.array(_to_srgb(picture, profile), np.uint8)


def shrink(picture: Image, labels: LabelMap | None, max_side: int) -> tuple[Image, LabelMap | None]:
    """Both scaled down so that the longer side is at most `max_side` pixels; never up.

    Pictures by bicubic filtering, label maps by nearest neighbour.
    """
    if max_side < 1:
        raise InputError(f"max_side must be 1 or more, not {max_side}")
    height, width = picture.shape[:2]
    if max(width, height) <= max_side:
        return picture, labels
    scale = max_side / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = np.array(PIL.Image.fromarray(picture).resize(size, PIL.Image.Resampling.BICUBIC))
    if labels is not None:
        labels = np.array(PIL.Image.fromarray(labels).resize(size, PIL.Image.Resampling.NEAREST))
    return picture, labels


def encode(picture: Image, suffix: str) -> bytes:
    """A picture as a file of the format that `suffix` (".png", ".jpg", …) names.

    Raises OutputError: a suffix that Pillow does not write, or a picture too large for the format.
    """
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


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all: an existing one is replaced only once all is on disk.

    Raises OutputError, and leaves nothing behind, if that fails (no such folder, no permission,
    disk full).
    """
    target = Path(os.path.realpath(path))  # through a link, not over it
    if target.exists() and not target.is_file():  # a pipe or a device: nothing to replace
        try:
            target.write_bytes(data)
        except OSError as cause:
            raise OutputError(f"cannot write: {cause.strerror}") from cause
        return
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as cause:
        raise OutputError(f"cannot write: {cause.strerror}") from cause


def _save(picture: PIL.Image.Image, suffix: str) -> bytes:
    format = PIL.Image.registered_extensions().get(suffix.lower())
    if format not in PIL.Image.SAVE or format == "SEMPIC":  # sempic.pillow knows it, but not here
        raise OutputError(f"cannot write pictures of type {suffix or '(no suffix)'}")
    out = io.BytesIO()
    try:
        picture.save(out, format, **({"quality": 95} if format in ("JPEG", "WEBP", "AVIF") else {}))
    except (OSError, ValueError) as cause:
        raise OutputError(f"cannot write this picture as {format}: {cause}") from cause
    return out.getvalue()


def _open(
    data: bytes, error: type[ImageError] | type[LabelMapError], *, load: bool = True
) -> PIL.Image.Image:
    """A Pillow image; every way in which Pillow fails becomes `error`."""
    if not data:
        raise error("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sizes are checked below, damaged tags are harmless
            picture = PIL.Image.open(io.BytesIO(data))
    except UnidentifiedImageError as cause:
        if data[4:8] == b"ftyp" and data[8:12] in _HEIC:
            raise error("a HEIC picture; convert it to JPEG or PNG first") from cause
        raise error("not a picture that can be read") from cause
    except PIL.Image.DecompressionBombError as cause:
        raise error(f"more than the limit of {MAX_PIXELS} pixels") from cause
    except Exception as cause:  # Pillow's plugins raise many kinds on damaged files
        raise error(f"a damaged picture: {_line(cause)}") from cause
    _check_size(*picture.size, error)
    if load:
        _load(picture, error)
    return picture


def _has_more_frames(picture: PIL.Image.Image) -> bool:
    if picture.format == "MPO":  # a JPEG with previews or a second view, as phones make them
        return False
    try:
        return bool(getattr(picture, "is_animated", False))
    except Exception:  # of a damaged second frame; the first is whole
        return True


def _warn(text: str) -> None:
    warnings.warn(text, SempicWarning, stacklevel=4)


def _load(picture: PIL.Image.Image, error: type[ImageError] | type[LabelMapError]) -> None:
    try:
        picture.load()
    except MemoryError:
        raise
    except Exception as cause:
        raise error(f"a damaged picture: {_line(cause)}") from cause


def _check_size(width: int, height: int, error: type[ImageError] | type[LabelMapError]) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise error(f"{width}×{height}: each side must be 1…{MAX_SIDE} pixels")
    if width * height > MAX_PIXELS:
        raise error(f"{width}×{height} is more than the limit of {MAX_PIXELS} pixels")


def _from_16_bit(picture: PIL.Image.Image) -> PIL.Image.Image:
    pixels = np.array(picture).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ImageError("32-bit pixels have no defined range; convert the picture first")
    return PIL.Image.fromarray(((pixels * 255 + 32767) // 65535).astype(np.uint8))


def _to_srgb(picture: PIL.Image.Image, profile: bytes | None) -> PIL.Image.Image:
    """RGB by the embedded profile if it fits the pixels, by Pillow's plain formulas otherwise."""
    if profile and picture.mode in ("L", "RGB", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None  # a broken or foreign profile is no reason to refuse the picture
        if converted is not None:
            return converted
    return picture.convert("RGB")


def _line(cause: Exception) -> str:
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]
