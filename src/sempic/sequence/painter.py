"""Moments → pictures that agree with each other: detail stays where the scene stays.

The receiver invents detail, and each frame anew. So what it painted last is moved along with the
scene, laid over the present coarse picture, and kept as far as the labels agree and the coarse
picture bears it out; elsewhere, where something new appears, the new picture stands alone.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image

from sempic import api, checks, halving
from sempic.scene import Image, Scene
from sempic.sequence.pack import Expected, Moment, Unpacker

_Floats = npt.NDArray[np.float32]

KEPT = 0.55
"""The share of detail that is kept where nothing speaks against it."""
_NOISE = 300.0
"""Square of the change of a coarse sample that counts half."""
_TRUST = np.array((1.0, 1.0, 0.75, 0.25, 0.0, 0.0), np.float32)
"""Of that, by the hint."""
_RENAMED = 0.5
"""And where the label is another than the one that moved there, in a scene that is the same: a
sender may have come to another mind about what it shows."""
_SAME_SCENE = 0.5
"""How much of a picture bears the last one out if the scene is still the same."""


class _Painted(NamedTuple):
    scene: Scene
    picture: Image
    base: _Floats
    """The coarse picture at its size, as it is shown."""
    detail: _Floats
    """What the picture is more than that."""


class Painter:
    """Paints the moments of one sequence."""

    def __init__(self, coder: api.Codec, *, kept: float = KEPT, **controls: Any) -> None:
        """controls: of `Codec.synthesize`. kept: share of the last picture's detail."""
        self._coder, self._controls = coder, controls
        self._share = checks.number("kept", kept, 0, 1)
        self._last: _Painted | None = None

    def paint(self, moment: Moment) -> Image:
        """uint8 (height, width, 3)."""
        scene, last = moment.scene, self._last
        if last is not None and _same(last.scene, scene):
            return last.picture
        small = scene.half() if scene.halved else scene
        fresh = self._coder.synthesize(small, **self._controls).astype(np.float32)
        base = api.preview(small).astype(np.float32)
        detail = fresh - base
        if last is not None and (share := self._agreement(small, moment.expected)) is not None:
            assert moment.expected.places is not None
            shares = share[..., None]
            before = _moved(last.base, moment.expected.places)
            change = base - before
            # What is smaller than quantisation makes it is mostly that, and seen as flicker.
            base -= shares * change * (_NOISE / (_NOISE + change * change))
            detail += shares * (_moved(last.detail, moment.expected.places) - detail)
        picture = np.clip(np.rint(base + detail), 0, 255).astype(np.uint8)
        if scene.halved:
            picture = halving.doubled(picture)[: scene.height, : scene.width]
        self._last = _Painted(scene, picture, base, detail)
        return picture

    def _agreement(self, small: Scene, expected: Expected) -> _Floats | None:
        """How much of the last detail each pixel keeps, float32 (height, width)."""
        if self._last is None or expected.hint is None or not self._share:
            return None
        share: _Floats = self._share * _TRUST[expected.hint]
        labels = small.labels
        if labels is not None and expected.labels is not None:
            same_scene = (expected.hint == 0).mean() > _SAME_SCENE
            share[labels != expected.labels] *= _RENAMED if same_scene else 0
        return share


def _moved(picture: _Floats, places: npt.NDArray[np.int32]) -> _Floats:
    """A picture, (height, width, 3), moved along."""
    height, width, channels = picture.shape
    found: _Floats = picture.reshape(height * width, channels)[places]
    return found


def _same(a: Scene, b: Scene) -> bool:
    """Whether two scenes show the same."""
    if a.coarse is None or b.coarse is None:
        return False
    planes = a.coarse is b.coarse or all(
        np.array_equal(getattr(a.coarse, name), getattr(b.coarse, name))
        for name in ("y", "cb", "cr")
    )
    if a.labels is None or b.labels is None:
        return planes and a.labels is b.labels
    return planes and np.array_equal(a.labels, b.labels)


def decode(
    chunks: Any, *, codec: api.Codec | None = None, kept: float = KEPT, **controls: Any
) -> Any:
    """The pictures of a sequence, PIL images, each as soon as its bytes are there.

    Args:
        chunks: bytes, or an iterable of pieces of any size.
        codec: with a receiver; None: the bundled one.
        kept: the share of the last picture's detail that a picture keeps where the scene is the
            same, 0…1.
        controls: steps, seed, guidance, fidelity as of `sempic.decode`.

    A frame that is lost is shown as the last one, unless parity restores it: then it comes in
    its place, and those behind it wait so long. Raises a BitstreamError for what is no sequence.
    """
    unpacker = Unpacker()
    painter = Painter(api.codec_or_shared(codec), kept=kept, **controls)
    whole = isinstance(chunks, (bytes, bytearray, memoryview, str, os.PathLike))
    pieces = (chunks,) if whole else checks.several("chunks", chunks)
    for moment in unpacker.moments(map(checks.stream, pieces)):
        yield PIL.Image.fromarray(painter.paint(moment))
