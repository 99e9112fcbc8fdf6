"""Moments → pictures, consistent in time.

The receiver invents other detail for each frame. The painter moves the detail of the last picture
along with the scene, lays it over the present coarse picture, and keeps it where labels and coarse
picture agree with it. Where something new appears it shows the new detail alone.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image

from sempic import api, checks, coarse, halving, receive
from sempic.models import runtime
from sempic.scene import Image, Scene
from sempic.sequence.pack import Expected, Moment, Unpacker, middle

_Floats = npt.NDArray[np.float32]

_AT_ONCE = 4
"""The most pictures that are painted at a time: each takes memory."""
KEPT = 0.58
"""Share of the last detail that is kept where labels and coarse picture agree."""
_NOISE = 300.0
"""Square of a change of a coarse sample that counts half."""
_TRUST = np.array((1.0, 1.0, 0.75, 0.25, 0.0, 0.0), np.float32)
"""Factor of the kept share, by the hint of `Expected`."""
_RELABELLED = 0.5
"""Factor where the label differs from the expected one in the same scene: the segmenter may have
changed its mind."""
_SAME_SCENE, _OTHER_SCENE = 0.5, 0.2
"""The scene is the same if the hint is 0 in more than the first share of the picture, and another
in no more than the second. Nothing of another scene is kept: it would stay as long as the new one
is still."""


class _Painted(NamedTuple):
    scene: Scene
    picture: Image
    base: _Floats
    """The coarse picture, enlarged."""
    detail: _Floats
    """Picture less base."""


_Sketch = tuple[Scene, _Floats, _Floats]
"""What a scene shows by itself: the scene at the size at which it is painted, base and detail as of
`_Painted`."""


class Painter:
    """Paints the moments of one sequence."""

    def __init__(self, coder: api.Codec, *, kept: float = KEPT, **controls: Any) -> None:
        """controls: of `Codec.synthesize`. kept: share of the last detail that is kept, 0…1."""
        self._coder, self._controls = coder, controls
        self._share = checks.number("kept", kept, 0, 1)
        self._last: _Painted | None = None
        self._newest: Scene | None = None
        """The last scene that differed from the one before it."""

    def paint(self, moment: Moment) -> Image:
        """uint8 (height, width, 3)."""
        return self._finish(moment, self._sketch(moment.scene) if self._is_new(moment) else None)

    def paint_all(self, moments: Iterable[Moment | None]) -> Iterator[Image]:
        """The pictures of moments, in order; the same as of `paint`.

        The bundled kind of receiver paints as many at a time as there are cores (at most _AT_ONCE),
        and moments are read so far ahead. None: the next moment is not there yet; all pictures
        until here come before it is waited for.
        """
        count = runtime.at_once(_AT_ONCE)
        if count < 2 or not isinstance(self._coder.receiver, receive.Receiver):
            yield from (self.paint(moment) for moment in moments if moment is not None)
            return
        faults: list[Exception] = []
        begun: deque[tuple[Moment, Callable[[], _Sketch] | None]] = deque()
        arriving = itertools.chain([None], _until_fault(moments, faults), [None])
        with runtime.workers(count) as begin:
            for moment, following in itertools.pairwise(arriving):
                if moment is not None and (self._last is None or (following is None and not begun)):
                    yield self.paint(moment)  # alone, on all cores
                elif moment is not None:
                    sketch = functools.partial(self._sketch, moment.scene)
                    begun.append((moment, begin(sketch) if self._is_new(moment) else None))
                while begun and (following is None or len(begun) > count):
                    first, result = begun.popleft()
                    yield self._finish(first, None if result is None else result())
        if faults:
            raise faults[0]

    def _is_new(self, moment: Moment) -> bool:
        """Whether a moment shows something else than the moment before it."""
        if self._newest is not None and _same(self._newest, moment.scene):
            return False
        self._newest = moment.scene
        return True

    def _sketch(self, scene: Scene) -> _Sketch:
        small = scene.half() if scene.halved else scene
        fresh = self._coder.synthesize(small, **self._controls).astype(np.float32)
        base = api.preview(small).astype(np.float32)
        return small, base, fresh - base

    def _finish(self, moment: Moment, sketch: _Sketch | None) -> Image:
        """The picture of a moment; sketch: None if it shows the same as the last one."""
        scene, last = moment.scene, self._last
        if sketch is None:
            assert last is not None
            return last.picture
        small, base, detail = sketch
        if last is not None and last.scene.halved != scene.halved:
            last = _at_other_size(last)
        if last is not None and (share := self._agreement(small, moment.expected)) is not None:
            assert moment.expected.places is not None
            shares = share[..., None]
            if _same_light(last.scene, scene):
                change = base - _moved(last.base, moment.expected.places)
                # Changes within the noise of quantisation would flicker.
                base -= shares * change * (_NOISE / (_NOISE + change * change))
            detail += shares * (_moved(last.detail, moment.expected.places) - detail)
        picture: Image = np.clip(np.rint(base + detail), 0, 255).astype(np.uint8)
        if scene.halved:
            picture = halving.enlarged(picture)[: scene.height, : scene.width]
        self._last = _Painted(scene, picture, base, detail)
        return picture

    def _agreement(self, small: Scene, expected: Expected) -> _Floats | None:
        """Share of the last detail that each pixel keeps, float32 (height, width); None: none."""
        hint, labels = expected.hint, small.labels
        if hint is None or not self._share or (agreeing := (hint == 0).mean()) <= _OTHER_SCENE:
            return None
        share: _Floats = self._share * _TRUST[hint]
        if labels is not None and expected.labels is not None:
            share[labels != expected.labels] *= _RELABELLED if agreeing > _SAME_SCENE else 0
        return share


def _at_other_size(last: _Painted) -> _Painted:
    """A painted picture as if it had been painted at half its size, or at its whole size if it was
    painted at half."""
    if last.scene.halved:
        scene, picture = last.scene, last.picture
    else:
        scene, picture = last.scene.half(), coarse.downscale(last.picture, 2)
    base = api.preview(scene).astype(np.float32)
    return last._replace(base=base, detail=picture - base)


def _moved(picture: _Floats, places: npt.NDArray[np.int32]) -> _Floats:
    """A picture, float32 (height, width, 3), moved along; places: of `motion.enlarge`."""
    return picture.reshape(-1, picture.shape[2])[places]


def _until_fault(
    moments: Iterable[Moment | None], faults: list[Exception]
) -> Iterator[Moment | None]:
    """The moments until an exception, which goes into `faults`: pictures before it come first."""
    try:
        yield from moments
    except Exception as fault:
        faults.append(fault)


def _same_light(a: Scene, b: Scene) -> bool:
    """Whether the exposure is the same. In a fade small changes add up: they are no noise."""
    if a.coarse is None or b.coarse is None:
        return False
    return not middle(b.coarse.y.astype(np.int16) - a.coarse.y)


def _same(a: Scene, b: Scene) -> bool:
    """Whether two scenes show the same."""
    if a.coarse is None or b.coarse is None:
        return False
    parts: Any = zip((*a.coarse.planes, a.labels), (*b.coarse.planes, b.labels), strict=True)
    return all(one is other or np.array_equal(one, other) for one, other in parts)


def decode(
    chunks: Any, *, codec: api.Codec | None = None, kept: float = KEPT, **controls: Any
) -> Any:
    """The pictures of a sequence, PIL images, each as soon as its bytes arrive.

    Args:
        chunks: bytes, or an iterable of pieces of any size.
        codec: with a receiver; None: the bundled one.
        kept: share of the last picture's detail that a picture keeps where the scene is the
            same, 0…1.
        controls: steps, seed, guidance, fidelity as of `sempic.decode`.

    For a lost frame the last picture is repeated. If parity may restore the frame, the frames after
    it wait. Bytes, and lists of pieces, are all there, so several frames are painted at a time.
    Raises a BitstreamError for data that is no sequence.
    """
    unpacker = Unpacker()
    painter = Painter(api.codec_or_shared(codec), kept=kept, **controls)
    if isinstance(chunks, (bytes, bytearray, memoryview, str, os.PathLike)):
        chunks = [chunks]
    moments = unpacker.moments(map(checks.stream, checks.several("chunks", chunks)))
    whole = isinstance(chunks, (list, tuple))
    for picture in painter.paint_all(moments) if whole else map(painter.paint, moments):
        yield PIL.Image.fromarray(picture)
