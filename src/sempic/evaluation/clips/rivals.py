"""AV1 and HEVC with low delay, at a given stream size."""

from __future__ import annotations

import functools
from typing import NamedTuple

from sempic import pictures
from sempic.evaluation.clips.clip import Clip
from sempic.evaluation.codecs import Video, decode_video, encode_video
from sempic.scene import Image

_SLACK = 1.1
"""If the smallest stream exceeds the wanted size by this factor, half the resolution is coded."""
_SMALLEST = 320
"""Clips up to this width are not halved: SVT-AV1 hangs at 160×90."""


class Coded(NamedTuple):
    """A clip coded and decoded by a rival."""

    size: int
    """In bytes."""
    pictures: list[Image]
    width: int
    """Of the coded frames; `pictures` have the clip's."""


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
