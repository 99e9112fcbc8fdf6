"""Cameras and streams that stall, break off or change; and what else is in a video's file."""

import contextlib
import http.server
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
import numpy as np
import pytest
from conftest import FakeSegmenter
from scenes import drive, numbered, numbers

from sempic import api, cli, pictures, sequence
from sempic.batch.work import noting
from sempic.errors import InputError, OutputError, SempicWarning
from sempic.sequence import video
from sempic.sequence.video import clock, opening, source


@contextlib.contextmanager
def serving(handler):
    """The address of a server on this machine."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def served(data, name="x.ts", *, stalls=False, length=1000):
    """Its address; the connection ends, or stays open with no more. length: what it announces
    beyond the data; None: it announces nothing."""
    done = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            if length is not None:
                self.send_header("Content-Length", str(len(data) + length))
            self.end_headers()
            self.wfile.write(data)
            if stalls:
                done.wait()

        log_message = lambda *_: None  # noqa: E731

    with serving(Handler) as address:
        yield f"{address}/{name}"
        done.set()


# ── what stalls, breaks off or never begins ──────────────────────────────────────────────────


@pytest.mark.parametrize("stalls", [False, True])
def test_what_came_before_a_stream_broke_off_is_coded(place, monkeypatch, capsys, stalls):
    """Those frames, too, that the decoder still had; a file that was there stays as it is."""
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
def test_an_answer_without_a_length_ends_where_its_container_does(place, name, codec, fps):
    """FFmpeg takes the end of its connection for a fault, as it would earlier."""
    kind = {"pix_fmt": "yuvj420p"} if codec == "mjpeg" else {}
    numbered(name, 12, codec=codec, max_b_frames=0, **kind)
    data = Path(name).read_bytes()
    with served(data, name, length=None) as address:
        whole = len(list(video.Source(name, rate=fps)))
        assert len(list(video.Source(address, rate=fps))) == whole
    if name != "x.mp4":  # whose index is at its end
        with av.open(name) as file:
            last = [packet.pos for packet in file.demux() if packet.size][-1]
        with (
            served(data[:last], name, length=None) as address,
            pytest.raises(InputError, match="breaks off"),
        ):
            list(video.Source(address, rate=fps))


def test_an_answer_without_any_length_may_have_broken_off(place):
    numbered("x.ts", 12)
    with (
        served(Path("x.ts").read_bytes(), length=None) as address,
        pytest.raises(InputError, match="breaks off at frame 12"),
    ):
        list(video.Source(address))


def test_a_stream_that_never_begins_is_waited_for_as_long_as_that(place, monkeypatch, capsys):
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
def test_ctrl_c_ends_the_wait_for_what_stalls(place, source, came):
    """At once: FFmpeg itself would wait on, or take the signal for the end of nothing."""
    numbered("x.y4m", 12, format="yuv4mpegpipe", codec="rawvideo")
    data = Path("x.y4m").read_bytes() if came == "some" else b""
    os.mkfifo("pipe.y4m")
    with contextlib.ExitStack() as stack:
        name = source
        if source == "http":
            name = stack.enter_context(served(data, stalls=True))
        tests = str(Path(__file__).parents[1])
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
        until = time.monotonic() + (60 if data else 1)  # of nothing there is nothing to see
        while time.monotonic() < until and not (out.exists() and out.stat().st_size):
            time.sleep(0.05)
        encoder.send_signal(signal.SIGINT)
        assert encoder.wait(10) == -signal.SIGINT
        told = encoder.stderr.read().decode()
    assert "interrupted" in told
    assert told.count("\n") == 1
    if data:
        assert "out.sempic has all frames until now" in told
        assert sequence.info(out.read_bytes())["frames"] >= 1
    else:
        assert not out.exists()


def test_frames_of_a_pipe_come_before_a_buffer_is_full(place, monkeypatch):
    numbered("x.y4m", 3, format="yuv4mpegpipe", codec="rawvideo")
    data = Path("x.y4m").read_bytes()
    ours, theirs = os.pipe()
    with open(ours) as stdin, open(theirs, "wb", buffering=0) as pipe:
        monkeypatch.setattr(sys, "stdin", stdin)
        pipe.write(data[: len(data) * 2 // 3 + 100])  # 2 frames, 9 kB: the third is on its way
        came = []
        first = threading.Thread(
            target=lambda: came.append(next(iter(video.Source("-")))), daemon=True
        )
        first.start()
        first.join(10)
        assert len(came) == 1


@pytest.mark.parametrize(
    ("codec", "gone", "shown"),
    [
        ("libx264", 8, [0, 1, 2, 3, 4, 5, 6, 7, 7, 9]),  # damaged
        ("libvpx", None, list(range(6, 16))),  # joined late: its first pictures are made of others
    ],
)
def test_packets_that_cannot_be_decoded_are_left_out_and_said(place, codec, gone, shown):
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


@contextlib.contextmanager
def camera(count, pause):
    """The address of one that sends single pictures, which say their number by their grey."""

    class Camera(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            self.end_headers()
            for number in range(count):
                part = pictures.encode(np.full((48, 64, 3), 8 * number, np.uint8), ".jpg")
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(part)}\r\n\r\n"
                self.wfile.write(head.encode() + part + b"\r\n")
                time.sleep(pause)

        log_message = lambda *_: None  # noqa: E731

    with serving(Camera) as address:
        yield f"{address}/video"


def test_cameras_that_send_single_pictures_keep_their_time(place):
    """FFmpeg takes what has no timestamps for 25 pictures a second."""
    came = []
    with camera(10, 0.1) as address, pytest.raises(InputError, match="breaks off"):
        came.extend(video.Source(address, rate=Fraction(10)))
    assert len(came) >= 7


def test_a_camera_that_is_slow_has_not_stalled(place, monkeypatch):
    """Of which a frame a minute, say, is asked for."""
    monkeypatch.setattr(opening, "_TIMEOUT", 0.2)
    with camera(6, 0.5) as address:
        assert len(list(itertools.islice(video.Source(address, rate=Fraction(1)), 2))) == 2


def test_a_coder_that_is_too_slow_for_single_pictures_takes_each_in_turn(place):
    """The time that coding takes made gaps, which were filled, and coded, for longer and longer."""
    shown = []
    with camera(31, 0.02) as address:
        for frame in itertools.islice(video.Source(address, rate=Fraction(25)), 12):
            shown.append(round(frame.mean() / 8))
            time.sleep(0.1)
    assert len(set(shown)) >= 8


def test_the_time_of_single_pictures_is_that_of_the_clock(place):
    """If a coder is fast enough on the whole: key frames are slow, and what was waited for is so
    long ago as it is."""
    arrivals, now, found = clock.Arrivals(0.1), 0.0, []
    for number in range(100):
        asked = now
        now = max(asked, 5.0 + 0.1 * number + (20.0 if number >= 50 else 0.0))
        found.append(arrivals.read(asked, now))
        now += 0.35 if number % 20 == 0 else 0.05
    steps = np.diff(found)
    assert steps[49] == pytest.approx(20.1)
    np.testing.assert_allclose(np.delete(steps, 49), 0.1, atol=1e-6)


def test_a_camera_that_is_faster_than_the_coder_is_said(place, monkeypatch):
    def slowly(name):
        with contextlib.suppress(InputError):
            for _ in video.Source(name):
                time.sleep(0.1)

    monkeypatch.setattr(source, "_LAG_SECONDS", 0.5)
    monkeypatch.setattr(source, "IDLE_SHARE", 0.5)  # of half a second, on a busy machine
    numbered("x.ts", 24)
    with (
        served(Path("x.ts").read_bytes(), length=None) as address,
        pytest.warns(SempicWarning, match="faster than they can be encoded"),
    ):
        slowly(address)
    slowly("x.ts")  # which can wait
    with served(Path("x.ts").read_bytes(), length=0) as address:
        slowly(address)  # and so can a file of so many bytes


def test_what_holds_no_picture_that_can_be_decoded_is_an_error(place):
    numbered("x.ts", 12)
    data = Path("x.ts").read_bytes()
    begin = next(at for at in range(0, len(data), 188) if b"\x67" in data[at : at + 188])
    with pytest.raises(InputError, match=r"breaks off at frame 0|not a video"):
        list(video.Source("x", data=data[begin + 10 * 188 :]))


@pytest.mark.skipif(os.name == "nt", reason="there are no such pipes")
def test_nothing_is_kept_in_a_pipe_that_nobody_reads(place):
    os.mkfifo("out")
    reader = os.open("out", os.O_RDONLY | os.O_NONBLOCK)
    file = video.Growing(Path("out"))
    file.write(b"some")
    os.close(reader)
    with pytest.raises(OutputError, match="out: cannot write: Broken pipe"):
        file.write(b"more")
    assert file.interrupt() == ""


# ── what changes on the way ──────────────────────────────────────────────────────────────────


def joined(name, *sizes):
    """Six frames of each size, one behind the other."""
    with open(name, "wb") as out:
        for width, height in sizes:
            with av.open("part.h264", "w") as part:
                stream = part.add_stream("libx264", rate=10)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                for number in range(6):
                    grey = np.full((height, width, 3), 40 * number, np.uint8)
                    part.mux(stream.encode(av.VideoFrame.from_ndarray(grey)))
                part.mux(stream.encode(None))
            out.write(Path("part.h264").read_bytes())


def test_a_stream_that_heeds_its_network_keeps_the_size_of_its_first_frame(place):
    joined("x.h264", (128, 72), (86, 48), (128, 72))
    assert [frame.shape for frame in video.Source("x.h264")] == [(72, 128, 3)] * 18
    joined("x.h264", (86, 48), (128, 72))
    assert [frame.shape for frame in video.Source("x.h264")] == [(48, 86, 3)] * 12


def test_a_frame_of_other_proportions_is_named_with_its_file(place, capsys):
    joined("x.h264", (64, 48), (96, 48))
    assert cli.main(["encode", "x.h264"]) == 2
    assert capsys.readouterr().err == "sempic: x.h264: frame 6 is 96×48, and the first was 64×48\n"


# ── what else is in a file ───────────────────────────────────────────────────────────────────


def with_cover(name, *, moving):
    """A file whose first picture is that of its cover; moving: and then a video of six frames."""
    with av.open(name, "w") as out:
        cover = out.add_stream("mjpeg", rate=10)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        film = out.add_stream("libx264", rate=10) if moving else out.add_stream("aac", rate=44100)
        if moving:
            film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        out.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * number, np.uint8))
            if not moving:
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                frame.sample_rate, frame.pts = 44100, 1024 * number
            out.mux(film.encode(frame))
        out.mux(film.encode(None))


def test_a_cover_is_no_video(place):
    with_cover("x.mp4", moving=True)
    assert numbers(video.Source("x.mp4")) == list(range(6))
    with_cover("x.mp4", moving=False)
    with pytest.raises(InputError, match="there is no video in it"):
        video.Source("x.mp4")


def test_further_videos_in_a_file_are_said(place):
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


def test_transparency_is_laid_over_white(place):
    """As in single pictures."""
    clear = np.full((48, 64, 4), 90, np.uint8)
    for alpha, told in ((255, False), (0, True)):
        clear[..., 3] = alpha
        with av.open("x.mov", "w") as out:
            stream = out.add_stream("qtrle", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "argb"
            out.mux(stream.encode(av.VideoFrame.from_ndarray(clear, "rgba")))
            out.mux(stream.encode(None))
        said = pytest.warns(SempicWarning, match="over white") if told else contextlib.nullcontext()
        with said:
            (frame,) = video.Source("x.mov")
        assert (frame == (255 if told else 90)).all()


def test_what_is_to_be_said_of_a_camera_is_said_once_and_before_it_ends(place, monkeypatch, capsys):
    with av.open("x.mov", "w") as out:
        stream = out.add_stream("qtrle", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "argb"
        for picture, _ in drive(6):
            clear = np.dstack([picture, np.full((48, 64), 200, np.uint8)])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(clear, "rgba")))
        out.mux(stream.encode(None))
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
    with noting() as record:
        assert len(list(video.Source("x.mov"))) == 6
    assert len(record["notes"]) == 1


@pytest.mark.parametrize("curve", [16, 18])
def test_high_dynamic_range_is_said(place, curve):
    with av.open("x.mkv", "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        stream.codec_context.color_trc = curve
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))))
        out.mux(stream.encode(None))
    with pytest.warns(SempicWarning, match="high dynamic range"):
        assert len(list(video.Source("x.mkv"))) == 1


def test_moving_pictures_are_videos_if_asked_for(place):
    with av.open("x.gif", "w") as out:
        stream = out.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb8"
        for picture, _ in drive(6):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        out.mux(stream.encode(None))
    assert cli.main(["encode", "x.gif", "--sequence", "-o", "x.sempic"]) == 0
    assert sequence.info(Path("x.sempic").read_bytes())["frames"] == 6


# ── what is left of a decoder ────────────────────────────────────────────────────────────────


def test_a_decoder_that_is_killed_leaves_a_file_that_one_knows(place):
    """Under the name of what it was to be; and the next one takes no notice of it."""
    (place / "x.mp4").write_bytes(b"a good file")
    film = video.Video(place / "x.mp4", Fraction(10))
    for picture, _ in drive(6):
        film.add(picture)
    assert {path.name for path in place.iterdir()} == {"x.mp4", "x.mp4.part"}
    again = video.Video(place / "x.mp4", Fraction(10))
    for picture, _ in drive(3):
        again.add(picture)
    again.close(keep=True)
    assert len(list(video.Source("x.mp4"))) == 3
    assert {path.name for path in place.iterdir()} == {"x.mp4", "x.mp4.part"}
    film.close(keep=False)
