"""The device of a run: its choice, precision, random noise and copies to it."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sempic.errors import ModelError
from sempic.training.options import RunOptions

_Module = TypeVar("_Module", bound=nn.Module)


def autocast(device: torch.device) -> torch.autocast:
    """Mixed precision in bfloat16; float32 on processors that only emulate bfloat16: on them a step
    takes 40 times as long as in float32 (a convolution of 64 channels, AVX2)."""
    kind = "cpu" if device.type == "meta" else device.type
    fast = kind != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(kind, torch.bfloat16, enabled=fast)


def compiled(module: _Module, device: torch.device) -> _Module:
    """The module, through torch.compile on a GPU; compiling does not pay on a CPU.

    Each new input shape is compiled again, which takes a minute.
    """
    if device.type != "cuda":
        return module
    return cast("_Module", torch.compile(module, dynamic=False))


def set_up(options: RunOptions) -> torch.device:
    """Set threads, seed and precision of a run; returns its device. Raises ModelError."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(auto if options.device == "auto" else options.device)
        torch.zeros((), device=device).item()
    except Exception as error:  # of a class and with pages of text by the kind of device
        why = "PyTorch knows no such device, or cannot use it here"
        if options.device.startswith("cuda") and not torch.cuda.is_available():
            why = "there is no GPU that PyTorch can use"
        raise ModelError(f"--device {options.device}: {why}") from error
    if options.reproducible:
        torch.use_deterministic_algorithms(True, warn_only=True)
    elif device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    return device


def step_seed(options: RunOptions, step: int) -> int:
    """Seed of PyTorch's generators for one step, the same in a resumed run."""
    return options.seed * 1_000_003 + step


def generator(options: RunOptions, step: int) -> torch.Generator | None:
    """Generator for a step's noise: the CPU's with --reproducible, so that all devices draw the
    same; else None for the device's default one, which `train` seeds before each step."""
    if not options.reproducible:
        return None
    return torch.Generator().manual_seed(step_seed(options, step))


def to_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """The array on the device; the copy to a GPU is asynchronous. On the CPU a contiguous array
    that may be written shares its memory."""
    tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
