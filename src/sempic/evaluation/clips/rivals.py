"""AV1 and HEVC with low delay, at a given stream size."""

from __future__ import annotations

import functools
from typing import NamedTuple

from sempic import pictures
from sempic.errors import InputError
from sempic.evaluation.clips.clip import Clip
from sempic.evaluation.codecs import Video, decode_video, encode_video
from sempic.scene import Image

_SLACK = 1.1
"""If the smallest stream exceeds the wanted size by this factor, half the resolution is coded."""
_SMALLEST = 320
"""Clips up to this width are not halved: SVT-AV1 hangs at 160×90."""
_SVT = "pred-struct=1:lp=1:keyint=-1:scd=0:enable-tf=0"
_X265 = "log-level=none:pools=none:frame-threads=1:info=0:keyint=-1:scenecut=0"
_AOM = {"cpu-used": "4", "lag-in-frames": "0", "usage": "realtime"}
_SLOW = {"preset": "slow", "tune": "zerolatency", "x265-params": _X265}
_CRF = range(63, 19, -1)
RIVALS = {
    "av1": (
        Video("av1", "AV1", _CRF, "libsvtav1", "libdav1d", {"preset": "4", "svtav1-params": _SVT}),
        Video("av1", "AV1", _CRF, "libaom-av1", "libdav1d", _AOM),
    ),
    "hevc": (Video("hevc", "HEVC", range(51, 19, -1), "libx265", "hevc", _SLOW),),
}
"""Alternatives for each name; `first` takes the first that PyAV can encode."""


class Coded(NamedTuple):
    """A clip coded and decoded by a rival."""

    size: int
    """In bytes."""
    pictures: list[Image]
    width: int
    """Of the coded frames; `pictures` have the clip's."""


def first(name: str) -> Video:
    """The rival of a name. Raises InputError if PyAV has no encoder for it."""
    import av

    for video in RIVALS[name]:
        if video.encoder in av.codecs_available:
            return video
    encoders = " or ".join(video.encoder for video in RIVALS[name])
    raise InputError(f"this PyAV has no {encoders}, the encoder of {RIVALS[name][0].title}")


def nearest(rival: Video, clip: Clip, size: int) -> Coded:
    """The rival's stream nearest to a size in bytes, by bisection over the CRF.

    If all streams are too large, half the width and height are coded and enlarged again.
    """
    height, width = clip.frames[0].shape[:2]

    @functools.cache
    def coded(crf: int) -> list[bytes]:
        return encode_video(rival.encoder, clip.frames, rival.options(crf), clip.rate)

    def bytes_at(crf: int) -> int:
        return sum(map(len, coded(crf)))

    high, low = rival.settings[0], rival.settings[-1]
    if bytes_at(high) > _SLACK * size and width > _SMALLEST:
        half = width // 4 * 2, height // 4 * 2
        frames = [pictures.resized(frame, half, "BOX") for frame in clip.frames]
        found = nearest(rival, Clip(name=clip.name, frames=frames, rate=clip.rate), size)
        back = [pictures.resized(picture, (width, height)) for picture in found.pictures]
        return found._replace(pictures=back)
    while low < high:  # the lowest CRF whose stream has at most `size` bytes
        middle = (low + high) // 2
        low, high = (low, middle) if bytes_at(middle) <= size else (middle + 1, high)
    tried = [crf for crf in (low - 1, low) if crf in rival.settings]
    best = min(tried, key=lambda crf: abs(bytes_at(crf) - size))
    return Coded(bytes_at(best), decode_video(rival.decoder, coded(best), width, height), width)
