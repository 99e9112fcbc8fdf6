"""Decoded frames → RGB pictures: size, pixel aspect ratio, colour, transparency and rotation."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from av import VideoFrame
from av.video.reformatter import VideoReformatter

from sempic.errors import warn
from sempic.scene import Image

BT709 = 1
"""FFmpeg's number of the colour matrix, the primaries and the transfer curve of BT.709."""
_RESERVED, _UNSPECIFIED = 3, 2
"""FFmpeg's numbers of colour matrices that a stream leaves open."""
_MATRICES = {0, BT709, _UNSPECIFIED, 4, 5, 6, 7, 9}
"""FFmpeg's numbers of the colour matrices that it converts: YCgCo and those of constant luminance
are not among them."""
_HD_HEIGHT = 720
"""Lines from which on players take an unspecified matrix for BT.709; FFmpeg takes BT.601."""
_BICUBIC, _AREA = 4, 32
"""FFmpeg's flags of the ways to scale,"""
_EXACT = 0x40000 | 0x2000
"""and those to round exactly and to convert colours after scaling: without them pictures are one or
two levels too dark."""
_MAX_ASPECT = 4
"""Greatest credible ratio of a pixel's sides; beyond it pixels are taken for square."""


class Turn(NamedTuple):
    """How a frame must be turned to be upright."""

    mirrored: bool = False
    """First left to right,"""
    quarters: int = 0
    """then by so many quarters clockwise."""


class Turns:
    """Frames of one video, each in its turn → how to turn them.

    Containers give their display matrix to every frame. A stream's own may come with few: FFmpeg's
    decoder of H.264 gives it to key frames, and its filter h264_metadata writes it behind them. So
    a matrix holds until another, or until the second key frame without one.
    """

    def __init__(self) -> None:
        self._turn: Turn | None = None
        self._angle = 0
        """Of the matrix that holds, in degrees. Reading the matrix of every frame would keep
        frames in memory, which PyAV frees late: it is read where this changes."""
        self._bare_keys = 0
        """Key frames without a matrix in a row."""

    def read(self, frame: Any) -> Turn:
        angle = frame.rotation
        self._bare_keys = 0 if angle else self._bare_keys + frame.key_frame
        if self._turn is None or angle not in (0, self._angle):
            self._angle, self._turn = angle, _turn(frame)
        elif self._angle and self._bare_keys > 1:
            self._angle, self._turn = 0, Turn()
        return self._turn


class Converter:
    """Frames of one video → pictures of one size."""

    def __init__(self, aspect: Fraction, max_side: int | None) -> None:
        """aspect: a pixel's width by its height. max_side: scales larger frames down."""
        self._aspect = float(aspect) if 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT else 1.0
        self._max_side = max_side or math.inf
        self._size: tuple[int, int] | None = None
        """(width, height) of the first picture before rotation. Adaptive streams change their
        resolution but not their aspect ratio: their later frames are scaled to this size."""
        self._scaler, self._opener = VideoReformatter(), VideoReformatter()

    def square(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of a frame with square pixels; the height stays."""
        return max(1, round(width * self._aspect)), height

    def convert(self, frame: Any, turn: Turn) -> Image:
        """uint8 (H, W, 3)."""
        shown = self.square(frame.width, frame.height)
        scale = min(1.0, self._max_side / max(shown))
        width, height = (max(1, round(side * scale)) for side in shown)
        first = self._size = self._size or (width, height)
        if abs(width * first[1] - height * first[0]) <= max(width, height, *first):
            width, height = first  # the same proportions, but for rounding
        if frame.colorspace not in _MATRICES:
            if frame.colorspace != _RESERVED:
                warn("its colour matrix is not known here: colours may be wrong")
            frame.colorspace = _UNSPECIFIED
        is_hd = frame.colorspace == _UNSPECIFIED and frame.height >= _HD_HEIGHT
        matrix = BT709 if is_hd else None
        if any(part.is_alpha for part in frame.format.components):
            # Before scaling, which would mix what transparent pixels hide into those beside them.
            clear = self._opener.reformat(
                frame, format="rgba", src_colorspace=matrix, interpolation=_EXACT | _BICUBIC
            )
            frame, matrix = _over_white(clear), None
        scaled = self._scaler.reformat(
            frame,
            width,
            height,
            "rgb24",
            src_colorspace=matrix,
            interpolation=_EXACT | (_AREA if scale < 1 or height < frame.height else _BICUBIC),
        )
        picture: Any = scaled.to_ndarray()
        if turn.mirrored:
            picture = picture[:, ::-1]
        return np.ascontiguousarray(np.rot90(picture, -turn.quarters))


def _over_white(frame: Any) -> Any:
    """An RGBA frame → an RGB one, as in single pictures."""
    picture = frame.to_ndarray()
    alpha = picture[..., 3:] / np.float32(255)
    if (alpha < 1).any():
        warn("transparency is laid over white; a .sempic file has none")
    blended = np.rint(255 + (picture[..., :3] - np.float32(255)) * alpha).astype(np.uint8)
    return VideoFrame.from_ndarray(blended, "rgb24")


def _turn(frame: Any) -> Turn:
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Turn()
    right, down, _, right_of_down, down_of_down = np.frombuffer(matrix, np.int32)[:5].tolist()
    mirrored = right * down_of_down < down * right_of_down
    if mirrored:
        right, down = -right, -down
    return Turn(mirrored, round(math.atan2(down, right) / (math.pi / 2)))
