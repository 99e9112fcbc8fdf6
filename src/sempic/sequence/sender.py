"""Pictures in time → bytes: what a sender decides, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from sempic import api, checks, coarse, pictures, texture
from sempic.coarse import moving
from sempic.errors import ImageError, warn
from sempic.options import DEFAULT_LABEL_QUALITY, LOSSLESS, QUALITY
from sempic.palette import PALETTES
from sempic.scene import Coarse, Image, LabelMap, Plane
from sempic.segment.guess import look
from sempic.sequence.keys import Keys, Role
from sempic.sequence.options import SequenceOptions
from sempic.sequence.pack import Expected, Packer, middle
from sempic.sequence.rate import Bucket
from sempic.sequence.stable import Stabiliser
from sempic.simplify import LEVELS
from sempic.texture import Texture

_CELL = 4
"""Side of the squares of coarse pixels that are looked at for change."""
_LOOKS = 3
"""How often labels are looked for in a second."""
_NOISE = 1.5
"""Mean difference of luma in such a square below which it is still."""
_PATCH = 8
"""Side of the squares of coarse pixels whose pattern is compared."""
_ALIKE = 0.5
"""Least correlation of a pattern with the one before that is the same, moved a little."""
_CUT = 0.6
"""Share of squares with another pattern from which on a frame has little to do with the last one:
0.68 or more of two streets, 0.48 or less of one street a second later
(docs/experiments/sequences.md)."""


class Sender:
    """The frames of one sequence, as they come → their packets."""

    def __init__(self, options: SequenceOptions, rate: Fraction, coder: api.Codec) -> None:
        self._options, self._rate, self._coder = options, rate, coder
        level = QUALITY[options.quality]
        self._factor, self._qp = level.factor, level.qp
        self._keys = Keys(rate, options.key_interval)
        self._bucket: Bucket | None = None
        if options.bitrate is not None:
            self._factor = 4
            self._bucket = Bucket(float(options.bitrate), float(rate), self._keys.interval)
        self._overflows = False
        """Whether its rate is not held."""
        self._packer: Packer | None = None
        self._trial: moving.Encoder | None = None
        self._stable: Stabiliser | None = None
        self._source: Coarse | None = None
        """The coarse picture that was coded last, as it was."""
        self._before: Plane | None = None
        """Luma of the last coarse picture, as it was."""
        self._every = options.segment_every or max(1, round(rate / _LOOKS))
        if options.segment_every is None and options.label_quality == LOSSLESS:
            self._every = 1
        self._labels_due = 0
        self._halved = False
        """Whether pictures are painted, and looked at, at half their size."""
        self._said: Texture = {}
        self._objection: str | None = None
        """To sending the last key frame's map."""

    def send(self, pixels: Image) -> bytes:
        """The packets of the next frame, uint8 (H, W, 3).

        Raises ImageError for one of another size than the first, and what finding labels raises.
        """
        planes = coarse.from_rgb(coarse.downscale(pixels, self._factor))
        packer = self._packer or self._begin(pixels)
        if pixels.shape[1::-1] != packer.size:
            raise ImageError(
                f"frame {packer.number} is {pixels.shape[1]}×{pixels.shape[0]}, and the first was "
                f"{packer.size[0]}×{packer.size[1]}"
            )
        role = self._role(planes)
        key, fine = role is Role.KEY, role is not Role.OTHER
        self._keys.saw(None if self._before is None else _still(self._before, planes.y))
        self._before = planes.y
        qp = self._precision(planes, fine=fine)
        still = not fine and self._is_still(planes, packer.last, qp)
        # Of a frame that stands still nobody looks at the pixels.
        small = coarse.downscale(pixels, 2) if self._halved and not still else pixels

        def labels(expected: Expected) -> LabelMap | None:
            return self._found(small, expected, key=key, still=still)

        def advice(labels: LabelMap | None) -> Texture:
            return {} if still else self._advice(small, labels, key=key)

        sent = packer.pack(None if still else planes, labels, advice=advice, qp=qp, key=key)
        if not still:
            self._source = planes
        if self._bucket is not None:
            parity = 8 * packer.parity_bytes
            self._bucket.put(8 * len(sent) - parity, 8 * packer.coarse_bytes, key=fine)
            self._bucket.add(parity)
            overflowed, self._overflows = self._overflows, self._bucket.overflows
            if self._overflows and not overflowed:
                warn(
                    f"{self._bucket.bitrate / 1000:g} kbit/s cannot be held, though pictures are "
                    "as coarse as can be: smaller or fewer frames, or rarer key frames, take less"
                )
        return sent

    def close(self) -> list[bytes]:
        """What is to be sent behind the last frame: parity of the last ones, or nothing."""
        return self._packer.close() if self._packer else []

    def _begin(self, pixels: Image) -> Packer:
        segmenter = self._coder.segmenter
        quality = self._options.found_quality
        if quality != LOSSLESS:
            thrift = LEVELS[DEFAULT_LABEL_QUALITY] / LEVELS[int(quality)]
            self._stable = Stabiliser(segmenter.palette, thrift=thrift, voids=segmenter.voids)
            if self._factor % 2 == 0 and pictures.is_soft(pixels):  # as a single picture would be
                guess = look(segmenter, coarse.downscale(pixels, 2), quality)
                self._halved = guess.objection() is None and guess.sent_alone(quality) is not None
        self._packer = Packer(
            width=pixels.shape[1],
            height=pixels.shape[0],
            rate=self._rate,
            palette=segmenter.palette,
            factor=self._factor,
            halved=self._halved,
            model=self._options.model,
            parity=self._options.parity / 100,
        )
        return self._packer

    def _role(self, planes: Coarse) -> Role:
        cut = self._before is not None and _changed(self._before, planes.y) > _CUT
        if cut and self._stable is not None:
            self._stable.forget()
        return self._keys.next(cut=cut)

    def _precision(self, planes: Coarse, *, fine: bool) -> int:
        """QP of the next coarse picture. Of a fine frame within a bit rate it is the finest at
        which it would not be too large as a key frame."""
        than, bucket = self._keys.precision, self._bucket
        if bucket is None:
            return max(moving.QP.start, self._qp + (than.key if fine else than.other))
        qp = bucket.choose(key=fine)
        if not fine:
            return qp
        height, width = planes.y.shape
        self._trial = self._trial or moving.Encoder(width, height)
        finer = than.other - than.key
        qp = max(moving.QP.start, qp - finer)
        while bucket.too_large(8 * len(self._trial.encode(planes, qp=qp, key=True)[0])):
            qp = max(qp + 1, bucket.choose(key=True) - finer)
        return qp

    def _is_still(self, now: Coarse, shown: Coarse | None, qp: int) -> bool:
        """Whether what is shown is as good for this frame as for the one that it was coded from:
        nowhere worse by more than what quantisation would take away anyway."""
        if self._source is None or shown is None:
            return False
        allowed = _CELL * _CELL * 2 ** ((qp - 4) / 6) / 16
        for name in ("y", "cb", "cr"):
            before, after, there = (
                getattr(coarse, name).astype(np.int16) for coarse in (self._source, now, shown)
            )
            worse = np.abs(after - there) - np.abs(before - there)
            if _cells(worse).max() > allowed:
                return False
        return True

    def _found(
        self, pixels: Image, expected: Expected, *, key: bool, still: bool
    ) -> LabelMap | None:
        """The map to send; none until the next key frame if the segmenter knows too little."""
        settled = self._stable
        if not key:
            if expected.labels is None:
                return None
            self._labels_due -= 1
            if still or self._labels_due > 0:
                if settled is not None:
                    settled.move(expected)
                return expected.labels
        self._labels_due = self._every
        quality = self._options.found_quality
        guess = look(self._coder.segmenter, pixels, quality)
        if settled is None:
            return guess.labels
        found = settled.settle(guess.labels, guess.probabilities, expected)
        if not key:
            return found
        before, self._objection = self._objection, guess.objection()
        if self._objection is not None:
            if before is None:
                warn(f"sent without a label map: {self._objection}")
            return None
        # Which regions are void is decided anew.
        best, odds = (found, None) if guess.probabilities is None else settled.known
        sent = guess._replace(labels=best, probabilities=odds).sent(int(quality))
        if not guess.tells(sent):
            return None
        settled.sent(sent)
        return sent

    def _advice(self, pixels: Image, labels: LabelMap | None, *, key: bool) -> Texture:
        """What is to be said of texture; all of it with a key frame."""
        said = {} if key else self._said
        news = texture.ask(pixels, labels, PALETTES[self._coder.segmenter.palette], said)
        self._said = {**said, **news}
        return news


def _still(before: Plane, now: Plane) -> float:
    """The share of a frame that is as in the one before, but for exposure."""
    change = now.astype(np.int16) - before
    change = np.abs(change - middle(change))
    return float((_cells(change) < _NOISE * _cells(np.ones_like(change))).mean())


def _changed(before: Plane, now: Plane) -> float:
    """The share of squares that have another pattern than in the frame before; light that goes on
    or off leaves a pattern as it is."""
    old, new = _patterns(before), _patterns(now)
    power, power_before = (new * new).mean((1, 3)), (old * old).mean((1, 3))
    alike = (old * new).mean((1, 3)) > _ALIKE * np.sqrt(power * power_before)
    return float((~alike & (np.maximum(power, power_before) > _NOISE**2)).mean())


def _patterns(luma: Plane) -> npt.NDArray[np.float32]:
    """Squares less their mean, (rows, side, columns, side)."""
    height, width = luma.shape
    side = min(_PATCH, height, width)
    rows, columns = height // side, width // side
    squares = luma[: rows * side, : columns * side].reshape(rows, side, columns, side)
    found: npt.NDArray[np.float32] = squares - squares.mean((1, 3), keepdims=True, dtype=np.float32)
    return found


def _cells(values: npt.NDArray[np.int16]) -> npt.NDArray[np.int32]:
    """Sums over squares of _CELL pixels; beyond the edges there is nothing."""
    height, width = values.shape
    pad = (0, -height % _CELL), (0, -width % _CELL)
    squares = np.pad(values, pad).reshape(-(-height // _CELL), _CELL, -1, _CELL)
    found: npt.NDArray[np.int32] = squares.sum((1, 3), dtype=np.int32)
    return found


def encode(
    frames: Iterable[Any],
    *,
    rate: float | Fraction = 10,
    codec: api.Codec | None = None,
    **options: Any,
) -> Iterator[bytes]:
    """The pieces of a sequence: one for each frame, made as soon as the frame is there; a few
    more at the end with parity.

    Args:
        frames: PIL images, or uint8 (H, W, 3) in sRGB, all of one size.
        rate: frames in a second.
        codec: with a segmenter; None: the bundled one.
        options: fields of `SequenceOptions`.

    Raises InputError for an option out of range, ImageError for a frame that cannot be coded, and
    ModelError where labels cannot be found.
    """
    given = SequenceOptions(**options)
    sender = Sender(given, as_rate(rate), api.codec_or_shared(codec))
    for frame in checks.several("frames", frames):
        yield sender.send(pictures.to_rgb(frame))
    yield from sender.close()


def as_rate(rate: float | Fraction) -> Fraction:
    """Frames in a second as a simple fraction. Raises InputError."""
    number = checks.number("rate", rate, 0.01, 240)
    return (rate if isinstance(rate, Fraction) else Fraction(number)).limit_denominator(1001)
