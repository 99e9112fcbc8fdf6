"""The verbs of the server's workers: bytes in, bytes out."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import io
import itertools
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from sempic import api, coarse, codec, container, pictures, sequence
from sempic.batch.work import part_of
from sempic.container import SEQUENCE_MAGIC
from sempic.critical import FoundObject
from sempic.errors import ImageError, InputError, LimitExceeded, RateError, noting, warn
from sempic.options import Models
from sempic.palette import PALETTES
from sempic.scene import Image, Scene, half_map
from sempic.sequence.painter import Painter
from sempic.sequence.summary import damage
from sempic.sequence.video import Source

SHRINK = 8
"""Limit of a picture that `max_side` scales down, as a multiple of `max_pixels`."""

PLAYED = 16
"""Limit of all frames of a sequence together, as a multiple of `max_pixels`."""

MOVING = ("png", "webp")
"""Formats of decoded sequences."""


class Coder:
    """The verbs of a worker. Notes to the client are warnings (SempicWarning)."""

    def __init__(self, models: Models, *, max_pixels: int, threads: int) -> None:
        """Load the models. Raises ModelError."""
        os.environ["SEMPIC_THREADS"] = str(threads)  # before ONNX Runtime starts threads
        self._codec = api.Codec(**models.keywords())
        self._max_pixels = max_pixels
        # Load models and compile the label coder now, not at the first request. The picture is a
        # street, because other pictures may be coded without a map.
        street = (Path(__file__).parent / "scenes/street.jpg").read_bytes()
        with noting():
            self._codec.decode(self._codec.encode(pictures.read(street), max_side=256), steps=1)
        codec.unpack(codec.pack(width=8, height=8, labels=np.eye(8, dtype=np.uint8)))

    def controls(self) -> list[str]:
        """Options of `Codec.synthesize` that the receiver supports."""
        return sorted(self._codec.receiver.controls)

    def encode(self, picture: bytes, *, max_side: int | None = None, **options: Any) -> bytes:
        """The stream of a picture file; options of `Codec.encode`."""
        pixels = self._read(picture, max_side)
        return self._codec.encode(pixels, max_side=max_side, **options)

    def film(
        self,
        clip: bytes,
        *,
        fps: float,
        seconds: float,
        max_side: int | None = None,
        **options: Any,
    ) -> bytes:
        """The first seconds of a clip as a sequence; options of `SequenceOptions`."""
        source = Source(
            "the clip",
            data=clip,
            rate=sequence.as_rate(fps),
            max_side=max_side,
            max_pixels=self._max_pixels * (1 if max_side is None else SHRINK),
        )
        frames = itertools.islice(source, max(1, math.ceil(seconds * source.rate)))
        packets = sequence.encode(
            self._limited(frames, "; fewer seconds, or a smaller max_side"),
            rate=source.rate,
            codec=self._codec,
            **options,
        )
        stream = b"".join(packets)
        if not stream:
            raise ImageError("a clip without frames")
        return stream

    def _limited(self, frames: Iterable[Image], remedy: str = "") -> Iterator[Image]:
        """The same frames; raises LimitExceeded at too many pixels in a frame or in all frames;
        remedy: what then helps."""
        left = self._max_pixels * PLAYED
        for frame in frames:
            if frame.shape[0] * frame.shape[1] > self._max_pixels:
                raise LimitExceeded(f"a frame of more than the limit of {self._max_pixels} pixels")
            left -= frame.shape[0] * frame.shape[1]
            if left < 0:
                raise LimitExceeded(
                    f"the frames have more than the limit of {self._max_pixels * PLAYED} pixels"
                    + remedy
                )
            yield frame

    def decode(
        self, stream: bytes, *, only: str | None, format: str, synthesis: dict[str, Any]
    ) -> bytes:
        """The decoded picture of a stream as a file, or the decoded sequence as an animation.

        only: "labels", "ids" or "coarse": just this part; synthesis: options of `Codec.synthesize`.
        """
        if stream.startswith(SEQUENCE_MAGIC):
            return self._animation(stream, only, format, synthesis)
        part: Any = "labels" if only == "ids" else only
        scene = codec.unpack(
            stream, only=part, max_pixels=self._max_pixels, prior=self._codec.prior
        )
        if only == "ids" and scene.labels is not None:
            return pictures.encode(scene.labels, ".png")
        if part is not None:
            return part_of(scene, part, f".{format}")
        return pictures.encode(self._codec.synthesize(scene, **synthesis), f".{format}")

    def _animation(
        self, stream: bytes, only: str | None, format: str, synthesis: dict[str, Any]
    ) -> bytes:
        """A decoded sequence; a lost frame repeats the frame before it."""
        if only == "ids" or format not in MOVING:
            raise InputError(f"a sequence is decoded to {' or '.join(MOVING)}, and not to ids")
        unpacker = sequence.Unpacker(max_pixels=self._max_pixels)
        painter = Painter(self._codec, **synthesis)

        def part(scene: Scene) -> Image:
            if only == "coarse":
                return api.preview(scene)
            if scene.labels is None:
                return np.zeros((scene.height, scene.width, 3), np.uint8)
            return PALETTES[scene.palette].paint(scene.labels)

        moments = unpacker.moments([stream])
        parts = (part(moment.scene) for moment in moments)
        decoded = list(self._limited(painter.paint_all(moments) if only is None else parts))
        assert unpacker.head is not None
        if found := damage(unpacker):
            warn(found)
        writer_options = {"quality": 85, "method": 1} if format == "webp" else {}
        rate = float(unpacker.head.rate)
        return pictures.animation(decoded, rate, format.upper(), **writer_options)

    @staticmethod
    def info(stream: bytes) -> dict[str, Any]:
        """What a stream or a sequence holds; no payload is decoded."""
        return (sequence.info if stream.startswith(SEQUENCE_MAGIC) else api.info)(stream)

    def relabel(self, stream: bytes, labels: bytes) -> bytes:
        """The stream with another label map; a receipt is dropped, as it is of the old map."""
        c = container.read(stream, max_pixels=self._max_pixels)
        palette = PALETTES[c.palette]
        new_map = palette.settle(pictures.read_labels(labels, palette))
        packed = codec.pack(
            width=c.width,
            height=c.height,
            labels=codec.repeated(half_map(new_map), 2, new_map.shape) if c.doubled else new_map,
            coarse=c.coarse,
            coarse_codec=coarse.BY_CHUNK[c.coarse_type].name,
            palette=c.palette,
            doubled=c.doubled,
            halved=c.halved,
            prior=self._codec.prior,
        )
        changed = container.read(packed).labels
        return container.write(
            dataclasses.replace(c, labels=changed, receipt=None, own_groups=False)
        )

    def objects(self, stream: bytes, original: bytes, **options: Any) -> list[FoundObject]:
        """The objects of a picture file that its stream keeps, loses and invents; options of
        `Codec.objects`."""
        c = container.read(stream, max_pixels=self._max_pixels)
        picture = self._read(original, max(c.width, c.height))
        return self._codec.objects(picture, stream, **options)

    def compare(
        self, picture: bytes, *, codec: str, budget: int, max_side: int | None
    ) -> tuple[bytes, int]:
        """A picture coded by another codec in at most `budget` bytes; see `best_within`."""
        with noting():  # left out, since /encode has reported the same
            pixels = self._read(picture, max_side)
        if max_side is not None:
            pixels, _ = pictures.shrink(pixels, None, max_side)
        return best_within(pixels, codec, budget)

    def _read(self, data: bytes, max_side: int | None) -> Image:
        width, height = pictures.peek(data)
        limit = self._max_pixels * (1 if max_side is None else SHRINK)
        if width * height > limit:
            fits = max_side is None and width * height <= limit * SHRINK
            hint = "; max_side takes larger ones" if fits else ""
            raise LimitExceeded(f"{width}×{height} is more than the limit of {limit} pixels{hint}")
        if max_side is not None and width * height > self._max_pixels:
            scale = min(1, max_side / max(width, height))
            if width * height * scale**2 > self._max_pixels:
                raise LimitExceeded(
                    f"{width}×{height} with max_side {max_side} is more than the limit of "
                    f"{self._max_pixels} pixels"
                )
        return pictures.read(data)


def best_within(pixels: Image, codec: str, budget: int) -> tuple[bytes, int]:
    """The file of another codec ("avif" or "jpeg") with the best PSNR in at most `budget` bytes.

    The picture is scaled down by 1, 2, 4 and 8, coded at the highest quality that fits, and
    enlarged again (bicubic). Returns the best file and its factor.

    Raises RateError if nothing fits.
    """
    source = PIL.Image.fromarray(pixels)
    best: tuple[float, bytes, int] | None = None
    for factor in (1, 2, 4, 8):
        size = max(1, source.width // factor), max(1, source.height // factor)
        small = source if factor == 1 else source.resize(size, PIL.Image.Resampling.BICUBIC)
        data = _best_quality(small, codec, budget)
        if data is None:
            continue
        try:
            with PIL.Image.open(io.BytesIO(data), formats=[codec.upper()]) as decoded:
                back = decoded.convert("RGB").resize(source.size, PIL.Image.Resampling.BICUBIC)
        except OSError:  # some codecs cannot read all sizes that they write
            continue
        error = float(np.mean((np.asarray(back, np.float32) - pixels) ** 2))
        if best is None or error < best[0]:
            best = error, data, factor
    if best is None:
        raise RateError(f"{codec.upper()} does not fit into {budget} bytes at any size")
    return best[1], best[2]


def _best_quality(picture: PIL.Image.Image, codec: str, budget: int) -> bytes | None:
    """The file of the highest quality that fits, by bisection; None if the lowest quality does not
    fit or the codec does not support the size."""

    @functools.cache
    def coded(quality: int) -> bytes:
        options = {"optimize": True} if codec == "jpeg" else {"speed": 6, "max_threads": 1}
        return pictures.saved(
            picture, codec.upper(), quality=quality, subsampling="4:2:0", **options
        )

    try:
        fit = bisect.bisect_right(range(96), budget, key=lambda quality: len(coded(quality)))
    except (OSError, ValueError):  # unsupported size
        return None
    return coded(fit - 1) if fit else None
