"""Which network and training recipe for the compact receiver learns most in a fixed time?

    python benchmarks/short_runs.py CORPUS [--seconds 240] [--threads 1] [--only TEXT] [--json OUT]

CORPUS is made by `sempic train corpus`; crops are those of `sempic train denoise`, whose first
stage this compares. Every recipe starts with random weights and has the same time and the same
crops in the same order. Then it denoises held-out pictures (every eighth of the corpus) in one
step. The figure is the mean squared error relative to the residual's variance (1: as good as no
network), from pure noise, where sampling starts, and with noise of half the residual's standard
deviation. Number of parameters and time for a picture of 256×336 stand beside it.

Recipes differ in architecture, in the target of the network's output, in the noise levels of
training, and in arithmetic. The bundled target is EDM's, which is v of Salimans and Ho (2022) apart
from sign and scale. All recipes weight noise levels as EDM does.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import above_zero, in_one_line, new_parser, positive, save
from torch import Tensor, nn

from sempic.diffusion import edm
from sempic.diffusion.sampling import to_unit
from sempic.networks import compact
from sempic.networks.compact import CompactConfig, CompactNet
from sempic.training.data.batches import Crops, Drops
from sempic.training.data.corpus import Corpus, Sample, open_corpus
from sempic.training.device import autocast
from sempic.training.optimizer import Optimizer, Schedule
from sempic.training.options import RunOptions
from sempic.training.recipe import Recipe as Trained
from sempic.training.recipes.receiver import parameter_groups
from sempic.training.trainer import train

CPU = torch.device("cpu")
Meaning = Callable[[Tensor, float], tuple[Tensor, Tensor]]
"""Noise level and deviation of the data → what the noisy residual and the network's output, which
has unit variance, are multiplied by in the estimate."""


def edms(sigma: Tensor, data: float) -> tuple[Tensor, Tensor]:
    total = sigma**2 + data**2
    return data**2 / total, sigma * data / total.sqrt()


def residuals(sigma: Tensor, data: float) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(sigma), torch.full_like(sigma, data)


def noises(sigma: Tensor, data: float) -> tuple[Tensor, Tensor]:
    return torch.ones_like(sigma), -sigma


def velocities(sigma: Tensor, data: float) -> tuple[Tensor, Tensor]:
    """Of rectified flow: noise minus the residual, scaled to the noise's standard deviation."""
    time = sigma / (sigma + data)
    return 1 - time, -time * data * 2**0.5


class Attention(nn.Module):
    """Self-attention after a block: one head, a residual branch whose initial output is 0."""

    def __init__(self, block: nn.Module, channels: int) -> None:
        super().__init__()
        self.block = block
        self.ask, self.answer = (
            nn.Conv2d(channels, 3 * channels, 1),
            nn.Conv2d(channels, channels, 1),
        )
        nn.init.zeros_(self.answer.weight)
        nn.init.zeros_(self.answer.bias)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        x = self.block(x, emb)
        query, key, value = self.ask(x).flatten(2).transpose(1, 2).chunk(3, 2)
        found = F.scaled_dot_product_attention(query, key, value)
        branch: Tensor = self.answer(found.transpose(1, 2).reshape(x.shape))
        return x + branch


class Doubled(nn.Module):
    """A block whose output is enlarged to twice the size."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return F.interpolate(self.block(x, emb), scale_factor=2, mode="bilinear")


def attentive(network: CompactNet) -> None:
    """Adds attention at the end of the lowest level."""
    network.encoder[-1] = Attention(network.encoder[-1], network.config.widths[-1])


def coarser(network: CompactNet) -> None:
    """Changes to patches of 8 pixels: strides 8, 16, …"""
    stem = network.stem.weight
    network.stem = type(network.stem)(stem.shape[1], stem.shape[0], 2, 2)
    network.decoder[-1] = Doubled(network.decoder[-1])


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Defaults are those of the bundled receiver."""

    shape: dict[str, Any] = field(default_factory=dict)
    change: Callable[[CompactNet], None] = lambda network: None
    meaning: Meaning = edms
    levels: tuple[float, float] = (edm.P_MEAN, 1.0)
    """Mean and standard deviation of the logarithm of the noise levels (`edm.draw_sigma`)."""
    precision: Callable[[], contextlib.AbstractContextManager[Any]] = lambda: autocast(CPU)
    memory: torch.memory_format = torch.contiguous_format


RECIPES = {
    "bundled: 64/128/224, 2 + 3 blocks": Recipe(),
    "narrow: 48/96/160": Recipe(shape={"widths": (48, 96, 160)}),
    "wide: 96/160/256": Recipe(shape={"widths": (96, 160, 256)}),
    "two levels: 64/128": Recipe(shape={"widths": (64, 128)}),
    "shallow: 1 + 2 blocks": Recipe(shape={"encoder_blocks": 1, "decoder_blocks": 2}),
    "thick tail: 64": Recipe(shape={"tail_width": 64}),
    "attention at stride 16": Recipe(change=attentive),
    "patches of 8: 128/224": Recipe(shape={"widths": (128, 224)}, change=coarser),
    "output: the residual (x0)": Recipe(meaning=residuals),
    "output: the noise (epsilon)": Recipe(meaning=noises),
    "output: rectified flow": Recipe(meaning=velocities),
    "noise: half as strong": Recipe(levels=(-1.8, 1.0)),
    "noise: twice as strong": Recipe(levels=(-0.4, 1.0)),
    "noise: wider spread": Recipe(levels=(edm.P_MEAN, 1.6)),
    "float32": Recipe(precision=contextlib.nullcontext),
    "channels last": Recipe(memory=torch.channels_last),
}
CROP = (128, 176)
LR = 4e-3


@in_one_line()
def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--seconds", type=above_zero, default=240, help="each")
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="recipes with TEXT in their names"
    )
    args = parser.parse_args()
    if not (recipes := {name: recipe for name, recipe in RECIPES.items() if args.only in name}):
        parser.error(f"--only {args.only}: no recipe is called so; there are {', '.join(RECIPES)}")
    torch.set_num_threads(args.threads)
    corpus = open_corpus([args.corpus])
    samples = corpus.part(judged=False)
    names = sorted({sample.name for sample in samples})
    first = {sample.name: sample for sample in reversed(samples)}
    held = [first[name] for name in names[::8]]
    seen = [sample for sample in samples if sample.name not in set(names[::8])]
    print(
        f"{args.seconds:g} s each on {args.threads} of {os.cpu_count()} cores, {len(held)} held out"
    )
    print(f"{'':<36}{'M':>6}{'ms':>7}{'steps':>7}{'noise alone':>13}{'half noise':>12}")
    found = {}
    for name, recipe in recipes.items():
        found[name] = entry = short_run(recipe, corpus, seen, held, args.seconds)
        print(
            f"{name:<36}{entry['parameters'] / 1e6:6.1f}{1000 * entry['picture']:7.0f}"
            f"{entry['steps']:7}{entry['alone']:13.3f}{entry['half']:12.3f}",
            flush=True,
        )
    save(args, found)


def guess(
    recipe: Recipe, network: CompactNet, noisy: Tensor, small: Tensor, planes: Tensor, sigma: Tensor
) -> Tensor:
    """`compact.denoise` for another target of the network's output."""
    data = network.config.sigma_data
    s = sigma[:, None, None, None]
    skip, scale = edms(s, data)
    output = (compact.denoise(network, noisy, small, planes, sigma) - skip * noisy) / scale
    skip, scale = recipe.meaning(s, data)
    return skip * noisy + scale * output


class ShortRun(Trained):
    """The receiver's first stage with another recipe."""

    kind = "short"
    decay = 0.98

    def __init__(self, recipe: Recipe, corpus: Corpus, seen: list[Sample]) -> None:
        torch.manual_seed(0)
        self.recipe = recipe
        corpus = Corpus(corpus.taxonomy, corpus.weights, seen)
        self.crops = Crops(corpus, size=CROP, device=CPU, drops=Drops(0.1, 0.0, 0.0))
        self.config = CompactConfig(classes=corpus.taxonomy.classes, **recipe.shape)
        self.network: CompactNet = CompactNet(self.config)
        recipe.change(self.network)
        self.network.normalise()
        self.network.to(memory_format=recipe.memory)
        self.optimizer = Optimizer(
            parameter_groups(self.network, LR),
            schedule=Schedule(20, 0.1),
            betas=(0.9, 0.99),
            clip=10.0,
        )
        self.networks, self.memory = {}, {}
        self.optimizers = {"network": self.optimizer}
        self.steps, self.averaged = 0, {}

    def step(self, number: int) -> dict[str, Tensor]:
        recipe, data = self.recipe, self.config.sigma_data
        batch = self.crops.draw(0, number, 8)
        image, small = batch.image, batch.coarse
        mean, deviation = recipe.levels
        sigma = (mean + deviation * torch.randn(len(image))).exp()
        noise = torch.randn_like(image)
        planes = compact.one_hot(batch.labels, self.config.classes)
        with recipe.precision():
            residual = image - compact.upsample(small)
            noisy = (residual + noise * sigma[:, None, None, None]).contiguous(
                memory_format=recipe.memory
            )
            estimate = guess(recipe, self.network, noisy, small, planes, sigma)
            squares = (estimate - residual).square().mean((1, 2, 3))
            loss = (squares * (sigma**2 + data**2) / (sigma * data) ** 2).mean()
        norm = self.optimizer.minimise(loss)
        self.network.normalise()
        self.steps = number + 1
        return {"loss": loss, "norm": norm}

    def validate(self, state: dict[str, Tensor], sheet: Path) -> dict[str, float]:
        self.averaged = state
        return {}

    def about(self) -> dict[str, Any]:
        return {}

    def save(self, state: dict[str, Tensor], folder: Path, name: str, step: int) -> None:
        pass


def short_run(
    recipe: Recipe, corpus: Corpus, seen: list[Sample], held: list[Sample], seconds: float
) -> dict[str, Any]:
    run = ShortRun(recipe, corpus, seen)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        train(run, RunOptions(out=Path(folder), minutes=seconds / 60, check_every=1 << 30))
    run.network.load_state_dict(run.averaged)
    errors, picture = held_out(recipe, run.network, held)
    return {
        "parameters": sum(p.numel() for p in run.network.parameters()),
        "picture": picture,
        "steps": run.steps,
        "alone": errors[0],
        "half": errors[1],
    }


@torch.no_grad()
def held_out(recipe: Recipe, network: CompactNet, held: list[Sample]) -> tuple[list[float], float]:
    """Errors from noise alone and at half the signal's deviation; seconds of a picture."""
    sums, power, times = np.zeros(2), 0.0, []
    for index, sample in enumerate(held):
        rows, columns = (side // 16 * 16 for side in sample.image.shape[:2])
        image, small = (
            to_unit(torch.from_numpy(part.copy()))[None]
            for part in (sample.image, sample.coarse[0])
        )
        planes = compact.one_hot(
            torch.from_numpy(sample.maps[0].copy())[None], network.config.classes
        )
        residual = image - compact.upsample(small)
        power += residual.square().mean().item()
        noise = torch.randn(residual.shape, generator=torch.Generator().manual_seed(index))
        levels = network.config.sigma_max, network.config.sigma_data / 2
        for which, level in enumerate(levels):
            noisy = (which * residual) + level * noise
            start = time.process_time()
            estimate = guess(recipe, network, noisy, small, planes, torch.tensor([level]))
            times.append((time.process_time() - start) * 256 * 336 / (rows * columns))
            sums[which] += (estimate - residual).square().mean().item()
    return [float(s / power) for s in sums], float(np.median(times))


if __name__ == "__main__":
    main()
