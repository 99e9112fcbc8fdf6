"""`sempic train distill`: make the compact receiver sharp in one to four steps (its second stage).

Each update samples as the receiver will, up to one of the sampler's steps, and judges the picture
that comes out of it: L1 and frozen ImageNet features against the original, these features' moments
over the crop, the last of them pooled (the squared distance between pooled features of pairs bounds
a Fréchet distance from above; Inception's, which measure, are not used), a discriminator on the
same features (Sauer et al., "Projected GANs Converge Faster", 2021; "Adversarial Diffusion
Distillation", 2023) beside those of what was sent, and a frozen segmenter against the map that was
sent; the wanted fidelity, an input of the network, says how much each of them counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sempic.diffusion import edm
from sempic.errors import ModelError
from sempic.networks.compact import PATCH, upsample
from sempic.networks.segmenter import double
from sempic.networks.weights import load_segmenter, load_tensors
from sempic.training.losses import (
    TAPS,
    Discriminator,
    Features,
    moments,
    told,
    unevenness,
    view_of,
    window_of,
)
from sempic.training.options import option, parse
from sempic.training.recipes.receiver import ReceiverOptions, ReceiverRecipe, rates
from sempic.training.trainer import Minimiser, Schedule, compiled, fast, generator, set_up, train

_GRID = (1, 2, 4)
"""Numbers of sampling steps that are trained for."""


@dataclass(frozen=True, kw_only=True)
class DistillOptions(ReceiverOptions):
    """Fine-tune a trained compact receiver for 1 to 4 steps. Run it again to go on."""

    init: Path = option("compact.safetensors of `sempic train denoise`, restore, grow or distill")
    discriminator: Path | None = option("of an earlier run, to begin with", None)
    segmenter: Path | None = option("segmenter.safetensors for semantic consistency", None)
    features: Path | None = option(
        "folder of `sempic train features`; default: the ImageNet package and the cache", None
    )
    batch: int = option("crops in a step", 4)
    lr: float = option("learning rate at its highest", 3e-3)
    crop: tuple[int, int] = option(
        "crops; multiples of 32 are fastest, of 16 allowed", (192, 256), metavar=("H", "W")
    )
    label_drop: float = option("share of the maps that are void", 0.03)
    pixel: float = option("weight of L1", 2.0)
    coarse: float = option("weight of L1 between the coarse pictures", 2.0)
    feature: float = option("weight of the feature distance", 1.5)
    texture: float = option(
        "weight of the distance between the features' means and deviations over a crop", 1.0
    )
    pooled: float = option(
        "weight of the squared distance between the last features' means, as a share of their "
        "variance",
        0.3,
    )
    energy: float = option(
        "weight of the distance between energies of detail, at each place of a patch", 1.0
    )
    vgg: float = option(
        "weight of the distance of VGG-16's features (`python -m sempic.evaluation.weights`), "
        "which the discriminator sees, too; 0 does without",
        1.0,
    )
    adversarial: float = option("weight of the discriminator's opinion", 0.4)
    semantic: float = option("weight of the segmenter's", 0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 2:
            raise ValueError(
                "--batch must be 2 or more: pooled features are compared with their variance"
            )


class Distill(ReceiverRecipe):
    """Two optimizers take turns: the discriminator's, then the receiver's."""

    options: DistillOptions

    def __init__(self, options: DistillOptions, device: torch.device) -> None:
        super().__init__(options, device, offset=1)
        features = Features(vgg=options.vgg > 0, folder=options.features).to(device)
        self.features = features
        self.look = compiled(features, device)
        self.discriminator = Discriminator(
            features.channels, features.widths, self.config.classes
        ).to(device)
        if options.discriminator is not None:
            state, _ = load_tensors(options.discriminator, "discriminator")
            self.discriminator.load_state_dict({k: v.float() for k, v in state.items()})
        self.networks = {"discriminator": self.discriminator}
        self.segmenter = None
        if options.segmenter is not None:
            segmenter = load_segmenter(options.segmenter).requires_grad_(False).to(device)
            if segmenter.config.classes != self.config.classes:
                raise ModelError(
                    f"{options.segmenter} knows {segmenter.config.classes} classes, the receiver "
                    f"{self.config.classes}"
                )
            self.segmenter = compiled(segmenter, device)
        self.generator = Minimiser(
            rates(self.network, options.lr),
            schedule=Schedule(warmup=100, floor=0.1),
            betas=(0.5, 0.99),
            clip=1.0,
        )
        self.critic = Minimiser(
            [{"params": list(self.discriminator.parameters()), "lr": 4e-4}],
            schedule=Schedule(),
            betas=(0.5, 0.99),
        )
        self.minimisers = {"network": self.generator, "discriminator": self.critic}
        # Negative: no variance was measured yet.
        self.memory = {"scale": features.scale, "spread": torch.full((), -1.0, device=device)}
        self._levels = [edm.sigmas(n, self.config.sigma_max).to(device) for n in _GRID]

    def prepare(self) -> None:
        image, *_ = self.draw(0)
        self.features.calibrate(image)

    def step(self, number: int) -> dict[str, Tensor]:
        options = self.options
        image, coarse, labels, planes = self.draw(number)
        rng = np.random.default_rng((options.seed + 2, number))
        classes, base = planes[:, : self.config.classes], upsample(coarse)
        fidelity = float(rng.choice((0.0, rng.random(), 1.0), p=(0.8, 0.1, 0.1)))
        # The first step, which is the only one of a decode in one, half of the time.
        levels = self._levels[0 if rng.random() < 0.5 else int(rng.integers(1, len(_GRID)))]
        last = int(rng.integers(1, len(levels))) if len(levels) > 1 else 0
        with fast(self.device):
            *_, residual = edm.sample(
                self.working,
                coarse,
                planes,
                levels[: last + 1],
                generator(options, number),
                fidelity,
            )
        made = base + residual
        view, window = view_of(image, rng), window_of(image, rng)

        # The discriminator, on features that the generator needs anyway.
        with fast(self.device):
            with torch.no_grad():
                real = self.look(view(image), window)
                wanted = self.features.pooled(real)
                sent = told(self.look(view(base), window), view(classes), window)
            fake = self.look(view(made), window)
            opinions = zip(
                self.discriminator(real, sent),
                self.discriminator([f.detach() for f in fake], sent),
                strict=True,
            )
            critic_loss = torch.stack(
                [F.relu(1 - r.float()).mean() + F.relu(1 + f.float()).mean() for r, f in opinions]
            ).mean()
        if fidelity < 0.5:  # what is meant to be a mean is no forgery
            self.critic.minimise(critic_loss)

        self.discriminator.requires_grad_(False)
        with fast(self.device):
            scores = self.discriminator(fake, sent)
            pooled = self.features.pooled(fake)
        self.discriminator.requires_grad_(True)
        variance, spread = wanted.var(0, correction=0).sum(), self.memory["spread"]
        spread.copy_(torch.where(spread < 0, variance, 0.98 * spread + 0.02 * variance))
        apart = torch.stack(
            [(f.float() - r.float()).abs().mean() for f, r in zip(fake, real, strict=True)]
        )
        textures = [(moments(f) - moments(r)).abs().mean() for f, r in zip(fake, real, strict=True)]
        likely = 1 - fidelity
        parts = {
            "pixel": (1 + fidelity) * options.pixel * (made - image).abs().mean(),
            "coarse": options.coarse * F.avg_pool2d(made - image, PATCH).abs().mean(),
            "feature": (1 - 0.7 * fidelity) * options.feature * apart[: len(TAPS)].mean(),
            "texture": likely * options.texture * torch.stack(textures).mean(),
            "pooled": likely * options.pooled * (pooled - wanted).square().sum(1).mean() / spread,
            "energy": likely * options.energy * unevenness(made, image),
            "adversarial": -likely
            * options.adversarial
            * torch.stack([s.float().mean() for s in scores]).mean(),
        }
        if options.vgg:
            parts["vgg"] = (1 - 0.7 * fidelity) * options.vgg * apart[len(TAPS) :].mean()
        if self.segmenter is not None and number % 2 == 0:  # every other step, twice the weight
            parts["semantic"] = 2 * likely * options.semantic * self._semantic(made, labels)
        norm = self.generator.minimise(torch.stack(list(parts.values())).sum())
        self.network.normalise()
        return {**parts, "critic": critic_loss, "norm": norm}

    def _semantic(self, made: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of what the segmenter sees with the map that was sent; 0 if it is void."""
        assert self.segmenter is not None
        height, width = labels.shape[1:]
        with fast(self.device):
            padded = F.pad((made + 1) / 2, (0, -width % 32, 0, -height % 32), mode="reflect")
            logits = self.segmenter(padded).float()
        logits = double(logits)[..., :height, :width]
        target = labels.long().masked_fill(labels >= self.config.classes, 255)
        total = F.cross_entropy(logits, target, ignore_index=255, reduction="sum")
        return total / (target != 255).sum().clamp_min(1)


def main(argv: Sequence[str]) -> None:
    """`sempic train distill`."""
    options = parse(DistillOptions, argv, prog="sempic train distill")
    train(Distill(options, set_up(options)), options)
