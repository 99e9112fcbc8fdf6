"""`sempic evaluate`."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path

from sempic import console
from sempic.commands import _measuring
from sempic.errors import InputError
from sempic.evaluation.measures import METRICS


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Rate and quality of a folder with samples/ and images/ of the same names, as written by "
        "`sempic sample` or the original's code. labels/ with human maps adds mIoU. NAME.sempic, "
        "or NAME.bpg and NAME.flif, anywhere in the folder, add bpp."
    )
    parser.add_argument("folder", type=Path, metavar="RESULT_DIR")
    parser.add_argument(
        "--palette",
        help="palette of labels/, a custom one as a JSON file; default: the .sempic files', or the "
        "judge's",
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="DIR",
        help="maps of samples/ by another segmenter, ids or colours, instead of a judge",
    )
    parser.add_argument(
        "--num_classes",
        type=int,
        metavar="N",
        help="with the palette indices: ids from N on are void; default 255",
    )
    parser.add_argument(
        "--json", action="store_true", help="print all figures, also of each picture, as JSON"
    )
    _measuring.add(parser)


def run(args: argparse.Namespace) -> int:
    from sempic.evaluation.evaluate import describe, evaluate

    console.need_stdout()
    if args.num_classes is not None and not 1 <= args.num_classes <= 255:
        raise InputError(f"num_classes must lie in 1…255, not {args.num_classes}")
    if args.predictions is not None and args.judge is not None:
        raise InputError("--predictions replace the judge: leave out --judge")
    settings = _measuring.settings(args, of_maps=(args.folder / "labels").is_dir())
    _check_uses(args, settings.metrics)
    settings = replace(settings, num_classes=args.num_classes)
    found = evaluate(args.folder, settings, palette=args.palette, predictions=args.predictions)
    for note in found.notes:
        console.say(note)
    if args.json:
        judge = str(args.predictions) if args.predictions else settings.judge_name
        print(console.as_json({"judge": judge, **asdict(found)}, indent=1))
    else:
        print(describe(found.samples, found.originals, settings))
    return 0


def _check_uses(args: argparse.Namespace, metrics: tuple[str, ...]) -> None:
    """Refuses options of mIoU without it, and names metrics of the judge that `--predictions`
    replace. Raises InputError."""
    for name in ("predictions", "num_classes"):
        if vars(args)[name] is not None and "miou" not in metrics:
            raise InputError(f"--{name} is for mIoU, and miou is not among the metrics")
    if args.palette is not None and not {"miou", "confirmed"} & {*metrics}:
        raise InputError("--palette is for human maps, and no metric compares with them")
    if args.predictions is not None and args.metrics:
        for name in metrics:
            if METRICS[name].judged and name != "miou":
                console.say(f"no {name}: it needs a judge, which --predictions replace")
