"""`sempic train distill`: the compact receiver's second stage, sharp pictures in 1 to 4 steps.

Each update runs the receiver's sampler up to a random step and compares the resulting picture with
the original, by:

- L1;
- frozen ImageNet features, place by place;
- moments of these features over the crop;
- the last features, pooled: their squared distance over pairs is an upper bound of a Fréchet
  distance. Inception's features are reserved for measuring;
- a discriminator on these features and those of the coarse picture (Sauer et al., "Projected GANs
  Converge Faster", 2021; "Adversarial Diffusion Distillation", 2023);
- the outputs of frozen segmenters.

Fidelity, an input of the network, is drawn for each update and sets the weights of these losses.
Pixels of critical classes (`Taxonomy.critical`) weigh more in losses that compare place by place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sempic.diffusion import edm
from sempic.errors import ModelError
from sempic.networks.compact import PATCH, upsample
from sempic.networks.weights import filled, load_segmenter, load_tensors
from sempic.palette import CITYSCAPES
from sempic.training import losses
from sempic.training.data.batches import Batch
from sempic.training.data.taxonomy import Taxonomy
from sempic.training.device import autocast, compiled, generator
from sempic.training.optimizer import Optimizer, Schedule
from sempic.training.options import DistillOptions
from sempic.training.recipes.receiver import ReceiverRecipe, parameter_groups

_GRID = (1, 2, 4)
"""Numbers of sampling steps to train for."""
_MARGIN = 16
"""Pixels of a crop's height and width that the random window of a segmenter leaves out."""

View = Callable[[Tensor], Tensor]


class SemanticLoss:
    """Divergence between a frozen segmenter's outputs for two pictures."""

    def __init__(self, path: Path, taxonomy: Taxonomy, device: torch.device) -> None:
        """Raises ModelError for other classes than the taxonomy's, but takes CamVid's and custom
        ones."""
        network = load_segmenter(path).requires_grad_(False)
        classes, palette = network.config.classes, network.palette
        why = taxonomy.palette.unlike(classes, palette)
        if why and palette in (CITYSCAPES, None):
            raise ModelError(f"{path} knows {why}")
        # Not compiled, because the size of its input varies (`compiled`).
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.critical = torch.from_numpy(taxonomy.critical(palette)[:classes]).to(device)

    def divergence(self, made: Tensor, image: Tensor, weight: float, view: View) -> Tensor:
        """Mean Kullback-Leibler divergence, nats per pixel, of the classes in `made` from those in
        `image`, both (B, 3, H, W) in [-1, 1].

        Pixels weigh more where either picture has a critical class, so that both lost and invented
        objects count.
        """
        with torch.no_grad():
            p = self.network(view(image)).float().softmax(1)
        log_q = self.network(view(made)).float().log_softmax(1)
        q = log_q.detach().exp()
        seen = torch.einsum("bchw,c->bhw", torch.maximum(p, 0.5 * q), self.critical)
        weights = 1 + 2 * weight * seen
        return (F.kl_div(log_q, p, reduction="none").sum(1) * weights).sum() / weights.sum()


def segmenter_view(size: tuple[int, int], rng: np.random.Generator) -> View:
    """A function that cuts a random window out of crops of `size`, (H, W), enlarges it at random
    and maps it to [0, 1]. Fixed windows would reward patterns that fool this segmenter alone."""
    top, left = (int(v) for v in rng.integers(0, _MARGIN, 2))
    scale = float(rng.choice((1.0, 1.25, 1.5)))
    height, width = (side - _MARGIN for side in size)
    large = [max(32, round(side * scale / 32) * 32) for side in (height, width)]

    def view(x: Tensor) -> Tensor:
        part = x[..., top : top + height, left : left + width]
        return F.interpolate((part.clamp(-1, 1) + 1) / 2, large, mode="bilinear")

    return view


def weighted(apart: Tensor, weight: Tensor) -> Tensor:
    """Mean magnitude of a difference, (B, C, H, W), with a weight for each place, (B, 1, H, W)."""
    return (apart.float().abs().mean(1, keepdim=True) * weight).sum() / weight.sum()


class Distill(ReceiverRecipe):
    """Each step updates the discriminator, then the receiver."""

    def __init__(self, options: DistillOptions, device: torch.device) -> None:
        super().__init__(options, device, offset=1)
        features = losses.Features(vgg=options.vgg > 0, folder=options.features).to(device)
        self.features = features
        self.compiled_features = compiled(features, device)
        sizes = features.channels, features.widths, self.config.classes
        build, begin = functools.partial(losses.Discriminator, *sizes), options.discriminator
        given = None if begin is None else load_tensors(begin, "discriminator")[0]
        self.discriminator = (build() if given is None else filled(build, given, begin)).to(device)
        self.networks = {"discriminator": self.discriminator}
        self.critical = torch.from_numpy(self.taxonomy.critical()).to(device)
        self.semantic_losses = [
            SemanticLoss(path, self.taxonomy, device) for path in options.segmenter
        ]
        self.optimizers = {
            "network": Optimizer(
                parameter_groups(self.network, options.lr),
                schedule=Schedule(warmup=100, floor=0.1),
                betas=(0.5, 0.99),
                clip=1.0,
            ),
            "discriminator": Optimizer(
                [{"params": list(self.discriminator.parameters()), "lr": 4e-4}],
                schedule=Schedule(),
                betas=(0.5, 0.99),
            ),
        }
        # A negative spread means that no variance has been measured yet.
        self.memory = {"scale": features.scale, "spread": torch.full((), -1.0, device=device)}
        self._levels = [edm.sigmas(n, self.config.sigma_max).to(device) for n in _GRID]

    def prepare(self) -> None:
        batch, _ = self.draw(0)
        self.features.calibrate(batch.image)

    def step(self, number: int) -> dict[str, Tensor]:
        batch, planes = self.draw(number)
        rng = np.random.default_rng((self.options.seed + 2, number))
        fidelity = float(rng.choice((0.0, rng.random(), 1.0), p=(0.8, 0.1, 0.1)))
        base = upsample(batch.coarse)
        made = base + self._sample(number, batch, planes, fidelity, rng)
        view, window = losses.random_view(batch.image, rng), losses.random_window(batch.image, rng)
        classes = planes[:, : self.config.classes]

        def features_of(picture: Tensor) -> list[Tensor]:
            seen = view(picture).contiguous(memory_format=torch.channels_last)
            return self.compiled_features(seen, seen[(..., *window)])

        with autocast(self.device):
            with torch.no_grad():
                real = features_of(batch.image)
                conditions = losses.conditioning(features_of(base), view(classes), window)
            fake = features_of(made)  # for both updates
        discriminator_loss = self._update_discriminator(real, fake, conditions, fidelity)
        weight = 1 + self.options.critical * self.critical[batch.truth.long()][:, None]
        parts = self._pixel_losses(made, batch.image, weight, fidelity)
        parts |= self._feature_losses(fake, real, view(weight), window, fidelity)
        parts["adversarial"] = self._adversarial_loss(fake, conditions, fidelity)
        if self.semantic_losses:
            semantic = self.semantic_losses[int(rng.integers(len(self.semantic_losses)))]
            crop_view = segmenter_view(self.options.crop, rng)
            with autocast(self.device):
                apart = semantic.divergence(made, batch.image, self.options.critical, crop_view)
            parts["semantic"] = (1 - 0.5 * fidelity) * self.options.semantic * apart
        norm = self.optimizers["network"].minimise(torch.stack(list(parts.values())).sum())
        self.network.normalise()
        return {**parts, "discriminator": discriminator_loss, "norm": norm}

    def _sample(
        self, number: int, batch: Batch, planes: Tensor, fidelity: float, rng: np.random.Generator
    ) -> Tensor:
        """The residual after a random step of a random sampler; half of the time, of the sampler
        with one step."""
        levels = self._levels[0 if rng.random() < 0.5 else int(rng.integers(1, len(_GRID)))]
        last = int(rng.integers(1, len(levels))) if len(levels) > 1 else 0
        known = batch.coarse, planes, levels[: last + 1], generator(self.options, number)
        with autocast(self.device):
            *_, residual = edm.sample(self.working, *known, fidelity, batch.texture, batch.strength)
        return residual

    def _update_discriminator(
        self, real: list[Tensor], fake: list[Tensor], conditions: list[Tensor], fidelity: float
    ) -> Tensor:
        """Update the discriminator; returns its hinge loss."""
        with autocast(self.device):
            scores = zip(
                self.discriminator(real, conditions),
                self.discriminator([f.detach() for f in fake], conditions),
                strict=True,
            )
            loss = torch.stack(
                [F.relu(1 - r.float()).mean() + F.relu(1 + f.float()).mean() for r, f in scores]
            ).mean()
        if fidelity < 0.5:  # a picture of high fidelity is a mean and need not look real
            self.optimizers["discriminator"].minimise(loss)
        return loss

    def _adversarial_loss(
        self, fake: list[Tensor], conditions: list[Tensor], fidelity: float
    ) -> Tensor:
        """Minus the discriminator's mean score of the receiver's picture, weighted."""
        self.discriminator.requires_grad_(False)
        with autocast(self.device):
            scores = self.discriminator(fake, conditions)
        self.discriminator.requires_grad_(True)
        score = torch.stack([s.float().mean() for s in scores]).mean()
        return -(1 - fidelity) * self.options.adversarial * score

    def _pixel_losses(
        self, made: Tensor, image: Tensor, weight: Tensor, fidelity: float
    ) -> dict[str, Tensor]:
        """Distances between pictures."""
        options = self.options
        coarse = F.avg_pool2d(made - image, PATCH).abs().mean()
        return {
            "pixel": (1 + fidelity) * options.pixel * weighted(made - image, weight),
            "coarse": options.coarse * coarse,
            "energy": (1 - fidelity) * options.energy * losses.unevenness(made, image),
        }

    def _feature_losses(
        self,
        fake: list[Tensor],
        real: list[Tensor],
        weight: Tensor,
        window: tuple[slice, slice],
        fidelity: float,
    ) -> dict[str, Tensor]:
        """Distances between features, place by place and over the crop. `weight`, (B, 1, H, W), are
        the weights of the features' input pixels."""
        options, likely = self.options, 1 - fidelity
        weights = losses.shrunk(weight.clamp_min(0.5), real, window)  # bicubic enlarging overshoots
        apart = torch.stack(
            [weighted(f - r, w) for f, r, w in zip(fake, real, weights, strict=True)]
        )
        textures = [
            (losses.moments(f) - losses.moments(r)).abs().mean()
            for f, r in zip(fake, real, strict=True)
        ]
        with autocast(self.device):
            pooled = self.features.pooled(fake)
            with torch.no_grad():
                wanted = self.features.pooled(real)
        variance, spread = wanted.var(0, correction=0).sum(), self.memory["spread"]
        spread.copy_(torch.where(spread < 0, variance, 0.98 * spread + 0.02 * variance))
        parts = {
            "feature": (1 - 0.7 * fidelity) * options.feature * apart[: losses.BACKBONE].mean(),
            "texture": likely * options.texture * torch.stack(textures).mean(),
            "pooled": likely * options.pooled * (pooled - wanted).square().sum(1).mean() / spread,
        }
        if options.vgg:
            parts["vgg"] = (1 - 0.7 * fidelity) * options.vgg * apart[losses.BACKBONE :].mean()
        return parts
