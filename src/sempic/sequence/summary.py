"""What a sequence holds and what each part costs."""

from __future__ import annotations

from typing import Any

from sempic import checks
from sempic.errors import CorruptStream
from sempic.palette import shown_name
from sempic.sequence import stream
from sempic.sequence.pack import check_head
from sempic.sequence.stream import Damage, Frame, Head, Parity


def info(data: bytes) -> dict[str, Any]:
    """Keys: version, width, height (pixels), rate (frames in a second), palette (name), model (id,
    0 for any), frames, keys (how many of them are key frames), seconds, damaged (packets that
    cannot be read), bytes, kbps (kbit in a second), bpp (bits for each pixel of each frame),
    chunks ({"coarse": …, "labels": …}, and "parity" if there is any, in bytes), overhead (bytes of
    all else), sizes (bytes of each frame). No payload is decoded.

    Raises a BitstreamError for what is no sequence, or whose head no decoder here takes.
    """
    summary = Summary()
    summary.feed(checks.stream(data))
    return summary.info()


class Summary:
    """`info` of a sequence that comes in pieces."""

    def __init__(self) -> None:
        self._reader = stream.Reader()
        self._head: Head | None = None
        self._bytes = self._damaged = self._keys = 0
        self._sizes: list[int] = []
        self._chunks = {"coarse": 0, "labels": 0}

    def feed(self, piece: bytes) -> None:
        """Raises NotSempic or UnsupportedVersion."""
        self._bytes += len(piece)
        for packet in self._reader.feed(piece):
            if isinstance(packet, Head):
                self._head = self._head or packet
            elif isinstance(packet, Damage):
                self._damaged += 1
            elif isinstance(packet, Frame):
                self._keys += packet.key
                self._sizes.append(packet.size)
                for name in ("coarse", "labels"):
                    self._chunks[name] += len(getattr(packet, name) or b"")
            elif isinstance(packet, Parity):
                self._chunks["parity"] = self._chunks.get("parity", 0) + packet.size

    def info(self) -> dict[str, Any]:
        """Of all pieces until now; raises a BitstreamError where `sempic.sequence.info` does."""
        head, count, size = self._head, len(self._sizes), self._bytes
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
            "seconds": seconds,
            "damaged": self._damaged + bool(self._reader.left),
            "bytes": size,
            "kbps": 8 * size / seconds / 1000 if seconds else 0.0,
            "bpp": 8 * size / max(1, count * head.width * head.height),
            "chunks": dict(self._chunks),
            "overhead": size - sum(self._chunks.values()),
            "sizes": list(self._sizes),
        }
