"""Options of all commands that measure: judge, FID network and metrics."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sempic import console
from sempic.errors import InputError
from sempic.evaluation.measure import Settings, available
from sempic.evaluation.measures import METRICS


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--judge",
        metavar="SPEC",
        help="judging segmenter: an ONNX file, or hf:NAME for a model of transformers; never the "
        "one that encodes",
    )
    parser.add_argument("--inception", metavar="PATH", help="TorchScript file of the FID network")
    parser.add_argument(
        "--metrics",
        type=listed,
        metavar="A,B",
        help=f"out of {', '.join(METRICS)}; default: all whose weights are installed, except the "
        "slow " + ", ".join(m.name for m in METRICS.values() if m.costly),
    )


def listed(text: str) -> list[str]:
    """argparse type of A,B: names, each once, and maybe with spaces around them."""
    return list(dict.fromkeys(name.strip() for name in text.split(",")))


def settings(
    args: argparse.Namespace,
    usual: Sequence[str] | None = None,
    *,
    of_sets: bool = True,
    of_maps: bool,
) -> Settings:
    """Settings with the requested metrics, else with the available ones of `usual`.

    of_sets, of_maps: whether there may be several pictures, and human maps; requested metrics that
    need them are reported. Raises InputError if no metric is left.
    """
    found, missing = available(args.metrics, args.inception, args.judge, usual)
    left = []
    for name in found:
        if METRICS[name].of_sets and not of_sets:
            missing += [f"no {name}: it needs several pictures"] * bool(args.metrics)
        elif METRICS[name].of_maps and not of_maps:
            missing += [f"no {name}: it needs human maps"] * bool(args.metrics)
        else:
            left.append(name)
    for line in missing:
        console.say(line)
    if not left:
        raise InputError("no metric is left that can be measured")
    return Settings(judge=args.judge, inception=args.inception, metrics=tuple(left))
