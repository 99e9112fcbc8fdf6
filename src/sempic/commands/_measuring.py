"""Shared by the commands that measure: the judge and the metrics."""

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
        help="the segmenter that measures: an ONNX file, or hf:NAME for a model of transformers; "
        "not the one that encodes",
    )
    parser.add_argument("--inception", metavar="PATH", help="TorchScript file of the FID network")
    parser.add_argument(
        "--metrics",
        type=listed,
        metavar="A,B",
        help=f"some of {', '.join(METRICS)}; default: all with weights on this machine, not the "
        "slow " + ", ".join(m.name for m in METRICS.values() if m.costly),
    )


def listed(text: str) -> list[str]:
    """For argparse: A,B."""
    return text.split(",")


def settings(args: argparse.Namespace, usual: Sequence[str] | None = None) -> Settings:
    """The judge and metrics of the arguments; default: the usual metrics, if available."""
    found, missing = available(args.metrics, args.inception, args.judge, usual)
    for line in missing:
        processes.say(line)
    return Settings(judge=args.judge, inception=args.inception, metrics=tuple(found))
