"""`sempic train denoise`: the compact receiver's first stage, denoising of residuals."""

from __future__ import annotations

import torch
from torch import Tensor

from sempic.diffusion import edm
from sempic.networks.compact import upsample
from sempic.training.device import autocast, generator
from sempic.training.optimizer import Optimizer, Schedule
from sempic.training.options import DenoiseOptions
from sempic.training.recipes.receiver import ReceiverRecipe, parameter_groups


class Denoise(ReceiverRecipe):
    """The loss of EDM (Karras et al. 2022)."""

    def __init__(self, options: DenoiseOptions, device: torch.device) -> None:
        super().__init__(options, device)
        self.optimizer = Optimizer(
            parameter_groups(self.network, options.lr),
            schedule=Schedule(warmup=200, floor=0.02),
            betas=(0.9, 0.99),
            clip=10.0,
        )
        self.optimizers = {"network": self.optimizer}

    def step(self, number: int) -> dict[str, Tensor]:
        batch, planes = self.draw(number)
        image, coarse = batch.image, batch.coarse
        drawn = generator(self.options, number)
        sigma = edm.draw_sigma(len(image), self.device, drawn)
        noise = edm.draw(image.shape, self.device, drawn)
        with autocast(self.device):
            residual = image - upsample(coarse)
            loss = edm.loss(
                self.working, residual, coarse, planes, sigma, noise, batch.texture
            ).mean()
        norm = self.optimizer.minimise(loss)
        self.network.normalise()
        return {"loss": loss, "norm": norm}
