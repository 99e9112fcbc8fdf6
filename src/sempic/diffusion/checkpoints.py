"""Weights of the paper's network with its configuration, in our format and under the original's
flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from sempic.diffusion.flags import DEFAULTS, numbers, typed
from sempic.diffusion.gaussian import DiffusionConfig, Loss, Schedule, Variance
from sempic.diffusion.original import read_original, shape_flags
from sempic.errors import ModelError
from sempic.networks.unet import Precision, SemanticUNet, UNetConfig
from sempic.networks.weights import configured, filled, load_tensors, save_tensors


def save_model(
    path: Path, weights: Mapping[str, Tensor], unet: UNetConfig, diffusion: DiffusionConfig
) -> None:
    """Write a state dict with its configuration (`save_tensors`). Raises OutputError."""
    save_tensors(weights, "unet", {"unet": asdict(unet), "diffusion": asdict(diffusion)}, path)


def load_model(path: Path) -> tuple[SemanticUNet, DiffusionConfig]:
    """The network of `save_model`, in evaluation mode, and its process. Raises ModelError."""
    weights, metadata = load_tensors(path, "unet")
    unet = configured(UNetConfig, metadata.get("unet"), path)
    diffusion = configured(DiffusionConfig, metadata.get("diffusion"), path)
    return filled(lambda: SemanticUNet(unet), weights, path).eval(), diffusion


def open_model(
    path: Path, flags: Mapping[str, object] | None = None
) -> tuple[SemanticUNet, DiffusionConfig]:
    """The network of our safetensors or the original's `.pt`, in evaluation mode, and its process.

    `flags` are the flags under which the `.pt` was trained. Without them, its shape follows from
    its tensors (`shape_flags`), and the rest is as published: heads of 64 channels, 1000 linear
    steps, epsilon. Our files have their configuration, which `flags` may not contradict
    (`check_flags`). Raises ModelError.
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


# ── configurations and flags ─────────────────────────────────────────────────────────────────

_SAME = [field.name for field in fields(UNetConfig) if field.name in DEFAULTS]
"""Flags that are fields of `UNetConfig` under the same name."""


def configs_from_flags(flags: Mapping[str, object]) -> tuple[UNetConfig, DiffusionConfig]:
    """Configurations that the original would build from `flags`, whose values are text or typed.

    Flags outside `DEFAULTS` are ignored. Raises ModelError with the name of an impossible flag.
    """
    lists = {"channel_mult": float, "attention_resolutions": int}
    values: dict[str, Any] = {}
    for name, default in DEFAULTS.items():
        flag = flags.get(name, default)
        in_list = lists.get(name)
        values[name] = numbers(name, flag, in_list) if in_list else typed(name, flag, type(default))
    if not values["class_cond"]:
        raise ModelError("class_cond False: this network is always conditioned on labels")
    if values["use_fp16"] and values["use_bf16"]:
        raise ModelError("use_fp16 and use_bf16 exclude each other")
    half: Precision = "bfloat16" if values["use_bf16"] else "float32"
    unet = UNetConfig(
        **{name: values[name] for name in _SAME},
        instance_edges=not values["no_instance"],
        precision="float16" if values["use_fp16"] else half,
    )
    loss: Loss = "rescaled_mse" if values["rescale_learned_sigmas"] else "mse"
    variance: Variance = "fixed_small" if values["sigma_small"] else "fixed_large"
    diffusion = DiffusionConfig(
        steps=values["diffusion_steps"],
        schedule=cast(Schedule, values["noise_schedule"]),
        prediction="x0" if values["predict_xstart"] else "epsilon",
        variance="learned_range" if values["learn_sigma"] else variance,
        loss="rescaled_kl" if values["use_kl"] else loss,
        rescale_timesteps=values["rescale_timesteps"],
    )
    return unet, diffusion


RUNTIME = {"use_fp16", "use_bf16", "use_checkpoint", "dropout", "use_kl", "rescale_learned_sigmas"}
"""Flags of computation and training that do not change a network's function."""


def check_flags(
    flags: Mapping[str, object], unet: UNetConfig, diffusion: DiffusionConfig, path: object
) -> Precision:
    """The precision that `flags` ask for, default: the network's own.

    Raises ModelError for impossible flags, and if one outside `RUNTIME` contradicts the network of
    `path`.
    """
    own = flags_from_configs(replace(unet, precision="float32"), diffusion)
    meaning = _meaning(*configs_from_flags(own))
    for name in sorted(flags.keys() & DEFAULTS.keys() - RUNTIME):
        if _meaning(*configs_from_flags({**own, name: flags[name]})) != meaning:
            raise ModelError(f"{path}: its {name} is {own[name]!r}, not {flags[name]!r}")
    asked = configs_from_flags({**own, **flags})[0].precision
    kinds = {"float16": "use_fp16", "bfloat16": "use_bf16"}
    is_asked = asked != "float32" or kinds.get(unet.precision) in flags
    return asked if is_asked else unet.precision


def _meaning(unet: UNetConfig, diffusion: DiffusionConfig) -> tuple[object, ...]:
    """A normal form: equal for configurations of the same network and process."""
    unet = replace(
        unet,
        channel_mult=unet.multipliers,
        attention_resolutions=tuple(sorted(set(unet.attention_resolutions))),
    )
    return unet, diffusion


def flags_from_configs(unet: UNetConfig, diffusion: DiffusionConfig) -> dict[str, Any]:
    """The flags under which the original builds the same network and process."""
    if unet.precision == "bfloat16":
        raise ModelError("the original knows no bfloat16: give --use_bf16 False")
    own = {name: getattr(unet, name) for name in _SAME}
    return own | {
        "channel_mult": ",".join(f"{m:g}" for m in unet.channel_mult),
        "attention_resolutions": ",".join(map(str, unet.attention_resolutions)),
        "no_instance": not unet.instance_edges,
        "class_cond": True,
        "sigma_small": diffusion.variance == "fixed_small",
        "use_fp16": unet.precision == "float16",
        "diffusion_steps": diffusion.steps,
        "noise_schedule": diffusion.schedule,
        "predict_xstart": diffusion.prediction == "x0",
        "use_kl": diffusion.loss == "rescaled_kl",
        "rescale_learned_sigmas": diffusion.loss == "rescaled_mse",
        "rescale_timesteps": diffusion.rescale_timesteps,
    }
