"""Pictures → a video file."""

from __future__ import annotations

from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from sempic import files
from sempic.errors import OutputError, refused
from sempic.scene import Image, padded
from sempic.sequence.names import WRITTEN, ffmpeg_name
from sempic.sequence.options import FASTEST, SLOWEST
from sempic.sequence.video.conversion import BT709
from sempic.sequence.video.growing import kept_message, make_part

_CRF = "16"
_LIMITED_RANGE = 1


class Video:
    """A video file that is written picture by picture. Until `close` its name is `NAME.part`, if
    that name is free."""

    def __init__(self, path: Path, rate: Fraction) -> None:
        """rate: frames in a second. Raises OutputError if the file cannot be made."""
        self._path = path
        if not SLOWEST <= rate <= FASTEST:  # FFmpeg's numbers have 32 bits
            raise OutputError(
                f"{path}: a video has {float(SLOWEST)} to {FASTEST} frames a second, not "
                f"{float(rate):g}: name a folder"
            )
        with self._writing():
            stream = files.is_stream(path)
            self.is_new = not stream and not path.exists()
            """Whether no file had this name."""
            self._part = files.temporary_for(path) if stream else make_part(files.replaceable(path))
        with files.removed_on_failure(self._part):
            with self._writing():
                format = WRITTEN[path.suffix.lower()]
                self._container = av.open(ffmpeg_name(str(self._part)), "w", format=format)
            name = "libx264" if "libx264" in av.codecs_available else "mpeg4"
            self._stream: Any = self._container.add_stream(name, rate=rate.limit_denominator(1001))
        self._has_pictures = False

    def _writing(self) -> AbstractContextManager[None]:
        """Turns errors of FFmpeg and the system into OutputError."""
        return refused(OutputError, f"{self._path}: cannot write", FFmpegError, OSError)

    def add(self, picture: Image) -> None:
        """Writes a picture, uint8 (H, W, 3); all have the size of the first."""
        height, width = picture.shape[:2]
        even = padded(picture, height + height % 2, width + width % 2)
        if not self._has_pictures:
            self._stream.height, self._stream.width = even.shape[:2]
            self._stream.pix_fmt = "yuv420p"
            context = self._stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = _LIMITED_RANGE
            self._stream.options = {"crf": _CRF, "preset": "veryfast"}
            with self._writing():  # after an error here, a second try would crash FFmpeg
                self._container.start_encoding()
            self._has_pictures = True
        # Without explicit colour metadata players choose the matrix by the size of the picture.
        frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=BT709, dst_color_range=_LIMITED_RANGE
        )
        with self._writing():
            self._container.mux(self._stream.encode(frame))

    def close(self, *, keep: bool) -> None:
        """Finishes the file, and moves it to its path (keep) or removes it."""
        try:
            self._finish()
            if keep and self._has_pictures:
                files.move_to_target(self._part, self._path)
        finally:
            files.discard(self._part)

    def interrupt(self) -> str:
        """Finishes the file early, and returns a message that says where it is: at its path if
        that is free, else at `NAME.part`. "": no picture was written."""
        if not self._has_pictures or files.is_stream(self._path) or not self._path.exists():
            self.close(keep=True)
            return kept_message(self._path) if self._has_pictures else ""
        with files.removed_on_failure(self._part):
            self._finish()
        return kept_message(self._path, self._part)

    def _finish(self) -> None:
        with self._writing():
            if self._has_pictures:
                self._container.mux(self._stream.encode(None))
            self._container.close()
