"""`sempic evaluate`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from sempic import processes
from sempic.commands import _measuring
from sempic.errors import InputError


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Rate and quality of a folder with samples/ and images/ of the same names; "
        "with labels/, human maps, mIoU too; with NAME.sempic, or NAME.bpg and NAME.flif, "
        "anywhere in it, bpp too. As `sempic sample` writes it, or the original's code."
    )
    parser.add_argument("folder", type=Path, metavar="RESULT_DIR")
    parser.add_argument("--palette", help="of labels/; default: the .sempic files', or the judge's")
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="DIR",
        help="what another segmenter finds in samples/, maps of ids or colours, instead of a judge",
    )
    parser.add_argument(
        "--num_classes", type=int, metavar="N", help="of the palette indices: ids below N; 255"
    )
    parser.add_argument("--json", action="store_true", help="print all, each picture too, as JSON")
    _measuring.add(parser)


def run(args: argparse.Namespace) -> int:
    from sempic.evaluation.evaluate import describe, evaluate

    if args.num_classes is not None and not 1 <= args.num_classes <= 255:
        raise InputError(f"num_classes must lie in 1…255, not {args.num_classes}")
    settings = replace(_measuring.settings(args), num_classes=args.num_classes)
    found = evaluate(args.folder, settings, palette=args.palette, predictions=args.predictions)
    for note in found.notes:
        processes.say(note)
    if args.json:
        judge = str(args.predictions) if args.predictions else settings.judge_name
        print(json.dumps({"judge": judge, **asdict(found)}, indent=1))
    else:
        print(describe(found.samples, found.originals, settings))
    return 0
