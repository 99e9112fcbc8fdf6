"""AV1 and HEVC in time, without frames that wait for others, at a number of bytes."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from sempic import pictures
from sempic.errors import InputError
from sempic.evaluation.clips.clip import Clip
from sempic.evaluation.codecs import decode_video, encode_video
from sempic.scene import Image

_SLACK = 1.1
"""A stream may be so many times as large as is asked for before half the size is tried."""
_SMALLEST = 320
"""Width of clips that are not halved any more: SVT-AV1 hangs at 160×90."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rival:
    """A codec, and how PyAV is asked for it."""

    title: str
    encoders: dict[str, dict[str, str]]
    """By PyAV's name, the first that is there is taken; their options but for CRF."""
    decoder: str
    crfs: range


RIVALS = {
    "av1": Rival(
        title="AV1",
        encoders={
            "libsvtav1": {
                "preset": "4",
                "svtav1-params": "pred-struct=1:lp=1:keyint=-1:scd=0:enable-tf=0",
            },
            "libaom-av1": {"cpu-used": "4", "lag-in-frames": "0", "usage": "realtime"},
        },
        decoder="libdav1d",
        crfs=range(20, 64),
    ),
    "hevc": Rival(
        title="HEVC",
        encoders={
            "libx265": {
                "preset": "slow",
                "tune": "zerolatency",
                "x265-params": "log-level=none:pools=none:frame-threads=1:info=0:keyint=-1:"
                "scenecut=0",
            }
        },
        decoder="hevc",
        crfs=range(20, 52),
    ),
}


class Coded(NamedTuple):
    """What a rival made of a clip."""

    size: int
    """In bytes."""
    pictures: list[Image]
    width: int
    """At which it was coded."""


def nearest(rival: Rival, clip: Clip, size: int) -> Coded:
    """A rival's stream that is nearest in bytes, by bisection over its CRF; at half the width and
    height, enlarged again, if it has none that is as small. Raises InputError without encoder."""
    height, width = clip.frames[0].shape[:2]

    @functools.cache
    def coded(crf: int) -> list[bytes]:
        return _code(rival, clip.frames, clip.rate, crf)

    def bytes_at(crf: int) -> int:
        return sum(map(len, coded(crf)))

    low, high = rival.crfs.start, rival.crfs.stop - 1
    while low < high:  # the least CRF whose stream is no larger
        middle = (low + high) // 2
        low, high = (low, middle) if bytes_at(middle) <= size else (middle + 1, high)
    if bytes_at(rival.crfs[-1]) > _SLACK * size and width > _SMALLEST:
        half = width // 4 * 2, height // 4 * 2
        frames = [pictures.resized(frame, half, "BOX") for frame in clip.frames]
        found = nearest(rival, Clip(name=clip.name, frames=frames, rate=clip.rate), size)
        back = [pictures.resized(picture, (width, height)) for picture in found.pictures]
        return found._replace(pictures=back)
    tried = [crf for crf in (low - 1, low) if crf in rival.crfs]
    best = min(tried, key=lambda crf: abs(bytes_at(crf) - size))
    return Coded(bytes_at(best), decode_video(rival.decoder, coded(best), width, height), width)


def _code(rival: Rival, frames: list[Image], rate: Fraction, crf: int) -> list[bytes]:
    import av

    name = next((name for name in rival.encoders if name in av.codecs_available), None)
    if name is None:
        raise InputError(f"this PyAV has no {' or '.join(rival.encoders)}, which {rival.title} is")
    return encode_video(name, frames, {"crf": str(crf), **rival.encoders[name]}, rate)
