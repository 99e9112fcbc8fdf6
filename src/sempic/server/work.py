"""The work behind the server: what a worker process does, and the bounded pool of them.

Processes, not threads: the label coder holds Python's lock, a job that takes too long can only be
stopped by ending its process, and a native decoder that crashed on a hostile file would take
the server with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import itertools
import logging
import math
import multiprocessing
import os
import signal
import time
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import PIL.Image

from sempic import (
    api,
    coarse,
    codec,
    container,
    pictures,
    processes,
    progress,
    sequence,
    texture,
)
from sempic.batch.work import noting, part_of
from sempic.container import SEQUENCE_MAGIC
from sempic.errors import (
    ImageError,
    InputError,
    LimitExceeded,
    RateError,
    SempicError,
    SempicWarning,
)
from sempic.palette import PALETTES
from sempic.scene import Image
from sempic.sequence.painter import Painter
from sempic.sequence.video import Source

log = logging.getLogger("sempic.server")

SHRINK = 8
"""A picture that is scaled down before it is coded may have this many times `max_pixels`."""

PLAYED = 16
"""The frames of a sequence may have this many times `max_pixels`, all of them together."""

FORMATS = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
"""Of pictures that are answered, with the suffix that `sempic.pictures` knows them by."""
MOVING = {"png": "PNG", "webp": "WEBP"}
"""Those of them that play, and Pillow's names."""


class Busy(Exception):
    """No worker was free in time."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """In seconds."""


class QueueFull(Busy):
    """No place in the queue."""


class TooSlow(Exception):
    """The job was stopped at its time limit."""


class Broken(Exception):
    """The worker failed in a way that is no error of ours; the log knows more."""


class Gone(Exception):
    """Whoever asked hung up while the job waited."""


# ── what a worker does ───────────────────────────────────────────────────────────────────────


class Coder:
    """The verbs of a worker: bytes in, bytes and some facts out. Models are loaded at once."""

    def __init__(
        self,
        *,
        segmenter: str | None = None,
        verifier: str | None = None,
        receiver: str | None = None,
        max_pixels: int = 1 << 22,
        threads: int = 1,
    ) -> None:
        """Raises ModelError if a model cannot be loaded."""
        os.environ["SEMPIC_THREADS"] = str(threads)  # before ONNX Runtime starts its own
        self._codec = api.Codec(segmenter=segmenter, receiver=receiver, verifier=verifier)
        self._max_pixels = max_pixels
        # Models load and the label coder is compiled now, not on somebody's first request: with a
        # street, since nothing that is no street has a map to code.
        street = (Path(__file__).parent / "scenes/street.jpg").read_bytes()
        with noting():
            self._codec.decode(self._codec.encode(pictures.read(street), max_side=256), steps=1)
        codec.unpack(codec.pack(width=8, height=8, labels=np.eye(8, dtype=np.uint8)))

    def controls(self) -> list[str]:
        """Options of `Codec.synthesize` that this receiver heeds."""
        return sorted(self._codec.receiver.controls)

    def encode(
        self, picture: bytes, *, max_side: int | None = None, **options: Any
    ) -> tuple[bytes, list[str]]:
        """The .sempic stream of a picture file, and what is to be said of it (SempicWarning);
        options of `Codec.encode`."""
        with noting() as record:
            pixels = self._read(picture, max_side)
            stream = self._codec.encode(pixels, max_side=max_side, **options)
        return stream, record.get("notes", [])

    def film(
        self,
        clip: bytes,
        *,
        fps: float,
        seconds: float,
        max_side: int | None = None,
        **options: Any,
    ) -> tuple[bytes, list[str]]:
        """A clip's first seconds as a sequence, and what is to be said of it; options of
        `SequenceOptions`."""
        with noting() as record:
            source = Source(
                "the clip",
                data=clip,
                rate=sequence.as_rate(fps),
                max_side=max_side,
                max_pixels=self._max_pixels * (1 if max_side is None else SHRINK),
            )
            frames = itertools.islice(source, max(1, math.ceil(seconds * source.rate)))
            stream = b"".join(
                sequence.encode(
                    self._within(frames), rate=source.rate, codec=self._codec, **options
                )
            )
        if not stream:
            raise ImageError("a clip without frames")
        return stream, record.get("notes", [])

    def _within(self, frames: Iterable[Image]) -> Iterator[Image]:
        """The same; raises LimitExceeded where all of them are too many pixels."""
        left = self._max_pixels * PLAYED
        for frame in frames:
            if frame.shape[0] * frame.shape[1] > self._max_pixels:
                raise LimitExceeded(f"a frame of more than the limit of {self._max_pixels} pixels")
            left -= frame.shape[0] * frame.shape[1]
            if left < 0:
                raise LimitExceeded(
                    f"the frames have more than the limit of {self._max_pixels * PLAYED} pixels; "
                    "fewer seconds, or a smaller max_side"
                )
            yield frame

    def decode(
        self, stream: bytes, *, only: str | None, format: str, synthesis: dict[str, Any]
    ) -> tuple[bytes, list[str]]:
        """A picture file of what a stream decodes to, which plays if that is a sequence, and what
        is to be said of it; `synthesis` is for `Codec.synthesize`."""
        with noting() as record:
            if stream.startswith(SEQUENCE_MAGIC):
                picture = self._played(stream, only, format, synthesis)
            else:
                picture = self._decoded(stream, only, format, synthesis)
        return picture, record.get("notes", [])

    def _decoded(
        self, stream: bytes, only: str | None, format: str, synthesis: dict[str, Any]
    ) -> bytes:
        part: Any = "labels" if only == "ids" else only
        scene = codec.unpack(stream, only=part, max_pixels=self._max_pixels)
        if only == "ids" and scene.labels is not None:
            return pictures.encode(scene.labels, ".png")
        if part is not None:
            return part_of(scene, part, FORMATS[format])
        return pictures.encode(self._codec.synthesize(scene, **synthesis), FORMATS[format])

    def _played(
        self, stream: bytes, only: str | None, format: str, synthesis: dict[str, Any]
    ) -> bytes:
        """Frames that are lost show the last one."""
        if only == "ids" or format not in MOVING:
            raise InputError(f"a sequence is decoded to {' or '.join(MOVING)}, and not to ids")
        unpacker = sequence.Unpacker(max_pixels=self._max_pixels)
        painter = Painter(self._codec, **synthesis)

        def frames() -> Iterator[Image]:
            for moment in unpacker.feed(stream):
                scene = moment.scene
                if only == "labels":
                    if scene.labels is None:
                        yield np.zeros((scene.height, scene.width, 3), np.uint8)
                    else:
                        yield PALETTES[scene.palette].paint(scene.labels)
                elif only == "coarse":
                    yield api.preview(scene)
                else:
                    yield painter.paint(moment)

        shown = list(self._within(frames()))
        unpacker.close()
        assert unpacker.head is not None
        told = {"quality": 85, "method": 1} if format == "webp" else {}
        return pictures.animation(shown, float(unpacker.head.rate), MOVING[format], **told)

    def relabel(self, stream: bytes, labels: bytes) -> bytes:
        """The stream with another label map; the coarse payload stays as it is."""
        c = container.read(stream, max_pixels=self._max_pixels)
        palette = PALETTES[c.palette]
        given = palette.settle(pictures.read_labels(labels, palette))
        return codec.pack(
            width=c.width,
            height=c.height,
            labels=codec.repeated(given[::2, ::2], 2, given.shape) if c.halved else given,
            coarse=c.coarse,
            coarse_codec=coarse.BY_CHUNK[c.coarse_type].name,
            palette=c.palette,
            model=c.model,
            halved=c.halved,
            texture=None if c.texture is None else texture.read(c.texture),
        )

    def compare(
        self, picture: bytes, *, codec: str, budget: int, max_side: int | None
    ) -> tuple[bytes, int]:
        """What another codec makes of a picture in at most `budget` bytes, and by how much it was
        scaled down for that; see `best_within`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SempicWarning)  # /encode has said it
            pixels = self._read(picture, max_side)
        if max_side is not None:
            pixels, _ = pictures.shrink(pixels, None, max_side)
        return best_within(pixels, codec, budget)

    def _read(self, data: bytes, max_side: int | None) -> Image:
        width, height = pictures.peek(data)
        limit = self._max_pixels * (1 if max_side is None else SHRINK)
        if width * height > limit:
            hint = "; max_side takes larger ones" if max_side is None else ""
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
    """The file of another codec, "avif" or "jpeg", of at most `budget` bytes that comes closest.

    Returns the file and the factor by which the picture was scaled down before it was coded: 1,
    2, 4 or 8. Of each factor the best quality that fits is tried, and the best PSNR of them wins,
    enlarged again by bicubic filtering.

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
        except OSError:  # some codecs write sides that they do not read
            continue
        error = float(np.mean((np.asarray(back, np.float32) - pixels) ** 2))
        if best is None or error < best[0]:
            best = error, data, factor
    if best is None:
        raise RateError(f"{codec.upper()} does not fit into {budget} bytes at any size")
    return best[1], best[2]


def _best_quality(picture: PIL.Image.Image, codec: str, budget: int) -> bytes | None:
    """The file of the highest quality that fits, by bisection; None if the lowest does not, or
    the codec has no pictures of this size."""

    def coded(quality: int) -> bytes:
        out = io.BytesIO()
        options = {"optimize": True} if codec == "jpeg" else {"speed": 6, "max_threads": 1}
        picture.save(out, codec.upper(), quality=quality, subsampling="4:2:0", **options)
        return out.getvalue()

    low, high = 0, 96  # low fits, high does not
    try:
        best = coded(low)
    except (OSError, ValueError):  # a side that this codec does not have
        return None
    if len(best) > budget:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        data = coded(middle)
        if len(data) <= budget:
            low, best = middle, data
        else:
            high = middle
    return best


# ── the pool ─────────────────────────────────────────────────────────────────────────────────


class Verbs(Protocol):
    """Anything whose methods a worker can call; `Coder`, or what a test puts in its place."""


@dataclass(frozen=True, slots=True)
class Done:
    """An answer of a worker."""

    value: Any
    waited: float
    """Seconds in the queue."""
    worked: float
    """Seconds in the worker."""


class Pool:
    """Worker processes behind a bounded queue, first come, first served."""

    def __init__(
        self, make: Callable[[], Verbs], *, workers: int, queue: int, seconds: float
    ) -> None:
        """
        Args:
            make: run once in each worker, so it must pickle; what it returns has the verbs.
            workers: processes, each of which does one job at a time.
            queue: jobs that may wait for one.
            seconds: limit of a job, waiting included.
        """
        self._make = make
        self._count, self._places, self._seconds = workers, workers + queue, seconds
        self._workers: set[_Worker] = set()
        self._free: asyncio.Queue[_Worker] = asyncio.Queue()
        self._threads = ThreadPoolExecutor(2 * workers, "sempic-worker")
        self._replacing: set[asyncio.Task[None]] = set()
        self._mean = 1.0  # seconds of a job, recent ones counting most
        self.accepted = 0
        """Jobs that wait or run."""
        self.running = 0
        self.replaced = 0
        """Workers that had to be ended, since the start."""

    async def start(self) -> None:
        """Returns when all workers are ready, at once if they are; raises SempicError or Broken if
        one of them cannot be."""
        if self._workers:
            return
        self._free = asyncio.Queue()
        try:
            # The first compiles what is not on disk yet; the others find it there.
            await self._add()
            await asyncio.gather(*(self._add() for _ in range(self._count - 1)))
        except BaseException:
            self.kill()
            raise

    async def run(
        self,
        verb: str,
        *args: Any,
        gone: Callable[[], Awaitable[bool]] | None = None,
        **kwargs: Any,
    ) -> Done:
        """The answer of a worker's verb.

        `gone` is asked when the job's turn comes; a job that nobody waits for is not done.

        Raises SempicError as the verb does; QueueFull, Busy, TooSlow, Broken or Gone.
        """
        if self.accepted >= self._places:
            raise QueueFull(f"all {self._places} places are taken", self._retry_after())
        self.accepted += 1
        start = time.perf_counter()
        try:
            try:
                worker = await asyncio.wait_for(self._alive(), self._seconds)
            except asyncio.TimeoutError:
                message = f"no worker was free within {self._seconds:g} s"
                raise Busy(message, self._retry_after()) from None
            waited = time.perf_counter() - start
            if gone is not None and await gone():
                self._free.put_nowait(worker)
                raise Gone
            return await self._work(worker, (verb, args, kwargs), waited)
        finally:
            self.accepted -= 1

    async def _alive(self) -> _Worker:
        """The next free worker; those that died while they waited are replaced."""
        while not (worker := await self._free.get()).process.is_alive():
            self._discard(worker)
        return worker

    async def _work(self, worker: _Worker, job: Any, waited: float) -> Done:
        self.running += 1
        start = time.perf_counter()
        try:
            call = functools.partial(worker.call, job, max(0.0, self._seconds - waited))
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except BaseException as error:  # cut off in the middle: this worker is of no more use
            self._discard(worker)
            if isinstance(error, TooSlow):
                raise TooSlow(f"stopped after {self._seconds:g} s, the limit of a job") from None
            raise
        finally:
            self.running -= 1
        self._free.put_nowait(worker)
        worked = time.perf_counter() - start
        self._mean += 0.1 * (worked - self._mean)
        if isinstance(answer, SempicError):
            raise answer
        if isinstance(answer, Failure):
            log.error("a job failed", extra={"fields": {"verb": job[0], "cause": answer.trace}})
            raise Broken("an internal error")
        return Done(answer, waited, worked)

    def kill(self) -> None:
        """Ends all workers at once; there is no run after that."""
        for task in self._replacing:
            task.cancel()
        for worker in list(self._workers):
            worker.kill()
        self._workers.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _add(self) -> None:
        worker = _Worker(self._make)
        self._workers.add(worker)
        loop = asyncio.get_running_loop()
        fault = await loop.run_in_executor(self._threads, worker.ready)
        if fault is not None:
            self._workers.discard(worker)
            worker.kill()
            raise fault
        self._free.put_nowait(worker)

    def _discard(self, worker: _Worker) -> None:
        self._workers.discard(worker)
        worker.kill()
        self.replaced += 1
        log.warning("a worker is replaced", extra={"fields": {"pid": worker.process.pid}})
        task = asyncio.get_running_loop().create_task(self._replace())
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _replace(self) -> None:
        """A new worker in place of one that ended, however often it must be tried."""
        for pause in itertools.chain((0, 1, 5), itertools.repeat(30)):
            await asyncio.sleep(pause)
            try:
                return await self._add()
            except (SempicError, Broken) as fault:
                log.error("a worker cannot be replaced", extra={"fields": {"cause": str(fault)}})

    def _retry_after(self) -> int:
        return min(60, max(1, math.ceil(self._mean * self.accepted / self._count)))


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception in a worker that is none of ours."""

    trace: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What a worker says while it starts."""

    text: str


class _Worker:
    """The parent's end of one process. Methods block; they are called in threads."""

    def __init__(self, make: Callable[[], Verbs]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make), daemon=True)
        with processes.signals_held():  # Ctrl-C while it starts is for the parent, which ends it
            self.process.start()
        theirs.close()

    def ready(self) -> SempicError | Broken | None:
        """Waits for the process to be ready; what went wrong if it cannot be."""
        try:
            while isinstance(fault := self._pipe.recv(), Notice):
                log.info(fault.text)
        except (EOFError, OSError):
            return Broken("a worker process ended while it started")
        if isinstance(fault, Failure):
            last = fault.trace.strip().splitlines()[-1]
            return Broken(f"a worker process cannot start: {last}")
        assert fault is None or isinstance(fault, SempicError)
        return fault

    def call(self, job: Any, seconds: float) -> Any:
        """Raises TooSlow after `seconds`, Broken if the process dies."""
        try:
            self._pipe.send(job)
            if not self._pipe.poll(seconds):
                raise TooSlow
            return self._pipe.recv()
        except (EOFError, OSError):
            raise Broken("the worker process died") from None

    def kill(self) -> None:
        self.process.kill()
        self.process.join(5)


def _serve(pipe: Connection, make: Callable[[], Verbs]) -> None:
    """The life of a worker process: until the pipe closes."""
    # Ctrl-C and a service manager signal the whole group, but accepted work is to be finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    processes.watch_parent()
    try:
        with progress.shown(lambda text: pipe.send(Notice(text))):
            verbs = make()
    except BaseException as error:
        pipe.send(error if isinstance(error, SempicError) else Failure(traceback.format_exc()))
        return
    pipe.send(None)
    with contextlib.suppress(EOFError, OSError):  # the server has gone
        while True:
            verb, args, kwargs = pipe.recv()
            answer: Any
            try:
                answer = getattr(verbs, verb)(*args, **kwargs)
            except SempicError as error:
                answer = error
            except MemoryError:
                answer = ImageError("not enough memory for this")
            except Exception:
                answer = Failure(traceback.format_exc())
            pipe.send(answer)
