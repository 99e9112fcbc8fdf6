"""`sempic train paper`: the paper's network, under the original's flags.

Every random draw depends on the seed and the position in the stream of scenes alone. So a resumed
run continues exactly, and two processes with half the batch each compute what one process computes
with the whole batch (except dropout).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sempic import files, pictures
from sempic.diffusion import checkpoints
from sempic.diffusion.gaussian import DiffusionConfig, make_diffusion
from sempic.diffusion.original import read_original, read_progress
from sempic.diffusion.sampling import ddpm, guided, paper_start, seeded_noise, to_uint8, to_unit
from sempic.diffusion.timesteps import LossSecondMomentSampler, UniformSampler
from sempic.errors import ModelError
from sempic.networks.unet import SemanticUNet, UNetConfig, make_condition
from sempic.networks.weights import filled
from sempic.places import need_folder
from sempic.training.data.crops import CropStream, seeded
from sempic.training.data.scenes import TrainingScene, crop_size, open_scenes
from sempic.training.device import to_device
from sempic.training.flags import PaperOptions, filled_in
from sempic.training.optimizer import Ema, Optimizer
from sempic.training.options import RunOptions, fixed
from sempic.training.recipe import Recipe
from sempic.training.trainer import train

MAY_CHANGE = {
    "lr_anneal_steps", "steps", "log_interval", "save_interval", "save_minutes", "keep",
    "sheet_size", "workers", "data_dir", "generated_semantic", "coarse_path", "image_path", "out",
    "microbatch", "batch_size",
}  # fmt: skip
"""As in `options`; batch_size × processes is compared."""


class LossScale:
    """The original's loss scaling, which keeps gradients above the smallest float16."""

    def __init__(self, growth: float) -> None:
        self.growth = growth
        self.log2 = torch.tensor(20.0)

    def __call__(self, loss: Tensor) -> Tensor:
        return loss * float(2**self.log2)

    def undo(self, gradients: list[Tensor]) -> bool:
        """Unscale gradients in place. If they overflowed, halve the scale and return False."""
        torch._foreach_mul_(gradients, float(2**-self.log2))
        finite = bool(nn.utils.get_total_norm(gradients).isfinite())
        self.log2 += self.growth if finite else -1.0
        return finite


class Paper(Recipe):
    """The hybrid loss of Improved DDPM, on crops of which some have no map (drop_rate)."""

    kind = "unet"

    def __init__(self, options: PaperOptions, unet: UNetConfig, process: DiffusionConfig) -> None:
        size = crop_size(options, unet)
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.device, self.rank = self.accelerator.device, self.accelerator.process_index
        if unet.precision == "float16" and self.device.type != "cuda":
            self.accelerator.print("no GPU: computing in float32 instead of float16")
            unet = replace(unet, precision="float32")
        self.options, self.unet, self.process = options, unet, process
        self.global_batch = options.batch_size * self.accelerator.num_processes
        self.stream = CropStream(
            open_scenes(options, unet, "train"),
            size,
            flip=options.random_flip,
            seed=options.seed,
            threads=options.workers,
        )
        self.diffusion = make_diffusion(process)
        torch.manual_seed(options.seed)
        start = options.resume_checkpoint
        network = read_weights(Path(start), unet, process) if start else SemanticUNet(unet)
        self.network: SemanticUNet = network.to(self.device).train()
        self.working = self.accelerator.prepare_model(self.network)
        self.optimizer = Optimizer(
            [{"params": list(self.network.parameters()), "lr": options.lr}],
            schedule=self._annealed,
            weight_decay=options.weight_decay,
        )
        self.optimizers = {"network": self.optimizer}
        self.times = min(len(self.diffusion), (options.max_train_time or process.steps) + 1)
        uniform = options.schedule_sampler == "uniform"
        kind = UniformSampler if uniform else LossSecondMomentSampler
        self.sampler = kind(self.times)
        self.scale = LossScale(options.fp16_scale_growth)
        self.memory = {**self.sampler.memory, "scale": self.scale.log2}

    def _annealed(self, step: int, progress: float) -> float:
        """A share of the rate that falls linearly to 0 over lr_anneal_steps; constant for 0."""
        steps = self.options.lr_anneal_steps
        return max(0.0, 1 - step / steps) if steps else 1.0

    @cached_property
    def averages(self) -> dict[str, Ema]:
        return {
            f"ema_{rate}": Ema(self.network, rate, warmup=False) for rate in self.options.ema_rates
        }

    @property
    def run_options(self) -> RunOptions:
        options = self.options
        steps = options.steps or options.lr_anneal_steps
        return RunOptions(
            out=Path(options.out),
            steps=steps,
            minutes=0.0 if steps else math.inf,
            batch=self.global_batch,
            seed=options.seed,
            log_every=options.log_interval,
            check_every=options.save_interval,
            save_minutes=options.save_minutes,
        )

    def fixed(self) -> dict[str, Any]:
        own = fixed(asdict(self.options), MAY_CHANGE, ["resume_checkpoint"])
        batch = {"batch_size × processes": self.global_batch}
        return {**own, **asdict(self.unet), **asdict(self.process), **batch}

    def prepare(self) -> None:
        """Continue a run of the original, if its files lie beside `modelNNN.pt`."""
        path = Path(self.options.resume_checkpoint)
        self.first, averages, optimizer = read_progress(path, self.options.ema_rates)
        for rate, weights in averages.items():
            for name, value in self.averages[f"ema_{rate}"].state.items():
                value.copy_(weights[name])
        if optimizer is not None:
            state = self.optimizer.adam.state_dict()
            names = [name for name, _ in self.network.named_parameters()]
            state["state"] = {i: optimizer[name] for i, name in enumerate(names)}
            self.optimizer.adam.load_state_dict(state)
        if self.first:
            found = [f"ema_{rate}" for rate in averages] + ["opt"] * (optimizer is not None)
            beside = f" and {', '.join(found)} beside it" if found else ", nothing beside it"
            self.accelerator.print(
                f"going on from step {self.first} of the original: {path.name}{beside}"
            )

    def draw(self, positions: range) -> tuple[list[TrainingScene], Tensor, Tensor, Tensor]:
        """Crops of the stream; their pictures, coarse pictures and conditions on the device."""
        scenes = [self.stream[position] for position in positions]

        def stacked(part: str) -> Tensor:
            return to_device(np.stack([getattr(scene, part) for scene in scenes]), self.device)

        edges = stacked("edges") if self.unet.instance_edges else None
        condition = make_condition(stacked("labels"), self.unet.num_classes, edges)
        image, coarse = (to_unit(stacked(part)).contiguous() for part in ("image", "coarse"))
        return scenes, image, coarse, condition

    def step(self, number: int) -> dict[str, Tensor]:
        options, size = self.options, self.options.batch_size
        first = number * self.global_batch + self.rank * size
        positions = range(first, first + size)
        self.stream.prepare([*positions, *(p + self.global_batch for p in positions)])
        torch.manual_seed(int(seeded(options.seed, "dropout", first).integers(2**62)))
        scenes, image, coarse, condition = self.draw(positions)
        kept = [seeded(options.seed, "drop", p).random() >= options.drop_rate for p in positions]
        condition *= to_device(np.array(kept), self.device)[:, None, None, None]
        noise = torch.stack([self._noise(position, image.shape[1:]) for position in positions])
        t, weights = self.sampler.draw(self.global_batch, seeded(options.seed, "time", number))
        mine = slice(self.rank * size, (self.rank + 1) * size)
        drawn = (to_device(x.numpy(), self.device) for x in (noise, t[mine], weights[mine]))

        losses = self._descend(image, coarse, condition, *drawn)
        terms = {name: self.accelerator.gather(x).cpu() for name, x in losses.items()}
        if not torch.isfinite(terms["loss"]).all():
            raise ModelError(
                f"step {number}: the loss is {float(terms['loss'].sum())}; "
                f"in the batch: {', '.join(scene.name for scene in scenes)}"
            )
        gradients = [p.grad for p in self.optimizer.parameters if p.grad is not None]
        half = self.unet.precision == "float16"
        if half:
            terms["lg_loss_scale"] = self.scale.log2.clone()  # the original's name
        if not half or self.scale.undo(gradients):
            self.optimizer.advance()
        self.sampler.update(t.tolist(), terms["loss"].tolist())
        quartiles = 4 * t // self.times  # of the least to the most noise
        for quartile in sorted(set(quartiles.tolist())):
            terms[f"loss_q{quartile}"] = terms["loss"][quartiles == quartile]
        return terms

    def _noise(self, position: int, shape: Sequence[int]) -> Tensor:
        seed = int(seeded(self.options.seed, "noise", position).integers(2**62))
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

    def _descend(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Compute the gradients of a batch, in microbatches; returns the loss's terms,
        (batch_size,) each."""
        size = self.options.batch_size
        width = self.options.microbatch if self.options.microbatch > 0 else size
        self.optimizer.adam.zero_grad(set_to_none=True)
        terms: dict[str, list[Tensor]] = {}
        for start in range(0, size, width):
            image, coarse, condition, noise, t, weights = (x[start : start + width] for x in inputs)
            last = start + width >= size
            with nullcontext() if last else self.accelerator.no_sync(self.working):
                noisy = self.diffusion.q_sample(image, t, noise)
                out = self.working(noisy, self.diffusion.network_time(t), coarse, condition)
                losses = self.diffusion.losses(out, image, noisy, t, noise)
                loss = (losses.loss * weights).sum() / size
                half = self.unet.precision == "float16"
                self.accelerator.backward(self.scale(loss) if half else loss)
            for name, values in losses._asdict().items():
                if values is not None:
                    terms.setdefault(name, []).append(values.detach())
        return {name: torch.cat(parts) for name, parts in terms.items()}

    def validate(self, state: dict[str, Tensor], sheet: Path) -> dict[str, float]:
        """Write a sheet, one of the first crops per row: coarse | labels | sample | original."""
        if not self.options.sheet_size:
            return {}
        scenes, image, coarse, condition = self.draw(range(self.options.sheet_size))
        network = filled(lambda: SemanticUNet(self.unet), state, sheet).eval()
        start = paper_start(coarse, self.stream.size)
        *_, last = ddpm(
            make_diffusion(self.process, str(min(50, self.process.steps)), 200),
            guided(network, coarse, condition),
            start,
            noise=seeded_noise(torch.Generator().manual_seed(self.options.seed)),
        )
        palette = self.stream.scenes.dataset.palette
        painted = palette.paint(np.stack([scene.labels for scene in scenes]))
        columns = [to_uint8(start), painted, to_uint8(last.sample), to_uint8(image)]
        rows = np.concatenate([np.concatenate(list(c), axis=0) for c in columns], axis=1)
        files.write(sheet, pictures.encode(rows, ".png"))
        return {}

    def about(self) -> dict[str, Any]:
        return {"unet": asdict(self.unet), "diffusion": asdict(self.process)}

    def save(self, state: dict[str, Tensor], folder: Path, name: str, step: int) -> Path:
        """Write averaged weights, and delete all but the newest `keep` of the same rate; those of
        later steps, which are not of this run, stay."""
        written = super().save(state, folder, f"{name}_{step:06}", step)
        pattern = re.compile(rf"{re.escape(name)}_(\d{{6,}})\.safetensors")
        found = (pattern.fullmatch(path.name) for path in folder.iterdir())
        steps = sorted((int(match[1]), match[0]) for match in found if match)
        own = [file for number, file in steps if number <= step]
        for old in own[: -self.options.keep]:
            (folder / old).unlink()
        return written


def read_weights(path: Path, unet: UNetConfig, process: DiffusionConfig) -> SemanticUNet:
    """Initial weights, from our safetensors or a `.pt` of the original.

    Raises ModelError, also if ours belong to another network; image_size may differ.
    """
    if path.suffix.lower() != ".safetensors":
        return filled(lambda: SemanticUNet(unet), read_original(path), path)
    model, trained = checkpoints.load_model(path)
    flags = checkpoints.flags_from_configs(replace(unet, precision="float32"), process)
    del flags["image_size"]
    checkpoints.check_flags(flags, model.config, trained, path)
    return filled(lambda: SemanticUNet(unet), model.state_dict(), path)


def run(flags: Mapping[str, object]) -> None:
    """`sempic train` with the original's flags. Raises ModelError or InputError with the name of a
    wrong flag."""
    unet, process = checkpoints.configs_from_flags(flags)
    options = filled_in(PaperOptions, flags)
    need_folder(Path(options.out))  # before the data are read
    recipe = Paper(options, unet, process)
    for part in (recipe.options, recipe.unet, recipe.process):
        recipe.accelerator.print(re.sub(r"[{}']", "", f"{type(part).__name__}: {asdict(part)}"))
    train(recipe, recipe.run_options)
