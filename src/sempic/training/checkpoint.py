"""The folder of a run: `log.jsonl`, and the checkpoint `state.safetensors`."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
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
"""All state that training changes, by name."""


class Folder:
    """The files of one run. Killing the process at any moment leaves a whole checkpoint."""

    def __init__(self, path: Path) -> None:
        files.make_folder(path)
        self.path = path
        self.state = path / "state.safetensors"
        self.log = path / "log.jsonl"

    def save(self, moving: Moving, about: dict[str, Any]) -> None:
        """Write a checkpoint; `about` are JSON values. Raises OutputError."""
        tensors = {
            f"{name}/{key}": value
            for name, part in moving.items()
            for key, value in _tensors(part).items()
        }
        save_tensors(tensors, "run", about, self.state)

    def load(self, moving: Moving, fixed: Mapping[str, Any]) -> dict[str, Any] | None:
        """Fill `moving` in place from the checkpoint. Returns its `about`, or None without one.

        Raises ModelError if the checkpoint has another recipe, other shapes, or other values of
        `fixed` settings.
        """
        if not self.state.exists():
            return None
        tensors, about = load_tensors(self.state, "run")
        for name, value in fixed.items():
            before = about.get("fixed", {}).get(name, value)
            if value != before:
                raise ModelError(
                    f"{name} is {value!r}, but {self.path} began with {before!r}: choose another "
                    "--out"
                )
        parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for key, value in tensors.items():
            name, _, own = key.partition("/")
            parts[name][own] = value
        for name, part in moving.items():
            try:
                _fill(part, parts[name])
            except (RuntimeError, KeyError, ValueError) as error:
                reason = str(error).strip().splitlines()[-1].strip()
                raise ModelError(
                    f"{self.state} is of another run ({name}: {reason}): choose another --out"
                ) from error
        return about

    def forget_after(self, step: int) -> None:
        """Remove log lines of later steps, which a resumed run repeats, and damaged lines. Raises
        OutputError."""
        if self.log.is_file():
            with refused(OutputError, f"{self.log}: cannot read"):
                lines = self.log.read_bytes().splitlines(keepends=True)
            files.write(self.log, b"".join(x for x in lines if _step(x) <= step))

    def note(self, step: int, values: Mapping[str, float]) -> None:
        """Append one JSON line to the log. Raises OutputError."""
        line = {"step": step, "time": time.time(), **values}
        files.append(self.log, (json.dumps(line) + "\n").encode())


def _step(line: bytes) -> float:
    """The step of a log line; infinity for a damaged line."""
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
            # A copy: the file is mapped into memory, and Windows replaces no mapped file.
            state.setdefault(int(index), {})[key] = value.clone()
        part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})
    else:
        for key, value in part.items():
            value.copy_(tensors[key])
