"""A small network with the paper's architecture and random weights, and inputs for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from sempic.networks.unet import SemanticUNet, UNetConfig, make_condition

TINY = UNetConfig(
    image_size=32,
    num_channels=32,
    num_res_blocks=1,
    channel_mult=(1, 2),
    attention_resolutions=(16,),
    num_head_channels=16,
    num_classes=5,
)


def tiny_unet(seed: int = 0, **changes: Any) -> SemanticUNet:
    torch.manual_seed(seed)
    model = SemanticUNet(dataclasses.replace(TINY, **changes))
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(0, 0.5 / p[0].numel() ** 0.5)
            else:
                p.add_(0.1 * torch.randn_like(p))
    return model.eval()


def inputs(config: UNetConfig = TINY, seed: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, t, coarse, condition of a batch of two 16×24 pictures."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 16, 24, generator=g)
    coarse = torch.rand(2, 3, 4, 6, generator=g) * 2 - 1
    labels = torch.randint(0, config.num_classes + 1, (2, 16, 24), generator=g)
    edges = torch.randint(0, 2, (2, 16, 24), generator=g) if config.instance_edges else None
    return x, torch.tensor([3, 700]), coarse, make_condition(labels, config.num_classes, edges)
