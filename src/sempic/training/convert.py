"""Checkpoints of the paper's network: the original's and ours."""

from __future__ import annotations

import argparse
from pathlib import Path

from sempic.diffusion.checkpoints import load_model, open_model, save_model
from sempic.diffusion.flags import DEFAULTS, command_line, flags_from_configs
from sempic.diffusion.original import write_original


def main(argv: list[str]) -> None:
    """`sempic train convert`."""
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
