"""Checkpoints of the original code: `.pt` files of weights, EMAs and optimizer state.

Only tensors and plain values are unpickled, so that a file cannot run code.
"""

from __future__ import annotations

import io
import pickle
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sempic import files
from sempic.errors import ModelError


def read_original(path: Path) -> dict[str, Tensor]:
    """State dict of a `modelNNN.pt` or `ema_RATE_NNN.pt`. Raises ModelError for other content."""
    state = _unpickled(path)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{path}: holds something else than a state dict")
    return dict(state)


def _unpickled(path: Path) -> Any:
    """The content of a file of `torch.save`. Raises ModelError for more than tensors and plain
    values."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch's own message tells how to load the file unsafely.
        raise ModelError(
            f"{path}: holds more than tensors and plain values, or is damaged: not loaded"
        ) from error
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except Exception as error:  # damaged bytes may be any pickle opcodes
        raise ModelError(f"{path}: not a file that PyTorch saved, or a damaged one") from error


def read_progress(
    path: Path, rates: Sequence[float]
) -> tuple[int, dict[float, dict[str, Tensor]], dict[str, Any] | None]:
    """The step in the name of a `.pt`, and of the files of this step beside it: the EMAs by rate,
    of each `ema_RATE_NNN.pt`; the state of AdamW by names of parameters, None without `optNNN.pt`.

    As in the original, another name than `modelNNN.pt` means step 0 without other files. Raises
    ModelError if a file cannot be read or does not belong to the model, or an EMA has another rate.
    """
    match = re.fullmatch(r"model(\d+)\.pt", path.name)
    step = int(match[1]) if match else 0
    if not step:
        return 0, {}, None
    weights = read_original(path)
    averages = {}
    wanted = {f"ema_{rate}_{step:06d}.pt": rate for rate in rates}
    for beside in sorted(path.parent.glob(f"ema_*_{step:06d}.pt")):
        if beside.name not in wanted:
            raise ModelError(f"{beside}: add its rate to --ema_rate, or move it away")
        average = averages[wanted[beside.name]] = read_original(beside)
        shapes = ({k: v.shape for k, v in x.items()} for x in (average, weights))
        if next(shapes) != next(shapes):
            raise ModelError(f"{beside}: not an average of {path.name}")
    beside = path.with_name(f"opt{step:06d}.pt")
    state = None
    if beside.exists():
        try:
            state = _adam(_unpickled(beside), weights)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ModelError(f"{beside}: not the optimizer state of {path.name}") from error
    return step, averages, state


def _adam(state: dict[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The state of the original's AdamW by names of parameters; `weights` has their order.

    With --use_fp16 the original optimizes two tensors: all vectors concatenated, and all others.
    """
    entries = [state["state"][number] for number in sorted(state["state"])]
    groups = [[name] for name in weights]
    if len(entries) == 2 < len(groups):
        groups = [[n for n, w in weights.items() if (w.dim() > 1) == rest] for rest in (0, 1)]
    found = {}
    for entry, names in zip(entries, groups, strict=True):
        sizes = [weights[name].numel() for name in names]
        means, squares = (entry[key].flatten().split(sizes) for key in ("exp_avg", "exp_avg_sq"))
        for name, mean, square in zip(names, means, squares, strict=True):
            shape = weights[name].shape
            found[name] = {
                "step": torch.tensor(float(entry["step"])),
                "exp_avg": mean.view(shape).clone(),
                "exp_avg_sq": square.view(shape).clone(),
            }
    return found


CLASS_COUNTS = (11, 19, 34, 35, 151, 183)
"""Numbers of classes of known datasets, to distinguish an edge channel from a class. 35 channels
count as 35 classes, not as 34 and edges."""


def shape_flags(weights: Mapping[str, Tensor]) -> dict[str, object]:
    """The original's flags that follow from the tensors of a state dict; the rest as published.

    The decoder shows the levels: each but the finest ends in an upsampling block. Raises ModelError
    if `weights` are not those of this network.
    """

    def shape(key: str) -> torch.Size:
        if key not in weights:
            raise ModelError(f"{key} is missing")
        return weights[key].shape

    num_channels = shape("time_embed.0.weight")[1]
    condition = shape("middle_block.0.in_norm.mlp_shared.0.weight")[1]
    instance = condition not in CLASS_COUNTS and condition - 1 in CLASS_COUNTS
    shape("output_blocks.0.0.out_layers.2.weight")
    matches = (re.fullmatch(r"output_blocks\.(\d+)\.(\d+)\.(.+)", key) for key in weights)
    layers = [(int(match[1]), match[2] != "0", match[3]) for match in matches if match]
    resamplers = ("in_norm.mlp_gamma.weight", "conv.weight")  # of layers after a stage's first
    ends = {stage for stage, later, name in layers if later and name in resamplers}
    tops = sorted(ends | {max(stage for stage, *_ in layers)})
    attention = {bisect_left(tops, stage) for stage, _, name in layers if name == "qkv.weight"}
    convolved = any(name == "conv.weight" for *_, name in layers)
    widths = [shape(f"output_blocks.{top}.0.out_layers.2.weight")[0] for top in reversed(tops)]
    coarsest = len(tops) - 1
    features = shape("input_blocks.1.0.emb_layers.1.weight")[0]
    return {
        "image_size": 2 ** (coarsest + 3),
        "num_channels": num_channels,
        "num_res_blocks": tops[0],
        "channel_mult": ",".join(f"{width / num_channels:g}" for width in widths),
        "attention_resolutions": ",".join(str(2 ** (level + 3)) for level in sorted(attention)),
        "num_head_channels": 64,
        "num_classes": condition - instance,
        "no_instance": not instance,
        "learn_sigma": shape("out.2.weight")[0] == 6,
        "use_scale_shift_norm": features == 2 * widths[0],
        "resblock_updown": not convolved,
    }


def write_original(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a state dict as a `.pt` that the original loads. Raises OutputError."""
    data = io.BytesIO()
    torch.save(dict(weights), data)
    files.write(path, data.getvalue())
