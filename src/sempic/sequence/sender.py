"""Pictures in time → bytes: a sender's decisions, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sempic import api, checks, coarse, halving, pictures, texture
from sempic.coarse import moving
from sempic.errors import ImageError, warn
from sempic.options import DEFAULT_LABEL_QUALITY, LOSSLESS, QUALITY, UNMAPPED
from sempic.palette import PALETTES
from sempic.scene import Coarse, Image, LabelMap, Plane
from sempic.segment.prediction import Prediction, predict
from sempic.sequence import motion
from sempic.sequence.keys import Keys, Role
from sempic.sequence.options import FASTEST, SLOWEST, SequenceOptions
from sempic.sequence.pack import Expected, Packer, middle
from sempic.sequence.rate import Bucket
from sempic.sequence.stable import Stabiliser
from sempic.simplify import LEVELS
from sempic.texture import Texture

_CELL = 4
"""Side of the cells in which change is measured, in coarse pixels."""
_SEGMENTATIONS = 3
"""Default runs of the segmenter in a second."""
_NOISE = 1.5
"""Mean difference of luma below which a cell is still."""
_PATCH = 8
"""Side of the patches whose patterns are compared, in coarse pixels."""
_CORRELATION = 0.5
"""Correlation above which two patterns are the same; small motion leaves more."""
_CUT = 0.6
"""Share of changed patches above which a frame is a cut: 0.68 or more between two streets,
0.48 or less in one street after a second (docs/experiments/sequences.md)."""
_MOST_CUTS = 2
"""The most cuts in a row: one frame of another scene makes two. More are snow or noise."""
_SURVEY = 2.0
"""Seconds after which the sender decides anew whether pictures are halved and have a map. Another
decision takes a key frame."""
_STAYS = 1.5
"""Factor by which a frame must be softer than necessary, or less soft than allowed, to change the
size at which frames are painted."""


class _Form(NamedTuple):
    """What single pictures of a scene are like."""

    halved: bool = False
    """Whether they are painted and segmented at half their size."""
    has_map: bool = True


class Sender:
    """The frames of one sequence → packets."""

    def __init__(
        self, options: SequenceOptions, rate: Fraction, coder: api.Codec, size: tuple[int, int]
    ) -> None:
        """size: (width, height) of the frames."""
        self._options, self._rate, self._segmenter = options, rate, coder.segmenter
        level = QUALITY[options.quality]
        self._factor, self._qp = level.factor, level.qp
        self._keys = Keys(rate, options.key_interval)
        self._bucket: Bucket | None = None
        if options.bitrate is not None:
            self._factor = 4
            self._bucket = Bucket(
                float(options.bitrate),
                float(rate),
                self._keys.interval,
                parity=options.parity / 100,
            )
        self._overflows = False
        """Whether the bit rate is exceeded."""
        self._packer = Packer(
            width=size[0],
            height=size[1],
            rate=rate,
            palette=self._segmenter.palette,
            factor=self._factor,
            model=options.model,
            parity=options.parity / 100,
        )
        self._trial: moving.Encoder | None = None
        self._stable: Stabiliser | None = None
        if (quality := options.found_quality) != LOSSLESS:
            thrift = LEVELS[DEFAULT_LABEL_QUALITY] / LEVELS[int(quality)]
            palette, voids = self._segmenter.palette, self._segmenter.voids
            self._stable = Stabiliser(palette, thrift=thrift, voids=voids)
        self._source: Coarse | None = None
        """The last coarse picture that was coded, before coding."""
        self._before: Plane | None = None
        """Luma of the last frame's coarse picture, before coding."""
        self._cuts_in_a_row = 0
        """How many frames in a row looked like cuts."""
        usual = 1 if quality == LOSSLESS else max(1, round(rate / _SEGMENTATIONS))
        self._segment_every = options.segment_every or usual
        self._labels_due = 0
        """Frames until the next segmentation."""
        self._survey_due = 0
        """Frames until the next survey."""
        self._form = _Form()
        """Of the frames until the next key frame."""
        self._texture: Texture = {}
        """Texture that the receiver has."""
        self._has_map = True
        """Whether a map is sent until the next key frame: not if that of the key frame turned out
        to say too little."""
        self._missing_map_reported = False
        """Whether a missing map has been reported."""

    def send(self, pixels: Image) -> bytes:
        """The packets of the next frame, uint8 (H, W, 3).

        Raises ImageError if its size differs from the first one's, and errors of the segmenter.
        """
        planes = coarse.from_rgb(coarse.downscale(pixels, self._factor))
        packer = self._packer
        if pixels.shape[1::-1] != packer.size:
            raise ImageError(
                f"frame {packer.number} is {pixels.shape[1]}×{pixels.shape[0]}, and the first was "
                f"{packer.size[0]}×{packer.size[1]}"
            )
        role = self._role(planes)
        prediction: Prediction | None = None
        if role is Role.KEY or (self._survey_due <= 0 and self._keys.is_moving):
            form, prediction = self._survey(pixels)
            if role is not Role.KEY and form != self._form:
                role = self._keys.begin()
            if role is Role.KEY:
                self._form, self._has_map = form, form.has_map
        self._survey_due -= 1
        key, fine = role is Role.KEY, role is not Role.OTHER
        self._keys.saw(None if self._before is None else _still(self._before, planes.y))
        self._before = planes.y
        small = coarse.downscale(pixels, 2) if self._form.halved else pixels  # as it is painted
        qp = self._precision(planes, role)
        still = not fine and self._is_still(planes, packer.last, qp)
        if not key and self._has_map:
            self._labels_due -= 1
            if still:
                prediction = None
            elif self._labels_due <= 0 and prediction is None:
                prediction = self._predict(small)

        sent = packer.pack(
            None if still else planes,
            lambda expected: self._labels(prediction, expected, key=key),
            advice=None if still else lambda labels: self._new_texture(small, labels, key=key),
            qp=qp,
            key=key,
            halved=self._form.halved,
        )
        if not still:
            self._source = planes
        if self._bucket is not None:
            self._fill(self._bucket, 8 * len(sent), role)
        return sent

    def close(self) -> list[bytes]:
        """The parity packets after the last frame, if any."""
        return self._packer.close()

    def _fill(self, bucket: Bucket, bits: int, role: Role) -> None:
        """Counts the packets of a frame; warns when the bit rate begins to be exceeded."""
        parity = 8 * self._packer.parity_bytes
        bucket.put(
            bits - parity,
            8 * self._packer.coarse_bytes,
            key=role in (Role.KEY, Role.FINEST),
            fine=role is Role.FINE,
            parity=parity,
        )
        if bucket.overflows and not self._overflows:
            warn(
                f"{bucket.bitrate / 1000:g} kbit/s cannot be held even with the coarsest "
                "pictures: smaller or fewer frames, or rarer key frames, take less"
            )
        self._overflows = bucket.overflows

    def _role(self, planes: Coarse) -> Role:
        cut = self._before is not None and _is_cut(self._before, planes.y)
        self._cuts_in_a_row = self._cuts_in_a_row + 1 if cut else 0
        cut = cut and self._cuts_in_a_row <= _MOST_CUTS
        if cut and self._stable is not None:
            self._stable.forget()
        return self._keys.next(cut=cut)

    def _precision(self, planes: Coarse, role: Role) -> int:
        """QP of the next coarse picture. With a bit rate, a fine frame has the lowest QP at which
        it is not too large as a key frame."""
        keys, bucket = self._keys, self._bucket
        if bucket is None:
            qp = self._qp + keys.offset(role)
            if keys.is_moving and not self._has_map:  # as in a single picture
                qp -= UNMAPPED
            return max(moving.QP.start, qp)
        is_fine = role is not Role.OTHER
        qp = bucket.choose(key=is_fine)
        if not is_fine:
            return qp
        height, width = planes.y.shape
        self._trial = self._trial or moving.Encoder(width, height)
        finer = keys.offset(Role.OTHER) - keys.offset(role)
        qp = max(moving.QP.start, qp - finer)
        while bucket.too_large(8 * len(self._trial.encode(planes, qp=qp, key=True)[0])):
            qp = max(qp + 1, bucket.choose(key=True) - finer)
        return qp

    def _is_still(self, now: Coarse, shown: Coarse | None, qp: int) -> bool:
        """Whether the last decoded picture fits this frame as well as the frame it was coded from:
        in no cell worse by more than the noise of quantisation."""
        if self._source is None or shown is None:
            return False
        allowed = _CELL * _CELL * 2 ** ((qp - 4) / 6) / 16
        for planes in zip(self._source.planes, now.planes, shown.planes, strict=True):
            before, after, there = (plane.astype(np.int16) for plane in planes)
            worse = np.abs(after - there) - np.abs(before - there)
            if _cells(worse).max() > allowed:
                return False
        return True

    def _survey(self, pixels: Image) -> tuple[_Form, Prediction]:
        """What a single picture of the frame would be, and the segmenter's prediction for it."""
        self._survey_due = max(round(_SURVEY * self._rate), self._options.segment_every or 1)
        quality = self._options.found_quality
        can_halve = self._stable is not None and self._factor % 2 == 0
        factor = _STAYS if self._form.halved else 1 / _STAYS
        if self._before is None:  # the first frame
            factor = 1.0
        halved = can_halve and halving.is_soft(pixels, factor)
        prediction = self._predict(coarse.downscale(pixels, 2) if halved else pixels)
        why = prediction.reason_for_no_map()
        if halved and (why is not None or prediction.map_for_still(quality) is None):
            halved = False
            prediction = self._predict(pixels)
            why = prediction.reason_for_no_map()
        if why is not None and not self._missing_map_reported:
            seconds = float(self._packer.number / self._rate)
            since = f" from {seconds:.1f} s on" if seconds else ""
            warn(f"sent without a label map{since}: {why}")
            self._missing_map_reported = True
        return _Form(halved, why is None), prediction

    def _predict(self, painted: Image) -> Prediction:
        self._labels_due = self._segment_every
        return predict(self._segmenter, painted, probable=self._stable is not None)

    def _labels(
        self, prediction: Prediction | None, expected: Expected, *, key: bool
    ) -> LabelMap | None:
        """The map to send; None until the next key frame if the segmenter is too unsure.

        prediction: for this frame; None: the last map is moved along."""
        stabiliser = self._stable
        if not key and expected.labels is None:
            return None
        if prediction is None:
            if stabiliser is not None:
                stabiliser.move(expected)
            return expected.labels
        if stabiliser is None:
            return prediction.labels
        labels = stabiliser.settle(prediction.labels, prediction.probabilities, expected)
        if not key:
            return labels
        if not self._has_map:
            return None
        # A key frame decides anew which regions are void.
        best, odds = (labels, None) if prediction.probabilities is None else stabiliser.known
        sent = prediction._replace(labels=best, probabilities=odds).map_to_send(
            int(self._options.found_quality)
        )
        self._has_map = prediction.is_informative(sent)
        if not self._has_map:
            return None
        stabiliser.sent(sent)
        return sent

    def _new_texture(self, pixels: Image, labels: LabelMap | None, *, key: bool) -> Texture:
        """The texture to send: changes, or all of it with a key frame."""
        known = {} if key else self._texture
        new = texture.choose(pixels, labels, PALETTES[self._segmenter.palette], known)
        self._texture = {**known, **new}
        return new


def _still(before: Plane, now: Plane) -> float:
    """The share of cells without a change since the last frame, except of exposure."""
    change = now.astype(np.int16) - before
    change = np.abs(change - middle(change))
    return float((_cells(change) < _NOISE * _cells(np.ones_like(change))).mean())


def _is_cut(before: Plane, now: Plane) -> bool:
    """Whether a frame shows another scene than the last one. A camera that turns shifts the whole
    picture, which leaves other patterns at each place, too."""
    return _changed(before, now) > _CUT and _changed(*_aligned(before, now)) > _CUT


def _aligned(before: Plane, now: Plane) -> tuple[Plane, Plane]:
    """What two lumas have in common after the best shift of the whole picture."""
    size = now.shape[0] * 2, now.shape[1] * 2
    last, new = (np.fft.rfft2(motion.levelled(luma) - 128.0, size) for luma in (before, now))
    fit = np.fft.irfft2(new * last.conj(), size)
    down, right = (
        np.arange(-reach, reach + 1)
        for reach in (min(motion.REACH, side // 4) for side in now.shape)
    )
    best = np.unravel_index(fit[np.ix_(down, right)].argmax(), (len(down), len(right)))
    y, x = down[best[0]], right[best[1]]
    height, width = now.shape
    here = now[max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)]
    there = before[max(-y, 0) : height + min(-y, 0), max(-x, 0) : width + min(-x, 0)]
    return there, here


def _changed(before: Plane, now: Plane) -> float:
    """The share of patches with another pattern than in the last frame. A change of light leaves
    patterns as they are."""
    old, new = _patterns(before), _patterns(now)
    power, power_before = (new * new).mean((1, 3)), (old * old).mean((1, 3))
    is_same = (old * new).mean((1, 3)) > _CORRELATION * np.sqrt(power * power_before)
    return float((~is_same & (np.maximum(power, power_before) > _NOISE**2)).mean())


def _patterns(luma: Plane) -> npt.NDArray[np.float32]:
    """Patches less their mean, (rows, side, columns, side)."""
    height, width = luma.shape
    side = min(_PATCH, height, width)
    rows, columns = height // side, width // side
    patches = luma[: rows * side, : columns * side].reshape(rows, side, columns, side)
    found: npt.NDArray[np.float32] = patches - patches.mean((1, 3), keepdims=True, dtype=np.float32)
    return found


def _cells(values: npt.NDArray[np.int16]) -> npt.NDArray[np.int32]:
    """Sums over cells, with zeros beyond the edges."""
    height, width = values.shape
    pad = (0, -height % _CELL), (0, -width % _CELL)
    cells = np.pad(values, pad).reshape(-(-height // _CELL), _CELL, -1, _CELL)
    found: npt.NDArray[np.int32] = cells.sum((1, 3), dtype=np.int32)
    return found


def encode(
    frames: Iterable[Any],
    *,
    rate: float | Fraction = 10,
    codec: api.Codec | None = None,
    **options: Any,
) -> Iterator[bytes]:
    """The bytes of a sequence, one piece per frame as soon as it arrives; with parity a few more
    at the end.

    Args:
        frames: PIL images, or uint8 (H, W, 3) in sRGB, all of one size.
        rate: frames in a second.
        codec: with a segmenter; None: the bundled one.
        options: fields of `SequenceOptions`.

    Raises InputError for an option out of range, ImageError for a frame that cannot be coded, and
    ModelError if the segmenter fails.
    """
    checked, rate, codec = SequenceOptions(**options), as_rate(rate), api.codec_or_shared(codec)
    sender: Sender | None = None
    for frame in checks.several("frames", frames):
        pixels = pictures.to_rgb(frame)
        sender = sender or Sender(checked, rate, codec, pixels.shape[1::-1])
        yield sender.send(pixels)
    if sender is not None:
        yield from sender.close()


def as_rate(rate: float | Fraction) -> Fraction:
    """Frames in a second as a simple fraction. Raises InputError."""
    number = checks.number("rate", rate, float(SLOWEST), FASTEST)
    return (rate if isinstance(rate, Fraction) else Fraction(number)).limit_denominator(1001)
