"""`sempic train convert`: checkpoints of the paper's network, the original's and ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sempic import files
from sempic.diffusion.checkpoints import flags_from_configs, load_model, open_model, save_model
from sempic.diffusion.flags import command_line
from sempic.diffusion.original import write_original
from sempic.jobs import apart


def run(given: Mapping[str, Any]) -> None:
    """`given`: source and target, and the flags of a .pt (`open_model`); those of one that was
    written are printed."""
    flags = dict(given)
    source, target = Path(flags.pop("source")), Path(flags.pop("target"))
    apart((source,), target)
    if source.suffix.lower() != ".safetensors":
        model, process = open_model(source, flags or None)
        save_model(target, model.state_dict(), model.config, process)
        return
    files.need_suffix(target, ".pt", "the original's weights")
    model, process = load_model(source)
    words = flags_from_configs(model.config, process)
    write_original(target, model.state_dict())
    print(command_line(words))
