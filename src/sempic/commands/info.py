"""`sempic info`."""

from __future__ import annotations

import argparse

from sempic import batch, models
from sempic.commands import _files, _report
from sempic.jobs import Job, find

_HELP = "Prints size, rate and the cost of each part. No network runs and no pixel is decoded."
_EXAMPLES = """
examples:
  sempic info photo.sempic
  sempic info out/ --json    # one object a file, for programs
"""


def add(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = _HELP, _EXAMPLES
    _files.add_inputs(parser, ".sempic files, folders of them, or - for standard input")


def run(args: argparse.Namespace) -> int:
    _report.need_stdout()
    jobs = find(args.inputs, None, found={".sempic"}, suffix=None)
    code = _report.each(jobs, batch.here(_described, jobs), _report.details, args.json)
    if not args.json:
        print(models.TERMS)
    return code


def _described(job: Job) -> batch.Record:
    return batch.described(batch.stream_of(job.read()))
