"""Opening videos; reads that block or break off."""

import contextlib
import io
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import PIL.Image
import pytest
from conftest import ROOT
from videos import camera, noisy, numbered, served

from sempic import cli, sequence
from sempic.errors import InputError, SempicWarning
from sempic.sequence import video
from sempic.sequence.video import opening, source


@pytest.mark.parametrize("stalls", [False, True])
def test_a_broken_connection_keeps_the_frames_so_far(place, monkeypatch, capsys, stalls):
    """Frames still in the decoder are coded too, and an existing file stays."""
    monkeypatch.setattr(opening, "_TIMEOUT", 1.0)
    numbered("x.ts", 12)
    Path("out.sempic").write_bytes(b"a good file")
    with served(Path("x.ts").read_bytes(), stalls=stalls) as address:
        assert cli.main(["encode", address, "-o", "out.sempic"]) == 2
    told = capsys.readouterr().err
    why = "nothing came for 1 s" if stalls else "Input/output error"
    assert f"{address}: breaks off at frame 12: {why}; " in told
    assert told.endswith("out.sempic.part has all frames until now\n")
    assert told.count("\n") == 1
    assert Path("out.sempic").read_bytes() == b"a good file"
    assert sequence.info(Path("out.sempic.part").read_bytes())["frames"] == 12


@pytest.mark.parametrize("fps", [None, Fraction(1), Fraction(5)])
@pytest.mark.parametrize(
    ("name", "codec"),
    [("x.mp4", "libx264"), ("x.mkv", "libx264"), ("x.webm", "libvpx"), ("x.avi", "mjpeg")],
)
def test_a_response_without_length_ends_with_its_container(place, name, codec, fps):
    """FFmpeg reports the end of such a connection as an error, at any place."""
    kind = {"pix_fmt": "yuvj420p"} if codec == "mjpeg" else {}
    numbered(name, 12, codec=codec, max_b_frames=0, **kind)
    data = Path(name).read_bytes()
    with served(data, name, length=None) as address:
        whole = len(list(video.Source(name, rate=fps)))
        assert len(list(video.Source(address, rate=fps))) == whole
    if name != "x.mp4":  # has its index at the end
        with av.open(name) as file:
            last = [packet.pos for packet in file.demux() if packet.size][-1]
        with (
            served(data[:last], name, length=None) as address,
            pytest.raises(InputError, match="breaks off"),
        ):
            list(video.Source(address, rate=fps))


def test_a_response_without_any_length_counts_as_cut_short(place):
    numbered("x.ts", 12)
    with (
        served(Path("x.ts").read_bytes(), length=None) as address,
        pytest.raises(InputError, match="breaks off at frame 12"),
    ):
        list(video.Source(address))


def test_a_stream_that_never_begins_times_out(place, monkeypatch, capsys):
    monkeypatch.setattr(opening, "_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme in ("http", "tcp", "rtsp"):
            address = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/x"
            assert cli.main(["encode", address, "-o", "out.sempic"]) == 2
            told = capsys.readouterr().err
            assert told == (
                f"sempic: {address}: not a video that can be read: nothing came for 0.5 s\n"
            )
    assert not list(place.glob("out*"))


STALLED = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import FakeSegmenter
from sempic import api, cli, processes

api.Codec.segmenter = FakeSegmenter()
command = ["encode", sys.argv[2], "--sequence", "-o", "out.sempic"]
print("ready", flush=True)
sys.exit(processes.as_program(lambda: cli.main(command)))
"""


@pytest.mark.skipif(os.name == "nt", reason="there are no such pipes and signals")
@pytest.mark.parametrize("came", ["nothing", "some"])
@pytest.mark.parametrize("source", ["-", "pipe.y4m", "http"])
def test_ctrl_c_ends_a_stalled_read(place, source, came):
    """At once; FFmpeg itself keeps waiting."""
    numbered("x.y4m", 12, format="yuv4mpegpipe", codec="rawvideo")
    data = Path("x.y4m").read_bytes() if came == "some" else b""
    os.mkfifo("pipe.y4m")
    with contextlib.ExitStack() as stack:
        name = source
        if source == "http":
            name = stack.enter_context(served(data, stalls=True))
        tests = str(ROOT / "tests")
        encoder = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", STALLED, tests, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        )
        stack.callback(encoder.kill)
        encoder.stdout.readline()
        pipe = encoder.stdin
        if source == "pipe.y4m":
            pipe = stack.enter_context(open(source, "wb", buffering=0))
        if source != "http":
            pipe.write(data)
        out = place / "out.sempic"
        until = time.monotonic() + (
            60 if data else 1
        )  # without data there is no output to wait for
        while time.monotonic() < until and not (out.exists() and out.stat().st_size):
            time.sleep(0.05)
        encoder.send_signal(signal.SIGINT)
        assert encoder.wait(60) == -signal.SIGINT
        told = encoder.stderr.read().decode()
    assert "interrupted" in told
    assert told.count("\n") == 1
    if data:
        assert "out.sempic has all frames until now" in told
        assert sequence.info(out.read_bytes())["frames"] >= 1
    else:
        assert not out.exists()


def test_frames_of_a_pipe_are_not_held_back_by_buffering(place, monkeypatch):
    numbered("x.y4m", 3, format="yuv4mpegpipe", codec="rawvideo")
    data = Path("x.y4m").read_bytes()
    ours, theirs = os.pipe()
    with open(ours) as stdin, open(theirs, "wb", buffering=0) as pipe:
        monkeypatch.setattr(sys, "stdin", stdin)
        pipe.write(
            data[: len(data) * 2 // 3 + 100]
        )  # 2 frames of 9 kB in all; the third is incomplete
        came = []
        first = threading.Thread(
            target=lambda: came.append(next(iter(video.Source("-")))), daemon=True
        )
        first.start()
        first.join(60)
        assert len(came) == 1


def test_frames_that_arrive_too_fast_are_reported(place, monkeypatch):
    def slowly(name, count):
        with contextlib.suppress(InputError):
            for _ in itertools.islice(video.Source(name), count):
                time.sleep(0.1)

    monkeypatch.setattr(source, "_LAG_SECONDS", 0.5)
    monkeypatch.setattr(source, "IDLE_SHARE", 0.5)  # half a second, for busy machines
    numbered("x.ts", 24)
    with (
        served(Path("x.ts").read_bytes(), length=None) as address,
        pytest.raises(SempicWarning, match="faster than they can be encoded"),
    ):
        slowly(address, 24)
    slowly("x.ts", 9)  # a file can wait
    with served(Path("x.ts").read_bytes(), length=0) as address:
        slowly(address, 9)  # so can a download of known length


@pytest.mark.parametrize(
    "name", ["a:b.mp4", "concat:x.mp4", "file:x.mp4", "caf\udce9.mp4", "-.mp4"]
)
def test_names_are_never_ffmpeg_options_or_protocols(clip, name):
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


def test_a_file_is_read_without_a_thread_for_each_packet(clip, monkeypatch):
    monkeypatch.setattr(opening.threading, "Thread", None)
    assert len(list(video.Source("drive.mp4"))) == 6
    data = Path("drive.mp4").read_bytes()
    assert len(list(video.Source("x", data=data))) == 6
    with open("drive.mp4") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert len(list(video.Source("-"))) == 6


def test_a_slow_camera_does_not_time_out(place, monkeypatch):
    """The timeout allows for a low --fps."""
    monkeypatch.setattr(opening, "_TIMEOUT", 0.2)
    with camera(6, 0.5) as address:
        assert len(list(itertools.islice(video.Source(address, rate=Fraction(1)), 2))) == 2


class OneWay(io.BytesIO):
    """A file that cannot seek, like a pipe."""

    def seekable(self):
        return False

    def seek(self, *_):
        raise OSError("Illegal seek")


def test_a_video_from_a_pipe(clip, monkeypatch, capsys):
    """An index at the end is not called damage; without --sequence, input is a picture."""

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
    noisy("clip.ts")
    for name, start in (("clip.mpg", b"\0\0\1\xba"), ("clip.flv", b"FLV\1"), ("clip.ogv", b"OggS")):
        Path(name).write_bytes(start + bytes(99))
    for name in ("last.mp4", "clip.mkv", "clip.avi", "clip.ts", "clip.mpg", "clip.flv", "clip.ogv"):
        assert run("encode - -o x.sempic", name) == 2
        told = capsys.readouterr().err
        assert told == "sempic: -: a video, not a picture; --sequence encodes it\n"
    (clip / "photo").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    assert run("encode - -o x.sempic", "photo") == 2
    assert "--sequence" not in capsys.readouterr().err


def test_an_animated_avif_is_refused_wherever_it_comes_from(place):
    """FFmpeg takes its first picture for a video of its own."""
    first, second = (PIL.Image.new("RGB", (64, 48), (level, 90, 90)) for level in (40, 200))
    first.save("x.avif", save_all=True, append_images=[second], duration=100)
    for data in (None, Path("x.avif").read_bytes()):
        with pytest.raises(InputError, match="only animated GIFs and PNGs are"):
            video.Source("x.avif", data=data)
