"""The label coder's networks in floating point, for training; `sempic.labels.causal`
and `sempic.labels.trunk` are their integer versions.

The forward pass quantises trunk weights and activations, with straight-through gradients (Jacob et
al., CVPR 2018), so that the exported integers compute what the trained network does.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sempic.labels.causal import BANDS, HIDDEN, TEMPLATE
from sempic.labels.trunk import CELL, LAYERS, signed, trunk

FEATURES = 16
"""Outputs of the trunk's last layer per pixel of the map. A label model has a readout of class
scores in place of this layer."""


def _straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, with the gradient of x."""
    return x + (rounded - x).detach()


def _activation(x: Tensor) -> Tensor:
    """uint8 in steps of 1/32."""
    x = x.clamp(0, 255 / 32)
    return _straight_through(x, (x * 32).round() / 32)


class QuantConv(nn.Conv2d):
    """Convolution with weights rounded to int8, one scale per output channel."""

    def forward(self, x: Tensor) -> Tensor:
        s = self.weight.detach().abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-6) / 127
        w = _straight_through(self.weight, (self.weight / s).round() * s)
        return _activation(F.conv2d(x, w, self.bias, self.stride, self.padding))


def _join(a: Tensor, b: Tensor) -> Tensor:
    double = F.interpolate(a, scale_factor=2, mode="nearest")
    return torch.cat([double[:, :, : b.shape[2], : b.shape[3]], b], 1)


class LabelPriorNet(nn.Module):
    """Logits of a label given the labels before it and, `with_coarse`, the coarse picture."""

    kind = "label-prior"
    """Kind of the weights in their metadata."""

    def __init__(self, classes: int, with_coarse: bool) -> None:
        super().__init__()
        h, h2 = HIDDEN
        self.classes = classes
        t = len(TEMPLATE)
        self.template = nn.Parameter(torch.randn(t * (classes + 1), h) * 0.1)
        self.rows = nn.Parameter(torch.zeros(BANDS, h))
        self.columns = nn.Parameter(torch.zeros(BANDS, h))
        self.second = nn.Linear(h, h2)
        self.last = nn.Linear(h2, classes)
        self.trunk = nn.ModuleList()
        if with_coarse:
            last = (LAYERS[-1][1], CELL * CELL * FEATURES, 1, 1)
            for inputs, outputs, kernel, stride in (*LAYERS, last):
                layer = QuantConv(inputs, outputs, kernel, stride, kernel // 2)
                nn.init.kaiming_normal_(layer.weight)
                self.trunk.append(layer)
            self.mix = nn.Linear(FEATURES, h, bias=False)
            self.aux = nn.Linear(FEATURES, classes)

    def features(self, planes: Tensor) -> Tensor:
        """uint8 (B, 3, h, w) → (B, 4h, 4w, FEATURES)."""
        b, _, h, w = planes.shape
        centred = np.stack([signed(p) for p in planes.cpu().numpy()])
        x = torch.from_numpy(centred).to(self.template.device).float() / 32
        x = trunk(x, lambda i, x: self.trunk[i](x), _join)
        x = self.trunk[len(LAYERS)](x)
        x = x.view(b, 4, 4, FEATURES, h, w).permute(0, 4, 1, 5, 2, 3)
        return x.reshape(b, 4 * h, 4 * w, FEATURES)

    def forward(self, neighbours: Tensor, row: Tensor, column: Tensor, f: Tensor | None) -> Tensor:
        """neighbours int64 (P, T) labels; row, column int64 (P,); f (P, FEATURES) → logits."""
        t = torch.arange(neighbours.shape[1], device=neighbours.device) * (self.classes + 1)
        x = F.embedding_bag(neighbours + t, self.template, mode="sum")
        x = x + self.rows[row] + self.columns[column]
        if f is not None:
            x = x + self.mix(f)
        x = x.clamp(0, 31)
        x = self.second(x).clamp(0, 31)
        return self.last(x)
