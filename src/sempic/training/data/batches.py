"""Batches of crops for a receiver, cut on the device from a corpus in device memory.

The host draws a few numbers per crop, which depend on seed and step alone, and sends them to the
device; pixels stay there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sempic import texture
from sempic.diffusion.sampling import to_unit
from sempic.errors import InputError
from sempic.networks.compact import PATCH
from sempic.training.data.corpus import GRID, Corpus, Measured, Sample, sent_texture
from sempic.training.data.pool import RARE_RATE, Pool, draw_spot, spots_of
from sempic.training.device import to_device

AS_SENT, OF_ALL = 0.6, 0.25
"""Shares of the crops whose texture is given as a sender transmits it, and of all classes; the
other crops come without texture."""


class Drops(NamedTuple):
    """Shares of a batch's maps that are made worse, independently."""

    whole: float
    """The whole map becomes void."""
    region: float
    """Part of a region becomes void."""
    wrong: float
    """Part of a region gets the labels of another picture."""


class Batch(NamedTuple):
    image: Tensor
    """float (B, 3, H, W) in [-1, 1]."""
    coarse: Tensor
    """float (B, 3, H / 4, W / 4) in [-1, 1]."""
    labels: Tensor
    """uint8 (B, H, W), the receiver's input after `drop`; ids from `classes` on are void."""
    texture: Tensor
    """float (B, CONDITION, H / 4, W / 4), the receiver's input (`sempic.texture.condition`)."""
    strength: Tensor
    """float (B, 1, H, W), strength of the noise that sampling starts from
    (`sempic.texture.noise_strength`)."""
    truth: Tensor
    """uint8 (B, H, W), the first map of each picture, before `drop`."""


class Crops:
    """Batches of random crops of a corpus, which is copied to device memory."""

    def __init__(
        self, corpus: Corpus, *, size: tuple[int, int], device: torch.device, drops: Drops
    ) -> None:
        """
        Args:
            size: (height, width) of a crop, multiples of GRID. Smaller samples are left out.

        Raises:
            InputError: a size that is no multiple of GRID, or no sample is large enough.
        """
        if size[0] % GRID or size[1] % GRID:
            raise InputError(f"a crop of {size[0]}×{size[1]} is not a multiple of {GRID}")
        learnt = corpus.part(judged=False)
        chosen = [s for s in learnt if s.image.shape[0] >= size[0] and s.image.shape[1] >= size[1]]
        if not chosen:
            raise InputError(
                f"no picture of the corpus is as large as a crop of {size[0]}×{size[1]}"
            )
        self.size, self.drops, self.device = size, drops, device
        self.void = corpus.taxonomy.classes
        self.images = Pool([s.image for s in chosen], device)
        self.maps = Pool([m for s in chosen for m in s.maps], device)
        self.coarse = Pool([c for s in chosen for c in s.coarse], device)
        self._maps = _ranges([len(s.maps) for s in chosen])
        self._coarse = _ranges([len(s.coarse) for s in chosen])
        rare = corpus.taxonomy.ids(sorted(corpus.taxonomy.rare))
        self._textures = [_measured(s, self.void) for s in chosen]
        self.usual = texture.default_noise(corpus.taxonomy.palette)[: self.void + 1]
        self._spots = [spots_of(m, rare) for s in chosen for m in s.maps]
        names = sorted({s.source for s in chosen})
        weights = np.array([corpus.weights[name] for name in names], float)
        self._shares = weights / weights.sum()
        self._members = [
            np.array([i for i, s in enumerate(chosen) if s.source == name]) for name in names
        ]

    def plan(self, seed: int, step: int, batch: int) -> npt.NDArray[np.int64]:
        """The crops of a step, int64 (B, 6): image, map, coarse picture, top, left, mirrored."""
        rng = np.random.default_rng((seed, step))
        sources = rng.choice(len(self._shares), batch, p=self._shares)
        draws = rng.random((batch, 6))
        seeks = rng.random(batch) < RARE_RATE
        plan = np.empty((batch, 6), np.int64)
        for row, (source, draw) in enumerate(zip(sources, draws, strict=True)):
            members = self._members[source]
            number = int(members[int(draw[0] * len(members))])
            first, count = self._maps[number]
            map_ = first + int(draw[1] * count)
            first, count = self._coarse[number]
            coarse = first + int(draw[2] * count)
            room = (
                (self.images.heights[number] - self.size[0]) // GRID,
                (self.images.widths[number] - self.size[1]) // GRID,
            )
            at = [int(draw[3 + k] * (room[k] + 1)) for k in (0, 1)]
            if seeks[row] and self._spots[map_]:
                spot = draw_spot(self._spots[map_], rng)
                for k in (0, 1):
                    start = int(spot[k] - rng.uniform(0.2, 0.8) * self.size[k]) // GRID
                    at[k] = min(max(0, start), room[k])
            plan[row] = number, map_, coarse, at[0] * GRID, at[1] * GRID, draw[5] < 0.5
        return plan

    def draw(self, seed: int, step: int, batch: int) -> Batch:
        """The batch of a step.

        Half of the crops are made lighter or darker together with their coarse pictures, because
        the drives of a corpus have few kinds of light.
        """
        plan = self.plan(seed, step, batch)
        rng = np.random.default_rng((seed, step, 1))
        light = rng.uniform(-0.25, 0.25, (batch, 1)) + rng.uniform(-0.08, 0.08, (batch, 3))
        light *= rng.random((batch, 1)) < 0.5
        gains = to_device(np.exp(light).astype(np.float32), self.device)[:, :, None, None]
        best = np.column_stack([self._maps[plan[:, 0], 0], plan[:, 3:]])
        at_grid = plan[:, 2:] // (1, PATCH, PATCH, 1)
        small = self.size[0] // PATCH, self.size[1] // PATCH
        image = to_unit(self.images.cut(plan[:, [0, 3, 4, 5]], self.size))
        coarse = to_unit(self.coarse.cut(at_grid, small))
        image, coarse = (((part + 1) * gains - 1).clamp(-1, 1) for part in (image, coarse))
        labels = self.maps.cut(plan[:, [1, 3, 4, 5]], self.size)
        truth = self.maps.cut(best, self.size)
        labels, without = drop(labels, self.void, self.drops, rng)
        tables = self._tables(plan, without, light.mean(1), rng)
        return Batch(image, coarse, labels, *texture_inputs(tables, self.usual, labels), truth)

    def _tables(
        self,
        plan: npt.NDArray[np.int64],
        without: npt.NDArray[np.bool_],
        light: npt.NDArray[np.float64],
        rng: np.random.Generator,
    ) -> npt.NDArray[np.float32]:
        """Tables of `texture.condition`, (B, void + 1, CONDITION): as senders transmit them, of all
        classes, or empty.

        Args:
            plan: of `plan`.
            without: bool (B,), whether the crop comes without a map.
            light: float64 (B,), logarithm of the factor of its brightness.
        """
        found = np.empty((len(plan), self.void + 1, texture.CONDITION), np.float32)
        for row, draw in enumerate(rng.random(len(plan))):
            number, map_ = plan[row, :2]
            measured = self._textures[number][-1 if without[row] else map_ - self._maps[number, 0]]
            sent = sent_texture(measured, wholly=draw >= AS_SENT) if draw < AS_SENT + OF_ALL else {}
            found[row] = texture.condition(sent)[: self.void + 1]
        # Brightness scales texture, whose level (`LEVELS`) counts quarters of an octave.
        shift = (light / np.log(2) / 4)[:, None, None].astype(np.float32)
        found[..., 1:3] += found[..., :1] * shift
        return found


def _measured(sample: Sample, void: int) -> list[Measured]:
    """The textures of a sample with each of its maps, then without a map, where all is void."""
    *of_maps, whole = sample.textures
    return [*of_maps, {void: whole[0]} if whole else {}]


def texture_inputs(
    tables: npt.NDArray[np.float32], usual: npt.NDArray[np.float32], labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Texture planes, float (B, CONDITION, H / 4, W / 4), and noise strength, float (B, 1, H, W).

    Both are of the same levels. A decoder gives the network planes of levels higher by
    `sempic.receive.TEXTURE_OFFSET`, with noise of the stream's own levels.

    Args:
        tables: (B, classes + 1, CONDITION), `sempic.texture.condition` of each map; the last id is
            void.
        usual: (classes + 1,), `sempic.texture.default_noise`.
        labels: uint8 (B, H, W); ids above void are void, too.
    """
    ids = labels.long().clamp_max(len(usual) - 1)
    noise = to_device(texture.noise_strength(tables, usual), labels.device)
    strength = noise.gather(1, ids.flatten(1)).reshape(ids.shape)[:, None]
    middle = ids[:, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH]
    batch, rows, columns = middle.shape
    index = middle.flatten(1)[:, :, None].expand(-1, -1, tables.shape[2])
    planes = to_device(tables, labels.device).gather(1, index).transpose(1, 2)
    return planes.reshape(batch, tables.shape[2], rows, columns), strength


def drop(
    labels: Tensor, void: int, drops: Drops, rng: np.random.Generator
) -> tuple[Tensor, npt.NDArray[np.bool_]]:
    """Maps, uint8 (B, H, W), with random voids and errors (`Drops`), and bool (B,): the maps that
    are wholly void.

    A part of a region is the class at the centre of a random rectangle, within the rectangle; the
    rectangle's sides are 25 % to 75 % of the map's. Wrong labels come from the next map.
    """
    batch, height, width = labels.shape
    dropped = rng.random((batch, 3)) < drops
    if drops.region or drops.wrong:
        for kind in (1, 2):
            shares = rng.uniform(0.25, 0.75, (batch, 2))
            places = rng.random((batch, 2))
            sides = np.array((height, width))
            first = (places * (1 - shares) * sides).astype(np.int64)
            last = first + np.maximum(1, (shares * sides).astype(np.int64))
            middle = (first + last) // 2
            table = np.concatenate([first, last, middle, dropped[:, kind : kind + 1]], 1)
            box = to_device(table.astype(np.int64), labels.device)[:, :, None, None]
            top, left, bottom, right, row, column, chosen = box.unbind(1)
            number, y, x = (torch.arange(n, device=labels.device) for n in labels.shape)
            y, number = y[:, None], number[:, None, None]
            inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
            region = inside & (labels == labels[number, row, column]) & (chosen == 1)
            other = labels.roll(1, 0) if kind == 2 else torch.full_like(labels, void)
            labels = torch.where(region, other, labels)
    whole = to_device(dropped[:, 0], labels.device)[:, None, None]
    return labels.masked_fill(whole, void), dropped[:, 0]


def _ranges(counts: Sequence[int]) -> npt.NDArray[np.int64]:
    """First index and count of consecutive runs, int64 (N, 2)."""
    return np.stack([np.cumsum([0, *counts[:-1]]), counts], 1)
