"""`spic benchmark`, `spic evaluate` and `spic compare`: parse, call, print."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from spic.errors import SpicError
from spic.evaluation.measure import METRICS, Settings, available


def main(argv: Sequence[str]) -> int:
    """Run one of the three commands; returns the exit code, 0 or 2."""
    command, *rest = argv
    try:
        return {"evaluate": _evaluate}[command](rest)
    except SpicError as error:
        print(f"spic: {command}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("spic: interrupted", file=sys.stderr)
    return 2


def _evaluate(argv: Sequence[str]) -> int:
    from spic.evaluation.evaluate import describe, evaluate

    parser = argparse.ArgumentParser(
        prog="spic evaluate",
        description="Rate and quality of a folder with samples/ and images/ of the same names; "
        "with labels/, human index maps, mIoU too; with NAME.spic, or NAME.bpg and NAME.flif, "
        "anywhere in it, bpp too. As `spic sample` writes it.",
    )
    parser.add_argument("folder", type=Path, metavar="RESULT_DIR")
    parser.add_argument("--palette", help="of labels/; default: the .spic files', or the judge's")
    parser.add_argument("--json", action="store_true", help="print all, each picture too, as JSON")
    _options(parser)
    args = parser.parse_args(argv)
    settings = _settings(args)
    found, ceiling, table = evaluate(args.folder, settings, palette=args.palette)
    if args.json:
        whole = {"judge": settings.judge_name, "samples": found, "originals": ceiling}
        print(json.dumps({**whole, "pictures": table}, indent=1))
    else:
        print(describe(found, ceiling, settings))
    return 0


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--judge",
        metavar="SPEC",
        help="the segmenter that judges: an ONNX file, or hf:NAME for one of transformers'; "
        "never the one that encodes",
    )
    parser.add_argument("--inception", metavar="PATH", help="TorchScript file of the FID network")
    parser.add_argument(
        "--metrics",
        type=lambda text: text.split(","),
        metavar="A,B",
        help=f"some of {', '.join(METRICS)}; default: all whose weights are there",
    )


def _settings(args: argparse.Namespace) -> Settings:
    found, missing = available(args.metrics, args.inception)
    for line in missing:
        print(f"spic: {line}", file=sys.stderr)
    return Settings(judge=args.judge, inception=args.inception, metrics=tuple(found))
