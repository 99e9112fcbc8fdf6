"""Contents of a sequence, the bytes of each part, and what a decoder lost."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from typing import Any

from sempic import checks
from sempic.errors import CorruptStream
from sempic.palette import shown_name
from sempic.sequence import stream
from sempic.sequence.pack import NEEDS_LOST, Course, Unpacker, check_head
from sempic.sequence.parity import Mender
from sempic.sequence.stream import Damage, Frame, Head, Packet, Parity

_MAX_RANGES, _MAX_REASONS = 10, 3
"""The most ranges of lost frames, and other reasons, that a message names."""


def info(data: bytes) -> dict[str, Any]:
    """Contents of a sequence, without decoding payloads. Keys: version, width, height (pixels),
    rate (frames in a second), palette (name), model (id, 0 for any), frames (that a decoder
    shows), keys (number of key frames), lost (number of frames that are lost or need a lost one),
    seconds, damaged (number of unreadable packets), bytes, kbps (kbit in a second), bpp (bits per
    pixel of each frame), chunks (bytes: {"coarse": …, "labels": …}, with "parity" if
    there is any), overhead (all other bytes), sizes (bytes of each frame).

    Raises a BitstreamError for data that is no sequence, or whose head is not supported.
    """
    summary = Summary()
    summary.feed(checks.stream(data))
    return summary.info()


class Summary:
    """`info` of a sequence that arrives in pieces."""

    def __init__(self) -> None:
        self._reader, self._mender = stream.Reader(), Mender()
        self._course = Course()
        self._head: Head | None = None
        self._is_other = False
        """Whether another sequence has begun, where decoding ends."""
        self._bytes = self._damaged = self._keys = 0
        self._sizes = array("I")  # a camera may never end
        self._chunks = {"coarse": 0, "labels": 0}

    def feed(self, piece: bytes) -> None:
        """Raises NotSempic or UnsupportedVersion."""
        self._bytes += len(piece)
        for packet in self._reader.feed(piece):
            if isinstance(packet, Head):
                self._head = self._head or packet
                self._is_other |= packet != self._head
            elif self._is_other or isinstance(packet, Damage):
                self._damaged += 1
            elif isinstance(packet, Frame):
                self._keys += packet.key
                self._sizes.append(packet.size)
                for name in ("coarse", "labels"):
                    self._chunks[name] += len(getattr(packet, name) or b"")
            elif isinstance(packet, Parity):
                self._chunks["parity"] = self._chunks.get("parity", 0) + packet.size
            if not self._is_other:
                self._follow(self._mender.take(packet))

    def _follow(self, packets: Iterator[Packet]) -> None:
        for packet in packets:
            if isinstance(packet, Frame) and self._head is not None:
                self._course.take(packet)
            self._course.damaged += isinstance(packet, Damage)

    def info(self, course: Course | None = None) -> dict[str, Any]:
        """`sempic.sequence.info` of all pieces, after the last of them; raises the same errors.

        course: of a decoder, which also knows which frames have damaged payloads."""
        self._follow(self._mender.close())
        course = course or self._course
        head, count, size = self._head, course.shown, self._bytes
        if head is None:
            raise CorruptStream("the sequence has no head that can be read")
        check_head(head)
        seconds = float(count / head.rate)
        return {
            "version": head.version,
            "width": head.width,
            "height": head.height,
            "rate": float(head.rate),
            "palette": shown_name(head.palette, head.own),
            "model": head.model,
            "frames": count,
            "keys": self._keys,
            "lost": sum(map(len, course.lost)),
            "seconds": seconds,
            "damaged": self._damaged + bool(self._reader.left),
            "bytes": size,
            "kbps": 8 * size / seconds / 1000 if seconds else 0.0,
            "bpp": 8 * size / max(1, count * head.width * head.height),
            "chunks": dict(self._chunks),
            "overhead": size - sum(self._chunks.values()),
            "sizes": list(self._sizes),
        }


def damage(unpacker: Unpacker) -> str:
    """What was lost or damaged, for people, on one line; "": nothing."""
    lost = unpacker.course.lost
    reasons = dict.fromkeys(re.sub(r"^frame \d+: ", "", note) for note in unpacker.damage)
    reasons.pop(NEEDS_LOST, None)
    parts = list(reasons)[:_MAX_REASONS]
    if lost:
        why = f"it is lost, or {NEEDS_LOST}"
        if _total(lost) > 1:
            why = "each is lost or needs a frame that is lost"
        parts.insert(0, f"{_listed(lost)}: {why}")
    return "; ".join(parts)


def _total(ranges: list[range]) -> int:
    return sum(map(len, ranges))


def _listed(ranges: list[range]) -> str:
    """Numbers of frames for people, such as "frames 1, 3 to 12"."""
    shown = [
        f"{numbers.start} to {numbers.stop - 1}" if len(numbers) > 1 else str(numbers.start)
        for numbers in ranges[:_MAX_RANGES]
    ]
    count = _total(ranges)
    more = f" and others, {count} in all" if len(ranges) > _MAX_RANGES else ""
    return f"frame{'s' if count > 1 else ''} {', '.join(shown)}{more}"
