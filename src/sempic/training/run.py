"""What every training run shares: a folder, one log with an ETA, resumable checkpoints, EMA."""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sempic.errors import InputError, ModelError

_Module = TypeVar("_Module", bound=nn.Module)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that every training of a bundled model has."""
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with camvid/ and, for variety, labelmefacade/",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the run; resumed if it has begun"
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of a CPU")
    parser.add_argument(
        "--device",
        type=_device,
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="where to train; default: the GPU if there is one",
    )


def _device(name: str) -> str:
    """Raises InputError for a device that PyTorch does not have here."""
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).strip().splitlines()[0]}") from error
    return name


class Run:
    """A training run in a folder: `log.jsonl`, `state.pt` (resumable), and whatever is exported.

    `state.pt` is written to a temporary name and moved, so that a kill at any moment leaves the
    newest whole one. It is read with `weights_only=True`: tensors and plain values only.
    """

    def __init__(self, folder: Path, total: int, device: str = "cpu") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.total, self.step, self.device = folder, total, 0, device
        self._started, self._first = time.monotonic(), 0

    @property
    def state(self) -> Path:
        return self.folder / "state.pt"

    def resume(self) -> dict[str, Any] | None:
        """The newest checkpoint, or None; sets `step`."""
        if not self.state.exists():
            return None
        state: dict[str, Any] = torch.load(self.state, map_location=self.device, weights_only=True)
        self.step = self._first = int(state["step"])
        return state

    def save(self, **state: Any) -> None:
        part = self.state.with_suffix(".part")
        torch.save({"step": self.step, **state}, part)
        os.replace(part, self.state)

    def log(self, **values: float) -> None:
        """Append one JSON line and print it with speed and remaining time."""
        elapsed = time.monotonic() - self._started
        seconds = elapsed / max(1, self.step - self._first)
        left = int(seconds * (self.total - self.step))
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.step, "time": time.time(), **values}) + "\n")
        shown = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        print(
            f"step {self.step}/{self.total}  {shown}  {seconds:.2f} s/step  "
            f"ETA {left // 3600}:{left // 60 % 60:02}:{left % 60:02}",
            flush=True,
        )


def fast(device: str) -> torch.autocast:
    """Mixed precision: convolutions in bfloat16 on the CPU and on GPUs alike."""
    return torch.autocast(torch.device(device).type, torch.bfloat16)


def compiled(module: _Module, device: str) -> _Module:
    """The module through torch.compile on a GPU; on a CPU as it is, where that does not pay."""
    return module if device == "cpu" else cast("_Module", torch.compile(module))


def save_weights(state: dict[str, Tensor], kind: str, config: Any, path: Path) -> None:
    """Write safetensors, atomically, with the configuration (a dataclass) in the metadata."""
    part = path.with_suffix(".part")
    contiguous = {key: value.contiguous() for key, value in state.items()}
    save_file(contiguous, part, {f"sempic.{kind}": json.dumps(asdict(config))})
    os.replace(part, path)


def load_weights(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights that `save_weights` wrote, and the fields of their configuration.

    Raises:
        ModelError: not safetensors, or of another kind of network.
    """
    try:
        with safe_open(path, "pt") as file:
            config = (file.metadata() or {}).get(f"sempic.{kind}")
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: not safetensors ({error})") from error
    if config is None:
        raise ModelError(f"{path}: not the weights of a {kind}")
    return load_file(path), json.loads(config)


class Ema:
    """Exponential moving average of a module's parameters; buffers are copied.

    The decay warms up as (1 + step) / (10 + step), so that early averages forget the start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.state: dict[str, Tensor] = {
            k: v.detach().clone() for k, v in module.state_dict().items()
        }

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                self.state[key].lerp_(value, 1 - decay)
            else:
                self.state[key].copy_(value)

    def load(self, state: dict[str, Tensor], steps: int) -> None:
        self.state, self.steps = state, steps
