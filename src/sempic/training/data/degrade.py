"""Light, JPEG compression and noise of other cameras, applied to crops on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from sempic.training.device import to_device

_GREY = (0.299, 0.587, 0.114)


def degrade(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Pictures, (B, 3, H, W) in [0, 1], with random brightness, contrast, saturation, gamma and
    colour balance, JPEG artefacts and noise."""
    batch, device = len(image), image.device

    def column(values: npt.NDArray[np.float64], rate: float, neutral: float = 1.0) -> Tensor:
        """Values for a share `rate` of the pictures, `neutral` for the others."""
        chosen = rng.random((batch, 1)) < rate
        table = np.where(chosen, values, neutral).astype(np.float32)
        return to_device(table, device)[:, :, None, None]

    def spread(width: float, columns: int = 1) -> npt.NDArray[np.float64]:
        return np.exp(rng.uniform(-width, width, (batch, columns)))

    weights = torch.tensor(_GREY, device=device)[:, None, None]
    image = (image * column(spread(0.5), 0.6)).clamp(0, 1)
    mean = (image * weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    image = (mean + (image - mean) * column(spread(0.5), 0.6)).clamp(0, 1)
    grey = (image * weights).sum(1, keepdim=True)
    image = (grey + (image - grey) * column(spread(0.7), 0.6)).clamp(0, 1)
    gamma = column(np.concatenate([spread(0.4), spread(0.2, 3)], 1), 0.4)
    image = (image.clamp_min(1e-4) ** gamma[:, :1] * gamma[:, 1:]).clamp(0, 1)
    compressed = np.flatnonzero(rng.random(batch) < 0.2)
    if len(compressed):
        chosen = to_device(compressed, device)
        quality = to_device(rng.integers(25, 90, len(compressed)).astype(np.float32), device)
        image = image.index_copy(0, chosen, jpeg(image[chosen], quality))
    strength = column(rng.uniform(2, 10, (batch, 1)) / 255, 0.2, 0.0)
    return (image + strength * torch.randn_like(image)).clamp(0, 1)


# fmt: off
_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113,
    92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99, *[99] * 32,
)
# fmt: on
"""Quantisation tables of ITU-T T.81, Annex K."""


def jpeg(image: Tensor, quality: Tensor) -> Tensor:
    """Pictures, (B, 3, H, W) in [0, 1], after JPEG with 4:2:0 chroma.

    Args:
        image: sides are multiples of 16.
        quality: (B,) in 1…100.
    """
    device = image.device
    at = torch.arange(8, device=device, dtype=torch.float32)
    cosine = torch.cos(math.pi / 8 * (at + 0.5) * at[:, None]) / 2
    cosine[0] /= math.sqrt(2)
    red, green, blue = (255 * image).unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = torch.stack([(blue - luma) * 0.564, (red - luma) * 0.713], 1)
    share = torch.where(quality < 50, 50 / quality, 2 - quality / 50).view(-1, 1, 1, 1, 1, 1)

    def coded(plane: Tensor, steps: Sequence[int]) -> Tensor:
        table = torch.tensor(steps, device=device, dtype=torch.float32).reshape(8, 8)
        table = (table[None, None, None, None] * share).clamp(1, 255).round()
        b, c, h, w = plane.shape
        blocks = plane.reshape(b, c, h // 8, 8, w // 8, 8).transpose(3, 4)
        levels = (cosine @ blocks @ cosine.T / table).round() * table
        return (cosine.T @ levels @ cosine).transpose(3, 4).reshape(b, c, h, w)

    luma = coded(luma[:, None] - 128, _LUMA)[:, 0] + 128
    small = coded(F.avg_pool2d(chroma, 2), _CHROMA)
    blue_off, red_off = F.interpolate(small, scale_factor=2).unbind(1)
    red, blue = luma + red_off / 0.713, luma + blue_off / 0.564
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    return (torch.stack([red, green, blue], 1) / 255).clamp(0, 1)
