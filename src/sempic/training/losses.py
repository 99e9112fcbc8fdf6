"""Losses of generated pictures: frozen ImageNet features and their moments, energies of detail, and
a discriminator on the features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from sempic import files
from sempic.evaluation import weights
from sempic.networks import efficientnet
from sempic.networks.compact import PATCH
from sempic.networks.weights import load_tensors, save_shards
from sempic.places import need_folder
from sempic.training.options import FeaturesOptions
from sempic.training.trainer import LARGEST_EXPORT

BACKBONE = 5
"""Number of EfficientNet-Lite0's features: of the stem, at stride 2, and at strides 4 … 32."""
_WIDTHS = (48, 64, 96, 96, 96)
"""Channels of the discriminator's heads on them; few on large maps, to save time."""
_STAGES = (2, 2, 3)
"""Numbers of layers of the VGG-16 stages whose outputs are features: strides 1, 2 and 4."""
_STAGE_CHANNELS, _STAGE_WIDTHS = (64, 128, 256), (0, 48, 64)
"""Channels of these features, and of the heads on them; 0 for no head."""


class Features(nn.Module):
    """Frozen ImageNet features, scaled to a mean magnitude of about one.

    EfficientNet-Lite0's features of the whole crop are cheap. VGG-16's features of a window of the
    crop are sensitive to details of a few pixels.
    """

    scale: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, *, vgg: bool = False, folder: Path | None = None) -> None:
        """Loads weights from a folder of `write_features`, or from the ImageNet package and the
        cache. Raises ModelError if they are missing."""
        super().__init__()
        backbone = _frozen("efficientnet-lite0", folder)
        self.network = efficientnet.imagenet(0, backbone)
        self.head = efficientnet.imagenet_head(backbone)
        self.channels = [self.network._conv_stem.out_channels, *self.network.channels[1:]]
        self.widths = list(_WIDTHS)
        self.stages = nn.ModuleList()
        if vgg:
            vgg16 = _frozen("vgg16", folder)
            self.channels += _STAGE_CHANNELS
            self.widths += _STAGE_WIDTHS
            number = 0
            for depth in _STAGES:
                layers: list[nn.Module] = [nn.MaxPool2d(2)] if number else []
                for _ in range(depth):
                    kernel = vgg16[f"backbone.{number}.weight"]
                    conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
                    conv.weight.data = kernel
                    conv.bias = nn.Parameter(vgg16[f"backbone.{number}.bias"])
                    layers += [conv, nn.ReLU()]
                    number += 1
                self.stages.append(nn.Sequential(*layers))
        self.register_buffer("scale", torch.ones(len(self.channels)))
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406))[:, None, None])
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225))[:, None, None])
        self.eval().requires_grad_(False)

    def forward(self, picture: Tensor, near: Tensor) -> list[Tensor]:
        """Features, first EfficientNet-Lite0's, then VGG-16's.

        Args:
            picture: (B, 3, H, W) in [-1, 1].
            near: (B, 3, h, w), windows of `picture`. The caller cuts them, because their random
                position would make torch.compile compile again.
        """
        x = self.network.stem((picture + 1) / 2)
        found = [x, *self.network.pyramid(x)[1:]]
        x = ((near + 1) / 2 - self.mean) / self.std
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return [feature * scale for feature, scale in zip(found, self.scale, strict=True)]

    def pooled(self, found: list[Tensor]) -> Tensor:
        """(B, 1280): the input of the ImageNet classifier for pictures with these features."""
        last = BACKBONE - 1
        return self.head(found[last] / self.scale[last]).float().mean((2, 3))

    def calibrate(self, pictures: Tensor) -> None:
        """Set the scales by real pictures, (B, 3, H, W) in [-1, 1]."""
        self.scale.fill_(1)
        self.scale.copy_(torch.stack([1 / f.abs().mean() for f in self(pictures, pictures)]))


def _frozen(name: str, folder: Path | None) -> dict[str, Tensor]:
    """Weights of "efficientnet-lite0" or "vgg16"."""
    if folder is not None:
        state, _ = load_tensors(folder / f"{name}.safetensors", name)
        return {k: v.float() for k, v in state.items()}
    if name == "vgg16":
        return {k: torch.from_numpy(v) for k, v in weights.load(name).items()}
    return efficientnet.imagenet_weights(0)


def write_features(options: FeaturesOptions) -> None:
    """`sempic train features`: write the weights of `Features` as float16, for machines without
    the package and the cache. Raises ModelError if they are missing here."""
    first = tuple(f"backbone.{number}." for number in range(sum(_STAGES)))
    layers = {k: v for k, v in _frozen("vgg16", None).items() if k.startswith(first)}
    states = {"efficientnet-lite0": _frozen("efficientnet-lite0", None), "vgg16": layers}
    need_folder(options.folder)
    files.make_folder(options.folder)
    for name, state in states.items():
        save_shards(state, name, {}, options.folder / f"{name}.safetensors", LARGEST_EXPORT)


def moments(feature: Tensor) -> Tensor:
    """Mean and standard deviation of each channel over the crop, (B, 2 C): a measure of texture
    that ignores positions."""
    flat = feature.float().flatten(2)
    return torch.cat([flat.mean(2), (flat.var(2) + 1e-4).sqrt()], 1)


def energies(picture: Tensor) -> Tensor:
    """Mean absolute differences between pixels one and two apart, in windows of 32×32 pixels.

    Args:
        picture: (B, 3, H, W), RGB.

    Returns:
        (B, 4, 3, 16, H // 32, W // 32). The axes of length 4, 3 and 16 are: direction and distance;
        luma, blue and red difference; position in the network's patch.
    """
    red, green, blue = picture.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = torch.stack([luma, blue - luma, red - luma], 1)
    found = []
    for dim in (2, 3):
        for distance in (1, 2):
            steps = (planes - planes.roll(distance, dim)).abs()
            found.append(F.avg_pool2d(F.pixel_unshuffle(steps, PATCH), 32 // PATCH))
    return torch.stack(found, 1).unflatten(2, (3, PATCH**2))


def unevenness(made: Tensor, image: Tensor) -> Tensor:
    """Mean distance between the `energies` of two pictures, relative to the original's.

    The original's energies are averaged over the positions in a patch, where they are equal. A
    network that generates patches tends to have other energies at each position. The relative
    distance balances luma and colours, whose energies are lower.
    """
    wanted = energies(image).mean(3, keepdim=True)
    return ((energies(made) - wanted).abs() / wanted.mean((0, 4, 5), keepdim=True)).mean()


class Discriminator(nn.Module):
    """A small head on each feature map. A head also sees the label map and the same features of the
    enlarged coarse picture, so that it judges whether the picture fits them."""

    def __init__(self, channels: list[int], widths: list[int], classes: int) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int, kernel: int) -> nn.Module:
            return spectral_norm(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))

        self.heads = nn.ModuleList(
            nn.Sequential(
                conv(2 * count + classes, width, 1),
                nn.LeakyReLU(0.2),
                conv(width, width, 3),
                nn.LeakyReLU(0.2),
                conv(width, 1, 3),
            )
            if width
            else nn.Identity()
            for count, width in zip(channels, widths, strict=True)
        )

    def forward(self, features: list[Tensor], conditions: list[Tensor]) -> list[Tensor]:
        """Scores, (B, 1, h, w), of each feature map that has a head; `conditions` are a result of
        `conditioning`."""
        return [
            head(torch.cat([f, s], 1))
            for head, f, s in zip(self.heads, features, conditions, strict=True)
            if not isinstance(head, nn.Identity)
        ]


def shrunk(planes: Tensor, features: list[Tensor], window: tuple[slice, slice]) -> list[Tensor]:
    """Planes of a picture, (B, C, H, W), shrunk to each feature map's size; for VGG-16's features,
    planes of the window."""
    seen = (planes if n < BACKBONE else planes[(..., *window)] for n in range(len(features)))
    return [
        F.adaptive_avg_pool2d(part, (f.shape[-2], f.shape[-1]))
        for part, f in zip(seen, features, strict=True)
    ]


def conditioning(
    features: list[Tensor], classes: Tensor, window: tuple[slice, slice]
) -> list[Tensor]:
    """A discriminator's `conditions`: features of the enlarged coarse picture, and label planes."""
    maps = shrunk(classes, features, window)
    return [torch.cat([f, m], 1) for f, m in zip(features, maps, strict=True)]


def random_window(like: Tensor, rng: np.random.Generator) -> tuple[slice, slice]:
    """A random window of half the height and width of a crop, at multiples of four pixels."""
    top, left = (4 * int(rng.integers(side // 8 + 1)) for side in like.shape[-2:])
    return slice(top, top + like.shape[-2] // 2), slice(left, left + like.shape[-1] // 2)


def random_view(like: Tensor, rng: np.random.Generator) -> Callable[[Tensor], Tensor]:
    """A function that shifts crops by a few pixels and, half of the time, enlarges a quarter of
    them twofold.

    With a fixed view, patterns finer than the strides of the features would cost nothing.
    """
    height, width = like.shape[-2:]
    shift = tuple(int(s) for s in rng.integers(4, size=2))
    near = rng.random() < 0.5
    top, left = (int(rng.integers(side - side // 2 + 1)) for side in (height, width))

    def view(x: Tensor) -> Tensor:
        x = x.roll(shift, (2, 3))
        if near:
            x = x[..., top : top + height // 2, left : left + width // 2]
            x = F.interpolate(x, (height, width), mode="bicubic", align_corners=False)
        return x

    return view
