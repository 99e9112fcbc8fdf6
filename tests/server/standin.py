"""A server with stand-ins for the networks, for the tests of this folder."""

from __future__ import annotations

import contextlib
import functools
import io
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import uvicorn
from conftest import street
from fakecoder import FakeCoder
from videos import panned, write_frames

from sempic import coarse, codec
from sempic.server.app import Server, create_app
from sempic.server.pool import Pool
from sempic.server.settings import Settings

IMAGE, LABELS = street(48, 64)


def settings(**changes) -> Settings:
    return Settings(**{"workers": 1, "queue": 8, "max_pixels": 1 << 16, **changes})


def pool(make=FakeCoder, *, workers=1, queue=8, seconds=60.0) -> Pool:
    return Pool(make, workers=workers, queue=queue, seconds=seconds)


def png(image=IMAGE) -> bytes:
    out = io.BytesIO()
    PIL.Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def clip(width=64, height=48, count=10, step=2) -> bytes:
    """An MP4 of ten frames a second, lossless: otherwise what x264 makes can vary a little."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        frames = panned(height, width, step=step, count=count)
        write_frames(path, frames, options={"qp": "0"})
        return path.read_bytes()


def stream(labels=LABELS, image=IMAGE) -> bytes:
    payload = None if image is None else coarse.encode(coarse.downscale(image, 4))
    height, width = (labels if image is None else image).shape[:2]
    return codec.pack(width=width, height=height, labels=labels, coarse=payload)


def pixels(picture: bytes) -> np.ndarray:
    return np.array(PIL.Image.open(io.BytesIO(picture)))


def refused(answer, status, error, *parts):
    """Checks that an answer is a problem of this kind whose message has all `parts`."""
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert problem["error"] == error
    assert problem["request"] == answer.headers["X-Request-ID"]
    for part in parts:
        assert part in problem["message"]
    return problem


@contextlib.contextmanager
def live(coder=FakeCoder, **changes) -> Iterator[str]:
    """The address of a server that runs in a thread."""
    s = settings(queue=32, **changes)
    workers = pool(functools.partial(coder, max_pixels=s.max_pixels), queue=s.queue)
    app = create_app(s, workers)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                time.sleep(0.02)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(60)
