"""Reports on sequences for people and as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sempic import processes

_MAX_RANGES, _MAX_REASONS = 10, 3
"""The most ranges of lost frames, and other reasons, that a message names."""


def damage(lost: list[range], notes: Iterable[str]) -> str:
    """Lost frames and other damage on one line; "" without damage. lost: `Course.lost`. notes:
    `Unpacker.damage`."""
    from sempic.sequence.pack import NEEDS_LOST

    reasons = dict.fromkeys(re.sub(r"^frame \d+: ", "", note) for note in notes)
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


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def details(record: dict[str, Any]) -> str:
    """The contents of a sequence, a line for each part."""
    count, seconds = record["frames"], record["seconds"] or 1
    parts = [*record["chunks"].items(), ("all else", record["overhead"]), ("all", record["bytes"])]
    lines = [
        f"{processes.printable(record['path'])}: a sequence, version {record['version']}, "
        f"{record['width']}×{record['height']}, {_counted(count, 'frame')}, "
        f"{_counted(record['keys'], 'key frame')}, {record['rate']:g} a second, palette "
        f"{record['palette']}"
    ]
    for name, size in parts:
        lines.append(
            f"  {name:<10}{size:>9} bytes{size / max(1, count):>9.1f} a frame"
            f"{8 * size / seconds / 1000:>9.2f} kbit/s"
        )
    if lost := record["lost"]:
        lines.append(f"  {_counted(lost, 'frame')} lost, or in need of a lost one")
    if damaged := record["damaged"]:
        lines.append(f"  {_counted(damaged, 'packet')} cannot be read")
    return "\n".join(lines)


def summary(record: dict[str, Any]) -> str:
    """One line about a sequence that was encoded or decoded."""
    return (
        f"{processes.printable(record['path'])} → {processes.printable(record['output'])}: "
        f"{_counted(record['frames'], 'frame')} of {record['width']}×{record['height']}, "
        f"{record['bytes']} bytes, {record['kbps']:.1f} kbit/s, {record['took']:.1f} s"
    )
