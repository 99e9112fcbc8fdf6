"""`sempic train distill`: make the compact receiver sharp in one to four steps (its second stage).

Each update samples as the receiver will, up to one of the sampler's steps, and judges the picture
that comes out of it: L1 and frozen ImageNet features against the original, these features' moments
over the crop, the last of them pooled (the squared distance between pooled features of pairs bounds
a Fréchet distance from above; Inception's, which measure, are not used), a discriminator on the
same features (Sauer et al., "Projected GANs Converge Faster", 2021; "Adversarial Diffusion
Distillation", 2023) beside those of what was sent, and a frozen segmenter against the map that was
sent; the wanted fidelity, an input of the network, says how much each of them counts.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from sempic.diffusion import edm
from sempic.diffusion.compact import PATCH, one_hot, upsample
from sempic.errors import ModelError
from sempic.evaluation import weights
from sempic.training.compact import (
    Sheet,
    batches,
    grow,
    load_network,
    rates,
    read_corpus,
    save_network,
)
from sempic.training.efficientnet import EfficientNetLite, imagenet, imagenet_head
from sempic.training.run import Ema, Run, add_options, compiled, fast
from sempic.training.segmenter import load_segmenter

_TAPS = (-1, 2, 4, 10, 15)
"""The stem and the blocks of EfficientNet-Lite0 whose outputs are compared: strides 2 … 32."""
_CHANNELS = (32, 24, 40, 112, 320)
_WIDTHS = (48, 64, 96, 96, 96)
"""Of the discriminator's heads; those of the large maps would take the most time."""
_STAGES = (2, 2, 3)
"""Layers of VGG-16 in the stages whose outputs are compared, strides 1, 2 and 4."""
_STAGE_CHANNELS = (64, 128, 256)
_STAGE_WIDTHS = (0, 48, 64)
"""Of the discriminator's heads there; the first stage has none."""
_GRID = (1, 2, 4)
"""Numbers of sampling steps that are trained for."""
SAVE_EVERY = 100


class Features(nn.Module):
    """Frozen ImageNet features, scaled to a mean magnitude of about one.

    EfficientNet-Lite0's of the whole crop, which are cheap, then VGG-16's of a window of it, which
    know more of what is a few pixels large.
    """

    scale: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, *, vgg: bool = False) -> None:
        """Raises ModelError if VGG-16's weights are asked for and not there."""
        super().__init__()
        self.network: EfficientNetLite = imagenet(0)
        self.head = imagenet_head(0)
        self.channels, self.widths = list(_CHANNELS), list(_WIDTHS)
        self.stages = nn.ModuleList()
        if vgg:
            self.channels += _STAGE_CHANNELS
            self.widths += _STAGE_WIDTHS
            arrays = weights.load("vgg16")
            number = 0
            for depth in _STAGES:
                layers: list[nn.Module] = [nn.MaxPool2d(2)] if number else []
                for _ in range(depth):
                    kernel = torch.from_numpy(arrays[f"backbone.{number}.weight"])
                    conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
                    conv.weight.data = kernel
                    conv.bias = nn.Parameter(torch.from_numpy(arrays[f"backbone.{number}.bias"]))
                    layers += [conv, nn.ReLU()]
                    number += 1
                self.stages.append(nn.Sequential(*layers))
        self.register_buffer("scale", torch.ones(len(self.channels)))
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406))[:, None, None])
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225))[:, None, None])
        self.eval().requires_grad_(False)

    def forward(self, picture: Tensor, window: tuple[slice, slice]) -> list[Tensor]:
        """Features of pictures, (B, 3, H, W) in [-1, 1], VGG-16's in a window of rows, columns."""
        net = self.network
        x = net.stem((picture + 1) / 2)
        found = [x * self.scale[0]]
        for index, block in enumerate(net._blocks[: _TAPS[-1] + 1]):
            x = block(x)
            if index in _TAPS:
                found.append(x * self.scale[len(found)])
        x = ((picture[(..., *window)] + 1) / 2 - self.mean) / self.std
        for stage in self.stages:
            x = stage(x)
            found.append(x * self.scale[len(found)])
        return found

    def pooled(self, found: list[Tensor]) -> Tensor:
        """(B, 1280): what the classifier of ImageNet sees of pictures with these features."""
        last = len(_TAPS) - 1
        pooled: Tensor = self.head(found[last] / self.scale[last]).float().mean((2, 3))
        return pooled

    def calibrate(self, pictures: Tensor) -> None:
        """Measure the scales on real pictures."""
        self.scale.fill_(1)
        whole = slice(None), slice(None)
        self.scale.copy_(torch.stack([1 / f.abs().mean() for f in self(pictures, whole)]))


def moments(feature: Tensor) -> Tensor:
    """Mean and deviation of each channel over the crop, (B, 2 C): its texture, wherever it lies."""
    flat = feature.float().flatten(2)
    return torch.cat([flat.mean(2), (flat.var(2) + 1e-4).sqrt()], 1)


def energies(picture: Tensor) -> Tensor:
    """Mean steps between pixels one and two apart, in windows of 32×32 pixels.

    Args:
        picture: (B, 3, H, W), RGB.

    Returns:
        (B, 4, 3, 16, H // 32, W // 32): direction and distance; luma, blue and red difference;
        where in the network's patches the step begins.
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
    """Distance of `energies` from the original's, as a share of these.

    An original has as much detail at one place of a patch as at the next; a network that lays out
    patches does not, unless it is asked to. Colours of real scenes change less than luma does.
    """
    wanted = energies(image).mean(3, keepdim=True)
    return ((energies(made) - wanted).abs() / wanted.mean((0, 4, 5), keepdim=True)).mean()


class Discriminator(nn.Module):
    """A small head on each feature map, which also sees that of the enlarged coarse picture, and
    the label map: what was sent, and whether this is a picture of it."""

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

    def forward(self, features: list[Tensor], sent: list[Tensor]) -> list[Tensor]:
        """Scores, (B, 1, h, w) for each feature map that has a head; `sent` is from `known`."""
        return [
            head(torch.cat([f, s], 1))
            for head, f, s in zip(self.heads, features, sent, strict=True)
            if not isinstance(head, nn.Identity)
        ]


def known(features: list[Tensor], classes: Tensor, window: tuple[slice, slice]) -> list[Tensor]:
    """What a discriminator is told: features of the enlarged coarse picture, and the label map."""
    return [
        torch.cat([f, F.adaptive_avg_pool2d(c, (f.shape[-2], f.shape[-1]))], 1)
        for number, f in enumerate(features)
        for c in (classes if number < len(_TAPS) else classes[(..., *window)],)
    ]


def _window(like: Tensor, rng: np.random.Generator) -> tuple[slice, slice]:
    """Half of the rows and columns of a crop, at multiples of four."""
    starts = (4 * int(rng.integers(side // 8 + 1)) for side in like.shape[-2:])
    top, left = starts
    return slice(top, top + like.shape[-2] // 2), slice(left, left + like.shape[-1] // 2)


def _view(like: Tensor, rng: np.random.Generator) -> Callable[[Tensor], Tensor]:
    """How the features look at a crop: shifted by a few pixels, and half of the time at a quarter
    of it twice as large.

    Seen always the same way, fine weaves that fall between the strides of the features would cost
    nothing.
    """
    height, width = like.shape[-2:]
    shift = tuple(int(s) for s in rng.integers(4, size=2))
    near = rng.random() < 0.5
    top, left = (int(rng.integers(side - side // 2 + 1)) for side in (height, width))

    def look(x: Tensor) -> Tensor:
        x = x.roll(shift, (2, 3))
        if near:
            x = x[..., top : top + height // 2, left : left + width // 2]
            x = F.interpolate(x, (height, width), mode="bicubic", align_corners=False)
        return x

    return look


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="sempic train distill",
        description="Fine-tune a trained compact receiver for 1 to 4 steps. Run it again to go on.",
    )
    add_options(parser)
    parser.set_defaults(batch=4)
    parser.add_argument(
        "--teacher", type=Path, required=True, help="compact.safetensors of `sempic train compact`"
    )
    parser.add_argument(
        "--segmenter",
        type=Path,
        help="segmenter.safetensors for semantic consistency",
    )
    parser.add_argument(
        "--predictor",
        type=Path,
        help="segmenter.onnx whose maps are learned from beside the human ones",
    )
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument(
        "--crop",
        type=int,
        nargs=2,
        default=(192, 256),
        metavar=("H", "W"),
        help="multiples of 32 are fastest, of 16 allowed",
    )
    for name in ("tail-blocks", "narrow-width"):
        parser.add_argument(
            f"--{name}",
            type=int,
            metavar="N",
            help="give the network this many (CompactConfig); default: as many as the teacher has",
        )
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--pixel", type=float, default=2.0, help="weight of L1")
    parser.add_argument(
        "--coarse", type=float, default=2.0, help="weight of L1 between the coarse pictures"
    )
    parser.add_argument("--feature", type=float, default=1.5, help="weight of the feature distance")
    parser.add_argument(
        "--texture",
        type=float,
        default=1.0,
        help="weight of the distance between the features' means and deviations over a crop",
    )
    parser.add_argument(
        "--pooled",
        type=float,
        default=0.3,
        help="weight of the squared distance between the last features' means, as a share of "
        "their variance",
    )
    parser.add_argument(
        "--energy",
        type=float,
        default=1.0,
        help="weight of the distance between energies of detail, at each place of a patch",
    )
    parser.add_argument(
        "--vgg",
        type=float,
        default=1.0,
        help="weight of the distance of VGG-16's features (`python -m sempic.evaluation.weights`), "
        "which the discriminator sees, too; 0 does without",
    )
    parser.add_argument("--adversarial", type=float, default=0.4)
    parser.add_argument("--semantic", type=float, default=0.1)
    args = parser.parse_args(argv)
    if args.batch < 2:
        parser.error("--batch must be 2 or more: pooled features are compared with their variance")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    network = grow(
        load_network(args.teacher),
        tail_blocks=args.tail_blocks,
        narrow_width=args.narrow_width,
    ).to(args.device)
    config = network.config
    features = Features(vgg=args.vgg > 0).to(args.device)
    discriminator = Discriminator(features.channels, features.widths, config.classes)
    discriminator = discriminator.to(args.device)
    segmenter = None
    if args.segmenter:
        segmenter = load_segmenter(args.segmenter).requires_grad_(False).to(args.device)
    working = compiled(network, args.device)
    groups = rates(network, args.lr)
    optimizer = torch.optim.Adam(groups, betas=(0.5, 0.99))
    critic = torch.optim.Adam(discriminator.parameters(), lr=4e-4, betas=(0.5, 0.99))
    ema = Ema(network, 0.999)
    spread: float | None = None  # variance of pooled features, a running mean
    run = Run(args.out, args.steps, args.device)
    if state := run.resume():
        network.load_state_dict(state["network"])
        discriminator.load_state_dict(state["discriminator"])
        optimizer.load_state_dict(state["optimizer"])
        critic.load_state_dict(state["critic"])
        ema.load(state["ema"], run.step)
        features.scale.copy_(state["scale"])
        spread = state["spread"]

    corpus = read_corpus(args.data, args.out.parent / "cache", args.predictor)
    sheet = Sheet(args.data)
    averaged = copy.deepcopy(network)
    levels = [edm.sigmas(steps, config.sigma_max).to(args.device) for steps in _GRID]
    sums: dict[str, float] = {}
    source = batches(
        corpus,
        seed=args.seed + 1,
        start=run.step,
        batch=args.batch,
        size=tuple(args.crop),
        label_drop=0.03,
    )
    for image, coarse, labels in source:
        if run.step >= args.steps:
            break
        image, coarse, labels = (t.to(args.device) for t in (image, coarse, labels))
        image, coarse = (t.contiguous(memory_format=torch.channels_last) for t in (image, coarse))
        rng = np.random.default_rng((args.seed + 2, run.step))
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + run.step)
        if run.step == 0:
            features.calibrate(image)
        planes = one_hot(labels, config.classes)
        classes = planes[:, : config.classes]
        base = upsample(coarse)

        fidelity = float(rng.choice((0.0, rng.random(), 1.0), p=(0.8, 0.1, 0.1)))
        # The first step, which is the only one of a decode in one, half of the time.
        schedule = levels[0 if rng.random() < 0.5 else int(rng.integers(1, len(levels)))]
        index = int(rng.integers(1, len(schedule))) if len(schedule) > 1 else 0
        with fast(args.device):
            *_, residual = edm.sample(
                working, coarse, planes, schedule[: index + 1], generator, fidelity
            )
        made = base + residual
        look, window = _view(image, rng), _window(image, rng)

        # The discriminator, on features that the generator needs anyway.
        with fast(args.device):
            with torch.no_grad():
                real = features(look(image), window)
                wanted = features.pooled(real)
                sent = known(features(look(base), window), look(classes), window)
            fake = features(look(made), window)
            critic_loss = torch.stack(
                [
                    F.relu(1 - r.float()).mean() + F.relu(1 + f.float()).mean()
                    for r, f in zip(
                        discriminator(real, sent),
                        discriminator([f.detach() for f in fake], sent),
                        strict=True,
                    )
                ]
            ).mean()
        critic.zero_grad(set_to_none=True)
        if fidelity < 0.5:  # what is meant to be a mean is no forgery
            critic_loss.backward()
            critic.step()

        discriminator.requires_grad_(False)
        with fast(args.device):
            scores = discriminator(fake, sent)
            pooled = features.pooled(fake)
        discriminator.requires_grad_(True)
        variance = wanted.var(0, correction=0).sum().item()
        spread = variance if spread is None else 0.98 * spread + 0.02 * variance
        apart = torch.stack(
            [(f.float() - r.float()).abs().mean() for f, r in zip(fake, real, strict=True)]
        )
        parts = {
            "pixel": (1 + fidelity) * args.pixel * (made - image).abs().mean(),
            "coarse": args.coarse * F.avg_pool2d(made - image, PATCH).abs().mean(),
            "feature": (1 - 0.7 * fidelity) * args.feature * apart[: len(_TAPS)].mean(),
            "texture": (1 - fidelity)
            * args.texture
            * torch.stack(
                [(moments(f) - moments(r)).abs().mean() for f, r in zip(fake, real, strict=True)]
            ).mean(),
            "pooled": (1 - fidelity)
            * args.pooled
            * (pooled - wanted).square().sum(1).mean()
            / spread,
            "energy": (1 - fidelity) * args.energy * unevenness(made, image),
            "adversarial": (fidelity - 1)
            * args.adversarial
            * torch.stack([s.float().mean() for s in scores]).mean(),
        }
        if args.vgg:
            parts["vgg"] = (1 - 0.7 * fidelity) * args.vgg * apart[len(_TAPS) :].mean()
        if segmenter is not None and run.step % 2 == 0:
            with fast(args.device):
                picture = F.pad(
                    (made + 1) / 2, (0, -made.shape[3] % 32, 0, -made.shape[2] % 32), mode="reflect"
                )
                logits = segmenter(picture).float()
            logits = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
            logits = logits[..., : made.shape[2], : made.shape[3]]
            target = labels.long().masked_fill(labels >= config.classes, 255)
            weight = 2 * (1 - fidelity) * args.semantic  # every other step
            if (target != 255).any():
                parts["semantic"] = weight * F.cross_entropy(logits, target, ignore_index=255)
        loss = torch.stack(list(parts.values())).sum()
        rate = min(1.0, (run.step + 1) / 100) * (
            0.55 + 0.45 * math.cos(math.pi * run.step / args.steps)
        )
        for group, top in zip(optimizer.param_groups, (args.lr, args.lr / 10), strict=True):
            group["lr"] = top * rate
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        if not math.isfinite(norm):
            raise ModelError(f"step {run.step}: the gradient is {norm:g}")
        optimizer.step()
        network.normalise()
        ema.update(network)
        run.step += 1
        for name, value in {**parts, "critic": critic_loss, "norm": norm}.items():
            sums[name] = sums.get(name, 0.0) + value.item() / (25 if name == "semantic" else 50)
        if run.step % 50 == 0:
            run.log(**sums)
            sums = {}
        if run.step % SAVE_EVERY == 0 or run.step == args.steps:
            run.save(
                network=network.state_dict(),
                discriminator=discriminator.state_dict(),
                optimizer=optimizer.state_dict(),
                critic=critic.state_dict(),
                ema=ema.state,
                scale=features.scale,
                spread=spread,
            )
        if run.step % 200 == 0 or run.step == args.steps:
            averaged.load_state_dict(ema.state)
            run.log(psnr=sheet.write(averaged, args.out / f"sheet-{run.step:06}.png"))
            save_network(ema.state, config, args.out / "compact.safetensors")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
