"""Videos ⇄ pictures in time, by PyAV: files, cameras and streams."""

from sempic.sequence.names import WRITTEN, is_video
from sempic.sequence.video.growing import Growing
from sempic.sequence.video.source import Source
from sempic.sequence.video.writer import Video

__all__ = ["WRITTEN", "Growing", "Source", "Video", "is_video"]
