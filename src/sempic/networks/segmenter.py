"""The segmenter: EfficientNet-Lite with a small feature-pyramid decoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sempic.networks.compact import double
from sempic.networks.efficientnet import EfficientNetLite
from sempic.palette import Palette, built_in
from sempic.scene import Image, LabelMap


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmenterConfig:
    """Shape of the network, and of its input; part of the weights' metadata."""

    backbone: int = 0
    """Version of EfficientNet-Lite."""
    classes: int = 19
    width: int = 96
    """Channels of the pyramid."""
    enlarge: float = 1.5
    """Factor by which small pictures are enlarged before segmentation."""


def _conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class SegmentationNet(nn.Module):
    """Feature pyramid network (Lin et al. 2017) with a head at stride 2, for poles and signs.

    There is no pooling over the whole picture: it does not help on the training roads, and on other
    roads it can turn every pixel into one class.

    Input: float (B, 3, H, W) RGB in [0, 1]; H and W multiples of 32.
    Output: logits (B, classes, H / 2, W / 2).
    """

    kind = "segmenter"
    """Kind of its weights in their metadata."""
    palette: Palette | None
    """Palette of the classes, initially the built-in one of as many; None: they have no names."""

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config, self.palette = config, built_in(config.classes)
        self.backbone = EfficientNetLite(config.backbone)
        fine, *coarse = self.backbone.channels
        self.lateral = nn.ModuleList(nn.Conv2d(c, config.width, 1) for c in coarse)
        self.smooth = nn.ModuleList(_conv(config.width, config.width) for _ in coarse)
        self.skip = _conv(fine, config.width // 4, 1)
        self.head = nn.Sequential(
            _conv(config.width + config.width // 4, config.width // 2),
            nn.Dropout2d(0.1),
            nn.Conv2d(config.width // 2, config.classes, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        fine, *coarse = self.backbone(x)
        top = self.smooth[-1](self.lateral[-1](coarse[-1]))
        for level in range(len(coarse) - 2, -1, -1):
            top = self.smooth[level](self.lateral[level](coarse[level]) + double(top))
        return self.head(torch.cat([double(top), self.skip(fine)], 1))


@torch.no_grad()
def predict(network: nn.Module, image: Image, enlarge: float = 1.0) -> LabelMap:
    """Label map, uint8 (H, W), of a picture, uint8 (H, W, 3), of any size, after enlarging it by
    the factor `enlarge`."""
    size = image.shape[:2]
    height, width = (round(side * enlarge) for side in size)
    device = next(network.parameters()).device
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(device).float() / 255
    if enlarge != 1:
        x = F.interpolate(x, (height, width), mode="bicubic", align_corners=False).clamp(0, 1)
    x = F.pad(x, (0, -width % 32, 0, -height % 32), mode="replicate")
    logits = double(network(x))[..., :height, :width]
    if enlarge != 1:
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    return logits[0].argmax(0).to(torch.uint8).cpu().numpy()
