"""The original's command-line flags, read into our configurations."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any, TypeVar, cast

from sempic.diffusion.gaussian import DiffusionConfig, Loss, Schedule, Variance
from sempic.errors import ModelError
from sempic.networks.unet import Precision, UNetConfig

Options = TypeVar("Options")

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
    "drop_last": "no batch of a training is ever incomplete",
    "input_img": "it has none in the original either",
}
"""Flags that are taken and change nothing, and why not."""


def read_flags(
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
    kinds: Sequence[type[Any]],
    presets: Mapping[str, str],
    needed: Sequence[str],
    idle: Mapping[str, str] = IDLE,
) -> dict[str, Any]:
    """The flags of a command line by the names that we have for them, as text.

    They are the fields of the dataclasses `kinds`, those of `DEFAULTS`, `--preset`, the original's
    names and those without effect; a line on standard error says which of the latter are in `argv`,
    not in the preset. Raises ModelError if one that is needed is missing.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument("--preset", choices=sorted(presets), help="flags in one word")
    helps = {
        field.name: "needed" if field.default is MISSING else f"({field.default})"
        for kind in kinds
        for field in fields(kind)
    }
    helps |= {name: f"network ({default})" for name, default in DEFAULTS.items()}
    helps |= dict.fromkeys(IDLE, "without effect")
    for name, text in helps.items():
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=text)
    for name, ours in ALIASES.items():
        parser.add_argument(
            f"--{name}", dest=ours, default=argparse.SUPPRESS, help=f"the original's --{ours}"
        )
    given = vars(parser.parse_args(list(argv)))
    for name in given.keys() & idle.keys():
        print(f"{prog}: --{name} has no effect here: {idle[name]}", file=sys.stderr)
    preset = given.pop("preset", None)
    if preset:
        given = {**vars(parser.parse_args(presets[preset].split())), **given}
        given.pop("preset", None)
    for name in needed:
        if name not in given:
            raise ModelError(f"--{name} is missing")
    return given


def filled_in(kind: type[Options], given: Mapping[str, object]) -> Options:
    """The dataclass of options that flags give. Raises ModelError."""
    types = {field.name: str(field.type) for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{k: typed(k, v, types[k]) for k, v in given.items() if k in types})


_SAME = [field.name for field in fields(UNetConfig) if field.name in DEFAULTS]
"""Flags that the configuration of the network calls as the original does."""


def configs_from_flags(flags: Mapping[str, object]) -> tuple[UNetConfig, DiffusionConfig]:
    """Network and process that the original would build from `flags`.

    Values may be text as on a command line, or typed. Flags that are not in `DEFAULTS` speak of
    other things and are ignored. Raises `ModelError` naming the flag that cannot be met.
    """
    lists = {"channel_mult": float, "attention_resolutions": int}

    def value(name: str) -> Any:
        default = DEFAULTS[name]
        given = flags.get(name, default)
        if name in lists:
            return _numbers(name, given, lists[name])
        return typed(name, given, type(default))

    got = {name: value(name) for name in DEFAULTS}
    if not got["class_cond"]:
        raise ModelError("class_cond False: this network is always conditioned on labels")
    if got["use_fp16"] and got["use_bf16"]:
        raise ModelError("use_fp16 and use_bf16 exclude each other")
    unet = UNetConfig(
        **{name: got[name] for name in _SAME},
        instance_edges=not got["no_instance"],
        precision=("float16" if got["use_fp16"] else "bfloat16" if got["use_bf16"] else "float32"),
    )
    loss: Loss = "rescaled_mse" if got["rescale_learned_sigmas"] else "mse"
    variance: Variance = "fixed_small" if got["sigma_small"] else "fixed_large"
    diffusion = DiffusionConfig(
        steps=got["diffusion_steps"],
        schedule=cast(Schedule, got["noise_schedule"]),
        prediction="x0" if got["predict_xstart"] else "epsilon",
        variance="learned_range" if got["learn_sigma"] else variance,
        loss="rescaled_kl" if got["use_kl"] else loss,
        rescale_timesteps=got["rescale_timesteps"],
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
    try:
        return kind(text)
    except ValueError as error:
        raise ModelError(f"{name} takes {kind.__name__}, not {value!r}") from error


def _numbers(name: str, value: object, kind: type) -> tuple[Any, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        parts = [parts]
    return tuple(typed(name, part, kind) for part in parts if str(part).strip())
