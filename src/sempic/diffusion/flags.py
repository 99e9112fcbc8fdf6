"""The original's command-line flags as text, and what sampling is told by them. No torch here."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Any, Literal, TypeVar, get_args

from sempic import fields
from sempic.errors import ModelError
from sempic.fields import option

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


CITYSCAPES = """
    --dataset_mode cityscapes --lr 1e-4 --batch_size 8 --attention_resolutions 32,16,8
    --diffusion_steps 1000 --image_size 256 --learn_sigma True --noise_schedule linear
    --num_channels 256 --num_head_channels 64 --num_res_blocks 2 --resblock_updown True
    --use_fp16 True --use_scale_shift_norm True --use_checkpoint True --num_classes 19
    --class_cond True --large_size 128 --small_size 64 --no_instance True
"""
CAMVID_SMALL = """
    --dataset_mode camvid --image_size 256 --small_size 64 --num_classes 11 --no_instance True
    --num_channels 32 --channel_mult 1,1,2,2 --num_res_blocks 1 --attention_resolutions 32
    --num_head_channels 16 --resblock_updown True --learn_sigma True --use_bf16 True
    --crop_size 72 --max_train_time 200 --batch_size 4 --lr 6e-4 --ema_rate 0.99
    --save_interval 100 --chroma 444
"""
PRESETS = {"paper-cityscapes": CITYSCAPES, "camvid-small": CAMVID_SMALL}
"""Flags in one word; flags that are given as well override them."""

ALIASES = {"compression_level": "quality"}
"""What the original calls a flag of ours."""

IDLE = {
    "large_size": "the coarse picture has the shape of its picture",
    "is_train": "train learns from the split train, sample takes --split",
    "drop_last": "no batch of a training is ever incomplete",
    "input_img": "it has none in the original either",
}
"""Flags that are taken and change nothing, and why not."""


Solver = Literal["ddpm", "ddim", "dpmsolver++", "unipc"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How a picture is sampled; the defaults are the paper's 20 steps from the coarse picture."""

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


def read_flags(
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
    kinds: Sequence[type[Any]],
    idle: Mapping[str, str] = IDLE,
) -> dict[str, Any]:
    """The flags of a command line by the names that we have for them, as text.

    They are the fields of the dataclasses `kinds`, those of `DEFAULTS`, `--preset`, the original's
    names and those without effect; a line on standard error says which of the latter are in `argv`,
    not in the preset. Raises ModelError if a field without a default is missing.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument("--preset", choices=sorted(PRESETS), help="flags in one word")
    parts = {name: part for kind in kinds for name, part in fields.of(kind).items()}
    needed = [name for name, part in parts.items() if part.default is MISSING]
    helps = {
        name: f"{fields.about(part).help} ({'needed' if name in needed else part.default})"
        for name, part in parts.items()
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
        given = {**vars(parser.parse_args(PRESETS[preset].split())), **given}
        given.pop("preset", None)
    for name in needed:
        if name not in given:
            raise ModelError(f"--{name} is missing")
    return given


def filled_in(kind: type[Options], given: Mapping[str, object]) -> Options:
    """The dataclass of options that flags give. Raises ModelError."""
    kinds = fields.hints(kind)
    return kind(**{k: typed(k, v, kinds[k]) for k, v in given.items() if k in kinds})


def command_line(flags: Mapping[str, object]) -> str:
    """Flags as a shell takes them; without those that are empty if they are not given."""
    given = {name: value for name, value in flags.items() if not value == DEFAULTS[name] == ""}
    return shlex.join(word for name, value in given.items() for word in (f"--{name}", str(value)))


def typed(name: str, value: object, kind: Any) -> Any:
    """What a flag's text says: a bool, an int, a float, or, of any other kind, the text itself.
    Raises `ModelError`."""
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
    """What a flag with commas between numbers says; raises `ModelError`."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        parts = [parts]
    return tuple(typed(name, part, kind) for part in parts if str(part).strip())
