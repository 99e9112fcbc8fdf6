"""Noise levels, loss and sampler of the compact receiver (Karras et al. 2022; Song et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sempic.diffusion.compact import CompactNet, denoise
from sempic.receive import RENOISE


def sigmas(steps: int, sigma_max: float, sigma_min: float = 0.02, rho: float = 3.0) -> Tensor:
    """Falling noise levels, float32 (steps,), from `sigma_max` on (Karras et al. 2022, eq. 5)."""
    ramp = torch.arange(steps) / max(1, steps)
    return (
        sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))
    ) ** rho


def draw_sigma(
    count: int, generator: torch.Generator, mean: float = -1.1, std: float = 1.0
) -> Tensor:
    """Log-normal training noise levels (Karras et al. 2022, table 1)."""
    return (torch.randn(count, generator=generator) * std + mean).exp()


def loss(
    network: CompactNet,
    residual: Tensor,
    coarse: Tensor,
    labels: Tensor,
    sigma: Tensor,
    noise: Tensor,
) -> Tensor:
    """Weighted squared error per picture, (B,) (Karras et al. 2022, eq. 8)."""
    data = network.config.sigma_data
    noisy = residual + noise * sigma[:, None, None, None]
    error = (denoise(network, noisy, coarse, labels, sigma) - residual).square().mean((1, 2, 3))
    return error * (sigma**2 + data**2) / (sigma * data) ** 2


def sample(
    network: CompactNet,
    coarse: Tensor,
    labels: Tensor,
    levels: Tensor,
    generator: torch.Generator,
    fidelity: float = 0.0,
) -> Iterator[Tensor]:
    """Denoise, renoise, denoise … (multistep sampling of Song et al. 2023, alg. 1, with RENOISE).

    Yields the residual estimate, (B, 3, H, W), after each of the falling noise `levels`. Only the
    last has a gradient, where gradients are on.
    """
    batch, _, height, width = labels.shape
    device = coarse.device
    residual = torch.zeros(batch, 3, height, width, device=device)
    wanted = torch.full((batch,), fidelity, device=device)
    for number, level in enumerate(levels.to(device)):
        noise = torch.randn(residual.shape, generator=generator)  # the same on every device
        noisy = residual + (RENOISE if number else 1) * level * noise.to(device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and number == len(levels) - 1):
            residual = denoise(network, noisy, coarse, labels, level.expand(batch), wanted)
        yield residual
