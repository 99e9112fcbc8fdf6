"""Output of the commands."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any, cast

from sempic import batch, console, progress
from sempic.batch import Done, Record
from sempic.errors import reason
from sempic.jobs import Job
from sempic.places import is_stdout


def each(
    jobs: list[Job],
    done: Done,
    describe: Callable[[Record], str],
    as_json: bool,
    manifest: batch.Manifest | None = None,
) -> int:
    """Report each record as it comes; returns the exit code."""
    out = sys.stderr if len(jobs) == 1 and is_stdout(jobs[0].target) else sys.stdout
    print_error: OSError | None = None

    def tell(text: str, file: Any) -> None:
        nonlocal print_error
        try:
            if file is not None:  # None: closed
                with progress.aside():
                    print(text, file=file)
        except BrokenPipeError:
            raise
        except OSError as cause:  # such as a full disk; the coded files remain useful
            print_error = cause

    failed = count = 0
    with (
        contextlib.closing(cast(Any, done)),  # ends workers at an interruption
        progress.bar(len(jobs), "file") as advance,
    ):
        for _, records in done:
            if manifest is not None:
                manifest.add(records)
            for record in records:
                count += 1
                path = record["path"]
                for note in record.get("notes", ()):
                    tell(console.printable(f"sempic: {path}: {note}"), sys.stderr)
                if "error" in record:
                    failed += 1
                    tell(console.printable(f"sempic: {path}: {record['error']}"), sys.stderr)
                elif not as_json:
                    tell(describe(record), out)
                if as_json:
                    tell(batch.json_line(record), out)
            advance()
    if failed and count > 1:
        console.say(f"{failed} of {count} files failed")
    if print_error is not None:
        console.discard_stdout()  # one message is enough
        console.say(f"cannot write to standard output: {reason(print_error)}")
        return 2
    return 2 if failed else 0


def summary(record: Record) -> str:
    """One line about a coded file."""
    path, to = (console.printable(record.get(key, "-")) for key in ("path", "output"))
    return (
        f"{path} → {to}: {record['width']}×{record['height']}, "
        f"{record['bytes']} bytes, {record['bpp']:.4f} bpp, {record['seconds']:.2f} s"
    )


def details(record: Record) -> str:
    """The parts of a stream, one per line."""
    path = console.printable(record["path"])
    pixels = record["width"] * record["height"]
    receiver = f"receiver {record['model']}" if record["model"] else "any receiver"
    parts = {
        f"coarse ({record['coarse_codec']})" if name == "coarse" else name: size
        for name, size in record["chunks"].items()
    }
    rows = [*parts.items(), ("all else", record["overhead"]), ("all", record["bytes"])]
    return "\n".join(
        [
            f"{path}: version {record['version']}, {record['width']}×{record['height']}, "
            f"palette {record['palette']}, {receiver}",
            *(f"  {name:<17}{size:>8} bytes{8 * size / pixels:>9.4f} bpp" for name, size in rows),
            *_shares(record.get("classes")),
            *verdict(record["receipt"]),
        ]
    )


def _shares(classes: dict[str, float] | None) -> list[str]:
    """The share of each class in the map, in one line."""
    shares = [f"{name} {share:.1%}" for name, share in (classes or {}).items()]
    return ["  map: " + ", ".join(shares)] if shares else []


def verdict(receipt: Record | None) -> list[str]:
    """The result of a check, one line for each group with objects."""
    if receipt is None:
        return []
    groups = {name: group for name, group in receipt["groups"].items() if any(group.values())}
    table = f", groups of table {receipt['table']}" if receipt["table"] else ""
    return [
        f"  checked by {receipt['verifier']}{table}: {_counted(receipt['all'])}",
        *(f"    {name}: {_counted(group)}" for name, group in groups.items()),
    ]


def _counted(group: Record) -> str:
    return (
        f"{group['kept']} of {group['seen']} kept, {group['lost']} lost, "
        f"{group['invented']} invented"
    )
