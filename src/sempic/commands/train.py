"""`sempic train …`: one command for each network, all of them resumable; `distill`, the same as
`train distill`; and `sample`, of the paper's network.

Without a command's name, the flags are those of the paper's own training.
"""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from sempic import fields

TRAININGS = {
    "segmenter": "fine-tune an ImageNet backbone to find classes in pictures",
    "corpus": "make what receivers learn from, once: renditions, maps, coarse pictures",
    "denoise": "teach the compact receiver to denoise residuals",
    "distill": "make a trained compact receiver sharp in 1 to 4 steps",
    "label-prior network": "one of the two networks of what the label coder knows beforehand",
    "label-prior export": "the integers of both",
    "label-prior tables": "what a label model adds to them: readout and tables",
    "paper": "the paper's own network, under the original's flags",
    "restore": "turn an ONNX file into weights to train on from",
    "grow": "a receiver of CamVid's classes as one of Cityscapes'",
    "average": "one network between two trainings of it",
    "export": "write trained weights as the ONNX files that the product runs",
    "features": "put the frozen ImageNet features of distill into a folder",
    "convert": "the paper's network: a .pt of the original to safetensors, or back",
}
_HOMES = {
    "segmenter": ("options:SegmenterOptions", "recipes.segmenter:run"),
    "corpus": ("options:CorpusOptions", "data.render:make"),
    "denoise": ("options:DenoiseOptions", "recipes.denoise:run"),
    "distill": ("options:DistillOptions", "recipes.distill:run"),
    "label-prior network": ("options:LabelPriorOptions", "recipes.label_prior:run"),
    "label-prior export": ("options:PriorExportOptions", "recipes.label_prior:run_export"),
    "label-prior tables": ("options:PriorTablesOptions", "recipes.label_prior:run_tables"),
    "paper": ("flags:paper", "recipes.paper:run"),
    "restore": ("options:RestoreOptions", "restore:run"),
    "grow": ("options:GrowOptions", "grow:run"),
    "average": ("options:AverageOptions", "average:run"),
    "export": ("options:ExportOptions", "onnx:export"),
    "features": ("options:FeaturesOptions", "losses:write_features"),
    "convert": ("flags:convert", "convert:run"),
    "sample": ("flags:sample", "sample:run"),
}
"""Of each, within `sempic.training`: what reads its arguments, a dataclass of options or a function
(neither needs an extra), and the function that is given what they say."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arguments", nargs=argparse.REMAINDER)


def run(args: argparse.Namespace) -> int:
    argv = args.arguments
    if args.command != "train":
        return _call(args.command, argv)
    if argv and argv[0].startswith("--") and argv[0] != "--help":
        argv = ["paper", *argv]
    listed = "\n".join(f"  {name:<21}{what}" for name, what in TRAININGS.items())
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
    """Runs what lies in `sempic.training` under that name."""
    options, function = _HOMES[name]
    read = _found(options)
    given: Any = (
        fields.parse(read, argv, prog=f"sempic train {name}")
        if isinstance(read, type)
        else read(argv)
    )
    try:
        _found(function)(given)
    except KeyboardInterrupt:
        again = "the same command goes on from the last checkpoint"
        raise KeyboardInterrupt(again) from None
    return 0


def _found(home: str) -> Any:
    module, name = home.split(":")
    return getattr(importlib.import_module(f"sempic.training.{module}"), name)
