"""`sempic train convert`: weights of the paper's network between the original's format and ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sempic import files
from sempic.diffusion.checkpoints import flags_from_configs, open_model, save_model
from sempic.diffusion.flags import command_line
from sempic.diffusion.original import write_original
from sempic.places import apart


def run(arguments: Mapping[str, Any]) -> None:
    """Convert `source` to `target`. Other arguments are the source's flags (`open_model`); the
    flags of a target `.pt` are printed."""
    flags = dict(arguments)
    source, target = Path(flags.pop("source")), Path(flags.pop("target"))
    apart((source,), target)
    ours = source.suffix.lower() == ".safetensors"
    suffix, what = (".pt", "the original's weights") if ours else (".safetensors", "weights")
    files.need_suffix(target, suffix, what)
    model, process = open_model(source, flags or None)
    if not ours:
        save_model(target, model.state_dict(), model.config, process)
        return
    line = command_line(flags_from_configs(model.config, process))
    write_original(target, model.state_dict())
    print(line)
