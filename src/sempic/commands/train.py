"""`sempic train COMMAND`, `sempic distill` (short for `train distill`) and `sempic sample`.

Without COMMAND, the flags are those of the paper's training.
"""

from __future__ import annotations

import argparse
import importlib
import operator
from typing import Any, NamedTuple

from sempic import fields
from sempic.training.options import RunOptions


class Training(NamedTuple):
    """A command of `sempic train`. Places are MODULE:NAME below `sempic.training`."""

    summary: str
    arguments: str
    """Place of an options dataclass or of a function that parses arguments; needs no extra."""
    function: str
    """Place of the function that is called with the parsed arguments."""


TRAININGS = {
    "segmenter": Training(
        "fine-tune an ImageNet backbone to find classes in pictures",
        "options:SegmenterOptions",
        "recipes.segmenter:Segmenter.run",
    ),
    "corpus": Training(
        "make what receivers learn from, once: renditions, maps, coarse pictures",
        "options:CorpusOptions",
        "data.render:make",
    ),
    "denoise": Training(
        "teach the compact receiver to denoise residuals",
        "options:DenoiseOptions",
        "recipes.denoise:Denoise.run",
    ),
    "distill": Training(
        "make a trained compact receiver sharp in 1 to 4 steps",
        "options:DistillOptions",
        "recipes.distill:Distill.run",
    ),
    "label-prior network": Training(
        "one of the two networks of the label coder's prior",
        "options:LabelPriorOptions",
        "recipes.label_prior:LabelPrior.run",
    ),
    "label-prior export": Training(
        "both networks as integers", "options:PriorExportOptions", "label_model:run_export"
    ),
    "label-prior tables": Training(
        "the other parts of a label model: readout and tables",
        "options:PriorTablesOptions",
        "label_model:run_tables",
    ),
    "paper": Training(
        "the paper's own network, under the original's flags", "flags:paper", "recipes.paper:run"
    ),
    "restore": Training(
        "turn an ONNX file into weights to train on from", "options:RestoreOptions", "restore:run"
    ),
    "grow": Training(
        "turn a receiver of CamVid's classes into one of Cityscapes'",
        "options:GrowOptions",
        "grow:run",
    ),
    "average": Training(
        "the mean of two trainings' weights", "options:AverageOptions", "grow:average"
    ),
    "export": Training(
        "write trained weights as the ONNX files that the product runs",
        "options:ExportOptions",
        "onnx:export",
    ),
    "features": Training(
        "put the frozen ImageNet features of distill into a folder",
        "options:FeaturesOptions",
        "losses:write_features",
    ),
    "convert": Training(
        "the paper's network: a .pt of the original to safetensors, or back",
        "flags:convert",
        "convert:run",
    ),
}
_SAMPLE = Training("rebuild a dataset's pictures", "flags:sample", "sample:run")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arguments", nargs=argparse.REMAINDER)


def run(args: argparse.Namespace) -> int:
    argv = args.arguments
    if args.command != "train":
        return _call(args.command, argv)
    if argv and argv[0].startswith("--") and argv[0] != "--help":
        argv = ["paper", *argv]
    listed = "\n".join(f"  {name:<21}{training.summary}" for name, training in TRAININGS.items())
    parser = argparse.ArgumentParser(
        prog="sempic train",
        description="Train the networks of sempic. `sempic train COMMAND --help` says more. With "
        "the original's flags (or --preset NAME) and no command, the paper's network is trained.",
        epilog=f"commands:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=TRAININGS, metavar="COMMAND")
    words = argv[: 2 if argv[:1] == ["label-prior"] else 1]
    asked = ["--help"] if "--help" in words else [" ".join(words)] if words else []
    return _call(parser.parse_args(asked).command, argv[len(words) :])


def _call(name: str, argv: list[str]) -> int:
    training = _SAMPLE if name == "sample" else TRAININGS[name]
    arguments = _found(training.arguments)
    parsed: Any = (
        fields.parse(arguments, argv, prog=f"sempic train {name}")
        if isinstance(arguments, type)
        else arguments(argv)
    )
    try:
        _found(training.function)(parsed)
    except KeyboardInterrupt:
        if name != "paper" and not isinstance(parsed, RunOptions):
            raise
        again = "the same command goes on from the last checkpoint"
        raise KeyboardInterrupt(again) from None
    return 0


def _found(place: str) -> Any:
    module, name = place.split(":")
    return operator.attrgetter(name)(importlib.import_module(f"sempic.training.{module}"))
