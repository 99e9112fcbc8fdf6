"""A clip: some frames of a video at a rate and a size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from sempic import pictures
from sempic.errors import InputError
from sempic.scene import Image
from sempic.sequence import video


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """Pictures in time."""

    name: str
    frames: list[Image]
    """uint8 (H, W, 3), all of one size."""
    rate: Fraction
    """Frames in a second."""

    @property
    def seconds(self) -> float:
        return float(len(self.frames) / self.rate)


def find(inputs: Sequence[Path]) -> list[Path]:
    """The clips that are meant by files, or by a folder that has videos and no pictures; none if
    it is pictures that are meant.

    Raises InputError for clips and other things at once.
    """
    if len(inputs) == 1 and inputs[0].is_dir():
        names = sorted(path for path in inputs[0].iterdir() if not path.name.startswith("."))
        if any(path.suffix.lower() in pictures.SUFFIXES for path in names):
            return []
        return [path for path in names if path.is_file() and video.is_video(path.name)]
    clips = [path for path in inputs if video.is_video(path.name)]
    if len(inputs) > 1 and len(clips) < len(inputs):
        other = next(path for path in inputs if path not in clips)
        raise InputError(f"{other}: not a clip; several inputs are clips, or it is one folder")
    return clips


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
        size: (width, height) to which they are scaled (LANCZOS); None: as they are.
        rate: frames in a second; None: as the video has.
        start: in seconds.
        count: how many frames at most.

    Raises InputError if it cannot be read, or has fewer than two frames from there on.
    """
    source = video.Source(str(path), rate=rate)
    frames: list[Image] = []
    for number, frame in enumerate(source):
        if number < start * source.rate:
            continue
        if size is not None and frame.shape[1::-1] != size:
            frame = pictures.resized(frame, size, "LANCZOS")
        frames.append(frame)
        if len(frames) == count:
            break
    source.close()
    if len(frames) < 2:
        raise InputError(f"{path}: a clip needs two frames or more, there are {len(frames)}")
    return Clip(name=path.name, frames=frames, rate=source.rate)
