"""Noise levels, loss and sampler of the compact receiver (Karras et al. 2022; Song et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sempic.models import RENOISE
from sempic.networks.compact import CompactNet, denoise

SIGMA_MIN = 0.02
"""Limit of falling noise levels."""
RHO = 3.0
"""Density of noise levels near SIGMA_MIN; an exported receiver's metadata has both."""
P_MEAN = -1.1
"""Mean logarithm of the noise levels of training."""


def sigmas(steps: int, sigma_max: float) -> Tensor:
    """Falling noise levels from `sigma_max`, float32 (steps,) (Karras et al. 2022, eq. 5)."""
    ramp = torch.arange(steps) / max(1, steps)
    first, last = sigma_max ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    return (first + ramp * (last - first)) ** RHO


def draw(
    shape: Sequence[int], device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Normal noise on a device. With a generator it is drawn on the generator's device, for example
    the CPU, so that all devices get the same noise."""
    where = device if generator is None else generator.device
    return torch.randn(*shape, generator=generator, device=where).to(device)


def draw_sigma(
    count: int, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Log-normal noise levels for training, (count,) (Karras et al. 2022, table 1); see `draw`."""
    return (draw((count,), device, generator) + P_MEAN).exp()


def loss(
    network: CompactNet,
    residual: Tensor,
    coarse: Tensor,
    labels: Tensor,
    sigma: Tensor,
    noise: Tensor,
    texture: Tensor | None = None,
) -> Tensor:
    """Weighted squared error per picture, (B,) (Karras et al. 2022, eq. 8)."""
    data = network.config.sigma_data
    noisy = residual + noise * sigma[:, None, None, None]
    expected = denoise(network, noisy, coarse, labels, sigma, texture=texture)
    error = (expected - residual).square().mean((1, 2, 3))
    return error * (sigma**2 + data**2) / (sigma * data) ** 2


def sample(
    network: CompactNet,
    coarse: Tensor,
    labels: Tensor,
    levels: Tensor,
    generator: torch.Generator | None,
    fidelity: float = 0.0,
    texture: Tensor | None = None,
    strength: Tensor | float = 1.0,
) -> Iterator[Tensor]:
    """Multistep sampling: denoise, add noise, denoise … (Song et al. 2023, alg. 1, with RENOISE).

    Yields the estimated residual, (B, 3, H, W), after each noise level. Only the last one has a
    gradient, if gradients are enabled.

    Args:
        labels: one-hot planes, see `compact.denoise`.
        levels: falling noise levels, (steps,).
        generator: see `draw`.
        strength: factor of the noise, (B, 1, H, W) or a number.
    """
    batch, _, height, width = labels.shape
    device = coarse.device
    residual = torch.zeros(batch, 3, height, width, device=device)
    fidelities = torch.full((batch,), fidelity, device=device)
    for number, level in enumerate(levels.to(device)):
        noise = strength * draw(residual.shape, device, generator)
        noisy = residual + (RENOISE if number else 1) * level * noise
        with torch.set_grad_enabled(torch.is_grad_enabled() and number == len(levels) - 1):
            residual = denoise(
                network, noisy, coarse, labels, level.expand(batch), fidelities, texture
            )
        yield residual
