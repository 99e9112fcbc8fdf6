"""`sempic info`."""

from __future__ import annotations

import argparse
import functools

from sempic import api, batch, fields, models, sequence
from sempic.commands import _files, _report, _sequence
from sempic.console import need_stdout
from sempic.container import SEQUENCE_MAGIC
from sempic.errors import InputError, warn
from sempic.jobs import Job, find
from sempic.options import Models

_HELP = (
    "Prints size, rate and the cost of each part. Runs no network, and decodes only the label map, "
    "for --map."
)
_EXAMPLES = """
examples:
  sempic info photo.sempic
  sempic info photo.sempic --map    # also the share of road, person, void, …
  sempic info out/ --json           # one JSON object per file
"""


def add(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = _HELP, _EXAMPLES
    _files.add_inputs(parser, ".sempic files, folders of them, or - for standard input")
    parser.add_argument(
        "--map",
        action="store_true",
        help="decode the label map, and print the share of each class, void included",
    )
    fields.add(parser, Models, only=("prior",))


def run(args: argparse.Namespace) -> int:
    need_stdout()
    prior = Models(**fields.from_args(args, Models)).prior
    if prior and not args.map:
        raise InputError("--prior is for --map")
    jobs = find(args.inputs, None, accepted={".sempic"}, suffix=None)
    if len(jobs) > 1:
        batch.load(prior=prior)  # one error instead of one for each file
    code = _report.each(
        jobs,
        batch.here(functools.partial(_described, shares=args.map, prior=prior), jobs),
        _details,
        args.json,
    )
    if code == 0 and not args.json:
        print(models.TERMS)
    return code


def _described(job: Job, *, shares: bool, prior: str | None) -> batch.Record:
    data = job.read()
    if data.startswith(SEQUENCE_MAGIC):
        if shares:
            warn("--map is for pictures: a sequence has a map for each frame")
        return sequence.info(data)
    stream = batch.stream_of(data)
    return api.info(stream, shares=shares, prior=batch.coder_with(prior=prior).prior)


def _details(record: batch.Record) -> str:
    return _sequence.details(record) if "frames" in record else _report.details(record)
