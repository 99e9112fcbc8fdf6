"""Options of all commands that measure: judge, FID network and metrics."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sempic import console
from sempic.errors import InputError, ModelError
from sempic.evaluation.measure import Settings
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
    """Settings with the metrics of --metrics, names out of METRICS or of their figures; else with
    those of `usual` (None: all but the costly ones) whose networks are there. Says what is not.

    of_sets, of_maps: whether there may be several pictures, and human maps.

    Raises InputError for an unknown name, or if no metric is left, ModelError if a requested metric
    lacks its network.
    """
    if usual is None:
        usual = [m.name for m in METRICS.values() if not m.costly]
    names = args.metrics or [name for name in METRICS if name in usual]
    owner = {f.name: m.name for m in METRICS.values() for f in m.figures} | {m: m for m in METRICS}
    left = []
    for name in dict.fromkeys(owner.get(name, name) for name in names):
        if name not in METRICS:
            raise InputError(f"metric {name!r} is not one of {', '.join(METRICS)}")
        metric = METRICS[name]
        try:
            metric.networks(args.inception, args.judge)
        except ModelError as error:
            if args.metrics:
                raise
            console.say(f"no {name}: {error}")
            continue
        needed = ["several pictures"] * (bool(metric.of_sets) and not of_sets)
        needed += ["human maps"] * (metric.of_maps and not of_maps)
        if not needed:
            left.append(name)
        elif args.metrics:
            console.say(f"no {name}: it needs {needed[0]}")
    if not left:
        raise InputError("no metric is left that can be measured")
    return Settings(judge=args.judge, inception=args.inception, metrics=tuple(left))
