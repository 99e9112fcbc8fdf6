"""Videos and servers of videos."""

import contextlib
import http.server
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from conftest import street
from scenes import drive

from sempic import pictures
from sempic.sequence.video import Video

FRAMES = [picture for picture, _ in drive(6)]


def write_video(path, frames):
    """Write a video of ten frames a second, as the decoder does."""
    video = Video(path, Fraction(10))
    for frame in frames:
        video.add(frame)
    video.close(keep=True)


def panned(height, width, *, step, count):
    """Frames of a camera that moves `step` pixels to the right from one to the next."""
    picture = street(height, width + step * count)[0]
    return [picture[:, left : left + width] for left in range(0, step * count, step)]


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
    """The address of a server that sends data, then ends the connection or stalls.

    length: announced bytes beyond the data; None announces no length.
    """
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


@contextlib.contextmanager
def camera(count, pause):
    """The address of an MJPEG camera; the grey of each picture encodes its number."""

    class Camera(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            self.end_headers()
            for number in range(count):
                part = pictures.encode(grey(number), ".jpg")
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(part)}\r\n\r\n"
                self.wfile.write(head.encode() + part + b"\r\n")
                time.sleep(pause)

        log_message = lambda *_: None  # noqa: E731

    with serving(Camera) as address:
        yield f"{address}/video"


def noisy(name, count=20, last=1, **options):
    """A video of noise; last: duration of the last frame, in frames."""
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


def write_frames(name, frames, codec="libx264", *, pixels="yuv420p", rate=10, format=None, **of):
    """A video of pictures, RGB or RGBA, or frames of PyAV; of: attributes of the codec context."""
    frames = [
        frame
        if isinstance(frame, av.VideoFrame)
        else av.VideoFrame.from_ndarray(frame, "rgb24" if frame.shape[2] == 3 else "rgba")
        for frame in frames
    ]
    with av.open(str(name), "w", format=format) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, pixels
        for key, value in of.items():
            setattr(stream.codec_context, key, value)
        for frame in frames:
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def numbered(name, count, *, times=None, pix_fmt="yuv420p", **options):
    """A video whose frames encode their number as grey; times: in milliseconds."""
    frames = [av.VideoFrame.from_ndarray(grey(number)) for number in range(count)]
    if times:
        options["time_base"] = Fraction(1, 1000)
        for frame, time_ in zip(frames, times, strict=True):
            frame.pts, frame.time_base = time_, Fraction(1, 1000)
    write_frames(name, frames, pixels=pix_fmt, **options)


def grey(number):
    return np.full((48, 64, 3), 8 * number, np.uint8)


def numbers(source):
    return [round(frame.mean() / 8) for frame in source]
