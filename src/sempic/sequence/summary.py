"""What a sequence holds and what each part costs."""

from __future__ import annotations

from typing import Any

from sempic import checks
from sempic.container import MAX_PIXELS, MAX_SIDE
from sempic.errors import CorruptStream, LimitExceeded, UnsupportedProfile
from sempic.palette import IDENTITY, PALETTES, shown_name
from sempic.sequence import stream
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
    _check(head)
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


def _check(head: Head) -> None:
    """Raises LimitExceeded, UnsupportedProfile or CorruptStream where `Unpacker` does."""
    size = f"{head.width}×{head.height}"
    if not (1 <= head.width <= MAX_SIDE and 1 <= head.height <= MAX_SIDE):
        raise LimitExceeded(f"{size}: each side must be 1…{MAX_SIDE}")
    if head.width * head.height > MAX_PIXELS:
        raise LimitExceeded(f"{size} is more than {MAX_PIXELS} pixels")
    if head.palette not in PALETTES or head.model == 15 or head.factor > 255:
        raise UnsupportedProfile(
            f"palette {head.palette}, model {head.model}, factor {head.factor}: not known here"
        )
    if head.own and not IDENTITY.fullmatch(head.own):
        raise CorruptStream("the head names no palette")
