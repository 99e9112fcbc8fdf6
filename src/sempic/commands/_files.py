"""Shared by the commands that code files: arguments, and running the jobs."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import sempic
from sempic import batch, console, fields, files, formats, processes
from sempic.commands import _report
from sempic.errors import InputError
from sempic.jobs import Job
from sempic.places import STDOUT, is_local, need_local


def add_inputs(parser: argparse.ArgumentParser, inputs: str) -> None:
    parser.add_argument("inputs", nargs="+", metavar="FILE", help=inputs, action=_Inputs)
    parser.add_argument("--json", action="store_true", help="print one JSON object per file")


class _Inputs(argparse.Action):
    """Finds the files of *.jpg on Windows, whose shells leave that to programs."""

    def __call__(self, parser: Any, namespace: Any, names: Any, option: Any = None) -> None:
        if processes.WINDOWS:
            import glob

            found = (sorted(glob.glob(name.replace("[", "[[]"))) or [name] for name in names)
            names = [file for several in found for file in several]
        setattr(namespace, self.dest, names)


def add_output(parser: argparse.ArgumentParser, example: str) -> None:
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help=f"a file, a folder, or - for standard output; default: {example} beside photo",
    )


def add_many(parser: argparse.ArgumentParser, verb: str) -> None:
    """The options of runs over many files."""
    parser.add_argument(
        "-j",
        "--jobs",
        type=positive,
        default=1,
        metavar="N",
        help=f"{verb} this many files at a time, each in a process of one thread, at most "
        f"{processes.PER_CORE} a core; default 1",
    )
    parser.add_argument(
        "--engine",
        choices=batch.ENGINES,
        default=batch.ENGINES[0],
        help="run local processes (default), or Ray Data (needs the extra ray) on this machine or "
        "the cluster of RAY_ADDRESS",
    )
    parser.add_argument(
        "--manifest",
        metavar="FILE",
        help="record each result as a JSON line, and skip files that have a record and an output; "
        "default with --engine ray: manifest.jsonl in a local output folder",
    )


def only_for(what: str, names: Iterable[str]) -> None:
    """Raises InputError if there are names: options that need `what`, which is missing."""
    for name in names:
        raise InputError(f"--{name.replace('_', '-')} is for {what}")


def positive(text: str) -> int:
    """For argparse: a positive whole number."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


positive.__name__ = "positive whole number"


def run(args: argparse.Namespace, work: batch.Encode | batch.Decode, jobs: list[Job]) -> int:
    """Run and report all jobs."""
    with ExitStack() as held:
        manifest = None
        remaining = jobs
        path = args.manifest or (_manifest_of_ray(args, jobs) if args.engine == "ray" else None)
        if path is not None:
            if path == "-" or any(job.target == STDOUT for job in jobs):
                raise InputError("--manifest is for files, not for standard output")
            need_local(path)
            formats.check_name(Path(path), ".jsonl", ".json", ".txt")
            names = (name for name in fields.of(work) if name not in ("options", "replace"))
            own = {name: getattr(work, name) for name in names}
            settings = work.options.keywords() | own | {"sempic": sempic.__version__}
            manifest = batch.Manifest(Path(path), settings, held)
            remaining = manifest.remaining(jobs)
            if len(remaining) < len(jobs):
                lacking = manifest.lacking(jobs) - manifest.lacking(remaining)
                but = f"; {lacking} without members that failed, see {path}" if lacking else ""
                console.say(f"{len(jobs) - len(remaining)} of {len(jobs)} are done{but}")
        # Else the file's error says it.
        if len(remaining) > 1 or any(job.is_tar for job in remaining):
            work.prepare(remaining)
        if any(job.mkdir for job in remaining):
            place = Path(args.output)
            if is_local(args.output) and not place.exists():
                files.check_writable(place, folder=True)
        done = batch.run(work, remaining, engine=args.engine, workers=args.jobs)
        return _report.each(remaining, done, _report.summary, args.json, manifest)


def _manifest_of_ray(args: argparse.Namespace, jobs: list[Job]) -> str:
    target = next((job.target for job in jobs if job.target is not None), Path())
    if not is_local(target):
        return "manifest.jsonl"
    return str((Path(args.output) if jobs[0].mkdir else target.parent) / "manifest.jsonl")
