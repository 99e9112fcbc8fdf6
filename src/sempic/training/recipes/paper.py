"""`sempic train paper`: the paper's own model, under the original's flags.

Every random draw is a function of the seed and of the position in the stream of scenes, never of
a generator that runs along. So a run that was killed goes on exactly as if it had not been, and
two processes with half the batch each do what one does with all of it (dropout aside).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sempic.diffusion.checkpoints import (
    build,
    load_model,
    read_original,
    read_progress,
    save_model,
)
from sempic.diffusion.flags import (
    DEFAULTS,
    check_flags,
    configs_from_flags,
    flags_from_configs,
    read_flags,
    typed,
)
from sempic.diffusion.gaussian import DiffusionConfig, Losses, make_diffusion
from sempic.diffusion.sampling import ddpm, guided, paper_start, seeded_noise
from sempic.diffusion.timesteps import LossSecondMomentSampler, TimestepSampler, UniformSampler
from sempic.errors import InputError, ModelError
from sempic.networks.unet import SemanticUNet, UNetConfig, drop_condition, make_condition
from sempic.pictures import write_file
from sempic.training.data.readers import open_source
from sempic.training.data.scenes import SceneFolder, TrainingScene

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

ASPECT = {"cityscapes": 2.0, "camvid": 4 / 3}
"""Width of a training picture by its height; the other datasets are cropped to squares."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """A training run, apart from network and process; names are the original's flags."""

    data_dir: str
    dataset_mode: str
    out: str = "runs/paper"
    """Folder of the run: config, log, checkpoints, weights, sheets."""
    generated_semantic: str = ""
    coarse_path: str = ""
    image_path: str = ""
    """Cityscapes: a folder of pictures, named alike, in place of leftImg8bit/SPLIT."""
    small_size: int = 0
    """Short side of the coarse picture; 0 for a quarter of image_size."""
    quality: int = 35
    """Of the coarse picture, as `bpgenc -q` counts."""
    chroma: str = "420"
    """Of the coarse picture: "420" as bpgenc has it by default, or "444"."""
    compression_type: str = "down+bpg"
    """Of the coarse picture; with "resize" it is not coded at all."""
    schedule_sampler: str = "uniform"
    lr: float = 1e-4
    weight_decay: float = 0.0
    lr_anneal_steps: int = 0
    """Bring lr to 0 over this many steps, and end there."""
    steps: int = 0
    """End after this many steps; 0 for lr_anneal_steps or, without those, never."""
    batch_size: int = 1
    """Scenes per process and step."""
    microbatch: int = -1
    """Scenes per pass; -1 for all of batch_size."""
    ema_rate: str = "0.9999"
    """One or several, with commas between."""
    drop_rate: float = 0.0
    crop_size: int = 0
    """Short side of the training crop; 0 for image_size. Not a flag of the original."""
    max_train_time: int = 0
    """Learn no timestep above this, as max_iter_time samples none; 0 for all. Nor is this one."""
    random_flip: bool = True
    seed: int = 0
    log_interval: int = 10
    save_interval: int = 10000
    keep: int = 3
    """Checkpoints to keep."""
    sheet_size: int = 4
    """Scenes on a sample sheet, one sheet per checkpoint; 0 for none."""
    workers: int = 2
    resume_checkpoint: str = ""
    """Weights to begin with (fine-tuning): ours, or a `.pt` of the original."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "log_interval", "save_interval", "keep"):
            _require(getattr(self, name) >= 1, name, "must be at least 1")
        for name in (
            "steps",
            "lr_anneal_steps",
            "workers",
            "sheet_size",
            "small_size",
            "seed",
            "crop_size",
            "max_train_time",
        ):
            _require(getattr(self, name) >= 0, name, "cannot be negative")
        _require(self.lr > 0, "lr", "must be above 0")
        _require(self.weight_decay >= 0, "weight_decay", "cannot be negative")
        _require(0 <= self.drop_rate < 1, "drop_rate", "must lie in [0, 1)")
        _require(0 <= self.quality <= 51, "quality", "must lie in 0…51")
        _require(self.chroma in ("420", "444"), "chroma", "must be 420 or 444")
        _require(
            self.compression_type in ("down+bpg", "resize"),
            "compression_type",
            "must be down+bpg or resize",
        )
        micro = self.microbatch
        _require(micro == -1 or 1 <= micro <= self.batch_size, "microbatch", "must fit batch_size")
        _require(
            self.schedule_sampler in ("uniform", "loss-second-moment"),
            "schedule_sampler",
            "must be uniform or loss-second-moment",
        )
        _require(all(0 <= r < 1 for r in self.ema_rates), "ema_rate", "must lie in [0, 1)")

    @property
    def ema_rates(self) -> tuple[float, ...]:
        try:
            return tuple(float(rate) for rate in self.ema_rate.split(","))
        except ValueError as error:
            raise ModelError(f"ema_rate {self.ema_rate!r} is not a list of numbers") from error

    @property
    def last_step(self) -> float:
        return self.steps or self.lr_anneal_steps or math.inf


MAY_CHANGE = {
    "lr_anneal_steps", "steps", "log_interval", "save_interval", "keep", "sheet_size", "workers",
    "data_dir", "generated_semantic", "coarse_path", "image_path", "out", "resume_checkpoint",
    "microbatch",
}  # fmt: skip
"""Fields that a run may be continued with in another way than it began."""


def _require(holds: bool, name: str, rule: str) -> None:
    if not holds:
        raise ModelError(f"{name} {rule}")


# ── the stream of scenes ─────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class SceneStream(Dataset[dict[str, Any]]):
    """Cropped and flipped scenes without end; position p is the same scene in every run."""

    scenes: SceneFolder
    size: tuple[int, int]
    """(height, width) of the crop; multiples of the coarse factor."""
    flip: bool
    seed: int

    def __getitem__(self, position: int) -> dict[str, Any]:
        epoch, offset = divmod(position, len(self.scenes))
        order = _rng(self.seed, "order", epoch).permutation(len(self.scenes))
        scene = self.scenes[int(order[offset])]
        rng = _rng(self.seed, "crop", position)
        return to_tensors(crop(scene, self.size, self.scenes.coarse_factor, rng, flip=self.flip))


def crop(
    scene: TrainingScene,
    size: tuple[int, int],
    factor: int,
    rng: np.random.Generator,
    *,
    flip: bool,
) -> TrainingScene:
    """A random crop of (height, width), aligned to the coarse grid, perhaps mirrored."""
    height, width = scene.labels.shape
    expected = (-(-height // factor), -(-width // factor))
    if scene.coarse.shape[:2] != expected:
        raise InputError(
            f"{scene.name}: its coarse picture is {scene.coarse.shape[1]}×{scene.coarse.shape[0]}, "
            f"expected {expected[1]}×{expected[0]}"
        )
    if height < size[0] or width < size[1]:
        raise InputError(
            f"{scene.name} is {width}×{height}, smaller than the crop of {size[1]}×{size[0]}"
        )
    top = int(rng.integers((height - size[0]) // factor + 1)) * factor
    left = int(rng.integers((width - size[1]) // factor + 1)) * factor
    step = -1 if flip and rng.random() < 0.5 else 1

    def cut(array: npt.NDArray[np.uint8], scale: int = 1) -> npt.NDArray[np.uint8]:
        rows = slice(top // scale, (top + size[0]) // scale)
        columns = slice(left // scale, (left + size[1]) // scale)
        return np.ascontiguousarray(array[rows, columns][:, ::step])

    return TrainingScene(
        name=scene.name,
        image=cut(scene.image),
        labels=cut(scene.labels),
        edges=None if scene.edges is None else cut(scene.edges),
        coarse=cut(scene.coarse, factor),
    )


def to_tensors(scene: TrainingScene) -> dict[str, Any]:
    """uint8 tensors of a scene: image (3, H, W), labels (H, W), coarse (3, h, w), edges (H, W)."""
    tensors = {
        "name": scene.name,
        "image": torch.tensor(scene.image).permute(2, 0, 1),
        "labels": torch.tensor(scene.labels),
        "coarse": torch.tensor(scene.coarse).permute(2, 0, 1),
    }
    if scene.edges is not None:
        tensors["edges"] = torch.tensor(scene.edges)
    return tensors


def scaled(picture: Tensor) -> Tensor:
    """uint8 → float32 in [-1, 1]."""
    return picture.float() / 127.5 - 1


_STREAMS = {"order": 0, "crop": 1, "noise": 2, "time": 3, "dropout": 4, "drop": 5}


def _rng(seed: int, purpose: str, position: int) -> np.random.Generator:
    return np.random.default_rng((seed, _STREAMS[purpose], position))


def _torch_rng(seed: int, purpose: str, position: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(_rng(seed, purpose, position).integers(2**62)))


# ── the loop ─────────────────────────────────────────────────────────────────────────────────


class Trainer:
    """One run: everything that changes from step to step, and what writes it down."""

    def __init__(self, config: TrainConfig, unet: UNetConfig, process: DiffusionConfig) -> None:
        factor, self.size = geometry(config, unet)
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.device = self.accelerator.device
        self.main = self.accelerator.is_main_process
        if unet.precision == "float16" and self.device.type != "cuda":
            self.say("no GPU: computing in float32 instead of float16")
            unet = dataclasses.replace(unet, precision="float32")
        self.config, self.unet, self.process = config, unet, process
        self.out = Path(config.out)
        scenes = open_scenes(config, unet, factor, "train")
        self.stream = SceneStream(
            scenes=scenes, size=self.size, flip=config.random_flip, seed=config.seed
        )
        self.diffusion = make_diffusion(process)

        torch.manual_seed(config.seed)
        self.network = SemanticUNet(unet)
        if config.resume_checkpoint:
            weights = read_weights(Path(config.resume_checkpoint), unet, process)
            self.network.load_state_dict(weights)
        self.network.to(self.device).train()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=unet.precision == "float16")
        self.ema = {
            rate: {k: v.detach().clone() for k, v in self.network.state_dict().items()}
            for rate in config.ema_rates
        }
        self.times = min(len(self.diffusion), (config.max_train_time or process.steps) + 1)
        self.sampler: TimestepSampler = (
            UniformSampler(self.times)
            if config.schedule_sampler == "uniform"
            else LossSecondMomentSampler(self.times)
        )
        self.step = 0
        if config.resume_checkpoint and not self._checkpoints():
            self._adopt(Path(config.resume_checkpoint))
        self._open_folder()
        self._resume()
        self.model = self.accelerator.prepare_model(self.network)
        self.board: Any = None
        """TensorBoard's writer, in the main process, if it is installed."""
        if self.main:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self.say("tensorboard is not installed: scalars go to log.jsonl alone")
            else:
                self.board = SummaryWriter(str(self.out), purge_step=self.step)

    @property
    def global_batch(self) -> int:
        return self.config.batch_size * self.accelerator.num_processes

    def say(self, text: str) -> None:
        if self.main:
            print(text, flush=True)

    # --- one step ---

    def train(self) -> None:
        """Steps until `last_step`; a checkpoint every save_interval and at the end."""
        log = Log(self)
        for batch in self._batches():
            losses, t = self.make_step(batch)
            log.add(losses, t)
            if self.step % self.config.log_interval == 0 or self.step >= self.config.last_step:
                log.write()
            if self.step % self.config.save_interval == 0 or self.step >= self.config.last_step:
                self.save()

    def _batches(self) -> Iterator[dict[str, Any]]:
        size, rank = self.config.batch_size, self.accelerator.process_index

        def positions() -> Iterator[list[int]]:
            step = self.step
            while step < self.config.last_step:
                first = step * self.global_batch + rank * size
                yield list(range(first, first + size))
                step += 1

        yield from DataLoader(
            self.stream, batch_sampler=positions(), num_workers=self.config.workers
        )

    def make_step(self, batch: Mapping[str, Any]) -> tuple[dict[str, Tensor], Tensor]:
        """Loss terms and steps of the whole batch, all processes', (global_batch,) each."""
        config, size = self.config, self.config.batch_size
        first = self.step * self.global_batch + self.accelerator.process_index * size
        torch.manual_seed(int(_rng(config.seed, "dropout", first).integers(2**62)))
        t, weights = self.sampler.draw(self.global_batch, _rng(config.seed, "time", self.step))
        mine = slice(first % self.global_batch, first % self.global_batch + size)
        x0 = scaled(batch["image"])
        noise = torch.stack(
            [
                torch.randn(x0.shape[1:], generator=_torch_rng(config.seed, "noise", first + k))
                for k in range(size)
            ]
        )
        edges = batch["edges"] if self.unet.instance_edges else None
        condition = make_condition(batch["labels"], self.unet.num_classes, edges)
        condition = torch.cat(
            [
                drop_condition(
                    condition[k : k + 1],
                    config.drop_rate,
                    _torch_rng(config.seed, "drop", first + k),
                )
                for k in range(size)
            ]
        )
        inputs = [x0, noise, condition, scaled(batch["coarse"]), t[mine], weights[mine]]
        inputs = [tensor.to(self.device) for tensor in inputs]

        self.optimizer.zero_grad(set_to_none=True)
        parts: list[dict[str, Tensor]] = []
        width = config.microbatch if config.microbatch > 0 else size
        for start in range(0, size, width):
            last = start + width >= size
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                losses, weighted = self._losses(*(v[start : start + width] for v in inputs))
                self.accelerator.backward(self.scaler.scale(weighted.sum() / size))
            terms = {k: v for k, v in losses._asdict().items() if v is not None}
            parts.append({k: v.detach() for k, v in terms.items()})
        terms = {k: torch.cat([part[k] for part in parts]) for k in parts[0]}
        terms = {k: self.accelerator.gather(v).cpu() for k, v in terms.items()}
        if not torch.isfinite(terms["loss"]).all():
            raise ModelError(
                f"step {self.step}: the loss is {float(terms['loss'].sum())}; "
                f"in the batch: {', '.join(batch['name'])}"
            )
        if config.lr_anneal_steps:
            for group in self.optimizer.param_groups:
                group["lr"] = config.lr * max(0.0, 1 - self.step / config.lr_anneal_steps)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.sampler.update(t.tolist(), terms["loss"].tolist())
        self._update_ema()
        self.step += 1
        return terms, t

    def _losses(
        self, x0: Tensor, noise: Tensor, condition: Tensor, coarse: Tensor, t: Tensor, w: Tensor
    ) -> tuple[Losses, Tensor]:
        x = self.diffusion.q_sample(x0, t, noise)
        out = self.model(x, self.diffusion.network_time(t), coarse, condition)
        losses = self.diffusion.losses(out, x0, x, t, noise)
        return losses, losses.loss * w

    @torch.no_grad()
    def _update_ema(self) -> None:
        current = self.network.state_dict()
        for rate, average in self.ema.items():
            for name, value in average.items():
                value.lerp_(current[name], 1 - rate)

    # --- the folder ---

    def _open_folder(self) -> None:
        """Writes config.json, or checks that a run that is there began with the same one."""
        ours = {
            "train": dataclasses.asdict(self.config),
            "unet": dataclasses.asdict(self.unet),
            "diffusion": dataclasses.asdict(self.process),
            "global_batch": self.global_batch,
        }
        ours = json.loads(json.dumps(ours))
        path = self.out / "config.json"
        if path.exists():
            theirs = json.loads(path.read_text())
            for part in ("unet", "diffusion", "train"):
                for name, value in ours[part].items():
                    free = part == "train" and name in MAY_CHANGE | {"batch_size"}
                    if not free and theirs[part].get(name) != value:
                        raise ModelError(
                            f"{name} is {value!r}, but {path} began with "
                            f"{theirs[part].get(name)!r}: choose another --out"
                        )
            if theirs["global_batch"] != self.global_batch:
                raise ModelError(
                    f"batch_size × processes is {self.global_batch}, but {path} began with "
                    f"{theirs['global_batch']}"
                )
        elif self.main:
            self.out.mkdir(parents=True, exist_ok=True)
            write_file(path, (json.dumps(ours, indent=1) + "\n").encode())
        self.accelerator.wait_for_everyone()

    def _checkpoints(self) -> list[Path]:
        return sorted((self.out / "checkpoints").glob("state-*.pt"))

    def _resume(self) -> None:
        found = self._checkpoints()
        if not found:
            return
        state = torch.load(found[-1], map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.sampler.load_state_dict(state["sampler"])
        for rate, weights in self.ema.items():
            for name, value in weights.items():
                value.copy_(state["ema"][str(rate)][name])
        self.step = state["step"]
        self.say(f"going on from step {self.step} ({found[-1]})")

    def _adopt(self, path: Path) -> None:
        """Goes on from what the original saved beside its `modelNNN.pt`."""
        progress = read_progress(path, self.config.ema_rates)
        self.step = progress.step
        for rate, average in progress.averages.items():
            for name, value in self.ema[rate].items():
                value.copy_(average[name])
        if progress.optimizer is not None:
            state = self.optimizer.state_dict()
            names = [name for name, _ in self.network.named_parameters()]
            state["state"] = {i: progress.optimizer[name] for i, name in enumerate(names)}
            self.optimizer.load_state_dict(state)
        if progress.step:
            found = [f"ema_{rate}" for rate in progress.averages]
            found += ["opt"] if progress.optimizer is not None else []
            beside = f" and {', '.join(found)} beside it" if found else ", nothing beside it"
            self.say(f"going on from step {progress.step} of the original: {path.name}{beside}")

    def save(self) -> None:
        """The averaged weights to use, a sheet to look at, and a checkpoint to go on from.

        The checkpoint comes last: whoever is killed before it makes all of them again.
        """
        if self.main:
            for rate, weights in self.ema.items():
                name = f"ema_{rate:g}.safetensors"
                save_model(self.out / name, weights, self.unet, self.process)
            if self.config.sheet_size:
                self._write_sheet()
            state = {
                "step": self.step,
                "model": self.network.state_dict(),
                "ema": {str(rate): weights for rate, weights in self.ema.items()},
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "sampler": self.sampler.state_dict(),
            }
            folder = self.out / "checkpoints"
            folder.mkdir(exist_ok=True)
            path = folder / f"state-{self.step:09d}.pt"
            torch.save(state, path.with_suffix(".part"))
            os.replace(path.with_suffix(".part"), path)
            for old in self._checkpoints()[: -self.config.keep]:
                old.unlink()
        self.accelerator.wait_for_everyone()

    def _write_sheet(self) -> None:
        """coarse | labels | sample | original, a row for each of the first scenes."""
        from PIL import Image

        scenes = [self.stream[k] for k in range(self.config.sheet_size)]
        batch = {
            k: torch.stack([s[k] for s in scenes]).to(self.device) for k in scenes[0] if k != "name"
        }
        network = SemanticUNet(self.unet).to(self.device).eval()
        network.load_state_dict(self.ema[self.config.ema_rates[0]])
        edges = batch["edges"] if self.unet.instance_edges else None
        condition = make_condition(batch["labels"], self.unet.num_classes, edges)
        coarse = scaled(batch["coarse"])
        start = paper_start(coarse, self.size)
        *_, last = ddpm(
            make_diffusion(self.process, "50", 200),
            guided(network, coarse, condition),
            start,
            noise=seeded_noise(torch.Generator().manual_seed(self.config.seed)),
        )
        palette = self.stream.scenes.source.palette
        maps = batch["labels"].cpu().numpy()
        painted = palette.paint(maps) if palette else np.repeat(maps[..., None], 3, -1)
        columns = [to_uint8(start), painted, to_uint8(last.sample)]
        columns.append(batch["image"].permute(0, 2, 3, 1).cpu().numpy())
        rows = np.concatenate([np.concatenate(list(c), axis=0) for c in columns], axis=1)
        sheets = self.out / "sheets"
        sheets.mkdir(exist_ok=True)
        Image.fromarray(rows).save(sheets / f"{self.step:09d}.png")
        if self.board is not None:
            self.board.add_image(
                "coarse, labels, sample, original", rows, self.step, dataformats="HWC"
            )


def to_uint8(pictures: Tensor) -> npt.NDArray[np.uint8]:
    """float (B, 3, H, W) in [-1, 1] → uint8 (B, H, W, 3)."""
    scaled_up = ((pictures + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return scaled_up.permute(0, 2, 3, 1).cpu().numpy()


class Log:
    """Means since the last line, to `log.jsonl`, TensorBoard (if there) and the terminal."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.sums: dict[str, list[float]] = {}
        self.first, self.seen, self.began = trainer.step, trainer.step, time.monotonic()
        if trainer.main:
            self._forget_later_lines(trainer.out / "log.jsonl")

    def _forget_later_lines(self, path: Path) -> None:
        """What was logged after the checkpoint that is gone on from will be logged again."""
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            kept = [x for x in lines if x.endswith("\n") and json.loads(x)["step"] <= self.first]
            write_file(path, "".join(kept).encode())

    def add(self, terms: Mapping[str, Tensor], t: Tensor) -> None:
        steps = self.trainer.times
        for name, values in terms.items():
            for value, quartile in zip(values.tolist(), (4 * t // steps).tolist(), strict=True):
                self.sums.setdefault(name, []).append(value)
                if name == "loss":  # of the least to the most noise
                    self.sums.setdefault(f"loss_q{quartile}", []).append(value)

    def write(self) -> None:
        trainer = self.trainer
        means = {k: sum(v) / len(v) for k, v in sorted(self.sums.items())}
        self.sums = {}
        if not trainer.main:
            return
        seconds = (time.monotonic() - self.began) / max(1, trainer.step - self.first)
        rate = trainer.global_batch / max(seconds, 1e-9)
        with (trainer.out / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": trainer.step, "images_per_s": rate, **means}) + "\n")
        if trainer.board is not None:
            for name, value in means.items():
                trainer.board.add_scalar(name, value, trainer.step)
        left = ""
        if math.isfinite(trainer.config.last_step):
            rest = int(seconds * (trainer.config.last_step - trainer.step))
            left = f"/{trainer.config.last_step}  ETA {rest // 3600}:{rest // 60 % 60:02}"
            left += f":{rest % 60:02}"
        shown = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
        trainer.say(f"step {trainer.step}{left}  {rate:.2f} images/s  {shown}")


# ── what is trained on, and from ─────────────────────────────────────────────────────────────


def geometry(config: TrainConfig, unet: UNetConfig) -> tuple[int, tuple[int, int]]:
    """Coarse factor and the (height, width) of a training crop. Raises ModelError."""
    small = config.small_size or unet.image_size // 4
    if small < 1 or unet.image_size % small:
        raise ModelError(f"small_size {small} does not divide image_size {unet.image_size}")
    factor = unet.image_size // small
    grid, short = math.lcm(unet.size_multiple, factor), config.crop_size or unet.image_size
    if not grid <= short <= unet.image_size:
        name = "crop_size" if config.crop_size else "image_size"
        raise ModelError(f"{name} {short} is not within {grid} (the grid) … {unet.image_size}")
    height = short // grid * grid
    width = int(short * ASPECT.get(config.dataset_mode, 1.0)) // grid * grid
    return factor, (height, width)


def open_scenes(config: TrainConfig, unet: UNetConfig, factor: int, split: str) -> SceneFolder:
    """The dataset of a run, checked against the network. Raises InputError."""
    source = open_source(
        config.dataset_mode,
        Path(config.data_dir),
        split,
        num_classes=unet.num_classes,
        generated_semantic=Path(config.generated_semantic) if config.generated_semantic else None,
        coarse_path=Path(config.coarse_path) if config.coarse_path else None,
        image_path=Path(config.image_path) if config.image_path else None,
    )
    if unet.instance_edges:
        lone = [e.image for e in source.entries if e.instances is None]
        if lone:
            raise InputError(
                f"no_instance is False, but {lone[0]} has no instance map: give --no_instance True"
            )
    return SceneFolder(
        source=source,
        image_size=unet.image_size,
        coarse_factor=factor,
        quality=config.quality if config.compression_type == "down+bpg" else None,
        chroma=config.chroma,
        cache=Path(config.out) / "coarse",
    )


def read_weights(path: Path, unet: UNetConfig, process: DiffusionConfig) -> dict[str, Tensor]:
    """Weights to begin with, from our safetensors or a `.pt` of the original.

    Raises ModelError, also where ours were trained as another network, picture size apart.
    """
    if path.suffix.lower() != ".safetensors":
        return dict(build(unet, read_original(path), str(path)).state_dict())
    model, trained = load_model(path)
    flags = flags_from_configs(dataclasses.replace(unet, precision="float32"), process)
    del flags["image_size"]
    check_flags(flags, model.config, trained, path)
    return dict(build(unet, model.state_dict(), str(path)).state_dict())


# ── the command ──────────────────────────────────────────────────────────────────────────────


def parse(argv: Sequence[str]) -> tuple[TrainConfig, UNetConfig, DiffusionConfig]:
    """Flags (and a preset) → configurations. Raises ModelError naming what is impossible."""
    parser = argparse.ArgumentParser(
        prog="sempic train",
        description="Train the paper's network, under the original's flags.",
        allow_abbrev=False,
    )
    fields = {f.name: f for f in dataclasses.fields(TrainConfig)}
    for name, field in fields.items():
        default = field.default
        parser.add_argument(
            f"--{name}",
            default=argparse.SUPPRESS,
            help="needed" if default is dataclasses.MISSING else f"({default})",
        )
    for name, default in DEFAULTS.items():
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=f"network ({default})")
    given = read_flags(parser, argv, PRESETS)
    for name in ("data_dir", "dataset_mode"):
        if name not in given:
            raise ModelError(f"--{name} is missing")
    unet, process = configs_from_flags(given)
    values = {k: typed(k, v, str(fields[k].type)) for k, v in given.items() if k in fields}
    config = TrainConfig(**values)
    geometry(config, unet)
    return config, unet, process


def main(argv: Sequence[str]) -> None:
    """`sempic train` with the original's flags."""
    config, unet, process = parse(argv)
    trainer = Trainer(config, unet, process)
    for part in (config, trainer.unet, process):
        values = {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
        trainer.say(re.sub(r"[{}']", "", f"{type(part).__name__}: {values}"))
    trainer.train()


if __name__ == "__main__":
    main(sys.argv[1:])
