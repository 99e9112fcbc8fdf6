"""Shared by all uses of HEVC: settings of x265, NAL units, planes ⇄ frames of PyAV."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sempic.bits import Bits, ue
from sempic.errors import CorruptStream, InputError, SempicError, UnsupportedProfile, refused
from sempic.scene import Coarse

if TYPE_CHECKING:
    import av
    from av.video.codeccontext import VideoCodecContext

START = b"\0\0\1"
"""Start code before each NAL unit of a byte stream (H.265 annex B)."""

CHROMA = {1: "420", 3: "444"}
"""By HEVC's chroma_format_idc, which is also BPG's pixel format."""

# Errors of the coarse picture's chroma show more in painted pictures than errors of its luma, and
# chroma is cheap: docs/experiments/coarse.md.
CHROMA_QP = {"420": 0, "444": -6}
"""Chroma's QP less luma's, in coarse pictures."""

# One thread and no wavefronts: deterministic bytes, and no entry points in the stream.
X265 = {
    "log-level": "none",
    "pools": "none",
    "frame-threads": 1,
    "wpp": 0,
    "keyint": 1,
    "bframes": 0,
    "rc-lookahead": 0,
    "repeat-headers": 1,
    "info": 0,
    "ipratio": 1,
    "aq-mode": 0,
    "psy-rd": 0,
    "psy-rdoq": 0,
    "tu-intra-depth": 3,
    "tu-inter-depth": 1,
}

_THREADS = 3
"""The most threads that x265 starts even so, counted on Linux."""


def encoder(
    width: int,
    height: int,
    chroma: str,
    chroma_qp: int,
    settings: Mapping[str, object],
    **options: str,
) -> VideoCodecContext:
    """An x265 encoder.

    width, height: multiples of the smallest coding block. chroma: "420" or "444". chroma_qp:
    chroma's QP less luma's. settings: x265's, including X265. options: FFmpeg's.

    Raises InputError if PyAV lacks x265; PyAV's own wheels include it. Raises SempicError if the
    system refuses its threads.
    """
    import av

    if "libx265" not in av.codecs_available:
        raise InputError(
            "this PyAV has no x265, which makes coarse pictures: install its own wheel"
        )
    _start_threads()
    made = context("libx265", "w")
    made.width, made.height = width, height
    made.pix_fmt = f"yuv{chroma}p"
    made.time_base = made.framerate = Fraction(1)
    every = {"ctu": tree(width, height), **settings, "cbqpoffs": chroma_qp, "crqpoffs": chroma_qp}
    parameters = ":".join(f"{name}={value}" for name, value in every.items())
    made.options = {**options, "x265-params": parameters}
    return made


def _start_threads() -> None:
    """Raises SempicError if the system refuses x265's threads, for which it would wait for ever."""
    end = threading.Event()
    threads = [threading.Thread(target=end.wait) for _ in range(_THREADS)]
    try:
        with refused(SempicError, "cannot start a thread", RuntimeError):
            for thread in threads:
                thread.start()
    finally:
        end.set()
    for thread in threads:
        thread.join()


def decoder() -> VideoCodecContext:
    """An HEVC decoder that fails on damaged data."""
    made = context("hevc", "r")
    made.options = {"err_detect": "crccheck+bitstream+buffer+explode", "ec": "0"}
    return made


def decoded(decoder: VideoCodecContext, units: Iterable[bytes], what: str) -> av.VideoFrame:
    """The frame of the next picture, from its NAL units, parameter sets included.

    what: the picture, for messages. Raises CorruptStream; the decoder is then of no more use."""
    import av
    from av.error import FFmpegError

    try:
        frames = decoder.decode(av.Packet(b"".join(START + unit for unit in units)))
    except FFmpegError as error:
        raise CorruptStream(f"{what} is broken: {error.strerror}") from None
    if len(frames) != 1 or frames[0].is_corrupt:
        raise CorruptStream(f"{what} is broken")
    return frames[0]


def context(codec: str, mode: Literal["r", "w"]) -> VideoCodecContext:
    """PyAV's codec of this name with one thread; mode: "r" decodes, "w" encodes."""
    import av
    from av.video.codeccontext import VideoCodecContext

    made = av.CodecContext.create(codec, mode)
    assert isinstance(made, VideoCodecContext)
    made.thread_count = 1
    return made


def units(packets: Iterable[Any]) -> list[bytes]:
    """The NAL units of an encoder's packets, without their start codes."""
    stream = b"".join(bytes(packet) for packet in packets)
    return [unit.rstrip(b"\0") for unit in stream.split(START)[1:]]


def kind(unit: bytes) -> int:
    """Type of a NAL unit; -1 for other bytes."""
    return unit[0] >> 1 if len(unit) > 2 and (unit[0] & 0x81, unit[1]) == (0, 1) else -1


def escaped(payload: bytes) -> bytes:
    """A payload with emulation prevention bytes, so that it never contains START (H.265 7.4.2)."""
    return re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", payload)


def payload(unit: bytes) -> bytes:
    """The payload of a NAL unit: without header and emulation prevention bytes."""
    return unit[2:].replace(b"\0\0\3", b"\0\0")


def frame(coarse: Coarse, width: int, height: int) -> av.VideoFrame:
    """A frame of this size with the planes, padded with their edges."""
    import av

    made = av.VideoFrame(width, height, f"yuv{coarse.chroma}p")
    for plane, samples in zip(made.planes, coarse.planes, strict=True):
        rows, line = plane.buffer_size // plane.line_size, plane.line_size
        pad = ((0, max(0, rows - samples.shape[0])), (0, line - samples.shape[1]))
        plane.update(np.pad(samples, pad, mode="edge").tobytes())
    return made


def planes(frame: av.VideoFrame, width: int, height: int) -> Coarse:
    """The upper left part, of this size, of a decoded frame in 4:2:0 or 4:4:4."""
    y, cb, cr = (
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
        for plane in frame.planes
    )
    across, down = width, height
    if "420" in frame.format.name:  # or yuvj420p
        across, down = -(-width // 2), -(-height // 2)
    return Coarse(
        y=y[:height, :width].copy(), cb=cb[:down, :across].copy(), cr=cr[:down, :across].copy()
    )


def tree(width: int, height: int) -> int:
    """Side of the coding trees of a picture; width, height: 16 or more."""
    return next(side for side in (64, 32, 16) if side <= min(height, width))


def read_sps(bits: Bits) -> tuple[str, tuple[int, int], int]:
    """Chroma, (width, height) and the bits of a picture's place, from the first fields of a
    sequence parameter set of one layer (H.265 7.3.2.2). Raises a BitstreamError."""
    if bits.take(8)[4:7] != "000":
        raise UnsupportedProfile("coarse pictures in several layers are not supported")
    bits.take(96)  # profile, tier and level
    bits.golomb()  # sps_seq_parameter_set_id
    chroma = bits.ue()
    separate = chroma == 3 and bits.take(1) == "1"  # three separate colour planes
    if chroma not in CHROMA or separate:
        raise UnsupportedProfile("coarse pictures are 4:2:0 or 4:4:4")
    size = bits.ue(), bits.ue()
    if bits.take(1) == "1":
        for _ in range(4):
            bits.golomb()  # conformance window
    if {bits.golomb(), bits.golomb()} != {ue(0)}:
        raise UnsupportedProfile("samples of coarse pictures have 8 bits")
    places = bits.ue() + 4
    if places > 16:
        raise CorruptStream("the coarse pictures' parameter sets are damaged")
    return CHROMA[chroma], size, places
