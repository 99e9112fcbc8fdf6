"""The manifest of a run: its records in a file, from which a later run continues."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from sempic import files, processes
from sempic.batch.work import Record, json_line
from sempic.console import as_json, readable
from sempic.errors import JSON_FAULTS, InputError, OutputError, naming, refused
from sempic.jobs import Job
from sempic.places import exists, read


class Manifest:
    """A file of JSON lines: the settings, then one record for each picture.

    A record has file, output, bytes, bpp, seconds, error (null: none) and receipt (null: no check).
    A later run with the same settings appends records.
    """

    def __init__(self, path: Path, settings: Record, held: ExitStack) -> None:
        """Read the file if it exists. Raises InputError if the path is a device or a pipe, or the
        file is of a run with other settings or not a manifest, and OutputError if the file cannot
        be written, or another run writes it.

        held: takes the lock of the file, as soon as it exists.
        """
        self._path, self._held, self._done = path, held, dict[str, str]()
        self._failed: dict[str, set[str]] = defaultdict(set)
        """Output tar → source members that failed."""
        settings = json.loads(as_json(settings))  # as in the file
        text = damaged = ""
        self._exists = os.path.exists(path)
        if self._exists:
            if not os.path.isfile(path):  # /dev/zero has no end, and a pipe waits for a writer
                raise InputError(f"{path}: not a file, as a manifest must be")
            held.enter_context(files.locked(path))
            with naming(path):
                text = read(path).decode("utf-8", "surrogateescape")
        head, *rows = text.rstrip("\n").split("\n")
        faults = *JSON_FAULTS, KeyError, TypeError
        if text:
            with refused(InputError, f"{path}: not a manifest of sempic", *faults, unfit=True):
                other = _differing(json.loads(head)["settings"], settings)
            if other:
                raise InputError(
                    f"{path}: of a run with other settings, {other}; remove it to start again, or "
                    "name another with --manifest"
                )
        for row in rows:
            try:
                entry = json.loads(row)
                if entry["error"] is None:
                    self._done[entry["output"]] = os.fspath(entry["file"])
                    self._failed[entry["output"]].discard(entry["file"])
                elif entry["output"] is not None:
                    self._failed[entry["output"]].add(entry["file"])
            except faults:
                damaged = row  # its file is coded again
        rest = text[text.rfind("\n") + 1 :]
        self._half = len(rest.encode("utf-8", "surrogateescape")) if rest == damaged else 0
        """Bytes at the end of the file to remove: a line that an interruption cut short."""
        self._head = "" if text else as_json({"settings": settings}) + "\n"
        """Written before the first record, so that a run without records leaves no file."""
        if rest and not self._half:
            self._head = "\n"
        files.check_writable(path)

    def remaining(self, jobs: list[Job]) -> list[Job]:
        """The jobs without a record of their source and output, or without an existing output."""
        return [job for job in jobs if not self._is_done(job)]

    def _is_done(self, job: Job) -> bool:
        coded = self._done.get(_name(str(job.target)))
        if coded is None or job.target is None or job.source is None or not exists(job.target):
            return False
        # The record of a tar names one of its members.
        if coded.startswith(_name(job.name) + "/"):  # also of a member ../x
            return True
        source = readable(os.path.realpath(job.name))
        return os.path.join(os.path.realpath(coded), "").startswith(os.path.join(source, ""))

    def lacking(self, jobs: list[Job]) -> int:
        """Number of jobs whose output tar lacks members that failed."""
        return sum(bool(self._failed.get(_name(str(job.target)))) for job in jobs)

    def add(self, records: list[Record]) -> None:
        """Append whole lines or nothing. Raises OutputError, also for a file that another run has
        begun meanwhile."""
        if not records:
            return
        keys = ("bytes", "bpp", "seconds", "error", "receipt")
        entries = [
            {
                "file": _name(r["path"]),
                "output": _name(r["output"]) if "output" in r else None,
                **{key: r.get(key) for key in keys},
            }
            for r in records
        ]
        text = self._head + "".join(json_line(entry) + "\n" for entry in entries)
        with refused(OutputError, f"{self._path}: cannot write"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        if not self._exists and self._path.exists():
            raise OutputError(f"{self._path}: another run has begun it meanwhile")
        files.append(self._path, text.encode(), replacing=self._half)
        if not self._exists:
            self._held.enter_context(files.locked(self._path))
        self._head, self._half, self._exists = "", 0, True


def _name(path: str) -> str:
    """The path of a file as in manifests, which are the same on every system."""
    return readable(path.replace("\\", "/") if processes.WINDOWS else path)


def _differing(before: Record, now: Record) -> str:
    """The settings that differ, for a message; "" if none does."""
    if before.keys() != now.keys():
        return "those of another command or version"
    told = []
    for name in before:
        old, new = (f"{settings[name]!r:.40}" for settings in (before, now))
        if before[name] != now[name]:
            told.append(f"{name} {old} and not {new}" if old != new else f"another {name}")
    return ", ".join(told)
