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

    arguments: str
    """Place of an options dataclass or of a function that parses arguments; needs no extra."""
    function: str
    """Place of the function that is called with the parsed arguments."""

    @property
    def summary(self) -> str:
        """The first sentence of the docstring of `arguments`."""
        text = _found(self.arguments).__doc__ or ""  # none under python -OO
        return " ".join(text.split()).partition(". ")[0].rstrip(".")


TRAININGS = {
    "segmenter": Training("options:SegmenterOptions", "recipes.segmenter:Segmenter.run"),
    "corpus": Training("options:CorpusOptions", "data.render:make"),
    "denoise": Training("options:DenoiseOptions", "recipes.denoise:Denoise.run"),
    "distill": Training("options:DistillOptions", "recipes.distill:Distill.run"),
    "label-prior network": Training(
        "options:LabelPriorOptions", "recipes.label_prior:LabelPrior.run"
    ),
    "label-prior export": Training("options:PriorExportOptions", "label_model:run_export"),
    "label-prior tables": Training("options:PriorTablesOptions", "label_model:run_tables"),
    "paper": Training("flags:paper", "recipes.paper:run"),
    "restore": Training("options:RestoreOptions", "restore:run"),
    "grow": Training("options:GrowOptions", "grow:run"),
    "average": Training("options:AverageOptions", "grow:average"),
    "export": Training("options:ExportOptions", "onnx:export"),
    "features": Training("options:FeaturesOptions", "losses:write_features"),
    "convert": Training("flags:convert", "convert:run"),
}
_SAMPLE = Training("flags:sample", "sample:run")


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
