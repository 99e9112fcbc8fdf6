"""The paper's network: a semantic diffusion super-resolution U-Net.

guided-diffusion's U-Net (Dhariwal & Nichol 2021) with SPADE as normalisation in middle and decoder
(Park et al. 2019; Wang et al., "Semantic Image Synthesis via Diffusion Models", 2022). Its input is
the noisy picture with the upsampled coarse picture; SPADE adds the label map. Modules have the
names of the original code, so that its checkpoints load unchanged.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sempic.errors import ModelError
from sempic.networks.compact import zeroed

Precision = Literal["float32", "float16", "bfloat16"]

CHANNEL_MULT: dict[int, tuple[float, ...]] = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
}
"""Width of each level as a multiple of `num_channels`, by image size (guided-diffusion)."""

SPADE_HIDDEN = 128
GROUPS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetConfig:
    """Shape of the network, under the names of the original's flags."""

    image_size: int = 256
    """Selects an entry of `CHANNEL_MULT`; `attention_resolutions` relate to it."""
    num_channels: int = 256
    num_res_blocks: int = 2
    channel_mult: tuple[float, ...] = ()
    """Multipliers that replace those of `CHANNEL_MULT`; empty keeps those."""
    attention_resolutions: tuple[int, ...] = (32, 16, 8)
    """Sides, for a picture of `image_size`, of the levels with attention."""
    num_heads: int = 4
    num_heads_upsample: int = -1
    """Heads in the decoder; -1 for `num_heads`."""
    num_head_channels: int = 64
    """Channels of a head; -1 for channels / `num_heads`."""
    num_classes: int = 19
    """Classes of the label map without void, which is the all-zero vector."""
    instance_edges: bool = False
    """Whether a further condition channel holds the edges of instances."""
    dropout: float = 0.0
    learn_sigma: bool = True
    use_scale_shift_norm: bool = True
    resblock_updown: bool = True
    use_new_attention_order: bool = False
    use_checkpoint: bool = False
    """Recompute activations of each block in the backward pass, to save memory."""
    precision: Precision = "float32"
    """Precision of the blocks; parameters, norms and the time embedding stay in float32."""

    def __post_init__(self) -> None:
        if not self.channel_mult and self.image_size not in CHANNEL_MULT:
            raise ModelError(
                f"image_size {self.image_size} is none of {sorted(CHANNEL_MULT)}: "
                "give channel_mult as well"
            )
        for name in ("num_channels", "num_res_blocks", "num_classes", "num_heads", "image_size"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("num_head_channels", "num_heads_upsample"):
            if getattr(self, name) < 1 and getattr(self, name) != -1:
                raise ModelError(f"{name} cannot be {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ModelError(f"dropout must lie in [0, 1), not {self.dropout}")
        if self.precision not in get_args(Precision):
            raise ModelError(f"precision {self.precision!r} is unknown")
        for level, width in enumerate(self.widths):
            if width % GROUPS or width < GROUPS:
                raise ModelError(
                    f"level {level} would have {width} channels, which {GROUPS} groups do not "
                    "divide: change num_channels"
                )
        if min(self.attention_resolutions, default=1) < 1:
            raise ModelError(f"attention_resolutions {self.attention_resolutions} are not sizes")
        heads = {self.num_heads, max(self.num_heads_upsample, 1)}
        cuts = {self.num_head_channels} if self.num_head_channels > 0 else heads
        for width in (*self.widths[-1:], *(self.widths[i] for i in self.attention_levels)):
            for cut in cuts:
                if width % cut:
                    raise ModelError(f"attention over {width} channels cannot be cut by {cut}")

    @property
    def multipliers(self) -> tuple[float, ...]:
        return self.channel_mult or CHANNEL_MULT[self.image_size]

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(int(m * self.num_channels) for m in self.multipliers)

    @property
    def attention_levels(self) -> tuple[int, ...]:
        """Levels with attention; level i is subsampled by 2^i."""
        factors = {self.image_size // side for side in self.attention_resolutions}
        return tuple(i for i in range(len(self.widths)) if 2**i in factors)

    @property
    def condition_channels(self) -> int:
        return self.num_classes + self.instance_edges

    @property
    def out_channels(self) -> int:
        """3, or 6 with variances."""
        return 6 if self.learn_sigma else 3

    @property
    def size_multiple(self) -> int:
        """Height and width of a picture must be multiples of this."""
        return int(2 ** (len(self.multipliers) - 1))


def timestep_embedding(t: Tensor, channels: int) -> Tensor:
    """Sinusoids of the timesteps t, float32 (B, channels): cosines, then sines."""
    half = channels // 2
    ramp = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t[:, None].float() * torch.exp(-math.log(10000.0) * ramp / half)
    embedding = torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)
    return F.pad(embedding, (0, channels % 2))


class GroupNorm32(nn.GroupNorm):
    """Group normalisation in float32, whatever the type of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).type(x.dtype)


class SiLU(nn.Module):
    """x · sigmoid(x); in float32 by two operations, to round like the original."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x) if x.dtype == torch.float32 else F.silu(x)


def _norm(channels: int) -> GroupNorm32:
    return GroupNorm32(GROUPS, channels)


class SPADE(nn.Module):
    """Group norm with gain and offset computed from the label map (Park et al. 2019, eq. 1)."""

    def __init__(self, channels: int, condition_channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm32(GROUPS, channels, affine=False)
        self.mlp_shared = nn.Sequential(
            nn.Conv2d(condition_channels, SPADE_HIDDEN, 3, padding=1), nn.ReLU()
        )
        self.mlp_gamma = nn.Conv2d(SPADE_HIDDEN, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(SPADE_HIDDEN, channels, 3, padding=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = self.mlp_shared(F.interpolate(condition, size=x.shape[2:], mode="nearest"))
        gamma, beta = self.mlp_gamma(hidden), self.mlp_beta(hidden)
        return self.norm(x) * (1 + gamma) + beta


class ResBlock(nn.Module):
    """Residual block modulated by time (Dhariwal & Nichol 2021, §3). Both norms are plain in the
    encoder, and SPADE in middle and decoder (Wang et al. 2022, fig. 3)."""

    def __init__(
        self,
        config: UNetConfig,
        channels: int,
        out: int,
        *,
        spade: bool = False,
        resample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.spade, self.scale_shift = spade, config.use_scale_shift_norm
        if spade:
            self.in_norm = SPADE(channels, config.condition_channels)
        first = [SiLU(), nn.Conv2d(channels, out, 3, padding=1)]
        self.in_layers = nn.Sequential(*([] if spade else [_norm(channels)]), *first)
        self.resample = resample or nn.Identity()
        width = 2 * out if self.scale_shift else out
        self.emb_layers = nn.Sequential(SiLU(), nn.Linear(4 * config.num_channels, width))
        if spade:
            self.out_norm = SPADE(out, config.condition_channels)
        last = [SiLU(), nn.Dropout(config.dropout), zeroed(nn.Conv2d(out, out, 3, padding=1))]
        self.out_layers = nn.Sequential(*([] if spade else [_norm(out)]), *last)
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, condition: Tensor, embedding: Tensor) -> Tensor:
        def out_norm(h: Tensor) -> Any:
            return self.out_norm(h, condition) if self.spade else self.out_layers[0](h)

        h = self.in_norm(x, condition) if self.spade else self.in_layers[0](x)
        h = self.in_layers[-1](self.resample(self.in_layers[-2](h)))
        time = self.emb_layers(embedding)[:, :, None, None].type(h.dtype)
        if self.scale_shift:
            scale, shift = time.chunk(2, dim=1)
            h = out_norm(h) * (1 + scale) + shift
        else:
            h = out_norm(h + time)
        return self.skip_connection(self.resample(x)) + self.out_layers[-3:](h)


class AttentionBlock(nn.Module):
    """Self-attention over all positions, with a residual connection."""

    def __init__(self, config: UNetConfig, channels: int, *, decoder: bool = False) -> None:
        super().__init__()
        heads = config.num_heads
        if decoder and config.num_heads_upsample > 0:
            heads = config.num_heads_upsample
        self.heads = channels // config.num_head_channels if config.num_head_channels > 0 else heads
        self.new_order = config.use_new_attention_order
        self.norm = _norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor, condition: Tensor, embedding: Tensor) -> Tensor:
        flat = x.flatten(2)
        qkv = self.qkv(self.norm(flat))
        batch, _, length = qkv.shape
        # Channels are ordered by head, then q, k, v; in the new order by q, k, v, then head.
        parts = qkv.view(batch if self.new_order else batch * self.heads, 3, -1, length).unbind(1)
        mixed = _attention(*(part.reshape(batch * self.heads, -1, length) for part in parts))
        return (flat + self.proj_out(mixed.reshape_as(flat))).view_as(x)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(qᵀk / √c) over tensors (heads, c, positions)."""
    if q.dtype != torch.float32:
        # Fused GPU kernels need this layout; others would store all attention weights.
        q, k, v = (tensor.transpose(1, 2).contiguous()[None] for tensor in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v)[0].transpose(1, 2)
    # In float32 the original's operations, to round like the original.
    scale = 1 / math.sqrt(math.sqrt(q.shape[1]))
    weights = torch.einsum("bct,bcs->bts", q * scale, k * scale).softmax(dim=-1)
    return torch.einsum("bts,bcs->bct", weights, v)


class Stage(nn.Sequential):
    """A sequence of layers; blocks among them get condition and time embedding, too. With
    `recompute` the backward pass computes their activations again."""

    def forward(  # type: ignore[override]
        self, x: Tensor, condition: Tensor, embedding: Tensor, recompute: bool
    ) -> Tensor:
        for layer in self:
            if not isinstance(layer, ResBlock | AttentionBlock):
                x = layer(x)
            elif recompute:
                x = checkpoint(layer, x, condition, embedding, use_reentrant=False)
            else:
                x = layer(x, condition, embedding)
        return x


class SemanticUNet(nn.Module):
    """(noisy, t, coarse, condition) → prediction, with variances if `learn_sigma`."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        embed = 4 * config.num_channels
        self.time_embed = nn.Sequential(
            nn.Linear(config.num_channels, embed), SiLU(), nn.Linear(embed, embed)
        )

        ch = widths[0]
        self.input_blocks = nn.ModuleList([Stage(nn.Conv2d(6, ch, 3, padding=1))])
        skips = [ch]
        for level, width in enumerate(widths):
            for _ in range(config.num_res_blocks):
                layers: list[nn.Module] = [ResBlock(config, ch, width)]
                ch = width
                if level in config.attention_levels:
                    layers.append(AttentionBlock(config, ch))
                self.input_blocks.append(Stage(*layers))
                skips.append(ch)
            if level < len(widths) - 1:
                down = (
                    ResBlock(config, ch, ch, resample=nn.AvgPool2d(2))
                    if config.resblock_updown
                    else nn.Sequential(OrderedDict(op=nn.Conv2d(ch, ch, 3, 2, 1)))
                )
                self.input_blocks.append(Stage(down))
                skips.append(ch)

        self.middle_block = Stage(
            ResBlock(config, ch, ch, spade=True),
            AttentionBlock(config, ch),
            ResBlock(config, ch, ch, spade=True),
        )

        self.output_blocks = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for i in range(config.num_res_blocks + 1):
                layers = [ResBlock(config, ch + skips.pop(), width, spade=True)]
                ch = width
                if level in config.attention_levels:
                    layers.append(AttentionBlock(config, ch, decoder=True))
                if level and i == config.num_res_blocks:
                    up = nn.Upsample(scale_factor=2)
                    layers.append(
                        ResBlock(config, ch, ch, spade=True, resample=up)
                        if config.resblock_updown
                        else nn.Sequential(OrderedDict(up=up, conv=nn.Conv2d(ch, ch, 3, padding=1)))
                    )
                self.output_blocks.append(Stage(*layers))

        self.out = nn.Sequential(
            _norm(ch), SiLU(), zeroed(nn.Conv2d(ch, config.out_channels, 3, padding=1))
        )

    def forward(self, x: Tensor, t: Tensor, coarse: Tensor, condition: Tensor) -> Tensor:
        """The network's raw output, float32 (B, out_channels, H, W).

        Args:
            x: float32 (B, 3, H, W), the noisy picture.
            t: (B,), timesteps of the original process, 0…999.
            coarse: (B, 3, h, w) in [-1, 1], of any size.
            condition: (B, condition_channels, H, W), see `make_condition`.

        Raises:
            ModelError: shapes do not fit.
        """
        self._check(x, coarse, condition)
        coarse = F.interpolate(coarse, x.shape[2:], mode="bilinear", align_corners=False)
        embedding = self.time_embed(timestep_embedding(t, self.config.num_channels))
        dtype = getattr(torch, self.config.precision)
        # In float32 the caller's own autocast holds, such as Accelerate's.
        half = dtype != torch.float32
        with torch.autocast(x.device.type, dtype) if half else nullcontext():
            h = torch.cat([x, coarse], dim=1).type(dtype)
            recompute = self.config.use_checkpoint and torch.is_grad_enabled()
            given = condition.type(dtype), embedding, recompute
            skips = []
            for stage in self.input_blocks:
                h = stage(h, *given)
                skips.append(h)
            h = self.middle_block(h, *given)
            for stage in self.output_blocks:
                h = stage(torch.cat([h, skips.pop()], dim=1), *given)
        return self.out(h.float())

    def _check(self, x: Tensor, coarse: Tensor, condition: Tensor) -> None:
        height, width = x.shape[2:]
        multiple = self.config.size_multiple
        if height % multiple or width % multiple:
            raise ModelError(
                f"a picture of {width}×{height} does not fit this network: "
                f"its sides must be multiples of {multiple}"
            )
        expected = (x.shape[0], self.config.condition_channels, height, width)
        if condition.shape != expected:
            raise ModelError(f"condition has shape {tuple(condition.shape)}, expected {expected}")
        if coarse.shape[:2] != x.shape[:2]:
            raise ModelError(f"coarse has shape {tuple(coarse.shape)} for x {tuple(x.shape)}")


def make_condition(labels: Tensor, num_classes: int, edges: Tensor | None = None) -> Tensor:
    """One-hot label map, float32 (B, num_classes (+ 1), H, W).

    `labels` integer (B, H, W); an id ≥ num_classes is void, the all-zero vector. `edges`
    (B, H, W): instance edges in {0, 1}, appended as the last channel.
    """
    ids = torch.arange(num_classes, device=labels.device)[None, :, None, None]
    one_hot = (labels.long()[:, None] == ids).float()
    return one_hot if edges is None else torch.cat([one_hot, edges[:, None].float()], dim=1)
