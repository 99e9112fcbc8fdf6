"""What came of a run: a file that says so, by which a later run goes on."""

from __future__ import annotations

import errno
import json
import os
from collections import defaultdict
from pathlib import Path

from sempic.batch.work import Record
from sempic.errors import InputError, OutputError, naming, refused
from sempic.jobs import Job, exists, read


class Manifest:
    """A file of JSON lines: first the settings, then one record for each picture.

    Each has file, output, bytes, bpp, seconds, error (null where there was none) and receipt (of a
    check, else null). A later run with the same settings adds to it.
    """

    def __init__(self, path: Path, settings: Record) -> None:
        """Raises InputError if the file is of a run with other settings, or none of ours, and
        OutputError if it cannot be written."""
        self._path, self._done = path, set[str]()
        self._failed: dict[str, set[str]] = defaultdict(set)
        """Output of a tar → members of the source that it lacks."""
        settings = json.loads(json.dumps(settings))  # as they will be read: tuples become lists
        text = ""
        if os.path.exists(path):
            with naming(path):
                text = read(path).decode("utf-8", "replace")
        for number, row in enumerate(text.rstrip("\n").split("\n") if text else ()):
            try:
                entry = json.loads(row)
                if number == 0 and entry["settings"] != settings:
                    raise InputError(
                        f"{path}: of a run with other settings; remove it to begin anew, or name "
                        "another with --manifest"
                    )
                if number and entry["error"] is None:
                    self._done.add(entry["output"])
                    self._failed[entry["output"]].discard(entry["file"])
                elif number and entry["output"] is not None:
                    self._failed[entry["output"]].add(entry["file"])
            except (ValueError, KeyError, TypeError, RecursionError) as cause:
                if number == 0:
                    raise InputError(f"{path}: not a manifest of sempic") from cause
                # A line that an interruption cut short: its file is coded again.
        self._head = "" if text else json.dumps({"settings": settings}) + "\n"
        """What is written before the first record: a run that never begins leaves nothing."""
        if text and not text.endswith("\n"):
            self._head = "\n"
        with refused(OutputError, f"{path}: cannot write"):
            there = next(each for each in (path, *path.absolute().parents) if each.exists())
            if there != path and not there.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not os.access(there, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def remaining(self, jobs: list[Job]) -> list[Job]:
        """Those whose output is not both recorded and there."""
        return [
            job
            for job in jobs
            if str(job.target) not in self._done or not job.target or not exists(job.target)
        ]

    def lacking(self, jobs: list[Job]) -> int:
        """How many of these are tars that were written without members that failed."""
        return sum(bool(self._failed.get(str(job.target))) for job in jobs)

    def add(self, records: list[Record]) -> None:
        if not records:
            return
        keys = ("output", "bytes", "bpp", "seconds", "error", "receipt")
        entries = [{"file": r["path"]} | {k: r.get(k) for k in keys} for r in records]
        text = self._head + "".join(json.dumps(e) + "\n" for e in entries)
        with refused(OutputError, f"{self._path}: cannot write"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(text)
        self._head = ""
