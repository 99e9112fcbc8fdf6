"""`sempic train convert`: weights of the paper's network between the original's format and ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sempic import files
from sempic.diffusion.checkpoints import flags_from_configs, load_model, open_model, save_model
from sempic.diffusion.flags import command_line
from sempic.diffusion.original import write_original
from sempic.jobs import apart


def run(arguments: Mapping[str, Any]) -> None:
    """Convert `source` to `target`. Other arguments are the flags of a source `.pt` (`open_model`);
    the flags of a target `.pt` are printed."""
    flags = dict(arguments)
    source, target = Path(flags.pop("source")), Path(flags.pop("target"))
    apart((source,), target)
    if source.suffix.lower() != ".safetensors":
        files.need_suffix(target, ".safetensors", "weights")
        model, process = open_model(source, flags or None)
        save_model(target, model.state_dict(), model.config, process)
        return
    files.need_suffix(target, ".pt", "the original's weights")
    model, process = load_model(source)
    line = command_line(flags_from_configs(model.config, process))
    write_original(target, model.state_dict())
    print(line)
