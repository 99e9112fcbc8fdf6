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

from sempic.errors import ModelError
from sempic.labels import prior
from sempic.labels.causal import BANDS, TEMPLATE
from sempic.labels.neighbourhood import PAD
from sempic.networks.label_prior import LabelPriorNet
from sempic.networks.weights import load_tensors
from sempic.training.data import taxonomy
from sempic.training.data.label_maps import VIEWS, Maps, opened
from sempic.training.device import autocast, step_seed
from sempic.training.label_model import restored
from sempic.training.optimizer import Optimizer, Schedule
from sempic.training.options import LabelPriorOptions
from sempic.training.recipes.own import OwnRecipe


class Pixels:
    """Random pixels of label maps, with the neighbourhoods that the network sees."""

    def __init__(self, maps: npt.NDArray[np.uint8], classes: int) -> None:
        self.count, self.height, self.width = maps.shape
        self.stride = self.width + 2 * PAD
        framed = np.full((self.count, self.height + PAD, self.stride), classes, np.uint8)
        framed[:, PAD:, PAD:-PAD] = maps
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

    def around(self, i: int, chosen: Tensor | None = None) -> Tensor:
        """The neighbourhoods of (chosen) pixels of map i: uint8 (P, T)."""
        centres = self.centres if chosen is None else self.centres[chosen]
        return self.maps[i][centres[:, None] + self.offsets]

    def draw(self, i: int, g: torch.Generator, busy: int, calm: int) -> tuple[Tensor, ...]:
        """Random pixels of map i: index, neighbours, target, weight; the weights sum to H·W.

        Calm pixels have the one label of all their neighbours; all others are busy.
        """
        target = self.maps[i][self.centres]
        is_calm = self.uniform[i] & (target == self.maps[i][self.centres - 1])
        parts, weights = [], []
        for mask, number in ((~is_calm, busy), (is_calm, calm)):
            pixels = torch.nonzero(mask)[:, 0]
            parts.append(pixels[torch.randint(len(pixels), (number,), generator=g)])
            weights.append(torch.full((number,), len(pixels) / number))
        chosen = torch.cat(parts)
        return chosen, self.around(i, chosen).long(), target[chosen].long(), torch.cat(weights)


def evaluate(
    net: LabelPriorNet, pixels: Pixels, maps: Maps, chosen: Sequence[int], informed: bool
) -> float:
    """Mean bytes per chosen map, over all of its pixels."""
    total = 0.0
    with torch.no_grad():
        for i in chosen:
            planes = torch.from_numpy(maps.planes[maps.picture[i]][:1])
            dense = net.features(planes)[0] if informed else None
            around = pixels.around(i)
            target = pixels.maps[i][pixels.centres].long()
            for part in torch.arange(len(target)).split(16384):
                y, x = part // pixels.width, part % pixels.width
                features = None if dense is None else dense[y, x]
                row, column = y * BANDS // pixels.height, x * BANDS // pixels.width
                logits = net(around[part].long(), row, column, features)
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
            _begin(network, options.init)
        self.network: LabelPriorNet = network
        self.optimizer = Optimizer(
            [{"params": list(network.parameters()), "lr": options.lr}],
            schedule=Schedule(warmup=100, floor=0.01),
            weight_decay=1e-4,
            clip=2.0,
        )
        self.optimizers = {"network": self.optimizer}
        labels = self.data.labels
        self.pools = [Pixels(labels, self.classes), Pixels(labels[:, :, ::-1].copy(), self.classes)]
        """Maps, and their mirror images."""
        self.judged = Pixels(self.val.labels, self.classes)

    def step(self, number: int) -> dict[str, Tensor]:
        options, maps = self.options, self.options.batch
        g = torch.Generator().manual_seed(step_seed(options, number))
        rng = np.random.default_rng((options.seed, 1, number))
        batch = rng.choice(len(self.data.labels), maps, p=self.data.weight)
        flips = rng.integers(0, 2, maps)
        drawn = [
            self.pools[m].draw(i, g, options.busy, options.calm)
            for i, m in zip(batch, flips, strict=True)
        ]
        chosen = torch.cat([d[0] for d in drawn])
        around, target, weight = (torch.cat([d[k] for d in drawn]) for k in (1, 2, 3))
        height, width = self.judged.height, self.judged.width
        y, x = chosen // width, chosen % width
        features, aux = None, torch.zeros((), device=self.device)
        around, target, weight, y, x = (t.to(self.device) for t in (around, target, weight, y, x))
        if options.coarse:
            quality = rng.integers(len(VIEWS), size=maps)
            planes = torch.from_numpy(self.data.planes[self.data.picture[batch], quality])
            view = torch.stack([p.flip(-1) if m else p for p, m in zip(planes, flips, strict=True)])
            with autocast(self.device):
                dense = self.network.features(view).float()
            mirrored = torch.from_numpy(flips)
            index = torch.repeat_interleave(
                torch.arange(maps), torch.tensor([len(d[0]) for d in drawn])
            )
            # The grid of a flipped picture starts 4⌈W/4⌉ - W pixels off.
            shift = (mirrored[index] * (dense.shape[2] - width)).to(self.device)
            features = dense[index.to(self.device), y, x + shift]
            # An auxiliary loss makes the features tell the class alone, at pixels of all kinds.
            yy = torch.randint(0, height, (4096,), generator=g)
            xx = torch.randint(0, width, (4096,), generator=g)
            which = torch.randint(0, maps, (4096,), generator=g)
            seen = dense[which, yy, xx + mirrored[which] * (dense.shape[2] - width)]
            truth = torch.stack([self.pools[m].maps[i] for i, m in zip(batch, flips, strict=True)])
            at = (yy + PAD) * self.judged.stride + xx + PAD
            aux = F.cross_entropy(self.network.aux(seen), truth[which, at].long().to(self.device))
        logits = self.network(around, y * BANDS // height, x * BANDS // width, features)
        bits = (F.cross_entropy(logits, target, reduction="none") * weight).sum() / math.log(2)
        bytes_per_map = bits / 8 / maps
        norm = self.optimizer.minimise(bytes_per_map / 500 + 0.3 * aux)
        return {"bytes": bytes_per_map, "aux": aux, "norm": norm}

    def validate(self, state: dict[str, Tensor], sheet: Path) -> dict[str, float]:
        chosen = range(0, self.judged.count, max(1, self.judged.count // 10))
        size = evaluate(self.averaged(state), self.judged, self.val, chosen, self.options.coarse)
        return {"val_bytes": size}

    def about(self) -> dict[str, Any]:
        return {"classes": self.classes, "coarse": self.options.coarse}


def _begin(net: LabelPriorNet, path: Path) -> None:
    """Fill a network with the weights of a run (.safetensors) or with those that a label model
    (.npz) has. Raises ModelError."""
    if path.suffix == ".npz":
        found = restored(prior.load(path))
    else:
        found = {k: v.float() for k, v in load_tensors(path, LabelPriorNet.kind)[0].items()}
    own = net.state_dict()
    for name, value in found.items():
        if name in own and own[name].shape != value.shape:
            raise ModelError(f"{path} is for another number of classes")
    net.load_state_dict(found, strict=False)
