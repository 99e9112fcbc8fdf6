"""The container format: header, chunks, checksum. docs/spec/format.md §1–§4.

`write` and `read` are inverse to each other and do not look into payloads.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import IntEnum

from sempic import checks
from sempic.coarse import BY_CHUNK, CODECS
from sempic.errors import (
    CorruptStream,
    InputError,
    LimitExceeded,
    NotSempic,
    TruncatedStream,
    UnsupportedChunk,
    UnsupportedProfile,
    UnsupportedVersion,
)
from sempic.palette import IDENTITY, INDICES, PALETTES, by_identity

MAGIC = b"\xe5S"
SEQUENCE_MAGIC = b"\xe5V"
"""Magic of sequences (docs/spec/sequence.md), which have a container of their own."""
VERSION = 1
MAX_SIDE = 65535
MAX_PIXELS = 1 << 26
"""Default limit on width × height: 8192 × 8192."""


class Chunk(IntEnum):
    """Types of chunk of version 1 (§3), without those of `sempic.coarse.CODECS`."""

    LABELS = 1
    HALVED = 6
    DOUBLED = 7
    PALETTE = 9
    WINDOWS = 10
    RECEIPT = 11
    OWN_RECEIPT = 12
    TEXTURE = 13


FIRST_OPTIONAL = 8
"""Decoders skip unknown chunks of this type and above."""
_NAMES = dict.fromkeys(BY_CHUNK, "coarse") | {
    Chunk.LABELS: "labels",
    Chunk.HALVED: "labels",
    Chunk.DOUBLED: "labels",
    Chunk.PALETTE: "palette",
    Chunk.WINDOWS: "windows",
    Chunk.RECEIPT: "receipt",
    Chunk.OWN_RECEIPT: "receipt",
    Chunk.TEXTURE: "texture",
}
"""Type of chunk → part of a stream, which a stream has at most once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """The parts of a stream; payloads are still encoded."""

    width: int
    """Of the picture, in pixels."""
    height: int
    palette: int
    """Id of the palette of the labels (§4)."""
    own: str | None = None
    """Identity of the sender's own palette, if the labels have one (§4)."""
    model: int = 0
    """Id of the receiver that the sender intends, 0…14; 0: any."""
    labels: bytes | None = None
    """Payload of the label map."""
    doubled: bool = False
    """Whether the map has half the picture's size, rounded up: an id for each 2×2 pixels (§5)."""
    halved: bool = False
    """Whether the picture may be painted at half its size (§5); the map is then doubled, too."""
    coarse: bytes | None = None
    """Payload of the coarse picture."""
    coarse_type: int = CODECS["bpg"].chunk
    """Type of the coarse picture's chunk."""
    windows: bytes | None = None
    """Payload of the windows (§7)."""
    receipt: bytes | None = None
    """Payload of the receipt (§8)."""
    own_groups: bool = False
    """Whether the receipt is about groups of the sender's own."""
    texture: bytes | None = None
    """Payload of the texture (§9)."""


def write(container: Container) -> bytes:
    """The stream of a container.

    Raises InputError if the container breaks a rule of the format.
    """
    c = container
    if not (1 <= c.width <= MAX_SIDE and 1 <= c.height <= MAX_SIDE):
        raise InputError(f"{c.width}×{c.height}: each side must be 1…{MAX_SIDE} pixels")
    if c.palette not in PALETTES or not 0 <= c.model <= 14:
        raise InputError(f"palette {c.palette} or model {c.model} is not defined")
    if c.labels is None and c.coarse is None:
        raise InputError("a stream needs labels, a coarse picture or both")

    stream = bytearray((*MAGIC, VERSION)) + varint(c.width) + varint(c.height)
    own = c.own or PALETTES[c.palette].identity
    stream.append(c.model << 4 | (INDICES.id if own else c.palette))
    for kind, payload in (
        (Chunk.PALETTE, own.encode() if own else None),
        (c.coarse_type, c.coarse),
        (_labels_chunk(c), c.labels),
        (Chunk.WINDOWS, c.windows),
        (Chunk.OWN_RECEIPT if c.own_groups else Chunk.RECEIPT, c.receipt),
        (Chunk.TEXTURE, c.texture),
    ):
        if payload is not None:
            stream += varint(len(payload) << 4 | kind)
            stream += payload
    stream += zlib.crc32(stream).to_bytes(4, "little")
    return bytes(stream)


def _labels_chunk(c: Container) -> Chunk:
    if c.halved:
        return Chunk.HALVED
    return Chunk.DOUBLED if c.doubled else Chunk.LABELS


def read(stream: bytes, *, max_pixels: int = MAX_PIXELS) -> Container:
    """The container in a stream; raises BitstreamError if it is not exactly one (§1–§4).

    The order of checks: structure, which distinguishes truncation from damage; checksum; content.
    """
    stream = checks.stream(stream)
    if not stream:
        raise TruncatedStream("no bytes at all")
    if stream[:2] == SEQUENCE_MAGIC:
        raise NotSempic(
            "a sequence of pictures, not a picture: sempic decode -o x.mp4 makes a video of it"
        )
    if stream[:2] != MAGIC[: len(stream)]:
        raise NotSempic(f"not a .sempic stream: it starts with {bytes(stream[:2]).hex(' ')}")
    if len(stream) < 3:
        raise TruncatedStream("the stream ends inside its header")
    if stream[2] != VERSION:
        raise UnsupportedVersion(f"version {stream[2]} is not known here, only {VERSION} is")

    end = len(stream) - 4  # where the checksum starts
    width, at = read_varint(stream, 3, end)
    height, at = read_varint(stream, at, end)
    if at >= end:
        raise TruncatedStream("the stream ends inside its header")
    model, palette = divmod(stream[at], 16)
    at += 1
    chunks: list[tuple[int, bytes]] = []
    count = [0] * 16
    while at < end:
        head, at = read_varint(stream, at, end)
        size, kind = divmod(head, 16)
        if size > end - at:
            raise TruncatedStream(
                f"the stream ends early: chunk type {kind} claims {size} bytes at byte {at}, "
                f"{end - at} are left"
            )
        count[kind] += 1
        if count[kind] <= 2:  # a third adds nothing but memory
            chunks.append((kind, bytes(stream[at : at + size])))
        at += size
    if zlib.crc32(stream[:end]) != int.from_bytes(stream[end:], "little"):
        raise CorruptStream("the checksum does not match: the stream was changed or cut")

    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise LimitExceeded(f"{width}×{height}: each side must be 1…{MAX_SIDE} pixels")
    if width * height > max_pixels:
        raise LimitExceeded(f"{width}×{height} is more than the limit of {max_pixels} pixels")
    if palette not in PALETTES:  # users' own palettes have larger ids
        raise UnsupportedProfile(f"palette {palette} is not known here")
    if model == 15:
        raise UnsupportedProfile("model 15 is reserved")
    return _content(chunks, width=width, height=height, palette=palette, model=model)


def _content(
    chunks: list[tuple[int, bytes]], *, width: int, height: int, palette: int, model: int
) -> Container:
    found: dict[str, bytes] = {}
    types: dict[str, int] = {}
    for kind, payload in chunks:
        name = _NAMES.get(kind)
        if name is None and kind < FIRST_OPTIONAL:
            raise UnsupportedChunk(f"chunk type {kind} is required and not known here")
        if name is None or (name == "palette" and palette != INDICES.id):
            continue  # optional; a palette chunk is undefined for other palettes
        if name in found:
            raise CorruptStream(f"two {name} chunks")
        if name == "coarse" and "labels" in found:
            raise CorruptStream("the coarse chunk must precede the labels")
        found[name], types[name] = payload, kind
    if "labels" not in found and "coarse" not in found:
        raise CorruptStream("neither labels nor a coarse picture")
    own = None
    if "palette" in found:
        own = found.pop("palette").decode("utf-8", "replace")
        if not IDENTITY.fullmatch(own):
            raise CorruptStream("the palette chunk names no palette")
        palette = by_identity(own, palette)
    return Container(
        width=width,
        height=height,
        palette=palette,
        own=own,
        model=model,
        doubled=types.get("labels") in (Chunk.HALVED, Chunk.DOUBLED),
        halved=types.get("labels") == Chunk.HALVED,
        coarse_type=types.get("coarse", CODECS["bpg"].chunk),
        own_groups=types.get("receipt") == Chunk.OWN_RECEIPT,
        **found,
    )


def varint(value: int) -> bytes:
    """A number in 7-bit groups, least significant first (§1)."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(stream: bytes, at: int, end: int) -> tuple[int, int]:
    """The value at byte `at`, and where the next one starts."""
    value = 0
    for i in range(5):
        if at + i >= end:
            raise TruncatedStream("the stream ends inside a number")
        byte = stream[at + i]
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if byte == 0 and i > 0:
                raise CorruptStream(f"the number at byte {at} is longer than need be")
            if value >= 1 << 32:
                break
            return value, at + i + 1
    raise CorruptStream(f"the number at byte {at} is 2^32 or more")
