"""The bytes of a sequence: packets between zero bytes. docs/spec/sequence.md §1 to §3, §7.

Sans-IO: `write_…` return bytes, `Reader` parses them as they arrive. Payloads stay encoded.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from fractions import Fraction
from typing import TypeAlias

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

VERSION = 6
"""The version that is written; earlier ones are read, too."""
LARGEST = 1 << 24
"""Limit of a packet in bytes, stuffed, without the zero at its end."""
NUMBERS = 16
"""A predicted frame has its number modulo this."""
SPAN = 128
"""The most frames of a parity group."""
_HALVED = range(3, 5)
"""Versions with `Head.halved`; later ones have `Frame.halved`."""
SHORT_FROM = 4
"""The first version with checksums of 16 bits, short slices and short parameter sets."""
_CHANGED = "a checksum does not match: a packet was changed or cut"
JOINED = "another sequence begins behind this one: keep each in a file of its own"
_COARSE, _LABELS = 32, 16
_PARITY, _TEXTURE = 2, 3
"""Kinds of advice."""


class Kind(IntEnum):
    HEAD = 0
    KEY = 1
    PREDICTED = 2
    ADVICE = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """Properties of all frames of a sequence."""

    width: int
    """Of the pictures, in pixels, as is the height."""
    height: int
    rate: Fraction
    """Frames in a second."""
    factor: int
    """Downscaling of the coarse pictures."""
    halved: bool = False
    """In versions 3 and 4: `Frame.halved` of all key frames."""
    palette: int
    """Id of the palette (format.md §4)."""
    classes: int
    """Number of ids of the palette, 1…256."""
    own: str = ""
    """Identity of a custom palette; "": none."""
    model: int = 0
    """Id of the intended receiver, 0 for any."""
    parameters: bytes = b""
    """HEVC parameter sets of the coarse pictures."""
    version: int = VERSION
    """Of the stream's format."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A frame with encoded payloads."""

    key: bool
    number: int
    """From 0 on."""
    coarse: bytes | None
    """None: the last coarse picture again."""
    labels: bytes | None
    """None: the last map, moved along, or, in a key frame, no map."""
    halved: bool = False
    """Of a key frame: whether maps and painted pictures have half the size, rounded up, until the
    next one; a receiver enlarges the painted pictures. Then `Head.factor` is even."""
    size: int = 0
    """Bytes of the packet."""
    content: bytes = b""
    """Content of the packet, unstuffed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """Sums of the symbols of a group of frames, which restore lost frames (`parity`)."""

    span: int
    """Frames of a group, 1…SPAN."""
    wait: int
    """All parity of a group comes before so many frames of the next group, 0…SPAN."""
    group: int = 0
    """Number of the group, from 0 on."""
    symbol: int = 0
    """Bytes of a symbol."""
    first: int = 0
    """Number of the first sum, at least the total of `counts`; the last sum is 255 at most."""
    counts: bytes = b""
    """Symbols of each frame."""
    sums: bytes = b""
    """Empty: an announcement that parity follows."""
    size: int = 0
    """Bytes of the packet."""


@dataclass(frozen=True, slots=True)
class Advice:
    """Advice to the receiver from the next frame on."""

    texture: dict[int, tuple[int, int]]
    """Texture by id (`sempic.texture`). Other ids keep theirs, except before a key frame."""


@dataclass(frozen=True, slots=True)
class Damage:
    """An unreadable packet."""

    why: str


Packet: TypeAlias = Head | Frame | Advice | Damage
"""All packets but parity."""


def begin(head: Head) -> bytes:
    """Magic, version and head: the start of a stream."""
    return MAGIC + bytes((head.version,)) + write_head(head)


def write_head(head: Head) -> bytes:
    """The packet of a head, which may precede any key frame."""
    own = head.own.encode()
    rate = head.rate.numerator, head.rate.denominator
    numbers = [head.width, head.height, *rate, head.factor, head.classes - 1]
    if head.version in _HALVED:
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
    """The frame of a number from the content of its packet, unstuffed. Raises a BitstreamError."""
    frame = _parse(content, version, number)
    if not isinstance(frame, Frame) or frame.number != number:
        raise CorruptStream("no such frame")
    return replace(frame, size=len(content) + 2)


def content_of(frame: Frame) -> bytes:
    """The content of a frame's packet, unstuffed."""
    kind = Kind.KEY if frame.key else Kind.PREDICTED
    parts = [part for part in (frame.coarse, frame.labels) if part is not None]
    flags = _COARSE * (frame.coarse is not None) | _LABELS * (frame.labels is not None)
    body = [varint(frame.number)] if frame.key else []
    if len(parts) == 2:
        body.append(varint(len(parts[0])))
    low = frame.halved if frame.key else frame.number % NUMBERS
    tag = kind << 6 | flags | low
    return _with_checksum(bytes((tag,)), *body, *parts, number=frame.number)


def write_frame(frame: Frame) -> bytes:
    """The packet of a frame. Raises InputError if it is too large."""
    return _framed(content_of(frame))


@dataclass(slots=True)
class Reader:
    """Reads packets from pieces of any size, and skips damaged packets."""

    _held: bytearray = field(default_factory=bytearray)
    _version: int | None = None
    _skipped: int = 0
    """Bytes of a packet that is too large."""
    _next: int | None = 0
    """Number of the next frame; None: only a key frame can be decoded."""
    _end: int = 0
    """One more than the highest number of a frame."""
    _last_key: bytes = b""
    """Packet of the last key frame; repetitions are skipped."""

    def feed(self, data: bytes) -> Iterator[Packet | Parity]:
        """The packets completed by these bytes. Raises only NotSempic or UnsupportedVersion."""
        self._held += data
        if self._version is None:
            if not self._has_header():
                return
            self._version = self._held[len(MAGIC)]
            del self._held[: len(MAGIC) + 1]
        while (end := self._held.find(0)) >= 0:
            packet = bytes(self._held[:end])
            del self._held[: end + 1]
            if self._skipped:
                self._skipped = 0
                yield Damage("a packet is too large")
            elif packet and packet != self._last_key and (found := self._read(packet)) is not None:
                yield found
        if len(self._held) >= LARGEST:
            self._skipped += len(self._held)
            self._held.clear()

    def _read(self, packet: bytes) -> Packet | Parity | None:
        """The parsed packet; None: of an unknown kind, or a frame that cannot be decoded."""
        assert self._version is not None
        try:
            found = _parse(_unstuff(packet), self._version, self._next)
        except BitstreamError as error:
            if not self._end and packet[1:2] and packet[1] >> 6 == Kind.PREDICTED:
                return None  # its number is unknown: the stream is joined late
            return Damage(JOINED if packet.startswith(MAGIC) else str(error))
        if isinstance(found, Frame):
            if not (found.key or self._end or self._version >= SHORT_FROM):
                return None  # its checksum does not cover its number
            if found.key:
                self._last_key = packet
                if found.number < self._end:
                    self._next = None  # the frames of another sequence follow
                    return Damage(f"key frame {found.number} comes too late")
            self._next = self._end = found.number + 1
        if isinstance(found, (Frame, Parity)):
            return replace(found, size=len(packet) + 1)
        return found

    @property
    def left(self) -> int:
        """Bytes of an unfinished packet."""
        return len(self._held) + self._skipped

    def _has_header(self) -> bool:
        held = self._held
        if held[:2] != MAGIC[: len(held)]:
            raise NotSempic(f"not a sempic sequence: it starts with {bytes(held[:2]).hex(' ')}")
        if len(held) > 2 and not 1 <= held[2] <= VERSION:
            raise UnsupportedVersion(f"sequence version {held[2]} is not known here")
        return len(held) > 2


def _packet(*parts: bytes) -> bytes:
    return _framed(_with_checksum(*parts))


def _with_checksum(*parts: bytes, number: int = 0) -> bytes:
    content = b"".join(parts)
    return content + _checksum(content, VERSION, number)


def _checksum(content: bytes, version: int, number: int) -> bytes:
    """A packet's checksum. The short one of a predicted frame covers the frame's whole number, of
    which the tag has only the end."""
    size = _checksum_size(content, version)
    prefix = varint(number) if size < 4 and content[0] >> 6 == Kind.PREDICTED else b""
    return zlib.crc32(prefix + content).to_bytes(4, "little")[:size]


def _checksum_size(content: bytes, version: int) -> int:
    long = version < SHORT_FROM or content[0] >> 6 in (Kind.HEAD, Kind.KEY)
    return 4 if long else 2


def _framed(content: bytes) -> bytes:
    sent = _stuff(content)
    if len(sent) >= LARGEST:
        raise InputError(f"a frame of {len(sent)} bytes is too large for a sequence")
    return sent + b"\0"


def _parse(content: bytes, version: int, expected: int | None) -> Packet | Parity | None:
    """expected: lower bound of a predicted frame's number, by at most NUMBERS - 1; None: predicted
    frames cannot be decoded."""
    if not content:
        raise CorruptStream(_CHANGED)
    kind, number = content[0] >> 6, 0
    if kind == Kind.PREDICTED:
        if expected is None:
            return None
        number = expected + (content[0] - expected) % NUMBERS
    checksum_size = _checksum_size(content, version)
    body = content[:-checksum_size]
    if not body or content[-checksum_size:] != _checksum(body, version, number):
        raise CorruptStream(_CHANGED)
    if kind == Kind.HEAD:
        return _read_head(body, version)
    if kind == Kind.ADVICE:
        return _read_advice(body)
    frame = _read_frame(body, number)
    halved = frame.key and version >= _HALVED.stop and bool(content[0] & 1)
    return replace(frame, halved=halved, content=content)


def _read_head(content: bytes, version: int) -> Head:
    end = len(content)
    numbers, at = [], 1
    for _ in range(6 + (version in _HALVED)):
        number, at = read_varint(content, at, end)
        numbers.append(number)
    width, height, numerator, denominator, factor, last, halved = (*numbers, 0)[:7]
    if at >= end:
        raise TruncatedStream("the head is cut short")
    model, palette = divmod(content[at], 16)
    size, at = read_varint(content, at + 1, end)
    own = content[at : at + size].decode("utf-8", "replace")
    is_odd = halved > 1 or (halved and factor % 2)
    if 0 in (numerator, denominator, factor) or last > 255 or size > end - at or is_odd:
        raise CorruptStream("the head has impossible values")
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


def _read_advice(content: bytes) -> Advice | Parity | None:
    if content[0] & 63 == _PARITY:
        return _read_parity(content)
    if content[0] & 63 != _TEXTURE:
        return None
    return Advice(texture.read(content[1:]))


def _read_parity(content: bytes) -> Parity:
    end = len(content)
    span, at = read_varint(content, 1, end)
    wait, at = read_varint(content, at, end)
    if not 1 <= span <= SPAN or wait > SPAN:
        raise CorruptStream("parity has impossible values")
    announced = Parity(span=span, wait=wait)
    if at == end:
        return announced
    group, at = read_varint(content, at, end)
    symbol, at = read_varint(content, at, end)
    counts, sums = content[at + 1 : at + 1 + span], content[at + 1 + span :]
    is_whole = symbol and sums and len(sums) % symbol == 0
    if not is_whole or not sum(counts) <= content[at] <= 256 - len(sums) // symbol:
        raise CorruptStream("parity has impossible values")
    return replace(
        announced, group=group, symbol=symbol, first=content[at], counts=counts, sums=sums
    )


def _read_frame(content: bytes, number: int) -> Frame:
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
    )


# ── byte stuffing (Cheshire and Baker, "Consistent Overhead Byte Stuffing", 1999) ────────────


def _stuff(content: bytes) -> bytes:
    """The content without zeros: a byte 1 + n stands for the next n bytes and a zero, 255 for the
    next 254 bytes without a zero."""
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
