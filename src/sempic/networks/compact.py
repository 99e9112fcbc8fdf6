"""The compact receiver: a residual diffusion U-Net that works at a quarter of the resolution.

What is diffused is the residual between the picture and the upsampled coarse picture. The network
has no normalisation over space and no attention, so that what it makes of a pixel depends on its
surroundings only and large pictures can be tiled. Magnitudes are kept by normalised weights instead
(Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", 2024, §2.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sempic.palette import Palette

PATCH = 4
"""Picture pixels per coarse pixel, and the side of the patches that the network works on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactConfig:
    """A value; it rides in the weights' metadata."""

    classes: int = 11
    """Ids from here on are void: no class at all."""
    widths: tuple[int, ...] = (64, 128, 224)
    """Channels at strides 4, 8, 16."""
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    label_width: int = 64
    """Channels into which each patch of the label map is embedded."""
    emb_width: int = 128
    """Channels of the noise embedding."""
    tail_width: int = 32
    """Channels at stride 2, where the last layers work."""
    tail_blocks: int = 2
    """Blocks there."""
    narrow_width: int = 64
    """Channels that they are given of the level below: each cell of it becomes 48 values."""
    label_gains: bool = False
    """Filters of the label map have a size of their own, as in a network that was given more
    classes than it was first trained with."""
    texture: int = 0
    """Planes that say how strong texture is, `sempic.texture.CONDITION` or none."""
    sigma_data: float = 0.1
    """Standard deviation of the residual, pictures in [-1, 1]."""
    sigma_max: float = 0.8
    """Where sampling starts; the residual is lost in the noise there."""


_SILU = 1 / 0.596
"""Keeps the magnitude of unit normal input (§2.3)."""
_SKIP, _BRANCH = (t / math.hypot(0.7, 0.3) for t in (0.7, 0.3))
"""Weights of a sum that keep the magnitude of uncorrelated terms (eq. 88)."""


class _Conv(nn.Module):
    """Convolution without bias whose filters have unit norm (Karras et al. 2024, eq. 47), times
    a constant, which costs nothing here and a pass over all pixels elsewhere."""

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
        """Bring the filters back to norm 1 per element after an optimizer step (§2.3)."""
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
        self.emb = nn.Linear(emb, outputs)
        nn.init.zeros_(self.emb.weight)
        nn.init.zeros_(self.emb.bias)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        if self.project is not None:
            x = self.project(x)
        y = self.first(F.silu(x))
        y = y * (1 + self.emb(emb))[:, :, None, None].to(y.dtype)
        return _SKIP * x + self.second(F.silu(y))


class _Refinement(nn.Module):
    """Residual block whose branch begins at nothing: a trained network that is given more of them
    begins as what it was.

    The noise level says how much of the branch counts. ReLU, which 8-bit convolutions do on the
    way, keeps what lies between the two in 8 bits.
    """

    def __init__(self, channels: int, inner: int, emb: int) -> None:
        super().__init__()
        self.first = _Conv(channels, inner, 3, scale=_SILU)
        self.second = _Conv(inner, channels, 3)
        self.emb = nn.Linear(emb, channels)
        nn.init.zeros_(self.emb.weight)
        nn.init.zeros_(self.emb.bias)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(F.silu(x))))
        return x + y * self.emb(emb)[:, :, None, None].to(y.dtype)


class CompactNet(nn.Module):
    """The raw network F of EDM's preconditioning (Karras et al. 2022, eq. 7); see `denoise`."""

    kind = "compact"
    """Of its weights, in their metadata."""
    palette: Palette | None = None
    """Of the classes; None: that of ours which has so many."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        widths, emb = config.widths, config.emb_width
        self.embed_noise = nn.Sequential(
            nn.Linear(1 + 2 * 8 + 1, emb), nn.SiLU(), nn.Linear(emb, emb), nn.SiLU()
        )
        self.embed_labels = _Conv(config.classes + 1, config.label_width, PATCH, PATCH)
        inputs = 3 * PATCH**2 + 3 + config.label_width + 1 + config.texture
        self.stem = _Conv(inputs, widths[0], 3)
        encoder: list[nn.Module] = []
        self.down = nn.ModuleList()
        skips = [widths[0]]
        channels = widths[0]
        for level, width in enumerate(widths):
            if level:
                self.down.append(_Conv(channels, width, 2, 2))
                channels = width
                skips.append(width)
            for _ in range(config.encoder_blocks):
                encoder.append(_Block(channels, width, emb))
                channels = width
            skips.append(width)
        self.encoder = nn.ModuleList(encoder)
        decoder: list[nn.Module] = []
        self.up = nn.ModuleList()
        for level in range(len(widths) - 1, -1, -1):
            width = widths[level]
            if level < len(widths) - 1:
                self.up.append(_Conv(channels, width, 1))
                channels = width
            for index in range(config.decoder_blocks):
                decoder.append(_Block(channels + (width if index < 2 else 0), width, emb))
                channels = width
        self.decoder = nn.ModuleList(decoder)
        # The last layers, at twice the resolution, know the contours of the map to two pixels and
        # see the noise at full strength. Nothing above is made by shuffling pixels: a network that
        # can lay out patches adversarially repeats one pattern in all of them.
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
        """As `denoise`, but everything is scaled already and `noise` (B,) is ln(sigma) / 4.

        `noisy` fades where it is mostly noise, so that what was sent counts; `unit` is the same of
        unit variance, which texture is made from.
        """
        frequencies = torch.arange(8, device=noise.device, dtype=torch.float32)
        angles = noise[:, None] * 2.0**frequencies / 2
        known = [noise[:, None], angles.sin(), angles.cos(), fidelity[:, None]]
        emb = self.embed_noise(torch.cat(known, 1))
        gains = self.config.label_gains
        semantic = self.embed_labels(labels, self.label_gain if gains else 1.0)
        one = torch.ones_like(semantic[:, :1])
        # Three coarse channels against forty-eight noisy ones: the gains let them be heard.
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
        """Call after each optimizer step, so that learning rates act on directions alone."""
        for module in self.modules():
            if isinstance(module, _Conv):
                module.normalise()


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Ids (B, H, W) → float (B, classes + 1, H, W): void all zero, the last plane one."""
    ids = torch.arange(classes, device=labels.device).reshape(1, classes, 1, 1)
    planes = (labels[:, None] == ids).float()
    return torch.cat([planes, torch.ones_like(planes[:, :1])], 1)


def double(x: Tensor) -> Tensor:
    """(B, C, H, W) → (B, C, 2 H, 2 W), bilinear."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def upsample(coarse: Tensor) -> Tensor:
    """What the residual is taken from: the coarse picture, (B, 3, h, w), four times as large."""
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
    """The residual that the network expects behind a noisy one (Karras et al. 2022, eq. 7).

    Args:
        noisy: (B, 3, H, W), residual plus noise of deviation `sigma`; H, W multiples of 16.
        coarse: (B, 3, H / 4, W / 4) in [-1, 1].
        labels: (B, classes + 1, H, W), see `one_hot`.
        sigma: (B,).
        fidelity: (B,), 0 (a likely picture; also None) … 1 (the mean of all likely pictures).
        texture: (B, texture, H / 4, W / 4) of a network that is told of it (`texture.condition`);
            None: nothing is said.
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
