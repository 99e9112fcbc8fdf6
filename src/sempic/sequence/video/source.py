"""Videos → pictures at a constant rate."""

from __future__ import annotations

import errno
import itertools
import math
import re
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.error import FFmpegError

from sempic import processes
from sempic.errors import InputError, LimitExceeded, reason, warn
from sempic.scene import Image
from sempic.sequence.names import HTTP
from sempic.sequence.options import FASTEST, SLOWEST
from sempic.sequence.video.clock import IDLE_SHARE, MAX_FORWARD, Arrivals, Clock
from sempic.sequence.video.conversion import Converter, Turn, Turns
from sempic.sequence.video.deinterlace import deinterlaced
from sempic.sequence.video.opening import Input

_INDEX_LAST = (
    "the index of such a file mostly stands at its end, which a pipe does not reach in time: name "
    "the file, or put the index first (ffmpeg -i IN.mp4 -c copy -movflags +faststart OUT.mp4)"
)
_STATES_LENGTH = {"mp4", "matroska", "avi"}
"""FFmpeg's names of formats that state their length; for others FFmpeg estimates it."""
_TOLERATED, _TOLERATED_SHARE = 2, 0.05
"""So many frames, or so large a share of them, may be missing without a warning."""
_LEADING, _DELAY = 8, 64
"""So many packets may give no frame: behind the first key frame of a part of a video, and while the
decoder still holds frames back."""
_DURATION = r"(\d{1,9}):(\d\d?):(\d\d?(?:\.\d*)?)"
"""Matroska's tag with the length of a stream."""
_UNTIMED = {"h264", "hevc", "m4v", "mpegvideo"}
"""FFmpeg's names of formats without timestamps, for which its `average_rate` is made up."""
_MEASURED = 100
"""Packets by which a rate is measured."""
_UNKNOWN_RATE = Fraction(25)
"""Frames in a second where nothing says how many, as of a single frame."""
_MJPEG = "mpjpeg"
"""FFmpeg's name of JPEG pictures over HTTP, as cameras send them: without timestamps or a rate.
Their frames are timed by their arrival."""
_LAG_SECONDS = 10.0
"""Interval of the checks whether the reader keeps up with a live video."""
_JITTER = 0.2
"""Share of a frame period by which a frame may come late and still keep its turn. Timestamps are
rounded, in Matroska to a millisecond, and those of cameras jitter."""
_ALIGNED = 64
"""The sides of FFmpeg's buffers are multiples of this at most."""
_COVER = 0x0400
"""FFmpeg's flag of a cover picture, which is no video."""
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Decoders that read transparency, by FFmpeg's own, which do not."""
_HDR = {16: "PQ", 18: "HLG"}
"""Transfer curves of high dynamic range, by FFmpeg's numbers."""


class Source:
    """A video to be read, frame by frame, at a rate and a size."""

    def __init__(
        self,
        name: str,
        *,
        rate: Fraction | None = None,
        max_side: int | None = None,
        data: bytes | None = None,
        max_pixels: int | None = None,
    ) -> None:
        """name: a file, "-" for standard input, a camera (/dev/video0) or a URL. rate: frames in a
        second; None: the video's own. max_side: scales larger frames down. data: the video itself;
        `name` is then for messages only. max_pixels: limit of a frame before it is scaled down.

        Raises InputError if the video cannot be opened, LimitExceeded for larger frames.
        """
        self._name = name
        self._input = Input(name, data, rate)
        self._container = self._input.container
        self._formats = frozenset[str](self._container.format.name.split(","))
        """FFmpeg's names of the format, which may have several."""
        self._fault: Exception | None = None
        """Why the video breaks off."""
        self._asked = self._came = 0.0
        """When the read of the last packet started and ended."""
        streams = [v for v in self._container.streams.video if not v.disposition & _COVER]
        if not (streams and streams[0].codec_context):  # none for unknown and encrypted videos
            self.close()
            why = "no decoder is known for its video" if streams else "there is no video in it"
            raise InputError(f"{name}: {why}")
        self._stream = streams[0]
        self._stream_count = len(streams)
        # FFmpeg takes such frames for one, of which it shows the first picture.
        untimed = "gif" in self._formats and not self._stream.average_rate
        if untimed and self._stream.frames != 1:
            self.close()
            raise InputError(f"{name}: its frames have no times; a GIF needs a delay for each")
        self._decoder = _decoder(self._stream)
        # Threads that decode several frames at once hold each back: too late for a live video.
        is_live = self._input.is_live or self._input.is_sequential
        self._decoder.thread_type = "SLICE" if is_live else "AUTO"
        processes.keep_at_fork(self)
        self._converter = Converter(_exact(self._stream.sample_aspect_ratio or 1), max_side)
        if max_pixels is not None:
            width, height = self._converter.square(self._stream.width, self._stream.height)
            if width * height > max_pixels:
                raise LimitExceeded(
                    f"{width}×{height} is more than the limit of {max_pixels} pixels"
                )
            # FFmpeg counts the pixels of its buffers, whose sides are rounded up.
            more = _ALIGNED * (width + height + _ALIGNED)
            self._decoder.options = {"max_pixels": str(max_pixels + more)}
        rates = [self._stream.average_rate, self._stream.guessed_rate]
        if self._formats & _UNTIMED:
            rates.reverse()
        own_rate = _exact(next(filter(None, rates), _UNKNOWN_RATE))
        self._packets: Iterator[Any] = self._container.demux(self._stream)
        if rate is None and own_rate > FASTEST:
            own_rate = self._measured_rate() or own_rate
        self._has_own_rate = rate is None
        if not SLOWEST <= (rate or own_rate) <= FASTEST:
            raise InputError(
                f"{name}: it has {float(own_rate):g} frames in a second; from {float(SLOWEST):g} "
                f"to {FASTEST} can be coded: say how many with --fps"
            )
        self._period = 1 / float(own_rate)
        """Seconds from one frame of the video to the next."""
        self.rate = (rate or own_rate).limit_denominator(1001)
        seconds = self._seconds()
        self.count = max(1, round(seconds * self.rate)) if seconds else None
        """Expected number of frames; None: unknown."""

    def __iter__(self) -> Iterator[Image]:
        """uint8 (H, W, 3), once. Closes the video at the end, since its decoder has threads.

        Raises InputError where the video breaks off.
        """
        try:
            yield from self._pictures()
        finally:
            self.close()

    def _pictures(self) -> Iterator[Image]:
        clock, arrivals, turns = Clock(self._period), Arrivals(1 / float(self.rate)), Turns()
        jitter = _JITTER * min(1.0, self._period * self.rate)
        by_arrival = _MJPEG in self._formats and self._input.is_live
        skipped = due = 0
        position = 0.0
        last, turn = None, Turn()
        try:
            for frame in deinterlaced(self._decoded()):
                timestamp = arrivals.read(self._asked, self._came) if by_arrival else frame.time
                position = round(clock.read(timestamp) * self.rate, 6)
                skipped += last is not None and position <= due + jitter
                while last is not None and position > due + jitter:
                    yield self._converter.convert(last, turn)
                    due += 1
                last, turn = frame, turns.read(frame)
        except (FFmpegError, OSError) as error:
            self._fault = error
        duration = _duration(last)
        end = position + duration * self.rate
        stays = position + min(duration, MAX_FORWARD) * self.rate
        while last is not None and (due <= position + jitter or due + 1 <= stays + jitter):
            yield self._converter.convert(last, turn)
            due += 1
        if "matroska" in self._formats:  # it states the end of its last frame, not its length
            end += (clock.origin or 0) * self.rate
        if self._fault is not None and not self._is_complete(end):
            why = f"breaks off at frame {due}: {reason(self._fault)}"
            if last is None and self._input.is_sequential and "mp4" in self._formats:
                why = _INDEX_LAST
            raise InputError(f"{self._name}: {why}")
        if clock.jumps:
            times = "1 time" if clock.jumps == 1 else f"{clock.jumps} times"
            warn(f"its timestamps jump ({times}): the next frame follows at once there")
        elif last is not None:
            self._warn_of_missing(due, end)
        if self._has_own_rate and skipped > max(_TOLERATED, _TOLERATED_SHARE * due):
            warn(
                f"{skipped} of its frames are left out, because they are closer than the mean of "
                f"{float(self.rate):.3g} a second: a higher --fps keeps them"
            )

    def _decoded(self) -> Iterator[Any]:
        """The decoded frames until the end, or until the video breaks off: then `_fault` is set."""
        self._warn_of_losses()
        has_frames, error = False, None
        # FFmpeg's decoder of HEVC leaves out, without a word, what refers to a frame that is lost.
        is_hevc, unseen = self._decoder.name == "hevc", 0
        aspect: Any = None  # PyAV's frames have none of their own
        # A file at an address waits for its reader: its length in frames or bytes is known.
        is_live = self._input.is_live and self.count is None and self._is_unsized
        checked, waited = time.monotonic(), 0.0
        while self._fault is None:
            self._asked = time.monotonic()
            if is_live and self._asked - checked > _LAG_SECONDS:
                if waited < IDLE_SHARE * (self._asked - checked):
                    warn(
                        "frames arrive faster than they can be encoded, so the delay grows: lower "
                        "--fps or --max-side"
                    )
                checked, waited = self._asked, 0.0
            try:
                packet = self._next_packet()
                self._came = time.monotonic()
                waited += self._came - self._asked
            except (FFmpegError, OSError) as fault:
                self._fault = fault
                packet = av.Packet()  # an empty packet flushes the decoder
                packet.stream, packet.time_base = self._stream, self._stream.time_base
            if is_hevc and unseen > (_LEADING if packet is None else _DELAY):
                warn("frames of it need one that is lost: they are left out until a key frame")
                is_hevc = False
            if packet is None:
                break
            if not packet.size and packet.dts is not None:
                continue  # a frame without data, such as recorders write, repeats the last one
            unseen += packet.size > 0 and not packet.is_discard  # as before the start of a cut
            try:
                for frame in self._decoder.decode(packet):
                    has_frames = True
                    unseen -= 1
                    last, aspect = aspect, self._decoder.sample_aspect_ratio or aspect
                    if last not in (None, aspect):
                        warn("its pixels change their proportions: what follows looks stretched")
                    if frame.is_corrupt:
                        warn("frames of it are damaged: they are shown as far as they are there")
                    # AVI has no timestamps but these; those that FFmpeg makes up for reordered
                    # frames, as in H.264, are in disorder.
                    if "avi" in self._formats:
                        frame.pts = frame.dts
                    yield frame
            except FFmpegError as cause:
                error = cause
            if has_frames and error is not None:
                warn("packets of it cannot be decoded: what is in them is left out")
                error = None
        if not has_frames:
            self._fault = self._fault or error

    def _warn_of_losses(self) -> None:
        if self._stream_count > 1:
            warn(f"it has {self._stream_count} videos in it: all but the first are left out")
        if _has_hidden_alpha(self._stream) and self._decoder is self._stream.codec_context:
            warn("its transparency cannot be read: what is transparent is shown, too")
        if (transfer := _HDR.get(self._stream.codec_context.color_trc)) is not None:
            warn(f"its high dynamic range ({transfer}) is not shown: it looks dull")

    def _measured_rate(self) -> Fraction | None:
        """Frames in a second by the timestamps of the first packets; None: unknown. Where a
        container states no rate and frames are uneven, as in a browser's recordings, FFmpeg takes
        that of the clock."""
        try:
            first = list(itertools.islice(iter(self._next_packet, None), _MEASURED))
        except (FFmpegError, OSError):
            return None
        self._packets = itertools.chain(first, self._packets)
        times = {packet.pts for packet in first} - {None}
        if len(times) < 2:
            return _UNKNOWN_RATE if times else None
        return Fraction(len(times) - 1, max(times) - min(times)) / _exact(self._stream.time_base)

    def _next_packet(self) -> Any:
        """The next packet; None at the end. Raises FFmpegError or OSError where the video breaks
        off, and InputError in a forked process."""
        processes.need_threads(self, self._name)
        return self._input.read(lambda: next(self._packets, None))

    def _seconds(self) -> float | None:
        """Duration of the video by its container; None: unknown."""
        stream, container = self._stream, self._container
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if "matroska" not in self._formats:
            return None
        stated = re.fullmatch(_DURATION, stream.metadata.get("DURATION", ""), re.ASCII)
        if stated is not None:
            return 3600 * int(stated[1]) + 60 * int(stated[2]) + float(stated[3])
        if container.duration and len(container.streams) == 1:
            return float(container.duration / 1e6)
        return None

    def _is_complete(self, end: float) -> bool:
        """Whether the video is complete in spite of a fault. An HTTP response without a length ends
        with its connection, which FFmpeg reports as an error; the video is complete if its last
        frame ends where its container says. end: as of `_warn_of_missing`."""
        is_cut = getattr(self._fault, "errno", None) == errno.EIO and self._is_unsized
        states_length = not self._formats.isdisjoint(_STATES_LENGTH)
        if not (is_cut and states_length and self._name.startswith(HTTP)):
            return False
        missing = (self._seconds() or math.inf) - end / self.rate
        return missing < self._period / 2

    @property
    def _is_unsized(self) -> bool:
        """Whether the number of bytes is unknown: negative, or None since PyAV 19."""
        return (self._container.size or -1) < 0

    def _warn_of_missing(self, count: int, end: float) -> None:
        """Warns if clearly fewer frames came than the container states. end: of the last frame, in
        frames at the output rate."""
        expected = self.count
        if expected is None or self._formats.isdisjoint(_STATES_LENGTH):
            return
        if expected - end > max(_TOLERATED, _TOLERATED_SHARE * expected):
            warn(f"{count} frames came of {expected} that it announces: it is cut short or damaged")

    def close(self) -> None:
        """Stops reading. A read that still blocks is left to its thread."""
        self._input.close()


def _has_hidden_alpha(stream: Any) -> bool:
    """Whether the transparency is in data beside the frames, which most decoders leave out."""
    return bool(stream.metadata.get("alpha_mode") == "1")


def _decoder(stream: Any) -> Any:
    """The decoder of a stream: for transparent VP8 and VP9 libvpx, as far as PyAV has it, since
    FFmpeg's own decoders leave the transparency out."""
    own = stream.codec_context
    name = _WITH_ALPHA.get(own.name)
    if not _has_hidden_alpha(stream) or name not in av.codecs_available:
        return own
    decoder: Any = av.CodecContext.create(name, "r")
    decoder.extradata, decoder.colorspace = own.extradata, own.colorspace
    decoder.color_range = own.color_range
    return decoder


def _duration(frame: Any) -> float:
    """Of the last frame, or of None, in seconds. 0: unknown."""
    if frame is None or frame.time is None:  # without timestamps FFmpeg makes durations up
        return 0.0
    return float((frame.duration or 0) * frame.time_base)


def _exact(number: Any) -> Fraction:
    """A rational number of PyAV, which has a class of its own since version 19."""
    return Fraction(number.numerator, number.denominator)
