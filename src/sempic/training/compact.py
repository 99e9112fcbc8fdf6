"""`sempic train compact`: teach the compact receiver to denoise residuals (its first stage)."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sempic.diffusion import edm
from sempic.diffusion.compact import CompactConfig, CompactNet, one_hot, upsample
from sempic.errors import InputError, ModelError
from sempic.palette import CAMVID
from sempic.segment import Segmenter
from sempic.training.corpus import Sample, build, crop, sent_map, transmit
from sempic.training.pairs import load_pairs
from sempic.training.run import Ema, Run, add_options, compiled, fast, load_weights, save_weights
from sempic.training.segmenter import RARE

SAVE_EVERY = 250
"""Steps between resumable checkpoints."""
Batch = tuple[Tensor, Tensor, Tensor]
"""image (B, 3, H, W) and coarse (B, 3, H/4, W/4) in [-1, 1]; labels uint8 (B, H, W)."""


def to_tensor(pictures: list[np.ndarray]) -> Tensor:
    """uint8 (H, W, 3) each → float (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_picture(tensor: Tensor) -> np.ndarray:
    """float (3, H, W) in [-1, 1] → uint8 (H, W, 3)."""
    return (
        ((tensor.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    )


def read_corpus(
    data: Path, cache: Path, predictor: Path | None = None, variants: int = 5
) -> tuple[list[Sample], list[Sample]]:
    """CamVid train in several renditions, and LabelMeFacade in one where it is there.

    Where a segmenter is given, CamVid's pictures have its maps, simplified as the encoder does by
    default, beside the human ones.
    """
    camvid = load_pairs(data / "camvid/train", data / "camvid/trainannot")
    predict = partial(sent_map, Segmenter(predictor)) if predictor else None
    roads = build(camvid, cache, variants=variants, seed=0, predict=predict)
    if not (data / "labelmefacade").exists():
        return roads, []
    facades = load_pairs(data / "labelmefacade/images", data / "labelmefacade/labels")
    facades = [p for p in facades if min(p.labels.shape) >= 176]
    return roads, build(facades, cache, variants=1, seed=1)


def batches(
    corpus: tuple[list[Sample], list[Sample]],
    *,
    seed: int,
    start: int,
    batch: int,
    size: tuple[int, int],
    label_drop: float = 0.1,
) -> Iterator[Batch]:
    """Endless batches from step `start` on; a quarter of each is facades, if there are any.

    Half of the crops are lit otherwise, the coarse picture with them: three drives have few lights.
    Pictures smaller than the crop are left out; raises InputError if that leaves none.
    """
    fitting = [
        [s for s in part if s.image.shape[0] >= size[0] and s.image.shape[1] >= size[1]]
        for part in corpus
    ]
    if not fitting[0]:
        raise InputError(f"no picture of CamVid's train is as large as a crop of {size}")
    step = start
    while True:
        rng = np.random.default_rng((seed, step))
        images, smalls, maps = [], [], []
        for slot in range(batch):
            source = fitting[1] if fitting[1] and slot % 4 == 3 else fitting[0]
            sample = source[rng.integers(len(source))]
            image, small, labels = crop(sample, rng, size=size, rare=RARE)
            if rng.random() < label_drop:
                labels = np.full_like(labels, 255)
            images.append(image)
            smalls.append(small)
            maps.append(labels)
        light = rng.uniform(-0.25, 0.25, (batch, 1, 1, 1)) + rng.uniform(
            -0.08, 0.08, (batch, 3, 1, 1)
        )
        light *= rng.random((batch, 1, 1, 1)) < 0.5
        gains = torch.from_numpy(np.exp(light)).float()
        lit, coarse = (
            ((to_tensor(part) + 1) * gains - 1).clamp(-1, 1) for part in (images, smalls)
        )
        yield lit, coarse, torch.from_numpy(np.stack(maps))
        step += 1


def save_network(state: dict[str, Tensor], config: CompactConfig, path: Path) -> None:
    """Write the weights of a compact receiver (`save_weights`)."""
    save_weights(state, "compact", config, path)


def load_network(path: Path) -> CompactNet:
    """A compact receiver that `save_network` wrote; raises ModelError if `path` holds none."""
    state, fields = load_weights(path, "compact")
    network = CompactNet(CompactConfig(**{**fields, "widths": tuple(fields["widths"])}))
    network.load_state_dict(state)
    return network


def grow(network: CompactNet, **sizes: Any) -> CompactNet:
    """The same function with more blocks in its tail, or more channels that it is given.

    Args:
        sizes: fields of CompactConfig; None keeps the network's own.

    Raises:
        ModelError: the network is larger.
    """
    asked = {name: size for name, size in sizes.items() if size is not None}
    grown = CompactNet(replace(network.config, **asked))
    fresh = grown.state_dict()
    for key, value in network.state_dict().items():
        if key not in fresh or any(
            a > b for a, b in zip(value.shape, fresh[key].shape, strict=True)
        ):
            raise ModelError(f"{key} of the network has no place in one with {asked}")
        if value.ndim == 4:  # filters look away from inputs that are new
            fresh[key][: value.shape[0]] = 0
            fresh[key][: value.shape[0], : value.shape[1]] = value
        else:
            fresh[key] = value
    grown.load_state_dict(fresh)
    grown.normalise()
    return grown


def rates(network: CompactNet, lr: float) -> list[dict[str, Any]]:
    """Optimizer groups: `lr` for filters, which have unit size, and gains, a tenth for the rest."""
    groups: tuple[list[Tensor], list[Tensor]] = ([], [])
    for name, parameter in network.named_parameters():
        groups[parameter.ndim < 4 and not name.endswith("_gain")].append(parameter)
    filters, others = groups
    return [{"params": filters, "lr": lr}, {"params": others, "lr": lr / 10}]


class Sheet:
    """A picture of a few validation scenes: coarse | labels | 1 step | 4 steps | original."""

    def __init__(self, data: Path, count: int = 4) -> None:
        pairs = load_pairs(data / "camvid/val", data / "camvid/valannot", (341, 256))
        self.pairs = pairs[:: len(pairs) // count][:count]
        self.colours = np.zeros((256, 3), np.uint8)
        self.colours[: len(CAMVID.colours)] = CAMVID.colours

    @torch.no_grad()
    def write(self, network: CompactNet, path: Path) -> float:
        """Draw the sheet; returns the PSNR in dB of the pictures of 4 steps."""
        network.eval()
        rows, errors = [], []
        for pair in self.pairs:
            image, labels = pair.image[:256, :336], pair.labels[:256, :336]
            device = network.head_gain.device
            small = to_tensor([transmit(image, 4, 35)]).to(device)
            planes = one_hot(
                torch.from_numpy(labels.copy())[None].to(device), network.config.classes
            )
            row = [to_picture(upsample(small)[0]), self.colours[labels]]
            for steps in (1, 4):
                levels = edm.sigmas(steps, network.config.sigma_max)
                generator = torch.Generator().manual_seed(0)
                *_, residual = edm.sample(network, small, planes, levels, generator)
                row.append(to_picture((upsample(small) + residual)[0]))
            errors.append(np.square(row[-1].astype(float) - image).mean())
            rows.append(np.concatenate([*row, image], 1))
        Image.fromarray(np.concatenate(rows)).save(path)
        network.train()
        return float(10 * np.log10(255**2 / np.mean(errors)))


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="sempic train compact",
        description="Train the compact residual diffusion receiver. Run it again to go on.",
    )
    add_options(parser)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument(
        "--crop", type=int, nargs=2, default=(128, 176), metavar=("H", "W"), help="multiples of 16"
    )
    parser.add_argument("--lr", type=float, default=4e-3)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    config = CompactConfig()
    network = CompactNet(config).to(args.device)
    network.normalise()
    working = compiled(network, args.device)
    groups = rates(network, args.lr)
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    ema = Ema(network, 0.999)
    run = Run(args.out, args.steps, args.device)
    if state := run.resume():
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        ema.load(state["ema"], run.step)

    corpus = read_corpus(args.data, args.out.parent / "cache")
    residuals = [
        s.image.astype(np.float32)
        - np.asarray(
            Image.fromarray(s.coarse).resize(s.image.shape[1::-1], Image.Resampling.BILINEAR)
        )
        for s in corpus[0][:50]
    ]
    print(
        f"{len(corpus[0])} + {len(corpus[1])} samples; residual deviation "
        f"{np.sqrt(np.mean([np.square(r).mean() for r in residuals])) / 127.5:.3f}",
        flush=True,
    )
    sheet = Sheet(args.data)
    averaged = CompactNet(config).to(args.device)
    losses: list[float] = []
    source = batches(
        corpus, seed=args.seed, start=run.step, batch=args.batch, size=tuple(args.crop)
    )
    for image, coarse, labels in source:
        if run.step >= args.steps:
            break
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + run.step)
        sigma = edm.draw_sigma(len(image), generator)
        noise = torch.randn(image.shape, generator=generator)
        # Drawn on the CPU, so that a run is the same wherever it goes on.
        image, coarse, labels, sigma, noise = (
            t.to(args.device) for t in (image, coarse, labels, sigma, noise)
        )
        rate = min(1.0, (run.step + 1) / 200) * (
            0.51 + 0.49 * math.cos(math.pi * run.step / args.steps)
        )
        for group, base in zip(optimizer.param_groups, (args.lr, args.lr / 10), strict=True):
            group["lr"] = base * rate
        with fast(args.device):
            errors = edm.loss(
                working,
                image - upsample(coarse),
                coarse,
                one_hot(labels, config.classes),
                sigma,
                noise,
            )
        loss = errors.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        if not math.isfinite(norm):
            raise ModelError(f"step {run.step}: the gradient is {norm:g}")
        optimizer.step()
        network.normalise()
        ema.update(network)
        run.step += 1
        losses.append(loss.item())
        if run.step % 100 == 0:
            run.log(loss=float(np.mean(losses)), norm=float(norm))
            losses.clear()
        if run.step % SAVE_EVERY == 0 or run.step == args.steps:
            run.save(network=network.state_dict(), optimizer=optimizer.state_dict(), ema=ema.state)
        if run.step % 1000 == 0 or run.step == args.steps:
            averaged.load_state_dict(ema.state)
            run.log(psnr=sheet.write(averaged, args.out / f"sheet-{run.step:06}.png"))
            save_network(ema.state, config, args.out / "compact.safetensors")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
