"""Interlaced videos."""

from pathlib import Path

import av
import numpy as np
import pytest

from sempic.sequence import video


def interlaced(name, width=64):
    """A video of six interlaced frames; the fields show moving bars."""
    with av.open(name, "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
        stream.options = {"x264-params": "tff=1"}
        for number in range(6):
            moments = 2 * number, 2 * number + 1
            fields = [20 + 200 * ((np.arange(width) - at) % 16 < 8) for at in moments]
            rows = np.array(fields, np.uint8)[np.arange(48) % 2]
            frame = av.VideoFrame.from_ndarray(np.repeat(rows[..., None], 3, 2))
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


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
