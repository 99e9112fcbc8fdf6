"""A clip: frames of a video at one size."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from sempic import pictures
from sempic.errors import InputError
from sempic.evaluation.folders import named
from sempic.scene import Image
from sempic.sequence import video


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """Two or more frames."""

    name: str
    frames: list[Image]
    """uint8 (H, W, 3), all of one size."""
    rate: Fraction
    """Frames a second."""

    @property
    def seconds(self) -> float:
        return float(len(self.frames) / self.rate)


def find(inputs: Sequence[Path]) -> list[Path]:
    """The clips among inputs: video files, or those of one folder without pictures; may be none.

    Raises InputError for a missing input, two clips of one name, and clips among other files.
    """
    if len(inputs) == 1 and inputs[0].is_dir():
        names = sorted(path for path in inputs[0].iterdir() if not path.name.startswith("."))
        if any(path.suffix.lower() in pictures.SUFFIXES for path in names):
            return []
        return [path for path in names if path.is_file() and video.is_video(path.name)]
    clips = [path for path in inputs if video.is_video(path.name)]
    if len(inputs) > 1 and (missing := [path for path in inputs if not path.exists()]):
        raise InputError(f"{missing[0]}: no such file or folder")
    if len(inputs) > 1 and len(clips) < len(inputs):
        other = next(path for path in inputs if path not in clips)
        raise InputError(f"{other}: not a clip; inputs are several clips, or one folder")
    return [*named(clips, lambda path: path.name).values()]


def read(
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    rate: Fraction | None = None,
    start: float = 0.0,
    count: int | None = None,
) -> Clip:
    """Frames of a video.

    Args:
        size: (width, height) of scaled frames (LANCZOS); None: the video's.
        rate: frames a second; None: the video's.
        start: in seconds.
        count: largest number of frames; None: all.

    Raises InputError if the video cannot be read, or has fewer than two frames from `start` on.
    """
    source = video.Source(str(path), rate=rate)
    first = round(start * source.rate, 6)  # 0.07 * 100 is more than 7
    taken = (frame for number, frame in enumerate(source) if number >= first)
    frames = [
        frame if size is None else pictures.resized(frame, size, "LANCZOS")
        for frame in itertools.islice(taken, count)
    ]
    source.close()
    if len(frames) < 2:
        raise InputError(f"{path}: a clip needs two frames or more, there are {len(frames)}")
    return Clip(name=path.name, frames=frames, rate=source.rate)
