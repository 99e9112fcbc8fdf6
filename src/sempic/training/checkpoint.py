"""A run's folder: `log.jsonl`, `state.safetensors` to go on from, and what is exported."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sempic import files
from sempic.errors import ModelError, OutputError, refused
from sempic.networks.weights import load_tensors, save_tensors

_Part = nn.Module | torch.optim.Optimizer | Mapping[str, Tensor]
Moving = Mapping[str, _Part]
"""Everything that changes from step to step, by name."""


class Folder:
    """The files of one run. A kill at any moment leaves the newest whole checkpoint."""

    def __init__(self, path: Path) -> None:
        files.make_folder(path)
        self.path = path
        self.state = path / "state.safetensors"
        self.log = path / "log.jsonl"

    def save(self, moving: Moving, about: dict[str, Any]) -> None:
        """Write a checkpoint; `about` is kept as JSON. Raises OutputError."""
        tensors = {
            f"{name}/{key}": value
            for name, part in moving.items()
            for key, value in _tensors(part).items()
        }
        save_tensors(tensors, "run", about, self.state)

    def load(self, moving: Moving, fixed: Mapping[str, Any]) -> dict[str, Any] | None:
        """Fill everything from the newest checkpoint and return its `about`; None: there is none.

        Raises ModelError if the checkpoint is of another recipe or shape, or was made with other
        values of what is `fixed`.
        """
        if not self.state.exists():
            return None
        tensors, about = load_tensors(self.state, "run")
        for name, value in fixed.items():
            began = about.get("fixed", {}).get(name, value)
            if value != began:
                raise ModelError(
                    f"{name} is {value!r}, but {self.path} began with {began!r}: choose another "
                    "--out"
                )
        for name, part in moving.items():
            mine = {
                key.removeprefix(f"{name}/"): value
                for key, value in tensors.items()
                if key.startswith(f"{name}/")
            }
            try:
                _fill(part, mine)
            except (RuntimeError, KeyError, ValueError) as error:
                reason = str(error).strip().splitlines()[-1].strip()
                raise ModelError(
                    f"{self.state} is of another run ({name}: {reason}): choose another --out"
                ) from error
        return about

    def forget_after(self, step: int) -> None:
        """What was logged after the checkpoint that is gone on from will be logged again; what is
        no line of ours, as a power failure leaves some, goes too. Raises OutputError."""
        if self.log.is_file():
            with refused(OutputError, f"{self.log}: cannot read"):
                lines = self.log.read_bytes().splitlines(keepends=True)
            files.write(self.log, b"".join(x for x in lines if _step(x) <= step))

    def note(self, step: int, values: Mapping[str, float]) -> None:
        """Append one JSON line to the log. Raises OutputError."""
        with refused(OutputError, f"{self.log}: cannot write"), self.log.open("a") as file:
            file.write(json.dumps({"step": step, "time": time.time(), **values}) + "\n")


def _step(line: bytes) -> float:
    """Of a line of the log; infinite for one that is none."""
    try:
        return float(json.loads(line)["step"]) if line.endswith(b"\n") else math.inf
    except (ValueError, TypeError, KeyError, RecursionError):
        return math.inf


def _tensors(part: _Part) -> Mapping[str, Tensor]:
    if isinstance(part, torch.optim.Optimizer):
        return {
            f"{index}.{key}": value
            for index, values in part.state_dict()["state"].items()
            for key, value in values.items()
        }
    return part.state_dict() if isinstance(part, nn.Module) else part


def _fill(part: _Part, tensors: dict[str, Tensor]) -> None:
    if isinstance(part, nn.Module):
        part.load_state_dict(tensors)
    elif isinstance(part, torch.optim.Optimizer):
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = value
        part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})
    else:
        for key, value in part.items():
            value.copy_(tensors[key])
