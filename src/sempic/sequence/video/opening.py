"""Opens videos, and reads them without blocking Ctrl-C."""

from __future__ import annotations

import errno
import io
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from fractions import Fraction
from typing import Any, TypeVar

import av
from av.error import ExitError, FFmpegError

from sempic import formats, pictures
from sempic.console import stdin
from sempic.errors import InputError, reason
from sempic.sequence.names import CAMERA, ffmpeg_name, is_live

_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,ogg,yuv4mpegpipe,hevc,h264,flv,rtsp,v4l2,"
    "mpjpeg,gif,apng"
)
"""FFmpeg's names of the formats that are opened. Playlists are left out: they open other files."""
_OF_PICTURES = "of pictures, only animated GIFs and PNGs are, and folders of frames"
_TIMEOUT = 30.0
"""Seconds to wait for a connection and for each packet of a network stream."""

_T = TypeVar("_T")


class Input:
    """An open video, and its blocking reads."""

    def __init__(self, name: str, data: bytes | None, rate: Fraction | None) -> None:
        """Arguments as of `Source`. Raises InputError."""
        self.is_live = data is None and is_live(name)
        """Whether the video comes from a camera or a network."""
        self.is_sequential = False
        """Whether the video is a pipe, which cannot seek."""
        self._may_block = data is None and (self.is_live or not os.path.isfile(name))
        """Whether reads may block: true for cameras, network streams and pipes."""
        self._timeout: float | None = None
        self._pending: Future[Any] | None = None
        """The last read that may block."""
        try:
            self.container = self._open(name, data, rate)
        except (FFmpegError, OSError, ValueError) as error:
            why = reason(error)
            if getattr(error, "errno", None) == errno.EINVAL:  # FFmpeg's code for unknown formats
                why = "it is broken, or of a kind that is not read here"
                if os.path.splitext(name)[1].lower() in pictures.SUFFIXES:
                    why = _OF_PICTURES
            if data == b"" or (data is None and os.path.isfile(name) and not os.path.getsize(name)):
                why = "the file is empty"
            raise InputError(f"{name}: not a video that can be read: {why}") from None

    def _open(self, name: str, data: bytes | None, rate: Fraction | None) -> Any:
        file: Any = name if data is None else io.BytesIO(data)
        format = None
        if self.is_live and name.startswith(CAMERA):
            format = "v4l2"
        elif self.is_live:
            # A camera may send fewer frames than one in _TIMEOUT: wait for three of them.
            self._timeout = max(_TIMEOUT, 3 / float(rate)) if rate else _TIMEOUT
        elif data is None and name == "-":
            file = getattr(stdin(), "raw", stdin())  # a read returns the bytes that have arrived
            self.is_sequential = self._may_block = not file.seekable()
        elif data is None:
            file = ffmpeg_name(name)
        options = {"format_whitelist": _FORMATS}
        container = self.read(
            lambda: av.open(file, format=format, options=options, timeout=self._timeout)
        )
        # FFmpeg takes the first picture of an animated AVIF for a video of its own.
        if formats.is_picture_brand(container.metadata.get("major_brand", "").encode()):
            container.close()
            raise ValueError(_OF_PICTURES)
        return container

    def read(self, work: Callable[[], _T]) -> _T:
        """The result of a call of FFmpeg. The call runs in a thread if it may block, because FFmpeg
        does not return on Ctrl-C. Raises TimeoutError after the timeout."""
        if not self._may_block:
            return work()
        pending = self._pending = Future[_T]()

        def run() -> None:
            try:
                pending.set_result(work())
            except BaseException as error:
                pending.set_exception(error)

        start = time.monotonic()
        threading.Thread(target=run, daemon=True).start()
        try:
            return pending.result()
        except Exception as error:
            # Some demuxers report a timeout as another error, or first return buffered packets.
            late = isinstance(error, ExitError) or time.monotonic() - start >= (self._timeout or 0)
            if self._timeout is not None and late:
                raise TimeoutError(f"nothing came for {self._timeout:g} s") from None
            raise

    def close(self) -> None:
        """Closes the container, unless a thread still reads it."""
        if self._pending is None or self._pending.done():
            self.container.close()
