"""Command lines of the paper's network, under the original's flags. No torch here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Any, TypeVar

from sempic import fields
from sempic.diffusion.flags import DEFAULTS, SamplingConfig, numbers, typed
from sempic.errors import ModelError
from sempic.fields import option
from sempic.training.data.readers import LAYOUTS
from sempic.training.options import LARGEST_SEED

Options = TypeVar("Options")

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
"""Values of --preset; flags beside --preset override it."""

ALIASES = {"compression_level": "quality"}
"""The original's names of flags that we call differently."""

IDLE = {
    "large_size": "the coarse picture has the shape of its picture",
    "is_train": "train learns from the split train, sample takes --split",
    "drop_last": "no batch of a training is ever incomplete",
    "input_img": "it has none in the original either",
}
"""Flags that are accepted without effect, and the reason."""


def _rates(name: str, value: Any) -> str:
    """For `ema_rate`; raises ModelError."""
    rates = numbers(name, value, float)
    if not rates or not all(0 <= rate < 1 for rate in rates):
        raise ModelError(f"{name} must lie in [0, 1), not {value}")
    return str(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperOptions:
    """A training run without network and process. Names are the original's flags; crop_size,
    max_train_time and the options of checkpoints are ours."""

    data_dir: str = option("folder of the dataset")
    dataset_mode: str = option(f"its layout: {', '.join(LAYOUTS)}")
    out: str = option("folder of the run: log, checkpoint, averaged weights, sheets", "runs/paper")
    generated_semantic: str = option("folder of predicted maps that replace the human maps", "")
    coarse_path: str = option("folder of coarse pictures that replace ours", "")
    image_path: str = option(
        "cityscapes: folder of pictures that replaces leftImg8bit/SPLIT, with the same names", ""
    )
    small_size: int = option(
        "short side of the coarse picture; 0 for a quarter of image_size", 0, low=0
    )
    quality: int = option("QP of the coarse picture (bpgenc -q)", 35, low=0, high=51)
    chroma: str = option("chroma of the coarse picture", "420", choices=("420", "444"))
    compression_type: str = option(
        "down+bpg codes the coarse picture; resize leaves it uncoded",
        "down+bpg",
        choices=("down+bpg", "resize"),
    )
    schedule_sampler: str = option(
        "sampler of timesteps", "uniform", choices=("uniform", "loss-second-moment")
    )
    lr: float = option("learning rate", 1e-4, above=0)
    fp16_scale_growth: float = option(
        "with use_fp16: growth per step of the binary logarithm of the loss scale", 1e-3
    )
    weight_decay: float = option("weight decay of AdamW", 0.0, low=0)
    lr_anneal_steps: int = option("lower lr to 0 over this many steps, and end", 0, low=0)
    steps: int = option(
        "end after this many steps; 0: after lr_anneal_steps if given, else never", 0, low=0
    )
    batch_size: int = option("scenes per process and step", 1, low=1)
    microbatch: int = option("scenes per pass; -1 for all of batch_size", -1)
    ema_rate: str = option("EMA decay, or several separated by commas", "0.9999", check=_rates)
    drop_rate: float = option("share of the scenes whose map is left out", 0.0, low=0)
    crop_size: int = option("short side of the training crop; 0 for image_size", 0, low=0)
    max_train_time: int = option(
        "learn no timestep above this, as max_iter_time samples none; 0 for all", 0, low=0
    )
    random_flip: bool = option("mirror half of the crops", True)
    seed: int = option("seed of all random draws", 0, low=0, high=LARGEST_SEED)
    log_interval: int = option("steps between lines of the log", 10, low=1)
    save_interval: int = option("steps between averaged weights, and sample sheets", 10000, low=1)
    save_minutes: float = option("minutes between checkpoints", 5.0, low=0, high=5)
    keep: int = option("number of averaged weights to keep for each rate, the newest", 3, low=1)
    sheet_size: int = option("scenes on a sample sheet; 0 for none", 4, low=0)
    workers: int = option("threads that decode scenes", 2, low=0)
    resume_checkpoint: str = option(
        "initial weights for fine-tuning: ours, or a .pt of the original", ""
    )

    def __post_init__(self) -> None:
        fields.check(self)
        if self.drop_rate >= 1:
            raise ModelError("drop_rate must lie in [0, 1)")
        if self.microbatch != -1 and not 1 <= self.microbatch <= self.batch_size:
            raise ModelError("microbatch must fit batch_size")

    @property
    def ema_rates(self) -> tuple[float, ...]:
        return numbers("ema_rate", self.ema_rate, float)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """Weights, pictures and results of `sempic sample`; names are the original's flags."""

    model_path: str = option(
        "weights: ours, or a .pt of the original (with the flags that it was trained with)"
    )
    results_path: str = option(
        "folder that gets images, labels (human maps), samples, compressed and sempic, a file of "
        "each per picture; with generated_semantic also predicted"
    )
    num_samples: int = option("pictures, from the first; 0 for all", 60, low=0)
    split: str = option("split of the dataset", "val")
    seed: int = option("seed of the first picture; it rises by 1", 0, low=0, high=LARGEST_SEED)
    use_ddim: bool = option("the original's flag for --solver ddim", False)

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
    """The flags of a command line as text, by our names.

    Accepted are the fields of the dataclasses `kinds`, `DEFAULTS`, `ALIASES`, `IDLE` and
    `--preset`. Each flag of `idle` in `argv` gives a line on standard error. Raises ModelError if a
    field without a default is missing.
    """
    parser = argparse.ArgumentParser(
        prog, description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), help="several flags under one name")
    parts = {name: part for kind in kinds for name, part in fields.of(kind).items()}
    needed = [name for name, part in parts.items() if part.default is MISSING]
    helps = {
        name: f"{fields.about(part).help} ({'needed' if name in needed else part.default})"
        for name, part in parts.items()
    }
    helps |= {name: f"network ({default})" for name, default in DEFAULTS.items()}
    helps |= dict.fromkeys(IDLE, "without effect")
    for name, text in helps.items():
        parser.add_argument(f"--{name}", help=text)
    for name, ours in ALIASES.items():
        parser.add_argument(f"--{name}", dest=ours, help=f"the original's --{ours}")
    flags = vars(parser.parse_args(list(argv)))
    for name in flags.keys() & idle.keys():
        print(f"{prog}: --{name} has no effect here: {idle[name]}", file=sys.stderr)
    preset = flags.pop("preset", None)
    if preset:
        flags = {**vars(parser.parse_args(PRESETS[preset].split())), **flags}
    for name in needed:
        if name not in flags:
            raise ModelError(f"--{name} is missing")
    return flags


def filled_in(kind: type[Options], flags: Mapping[str, object]) -> Options:
    """An options dataclass with the values of flags. Raises ModelError."""
    kinds = fields.hints(kind)
    return kind(**{k: typed(k, v, kinds[k]) for k, v in flags.items() if k in kinds})


_SAMPLED = {
    "data_dir", "dataset_mode", "generated_semantic", "coarse_path", "image_path",
    "small_size", "quality", "chroma", "compression_type", "batch_size",
}  # fmt: skip
"""Fields of PaperOptions that `sempic sample` uses; it accepts the others without effect."""


def paper(argv: Sequence[str]) -> dict[str, Any]:
    """Train the paper's network, under the original's flags. Returns them by name, as text; raises
    ModelError."""
    return read_flags(
        argv,
        prog="sempic train",
        description="Train the paper's network, under the original's flags.",
        kinds=[PaperOptions],
    )


def sample(argv: Sequence[str]) -> dict[str, Any]:
    """Rebuild a dataset's pictures. Returns the flags by name, as text; raises ModelError."""
    ours = fields.of(SampleConfig).keys() | fields.of(SamplingConfig).keys()
    trained = fields.of(PaperOptions).keys() - _SAMPLED - ours
    return read_flags(
        argv,
        prog="sempic sample",
        description="Rebuild a dataset's pictures with the paper's network.",
        kinds=[SampleConfig, SamplingConfig, PaperOptions],
        idle=IDLE | dict.fromkeys(trained, "it is for training"),
    )


def convert(argv: Sequence[str]) -> dict[str, Any]:
    """Turn a .pt of the original into safetensors, or back. Returns the arguments: source, target,
    and flags of the network."""
    parser = argparse.ArgumentParser(
        prog="sempic train convert",
        description="SOURCE.pt to TARGET.safetensors, or SOURCE.safetensors to TARGET.pt, whose "
        "flags are printed. For a .pt, give the flags that it was trained with; without any, its "
        "tensors tell the shape, and the rest is taken as published.",
    )
    parser.add_argument("source")
    parser.add_argument("target")
    for name, default in DEFAULTS.items():
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=f"({default})")
    return vars(parser.parse_args(list(argv)))
