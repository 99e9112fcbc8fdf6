"""`sempic compare`."""

from __future__ import annotations

import argparse
from pathlib import Path

from sempic import console, fields, files, formats
from sempic.commands import _files, _measuring
from sempic.evaluation.measure import lacking
from sempic.options import Models
from sempic.places import apart


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compares versions of a picture with the original: figures, and a page on which one "
        "version slides over another. Versions are pictures, .sempic and .bpg files."
    )
    parser.add_argument("original", type=Path)
    parser.add_argument("versions", type=Path, nargs="+", metavar="VERSION")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("compare.html"),
        metavar="PAGE",
        help="the page, HTML; default compare.html",
    )
    parser.add_argument("--labels", type=Path, metavar="MAP", help="human label map, for mIoU")
    parser.add_argument(
        "--steps", type=_files.positive, default=1, metavar="N", help="for .sempic; default 1"
    )
    fields.add(parser.add_argument_group("for .sempic"), Models, only=("receiver", "prior"))
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    _measuring.add(parser)


def run(args: argparse.Namespace) -> int:
    from sempic.evaluation.compare import compare, describe

    models = Models(**fields.from_args(args, Models))
    apart((args.original, *args.versions, args.labels, models.receiver, models.prior), args.output)
    formats.check_name(args.output, ".html", ".htm")
    files.check_writable(args.output)
    settings = _measuring.settings(args, of_sets=False, of_maps=args.labels is not None)
    found, page = compare(
        args.original,
        args.versions,
        settings,
        labels=args.labels,
        steps=args.steps,
        models=models,
    )
    for note in lacking(settings.metrics, found, of_maps=args.labels is not None):
        console.say(note)
    files.make_folder(args.output.parent)
    files.write(args.output, console.readable(page).encode())
    print(console.as_json(found, indent=1) if args.json else describe(found))
    return 0
