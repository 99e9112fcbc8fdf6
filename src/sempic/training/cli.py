"""`sempic train …`: one command for each network, all of them resumable.

Without a command's name, the flags are those of the paper's own training.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from sempic.errors import SempicError

_COMMANDS = {
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
    "convert": "cli:convert",
}


def main(argv: list[str]) -> int:
    """Run one of the training commands; returns the exit code, 0 or 2."""
    if argv and argv[0].startswith("--") and argv[0] != "--help":
        argv = ["paper", *argv]
    listed = "\n".join(f"  {name:<13}{what}" for name, what in _COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="sempic train",
        description="Train the networks of sempic. `sempic train COMMAND --help` says more. With "
        "the original's flags (or --preset NAME) and no command, the paper's network is trained.",
        epilog=f"commands:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=_COMMANDS, metavar="COMMAND")
    command = parser.parse_args(argv[:1]).command
    module, function = _HOMES[command].split(":")
    run = getattr(importlib.import_module(f"sempic.training.{module}"), function)
    return _guard(f"train {command}", run, argv[1:])


def sample(argv: list[str]) -> int:
    """`sempic sample`: pictures of the paper's network; returns the exit code, 0 or 2."""
    from sempic.training import sample as command

    return _guard("sample", command.main, argv)


def convert(argv: list[str]) -> None:
    """`sempic train convert`."""
    from sempic.diffusion.checkpoints import load_model, open_model, save_model
    from sempic.diffusion.flags import DEFAULTS, command_line, flags_from_configs
    from sempic.diffusion.original import write_original

    parser = argparse.ArgumentParser(
        prog="sempic train convert",
        description="SOURCE.pt to TARGET.safetensors, or SOURCE.safetensors to TARGET.pt, whose "
        "flags are printed. For a .pt, give the flags that it was trained with; without any, its "
        "tensors tell the shape, and the rest is taken as published.",
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    for name, default in DEFAULTS.items():
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=f"({default})")
    given = vars(parser.parse_args(argv))
    source, target = given.pop("source"), given.pop("target")
    if source.suffix.lower() != ".safetensors":
        model, process = open_model(source, given or None)
        save_model(target, model.state_dict(), model.config, process)
        return
    model, process = load_model(source)
    flags = flags_from_configs(model.config, process)
    write_original(target, model.state_dict())
    print(command_line(flags))


def _guard(name: str, run: Callable[[list[str]], object], argv: list[str]) -> int:
    try:
        run(argv)
    except SempicError as error:
        print(f"sempic: {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "sempic: interrupted; the same command goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 2
    return 0
