"""Pictures ⇄ planes: colour, chroma resampling and downscaling.

All arithmetic is integer, so results are the same on every machine.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sempic import checks
from sempic.errors import ImageError, InputError, LimitExceeded, SempicError
from sempic.scene import Coarse, Image, Plane

MAX_SIDE = 4096
"""Longest side of a coarse picture, in pixels."""
_STRIP = 64
"""Rows of a coarse picture that are computed at once."""
_Ints: TypeAlias = npt.NDArray[np.signedinteger[Any]]

# ITU-T T.871 (JFIF) §7: BT.601, full range; in units of 2^-16. Rows sum to 2^16, 0, 0.
_YCC = np.array(
    [[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]], dtype=np.int32
)
# The inverse in units of 2^-22, with bpgdec's rounding.
_R_CR, _G_CB, _G_CR, _B_CB = 5880414, 1443412, 2995305, 7432307
# A windowed sinc a quarter of a sample off centre, in units of 2^-6: weights of samples -3…3 for
# chroma at even luma positions; reversed for odd positions.
_QUARTER = (2, -6, 18, 57, -10, 4, -1)


def from_rgb(rgb: Image, chroma: str = "444") -> Coarse:
    """YCbCr planes, BT.601 full range, of a picture, uint8 (h, w, 3).

    chroma: "444", or "420", which averages 2×2 samples; at odd sides the last row or column counts
    twice. Raises ImageError or InputError.
    """
    height, width = check_picture(rgb, chroma)
    ycc = rgb.astype(np.int32) @ _YCC.T  # units of 2^-16
    y = (ycc[..., 0] + (1 << 15)) >> 16
    if chroma == "444":
        cb, cr = (np.moveaxis(ycc[..., 1:], 2, 0) + (257 << 15)) >> 16
    else:
        c = np.pad(ycc[..., 1:], ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        c = (c[0::2] + c[1::2])[:, 0::2] + (c[0::2] + c[1::2])[:, 1::2]
        cb, cr = (np.moveaxis(c, 2, 0) + (257 << 17)) >> 18
    return Coarse(y=_to_uint8(y), cb=_to_uint8(cb), cr=_to_uint8(cr))


def to_rgb(coarse: Coarse) -> Image:
    """The picture of the planes, uint8 (h, w, 3); every sample equals bpgdec's.

    4:2:0 chroma is between the luma samples, as in JPEG, and is interpolated with seven taps.
    """
    y, cb, cr = full(coarse)
    cb, cr, y = cb - 128, cr - 128, (y << 22) + (1 << 21)
    rgb = np.stack((y + _R_CR * cr, y - _G_CB * cb - _G_CR * cr, y + _B_CB * cb), axis=-1)
    return _to_uint8(rgb >> 22)


def full(coarse: Coarse) -> _Ints:
    """Y, Cb and Cr at the size of luma: int32 (3, h, w)."""
    y, cb, cr = (plane.astype(np.int32) for plane in coarse.planes)
    if coarse.chroma == "420":
        cb, cr = (_double(c)[: y.shape[0], : y.shape[1]] for c in (cb, cr))
    return np.stack((y, cb, cr))


def enlarged(coarse: Coarse, width: int, height: int, rows: slice, columns: slice) -> _Ints:
    """A part of the coarse picture, enlarged to the size of the picture: bilinear.

    Args:
        width, height: of the picture. Positions of coarse pixels: docs/spec/format.md §6.
        rows, columns: of the part, with start and stop; may exceed the picture, whose edge repeats.

    Returns Y, Cb and Cr, int64 (3, rows, columns), 0…255.
    """
    planes = full(coarse).astype(np.int64)
    small_height, small_width = planes.shape[1:]
    times = factor(width, height, small_width, small_height)
    stretched = (height, width) if times is None else (small_height * times, small_width * times)
    for axis, (part, small, large) in enumerate(
        zip((rows, columns), (small_height, small_width), stretched, strict=True), 1
    ):
        # Sample i of the picture is at ((2 i + 1) small - large) / (2 large) of the coarse one.
        at = (2 * np.arange(part.start, part.stop) + 1) * small - large
        first, share = at // (2 * large), at % (2 * large)
        share = share.reshape((-1, 1) if axis == 1 else (-1,))
        near, far = (np.take(planes, i.clip(0, small - 1), axis) for i in (first, first + 1))
        planes = near * (2 * large - share) + far * share
    whole = 4 * stretched[0] * stretched[1]
    return (planes + whole // 2) // whole


def downscale(rgb: Image, factor: int = 4) -> Image:
    """The means of all factor × factor blocks: uint8 (ceil(H/factor), ceil(W/factor), 3).

    rgb: uint8 (H, W, 3); its last row or column is repeated to fill the last blocks.
    """
    height, width = check_picture(rgb)
    rows, columns = -(-height // factor), -(-width // factor)
    small = np.empty((rows, columns, 3), np.uint8)
    area = factor * factor
    kind: Any = np.uint16 if factor <= 16 else np.int64  # holds a sum of bytes
    for row in range(0, rows, _STRIP):  # in strips, to save memory
        strip = rgb[row * factor : (row + _STRIP) * factor]
        pad = (0, -len(strip) % factor), (0, -width % factor), (0, 0)
        if pad[0][1] or pad[1][1]:
            strip = np.pad(strip, pad, mode="edge")
        tall = strip[::factor].astype(kind)
        for index in range(1, factor):
            tall += strip[index::factor]
        sums = tall[:, ::factor].copy()
        for index in range(1, factor):
            sums += tall[:, index::factor]
        sums += kind(area // 2)
        small[row : row + _STRIP] = sums // kind(area)
    return small


def factor(width: int, height: int, coarse_width: int, coarse_height: int) -> int | None:
    """The divisor of a picture's size: the smallest integer that gives the coarse size, rounded up;
    None if there is none."""
    for number in range(1, max(width, height) + 1):
        if (-(-width // number), -(-height // number)) == (coarse_width, coarse_height):
            return number
        if -(-width // number) < coarse_width:
            break
    return None


def check_picture(rgb: Image, chroma: str = "444") -> tuple[int, int]:
    """(height, width); raises ImageError for no picture, InputError for unknown chroma."""
    if chroma not in ("420", "444"):
        raise InputError(f"chroma {chroma!r} is not known, only '420' and '444' are")
    if not checks.is_uint8(rgb, 3) or rgb.shape[2] != 3 or rgb.size == 0:
        raise ImageError(f"a picture must be uint8 (h, w, 3), not {checks.kind(rgb)}")
    return rgb.shape[0], rgb.shape[1]


def check_size(width: int, height: int, kind: type[SempicError] = LimitExceeded) -> None:
    """Raises an error of this kind for a side beyond MAX_SIDE."""
    if max(width, height) > MAX_SIDE:
        raise kind(f"a coarse picture of {width}×{height} has a side beyond {MAX_SIDE}")


def _double(plane: _Ints) -> _Ints:
    """A plane at twice its width and height, rounded once at the end."""
    plane = _interleave(plane, axis=0)
    plane = _interleave(plane, axis=1)
    doubled: _Ints = np.clip((plane + (1 << 11)) >> 12, 0, 255)
    return doubled


def _interleave(plane: _Ints, axis: int) -> _Ints:
    size = plane.shape[axis]
    at = np.clip(np.arange(-3, size + 3), 0, size - 1)
    padded = np.take(plane, at, axis=axis).swapaxes(0, axis)
    out = np.empty((2 * size, padded.shape[1]), dtype=np.int32)
    out[0::2] = sum(w * padded[i : i + size] for i, w in enumerate(_QUARTER))
    out[1::2] = sum(w * padded[i : i + size] for i, w in enumerate(reversed(_QUARTER)))
    return out.swapaxes(0, axis)


def _to_uint8(samples: _Ints) -> Plane:
    return np.clip(samples, 0, 255).astype(np.uint8)
