"""The original's command-line flags, read into our configurations."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from sempic.diffusion.gaussian import DiffusionConfig, Loss, Schedule, Variance
from sempic.errors import ModelError
from sempic.networks.unet import Precision, UNetConfig

DEFAULTS: dict[str, Any] = {
    "image_size": 64,
    "num_channels": 128,
    "num_res_blocks": 2,
    "channel_mult": "",
    "attention_resolutions": "16,8",
    "num_heads": 4,
    "num_heads_upsample": -1,
    "num_head_channels": -1,
    "num_classes": 151,
    "no_instance": False,
    "class_cond": True,
    "dropout": 0.0,
    "learn_sigma": False,
    "sigma_small": False,
    "use_scale_shift_norm": True,
    "resblock_updown": False,
    "use_new_attention_order": False,
    "use_checkpoint": False,
    "use_fp16": False,
    "use_bf16": False,
    "diffusion_steps": 1000,
    "noise_schedule": "linear",
    "predict_xstart": False,
    "use_kl": False,
    "rescale_learned_sigmas": False,
    "rescale_timesteps": False,
}
"""Every flag that shapes the network or its process, with what it is where it is not given.

`use_bf16` is ours; the others are the original's.
"""


ALIASES = {"compression_level": "quality"}
"""What the original calls a flag of ours."""

IDLE = {
    "large_size": "the coarse picture has the shape of its picture",
    "is_train": "train learns from the split train, sample takes --split",
    "fp16_scale_growth": "the scale of float16 gradients follows PyTorch's rule",
    "drop_last": "no batch of a training is ever incomplete",
    "input_img": "it has none in the original either",
}
"""Flags that are taken and change nothing, and why not."""


def read_flags(
    parser: argparse.ArgumentParser,
    argv: Sequence[str],
    presets: Mapping[str, str],
    idle: Mapping[str, str] = IDLE,
) -> dict[str, Any]:
    """The flags of a command line by the names that we have for them, as text.

    Adds `--preset`, the original's names and those without effect to `parser`. A line on standard
    error says which of the flags in `argv`, not in the preset, have none.
    """
    parser.add_argument("--preset", choices=sorted(presets), help="flags in one word")
    for name, ours in ALIASES.items():
        parser.add_argument(
            f"--{name}", dest=ours, default=argparse.SUPPRESS, help=f"the original's --{ours}"
        )
    for name in IDLE:
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help="without effect")
    given = vars(parser.parse_args(list(argv)))
    for name in given.keys() & idle.keys():
        print(f"{parser.prog}: --{name} has no effect here: {idle[name]}", file=sys.stderr)
    preset = given.pop("preset", None)
    if preset:
        given = {**vars(parser.parse_args(presets[preset].split())), **given}
        given.pop("preset", None)
    return given


def configs_from_flags(flags: Mapping[str, object]) -> tuple[UNetConfig, DiffusionConfig]:
    """Network and process that the original would build from `flags`.

    Values may be text as on a command line, or typed. Flags that are not in `DEFAULTS` speak of
    other things and are ignored. Raises `ModelError` naming the flag that cannot be met.
    """

    def get(name: str, kind: type) -> Any:
        return typed(name, flags.get(name, DEFAULTS[name]), kind)

    if not get("class_cond", bool):
        raise ModelError("class_cond False: this network is always conditioned on labels")
    fp16, bf16 = get("use_fp16", bool), get("use_bf16", bool)
    if fp16 and bf16:
        raise ModelError("use_fp16 and use_bf16 exclude each other")
    learn_sigma = get("learn_sigma", bool)
    rescaled = get("rescale_learned_sigmas", bool)
    loss: Loss = "rescaled_mse" if rescaled else "mse"
    if get("use_kl", bool):
        loss = "rescaled_kl"
    variance: Variance = "fixed_small" if get("sigma_small", bool) else "fixed_large"
    unet = UNetConfig(
        image_size=get("image_size", int),
        num_channels=get("num_channels", int),
        num_res_blocks=get("num_res_blocks", int),
        channel_mult=_numbers("channel_mult", get("channel_mult", object), float),
        attention_resolutions=_numbers(
            "attention_resolutions", get("attention_resolutions", object), int
        ),
        num_heads=get("num_heads", int),
        num_heads_upsample=get("num_heads_upsample", int),
        num_head_channels=get("num_head_channels", int),
        num_classes=get("num_classes", int),
        instance_edges=not get("no_instance", bool),
        dropout=get("dropout", float),
        learn_sigma=learn_sigma,
        use_scale_shift_norm=get("use_scale_shift_norm", bool),
        resblock_updown=get("resblock_updown", bool),
        use_new_attention_order=get("use_new_attention_order", bool),
        use_checkpoint=get("use_checkpoint", bool),
        precision="float16" if fp16 else "bfloat16" if bf16 else "float32",
    )
    diffusion = DiffusionConfig(
        steps=get("diffusion_steps", int),
        schedule=cast(Schedule, get("noise_schedule", str)),
        prediction="x0" if get("predict_xstart", bool) else "epsilon",
        variance="learned_range" if learn_sigma else variance,
        loss=loss,
        rescale_timesteps=get("rescale_timesteps", bool),
    )
    return unet, diffusion


RUNTIME = {"use_fp16", "use_bf16", "use_checkpoint", "dropout", "use_kl", "rescale_learned_sigmas"}
"""Flags that say how a network computes or is taught, but not what it knows."""


def command_line(flags: Mapping[str, object]) -> str:
    """Flags as a shell takes them; without those that are empty if they are not given."""
    given = {name: value for name, value in flags.items() if not value == DEFAULTS[name] == ""}
    return shlex.join(word for name, value in given.items() for word in (f"--{name}", str(value)))


def check_flags(
    flags: Mapping[str, object], unet: UNetConfig, diffusion: DiffusionConfig, path: object
) -> Precision:
    """The precision that `flags` want for the network of `path`, or else its own.

    Raises `ModelError` if a flag, other than those of `RUNTIME`, is not true of that network.
    """
    own = flags_from_configs(replace(unet, precision="float32"), diffusion)
    meaning = _meaning(*configs_from_flags(own))
    for name in sorted(flags.keys() & DEFAULTS.keys() - RUNTIME):
        if _meaning(*configs_from_flags({**own, name: flags[name]})) != meaning:
            raise ModelError(f"{path}: its {name} is {own[name]!r}, not {flags[name]!r}")
    precision = unet.precision
    kinds: tuple[tuple[str, Precision], ...] = (("use_fp16", "float16"), ("use_bf16", "bfloat16"))
    for name, half in kinds:
        if name in flags and typed(name, flags[name], bool):
            precision = half
        elif name in flags and precision == half:
            precision = "float32"
    return precision


def _meaning(unet: UNetConfig, diffusion: DiffusionConfig) -> tuple[object, ...]:
    """Equal for configurations that differ in nothing but the words."""
    unet = replace(
        unet,
        channel_mult=unet.multipliers,
        attention_resolutions=tuple(sorted(set(unet.attention_resolutions))),
    )
    return unet, diffusion


def flags_from_configs(unet: UNetConfig, diffusion: DiffusionConfig) -> dict[str, Any]:
    """The flags under which the original builds the same network and process."""
    if unet.precision == "bfloat16":
        raise ModelError("the original knows no bfloat16: use float32 or float16")
    if diffusion.loss == "kl":
        raise ModelError("the original has no flag for the plain KL loss")
    return {
        "image_size": unet.image_size,
        "num_channels": unet.num_channels,
        "num_res_blocks": unet.num_res_blocks,
        "channel_mult": ",".join(f"{m:g}" for m in unet.channel_mult),
        "attention_resolutions": ",".join(map(str, unet.attention_resolutions)),
        "num_heads": unet.num_heads,
        "num_heads_upsample": unet.num_heads_upsample,
        "num_head_channels": unet.num_head_channels,
        "num_classes": unet.num_classes,
        "no_instance": not unet.instance_edges,
        "class_cond": True,
        "dropout": unet.dropout,
        "learn_sigma": unet.learn_sigma,
        "sigma_small": diffusion.variance == "fixed_small",
        "use_scale_shift_norm": unet.use_scale_shift_norm,
        "resblock_updown": unet.resblock_updown,
        "use_new_attention_order": unet.use_new_attention_order,
        "use_checkpoint": unet.use_checkpoint,
        "use_fp16": unet.precision == "float16",
        "diffusion_steps": diffusion.steps,
        "noise_schedule": diffusion.schedule,
        "predict_xstart": diffusion.prediction == "x0",
        "use_kl": diffusion.loss == "rescaled_kl",
        "rescale_learned_sigmas": diffusion.loss == "rescaled_mse",
        "rescale_timesteps": diffusion.rescale_timesteps,
    }


def typed(name: str, value: object, kind: type | str) -> Any:
    """What a flag's text says. Raises `ModelError`.

    `kind`: a type, or the name of a field's; any but bool, int and float is the text itself.
    """
    text = str(value).strip()
    if isinstance(kind, str):
        kind = {"bool": bool, "int": int, "float": float}.get(kind, str)
    if kind is bool:
        if text.lower() in ("true", "yes", "t", "y", "1"):
            return True
        if text.lower() in ("false", "no", "f", "n", "0"):
            return False
        raise ModelError(f"{name} takes True or False, not {value!r}")
    if kind is object:
        return value
    try:
        return kind(text)
    except ValueError as error:
        raise ModelError(f"{name} takes {kind.__name__}, not {value!r}") from error


def _numbers(name: str, value: object, kind: type) -> tuple[Any, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        parts = [parts]
    return tuple(typed(name, part, kind) for part in parts if str(part).strip())
