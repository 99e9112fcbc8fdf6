"""The original's flags for network, process and sampling, and their values. No torch here."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sempic import fields
from sempic.errors import InputError, ModelError
from sempic.fields import option

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
"""Flags that shape the network or its process, with their defaults; `use_bf16` is ours, the others
are the original's."""


Solver = Literal["ddpm", "ddim", "dpmsolver++", "unipc"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How to sample; the defaults are the paper's 20 steps from the coarse picture."""

    timestep_respacing: str = option("as of guided-diffusion: 100, ddim25 or 10,15", "100")
    max_iter_time: int = option(
        "timesteps beyond this are left out; sampling starts at the upsampled coarse picture, or "
        "at noise if this is the number of all timesteps",
        200,
    )
    s: float = option("guidance scale; 1 or less is none, the paper's is 1.5", 1.0)
    solver: Solver = option("", "ddpm", choices=get_args(Solver))
    eta: float = option("of ddim", 0.0, low=0, high=1)
    clip_denoised: bool = option("keep what the network sees as the clean picture in [-1, 1]", True)

    def __post_init__(self) -> None:
        fields.check(self)
        if self.eta and self.solver != "ddim":
            raise InputError(f"eta is for solver ddim, not for {self.solver}")


def command_line(flags: Mapping[str, object]) -> str:
    """Flags as text for a shell, without flags that are empty by default and here."""
    shown = {name: value for name, value in flags.items() if not value == DEFAULTS[name] == ""}
    return shlex.join(word for name, value in shown.items() for word in (f"--{name}", str(value)))


def typed(name: str, value: object, kind: Any) -> Any:
    """A flag's text as a bool, int or float; for any other kind, the text. Raises ModelError."""
    text = str(value).strip()
    if kind not in (bool, int, float):
        return text
    if kind is not bool:
        try:
            return kind(text)
        except ValueError as error:
            raise ModelError(f"{name} takes {kind.__name__}, not {value!r}") from error
    if text.lower() in ("true", "yes", "t", "y", "1"):
        return True
    if text.lower() in ("false", "no", "f", "n", "0"):
        return False
    raise ModelError(f"{name} takes True or False, not {value!r}")


def numbers(name: str, value: object, kind: type) -> tuple[Any, ...]:
    """The numbers of a flag that separates them by commas. Raises ModelError."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        parts = [parts]
    return tuple(typed(name, part, kind) for part in parts if str(part).strip())
