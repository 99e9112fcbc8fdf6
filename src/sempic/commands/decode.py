"""`sempic decode`."""

from __future__ import annotations

import argparse

from sempic import batch, fields
from sempic.commands import _files, _sequence
from sempic.errors import InputError
from sempic.jobs import TAR, find
from sempic.options import DecodeOptions

_HELP = (
    "Writes NAME.png beside each file, or where -o says; the suffix there chooses the format. "
    "Without -o no existing picture is replaced. Exit code 2 if any file failed."
)
_EXAMPLES = """
examples:
  sempic decode photo.sempic -o decoded.png              # 1 step
  sempic decode photo.sempic -o decoded.jpg --steps 4    # the map counts more
  sempic decode photo.sempic -o other.png --seed 7       # other details, as likely
  sempic decode photo.sempic --only labels               # photo.labels.png: what is where
  sempic decode photo.sempic -o decoded.png --uncertainty imagined.png --samples 2
  sempic decode out/ -o pictures/                      # a folder
  sempic decode drive.sempic -o drive.mp4                # a sequence: a video, or a folder

The receiver invents detail. A decoded picture shows what is likely, not what was there.
"""


def add(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = _HELP, _EXAMPLES
    _files.add_inputs(parser, ".sempic files, folders of them, tars, or - for standard input")
    _files.add_output(parser, "photo.png")
    parser.add_argument(
        "--only",
        choices=("labels", "coarse"),
        help="just the coloured label map, or the coarse picture enlarged; no receiver needed",
    )
    fields.add(parser, DecodeOptions)
    parser.add_argument(
        "--uncertainty",
        metavar="MAP",
        help="also write this grey picture of where decodes of other seeds differ: four times the "
        "standard deviation of each pixel over --samples of them. Black is where the seeds agree, "
        "which they may where all are wrong",
    )
    parser.add_argument(
        "--samples", type=_files.positive, metavar="N", help="of --uncertainty; default 8"
    )
    parser.add_argument(
        "--receiver",
        "--model",
        metavar="SPEC",
        help="an ONNX file, or a checkpoint of the paper's network (.safetensors, .pt; needs "
        "the extra train); default: the bundled receiver",
    )
    _files.add_prior(parser, "decode")
    parser.add_argument(
        "--images",
        default=".png",
        metavar="ENDING",
        help="how the names of pictures are to end in tars, such as .jpg; default .png",
    )
    _files.add_many(parser, "decode")


def run(args: argparse.Namespace) -> int:
    if _sequence.decodes(args):
        return _sequence.decode(args)
    given = fields.given(args, DecodeOptions)
    if args.only:
        asked = (*given, *(["receiver"] if args.receiver else []))
        _files.only_for("the receiver, which --only leaves out", asked)
    if args.samples is not None and not args.uncertainty:
        raise InputError("--samples is for --uncertainty; a decode is one sample")
    options = DecodeOptions(**given)
    jobs = find(
        args.inputs,
        args.output,
        found={".sempic", TAR},
        suffix=f".{args.only}.png" if args.only else ".png",
        reads=(args.receiver, args.prior),
        writes=(args.uncertainty, args.manifest),
    )
    if args.uncertainty and (
        len(jobs) > 1 or len(args.inputs) > 1 or args.only or any(job.is_tar for job in jobs)
    ):
        raise InputError("--uncertainty is for one file, and not with --only")
    chosen = {name: getattr(args, name) for name in ("receiver", "prior", "only", "images")}
    work = batch.Decode(
        options=options,
        replace=args.output is not None,
        uncertainty=args.uncertainty,
        samples=args.samples or 8,
        **chosen,
    )
    return _files.run(args, work, jobs, options.keywords() | chosen)
