"""What a budget of training buys with other shapes of the compact receiver: its first stage.

    python benchmarks/short_runs.py DATA [--seconds 240] [--threads 1] [--json OUT]

DATA as for `spic train compact`. Every shape starts from nothing and has the same processor time,
on the same crops in the same order, and is then asked for pictures that were held out (every eighth
of CamVid's train): the mean squared error of one denoising, in units of the residual's variance
(1: as good as no network), from noise alone, which is where sampling starts, and at half as much as
there is signal. Beside it stand parameters and time of a picture of 256×336.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from spic.diffusion import compact, edm
from spic.diffusion.compact import CompactConfig, CompactNet
from spic.training.compact import batches, rates, to_tensor
from spic.training.corpus import Sample, build
from spic.training.pairs import load_pairs
from spic.training.run import Ema, fast

SHAPES: dict[str, dict[str, Any]] = {
    "bundled: 64/128/224, 2 + 3 blocks": {},
    "narrow: 48/96/160": {"widths": (48, 96, 160)},
    "wide: 96/160/256": {"widths": (96, 160, 256)},
    "two levels: 64/128": {"widths": (64, 128)},
    "shallow: 1 + 2 blocks": {"encoder_blocks": 1, "decoder_blocks": 2},
    "thick tail: 64": {"tail_width": 64},
}
CROP = (128, 176)
LR = 4e-3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--seconds", type=float, default=240, help="of the processor, each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here, too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pairs = load_pairs(args.data / "camvid/train", args.data / "camvid/trainannot")
    with tempfile.TemporaryDirectory() as cache:
        held = build(pairs[::8], Path(cache), variants=1, seed=7)
        seen = build([p for i, p in enumerate(pairs) if i % 8], Path(cache), variants=1, seed=8)
    print(
        f"{args.seconds:g} s each on {args.threads} of {os.cpu_count()} cores, {len(held)} held out"
    )
    print(f"{'':<36}{'M':>6}{'ms':>7}{'steps':>7}{'noise alone':>13}{'half noise':>12}")
    found = {}
    for name, fields in SHAPES.items():
        found[name] = entry = short_run(CompactConfig(**fields), seen, held, args.seconds)
        print(
            f"{name:<36}{entry['parameters'] / 1e6:6.1f}{1000 * entry['picture']:7.0f}"
            f"{entry['steps']:7}{entry['alone']:13.3f}{entry['half']:12.3f}",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


def short_run(
    config: CompactConfig, seen: list[Sample], held: list[Sample], seconds: float
) -> dict[str, Any]:
    torch.manual_seed(0)
    network = CompactNet(config)
    network.normalise()
    optimizer = torch.optim.Adam(rates(network, LR), betas=(0.9, 0.99))
    ema = Ema(network, 0.98)
    steps, spent = 0, 0.0
    with tqdm(total=round(seconds), unit="s", leave=False) as bar:
        for image, small, labels in batches((seen, []), seed=0, start=0, batch=8, size=CROP):
            start = time.process_time()
            share = spent / seconds
            if share >= 1:
                break
            for group, top in zip(optimizer.param_groups, (LR, LR / 10), strict=True):
                group["lr"] = top * min(1.0, (steps + 1) / 20) * (1 - 0.9 * share)
            generator = torch.Generator().manual_seed(steps)
            sigma = edm.draw_sigma(len(image), generator)
            noise = torch.randn(image.shape, generator=generator)
            planes = compact.one_hot(labels, config.classes)
            with fast("cpu"):
                residual = image - compact.upsample(small)
                loss = edm.loss(network, residual, small, planes, sigma, noise).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
            optimizer.step()
            network.normalise()
            ema.update(network)
            steps += 1
            spent += time.process_time() - start
            bar.update(round(spent) - bar.n)
    network.load_state_dict(ema.state)
    errors, picture = held_out(network, held)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "picture": picture,
        "steps": steps,
        "alone": errors[0],
        "half": errors[1],
    }


@torch.no_grad()
def held_out(network: CompactNet, held: list[Sample]) -> tuple[list[float], float]:
    """Errors from noise alone and at half the signal's deviation; seconds of a picture."""
    sums, power, times = np.zeros(2), 0.0, []
    for index, sample in enumerate(held):
        rows, columns = (side // 16 * 16 for side in sample.image.shape[:2])
        image, small = to_tensor([sample.image]), to_tensor([sample.coarse])
        planes = compact.one_hot(
            torch.from_numpy(sample.maps[0].copy())[None], network.config.classes
        )
        residual = image - compact.upsample(small)
        power += residual.square().mean().item()
        noise = torch.randn(residual.shape, generator=torch.Generator().manual_seed(index))
        levels = network.config.sigma_max, network.config.sigma_data / 2
        for which, level in enumerate(levels):
            noisy = (which * residual) + level * noise
            start = time.process_time()
            guess = compact.denoise(network, noisy, small, planes, torch.tensor([level]))
            times.append((time.process_time() - start) * 256 * 336 / (rows * columns))
            sums[which] += (guess - residual).square().mean().item()
    return [float(s / power) for s in sums], float(np.median(times))


if __name__ == "__main__":
    main()
