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
    data = checks.stream(data)
    head: Head | None = None
    frames: list[Frame] = []
    damaged = parity = 0
    reader = stream.Reader()
    for packet in reader.feed(data):
        if isinstance(packet, Head):
            head = head or packet
        elif isinstance(packet, Damage):
            damaged += 1
        elif isinstance(packet, Frame):
            frames.append(packet)
        elif isinstance(packet, Parity):
            parity += packet.size
    if head is None:
        raise CorruptStream("the sequence has no head that can be read")
    check_head(head)
    chunks = {
        name: sum(len(getattr(frame, name) or b"") for frame in frames)
        for name in ("coarse", "labels")
    }
    if parity:
        chunks["parity"] = parity
    seconds = float(len(frames) / head.rate)
    return {
        "version": head.version,
        "width": head.width,
        "height": head.height,
        "rate": float(head.rate),
        "palette": shown_name(head.palette, head.own),
        "model": head.model,
        "frames": len(frames),
        "keys": sum(frame.key for frame in frames),
        "seconds": seconds,
        "damaged": damaged + bool(reader.left),
        "bytes": len(data),
        "kbps": 8 * len(data) / seconds / 1000 if seconds else 0.0,
        "bpp": 8 * len(data) / max(1, len(frames) * head.width * head.height),
        "chunks": chunks,
        "overhead": len(data) - sum(chunks.values()),
        "sizes": [frame.size for frame in frames],
    }
