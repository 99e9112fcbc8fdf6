"""The compact receiver: a diffusion U-Net on 4×4 patches.

It diffuses the residual between the picture and the upsampled coarse picture. Without spatial
normalisation and attention, a pixel depends on its surroundings only, so that large pictures can be
tiled. Normalised weights keep magnitudes instead (Karras et al., "Analyzing and Improving the
Training Dynamics of Diffusion Models", 2024, §2.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sempic.palette import Palette, built_in

PATCH = 4
"""Picture pixels per coarse pixel, and the side of the patches that the network works on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactConfig:
    """Shape of the network; part of the weights' metadata."""

    classes: int = 11
    """Ids from this number on are void."""
    widths: tuple[int, ...] = (64, 128, 224)
    """Channels at strides 4, 8, 16."""
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    label_width: int = 64
    """Channels of the embedding of each patch of the label map."""
    emb_width: int = 128
    """Channels of the noise embedding."""
    tail_width: int = 32
    """Channels of the tail, the last layers, at stride 2."""
    tail_blocks: int = 2
    """Blocks of the tail."""
    narrow_width: int = 64
    """Channels that the tail gets from stride 4, where each pixel stands for 48 values."""
    label_gains: bool = False
    """Whether filters of the label map have trained gains; `grow.as_cityscapes` needs them."""
    texture: int = 0
    """Planes of texture strength: `sempic.texture.CONDITION`, or 0."""
    sigma_data: float = 0.1
    """Standard deviation of the residual, of pictures in [-1, 1]."""
    sigma_max: float = 0.8
    """First noise level of sampling, at which noise hides the residual."""


_SILU = 1 / 0.596
"""Factor after SiLU that keeps the magnitude of unit normal input (§2.3)."""
_SKIP, _BRANCH = (t / math.hypot(0.7, 0.3) for t in (0.7, 0.3))
"""Weights of a sum that keep the magnitude of uncorrelated terms (eq. 88)."""


def zeroed(module: nn.Module) -> nn.Module:
    """The module, with all parameters 0."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class _Conv(nn.Module):
    """Convolution without bias, with filters of unit norm (Karras et al. 2024, eq. 47) times
    `scale`; multiplying filters is cheaper than multiplying pixels."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.stride, self.padding = stride, 0 if stride > 1 else kernel // 2
        self.scale = scale

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        weight = self.weight.float()
        norm = weight.flatten(1).norm(dim=1).clamp_min(1e-4)
        weight = weight * (gain * self.scale / norm)[:, None, None, None]
        return F.conv2d(x, weight.to(x.dtype), stride=self.stride, padding=self.padding)

    @torch.no_grad()
    def normalise(self) -> None:
        """Scale the filters to root mean square 1 after an optimizer step (§2.3)."""
        fan_in = self.weight[0].numel()
        norm = self.weight.flatten(1).norm(dim=1)[:, None, None, None]
        self.weight.mul_(math.sqrt(fan_in) / norm.clamp_min(1e-4))


class _Block(nn.Module):
    """Residual block modulated by the noise level."""

    def __init__(self, inputs: int, outputs: int, emb: int) -> None:
        super().__init__()
        self.project = _Conv(inputs, outputs, 1) if inputs != outputs else None
        self.first = _Conv(outputs, outputs, 3, scale=_SILU)
        self.second = _Conv(outputs, outputs, 3, scale=_SILU * _BRANCH)
        self.emb = zeroed(nn.Linear(emb, outputs))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        if self.project is not None:
            x = self.project(x)
        y = self.first(F.silu(x))
        y = y * (1 + self.emb(emb))[:, :, None, None].to(y.dtype)
        return _SKIP * x + self.second(F.silu(y))


class _Refinement(nn.Module):
    """Residual block whose branch starts at 0, so that adding blocks to a trained network does not
    change its function.

    The noise level scales the branch. ReLU, unlike SiLU, is part of 8-bit convolutions, so that the
    tensor between the two convolutions stays in 8 bits.
    """

    def __init__(self, channels: int, inner: int, emb: int) -> None:
        super().__init__()
        self.first = _Conv(channels, inner, 3, scale=_SILU)
        self.second = _Conv(inner, channels, 3)
        self.emb = zeroed(nn.Linear(emb, channels))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(F.silu(x))))
        return x + y * self.emb(emb)[:, :, None, None].to(y.dtype)


class CompactNet(nn.Module):
    """The raw network F of EDM's preconditioning (Karras et al. 2022, eq. 7); see `denoise`."""

    kind = "compact"
    """Kind of its weights in their metadata."""
    palette: Palette | None
    """Palette of the classes, initially the built-in one of as many; None: they have no names."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config, self.palette = config, built_in(config.classes)
        widths, emb = config.widths, config.emb_width
        self.embed_noise = nn.Sequential(
            nn.Linear(1 + 2 * 8 + 1, emb), nn.SiLU(), nn.Linear(emb, emb), nn.SiLU()
        )
        self.embed_labels = _Conv(config.classes + 1, config.label_width, PATCH, PATCH)
        inputs = 3 * PATCH**2 + 3 + config.label_width + 1 + config.texture
        self.stem = _Conv(inputs, widths[0], 3)
        self.down, self.encoder = nn.ModuleList(), nn.ModuleList()
        channels = widths[0]
        for level, width in enumerate(widths):
            if level:
                self.down.append(_Conv(channels, width, 2, 2))
                channels = width
            for _ in range(config.encoder_blocks):
                self.encoder.append(_Block(channels, width, emb))
                channels = width
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            if level < len(widths) - 1:
                self.up.append(_Conv(channels, width, 1))
                channels = width
            for index in range(config.decoder_blocks):
                self.decoder.append(_Block(channels + (width if index < 2 else 0), width, emb))
                channels = width
        # The tail, at twice the resolution, sees contours of the map to two pixels and noise at
        # full strength. Only its output shuffles pixels into patches, of 2×2: with larger patches
        # adversarial training repeats one pattern in all of them.
        tail = config.tail_width
        self.narrow = _Conv(channels + config.label_width, config.narrow_width, 3)
        self.embed_fine = _Conv(config.classes + 1, tail // 2, PATCH // 2, PATCH // 2)
        inputs = 3 * (PATCH // 2) ** 2 + 3 + tail // 2 + config.narrow_width
        self.tail = _Conv(inputs, tail, 3, scale=_SILU)
        self.refine_tail = nn.ModuleList(
            _Refinement(tail, 2 * tail, emb) for _ in range(config.tail_blocks)
        )
        self.head = _Conv(tail, 3 * (PATCH // 2) ** 2, 3, scale=_SILU)
        self.head_gain = nn.Parameter(torch.zeros(1))
        if config.label_gains:
            self.label_gain = nn.Parameter(torch.ones(config.label_width))
            self.fine_gain = nn.Parameter(torch.ones(tail // 2))

    def forward(
        self,
        noisy: Tensor,
        unit: Tensor,
        coarse: Tensor,
        labels: Tensor,
        noise: Tensor,
        fidelity: Tensor,
        texture: Tensor | None = None,
    ) -> Tensor:
        """The raw output, (B, 3, H, W), for scaled inputs; see `denoise` for the other arguments.

        Args:
            noisy: the noisy residual, scaled down as noise increases, so that coarse picture and
                labels prevail.
            unit: the noisy residual at unit variance, for texture.
            noise: (B,), ln(sigma) / 4.
        """
        frequencies = torch.arange(8, device=noise.device, dtype=torch.float32)
        angles = noise[:, None] * 2.0**frequencies / 2
        known = [noise[:, None], angles.sin(), angles.cos(), fidelity[:, None]]
        emb = self.embed_noise(torch.cat(known, 1))
        gains = self.config.label_gains
        semantic = self.embed_labels(labels, self.label_gain if gains else 1.0)
        one = torch.ones_like(semantic[:, :1])
        # Gains make up for the few coarse channels, 3 against 48 noisy ones.
        inputs = [F.pixel_unshuffle(noisy, PATCH), 4 * coarse, 2.5 * semantic, one]
        if texture is not None:
            inputs.append(texture.to(semantic.dtype))
        x = self.stem(torch.cat(inputs, 1))
        skips = [x]
        blocks = iter(self.encoder)
        for level in range(len(self.config.widths)):
            if level:
                x = self.down[level - 1](x)
                skips.append(x)
            for _ in range(self.config.encoder_blocks):
                x = next(blocks)(x, emb)
            skips.append(x)
        blocks = iter(self.decoder)
        for level in range(len(self.config.widths)):
            if level:
                x = double(self.up[level - 1](x))
            for index in range(self.config.decoder_blocks):
                if index < 2:
                    x = torch.cat([x, skips.pop()], 1)
                x = next(blocks)(x, emb)
        x = double(self.narrow(torch.cat([x, semantic], 1)))
        contours = self.embed_fine(labels, self.fine_gain if gains else 1.0)
        fine = [F.pixel_unshuffle(unit, PATCH // 2), 2 * double(coarse), contours]
        x = self.tail(F.silu(torch.cat([*fine, x], 1)))
        for block in self.refine_tail:
            x = block(x, emb)
        return F.pixel_shuffle(self.head(F.silu(x), self.head_gain), PATCH // 2)

    def normalise(self) -> None:
        """Normalise all filters; to be called after each optimizer step, so that learning rates
        change directions alone."""
        for module in self.modules():
            if isinstance(module, _Conv):
                module.normalise()


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Ids (B, H, W) → float (B, classes + 1, H, W). Void is 0 in all planes but the last, which is
    1 everywhere."""
    ids = torch.arange(classes, device=labels.device).reshape(1, classes, 1, 1)
    planes = (labels[:, None] == ids).float()
    return torch.cat([planes, torch.ones_like(planes[:, :1])], 1)


def double(x: Tensor) -> Tensor:
    """(B, C, H, W) → (B, C, 2 H, 2 W), bilinear."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def upsample(coarse: Tensor) -> Tensor:
    """The coarse picture, (B, 3, h, w), PATCH times as large: the residual is relative to it."""
    return F.interpolate(coarse, scale_factor=PATCH, mode="bilinear", align_corners=False)


def denoise(
    network: CompactNet,
    noisy: Tensor,
    coarse: Tensor,
    labels: Tensor,
    sigma: Tensor,
    fidelity: Tensor | None = None,
    texture: Tensor | None = None,
) -> Tensor:
    """The network's estimate of a residual, (B, 3, H, W) (Karras et al. 2022, eq. 7).

    Args:
        noisy: (B, 3, H, W), residual plus noise of standard deviation `sigma`; H and W are
            multiples of 16.
        coarse: (B, 3, H / 4, W / 4) in [-1, 1].
        labels: (B, classes + 1, H, W), see `one_hot`.
        sigma: (B,).
        fidelity: (B,), from 0 for a likely picture (also None) to 1 for the mean of all likely
            pictures.
        texture: (B, config.texture, H / 4, W / 4), `texture.condition`; None: no texture is known.
    """
    if fidelity is None:
        fidelity = torch.zeros_like(sigma)
    if texture is None and network.config.texture:
        texture = torch.zeros_like(coarse[:, :1]).expand(-1, network.config.texture, -1, -1)
    data = network.config.sigma_data
    s = sigma[:, None, None, None]
    total = (s**2 + data**2).sqrt()
    scaled = noisy * (data / total**2), noisy / total
    raw = network(*scaled, coarse, labels, sigma.log() / 4, fidelity, texture)
    return noisy * (data**2 / total**2) + raw.float() * (s * data / total)
