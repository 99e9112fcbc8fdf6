"""`sempic train …`: one command for each network, all of them resumable.

Without a command's name, the flags are those of the paper's own training.
"""

from __future__ import annotations

import argparse
import importlib

from sempic import extras

TRAININGS = {
    "segmenter": "fine-tune an ImageNet backbone to find classes in pictures",
    "corpus": "make what receivers learn from, once: renditions, maps, coarse pictures",
    "denoise": "teach the compact receiver to denoise residuals",
    "distill": "make a trained compact receiver sharp in 1 to 4 steps",
    "label-prior": "what the label coder knows beforehand: networks and tables",
    "paper": "the paper's own network, under the original's flags",
    "restore": "turn an ONNX file into weights to train on from",
    "grow": "a receiver of CamVid's classes as one of Cityscapes'",
    "export": "write trained weights as the ONNX files that the product runs",
    "features": "put the frozen ImageNet features of distill into a folder",
    "convert": "the paper's network: a .pt of the original to safetensors, or back",
}
_HOMES = {
    "segmenter": "recipes.segmenter:main",
    "corpus": "data.corpus:main",
    "denoise": "recipes.denoise:main",
    "distill": "recipes.distill:main",
    "label-prior": "recipes.label_prior:main",
    "paper": "recipes.paper:main",
    "restore": "onnx:restore",
    "grow": "onnx:grow_classes",
    "export": "onnx:export",
    "features": "losses:main",
    "convert": "convert:main",
    "sample": "sample:main",
}


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arguments", nargs=argparse.REMAINDER)


def run(args: argparse.Namespace) -> int:
    argv = args.arguments
    if argv and argv[0].startswith("--") and argv[0] != "--help":
        argv = ["paper", *argv]
    listed = "\n".join(f"  {name:<13}{what}" for name, what in TRAININGS.items())
    parser = argparse.ArgumentParser(
        prog="sempic train",
        description="Train the networks of sempic. `sempic train COMMAND --help` says more. With "
        "the original's flags (or --preset NAME) and no command, the paper's network is trained.",
        epilog=f"commands:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=TRAININGS, metavar="COMMAND")
    return call(parser.parse_args(argv[:1]).command, argv[1:])


def call(name: str, argv: list[str]) -> int:
    """Runs what lies in `sempic.training` under that name."""
    with extras.pretended(not {"-h", "--help"}.isdisjoint(argv)):
        module, function = _HOMES[name].split(":")
        main = getattr(importlib.import_module(f"sempic.training.{module}"), function)
        try:
            main(argv)
        except KeyboardInterrupt:
            again = "the same command goes on from the last checkpoint"
            raise KeyboardInterrupt(again) from None
    return 0
