"""Videos in, videos out: by Python and by the command line, with stand-ins for the networks."""

import concurrent.futures
import gc
import io
import json
import os
import signal
import struct
import subprocess
import sys
import warnings
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
from conftest import FakeReceiver, FakeSegmenter
from scenes import drive, numbered, numbers

import sempic
from sempic import api, cli, coarse, errors, sequence
from sempic.sequence import stream, video
from sempic.sequence.video import opening

FRAMES = [picture for picture, _ in drive(6)]


@pytest.fixture
def coder(stand_ins):
    return api.Codec()


@pytest.fixture
def clip(tmp_path, coder, monkeypatch):
    """drive.mp4 in the present folder."""
    monkeypatch.chdir(tmp_path)
    file = video.Video(tmp_path / "drive.mp4", Fraction(10))
    for frame in FRAMES:
        file.add(frame)
    file.close(keep=True)
    return tmp_path


def keys(pieces):
    found = stream.Reader().feed(b"".join(pieces))
    return [f.number for f in found if isinstance(f, stream.Frame) and f.key]


def test_there_and_back(coder):
    pieces = list(sequence.encode(FRAMES, codec=coder))
    assert len(pieces) == len(FRAMES)
    pictures = list(sequence.decode(pieces, codec=coder))
    assert [p.size for p in pictures] == [(64, 48)] * 6
    again = list(sequence.decode(b"".join(pieces), codec=coder))
    for a, b in zip(pictures, again, strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"palette": 15}, errors.UnsupportedProfile),
        ({"model": 15}, errors.UnsupportedProfile),
        ({"width": 70000}, errors.LimitExceeded),
        ({"width": 65535, "height": 65535}, errors.LimitExceeded),
        ({"own": "street\n"}, errors.CorruptStream),
    ],
)
def test_info_refuses_the_heads_that_decoding_refuses(coder, changes, error):
    data = b"".join(sequence.encode(FRAMES[:2], codec=coder))
    head = next(stream.Reader().feed(data))
    data = stream.begin(replace(head, **changes)) + data[len(stream.begin(head)) :]
    with pytest.raises(error) as told:
        sequence.info(data)
    with pytest.raises(error) as decoded:
        list(sequence.decode(data, codec=coder))
    assert str(told.value) == str(decoded.value)


def test_a_frame_comes_out_before_the_next_goes_in(coder):
    gone_in = []

    def source():
        for frame in FRAMES:
            gone_in.append(frame)
            yield frame

    for count, _ in enumerate(
        sequence.decode(sequence.encode(source(), codec=coder), codec=coder), 1
    ):
        assert len(gone_in) == count


def test_key_frames_come_at_intervals_and_at_cuts(coder):
    assert keys(sequence.encode(FRAMES, rate=10, codec=coder, key_interval=0.2)) == [0, 2, 4]
    cut = [*FRAMES[:2], 255 - FRAMES[2], *FRAMES[3:4]]
    assert keys(sequence.encode(cut, codec=coder)) == [0, 2, 3]


def test_another_scene_is_a_cut_and_other_light_is_none(coder):
    cells = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    here = cells.repeat(4, 0).repeat(4, 1)
    there = here[::-1, ::-1]  # as bright on the whole
    covered = np.full_like(here, 30)
    frames = [here, here // 3 + 90, there, there // 2, covered, covered + 50, there, there]
    assert keys(sequence.encode(frames, codec=coder)) == [0, 2, 4, 6]


def test_a_scene_that_stands_has_few_key_frames_and_is_fine(coder):
    frames = [FRAMES[0]] * 22 + FRAMES
    assert keys(sequence.encode(frames, rate=10, codec=coder)) == [0]
    assert keys(sequence.encode(FRAMES * 4, rate=10, codec=coder)) == [0, 20]
    whole = coarse.from_rgb(coarse.downscale(FRAMES[0], 4)).y.astype(int)

    def worst(options):
        pieces = sequence.encode([FRAMES[0]] * 22, rate=10, codec=coder, **options)
        *_, last = sequence.Unpacker().moments(pieces)
        return np.abs(last.scene.coarse.y - whole).max()

    assert worst({}) < worst({"key_interval": 2})


def test_what_stands_still_takes_five_bytes_and_the_receiver_s_work_once(coder):
    rng = np.random.default_rng(0)
    still = [
        np.clip(FRAMES[0] + rng.normal(0, 2, FRAMES[0].shape), 0, 255).astype(np.uint8)
        for _ in range(4)
    ]
    pieces = list(sequence.encode(still, codec=coder, label_quality=3))
    assert [len(piece) for piece in pieces[1:]] == [5] * 3
    calls = []

    class Counting(FakeReceiver):
        def __call__(self, scene, **how):
            calls.append(1)
            return super().__call__(scene, **how)

    coder.receiver = Counting()
    pictures = list(sequence.decode(pieces, codec=coder))
    assert len(pictures) == 4
    assert len(calls) == 1


def test_a_receiver_that_comes_late_begins_at_the_next_key_frame(coder):
    for parity in (0, 30):
        pieces = list(sequence.encode(FRAMES * 2, codec=coder, key_interval=0.4, parity=parity))
        whole = {m.number: m for m in sequence.Unpacker().moments(pieces)}
        late = [pieces[0][:3], pieces[1][7:], *pieces[2:]]
        found = list(sequence.Unpacker().moments(late))
        assert [(m.number, m.arrived) for m in found] == [(n, True) for n in range(4, 12)]
        for moment in found:
            same = whole[moment.number].scene
            assert np.array_equal(moment.scene.coarse.y, same.coarse.y)
            assert np.array_equal(moment.scene.labels, same.labels)


def test_drawing_on_a_moment_changes_no_later_one(coder):
    pieces = list(sequence.encode([*FRAMES, FRAMES[-1], FRAMES[-1]], codec=coder))
    whole = list(sequence.Unpacker().moments(pieces))
    for drawn, asked in zip(sequence.Unpacker().moments(pieces), whole, strict=True):
        for name in ("y", "cb", "cr"):
            plane = getattr(drawn.scene.coarse, name)
            assert np.array_equal(plane, getattr(asked.scene.coarse, name))
            plane[:] = 0
        assert np.array_equal(drawn.scene.labels, asked.scene.labels)
        drawn.scene.labels[:] = 0


def test_options_out_of_range(coder):
    for wrong in ({"bitrate": "fast"}, {"bitrate": 10}, {"key_interval": 0}, {"segment_every": 0}):
        with pytest.raises(errors.InputError):
            next(sequence.encode(FRAMES, codec=coder, **wrong))
    with pytest.raises(errors.ImageError, match="frame 1 is 32×48"):
        list(sequence.encode([FRAMES[0], FRAMES[1][:, :32]], codec=coder))


def test_arguments_that_cannot_be(coder):
    for call in (
        lambda: sequence.encode(None, codec=coder),
        lambda: sequence.encode(FRAMES[0], codec=coder),
        lambda: sequence.encode("drive.mp4", codec=coder),
        lambda: sequence.encode(FRAMES, codec="hf:x"),
        lambda: sequence.encode(FRAMES, codec=coder, rate=Fraction(0)),
        lambda: sequence.encode(FRAMES, codec=coder, rate="10"),
        lambda: sequence.decode(None, codec=coder),
        lambda: sequence.decode("drive.sempic", codec=coder),
        lambda: sequence.decode(Path("drive.sempic"), codec=coder),
        lambda: sequence.decode([10**12], codec=coder),
        lambda: sequence.decode(["piece"], codec=coder),
        lambda: sequence.decode(b"", codec=7),
        lambda: sequence.decode(b"", codec=coder, kept=float("nan")),
    ):
        with pytest.raises(errors.SempicError):
            list(call())


def test_the_command_line_goes_there_and_back(clip, capsys):
    assert cli.main(["encode", "drive.mp4", "--key-interval", "0.3"]) == 0
    data = (clip / "drive.sempic").read_bytes()
    assert sequence.info(data)["frames"] == 6
    assert sequence.info(data)["keys"] == 2
    assert "6 frames of 64×48" in capsys.readouterr().out
    assert cli.main(["info", "drive.sempic", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 6
    assert cli.main(["info", "drive.sempic"]) == 0
    assert "key frames" in capsys.readouterr().out
    assert cli.main(["decode", "drive.sempic", "-o", "again.mkv"]) == 0
    assert len(list(video.Source("again.mkv"))) == 6
    assert video.Source("again.mkv").rate == 10
    assert cli.main(["decode", "drive.sempic", "-o", "frames/"]) == 0
    assert [p.name for p in sorted((clip / "frames").iterdir())] == [
        f"{i:06d}.png" for i in range(6)
    ]
    assert cli.main(["encode", "frames", "--sequence", "-o", "b.sempic", "--fps", "12.5"]) == 0
    assert sequence.info((clip / "b.sempic").read_bytes())["rate"] == 12.5


def test_no_frame_of_a_folder_is_left_out_silently(clip, capsys):
    (clip / "frames").mkdir()
    PIL.Image.fromarray(FRAMES[0]).save(clip / "frames/0.png")
    (clip / "frames/1.png").symlink_to("gone.png")
    assert cli.main(["encode", "frames", "--sequence", "-o", "b.sempic"]) == 2
    assert "1.png: a link that leads to no file" in capsys.readouterr().err
    (clip / "frames/1.png").unlink()
    (clip / "frames/1.HEIC").touch()
    assert cli.main(["encode", "frames", "--sequence", "-o", "b.sempic"]) == 2
    assert "frames: .heic files in it cannot be read here" in capsys.readouterr().err
    assert not (clip / "b.sempic").exists()


def test_the_longest_names(clip):
    long, name = "s" * 248 + ".sempic", "v" * 251 + ".mp4"
    for _ in range(2):  # the second time there is a file
        assert cli.main(["encode", "drive.mp4", "-o", long]) == 0
        assert cli.main(["decode", long, "-o", name]) == 0
    assert sequence.info(Path(long).read_bytes())["frames"] == 6
    assert len(list(video.Source(name))) == 6
    assert not [p.name for p in clip.iterdir() if p.suffix == ".part"]


@pytest.mark.parametrize(
    "name", ["a:b.mp4", "concat:x.mp4", "file:x.mp4", "caf\udce9.mp4", "-.mp4"]
)
def test_names_that_ffmpeg_would_take_for_something_else(clip, name):
    (clip / "T10:00").mkdir()
    (clip / "drive.mp4").rename(name)
    assert cli.main(["encode", "-o", "a.sempic", "--", name]) == 0
    assert cli.main(["decode", "a.sempic", "-o", f"T10:00/{name}"]) == 0
    assert len(list(video.Source(f"T10:00/{name}"))) == 6


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\ndrive.mp4\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile drive.mp4\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
    ids=["hls", "concat", "sdp"],
)
def test_no_file_makes_ffmpeg_open_others(clip, capsys, content):
    (clip / "list.mp4").write_text(content)
    assert cli.main(["encode", "list.mp4"]) == 2
    assert "list.mp4: not a video that can be read" in capsys.readouterr().err


def test_what_is_there_is_written_as_pictures_are(clip, capfd):
    """Through links, to devices and to our own open files; and kept modes, and others' files."""
    (clip / "real.sempic").write_bytes(b"old")
    (clip / "real.sempic").chmod(0o600)
    (clip / "real.sempic.part").write_bytes(b"somebody's")
    (clip / "link.sempic").symlink_to("real.sempic")
    (clip / "real.mp4").write_bytes(b"old")
    (clip / "link.mp4").symlink_to("real.mp4")
    assert cli.main(["encode", "drive.mp4", "-o", "link.sempic"]) == 0
    assert cli.main(["decode", "link.sempic", "-o", "link.mp4"]) == 0
    assert (clip / "link.sempic").is_symlink()
    assert (clip / "link.mp4").is_symlink()
    assert len(list(video.Source("real.mp4"))) == 6
    assert (clip / "real.sempic").stat().st_mode & 0o777 == 0o600
    assert (clip / "real.sempic.part").read_bytes() == b"somebody's"
    assert cli.main(["encode", "drive.mp4", "-o", "/dev/null"]) == 0
    with (clip / "log").open("ab") as log:
        log.write(b"before\n")
        log.flush()
        assert cli.main(["encode", "drive.mp4", "-o", f"/dev/fd/{log.fileno()}"]) == 0
    coded = (clip / "real.sempic").read_bytes()
    assert (clip / "log").read_bytes() == b"before\n" + coded
    (clip / "fd.mp4").symlink_to("/dev/stdout")
    capfd.readouterr()
    assert cli.main(["decode", "real.sempic", "-o", "fd.mp4"]) == 0
    assert "ftyp" in capfd.readouterr().out
    os.mkfifo("pipe")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        got = pool.submit(Path("pipe").read_bytes)
        assert cli.main(["encode", "drive.mp4", "-o", "pipe"]) == 0
        assert got.result() == coded


def test_a_folder_for_the_output(clip):
    (clip / "there").mkdir()
    assert cli.main(["encode", "drive.mp4", "-o", "there"]) == 0
    assert cli.main(["encode", "drive.mp4", "-o", "new/"]) == 0
    assert (clip / "new/drive.sempic").read_bytes() == (clip / "there/drive.sempic").read_bytes()
    (clip / "frames.v1").mkdir()
    PIL.Image.fromarray(FRAMES[0]).save(clip / "frames.v1/0.png")
    os.chdir("frames.v1")
    assert cli.main(["encode", "--sequence", "."]) == 0
    assert (clip / "frames.v1.sempic").exists()


@pytest.mark.parametrize(
    "command",
    [
        "encode drive.mp4 -o drive.mp4",
        "encode drive.mp4 -o other.mp4",
        "encode frames --sequence -o frames/0.png",
        "encode frames --sequence -o link",
        "encode drive.mp4 --segmenter net.onnx -o net.onnx",
        "decode drive.sempic --receiver net.mp4 -o net.mp4",
    ],
)
def test_no_target_is_a_source(clip, capsys, command):
    (clip / "frames").mkdir()
    PIL.Image.fromarray(FRAMES[0]).save(clip / "frames/0.png")
    (clip / "link").symlink_to("frames/0.png")
    for name in ("other.mp4", "net.onnx", "net.mp4"):
        (clip / name).write_bytes(b"good")
    (clip / "drive.sempic").write_bytes(b"".join(sequence.encode(FRAMES[:2], codec=api.Codec())))
    before = {p: p.read_bytes() for p in clip.rglob("*") if p.is_file()}
    assert cli.main(command.split()) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert {p: p.read_bytes() for p in clip.rglob("*") if p.is_file()} == before


def test_rate_and_size_of_a_video_can_be_changed(clip):
    found = list(video.Source("drive.mp4", rate=Fraction(5), max_side=32))
    assert [f.shape for f in found] == [(24, 32, 3)] * 3
    assert len(list(video.Source("drive.mp4", rate=Fraction(20)))) == 11


def noisy(name, count=20, last=1, **options):
    """A video of frames that take some bytes; last: how many frames the last one lasts."""
    rng = np.random.default_rng(0)
    with av.open(name, "w", options=options) as file:
        out = file.add_stream("mpeg4", rate=10)
        out.height, out.width = 48, 64
        for number in range(count):
            noise = rng.integers(0, 256, (48, 64, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            packets = out.encode(frame)
            for packet in packets:
                packet.duration = last if number == count - 1 else 1
            file.mux(packets)
        file.mux(out.encode(None))
    return Path(name)


@pytest.mark.parametrize("rate", [24, Fraction(30000, 1001), 30, 60])
def test_timestamps_in_milliseconds_double_and_lose_no_frame(clip, rate):
    numbered("x.mkv", 20, rate=rate)
    assert numbers(video.Source("x.mkv")) == list(range(20))


def test_frames_that_come_late_or_early_a_little_have_their_turn(clip):
    numbered("x.mkv", 20, times=[100 * n + (n * 7 % 15) for n in range(20)])
    assert numbers(video.Source("x.mkv", rate=Fraction(10))) == list(range(20))


@pytest.mark.parametrize(("format", "codec"), [("h264", "libx264"), ("hevc", "libx265")])
def test_a_stream_without_timestamps_has_all_its_frames_and_its_own_rate(clip, format, codec):
    numbered(f"x.{format}", 12, format=format, codec=codec)
    source = video.Source(f"x.{format}")
    assert source.rate == 10
    assert numbers(source) == list(range(12))


def test_a_gap_shows_the_last_frame_and_another_clock_begins_anew(clip, capsys):
    numbered("gap.mkv", 4, times=[0, 100, 500, 600])
    assert numbers(video.Source("gap.mkv", rate=Fraction(10))) == [0, 1, 1, 1, 1, 2, 3]
    numbered("set.mkv", 4, times=[0, 100, 10**9, 10**9 + 100])
    with pytest.warns(errors.SempicWarning, match="jump"):
        assert numbers(video.Source("set.mkv", rate=Fraction(10))) == [0, 1, 2, 3]
    assert cli.main(["encode", "set.mkv", "--fps", "10"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "sempic: set.mkv: its timestamps jump (1 time): the next frame follows at once there"
    ]
    numbered("x.ts", 12)
    data = (clip / "x.ts").read_bytes()
    (clip / "x.ts").write_bytes(data + data)
    with pytest.warns(errors.SempicWarning, match="jump"):
        assert numbers(video.Source("x.ts")) == [*range(12), *range(12)]


@pytest.mark.parametrize(("rate", "fps"), [(Fraction(1, 3600), "0.01"), (1000, "10")])
def test_a_rate_that_cannot_be_is_named_with_what_to_do(clip, capsys, rate, fps):
    numbered("x.mp4", 3, rate=rate)
    assert cli.main(["encode", "x.mp4"]) == 2
    told = capsys.readouterr().err
    assert "x.mp4: it has" in told
    assert "say how many with --fps" in told
    assert not (clip / "x.sempic").exists()
    assert cli.main(["encode", "x.mp4", "--fps", fps]) == 0


@pytest.mark.parametrize(
    ("aspect", "width"), [(Fraction(4, 3), 85), (Fraction(1, 2), 32), (Fraction(1000), 64)]
)
def test_pixels_that_are_not_square_are_made_so(clip, aspect, width):
    numbered("x.mp4", 2, sample_aspect_ratio=aspect)
    assert {frame.shape for frame in video.Source("x.mp4")} == {(48, width, 3)}
    small, _ = video.Source("x.mp4", max_side=32)
    scale = 32 / max(48, width)
    assert small.shape == (round(48 * scale), round(width * scale), 3)
    with pytest.raises(errors.LimitExceeded):
        video.Source("x.mp4", max_pixels=48 * width - 1)


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
def test_a_video_is_turned_and_mirrored_as_it_says(clip, matrix, shown):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:16, :16], picture[:16, 48:] = 220, 110
    file = video.Video(clip / "x.mp4", Fraction(10))
    file.add(picture)
    file.close(keep=True)
    data = bytearray((clip / "x.mp4").read_bytes())
    at = data.index(b"tkhd") + 44
    a, b, c, d = (65536 * value for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (clip / "x.mp4").write_bytes(data)
    (found,) = video.Source("x.mp4")
    assert np.abs(found - shown(picture).astype(int)).mean() < 4


def interlaced(name, width=64):
    """A video of six frames, whose fields show bars that move."""
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
def test_fields_of_two_moments_are_made_one_picture(clip, name):
    interlaced(name)
    found = [frame.astype(int) for frame in video.Source(name)]
    assert len(found) == 6
    for frame in found[1:]:
        assert np.abs(np.diff(frame, axis=0)).mean() < 6  # of the fields 25


def test_interlaced_frames_of_another_size_are_not_squeezed(clip):
    interlaced("x.h264")
    interlaced("wide.h264", 96)
    with open("x.h264", "ab") as file:
        file.write(Path("wide.h264").read_bytes())
    assert [frame.shape[1] for frame in video.Source("x.h264")] == [64] * 6 + [96] * 6


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="Linux counts threads there")
def test_a_source_keeps_no_frames_and_no_threads(clip):
    """Of those that wait for the garbage collector there would be hundreds."""
    gc.collect()
    gc.disable()
    try:
        before = len(os.listdir("/proc/self/task"))
        frames = iter(video.Source("drive.mp4", max_side=32))
        next(frames)
        during = len(os.listdir("/proc/self/task"))
        next(frames)
        next(frames)
        assert len(os.listdir("/proc/self/task")) == during
        del frames
        assert len(os.listdir("/proc/self/task")) <= before
    finally:
        gc.enable()


def test_a_file_is_read_without_a_thread_for_each_packet(clip, monkeypatch):
    monkeypatch.setattr(opening.threading, "Thread", None)
    assert len(list(video.Source("drive.mp4"))) == 6
    data = Path("drive.mp4").read_bytes()
    assert len(list(video.Source("x", data=data))) == 6
    with open("drive.mp4") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert len(list(video.Source("-"))) == 6


def test_colours_are_what_players_take_them_for(tmp_path):
    colour = np.array((200, 30, 40))
    for height in (48, 720):
        frame = np.broadcast_to(colour.astype(np.uint8), (height, 64, 3))
        file = video.Video(tmp_path / "x.mp4", Fraction(10))
        file.add(frame)
        file.close(keep=True)
        (again,) = video.Source(str(tmp_path / "x.mp4"))
        assert np.abs(again - colour).max() <= 3
        with av.open(tmp_path / "x.mp4") as made:
            assert made.streams.video[0].codec_context.colorspace == 1  # BT.709, told
        matrix = 1 if height == 720 else 5
        with av.open(tmp_path / "untold.mp4", "w") as out:
            stream = out.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, height, "yuv420p"
            said = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))
            said = said.reformat(format="yuv420p", dst_colorspace=matrix)
            said.colorspace = 2
            out.mux(stream.encode(said))
            out.mux(stream.encode(None))
        (again,) = video.Source(str(tmp_path / "untold.mp4"))
        assert np.abs(again - colour).max() <= 3


@pytest.mark.parametrize(
    ("name", "announced"),
    [("clip.mkv", 20), ("clip.avi", 10)],  # of .avi FFmpeg halves it where half of the file is gone
)
@pytest.mark.parametrize("fps", [(), ("--fps", "5")])
def test_fewer_frames_than_announced_are_said(clip, capsys, name, announced, fps):
    whole = noisy(name).read_bytes()
    assert cli.main(["encode", name, *fps, "-o", "x.sempic"]) == 0
    assert capsys.readouterr().err == ""
    (clip / name).write_bytes(whole[: len(whole) // 2])
    assert cli.main(["encode", name, *fps, "-o", "x.sempic"]) == 0
    told = capsys.readouterr().err
    count = sequence.info((clip / "x.sempic").read_bytes())["frames"]
    announced //= 2 if fps else 1
    assert told == (
        f"sempic: {name}: {count} frames came of {announced} that it announces: "
        "it is cut short or damaged\n"
    )


def test_a_last_frame_that_lasts_is_not_missing(clip, capsys):
    noisy("clip.mkv", 10, last=30)
    assert video.Source("clip.mkv").count > 30
    assert cli.main(["encode", "clip.mkv", "-o", "x.sempic"]) == 0
    assert capsys.readouterr().err == ""


def test_standard_streams(clip, monkeypatch, capsys):
    out = io.BytesIO()
    pipe = io.TextIOWrapper(out, write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        assert cli.main(["encode", "drive.mp4", "-o", "-"]) == 0
    back = io.TextIOWrapper(io.BufferedReader(io.BytesIO(out.getvalue())))
    monkeypatch.setattr(sys, "stdin", back)
    assert cli.main(["decode", "-", "-o", "out.mp4"]) == 0
    assert len(list(video.Source("out.mp4"))) == 6


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_behind_standard_output_is_one_line(clip, monkeypatch, capsys):
    with monkeypatch.context() as patch, open("/dev/full", "wb", buffering=0) as full:
        patch.setattr(sys, "stdout", io.TextIOWrapper(full, write_through=True))
        assert cli.main(["encode", "drive.mp4", "-o", "-"]) == 2
    told = capsys.readouterr().err
    assert told == "sempic: cannot write to standard output: No space left on device\n"


class OneWay(io.BytesIO):
    """As pipes are."""

    def seekable(self):
        return False

    def seek(self, *_):
        raise OSError("Illegal seek")


def test_a_video_from_a_pipe(clip, monkeypatch, capsys):
    """An index at the end is no damage; and without --sequence a picture is meant."""

    def run(command, name):
        stdin = io.TextIOWrapper(io.BufferedReader(OneWay(Path(name).read_bytes())))
        monkeypatch.setattr(sys, "stdin", stdin)
        return cli.main(command.split())

    noisy("last.mp4", 200)
    noisy("first.mp4", 200, movflags="faststart")
    assert run("encode - --sequence -o x.sempic", "first.mp4") == 0
    (clip / "x.sempic").unlink()
    assert run("encode - --sequence -o x.sempic", "last.mp4") == 2
    told = capsys.readouterr().err
    assert "sempic: -: the index of such a file mostly stands at its end" in told
    assert "breaks off" not in told
    assert told.count("\n") == 1
    assert not (clip / "x.sempic").exists()
    noisy("clip.mkv")
    noisy("clip.avi")
    for name in ("last.mp4", "clip.mkv", "clip.avi"):
        assert run("encode - -o x.sempic", name) == 2
        told = capsys.readouterr().err
        assert told == "sempic: -: not a picture that can be read; a video takes --sequence\n"
    (clip / "photo").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    assert run("encode - -o x.sempic", "photo") == 2
    assert "--sequence" not in capsys.readouterr().err


def test_a_frame_of_another_size_is_named(clip, capsys):
    (clip / "frames").mkdir()
    for name, size in (("a", (64, 48)), ("b", (64, 48)), ("c", (10, 20))):
        PIL.Image.new("RGB", size).save(clip / f"frames/{name}.png")
    assert cli.main(["encode", "frames", "--sequence", "-o", "x.sempic"]) == 2
    told = "sempic: frames/c.png is 10×20, and the first was 64×48\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("text", ["1000", "0", "1/0", "fast", "nan"])
def test_rates_that_cannot_be(capsys, text):
    with pytest.raises(SystemExit) as end:
        cli.main(["encode", "drive.mp4", "--fps", text])
    assert end.value.code == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.endswith(
        f"--fps: frames in a second are 0.01…240, such as 10, 12.5 or 30000/1001, not '{text}'"
    )


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("encode drive.mp4 --keep sign", "--keep is for pictures"),
        ("encode drive.mp4 drive.mp4", "one video at a time"),
        ("encode photo.png --bitrate 16k", "--bitrate is for videos"),
        ("encode photo.png --fps 5", "--fps is for videos"),
        ("encode text.mp4", "text.mp4: not a video"),
        ("encode none.mp4", "none.mp4: not a video that can be read: No such file"),
        ("encode rtsp://host/x", "name the output"),
        ("encode drive.mp4 -o drive.mp4", "under the name of a picture or a video"),
        ("decode drive.sempic -o out.txt", "a video is"),
        ("decode drive.sempic --only labels", "--only is for pictures"),
        ("decode drive.sempic -o -", "cannot go to standard output"),
        ("decode drive.sempic", "exists"),
        ("decode cut.sempic -o x.mp4", "no frame"),
    ],
)
def test_what_goes_wrong_takes_one_line(clip, capsys, command, says):
    PIL.Image.fromarray(FRAMES[0]).save("photo.png")
    (clip / "text.mp4").write_text("no video")
    data = b"".join(sequence.encode(FRAMES[:2], codec=api.Codec()))
    (clip / "drive.sempic").write_bytes(data)
    (clip / "cut.sempic").write_bytes(data[:30])
    before = {p: p.read_bytes() for p in clip.iterdir()}
    assert cli.main(command.split()) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1
    assert {p: p.read_bytes() for p in clip.iterdir()} == before


@pytest.mark.parametrize("there", [False, True])
def test_an_interruption_leaves_what_was_coded(clip, monkeypatch, capsys, there):
    """Under its name; and until then a file that was there stays as it is."""
    if there:
        (clip / "drive.sempic").write_bytes(b"a good file")
    calls = []

    class Interrupted(FakeSegmenter):
        def predict(self, image):
            calls.append(1)
            if len(calls) > 3:
                part = clip / ("drive.sempic.part" if there else "drive.sempic")
                assert sequence.info(part.read_bytes())["frames"] == 3  # what kill -9 would leave
                if there:
                    assert (clip / "drive.sempic").read_bytes() == b"a good file"
                raise KeyboardInterrupt
            return super().predict(image)

    monkeypatch.setattr(api.Codec, "segmenter", Interrupted())
    assert cli.main(["encode", "drive.mp4", "--segment-every", "1"]) == 2
    kept = "drive.sempic.part" if there else "drive.sempic"
    assert f"{kept} has all frames until now" in capsys.readouterr().err
    assert sequence.info((clip / kept).read_bytes())["frames"] == 3
    assert (clip / "drive.sempic.part").exists() == there
    if there:
        assert (clip / "drive.sempic").read_bytes() == b"a good file"


@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_an_interruption_leaves_what_was_decoded(clip, monkeypatch, capsys, there, part):
    """Under its name, or beside the file that has it; part: that name is taken, too."""
    assert cli.main(["encode", "drive.mp4"]) == 0
    if there:
        (clip / "x.mp4").write_bytes(b"a good file")
    if part:
        (clip / "x.mp4.part").write_bytes(b"another")
    before = {path: path.read_bytes() for path in clip.iterdir()}
    calls = []

    class Interrupted(FakeReceiver):
        def __call__(self, scene, **how):
            calls.append(1)
            if len(calls) > 3:
                raise KeyboardInterrupt
            return super().__call__(scene, **how)

    monkeypatch.setattr(api.Codec, "receiver", Interrupted())
    assert cli.main(["decode", "drive.sempic", "-o", "x.mp4"]) == 2
    assert {path: path.read_bytes() for path in before} == before
    (made,) = set(clip.iterdir()) - set(before)
    assert there or made.name == "x.mp4"
    assert part or not there or made.name == "x.mp4.part"
    told = capsys.readouterr().err
    assert f"{made.name} has all frames until now\n" in told
    assert told.count("\n") == 1
    made.rename("made.mp4")
    assert len(list(video.Source("made.mp4"))) == 3


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    "command", ["encode drive.mp4 -o x.sempic", "decode drive.sempic -o x.mp4"]
)
def test_an_interruption_before_the_first_frame_leaves_nothing(
    clip, monkeypatch, capsys, command, there
):
    assert cli.main(["encode", "drive.mp4"]) == 0
    target = clip / command.split()[-1]
    if there:
        target.write_bytes(b"a good file")

    class Interrupted(FakeReceiver, FakeSegmenter):
        def __call__(self, *_, **how):
            raise KeyboardInterrupt

        predict = __call__

    for role in ("segmenter", "receiver"):
        monkeypatch.setattr(api.Codec, role, Interrupted())
    before = {path: path.read_bytes() for path in clip.iterdir()}
    capsys.readouterr()
    assert cli.main(command.split()) == 2
    assert capsys.readouterr().err == "sempic: interrupted\n"
    assert {path: path.read_bytes() for path in clip.iterdir()} == before


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from conftest import FakeSegmenter
from sempic import api, cli

class Slow(FakeSegmenter):
    looks = 0
    def predict(self, image):
        self.looks += 1
        if self.looks > 3:
            print("three frames are there", flush=True)
            time.sleep(60)
        return super().predict(image)

api.Codec.segmenter = Slow()
cli.main(["encode", "drive.mp4", "--segment-every", "1"])
"""


def test_an_encoder_that_is_killed_leaves_a_file_that_decodes(clip):
    """By SIGKILL, to its last whole frame."""
    folder = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", KILLED, folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as encoder:
        assert encoder.stdout.readline() == "three frames are there\n"
        encoder.kill()
    assert encoder.returncode == -signal.SIGKILL
    assert cli.main(["decode", "drive.sempic", "-o", "x.mp4"]) == 0
    assert len(list(video.Source("x.mp4"))) == 3


def test_labels_are_looked_for_a_few_times_a_second(coder):
    looks = []

    class Counting(FakeSegmenter):
        def predict(self, image):
            looks.append(1)
            return super().predict(image)

    coder.segmenter = Counting()
    for rate, options, count in (
        (10, {}, 2),
        (2, {}, 6),
        (10, {"segment_every": 2}, 3),
        (10, {"label_quality": "lossless"}, 0),  # which does not ask for probabilities
    ):
        looks.clear()
        list(sequence.encode(FRAMES, rate=rate, codec=coder, key_interval=10, **options))
        assert len(looks) == count


def test_an_error_on_the_way_replaces_nothing(clip, monkeypatch, capsys):
    (clip / "drive.sempic").write_bytes(b"a good file")

    class Failing(FakeSegmenter):
        def predict(self, image):
            raise errors.ModelError("no more")

    monkeypatch.setattr(api.Codec, "segmenter", Failing())
    assert cli.main(["encode", "drive.mp4"]) == 2
    assert (clip / "drive.sempic").read_bytes() == b"a good file"
    assert not (clip / "drive.sempic.part").exists()
    (clip / "drive.sempic").unlink()
    assert cli.main(["encode", "drive.mp4"]) == 2
    assert not (clip / "drive.sempic").exists()


def test_lost_frames_are_said(clip, capsys):
    pieces = list(sequence.encode(FRAMES, codec=api.Codec(), key_interval=0.3))
    (clip / "lossy.sempic").write_bytes(b"".join(pieces[:1] + pieces[2:]))
    assert cli.main(["decode", "lossy.sempic", "-o", "x.mp4"]) == 0
    assert "needs a frame that is lost" in capsys.readouterr().err
    assert len(list(video.Source("x.mp4"))) == 6


def test_what_is_lost_takes_one_line_in_the_order_of_numbers(clip, capsys):
    frames = [FRAMES[i % 6] for i in range(24)]
    pieces = list(sequence.encode(frames, codec=api.Codec(), key_interval=1))
    broken = bytes([*pieces[21][:-2], pieces[21][-2] ^ 1, 0])
    left = [*pieces[:3], *pieces[4:13], *pieces[14:21], broken, *pieces[22:], b"cut"]
    (clip / "lossy.sempic").write_bytes(b"".join(left))
    assert cli.main(["decode", "lossy.sempic", "-o", "x.mp4"]) == 0
    assert capsys.readouterr().err == (
        "sempic: lossy.sempic: frames 3 to 9, 13 to 19, 21 to 23: each is lost or needs a frame "
        "that is lost; a checksum does not match: a packet was changed or cut; "
        "the last 3 bytes are no whole frame\n"
    )
    (clip / "lossy.sempic").write_bytes(b"".join(pieces[:9] + pieces[10:]))
    assert cli.main(["decode", "lossy.sempic", "-o", "x.mp4"]) == 0
    assert "frame 9: it is lost" in capsys.readouterr().err
    pieces = list(sequence.encode(frames, codec=api.Codec(), key_interval=0.2))
    left = [piece for number, piece in enumerate(pieces) if number % 2 == 0]
    (clip / "lossy.sempic").write_bytes(b"".join(left))
    assert cli.main(["decode", "lossy.sempic", "-o", "x.mp4"]) == 0
    assert "17, 19 and others, 11 in all:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gone", "lost"), [((), 0), ((1, 2, 4), 5), ((0, 1), 2)], ids=["restored", "lost", "at first"]
)
@pytest.mark.parametrize("source", ["guarded.sempic", "-"])
def test_decode_reports_what_it_wrote(clip, monkeypatch, capsys, gone, lost, source):
    """Also where a part of that never arrived."""
    if gone:
        made = list(
            sequence.encode(FRAMES, codec=api.Codec(), key_interval=0.2 if 0 in gone else 9)
        )
        left = [piece for number, piece in enumerate(made) if number not in gone]
        data = b"".join([made[0][:3], *left] if 0 in gone else left)
    else:
        data = (Path(__file__).parents[2] / "vectors/sequences/parity.sempic").read_bytes()
    (clip / "guarded.sempic").write_bytes(data)
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(data)))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert cli.main(["decode", source, "-o", "x.mp4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    written = len(list(video.Source("x.mp4")))
    assert (told["frames"], told["lost"], told["bytes"]) == (written, lost, len(data))
    assert told["seconds"] == written / told["rate"]
    assert told["kbps"] == pytest.approx(8 * len(data) / told["seconds"] / 1000)
    (clip / "guarded.sempic").write_bytes(data)
    assert cli.main(["decode", "guarded.sempic", "-o", "x.mp4"]) == 0
    assert f": {written} frames of " in capsys.readouterr().out


def test_what_is_reported_is_of_what_was_read_and_written(clip, monkeypatch, capsys):
    """Neither file is opened once more: it may have grown, or be gone, or be a pipe."""
    info = sequence.info
    monkeypatch.setattr(Path, "read_bytes", None)
    assert cli.main(["encode", "drive.mp4", "--json"]) == 0
    told = [json.loads(capsys.readouterr().out)]
    assert cli.main(["decode", "drive.sempic", "-o", "x.mp4", "--json"]) == 0
    told.append(json.loads(capsys.readouterr().out))
    monkeypatch.undo()
    monkeypatch.chdir(clip)
    found = info((clip / "drive.sempic").read_bytes())
    for record in told:
        assert {key: record[key] for key in found} == found


def test_a_sequence_of_another_version_is_named(clip, capsys):
    (clip / "new.sempic").write_bytes(stream.MAGIC + bytes([99, 1, 0]))
    assert cli.main(["decode", "new.sempic", "-o", "x.mp4"]) == 2
    assert capsys.readouterr().err == "sempic: new.sempic: sequence version 99 is not known here\n"


def test_frames_of_a_longer_sequence_that_was_there_before_are_told(clip, capsys):
    assert cli.main(["encode", "drive.mp4"]) == 0
    for _ in range(2):  # its own frames are replaced without a word
        assert cli.main(["decode", "drive.sempic", "-o", "frames/"]) == 0
        assert capsys.readouterr().err == ""
    assert cli.main(["encode", "drive.mp4", "--fps", "5", "-o", "short.sempic"]) == 0
    assert cli.main(["decode", "short.sempic", "-o", "frames"]) == 0
    assert "frames/000003.png" in (said := capsys.readouterr().err)
    assert said.count("\n") == 1
    assert len(list((clip / "frames").iterdir())) == 6


def test_what_is_warned_of_in_decoding_is_said_once(clip, monkeypatch, capsys):
    assert cli.main(["encode", "drive.mp4", "--model", "3"]) == 0
    capsys.readouterr()

    class Other(FakeReceiver):
        model_id = 4

    monkeypatch.setattr(api.Codec, "receiver", Other())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert cli.main(["decode", "drive.sempic", "-o", "x.mp4"]) == 0
    assert not told
    note = "sempic: drive.sempic: the stream was made for receiver 3, and this is 4\n"
    assert capsys.readouterr().err == note


def test_a_segmenter_that_knows_too_little_sends_no_map(clip, monkeypatch, capsys):
    class Unsure(FakeSegmenter):
        def predict(self, image):
            return super().predict(image)[0], np.full((12, *image.shape[:2]), 20, np.uint8)

    monkeypatch.setattr(api.Codec, "segmenter", Unsure())
    assert cli.main(["encode", "drive.mp4"]) == 0
    assert "without a label map" in capsys.readouterr().err
    data = (clip / "drive.sempic").read_bytes()
    assert sequence.info(data)["chunks"]["labels"] == 0
    assert all(m.scene.labels is None for m in sequence.Unpacker().feed(data))


@pytest.mark.parametrize(("fault", "sent"), [("unsure", False), ("one class", False), ("", True)])
def test_key_frames_have_a_map_where_a_single_picture_has(monkeypatch, fault, sent):
    class Street(FakeSegmenter):
        voids = True

        def predict(self, image):
            labels, odds = super().predict(image)
            labels = np.full_like(labels, 3) if fault == "one class" else labels
            sure = 190 if fault == "unsure" else 255
            odds = np.where(np.arange(12)[:, None, None] == labels, sure, 0).astype(np.uint8)
            return labels, odds

    monkeypatch.setattr(api.Codec, "segmenter", Street())
    soft = [np.asarray(PIL.Image.fromarray(f).resize((640, 480))) for f in FRAMES[:2]]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pieces = list(sequence.encode(soft, codec=api.Codec(), key_interval=0.1))
        single = api.Codec().encode(soft[0])
    unpacker = sequence.Unpacker()
    assert {m.scene.labels is not None for m in unpacker.moments(pieces)} == {sent}
    assert unpacker.head.halved == sent  # nor is it painted at half its size without one
    assert len(told) == 2 * (fault == "unsure")  # once each, not with each key frame
    assert (sempic.unpack(single).labels is not None) == sent


def test_a_blurred_street_is_not_painted_grainy(monkeypatch):
    """From the pictures to the pictures, with a receiver that paints grain everywhere."""
    monkeypatch.setattr(api.Codec, "segmenter", FakeSegmenter())
    rng = np.random.default_rng(0)
    grain = rng.integers(-30, 31, (48, 64, 3))

    class Grainy(FakeReceiver):
        def __call__(self, scene, **how):
            return np.clip(api.preview(scene) + grain, 0, 255).astype(np.uint8)

    coder = api.Codec(receiver=Grainy())
    flat = [np.full((48, 64, 3), 90 + i, np.uint8) for i in range(3)]
    rough = [np.clip(f + grain, 0, 255).astype(np.uint8) for f in flat]
    for frames, least, most in ((flat, 0, 4), (rough, 8, 18)):
        pieces = list(sequence.encode(frames, codec=coder))
        for picture in sequence.decode(pieces, codec=coder):
            assert least <= np.asarray(picture).astype(int).std(axis=(0, 1)).mean() <= most


def test_texture_is_said_with_key_frames_and_where_it_changes(coder):
    flat = [np.full((48, 64, 3), 90 + 30 * (i // 6), np.uint8) for i in range(12)]
    pieces = list(sequence.encode(flat, codec=coder, rate=10, key_interval=0.6))
    packets = [p for p in stream.Reader().feed(b"".join(pieces)) if not isinstance(p, stream.Head)]
    advice = [number for number, p in enumerate(packets) if isinstance(p, stream.Advice)]
    assert [packets[number + 1].number for number in advice] == [0, 6]
    assert all(packets[number + 1].key for number in advice)


@pytest.mark.parametrize("quality", [5, "lossless"])
def test_soft_frames_are_painted_at_half_their_size(monkeypatch, quality):
    """And labelled; but not where every label counts."""
    monkeypatch.setattr(api.Codec, "segmenter", FakeSegmenter())
    asked = []

    class Watching(FakeReceiver):
        def __call__(self, scene, **how):
            asked.append((scene.height, scene.width))
            return super().__call__(scene, **how)

    small = [picture for picture, _ in drive(3, height=160, width=200)]
    frames = [np.asarray(PIL.Image.fromarray(p).resize((399, 319))) for p in small]
    watched = api.Codec(receiver=Watching())
    pieces = list(sequence.encode(frames, codec=watched, label_quality=quality))
    pictures = list(sequence.decode(pieces, codec=watched))
    halved = quality != "lossless"
    assert {p.size for p in pictures} == {(399, 319)}
    assert set(asked) == ({(160, 200)} if halved else {(319, 399)})
    unpacker = sequence.Unpacker()
    scenes = [moment.scene for moment in unpacker.moments(pieces)]
    assert unpacker.head.halved == halved
    for scene in scenes:
        assert scene.labels.shape == (319, 399)
        assert scene.halved == halved
