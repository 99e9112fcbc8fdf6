"""The bytes of a sequence: packets between zero bytes. docs/spec/sequence.md §1 to §3, §7.

Sans-IO: `write_…` make bytes, `Reader` takes them as they come. Neither knows what a payload holds.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from fractions import Fraction

from sempic import texture
from sempic.container import SEQUENCE_MAGIC as MAGIC
from sempic.container import read_varint, varint
from sempic.errors import (
    BitstreamError,
    CorruptStream,
    InputError,
    NotSempic,
    TruncatedStream,
    UnsupportedVersion,
)

VERSION = 4
"""Earlier ones are read, too."""
LARGEST = 1 << 24
"""Bytes of a packet as it is sent, its zero left out."""
NUMBERS = 16
"""A predicted frame says its number modulo this."""
SPAN = 128
"""Frames of a group that parity is of, at most."""
_HALVED_FROM = 3
"""The version since which heads say so."""
SHORT_FROM = 4
"""The version since which sums of 16 bits, short slices and short parameter sets are there."""
_CHANGED = "a checksum does not match: a packet was changed or cut"
_JOINED = "another sequence begins behind this one: keep each in a file of its own"
_COARSE, _LABELS = 32, 16
_PARITY, _TEXTURE = 2, 3
"""What advice there is."""


class Kind(IntEnum):
    HEAD = 0
    KEY = 1
    PREDICTED = 2
    ADVICE = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """What all frames have in common."""

    width: int
    """Of the pictures, in pixels."""
    height: int
    rate: Fraction
    """Frames in a second."""
    factor: int
    """By which coarse pictures are smaller."""
    halved: bool = False
    """Whether all else is of pictures of half the size, rounded up, which are enlarged to be
    shown; then `factor` is even."""
    palette: int
    """Id of the palette as format.md §4 has it."""
    classes: int
    """How many ids it has, 1…256."""
    own: str = ""
    """Identity of a palette of the sender's own."""
    model: int = 0
    """Id of the receiver that the sender had in mind, 0 for any."""
    parameters: bytes = b""
    """HEVC's, of the coarse pictures."""
    version: int = VERSION
    """Of the stream."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One frame; its payloads are still encoded."""

    key: bool
    number: int
    """From 0 on."""
    coarse: bytes | None
    """None: the last coarse picture once more."""
    labels: bytes | None
    """None: the last map moved along; with a key frame there is no map."""
    size: int = 0
    """Bytes of its packet."""
    content: bytes = b""
    """What its packet holds, unstuffed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """Sums of a group's symbols, which restore frames that are lost (`sempic.sequence.parity`)."""

    span: int
    """Frames of a group, 1…SPAN."""
    wait: int
    """When so many frames of the next group have come, all parity of a group has, 0…SPAN."""
    group: int = 0
    """From 0 on."""
    symbol: int = 0
    """Bytes of a symbol."""
    first: int = 0
    """Number of the first sum, at least the sum of counts; the last is 255 at most."""
    counts: bytes = b""
    """Symbols of each frame."""
    sums: bytes = b""
    """Without any, this only says that parity follows."""
    size: int = 0
    """Bytes of its packet."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What a receiver may heed from the next frame on."""

    texture: dict[int, tuple[int, int]]
    """Of some ids (`sempic.texture`); those of all others stay, but before a key frame."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A packet that cannot be read, and why."""

    why: str
    size: int


def begin(head: Head) -> bytes:
    """Magic, version and head: the start of a stream."""
    return MAGIC + bytes((head.version,)) + write_head(head)


def write_head(head: Head) -> bytes:
    """The packet of a head, which may stand before any key frame."""
    own = head.own.encode()
    rate = head.rate.numerator, head.rate.denominator
    numbers = [head.width, head.height, *rate, head.factor, head.classes - 1]
    if head.version >= _HALVED_FROM:
        numbers.append(int(head.halved))
    return _packet(
        bytes((Kind.HEAD << 6,)),
        b"".join(varint(number) for number in numbers),
        bytes((head.palette | head.model << 4,)),
        varint(len(own)),
        own,
        head.parameters,
    )


def write_advice(advice: Advice) -> bytes:
    """The packet of advice."""
    return _packet(bytes((Kind.ADVICE << 6 | _TEXTURE,)), texture.write(advice.texture))


def write_parity(parity: Parity) -> bytes:
    """The packet of parity."""
    parts = [varint(parity.span), varint(parity.wait)]
    if parity.sums:
        parts += [varint(parity.group), varint(parity.symbol), bytes((parity.first,))]
    return _packet(bytes((Kind.ADVICE << 6 | _PARITY,)), *parts, parity.counts, parity.sums)


def read_frame(content: bytes, version: int, number: int) -> Frame:
    """The frame of a number from what its packet holds, unstuffed. Raises a BitstreamError."""
    found = _parse(content, len(content) + 2, version, number)
    if not isinstance(found, Frame) or found.number != number:
        raise CorruptStream("no such frame")
    return found


def content_of(frame: Frame) -> bytes:
    """What the packet of a frame holds, unstuffed: what is to be restored if it is lost."""
    kind = Kind.KEY if frame.key else Kind.PREDICTED
    parts = [part for part in (frame.coarse, frame.labels) if part is not None]
    flags = (_COARSE if frame.coarse is not None else 0) | (
        _LABELS if frame.labels is not None else 0
    )
    body = [varint(frame.number)] if frame.key else []
    if len(parts) == 2:
        body.append(varint(len(parts[0])))
    tag = kind << 6 | flags | frame.number % NUMBERS
    return _summed(bytes((tag,)), *body, *parts, number=frame.number)


def write_frame(frame: Frame) -> bytes:
    """The packet of a frame. Raises InputError if it is too large."""
    return _sent(content_of(frame))


@dataclass(slots=True)
class Reader:
    """Takes a stream in pieces of any size; what cannot be read is told and left behind."""

    _held: bytearray = field(default_factory=bytearray)
    _version: int | None = None
    _skipped: int = 0
    """Bytes left out of a packet that was too large."""
    _next: int | None = None
    """Number of the frame that is to come; None: no frame is of use before a key frame."""
    _key: bytes = b""
    """What the last key frame's packet was."""

    def feed(self, data: bytes) -> Iterator[Head | Frame | Advice | Parity | Damage]:
        """The packets that are whole now. Raises NotSempic or UnsupportedVersion, nothing else."""
        self._held += data
        if self._version is None:
            if not self._starts():
                return
            self._version = self._held[len(MAGIC)]
            del self._held[: len(MAGIC) + 1]
        while (end := self._held.find(0)) >= 0:
            packet = bytes(self._held[:end])
            del self._held[: end + 1]
            skipped, self._skipped = self._skipped, 0
            if skipped:
                yield Damage("a packet is too large", skipped + end)
            elif packet and packet != self._key and (found := self._read(packet)) is not None:
                yield found
        if len(self._held) >= LARGEST:
            self._skipped += len(self._held)
            self._held.clear()

    def _read(self, packet: bytes) -> Head | Frame | Advice | Parity | Damage | None:
        """What a packet holds; None: a kind that is not known here, or a frame that is of no
        use."""
        assert self._version is not None
        size = len(packet) + 1
        try:
            found = _parse(_unstuff(packet), size, self._version, self._next)
        except BitstreamError as error:
            joined = packet.startswith(MAGIC)
            return Damage(_JOINED if joined else str(error), size)
        if isinstance(found, Frame):
            if found.key:
                self._key = packet
                if self._next is not None and found.number < self._next:
                    self._next = None  # another sequence, whose frames have numbers of their own
                    return Damage(f"key frame {found.number} comes too late", size)
            self._next = found.number + 1
        return found

    @property
    def left(self) -> int:
        """Bytes of a packet that has not ended."""
        return len(self._held) + self._skipped

    def _starts(self) -> bool:
        held = self._held
        if held[:2] != MAGIC[: len(held)]:
            raise NotSempic(f"not a sempic sequence: it starts with {bytes(held[:2]).hex(' ')}")
        if len(held) > 2 and not 1 <= held[2] <= VERSION:
            raise UnsupportedVersion(f"sequence version {held[2]} is not known here")
        return len(held) > 2


def _packet(*parts: bytes) -> bytes:
    return _sent(_summed(*parts))


def _summed(*parts: bytes, number: int = 0) -> bytes:
    content = b"".join(parts)
    return content + _sum(content, VERSION, number)


def _sum(content: bytes, version: int, number: int) -> bytes:
    """A packet's checksum: shorter where little else depends on it, and then of a frame's whole
    number, too, of which its tag has but the end."""
    size = _sum_size(content, version)
    whole = size < 4 and content[0] >> 6 == Kind.PREDICTED
    before = varint(number) if whole else b""
    return zlib.crc32(before + content).to_bytes(4, "little")[:size]


def _sum_size(content: bytes, version: int) -> int:
    long = version < SHORT_FROM or content[0] >> 6 in (Kind.HEAD, Kind.KEY)
    return 4 if long else 2


def _sent(content: bytes) -> bytes:
    sent = _stuff(content)
    if len(sent) >= LARGEST:
        raise InputError(f"a frame of {len(sent)} bytes is too large for a sequence")
    return sent + b"\0"


def _parse(
    content: bytes, size: int, version: int, expected: int | None
) -> Head | Frame | Advice | Parity | None:
    """expected: the number of a predicted frame, or one that it is at most NUMBERS - 1 more than;
    None: it is of no use."""
    if not content:
        raise CorruptStream(_CHANGED)
    kind, number = content[0] >> 6, 0
    if kind == Kind.PREDICTED:
        if expected is None:
            return None
        number = expected + (content[0] - expected) % NUMBERS
    summed = _sum_size(content, version)
    said = content[:-summed]
    if not said or content[-summed:] != _sum(said, version, number):
        raise CorruptStream(_CHANGED)
    if kind == Kind.HEAD:
        return _read_head(said, version)
    if kind == Kind.ADVICE:
        return _read_advice(said, size)
    return replace(_read_frame(said, size, number), content=content)


def _read_head(content: bytes, version: int) -> Head:
    end = len(content)
    numbers, at = [], 1
    for _ in range(6 + (version >= _HALVED_FROM)):
        number, at = read_varint(content, at, end)
        numbers.append(number)
    width, height, numerator, denominator, factor, last, halved = (*numbers, 0)[:7]
    if at >= end:
        raise TruncatedStream("the head is cut short")
    model, palette = divmod(content[at], 16)
    size, at = read_varint(content, at + 1, end)
    own = content[at : at + size].decode("utf-8", "replace")
    odd = halved > 1 or (halved and factor % 2)
    if 0 in (numerator, denominator, factor) or last > 255 or size > end - at or odd:
        raise CorruptStream("the head says what cannot be")
    return Head(
        width=width,
        height=height,
        rate=Fraction(numerator, denominator),
        factor=factor,
        halved=bool(halved),
        palette=palette,
        classes=last + 1,
        own=own,
        model=model,
        parameters=content[at + size :],
        version=version,
    )


def _read_advice(content: bytes, size: int) -> Advice | Parity | None:
    if content[0] & 63 == _PARITY:
        return _read_parity(content, size)
    if content[0] & 63 != _TEXTURE:
        return None
    return Advice(texture.read(content[1:]))


def _read_parity(content: bytes, size: int) -> Parity:
    end = len(content)
    span, at = read_varint(content, 1, end)
    wait, at = read_varint(content, at, end)
    if not 1 <= span <= SPAN or wait > SPAN:
        raise CorruptStream("parity says what cannot be")
    if at == end:
        return Parity(span=span, wait=wait, size=size)
    group, at = read_varint(content, at, end)
    symbol, at = read_varint(content, at, end)
    counts, sums = content[at + 1 : at + 1 + span], content[at + 1 + span :]
    if not (symbol and sums) or len(sums) % symbol:
        raise CorruptStream("parity says what cannot be")
    first = content[at]
    if not sum(counts) <= first <= 256 - len(sums) // symbol:
        raise CorruptStream("parity says what cannot be")
    return Parity(
        span=span,
        wait=wait,
        group=group,
        symbol=symbol,
        first=first,
        counts=counts,
        sums=sums,
        size=size,
    )


def _read_frame(content: bytes, size: int, number: int) -> Frame:
    tag, at, end = content[0], 1, len(content)
    key = tag >> 6 == Kind.KEY
    if key:
        number, at = read_varint(content, at, end)
    first = end
    if tag & _COARSE and tag & _LABELS:
        length, at = read_varint(content, at, end)
        first = at + length
        if first > end:
            raise TruncatedStream("a frame is cut short")
    if not tag & _COARSE:
        first = at
        if key:
            raise CorruptStream("a key frame has no coarse picture")
    if not tag & _LABELS and first < end:
        raise CorruptStream("bytes follow a frame")
    return Frame(
        key=key,
        number=number,
        coarse=content[at:first] if tag & _COARSE else None,
        labels=content[first:end] if tag & _LABELS else None,
        size=size,
    )


# ── byte stuffing (Cheshire and Baker, "Consistent Overhead Byte Stuffing", 1999) ────────────


def _stuff(content: bytes) -> bytes:
    """The same without zeros: a byte 1 + n stands for n bytes that follow and then a zero, 255 for
    254 bytes that no zero follows."""
    out = bytearray()
    for run in content.split(b"\0"):
        while len(run) >= 254:
            out += b"\xff" + run[:254]
            run = run[254:]
        out.append(len(run) + 1)
        out += run
    return bytes(out)


def _unstuff(sent: bytes) -> bytes:
    out = bytearray()
    at = 0
    while True:
        code = sent[at]
        run = sent[at + 1 : at + code]
        if len(run) < code - 1:
            raise TruncatedStream("a packet is cut short")
        out += run
        at += code
        if at >= len(sent):
            if code == 255:
                raise TruncatedStream("a packet is cut short")
            return bytes(out)
        if code < 255:
            out.append(0)
