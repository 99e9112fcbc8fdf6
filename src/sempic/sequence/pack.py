"""Scenes in time ⇄ bytes: pure, exact on every machine, without any network.

A key frame is coded like a single picture. Other frames are predicted: the coarse picture from the
last one, by HEVC, and the label map from the last one, moved along by motion that both sides
estimate from the coarse pictures (docs/spec/sequence.md).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from numbers import Rational
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sempic import checks, codec
from sempic.coarse import moving
from sempic.coarse.hevc import CHROMA
from sempic.container import MAX_PIXELS, MAX_SIDE
from sempic.errors import (
    BitstreamError,
    CorruptStream,
    InputError,
    LabelMapError,
    LimitExceeded,
    UnsupportedProfile,
)
from sempic.palette import IDENTITY, INDICES, OWN, PALETTES, by_id, by_identity
from sempic.scene import Coarse, LabelMap, Plane, Scene
from sempic.sequence import stream
from sempic.sequence.parity import Guard, Mender
from sempic.sequence.stream import Advice, Damage, Frame, Head, Packet
from sempic.texture import Texture

if TYPE_CHECKING:
    from sempic.labels.moved import Memory
    from sempic.sequence.motion import Vectors

MOST_CONCEALED = 250
"""The longest run of lost frames that is filled with the last frame; a longer one is left out."""
NEEDS_LOST = "it needs a frame that is lost"
"""Why a frame is not exact, in `Unpacker.damage`."""
_HINT_STEPS = (3, 6, 12, 24, 48)
"""Least differences of luma for the hints 1, 2, …"""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Expected:
    """What both sides expect of a frame before they have its map."""

    places: npt.NDArray[np.int32] | None = None
    """How pixels moved since the last frame, for `motion.move`; None in the first frame."""
    labels: LabelMap | None = None
    """The last map, moved along."""
    hint: LabelMap | None = None
    """uint8 (height, width), 0…5: how far the coarse picture contradicts `labels`."""

    @property
    def still(self) -> npt.NDArray[np.bool_]:
        """Pixels that neither moved nor changed since the last frame, bool (height, width); not of
        the first frame."""
        assert self.places is not None
        assert self.hint is not None
        here = np.arange(self.places.size).reshape(self.places.shape)
        still: npt.NDArray[np.bool_] = (self.places == here) & (self.hint < 2)
        return still


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Moment:
    """A decoded frame."""

    number: int
    scene: Scene
    expected: Expected
    arrived: bool
    """False: the frame is lost, and the scene is the last known one; or a frame that it needs is
    lost, and the scene is the last known one, moved along by the coarse picture."""


def middle(values: npt.NDArray[np.int16]) -> np.int16:
    """The upper median; of changes of luma it is the change of exposure."""
    median: np.int16 = np.partition(values, values.size // 2, None)[values.size // 2]
    return median


def check_head(head: Head, most: int = MAX_PIXELS) -> None:
    """Raises a BitstreamError for a head that is not supported. most: limit of a frame's pixels."""
    if not (1 <= head.width <= MAX_SIDE and 1 <= head.height <= MAX_SIDE):
        raise LimitExceeded(f"{head.width}×{head.height}: each side must be 1…{MAX_SIDE}")
    if head.width * head.height > most:
        raise LimitExceeded(f"{head.width}×{head.height} is more than {most} pixels")
    if head.palette not in PALETTES or head.model == 15 or head.factor > 255:
        raise UnsupportedProfile(
            f"palette {head.palette}, model {head.model}, factor {head.factor}: not known here"
        )
    if head.own and not IDENTITY.fullmatch(head.own):
        raise CorruptStream("the head names no palette")


class Timeline:
    """The state that sender and receiver share: the last frame."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self.halved = False
        """`Frame.halved` of the last key frame."""
        self.coarse: Coarse | None = None
        self.labels: LabelMap | None = None
        self._memory: Memory | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of painted pictures, maps and motion."""
        height, width = self._head.height, self._head.width
        return (-(-height // 2), -(-width // 2)) if self.halved else (height, width)

    def expect(self, coarse: Coarse, *, key: bool, halved: bool) -> tuple[Expected, Memory]:
        """The expectation of the next frame, from its coarse picture, and the adaptive state of the
        map coder, new in a key frame. Nothing is expected of a map of another size.

        halved: of a key frame. Raises CorruptStream if pictures cannot be halved."""
        from sempic.labels import moved
        from sempic.sequence import motion

        factor = self._head.factor
        if key:
            if halved and factor % 2:
                raise CorruptStream(f"pictures are halved, with a coarse factor of {factor}")
            if halved != self.halved:
                self.halved, self.labels = halved, None
            self._memory = moved.memory(*self.size, self._head.classes)
        assert self._memory is not None
        if self.coarse is None:
            return Expected(), self._memory
        last, now = self.coarse.y, coarse.y
        factor = factor // 2 if self.halved else factor
        vectors = motion.estimate(last, now, self._head.version)
        places = motion.enlarge(vectors, factor, *self.size)
        labels = None if self.labels is None else motion.move(self.labels, places)
        hint = codec.repeated(self._hint(last, now, vectors), factor, self.size)
        return Expected(places=places, labels=labels, hint=hint), self._memory

    def _hint(self, last: Plane, now: Plane, vectors: Vectors) -> LabelMap:
        """Difference of each coarse pixel from the one that moved there, by _HINT_STEPS."""
        height, width = now.shape
        y = (np.arange(height)[:, None] + ((vectors[0] + 2) >> 2)).clip(0, height - 1)
        x = (np.arange(width) + ((vectors[1] + 2) >> 2)).clip(0, width - 1)
        difference = now.astype(np.int16) - last[y, x]
        if self._head.version > 1:  # changes of exposure do not count
            difference -= middle(difference)
        hint: LabelMap = np.searchsorted(_HINT_STEPS, np.abs(difference), side="right").astype(
            np.uint8
        )
        return hint


class Packer:
    """Frames → bytes, for senders."""

    def __init__(
        self,
        *,
        width: int,
        height: int,
        rate: Fraction,
        palette: int,
        factor: int = 4,
        chroma: str = "444",
        model: int = 0,
        parity: float = 0.0,
    ) -> None:
        """Arguments as of `Head`. chroma: "444" or "420". parity: bytes per byte of frames, 0…1.

        Raises InputError, LabelMapError for an unknown palette, or ImageError for a coarse picture
        that is too large."""
        for name, value in (("width", width), ("height", height)):
            checks.whole(name, value, 1, MAX_SIDE)
        checks.whole("factor", factor, 1, 255)
        checks.whole("model", model, 0, 14)
        checks.one_of("chroma", chroma, CHROMA.values())
        terms = (rate.numerator, rate.denominator) if isinstance(rate, Rational) else (0,)
        if not all(0 < term < 1 << 32 for term in terms):
            raise InputError(f"rate is a positive Fraction, in 32 bits, not {rate!s:.40}")
        known = by_id(palette)
        self.size = width, height
        self._palette = palette
        self._coder = moving.Encoder(-(-width // factor), -(-height // factor), chroma)
        self._head = Head(
            width=width,
            height=height,
            rate=rate,
            factor=factor,
            palette=palette if palette < OWN else INDICES.id,
            classes=len(known.classes),
            own=known.identity or "",
            model=model,
        )
        self._time = Timeline(self._head)
        self._guard = Guard(checks.number("parity", parity, 0, 1), rate)
        self.number = 0
        """Number of the next frame."""
        self._has_map = False
        self.coarse_bytes = 0
        """Bytes of the last frame's coarse picture."""
        self.parity_bytes = 0
        """Bytes of parity after the last frame."""

    @property
    def last(self) -> Coarse | None:
        """The coarse planes of the last frame, decoded."""
        return self._time.coarse

    def pack(
        self,
        coarse: Coarse | None,
        labels: Callable[[Expected], LabelMap | None],
        *,
        advice: Callable[[LabelMap | None], Texture] | None = None,
        qp: int = 34,
        key: bool = False,
        halved: bool = False,
    ) -> bytes:
        """The packets of the next frame, and parity that is due.

        coarse: the planes; None: those of the last frame. labels: returns the map, which is coded
        losslessly, from what the receiver expects: uint8 (height, width) of the painted picture;
        None, in a key frame: no map until the next one. advice: returns texture to send, from that
        map. qp: of HEVC, 1…51. key: code a key frame; the first frame always is one. halved:
        `Frame.halved` of a key frame.

        Raises LabelMapError for a map of another size or palette, or for none in between,
        ImageError for planes of another size, type or chroma, and InputError for another QP. After
        an error no frame has been packed, and the next one is a key frame.
        """
        try:
            checks.whole("qp", qp, moving.QP.start, moving.QP.stop - 1)
            time = self._time
            key = key or time.coarse is None
            payload, planes = None, time.coarse
            if coarse is not None:
                payload, planes = self._coder.encode(coarse, qp=qp, key=key)
            if planes is None or (key and coarse is None):
                raise ValueError("a key frame has a coarse picture")
            if halved and self._head.factor % 2:
                raise ValueError("pictures are halved only with an even factor")
            expected, memory = time.expect(planes, key=key, halved=halved)
            sent = labels(expected)
            if sent is not None:
                height, width = time.size
                codec.check_labels(sent, width=width, height=height, palette=self._palette)
            frame = Frame(
                key=key,
                number=self.number,
                coarse=payload,
                labels=self._key_map(sent, planes)
                if key
                else self._predicted_map(sent, expected, memory),
                halved=key and halved,
            )
            packet = stream.write_frame(frame)
            time.coarse, time.labels = planes, sent if key or self._has_map else None
            self.coarse_bytes = len(payload or b"")
            head = b""
            if advice is not None and (texture := advice(time.labels)):
                head = stream.write_advice(Advice(dict(texture)))
            if key:
                self._head = replace(self._head, parameters=self._coder.parameters)
                begin = stream.begin if frame.number == 0 else stream.write_head
                head = begin(self._head) + self._guard.announce() + head
            parity = self._guard.add(stream.content_of(frame))
            self.parity_bytes = len(parity)
            self.number += 1
            return head + packet + parity
        except BaseException:
            self._time.coarse = None  # the encoder may be ahead of the receiver
            raise

    def close(self) -> list[bytes]:
        """The parity packets after the last frame, if any."""
        return self._guard.close()

    def _key_map(self, labels: LabelMap | None, coarse: Coarse) -> bytes | None:
        from sempic import labels as coder

        self._has_map = labels is not None
        if labels is None:
            return None
        return coder.encode(labels, coarse=coarse, model=PALETTES[self._palette].name)

    def _predicted_map(
        self, labels: LabelMap | None, expected: Expected, memory: Memory
    ) -> bytes | None:
        from sempic.labels import moved

        if not self._has_map or expected.labels is None:
            return None
        if labels is None:
            raise LabelMapError("maps end only at a key frame; each frame until then has one")
        assert expected.hint is not None
        return moved.encode(labels, expected.labels, expected.hint, memory) or None


@dataclass(slots=True)
class Course:
    """Counts the frames of a sequence that are shown, and those that are lost."""

    shown: int = 0
    """Frames that a decoder shows, the last one again for a lost one included."""
    lost: list[range] = field(default_factory=list)
    """Numbers of frames that are lost, need a lost one, or cannot be decoded, in order."""
    damaged: int = 0
    """Unreadable packets since the last frame."""
    _next: int = 0
    """Number of the next frame."""
    _is_exact: bool = False
    """Whether the last frame could be decoded exactly."""

    def take(self, frame: Frame) -> tuple[range, bool] | None:
        """The lost frames before the next frame for which the last one is shown, and whether all
        that it needs is there. None: it is not shown, because it comes before the first key frame
        that can be decoded."""
        # Damaged packets may be frames. The next number does not show a loss of NUMBERS frames.
        is_lost = self.damaged >= stream.NUMBERS
        self.damaged = 0
        if not (self.shown or frame.key):
            return None
        missing = range(self._next, frame.number)
        self._is_exact = frame.key or not (missing or is_lost or not self._is_exact)
        filled = missing if self.shown and len(missing) <= MOST_CONCEALED else range(0)
        self._next = frame.number + 1
        self.shown += len(filled) + 1
        self._lose(range(missing.start, frame.number + (not self._is_exact)))
        return filled, self._is_exact

    def fail(self) -> None:
        """The last frame cannot be decoded."""
        if self.shown == 1:  # there is nothing to show instead
            self.shown = 0
        if self._is_exact:
            self._lose(range(self._next - 1, self._next))
        self._is_exact = False

    def _lose(self, lost: range) -> None:
        if lost and self.lost and self.lost[-1].stop == lost.start:
            self.lost[-1] = range(self.lost[-1].start, lost.stop)
        elif lost:
            self.lost.append(lost)


class Unpacker:
    """Bytes → moments, for receivers. Pieces may have any size."""

    def __init__(self, *, max_pixels: int = MAX_PIXELS) -> None:
        self._reader = stream.Reader()
        self._mender = Mender()
        self._limit = checks.whole("max_pixels", max_pixels, 1)
        self.head: Head | None = None
        self.damage: list[str] = []
        """The last 100 reasons why packets or frames are damaged."""
        self.course = Course()
        self._decoder: moving.Decoder | None = None
        self._time: Timeline | None = None
        self._last: Moment | None = None
        self._texture: dict[int, tuple[int, int]] = {}
        self._new_texture: dict[int, tuple[int, int]] = {}
        """Texture received since the last frame."""
        self._palette = 0

    def feed(self, data: bytes) -> Iterator[Moment]:
        """The frames completed by these bytes, and the last frame again for each lost one. Frames
        after a lost one wait while parity may restore it.

        Raises a BitstreamError for data that is no sequence, or not supported.
        """
        for packet in self._reader.feed(checks.stream(data)):
            for ordered in self._mender.take(packet):
                yield from self._take(ordered)

    def moments(self, pieces: Iterable[bytes]) -> Iterator[Moment]:
        """All frames of a stream: `feed` of each piece, and `close`."""
        for piece in pieces:
            yield from self.feed(piece)
        yield from self.close()

    def _take(self, packet: Packet) -> Iterator[Moment]:
        if isinstance(packet, Damage):
            self._note(packet.why)
            self.course.damaged += 1
        elif isinstance(packet, Head):
            self._begin(packet)
        elif isinstance(packet, Advice):
            self._new_texture |= packet.texture
        elif self.head is not None:
            yield from self._frame(packet)

    def close(self) -> list[Moment]:
        """The frames that still wait for a lost one, at the end of the stream.

        Raises CorruptStream if no frame could be decoded.
        """
        found = [moment for packet in self._mender.close() for moment in self._take(packet)]
        if self._reader.left:
            self._note(f"the last {self._reader.left} bytes are no whole frame")
        if self._last is None:
            why = f": {self.damage[0]}" if self.damage else ""
            raise CorruptStream(f"the sequence has no frame that can be decoded{why}")
        return found

    def _note(self, why: str) -> None:
        self.damage = [*self.damage, why][-100:]

    def _begin(self, head: Head) -> None:
        if head == self.head:
            return
        if self.head is not None:
            raise CorruptStream(f"a second head differs from the first: {stream.JOINED}")
        check_head(head, self._limit)
        self._palette = by_identity(head.own, head.palette)
        small = (-(-side // head.factor) for side in (head.width, head.height))
        self._decoder = moving.Decoder(
            head.parameters, *small, short=head.version >= stream.SHORT_FROM
        )
        self._time = Timeline(head)
        self.head = head

    def _frame(self, frame: Frame) -> Iterator[Moment]:
        if (taken := self.course.take(frame)) is None:
            return
        filled, exact = taken
        self._texture = self._new_texture if frame.key else {**self._texture, **self._new_texture}
        self._new_texture = {}
        number = frame.number
        # Decoded before any is returned: a caller may drop the rest, and the next frame needs it.
        found = [self._concealed(missing) for missing in filled]
        if not exact:
            self._note(f"frame {number}: {NEEDS_LOST}")
        try:
            self._last = self._decoded(frame, exact=exact)
            found.append(self._last)
        except BitstreamError as error:
            self._note(f"frame {number}: {error}")
            self.course.fail()
            if self._last is not None:
                found.append(self._concealed(number))
        yield from found

    def _decoded(self, frame: Frame, *, exact: bool) -> Moment:
        """exact: whether no needed frame is lost; else the map is the last one, moved along."""
        from sempic import labels as coder
        from sempic.labels import moved

        head, time = self.head, self._time
        assert head is not None
        assert time is not None
        assert self._decoder is not None
        planes = time.coarse
        if frame.coarse is not None:
            planes = self._decoder.decode(frame.coarse, key=frame.key, lost=not exact)
        assert planes is not None
        halved = head.halved or frame.halved
        expected, memory = time.expect(planes, key=frame.key, halved=halved)
        found = None if frame.key else expected.labels
        if frame.key and frame.labels is not None:
            found = coder.decode(frame.labels, *time.size, coarse=planes)
        elif frame.labels is not None and exact:
            if expected.labels is None or expected.hint is None:
                raise CorruptStream("a map that is predicted without a last one")
            found = moved.decode(frame.labels, expected.labels, expected.hint, memory)
        if found is not None:
            codec.check_decoded(found, self._palette)
            if found.max() >= head.classes:  # the number of classes sizes the next frame's tables
                raise CorruptStream(f"a map has id {found.max()}, the last is {head.classes - 1}")
        time.coarse, time.labels = planes, found
        if time.halved and found is not None:
            found = codec.repeated(found, 2, (head.height, head.width))
        # Copies, since callers may draw on them: the next frame is predicted from the originals.
        scene = Scene(
            width=head.width,
            height=head.height,
            palette=self._palette,
            own=head.own or None,
            model=head.model,
            doubled=time.halved,
            halved=time.halved,
            labels=copy.deepcopy(found),
            coarse=copy.deepcopy(planes),
            texture=self._texture,
        )
        return Moment(number=frame.number, scene=scene, expected=expected, arrived=exact)

    def _concealed(self, number: int) -> Moment:
        assert self._last is not None
        return replace(self._last, number=number, arrived=False)
