"""Videos and servers of videos."""

import contextlib
import http.server
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from scenes import drive

from sempic import pictures

FRAMES = [picture for picture, _ in drive(6)]


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
                part = pictures.encode(np.full((48, 64, 3), 8 * number, np.uint8), ".jpg")
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


def numbered(name, count, *, times=None, format=None, codec="libx264", rate=10, **of_stream):
    """A video whose frames encode their number as grey; times: in milliseconds."""
    with av.open(name, "w", format=format) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for key, value in of_stream.items():
            setattr(stream.codec_context, key, value)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * number, np.uint8))
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def numbers(source):
    return [round(frame.mean() / 8) for frame in source]
