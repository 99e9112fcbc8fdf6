"""Reports on sequences for people and as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sempic import processes, sequence

if TYPE_CHECKING:
    from sempic.sequence import Moment

_MAX_RANGES, _MAX_REASONS = 10, 3
"""The most ranges of lost frames, and other reasons, that a message names."""


@dataclass(slots=True)
class Tally:
    """Counts the decoded frames of a sequence and the lost ones."""

    written: int = 0
    lost: list[range] = field(default_factory=list)
    """Numbers of frames that are lost or need a lost frame, in order."""
    _next: int = 0
    """Number of the next frame."""

    def add(self, moment: Moment) -> None:
        """Counts a frame that was written."""
        self.written += 1
        lost = range(self._next, moment.number + (not moment.arrived))
        self._next = moment.number + 1
        if lost and self.lost and self.lost[-1].stop == lost.start:
            self.lost[-1] = range(self.lost[-1].start, lost.stop)
        elif lost:
            self.lost.append(lost)

    def record(self, info: dict[str, Any]) -> dict[str, Any]:
        """`sequence.info` of the bytes read, with frames, seconds, kbps and bpp of the frames
        written, and the number of lost frames."""
        seconds, size = self.written / info["rate"], info["bytes"]
        return info | {
            "frames": self.written,
            "lost": _total(self.lost),
            "seconds": seconds,
            "kbps": 8 * size / seconds / 1000,
            "bpp": 8 * size / (self.written * info["width"] * info["height"]),
        }

    def damage(self, notes: Iterable[str]) -> str:
        """Lost frames and other damage on one line; "" without damage. notes: `Unpacker.damage`."""
        from sempic.sequence.pack import NEEDS_LOST

        reasons = dict.fromkeys(re.sub(r"^frame \d+: ", "", note) for note in notes)
        reasons.pop(NEEDS_LOST, None)
        parts = list(reasons)[:_MAX_REASONS]
        if self.lost:
            many = _total(self.lost) > 1
            why = "each is lost or needs a frame that is lost"
            parts.insert(
                0, f"{_listed(self.lost)}: {why if many else f'it is lost, or {NEEDS_LOST}'}"
            )
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


def described(data: bytes) -> dict[str, Any]:
    """`sequence.info` of a file, rounded."""
    record = sequence.info(data)
    return record | {"bpp": round(record["bpp"], 5), "kbps": round(record["kbps"], 3)}


def details(record: dict[str, Any]) -> str:
    """The contents of a sequence, a line for each part."""
    count, seconds = record["frames"], record["seconds"] or 1
    parts = [*record["chunks"].items(), ("all else", record["overhead"]), ("all", record["bytes"])]
    lines = [
        f"{processes.printable(record['path'])}: a sequence, version {record['version']}, "
        f"{record['width']}×{record['height']}, {count} frames, {record['keys']} of them key "
        f"frames, {record['rate']:g} a second, palette {record['palette']}"
    ]
    for name, size in parts:
        lines.append(
            f"  {name:<10}{size:>9} bytes{size / max(1, count):>9.1f} a frame"
            f"{8 * size / seconds / 1000:>9.2f} kbit/s"
        )
    if damaged := record["damaged"]:
        lines.append(f"  {damaged} packet{'s' if damaged > 1 else ''} cannot be read")
    return "\n".join(lines)


def summary(record: dict[str, Any]) -> str:
    """One line about a sequence that was encoded or decoded."""
    frames = "1 frame" if record["frames"] == 1 else f"{record['frames']} frames"
    return (
        f"{processes.printable(record['path'])} → {processes.printable(record['output'])}: "
        f"{frames} of {record['width']}×{record['height']}, {record['bytes']} bytes, "
        f"{record['kbps']:.1f} kbit/s, {record['took']:.1f} s"
    )
