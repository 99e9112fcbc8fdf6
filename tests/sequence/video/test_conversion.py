"""Size, shape, colour, transparency and rotation of frames."""

import contextlib
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import FakeSegmenter
from videos import FRAMES, numbered, write_frames, write_video

from sempic import api, cli, errors
from sempic.errors import SempicWarning, noting
from sempic.sequence import video
from sempic.sequence.video import conversion


@pytest.mark.parametrize(
    ("aspect", "width"), [(Fraction(4, 3), 85), (Fraction(1, 2), 32), (Fraction(1000), 64)]
)
def test_pixels_are_made_square(clip, aspect, width):
    numbered("x.mp4", 2, sample_aspect_ratio=aspect)
    assert {frame.shape for frame in video.Source("x.mp4")} == {(48, width, 3)}
    small, _ = video.Source("x.mp4", max_side=32)
    scale = 32 / max(48, width)
    assert small.shape == (round(48 * scale), round(width * scale), 3)
    with pytest.raises(errors.LimitExceeded):
        video.Source("x.mp4", max_pixels=48 * width - 1)


def test_pixels_that_change_their_proportions_are_reported(place):
    """As those of broadcasts, between 4:3 and 16:9."""
    parts = []
    for aspect in (1, Fraction(4, 3)):
        numbered("x.h264", 6, gop_size=3, sample_aspect_ratio=aspect, format="h264")
        parts.append(Path("x.h264").read_bytes())
    Path("x.h264").write_bytes(parts[0] + parts[0])
    assert len(list(video.Source("x.h264"))) == 12
    Path("x.h264").write_bytes(parts[0] + parts[1])
    with pytest.warns(errors.SempicWarning, match="its pixels change their proportions"):
        assert {frame.shape for frame in video.Source("x.h264")} == {(48, 64, 3)}


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, -1), lambda p: p[::-1, ::-1]),
        ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
        ((1, 0, 0, -1), lambda p: p[::-1]),
        ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
    ],
)
def test_videos_are_rotated_and_mirrored_as_announced(clip, matrix, shown):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:16, :16], picture[:16, 48:] = 220, 110
    write_video(clip / "x.mp4", [picture])
    data = bytearray((clip / "x.mp4").read_bytes())
    at = data.index(b"tkhd") + 44
    a, b, c, d = (65536 * value for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (clip / "x.mp4").write_bytes(data)
    (found,) = video.Source("x.mp4")
    assert np.abs(found - shown(picture).astype(int)).mean() < 4


UPSIDE_DOWN = bytes.fromhex("00000001 06 2f 03 100009 80")
"""H.264's message of a rotation by 180 degrees, which holds until the next key frame."""
IDR = bytes.fromhex("000001 65")


@pytest.mark.parametrize(
    ("marks", "turned"),
    [
        ((b"", UPSIDE_DOWN), [0, 0, 0, 0, 1, 1, 1, 1]),
        # FFmpeg's filter h264_metadata puts the message behind each key frame but the first, and
        # a matrix of no rotation cannot be told from none.
        ((UPSIDE_DOWN, b"", UPSIDE_DOWN), [1] * 12),
        ((UPSIDE_DOWN, b"", b""), [1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]),
    ],
)
@pytest.mark.parametrize("rate", [None, Fraction(5)])
def test_a_rotation_may_change_in_mid_stream(place, marks, turned, rate):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24] = 200
    with open("x.h264", "wb") as out:
        for mark in marks:
            write_frames("part.h264", [picture] * 4, options={"bf": "0"})
            out.write(Path("part.h264").read_bytes().replace(IDR, mark + IDR))
    frames = video.Source("x.h264", rate=rate)
    assert [int(f[36].mean() > 100) for f in frames] == turned[:: 1 if rate is None else 2]


def test_colours_match_those_of_players(tmp_path):
    colour = np.array((200, 30, 40))
    for height in (48, 720):
        frame = np.broadcast_to(colour.astype(np.uint8), (height, 64, 3))
        write_video(tmp_path / "x.mp4", [frame])
        (again,) = video.Source(str(tmp_path / "x.mp4"))
        assert np.abs(again - colour).max() <= 3
        with av.open(tmp_path / "x.mp4") as made:
            assert made.streams.video[0].codec_context.colorspace == 1  # BT.709
        matrix = 1 if height == 720 else 5
        untold = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))
        untold = untold.reformat(format="yuv420p", dst_colorspace=matrix)
        untold.colorspace = 2
        write_frames(tmp_path / "untold.mp4", [untold])
        (again,) = video.Source(str(tmp_path / "untold.mp4"))
        assert np.abs(again - colour).max() <= 3


@pytest.mark.parametrize(("matrix", "told"), [(3, False), (8, True), (10, True)])
def test_frames_of_an_unknown_colour_matrix_are_shown(matrix, told):
    """FFmpeg refuses to convert them; 3 is "reserved", which says nothing."""
    frame = av.VideoFrame.from_ndarray(FRAMES[0]).reformat(format="yuv420p")
    convert = conversion.Converter(Fraction(1), None).convert
    expected = convert(frame, conversion.Turn())
    frame.colorspace = matrix
    said = pytest.warns(SempicWarning, match="matrix") if told else contextlib.nullcontext()
    with said:
        np.testing.assert_array_equal(convert(frame, conversion.Turn()), expected)


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le", "yuv422p"])
@pytest.mark.parametrize("max_side", [None, 48])
def test_colours_are_exact_on_the_mean(place, pixels, max_side):
    y, x = np.mgrid[:96, :96].astype(float) * 255 / 95
    ramp = np.stack([x, y, (x + y) / 2], -1)
    frame = av.VideoFrame.from_ndarray(ramp.round().astype(np.uint8), "rgb24")
    write_frames("x.mkv", [frame.reformat(format=pixels)], "ffv1", pixels=pixels)
    (found,) = video.Source("x.mkv", max_side=max_side)
    assert np.abs(found.mean((0, 1)) - ramp.mean((0, 1))).max() < 0.4


def test_transparency_is_laid_over_white(place):
    """As for single pictures."""
    clear = np.full((48, 64, 4), 90, np.uint8)
    for alpha, told in ((255, False), (0, True)):
        clear[..., 3] = alpha
        write_frames("x.mov", [clear], "qtrle", pixels="argb")
        said = pytest.warns(SempicWarning, match="over white") if told else contextlib.nullcontext()
        with said:
            (frame,) = video.Source("x.mov")
        assert (frame == (255 if told else 90)).all()


@pytest.mark.filterwarnings("ignore:transparency")
def test_what_transparent_pixels_hide_leaves_no_outline(place):
    clear = np.zeros((48, 64, 4), np.uint8)
    clear[:, :31] = 255
    write_frames("x.mov", [clear], "qtrle", pixels="argb")
    for max_side in (None, 32, 33):
        (frame,) = video.Source("x.mov", max_side=max_side)
        assert frame.min() == 255


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_transparency_of_webm_is_laid_over_white_if_it_can_be_read(place, codec, monkeypatch):
    clear = np.zeros((48, 40, 4), np.uint8)
    clear[..., 0] = 200
    clear[:, 20:, 3] = 255
    options = {"auto-alt-ref": "0"}
    write_frames("x.webm", [clear] * 3, codec, pixels="yuva420p", options=options)
    with pytest.warns(SempicWarning, match="over white"):
        frames = list(video.Source("x.webm", max_pixels=48 * 40))
    assert len(frames) == 3
    for frame in frames:
        assert (frame[:, :16] == 255).all()
        assert np.abs(frame[:, 24:] - np.array((200, 0, 0))).max() < 4
    monkeypatch.setattr(av, "codecs_available", set())
    with pytest.warns(SempicWarning, match="transparency cannot be read"):
        assert len(list(video.Source("x.webm", max_pixels=48 * 40))) == 3


def test_notes_about_a_camera_come_once_and_early(place, monkeypatch, capsys):
    alpha = np.full((48, 64), 200, np.uint8)
    write_frames("x.mov", [np.dstack([f, alpha]) for f in FRAMES], "qtrle", pixels="argb")
    told = []

    class Interrupted(FakeSegmenter):
        def predict(self, image):
            told.append(capsys.readouterr().err)
            if len(told) == 3:
                raise KeyboardInterrupt
            return super().predict(image)

    monkeypatch.setattr(api.Codec, "segmenter", Interrupted())
    command = ["encode", "x.mov", "--segment-every", "1", "-o", "x.sempic"]
    assert cli.main(command) == 2
    note = "sempic: x.mov: transparency is laid over white; a .sempic file has none\n"
    assert told == [note, "", ""]
    assert capsys.readouterr().err == "sempic: interrupted; x.sempic has all frames until now\n"
    with noting() as notes:
        assert len(list(video.Source("x.mov"))) == 6
    assert len(notes) == 1


def joined(name, *sizes):
    """A raw H.264 stream with six frames of each size."""
    with open(name, "wb") as out:
        for width, height in sizes:
            greys = [np.full((height, width, 3), 40 * number, np.uint8) for number in range(6)]
            write_frames("part.h264", greys)
            out.write(Path("part.h264").read_bytes())


def test_adaptive_streams_keep_the_size_of_their_first_frame(place):
    joined("x.h264", (128, 72), (86, 48), (128, 72))
    assert [frame.shape for frame in video.Source("x.h264")] == [(72, 128, 3)] * 18
    joined("x.h264", (86, 48), (128, 72))
    assert [frame.shape for frame in video.Source("x.h264")] == [(48, 86, 3)] * 12


def test_a_frame_of_other_proportions_is_named_with_its_file(place, capsys):
    joined("x.h264", (64, 48), (96, 48))
    assert cli.main(["encode", "x.h264"]) == 2
    assert capsys.readouterr().err == "sempic: x.h264: frame 6 is 96×48, and the first was 64×48\n"
