"""A coder for the tests' workers: quick stand-ins for the networks, and jobs that fail.

A module of its own without pytest and FastAPI, because each worker process imports it.
"""

from __future__ import annotations

import functools
import io
import os
import time

import numpy as np
import PIL.Image

import sempic
from sempic import api, check
from sempic.errors import InputError, RateError
from sempic.palette import CAMVID
from sempic.server.coder import Coder


def segment(image):
    """Sky above, road below."""
    labels = np.zeros(image.shape[:2], np.uint8)
    labels[labels.shape[0] // 2 :] = 3
    return labels


def receive(scene, *, steps=4, seed=0):
    """The labels in the red channel, steps and seed in the others."""
    picture = np.zeros((scene.height, scene.width, 3), np.uint8)
    if scene.labels is not None:
        picture[..., 0] = scene.labels
    picture[..., 1], picture[..., 2] = steps, seed
    return picture


def see(image):
    """The map of a verifier: signs are blue, and what is painted in the lower left corner, where a
    photograph is lighter, looks like a car."""
    labels, corner = segment(image), np.s_[-(image.shape[0] // 4) :, : image.shape[1] // 4]
    r, g, b = (image[..., i].astype(int) for i in range(3))
    labels[b - np.maximum(r, g) > 120] = 6
    if image[corner].mean() < 9:
        labels[corner] = 8
    return labels


class FakeCoder(Coder):
    def __init__(
        self, max_pixels: int = 1 << 16, until: str | None = None, prior: str | None = None
    ) -> None:
        self._codec = api.Codec(
            segment,
            receive,
            check.Verifier(
                predict=lambda image: (see(image), None), palette=CAMVID.id, digest="0badcafe"
            ),
            prior,
        )
        self._max_pixels = max_pixels
        self._until = until
        # The page asks for the same comparisons at each visit, and AVIF takes seconds.
        self.compare = functools.cache(self.compare)

    def decode(self, *args, **kwargs) -> bytes:
        if self._until:
            self.wait(self._until)
        return super().decode(*args, **kwargs)

    def wait(self, path, value=None):
        """The value, when there is a file at the path."""
        while not os.path.exists(path):
            time.sleep(0.01)
        return value

    def echo(self, value, seconds=0.0):
        time.sleep(seconds)
        return value

    def refuse(self):
        raise InputError("not this")

    def fail(self):
        raise ZeroDivisionError("a bug")

    def die(self):
        os._exit(3)


class Remembering(FakeCoder):
    """For the page, which shows the same scene at each visit: codes and decodes it once.

    The notes come once, too. Other codecs code an eighth of the picture at their lowest quality,
    without the search for the best, which takes seconds.
    """

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.encode = functools.cache(self.encode)
        self._known: dict[tuple, bytes] = {}

    def decode(self, stream: bytes, *, synthesis: dict, **kwargs) -> bytes:
        key = stream, *sorted(synthesis.items()), *sorted(kwargs.items())
        if key not in self._known:
            self._known[key] = super().decode(stream, synthesis=synthesis, **kwargs)
        return self._known[key]

    def compare(self, picture, *, codec, budget, max_side) -> tuple[bytes, int]:
        out = io.BytesIO()
        PIL.Image.fromarray(self._read(picture, max_side)[::8, ::8]).save(out, codec, quality=0)
        if len(out.getvalue()) > budget:
            raise RateError(f"more than {budget} bytes")
        return out.getvalue(), 8


class Unfit:
    def __init__(self) -> None:
        raise sempic.ModelError("no such model")
