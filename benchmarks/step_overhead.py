"""How much time of a training step is spent outside the networks' forward and backward passes?

    python benchmarks/step_overhead.py [--batch 64] [--steps 30] [--full] [--json OUT]

The recipes' own code makes batches, clips gradients, steps optimizers, normalises filters and
updates averages, with the real number of crops, layers and operations. Tensors have only a few
pixels and channels, so that kernels take almost no time, as on a fast accelerator: what remains is
Python, NumPy and PyTorch's dispatch on one core. --full takes tensors of the real size.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from common import new_parser, positive, save
from torch import nn

from sempic.diffusion import edm
from sempic.networks.compact import CompactConfig, CompactNet, one_hot
from sempic.networks.segmenter import SegmentationNet, SegmenterConfig
from sempic.training.data import taxonomy
from sempic.training.data.batches import Crops, Drops
from sempic.training.data.corpus import Corpus, Sample
from sempic.training.data.views import Pictures, Views
from sempic.training.losses import Discriminator
from sempic.training.optimizer import Ema, Optimizer, Schedule
from sempic.training.recipes.receiver import parameter_groups

CLASSES = taxonomy.load("cityscapes")
CHANNELS, WIDTHS = [32, 24, 40, 112, 320, 64, 128, 256], [48, 64, 96, 96, 96, 0, 48, 64]
"""Of the features that the discriminator looks at, VGG-16's included."""


def corpus(small: bool, count: int = 40) -> Corpus:
    rng = np.random.default_rng(0)

    def sample(number: int) -> Sample:
        low = (1, 2) if small else (13, 17)
        shape = tuple(16 * int(rng.integers(side, 2 * side)) for side in low)
        image = rng.integers(0, 256, (*shape, 3), np.uint8)
        map_ = np.repeat(np.repeat(rng.integers(0, 20, (26, 34), np.uint8), 16, 0), 16, 1)
        return Sample(
            "camvid", str(number), False, image, (image[::4, ::4],) * 2,
            (np.ascontiguousarray(map_[: shape[0], : shape[1]]),) * 2, ({},) * 3,
        )  # fmt: skip

    return Corpus(CLASSES, {"camvid": 1.0}, [sample(number) for number in range(count)])


def graded(network: nn.Module) -> None:
    """Gradients, as a backward pass leaves them."""
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, 0.01)


def receiver(small: bool, batch: int, adversarial: bool) -> dict[str, Callable[[int], object]]:
    device = torch.device("cpu")
    size = (192, 256) if adversarial else (128, 176)
    crops = Crops(
        corpus(small), size=(16, 16) if small else size, device=device, drops=Drops(0.1, 0.1, 0.1)
    )
    config = CompactConfig(classes=19)
    if small:
        config = dataclasses.replace(
            config, widths=(4, 4, 4), label_width=4, emb_width=4, tail_width=4, narrow_width=4
        )
    network = CompactNet(config)
    optimizer = Optimizer(parameter_groups(network, 1e-3), schedule=Schedule(100, 0.1), clip=1.0)
    graded(network)
    average = Ema(network, 0.999)
    shape = (batch, 3, *crops.size)

    def noise(number: int) -> None:
        edm.draw_sigma(batch, device)
        edm.draw(shape, device)

    def make(number: int) -> None:
        one_hot(crops.draw(0, number, batch).labels, 19)

    parts: dict[str, Callable[[int], object]] = {
        "batch": make,
        "noise": noise,
        "optimizer": lambda _: (optimizer.set_rate(1, 0.5), optimizer.advance()),
        "normalise": lambda _: network.normalise(),
        "average": lambda number: average.update(number + 1),
    }
    if adversarial:
        widths = [min(w, 4) if small else w for w in WIDTHS]
        heads = Discriminator(CHANNELS, widths, 1 if small else 19)
        graded(heads)
        discriminator = Optimizer(
            [{"params": list(heads.parameters()), "lr": 4e-4}], schedule=Schedule()
        )
        parts["discriminator"] = lambda _: discriminator.advance()
    return parts


def segmenter(small: bool, batch: int) -> dict[str, Callable[[int], object]]:
    rng = np.random.default_rng(0)
    share = 20 if small else 1
    images = [rng.integers(0, 256, (360 // share, 480 // share, 3), np.uint8) for _ in range(20)]
    maps = np.repeat(
        np.repeat(rng.integers(0, 19, (9, 12), np.uint8), 40 // share, 0), 40 // share, 1
    )
    views = Views(
        [Pictures("camvid", 1.0, images, [maps] * 20)], CLASSES,
        size=(16, 16) if small else (256, 320), heights=(230 // share, 640 // share),
        device=torch.device("cpu"),
    )  # fmt: skip
    network = SegmentationNet(SegmenterConfig())
    if small:  # as many parameters, of one number each
        for tensor in [*network.parameters(), *network.buffers()]:
            tensor.data = tensor.data.flatten()[:1]
    optimizer = Optimizer(
        [{"params": list(network.parameters()), "lr": 1e-3}],
        schedule=Schedule(100, 0.1), weight_decay=0.01, clip=5.0,
    )  # fmt: skip
    graded(network)
    average = Ema(network, 0.998)
    return {
        "batch": lambda number: views.draw(0, number, batch),
        "optimizer": lambda _: (optimizer.set_rate(1, 0.5), optimizer.advance()),
        "average": lambda number: average.update(number + 1),
    }


RECIPES: dict[str, Callable[[bool, int], dict[str, Callable[[int], object]]]] = {
    "denoise": lambda small, batch: receiver(small, batch, False),
    "distill": lambda small, batch: receiver(small, batch, True),
    "segmenter": segmenter,
}


def measure(parts: dict[str, Callable[[int], object]], steps: int) -> dict[str, float]:
    """Milliseconds of the processor, median over steps, of each part and of all."""
    found: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(steps + 2):
        for name, part in parts.items():
            begun = time.thread_time()
            part(number)
            if number >= 2:
                found[name].append(1000 * (time.thread_time() - begun))
    medians = {name: statistics.median(times) for name, times in found.items()}
    return {**medians, "all": sum(medians.values())}


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--batch", type=positive, default=64)
    parser.add_argument("--steps", type=positive, default=30, help="that are measured")
    parser.add_argument("--full", action="store_true", help="tensors as large as in earnest")
    args = parser.parse_args()
    torch.set_num_threads(1)
    figures = {}
    for name, recipe in RECIPES.items():
        figures[name] = found = measure(recipe(not args.full, args.batch), args.steps)
        shown = "  ".join(f"{part} {value:.1f}" for part, value in found.items())
        print(f"{name:<10}{shown}  ms", flush=True)
    save(args, figures)


if __name__ == "__main__":
    main()
