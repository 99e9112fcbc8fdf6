"""Rates, lengths, streams and damage of videos."""

import gc
import os
import signal
import struct
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
from videos import FRAMES, grey, noisy, numbered, numbers, write_frames

from sempic import cli, sequence
from sempic.errors import InputError, SempicWarning
from sempic.sequence import video


def test_rate_and_size_of_a_video_can_be_changed(clip):
    found = list(video.Source("drive.mp4", rate=Fraction(5), max_side=32))
    assert [f.shape for f in found] == [(24, 32, 3)] * 3
    assert len(list(video.Source("drive.mp4", rate=Fraction(20)))) == 12


@pytest.mark.parametrize(("rate", "fps"), [(Fraction(1, 3600), "0.01"), (1000, "10")])
def test_an_invalid_rate_is_named_with_a_remedy(clip, capsys, rate, fps):
    numbered("x.mp4", 3, rate=rate)
    assert cli.main(["encode", "x.mp4"]) == 2
    told = capsys.readouterr().err
    assert "x.mp4: it has" in told
    assert "say how many with --fps" in told
    assert not (clip / "x.sempic").exists()
    assert cli.main(["encode", "x.mp4", "--fps", fps]) == 0


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="Linux counts threads there")
def test_a_source_keeps_no_frames_and_no_threads(clip):
    """Without prompt release, hundreds of threads would add up."""
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_may_drop_a_source(clip):
    """FFmpeg would wait for threads that do not exist there. To go on is an error."""
    frames = iter(video.Source("drive.mp4"))
    next(frames)
    if (child := os.fork()) == 0:
        signal.alarm(10)
        with pytest.raises(InputError, match="a forked process cannot go on with it"):
            next(frames)
        del frames
        assert len(list(video.Source("drive.mp4"))) == len(FRAMES)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("name", "announced"),
    [("clip.mkv", 20), ("clip.avi", 10)],  # FFmpeg halves it for .avi without its second half
)
@pytest.mark.parametrize("fps", [(), ("--fps", "5")])
def test_fewer_frames_than_announced_are_reported(clip, capsys, name, announced, fps):
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


@pytest.mark.parametrize("length", ["00:00:nan", "00:00:inf", "0:0:1e300", "-1:00:00", "a:b:c"])
def test_a_length_without_sense_is_ignored(clip, length):
    numbered("x.mkv", 20)
    data = Path("x.mkv").read_bytes()
    stated = b"00:00:02.000000000"
    assert stated in data
    data = data.replace(stated, length.encode().ljust(len(stated), b"\0"))
    source = video.Source("x.mkv", data=data)
    assert source.count == 20  # of the container
    assert len(list(source)) == 20


@pytest.mark.parametrize("name", ["clip.mkv", "clip.mp4"])
def test_the_last_frame_stays_for_its_duration(clip, capsys, name):
    noisy(name, 10, last=30)
    source = video.Source(name, rate=Fraction(10))
    assert source.count == 39
    frames = list(source)
    assert len(frames) == 39
    assert all((frame == frames[9]).all() for frame in frames[10:])
    assert cli.main(["encode", name, "--fps", "10", "-o", "x.sempic"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["x.mkv", "x.webm", "x.ts"])
def test_a_late_first_frame_is_not_reported_missing(clip, name):
    """Matroska states the end of the last frame instead of a length."""
    codec = "libvpx" if name == "x.webm" else "libx264"
    numbered(name, 12, times=[5000 + 100 * number for number in range(12)], codec=codec)
    assert numbers(video.Source(name)) == list(range(12))


@pytest.mark.parametrize(
    ("codec", "gone", "shown"),
    [
        ("libx264", 8, [0, 1, 2, 3, 4, 5, 6, 7, 7, 9]),  # damaged
        ("libvpx", None, list(range(6, 16))),  # joined late: the first frames lack their references
    ],
)
def test_undecodable_packets_are_skipped_and_reported(place, codec, gone, shown):
    numbered("x.mkv", 24, codec=codec, gop_size=6)
    with av.open("x.mkv") as before, av.open("y.mkv", "w") as after:
        out = after.add_stream_from_template(before.streams.video[0])
        for number, packet in enumerate(before.demux(video=0)):
            if packet.size and (gone is not None or number > 1):
                sent = av.Packet(bytes(packet.size) if number == gone else bytes(packet))
                sent.pts, sent.dts, sent.time_base = packet.pts, packet.dts, packet.time_base
                sent.stream, sent.is_keyframe = out, packet.is_keyframe
                after.mux(sent)
    with pytest.warns(SempicWarning) as told:
        assert numbers(video.Source("y.mkv"))[:10] == shown
    assert "of it cannot be decoded" in str(told[0].message)


def test_frames_of_hevc_that_need_a_lost_one_are_reported(place):
    """FFmpeg leaves them out without an error."""
    options = {"x265-params": "bframes=0:keyint=90:log-level=none", "preset": "ultrafast"}
    write_frames("x.mkv", map(grey, range(20)), "libx265", options=options)
    for gone in (None, 5):
        with av.open("x.mkv") as before, av.open("y.mkv", "w") as after:
            out = after.add_stream_from_template(before.streams.video[0])
            for number, packet in enumerate(before.demux(video=0)):
                if packet.size and number != gone:
                    packet.stream = out
                    after.mux(packet)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            assert len(list(video.Source("y.mkv"))) == (20 if gone is None else 5)
        assert ["need one that is lost" in str(w.message) for w in told] == (
            [] if gone is None else [True, False]
        )


def test_frames_of_hevc_before_the_start_of_a_cut_are_not_missed(place, recwarn):
    """As phones cut a video: its packets stay, and an edit list says where it starts."""
    options = {"x265-params": "bframes=0:keyint=90:log-level=none", "preset": "ultrafast"}
    write_frames("x.mp4", map(grey, range(20)), "libx265", options=options)
    with av.open("x.mp4") as before, av.open("y.mp4", "w") as after:
        out = after.add_stream_from_template(before.streams.video[0])
        for packet in before.demux(video=0):
            if packet.size:
                packet.stream = out
                packet.pts = packet.dts = packet.pts - before.streams.video[0].duration // 2
                after.mux(packet)
    assert len(list(video.Source("y.mp4"))) == 10
    assert not recwarn.list


def test_frames_without_data_repeat_the_last_one(place, recwarn):
    numbered("x.mov", 20, codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray(Path("x.mov").read_bytes())
    at = data.index(b"stsz") + 16 + 4 * 4
    fourth, fifth = struct.unpack_from(">2I", data, at)  # sizes; a JPEG may have a tail
    struct.pack_into(">2I", data, at, fourth + fifth, 0)
    Path("x.mov").write_bytes(data)
    assert numbers(video.Source("x.mov")) == [0, 1, 2, 3, 4, 4, *range(6, 20)]
    assert not recwarn.list


def test_damaged_frames_are_shown_and_reported(place, capsys):
    data = bytearray(noisy("x.ts").read_bytes())
    at = len(data) // 376 * 188 + 20  # within a packet of the stream
    data[at : at + 160] = bytes(160)
    Path("x.ts").write_bytes(data)
    assert cli.main(["encode", "x.ts"]) == 0
    damaged = "frames of it are damaged: they are shown as far as they are there"
    assert capsys.readouterr().err == f"sempic: x.ts: {damaged}\n"
    assert sequence.info(Path("x.sempic").read_bytes())["frames"] == 20


def test_a_file_without_a_decodable_picture_is_refused(place):
    numbered("x.ts", 12)
    data = Path("x.ts").read_bytes()
    begin = next(at for at in range(0, len(data), 188) if b"\x67" in data[at : at + 188])
    with pytest.raises(InputError, match=r"breaks off at frame 0|not a video"):
        list(video.Source("x", data=data[begin + 10 * 188 :]))


def with_cover(name, *, moving):
    """A file with cover art first, then sound or, if moving, a video of six frames."""
    with av.open(name, "w") as out:
        cover = out.add_stream("mjpeg", rate=10)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        film = out.add_stream("libx264", rate=10) if moving else out.add_stream("aac", rate=44100)
        if moving:
            film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        out.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(grey(number))
            if not moving:
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                frame.sample_rate, frame.pts = 44100, 1024 * number
            out.mux(film.encode(frame))
        out.mux(film.encode(None))


def test_cover_art_is_no_video(place):
    with_cover("x.mp4", moving=True)
    assert numbers(video.Source("x.mp4")) == list(range(6))
    with_cover("x.mp4", moving=False)
    with pytest.raises(InputError, match="there is no video in it"):
        video.Source("x.mp4")


def test_a_video_of_an_unknown_codec_is_refused(clip):
    numbered("x.mp4", 3)
    data = Path("x.mp4").read_bytes().replace(b"avc1", b"encv")
    with pytest.raises(InputError, match=r"x\.mp4: no decoder is known for its video"):
        video.Source("x.mp4", data=data)


def test_further_video_streams_are_reported(place):
    with av.open("x.mkv", "w") as out:
        streams = [out.add_stream("libx264", rate=10) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for stream in streams:
            for number in range(3):
                grey = np.full((48, 64, 3), 8 * number + 100 * stream.index, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(grey)))
            out.mux(stream.encode(None))
    with pytest.warns(SempicWarning, match="2 videos in it: all but the first"):
        assert numbers(video.Source("x.mkv")) == [0, 1, 2]


def test_frames_closer_than_the_mean_rate_are_reported(clip):
    times = [0, 100, 200, 300, 400, 500, 600, 700, 2000, 3500]
    numbered("x.mp4", 10, times=times, options={"bf": "0"})
    with pytest.warns(SempicWarning, match=r"left out, because .* a higher --fps keeps them"):
        assert len(set(numbers(video.Source("x.mp4")))) < 8
    assert set(numbers(video.Source("x.mp4", rate=Fraction(10)))) == set(range(10))


@pytest.mark.parametrize("curve", [16, 18])
def test_high_dynamic_range_is_reported(place, curve):
    write_frames("x.mkv", [grey(0)], pixels="yuv420p10le", color_trc=curve)
    with pytest.warns(SempicWarning, match="high dynamic range"):
        assert len(list(video.Source("x.mkv"))) == 1


@pytest.mark.parametrize(("codec", "pixels"), [("gif", "rgb8"), ("apng", "rgb24")])
def test_animations_are_videos_on_request(place, codec, pixels):
    write_frames(f"x.{codec}", FRAMES, codec, pixels=pixels)
    assert cli.main(["encode", f"x.{codec}", "--sequence", "-o", "x.sempic"]) == 0
    assert sequence.info(Path("x.sempic").read_bytes())["frames"] == 6


def test_a_gif_without_times_is_refused(place):
    noise = np.random.default_rng(0).integers(256, size=(3, 48, 64), dtype=np.uint8)
    first, *rest = map(PIL.Image.fromarray, noise)
    first.save("x.gif", save_all=True, append_images=rest)  # FFmpeg sees one frame of it
    with pytest.raises(InputError, match=r"^x.gif: its frames have no times"):
        video.Source("x.gif")
    first.save("still.gif")
    assert len(list(video.Source("still.gif"))) > 0


@pytest.mark.parametrize(("suffix", "format"), [(".flv", "flv"), (".MTS", "mpegts")])
def test_videos_of_camcorders_are_known_by_their_names(clip, suffix, format):
    numbered(f"x{suffix}", 3, format=format)
    assert cli.main(["encode", f"x{suffix}"]) == 0
    assert sequence.info(Path("x.sempic").read_bytes())["frames"] == 3
