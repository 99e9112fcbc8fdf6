"""What commands share that read files: their arguments, and how many files are gone through."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sempic
from sempic import batch, processes
from sempic.commands import _report
from sempic.errors import InputError
from sempic.jobs import STDOUT, Job


def add_inputs(parser: argparse.ArgumentParser, inputs: str) -> None:
    parser.add_argument("inputs", nargs="+", metavar="FILE", help=inputs)
    parser.add_argument("--json", action="store_true", help="print one JSON object a file")


def add_output(parser: argparse.ArgumentParser, example: str) -> None:
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help=f"a file, a folder, or - for standard output; default: {example} beside photo",
    )


def add_many(parser: argparse.ArgumentParser, verb: str) -> None:
    """Who does it, and what is written of it."""
    parser.add_argument(
        "-j",
        "--jobs",
        type=positive,
        default=1,
        metavar="N",
        help=f"{verb} so many files at a time, each in a process of one thread; default 1",
    )
    parser.add_argument(
        "--engine",
        choices=batch.ENGINES,
        default=batch.ENGINES[0],
        help="who runs them: processes of this machine (the default), or Ray Data (needs "
        "the extra ray) on this machine or the cluster that RAY_ADDRESS names",
    )
    parser.add_argument(
        "--manifest",
        metavar="FILE",
        help="record what came of each file as JSON lines, and skip what is recorded and there; "
        "with --engine ray the default is manifest.jsonl in the output folder, if that is local",
    )


def only_for(what: str, given: Iterable[str]) -> None:
    """Raises InputError for an option that was given, and is only for what is not at hand."""
    for name in given:
        raise InputError(f"--{name.replace('_', '-')} is for {what}")


def positive(text: str) -> int:
    """For argparse: a whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


positive.__name__ = "positive whole number"


def run(
    args: argparse.Namespace, work: batch.Work, jobs: list[Job], settings: dict[str, Any]
) -> int:
    """Has all of it done and reported; `settings` are what the files depend on."""
    manifest = None
    todo = jobs
    path = args.manifest or (_manifest_of_ray(args, jobs) if args.engine == "ray" else None)
    if path is not None:
        if any(job.target == STDOUT for job in jobs):
            raise InputError("--manifest is for files, not for standard output")
        manifest = batch.Manifest(Path(path), settings | {"sempic": sempic.__version__})
        todo = manifest.remaining(jobs)
        if len(todo) < len(jobs):
            lacking = manifest.lacking(jobs) - manifest.lacking(todo)
            but = f"; {lacking} without members that failed, see {path}" if lacking else ""
            processes.say(f"{len(jobs) - len(todo)} of {len(jobs)} are done{but}")
    done = batch.run(work, todo, engine=args.engine, workers=args.jobs)
    return _report.each(todo, done, _report.summary, args.json, manifest)


def _manifest_of_ray(args: argparse.Namespace, jobs: list[Job]) -> str:
    target = next((job.target for job in jobs if job.target is not None), Path())
    if "://" in str(target):
        return "manifest.jsonl"
    return str((Path(args.output) if jobs[0].mkdir else target.parent) / "manifest.jsonl")
