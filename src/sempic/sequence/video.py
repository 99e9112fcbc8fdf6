"""Videos ⇄ pictures in time, by PyAV: files, cameras and streams."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import numpy as np

from sempic import files
from sempic.errors import InputError, LimitExceeded, OutputError, reason, refused, warn
from sempic.scene import Image

READ = frozenset((
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".ogv", ".3gp", ".y4m",
    ".hevc", ".h264",
))  # fmt: skip
"""Suffixes of files that are taken for videos."""
WRITTEN = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Suffixes of videos that are written, and PyAV's names of the formats."""
_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,ogg,yuv4mpegpipe,hevc,h264,flv,rtsp,v4l2,"
    "mpjpeg,gif"
)
"""FFmpeg's names of what is opened: not what opens files and addresses of its own (playlists)."""
_CAMERA = "/dev/video"
_HTTP = ("http://", "https://")
_LIVE = (
    *_HTTP, "rtsp://", "rtsps://", "rtmp://", "rtmps://", "udp://", "tcp://", "srt://", _CAMERA,
)  # fmt: skip
_PATIENCE = 30.0
"""Seconds to wait for a network: for a connection, and then for each packet; where few frames a
second are asked for, the time of three of them if that is longer."""
_INDEX_LAST = (
    "the index of such a file mostly stands at its end, which a pipe does not reach in time: name "
    "the file, or put the index first (ffmpeg -i IN.mp4 -c copy -movflags +faststart OUT.mp4)"
)
_CRF = "16"
_SAY_LENGTH = {"mp4", "matroska", "avi"}
"""FFmpeg's names of formats that say how long they are; of others it is estimated."""
_FEWER, _FEWER_SHARE = 2, 0.05
"""So many frames, and so large a share, may be missing without a word."""
_UNTIMED = {"h264", "hevc", "m4v", "mpegvideo"}
"""FFmpeg's names of formats without timestamps, for which it announces a rate of its own."""
_LAGS, _SHORT = 10.0, 0.05
"""If in so many seconds so small a share of them was spent in waiting for a live video, whoever
takes its frames is too slow for it."""
_PICTURES = "mpjpeg"
"""FFmpeg's name of what many cameras send by HTTP, a JPEG behind the other: without timestamps, and
at no rate that is known. What counts is when they come."""
_SLOWEST, _FASTEST = Fraction(1, 100), 240
"""Frames in a second that can be coded."""
_EARLY = 0.2
"""How much of a frame's time it may come late and still be shown in its turn: timestamps are
rounded, in Matroska to a millisecond, and those of cameras jitter."""
_BACK, _AHEAD = 1.0, 3600.0
"""Seconds by which a timestamp may be before or behind the last one; others are of another clock.
What is cut together begins anew, and a camera's clock is set."""
_SQUEEZED = 4
"""Pixels that are more than so many times as wide as high, or the reverse, are taken for square:
no camera has them."""
_COVER = 0x0400
"""FFmpeg's flag of a picture that belongs to a file of sound, say, and is no video."""
_HDR = {16: "PQ", 18: "HLG"}
"""Transfer curves, in FFmpeg's numbers, of high dynamic range."""
_BT709, _UNTOLD, _LIMITED, _HIGH = 1, 2, 1, 720
"""Colour matrices in FFmpeg's numbers; that of BT.709 is meant where none is told of a video with
so many lines, as players have it. FFmpeg itself takes BT.601."""

_T = TypeVar("_T")


def is_video(name: str) -> bool:
    """Whether a name is that of a video file, a camera or a stream."""
    return _is_live(name) or Path(name).suffix.lower() in READ


def _is_live(name: str) -> bool:
    """Whether a name is that of a camera or a stream."""
    return name.startswith(_LIVE)


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
        second; None: as the video has. max_side: scales larger frames down. data: the video itself,
        `name` is then for messages alone. max_pixels: of a frame before it is scaled down.

        Raises InputError if it cannot be opened, LimitExceeded for larger frames.
        """
        from av.error import FFmpegError
        from av.video.reformatter import VideoReformatter

        self._name = name
        self._in_order = False
        """Whether it can only be read from its beginning to its end."""
        self._may_wait = data is None and (_is_live(name) or not os.path.isfile(name))
        """Whether FFmpeg may have to wait long for what is to come, as no file of this machine
        lets it."""
        self._waits = False
        """Whether FFmpeg is at work in another thread."""
        self._patience: float | None = None
        """Seconds that it may wait there."""
        self._fault: Exception | None = None
        """Why it breaks off."""
        self._asked = self._came = 0.0
        """When its last packet was asked for, and when it was there."""
        try:
            self._container = self._open(data, rate)
        except (FFmpegError, OSError, ValueError) as error:
            why = reason(error)
            if getattr(error, "errno", None) == errno.EINVAL:  # so FFmpeg refuses what is not named
                why = "it is broken, or of a kind that is not read here"
            raise InputError(f"{name}: not a video that can be read: {why}") from None
        videos = [v for v in self._container.streams.video if not v.disposition & _COVER]
        if not videos:
            self.close()
            raise InputError(f"{name}: there is no video in it")
        self._stream = videos[0]
        self._others = len(videos) - 1
        """Video streams that are left out."""
        # Threads that share frames among them keep one each: of a live video those come late.
        self._stream.thread_type = "SLICE" if self._in_order or _is_live(name) else "AUTO"
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        self._aspect = float(aspect) if 1 / _SQUEEZED <= aspect <= _SQUEEZED else 1.0
        """Width of a pixel by its height."""
        if max_pixels is not None:
            width, height = self._shown(self._stream.width, self._stream.height)
            if width * height > max_pixels:
                raise LimitExceeded(
                    f"{width}×{height} is more than the limit of {max_pixels} pixels"
                )
            self._stream.codec_context.options = {"max_pixels": str(max_pixels)}
        said = [self._stream.average_rate, self._stream.guessed_rate]
        if self._container.format.name in _UNTIMED:
            said.reverse()
        given = next(filter(None, said), Fraction(25))
        if not _SLOWEST <= (rate or given) <= _FASTEST:
            raise InputError(
                f"{name}: it has {float(given):g} frames in a second; from {float(_SLOWEST):g} to "
                f"{_FASTEST} can be coded: say how many with --fps"
            )
        self._period = 1 / float(given)
        """Seconds from one frame of the video to the next."""
        self.rate = (rate or given).limit_denominator(1001)
        self._max_side = max_side
        self._size: tuple[int, int] | None = None
        """(width, height) of the first frame as it is given. Streams that heed their network change
        theirs, and keep their proportions, but for rounding: such frames are scaled to it."""
        self._scaler = VideoReformatter()
        self._turns: tuple[bool, int] | None = None
        """How frames are mirrored and turned: as the first is. PyAV frees late what a frame is
        asked beside its pixels, with the frame."""
        seconds = self._seconds()
        self.count = max(1, round(seconds * self.rate)) if seconds else None
        """Frames that are to be expected; None: nobody knows."""

    def _open(self, data: bytes | None, rate: Fraction | None) -> Any:
        """The container; data: the video itself; rate: that is asked for."""
        import av

        name = self._name
        file: Any = io.BytesIO(data) if data is not None else name
        if data is None and not _is_live(name):
            file = _opened(name)
            if name == "-":
                self._in_order = self._may_wait = not file.seekable()
        kind = "v4l2" if name.startswith(_CAMERA) else None  # which waits for no network
        options = {"format_whitelist": _FORMATS}
        if _is_live(name) and kind is None:
            self._patience = max(_PATIENCE, 3 / float(rate)) if rate else _PATIENCE
        return self._awaited(
            lambda: av.open(file, format=kind, options=options, timeout=self._patience)
        )

    def _awaited(self, work: Callable[[], _T]) -> _T:
        """What FFmpeg's work gives, done in another thread where it may wait: it would look for no
        Ctrl-C meanwhile. TimeoutError if that is too long."""
        from av.error import ExitError

        if not self._may_wait:
            return work()
        done = queue.SimpleQueue[tuple[_T | None, BaseException | None]]()

        def run() -> None:
            try:
                done.put((work(), None))
            except BaseException as error:
                done.put((None, error))

        thread = threading.Thread(target=run, daemon=True)
        start = time.monotonic()
        self._waits = True
        thread.start()
        result, error = done.get()
        thread.join()
        self._waits = False
        if error is None:
            return cast(_T, result)
        # Some readers say something else of it, and some give first what they still have.
        late = isinstance(error, ExitError) or time.monotonic() - start >= (self._patience or 0)
        if self._patience is not None and late:
            raise TimeoutError(f"nothing came for {self._patience:g} s")
        raise error

    def __iter__(self) -> Iterator[Image]:
        """uint8 (H, W, 3), once; raises InputError where the video breaks off. It is closed behind
        the last frame that is asked for: its decoder has threads."""
        try:
            yield from self._frames()
        finally:
            self.close()

    def _frames(self) -> Iterator[Image]:
        from av.error import FFmpegError

        clock, arrivals = _Clock(self._period), _Arrivals(1 / float(self.rate))
        early = _EARLY * min(1.0, self._period * self.rate)
        untimed = self._container.format.name == _PICTURES and _is_live(self._name)
        due = 0
        behind = 0.0
        last = None
        try:
            for frame in _progressive(self._decoded()):
                now = arrivals.read(self._asked, self._came) if untimed else frame.time
                behind = round(clock.read(now) * self.rate, 6)
                while last is not None and behind > due + early:
                    yield self._picture(last)
                    due += 1
                last = frame
        except (FFmpegError, OSError) as error:
            self._fault = error
        if last is not None and behind + early >= due:
            yield self._picture(last)
            due += 1
        reached = 0.0
        if last is not None:
            reached = behind + float((last.duration or 0) * (last.time_base or 0) * self.rate)
        if self._fault is not None and not self._is_whole(reached):
            why = f"breaks off at frame {due}: {reason(self._fault)}"
            if last is None and self._in_order and "mp4" in self._container.format.name.split(","):
                why = _INDEX_LAST
            raise InputError(f"{self._name}: {why}")
        if clock.jumps:
            often = "1 time" if clock.jumps == 1 else f"{clock.jumps} times"
            warn(f"its timestamps jump ({often}): the next frame follows at once there")
        elif last is not None:
            self._compare(due, reached)

    def _decoded(self) -> Iterator[Any]:
        """The video's frames, to its end or to where it breaks off: `_fault` says why then."""
        from av import Packet
        from av.error import FFmpegError

        self._warn_of_what_is_lost()
        packets = self._container.demux(self._stream)
        came, error = False, None
        # A file at an address can wait: it says how many frames it has, or how many bytes.
        live = _is_live(self._name) and self.count is None and self._container.size < 0
        begun, waited = time.monotonic(), 0.0
        while self._fault is None:
            asked = self._asked = time.monotonic()
            if live and asked - begun > _LAGS:
                if waited < _SHORT * (asked - begun):
                    warn("it comes faster than it is coded, and lags: lower --fps or --max-side")
                begun, waited = asked, 0.0
            try:
                packet = self._awaited(lambda: next(packets, None))
                self._came = time.monotonic()
                waited += self._came - asked
            except (FFmpegError, OSError) as fault:
                self._fault = fault
                packet = Packet()  # an empty one: the decoder gives what it still has
                packet.stream, packet.time_base = self._stream, self._stream.time_base
            if packet is None:
                break
            try:
                for frame in packet.decode():
                    came = True
                    yield frame
            except FFmpegError as cause:
                error = cause
            if came and error is not None:
                warn("packets of it cannot be decoded: what is in them is left out")
                error = None
        if not came:
            self._fault = self._fault or error

    def _warn_of_what_is_lost(self) -> None:
        if self._others:
            warn(f"it has {1 + self._others} videos in it: all but the first are left out")
        if (transfer := _HDR.get(self._stream.codec_context.color_trc)) is not None:
            warn(f"its high dynamic range ({transfer}) is not shown: it looks dull")

    def _seconds(self) -> float | None:
        """How long the video is to be; None: nobody knows."""
        stream, container = self._stream, self._container
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if "matroska" not in container.format.name:
            return None
        with contextlib.suppress(ValueError):
            hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
            return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
        if container.duration and len(container.streams) == 1:
            return float(container.duration / 1e6)
        return None

    def _is_whole(self, reached: float) -> bool:
        """Whether the fault is none, as the last frame ends where the container says that all do;
        reached: as in `_compare`. An answer by HTTP without a length ends with its connection,
        which FFmpeg takes for a fault; of a container that does not say its length it may be
        one."""
        ended = getattr(self._fault, "errno", None) == errno.EIO and self._container.size < 0
        if not ended or not self._says_length or not self._name.startswith(_HTTP):
            return False
        missing = (self._seconds() or math.inf) - reached / self.rate
        return missing < self._period / 2

    @property
    def _says_length(self) -> bool:
        return bool(set(self._container.format.name.split(",")) & _SAY_LENGTH)

    def _compare(self, came: int, reached: float) -> None:
        """Warns of a file with clearly fewer frames than its container says; reached: the frames
        that there would be at an even rate to the end of the last one."""
        count = self.count
        if count is None or not self._says_length:
            return
        if count - reached > max(_FEWER, _FEWER_SHARE * count):
            warn(f"{came} frames came of {count} that it announces: it is cut short or damaged")

    def _picture(self, frame: Any) -> Image:
        shown = self._shown(frame.width, frame.height)
        scale = 1.0
        if self._max_side is not None:
            scale = min(1.0, self._max_side / max(shown))
        width, height = (max(1, round(side * scale)) for side in shown)
        first = self._size = self._size or (width, height)
        if abs(width * first[1] - height * first[0]) <= max(width, height, *first):
            width, height = first
        how = "AREA" if scale < 1 or height < frame.height else "BICUBIC"
        untold = frame.colorspace == _UNTOLD and frame.height >= _HIGH
        clear = any(part.is_alpha for part in frame.format.components)
        scaled = self._scaler.reformat(
            frame,
            width,
            height,
            "rgba" if clear else "rgb24",
            src_colorspace=_BT709 if untold else None,
            interpolation=how,
        )
        picture: Any = scaled.to_ndarray()
        if clear:
            picture = _over_white(picture)
        if self._turns is None:
            self._turns = _turns(frame)
        mirrored, quarters = self._turns
        if mirrored:
            picture = picture[:, ::-1]
        return np.ascontiguousarray(np.rot90(picture, -quarters))

    def _shown(self, width: int, height: int) -> tuple[int, int]:
        """Sides of a frame whose pixels are made square; it keeps its height."""
        return max(1, round(width * self._aspect)), height

    def close(self) -> None:
        """Ends reading; what still waits in its thread is left to the end of that."""
        if not self._waits:
            self._container.close()


def _over_white(picture: Any) -> Image:
    """uint8 (H, W, 4) with alpha → (H, W, 3), as pictures are read."""
    alpha = picture[..., 3:] / np.float32(255)
    if (alpha < 1).any():
        warn("transparency is laid over white; a .sempic file has none")
    found: Image = np.rint(255 + (picture[..., :3] - np.float32(255)) * alpha).astype(np.uint8)
    return found


class _Clock:
    """Timestamps as they come → seconds since the first, none before the last."""

    def __init__(self, period: float) -> None:
        """period: seconds from a frame to one that has no timestamp, or one of another clock."""
        self._period = period
        self._origin: float | None = None
        """Timestamp of second 0, by the clock of the last frame."""
        self._now: float | None = None
        self.jumps = 0
        """How often another clock began."""

    def read(self, time: float | None) -> float:
        """time: a frame's timestamp in seconds; None: it has none."""
        now, then = self._now, 0.0 if self._now is None else self._now + self._period
        at = then
        if time is not None:
            if self._origin is None:
                self._origin = time - then
            at = time - self._origin
            if now is not None and not now - _BACK <= at <= now + _AHEAD:
                self.jumps += 1
                self._origin, at = time - then, then
        self._now = at if now is None else max(now, at)
        return self._now


class _Arrivals:
    """Seconds at which pictures without timestamps came, as whoever takes them can tell.

    One that had to be waited for came just then. Others had come before: they follow each other as
    frames do that are written. Would the time until they are taken count, a coder that is too slow
    for its camera would repeat each picture longer than the one before, without end.
    """

    def __init__(self, period: float) -> None:
        """period: seconds from a frame that is written to the next."""
        self._period = period
        self._late = 0.0
        """Seconds that are given up as lost."""
        self._last: tuple[float, float] | None = None
        """When the last picture was there, and when it is taken to have come."""

    def read(self, asked: float, came: float) -> float:
        """When a picture was asked for, and was there → when it came, by the same clock."""
        now = came - self._late
        if self._last is not None:
            before, then = self._last
            if came - asked < _SHORT * (came - before):
                now = min(now, then + self._period)
        self._late = max(self._late, came - now - _BACK)
        self._last = came, now
        return now


def _turns(frame: Any) -> tuple[bool, int]:
    """Whether a frame is to be mirrored from left to right, and then by how many quarters it is to
    be turned clockwise."""
    matrices = [bytes(d) for d in frame.side_data if d.type.name == "DISPLAYMATRIX"]
    if not matrices:
        return False, 0
    right, down, _, right_of_down, down_of_down = np.frombuffer(matrices[0], np.int32)[:5].tolist()
    mirrored = right * down_of_down < down * right_of_down
    if mirrored:
        right, down = -right, -down
    return mirrored, round(math.atan2(down, right) / (math.pi / 2))


def _progressive(frames: Iterable[Any]) -> Iterator[Any]:
    """The same frames; of those that have two fields, of two moments, each is of one moment. They
    come a frame later, as the next one is needed for that."""
    graph: Any = None
    taken = None
    """What frames the graph takes."""
    for frame in frames:
        kind = frame.width, frame.height, frame.format.name
        if graph is not None and kind != taken:
            yield from _ready(graph, None)
            graph = None
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        if graph is None:
            graph, taken = _deinterlacer(frame), kind
        yield from _ready(graph, frame)
    if graph is not None:
        yield from _ready(graph, None)


def _deinterlacer(frame: Any) -> Any:
    """A graph of filters for frames of this kind."""
    from av.filter import Graph

    graph = Graph()
    buffer = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or Fraction(1, 1000),
    )
    bwdif = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    graph.link_nodes(buffer, bwdif, graph.add("buffersink")).configure()
    return graph


def _ready(graph: Any, frame: Any) -> Iterator[Any]:
    """The frames that a graph has ready once it has this one; None: there are no more."""
    from av.error import BlockingIOError, EOFError

    graph.push(frame)
    with contextlib.suppress(BlockingIOError, EOFError):
        while True:
            yield graph.pull()


class Video:
    """A video file that grows by a picture at a time, and is there once it is closed; until then
    it is `NAME.part` (if that name is free)."""

    def __init__(self, path: Path, rate: Fraction) -> None:
        """Raises OutputError if it cannot be made."""
        import av

        self._path = path
        with self._writing():
            stream = files.is_stream(path)
            self._part = files.part_of(path) if stream else _part_of(files.replaceable(path))
        with files.removed_on_failure(self._part):
            with self._writing():
                format = WRITTEN[path.suffix.lower()]
                self._container = av.open(_local(str(self._part)), "w", format=format)
            name = "libx264" if "libx264" in av.codecs_available else "mpeg4"
            self._stream: Any = self._container.add_stream(name, rate=rate)
        self._begun = False

    def _writing(self) -> AbstractContextManager[None]:
        """Within it, what FFmpeg or the system refuses is an OutputError."""
        from av.error import FFmpegError

        return refused(OutputError, f"{self._path}: cannot write", FFmpegError, OSError)

    def add(self, picture: Image) -> None:
        import av

        height, width = picture.shape[:2]
        even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if not self._begun:
            self._stream.height, self._stream.width = even.shape[:2]
            self._stream.pix_fmt = "yuv420p"
            context = self._stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _LIMITED
            self._stream.options = {"crf": _CRF, "preset": "veryfast"}
            self._begun = True
        # What players take for granted differs by size where nothing is told.
        frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED
        )
        with self._writing():
            self._container.mux(self._stream.encode(frame))

    def close(self, *, keep: bool) -> None:
        """Ends the file, and puts it in its place, or removes it."""
        try:
            self._end()
            if keep and self._begun:
                files.place(self._part, self._path)
        finally:
            self._part.unlink(missing_ok=True)

    def interrupt(self) -> str:
        """Ends the file before it is whole, and says where what was made of it is: in its place if
        that is free, else beside it. "": nothing was made."""
        if not self._begun or files.is_stream(self._path) or not self._path.exists():
            self.close(keep=True)
            return _told(self._path) if self._begun else ""
        try:
            self._end()
        except BaseException:
            self._part.unlink(missing_ok=True)
            raise
        return _told(self._path, self._part)

    def _end(self) -> None:
        with self._writing():
            if self._begun:
                self._container.mux(self._stream.encode(None))
            self._container.close()


class Growing:
    """A file that holds, at any moment, all that was written: a sequence that breaks off decodes.

    Where a file is there already it stays until the new one is whole, which is `NAME.part` so long
    (if that name is free). Devices, pipes and open files are written to as they are.
    """

    def __init__(self, path: Path) -> None:
        """Raises OutputError if it cannot be written."""
        self._path, self._part = path, None
        with refused(OutputError, f"{path}: cannot write"):
            stream = files.direct_target(path)
            self.is_new = stream is None and not path.exists()
            """Whether there was no such file."""
            if stream is None and not self.is_new:
                self._part = _part_of(files.replaceable(path))
            name = stream if stream is not None else self._part or os.path.realpath(path)
            self._file: IO[bytes] = open(name, "wb", buffering=0)  # noqa: SIM115
        self.size = 0

    def write(self, data: bytes) -> None:
        with refused(OutputError, f"{self._path}: cannot write"):
            self._file.write(data)
        self.size += len(data)

    def close(self, *, keep: bool) -> None:
        """keep: False removes what was written, and leaves what was there before."""
        self._file.close()
        if self._part is not None:
            if keep:
                files.place(self._part, self._path)
            else:
                self._part.unlink(missing_ok=True)
        elif not keep and self.is_new:
            Path(os.path.realpath(self._path)).unlink(missing_ok=True)

    def interrupt(self) -> str:
        """Ends the file before it is whole, and says where what was written is: in its place, or
        beside the file that was there. "": nothing was written, or it is no file."""
        if not self.size:
            self.close(keep=False)
            return ""
        self._file.close()
        if self._part is None and not self.is_new:
            return ""
        return _told(self._path, self._part)


def _told(path: Path, part: Path | None = None) -> str:
    """Of an interruption; part: where the frames are if not at the path."""
    if part is None:
        return f"{path} has all frames until now"
    return f"{path} is as it was, and {part} has all frames until now"


def _part_of(target: Path) -> Path:
    """A name that people find after a crash, where that is to be had."""
    part = target.with_name(target.name + ".part")
    try:
        part.open("xb").close()
    except OSError:  # too long, taken, or in a folder that cannot be written
        return files.part_of(target)
    return part


def _opened(name: str) -> Any:
    """What PyAV opens: a file, or standard input for "-"; as it is not buffered, what has come of
    it can be had before a buffer is full."""
    if name != "-":
        return _local(name)
    if sys.stdin is None:
        raise InputError("standard input is closed")
    return getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)


def _local(name: str) -> str:
    """A file's name for FFmpeg, which takes what is before a colon for a protocol."""
    return f"file:{name}"
