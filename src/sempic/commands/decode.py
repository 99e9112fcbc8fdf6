"""`sempic decode`."""

from __future__ import annotations

import argparse
from pathlib import Path

from sempic import batch, fields
from sempic.commands import _files, _sequence
from sempic.errors import InputError, naming
from sempic.jobs import TAR, find
from sempic.options import DecodeOptions

_HELP = (
    "Writes NAME.png beside each file, or to -o, whose suffix chooses the format; of a folder's "
    "pictures --images does. Only with -o are existing pictures replaced. Exit code 2 if any file "
    "failed."
)
_EXAMPLES = """
examples:
  sempic decode photo.sempic -o decoded.png            # 1 step
  sempic decode photo.sempic -o decoded.jpg --steps 4  # follows the map more closely
  sempic decode photo.sempic -o other.png --seed 7     # other details, equally likely
  sempic decode photo.sempic --only labels             # photo.labels.png: the label map
  sempic decode photo.sempic -o decoded.png --uncertainty imagined.png --samples 2
  sempic decode out/ -o pictures/                      # a folder; --images .jpg for JPEGs
  sempic decode drive.sempic -o drive.mp4              # a sequence: a video, or a folder

The receiver invents detail. A decoded picture shows what is likely, not what was there.
"""


def add(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = _HELP, _EXAMPLES
    _files.add_inputs(parser, ".sempic files, folders of them, tars, or - for standard input")
    _files.add_output(parser, "photo.png")
    fields.add(parser, DecodeOptions)
    fields.add(parser, batch.Decode, but=("options", "replace"))
    _files.add_many(parser, "decode")


def run(args: argparse.Namespace) -> int:
    from sempic import formats, pictures

    if _sequence.decodes(args):
        return _sequence.decode(args)
    given, own = fields.from_args(args, DecodeOptions), fields.from_args(args, batch.Decode)
    options = DecodeOptions(**given)
    work = batch.Decode(options=options, replace=args.output is not None, **own)
    if work.only:
        _files.only_for(
            "the receiver, which --only leaves out", [*given, *{"receiver"} & own.keys()]
        )
    if work.only == "coarse":
        _files.only_for("label maps, which --only coarse leaves out", {"prior"} & own.keys())
    if "samples" in own and not work.uncertainty:
        raise InputError("--samples is for --uncertainty; a decode is one sample")
    jobs = find(
        args.inputs,
        args.output,
        accepted={".sempic", TAR},
        suffix=f".{work.only}{work.ending}" if work.only else work.ending,
        reads=(work.receiver, work.prior),
        foreign=formats.COMPRESSED,
        writes=(work.uncertainty, args.manifest),
    )
    if args.output is not None and not any(job.is_tar or job.mkdir for job in jobs):
        _files.only_for("folders and tars; -o names this picture", own.keys() & {"images"})
    several = len(jobs) > 1 or len(args.inputs) > 1 or any(job.is_tar for job in jobs)
    if work.uncertainty and (several or work.only or args.manifest):
        raise InputError("--uncertainty is for one file, and not with --only or --manifest")
    for flag, name in ("--uncertainty", work.uncertainty), ("--images", f"x{work.ending}"):
        if name is not None:
            with naming(flag):
                pictures.format_of(Path(name).suffix)
    return _files.run(args, work, jobs)
