"""Interlaced videos."""

from pathlib import Path

import numpy as np
import pytest
from videos import write_frames

from sempic.sequence import video


def interlaced(name, width=64):
    """A video of six interlaced frames; the fields show moving bars."""
    frames = []
    for number in range(6):
        moments = 2 * number, 2 * number + 1
        fields = [20 + 200 * ((np.arange(width) - at) % 16 < 8) for at in moments]
        rows = np.array(fields, np.uint8)[np.arange(48) % 2]
        frames.append(np.repeat(rows[..., None], 3, 2))
    write_frames(name, frames, options={"x264-params": "tff=1"})


@pytest.mark.parametrize("name", ["x.mp4", "x.h264"])
def test_fields_are_deinterlaced(clip, name):
    interlaced(name)
    found = [frame.astype(int) for frame in video.Source(name)]
    assert len(found) == 6
    for frame in found[1:]:
        assert np.abs(np.diff(frame, axis=0)).mean() < 6  # 25 with the fields interleaved


def test_interlaced_frames_may_change_size(clip):
    interlaced("x.h264")
    interlaced("wide.h264", 96)
    with open("x.h264", "ab") as file:
        file.write(Path("wide.h264").read_bytes())
    assert [frame.shape[1] for frame in video.Source("x.h264")] == [64] * 6 + [96] * 6
