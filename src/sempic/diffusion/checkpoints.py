"""Weights of the paper's network with their configuration: ours, and the original's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from torch import Tensor

from sempic.diffusion.flags import check_flags, configs_from_flags
from sempic.diffusion.gaussian import DiffusionConfig
from sempic.diffusion.original import read_original, shape_flags
from sempic.errors import ModelError
from sempic.networks.unet import SemanticUNet, UNetConfig
from sempic.networks.weights import configured, filled, load_tensors, save_tensors


def save_model(
    path: Path, weights: Mapping[str, Tensor], unet: UNetConfig, diffusion: DiffusionConfig
) -> None:
    """Write a state dict with its configuration (`save_tensors`). Raises OutputError."""
    save_tensors(weights, "unet", {"unet": asdict(unet), "diffusion": asdict(diffusion)}, path)


def load_model(path: Path) -> tuple[SemanticUNet, DiffusionConfig]:
    """The network of a file that `save_model` wrote, in evaluation mode, and its process.

    Raises ModelError.
    """
    weights, said = load_tensors(path, "unet")
    unet = configured(UNetConfig, said.get("unet"), path)
    diffusion = configured(DiffusionConfig, said.get("diffusion"), path)
    return filled(lambda: SemanticUNet(unet), weights, path).eval(), diffusion


def open_model(
    path: Path, flags: Mapping[str, object] | None = None
) -> tuple[SemanticUNet, DiffusionConfig]:
    """The network of our safetensors or of the original's `.pt`, in evaluation mode, its process.

    `flags` are those that the `.pt` was trained with. Without them its tensors tell the shape
    (`shape_flags`), and what they cannot tell is as published: heads of 64 channels, 1000 linear
    steps, epsilon. Ours know their configuration, which `flags` may not contradict
    (`check_flags`). Raises `ModelError`.
    """
    if path.suffix.lower() == ".safetensors":
        model, process = load_model(path)
        if flags:
            precision = check_flags(flags, model.config, process, path)
            model.config = replace(model.config, precision=precision)
        return model, process
    weights = read_original(path)
    try:
        unet, diffusion = configs_from_flags(shape_flags(weights) if flags is None else flags)
    except ModelError as error:
        if flags is not None:
            raise
        raise ModelError(
            f"{path}: {error}; with other flags than the published ones, give them to "
            "`sempic train convert`"
        ) from error
    return filled(lambda: SemanticUNet(unet), weights, path).eval(), diffusion
