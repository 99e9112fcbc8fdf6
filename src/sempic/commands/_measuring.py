"""What the commands share that measure: how pictures are judged, and by what."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sempic import processes
from sempic.evaluation.measure import Settings, available
from sempic.evaluation.measures import METRICS


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--judge",
        metavar="SPEC",
        help="the segmenter that judges: an ONNX file, or hf:NAME for one of transformers'; "
        "never the one that encodes",
    )
    parser.add_argument("--inception", metavar="PATH", help="TorchScript file of the FID network")
    parser.add_argument(
        "--metrics",
        type=listed,
        metavar="A,B",
        help=f"some of {', '.join(METRICS)}; default: all whose weights are there, but for the "
        "slow " + ", ".join(m.name for m in METRICS.values() if m.costly),
    )


def listed(text: str) -> list[str]:
    """For argparse: A,B."""
    return text.split(",")


def settings(args: argparse.Namespace, usual: Sequence[str] | None = None) -> Settings:
    """The metrics that are asked for, or else the usual ones as far as they are there."""
    found, missing = available(args.metrics, args.inception, args.judge, usual)
    for line in missing:
        processes.say(line)
    return Settings(judge=args.judge, inception=args.inception, metrics=tuple(found))
