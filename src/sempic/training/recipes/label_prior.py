"""`sempic train label-prior network`: one of the two networks of the label coder's prior.

The loss is the code length: bits per pixel of each label given the labels before it in raster order
and, with --coarse, the decoded coarse planes. `label_model` makes a label model of two networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from sempic.errors import ModelError, refused
from sempic.evaluation.folders import spread
from sempic.labels import prior
from sempic.labels.causal import BANDS, TEMPLATE
from sempic.labels.neighbourhood import PAD
from sempic.networks.label_prior import LabelPriorNet
from sempic.networks.weights import load_tensors
from sempic.palette import Palette
from sempic.training.data import taxonomy
from sempic.training.data.label_maps import VIEWS, Maps, opened
from sempic.training.device import autocast, step_seed
from sempic.training.label_model import need_palette, restored
from sempic.training.optimizer import Optimizer, Schedule
from sempic.training.options import LabelPriorOptions
from sempic.training.recipe import OwnRecipe


class Pixels:
    """Random pixels of label maps, with the neighbourhoods that the network sees."""

    def __init__(self, maps: npt.NDArray[np.uint8], classes: int) -> None:
        self.count, self.height, self.width = maps.shape
        self.stride = self.width + 2 * PAD
        framed = np.pad(maps, ((0, 0), (PAD, 0), (PAD, PAD)), constant_values=classes)
        self.maps = torch.from_numpy(framed.reshape(self.count, -1))
        self.offsets = torch.tensor([dy * self.stride + dx for dy, dx in TEMPLATE])
        y, x = np.mgrid[: self.height, : self.width]
        self.centres = torch.from_numpy(((y + PAD) * self.stride + x + PAD).ravel())

        def shifted(dy: int, dx: int) -> npt.NDArray[np.uint8]:
            top, left = PAD + dy, PAD + dx
            return framed[:, top : top + self.height, left : left + self.width]

        uniform = np.ones(maps.shape, bool)  # where all neighbours have one label
        for offset in TEMPLATE:
            uniform &= shifted(0, -1) == shifted(*offset)
        self.uniform = torch.from_numpy(uniform.reshape(self.count, -1))

    def around(self, i: int, chosen: Tensor) -> Tensor:
        """The neighbourhoods of chosen pixels of map i: int64 (P, T)."""
        return self.maps[i][self.centres[chosen][:, None] + self.offsets].long()

    def draw(self, i: int, g: torch.Generator, busy: int, calm: int) -> tuple[Tensor, ...]:
        """Random pixels of map i: index, neighbours, target, weight; the weights sum to H·W.

        Calm pixels have the one label of all their neighbours; all others are busy.
        """
        target = self.maps[i][self.centres]
        is_calm = self.uniform[i] & (target == self.maps[i][self.centres - 1])
        parts, weights = [], []
        for mask, number in ((~is_calm, busy), (is_calm, calm)):
            weights.append(torch.full((number,), int(mask.sum()) / number))
            pixels = torch.nonzero(mask if mask.any() else ~mask)[:, 0]  # any, of weight 0
            parts.append(pixels[torch.randint(len(pixels), (number,), generator=g)])
        chosen = torch.cat(parts)
        return chosen, self.around(i, chosen), target[chosen].long(), torch.cat(weights)


def evaluate(net: LabelPriorNet, pixels: Pixels, maps: Maps, chosen: Sequence[int]) -> float:
    """Mean bytes per chosen map, over all of its pixels."""
    total, device = 0.0, net.template.device
    with torch.no_grad():
        for i in chosen:
            planes = torch.from_numpy(maps.planes[i, :1])
            dense = net.features(planes)[0] if net.trunk else None
            target = pixels.maps[i][pixels.centres].long()
            for part in torch.arange(len(target)).split(16384):
                y, x = part // pixels.width, part % pixels.width
                features = None if dense is None else dense[y, x]
                row, column = y * BANDS // pixels.height, x * BANDS // pixels.width
                inputs = (x.to(device) for x in (pixels.around(i, part), row, column))
                logits = net(*inputs, features).cpu()
                total += F.cross_entropy(logits, target[part], reduction="sum").item()
    return total / math.log(2) / 8 / len(chosen)


class LabelPrior(OwnRecipe):
    """The code length of label maps."""

    kind = LabelPriorNet.kind
    decay = 0.998

    def __init__(self, options: LabelPriorOptions, device: torch.device) -> None:
        super().__init__(options, device, taxonomy.load(options.classes))
        self.classes = len(self.taxonomy.palette.classes)
        self.data, self.val = opened(options)
        network = LabelPriorNet(self.classes, options.coarse).to(device)
        if options.init is not None:
            _begin(network, options.init, self.taxonomy.palette)
        self.network: LabelPriorNet = network
        self.optimizer = Optimizer(
            [{"params": list(network.parameters()), "lr": options.lr}],
            schedule=Schedule(warmup=100, floor=0.01),
            weight_decay=1e-4,
            clip=2.0,
        )
        self.optimizers = {"network": self.optimizer}
        labels = self.data.labels
        self.pixels = Pixels(np.concatenate([labels, labels[:, :, ::-1]]), self.classes)
        """Of the maps, then of their mirror images."""
        self.judged = Pixels(self.val.labels, self.classes)

    def step(self, number: int) -> dict[str, Tensor]:
        options, count = self.options, self.options.batch
        g = torch.Generator().manual_seed(step_seed(options, number))
        rng = np.random.default_rng((options.seed, 1, number))
        batch = rng.choice(len(self.data.labels), count, p=self.data.weight)
        batch += len(self.data.labels) * rng.integers(0, 2, count)
        drawn = [self.pixels.draw(i, g, options.busy, options.calm) for i in batch]
        chosen, around, target, weight = (
            torch.cat(part).to(self.device) for part in zip(*drawn, strict=True)
        )
        height, width = self.pixels.height, self.pixels.width
        y, x = chosen // width, chosen % width
        features, aux = None, torch.zeros((), device=self.device)
        if options.coarse:
            dense = self._dense(batch, rng)
            which = torch.arange(count, device=self.device)
            features = dense[which.repeat_interleave(options.busy + options.calm), y, x]
            aux = self._auxiliary_loss(dense, batch, g)
        logits = self.network(around, y * BANDS // height, x * BANDS // width, features)
        bits = (F.cross_entropy(logits, target, reduction="none") * weight).sum() / math.log(2)
        bytes_per_map = bits / 8 / count
        norm = self.optimizer.minimise(bytes_per_map / 500 + 0.3 * aux)
        return {"bytes": bytes_per_map, "aux": aux, "norm": norm}

    def _dense(self, batch: npt.NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """Features of each pixel, (B, H', W, FEATURES), of coarse planes of random quality."""
        mirrored, number = np.divmod(batch, len(self.data.labels))
        planes = self.data.planes[number, rng.integers(len(VIEWS), size=len(batch))]
        view = [p[..., ::-1] if m else p for p, m in zip(planes, mirrored, strict=True)]
        with autocast(self.device):
            dense = self.network.features(torch.from_numpy(np.stack(view))).float()
        # The grid has 4⌈W/4⌉ columns: in a mirrored picture the first ones are too many.
        more = dense.shape[2] - self.pixels.width
        parts = zip(dense, more * mirrored, strict=True)
        return torch.stack([part[:, left : left + self.pixels.width] for part, left in parts])

    def _auxiliary_loss(
        self, dense: Tensor, batch: npt.NDArray[np.int64], g: torch.Generator
    ) -> Tensor:
        """Makes the features tell the class alone, at pixels of all kinds."""
        pixels = self.pixels
        sides = pixels.height, pixels.width, len(batch)
        y, x, which = (torch.randint(0, most, (4096,), generator=g) for most in sides)
        maps = torch.from_numpy(batch)[which]
        truth = pixels.maps[maps, pixels.centres[y * pixels.width + x]].long().to(self.device)
        return F.cross_entropy(self.network.aux(dense[which, y, x]), truth)

    def validate(self, state: dict[str, Tensor], sheet: Path) -> dict[str, float]:
        chosen = spread(range(self.judged.count), 10)
        return {"val_bytes": evaluate(self.averaged(state), self.judged, self.val, chosen)}

    def about(self) -> dict[str, Any]:
        palette = self.taxonomy.palette.full_name
        return {"classes": self.classes, "palette": palette, "coarse": self.options.coarse}


def _begin(net: LabelPriorNet, path: Path, palette: Palette) -> None:
    """Fill a network with the weights of a run (.safetensors) or with those that a label model
    (.npz) has. Raises ModelError, also if they are for other classes than the palette's."""
    if path.suffix == ".npz":
        known = prior.load(path)
        found, classes, name = restored(known), known.classes, known.palette
    else:
        tensors, about = load_tensors(path, LabelPriorNet.kind)
        found, classes = {k: v.float() for k, v in tensors.items()}, about.get("classes", 0)
        name = about.get("palette")
    need_palette(path, classes, name, palette)
    with refused(ModelError, f"{path} does not fit", RuntimeError, unfit=True):
        net.load_state_dict(found, strict=False)
