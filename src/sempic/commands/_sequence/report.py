"""Reports on sequences for people and as JSON."""

from __future__ import annotations

from typing import Any

from sempic import console


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def details(record: dict[str, Any]) -> str:
    """The contents of a sequence, a line for each part."""
    count, seconds = record["frames"], record["seconds"] or 1
    parts = [*record["chunks"].items(), ("all else", record["overhead"]), ("all", record["bytes"])]
    lines = [
        f"{console.printable(record['path'])}: a sequence, version {record['version']}, "
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
        f"{console.printable(record['path'])} → {console.printable(record['output'])}: "
        f"{_counted(record['frames'], 'frame')} of {record['width']}×{record['height']}, "
        f"{record['bytes']} bytes, {record['kbps']:.1f} kbit/s, {record['took']:.1f} s"
    )
