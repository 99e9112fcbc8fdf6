"""Crops for a training step, cut on the device from pictures that lie there as bytes.

What is drawn for a step, a few numbers for each crop, depends on the seed and the step alone; it is
drawn on the host and sent over at once. Pixels never leave the device.
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
from sempic.training.data.corpus import GRID, Corpus, Measured, Sample, said_of
from sempic.training.data.pool import RARE_RATE, Pool, draw_spot, spots_of
from sempic.training.device import to_device

AS_SENT, OF_ALL = 0.6, 0.25
"""Shares of the crops of which a receiver is told the texture as senders say it, and of all
classes; of the others nothing."""


class Drops(NamedTuple):
    """How often a map is not to be trusted, by picture of a batch."""

    whole: float = 0.1
    """All of it is void."""
    region: float = 0.0
    """Part of one of its regions is void."""
    wrong: float = 0.0
    """Part of one of its regions has the labels of another picture there."""


class Batch(NamedTuple):
    image: Tensor
    """float (B, 3, H, W) in [-1, 1]."""
    coarse: Tensor
    """float (B, 3, H / 4, W / 4) in [-1, 1]."""
    labels: Tensor
    """uint8 (B, H, W), as the receiver is given them; `classes` and more is void."""
    texture: Tensor
    """float (B, CONDITION, H / 4, W / 4), what is said of it (`sempic.texture.condition`)."""
    strength: Tensor
    """float (B, 1, H, W), of the noise it is made of (`sempic.texture.noise`)."""
    truth: Tensor
    """uint8 (B, H, W), the first map of each picture, with nothing dropped."""


class Crops:
    """Endless batches of crops of a corpus, which lies in device memory."""

    def __init__(
        self,
        corpus: Corpus,
        *,
        size: tuple[int, int],
        device: torch.device,
        drops: Drops,
        samples: Sequence[Sample] | None = None,
    ) -> None:
        """`samples` of the corpus, default: all that are not for validation. Those that are smaller
        than `size`, (height, width), are left out; raises InputError if that leaves none."""
        if size[0] % GRID or size[1] % GRID:
            raise InputError(f"a crop of {size[0]}×{size[1]} is not a multiple of {GRID}")
        chosen = corpus.part(judged=False) if samples is None else samples
        chosen = [s for s in chosen if s.image.shape[0] >= size[0] and s.image.shape[1] >= size[1]]
        if not chosen:
            raise InputError(f"no picture of the corpus is as large as a crop of {size}")
        self.size, self.drops, self.device = size, drops, device
        self.void = corpus.taxonomy.classes
        self.images = Pool([s.image for s in chosen], device)
        self.maps = Pool([m for s in chosen for m in s.maps], device)
        self.coarse = Pool([c for s in chosen for c in s.coarse], device)
        self._maps = _ranges([len(s.maps) for s in chosen])
        self._first = np.array([first for first, _ in self._maps])
        self._coarse = _ranges([len(s.coarse) for s in chosen])
        rare = corpus.taxonomy.ids(sorted(corpus.taxonomy.rare))
        self._told = _Told(chosen, self.void)
        self._unsaid = texture.usual(corpus.taxonomy.palette)[: self.void + 1]
        self._spots = [spots_of(m, rare) for s in chosen for m in s.maps]
        names = sorted({s.source for s in chosen})
        weights = np.array([corpus.weights[name] for name in names], float)
        self._shares = weights / weights.sum()
        self._of = [np.array([i for i, s in enumerate(chosen) if s.source == n]) for n in names]

    def plan(self, seed: int, step: int, batch: int) -> npt.NDArray[np.int64]:
        """What is cut for a step, (B, 6): image, map, coarse picture, top, left, mirrored."""
        rng = np.random.default_rng((seed, step))
        sources = rng.choice(len(self._shares), batch, p=self._shares)
        draws = rng.random((batch, 6))
        seeks = rng.random(batch) < RARE_RATE
        plan = np.empty((batch, 6), np.int64)
        for row, (source, draw) in enumerate(zip(sources, draws, strict=True)):
            of = self._of[source]
            number = int(of[int(draw[0] * len(of))])
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
        """The crops of a step, the same for the same seed.

        Half of them are lit otherwise, the coarse picture with them: few drives have few lights.
        """
        plan = self.plan(seed, step, batch)
        top, left, mirror = plan[:, 3], plan[:, 4], plan[:, 5]
        best = self._first[plan[:, 0]]
        windows = np.concatenate(
            [
                _window(self.images, plan[:, 0], top, left, mirror),
                _window(self.maps, plan[:, 1], top, left, mirror),
                _window(self.maps, best, top, left, mirror),
                _window(self.coarse, plan[:, 2], top // PATCH, left // PATCH, mirror),
            ],
            1,
        )
        rng = np.random.default_rng((seed, step, 1))
        light = rng.uniform(-0.25, 0.25, (batch, 1)) + rng.uniform(-0.08, 0.08, (batch, 3))
        light *= rng.random((batch, 1)) < 0.5
        gains = to_device(np.exp(light).astype(np.float32), self.device)[:, :, None, None]
        cuts = to_device(windows, self.device)
        small = self.size[0] // PATCH, self.size[1] // PATCH
        image = to_unit(self.images.cut(cuts[:, 0:5], self.size))
        coarse = to_unit(self.coarse.cut(cuts[:, 15:20], small))
        image, coarse = (((part + 1) * gains - 1).clamp(-1, 1) for part in (image, coarse))
        labels, truth = (self.maps.cut(cuts[:, k : k + 5], self.size) for k in (5, 10))
        labels, without = drop(labels, self.void, self.drops, rng)
        told = self._told.draw(plan[:, 1], plan[:, 0], without, light.mean(1), rng)
        return Batch(image, coarse, labels, *of_texture(told, self._unsaid, labels), truth)


class _Told:
    """What is said of texture, for every map of every sample, and of samples without one."""

    def __init__(self, samples: Sequence[Sample], void: int) -> None:
        self.void = void
        self._first = sum(len(s.maps) for s in samples)
        with_map = [t for s in samples for t in (s.textures or [{}] * (len(s.maps) + 1))[:-1]]
        without = [s.textures[-1] if s.textures else {} for s in samples]
        self._of: list[Measured] = [*with_map, *({void: t[0]} if t else {} for t in without)]

    def draw(
        self,
        maps: npt.NDArray[np.int64],
        samples: npt.NDArray[np.int64],
        without: npt.NDArray[np.bool_],
        light: npt.NDArray[np.float64],
        rng: np.random.Generator,
    ) -> npt.NDArray[np.float32]:
        """Tables, (B, void + 1, CONDITION), for crops of these samples with these of all maps, or
        without any, lit by e to the power of `light`: as senders say it, of all classes, or
        nothing."""
        tables = []
        for map_, sample, none, how in zip(
            maps, samples, without, rng.random(len(maps)), strict=True
        ):
            of = self._of[self._first + sample if none else map_]
            said = said_of(of, wholly=how >= AS_SENT) if how < AS_SENT + OF_ALL else {}
            tables.append(texture.condition(said)[: self.void + 1])
        found = np.stack(tables)
        # A brighter picture's texture is stronger (`LEVELS`), by as many quarters of an octave.
        found[..., 1:3] += found[..., :1] * (light / np.log(2) / 4)[:, None, None].astype(
            np.float32
        )
        return found


def of_texture(
    told: npt.NDArray[np.float32], unsaid: npt.NDArray[np.float32], labels: Tensor
) -> tuple[Tensor, Tensor]:
    """What is said of each patch's class, float (B, CONDITION, H / 4, W / 4), and how strong each
    pixel's noise is, float (B, 1, H, W).

    Args:
        told: (B, classes + 1, CONDITION), a table for each map, `sempic.texture.condition`; the
            last of its ids is void.
        unsaid: (classes + 1,), `sempic.texture.usual`.
        labels: uint8 (B, H, W); what is more than void is void, too.
    """
    ids = labels.long().clamp_max(len(unsaid) - 1)
    noise = to_device(texture.noise(told, unsaid), labels.device)
    strength = noise.gather(1, ids.flatten(1)).reshape(ids.shape)[:, None]
    middle = ids[:, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH]
    batch, rows, columns = middle.shape
    index = middle.flatten(1)[:, :, None].expand(-1, -1, told.shape[2])
    said = to_device(told, labels.device).gather(1, index).transpose(1, 2)
    return said.reshape(batch, told.shape[2], rows, columns), strength


def drop(
    labels: Tensor, void: int, drops: Drops, rng: np.random.Generator
) -> tuple[Tensor, npt.NDArray[np.bool_]]:
    """Maps, uint8 (B, H, W), of which some are made void or wrong, whole or in part (`Drops`); and
    which of them are void as a whole.

    A part is what a rectangle, of a quarter to three quarters of the sides, cuts out of the class
    at its centre; what is wrong there comes from the next picture of the batch.
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
            y = torch.arange(height, device=labels.device)[:, None]
            x = torch.arange(width, device=labels.device)
            inside = (y >= box[:, 0]) & (y < box[:, 2]) & (x >= box[:, 1]) & (x < box[:, 3])
            centre = (box[:, 4, 0, 0] * width + box[:, 5, 0, 0])[:, None]
            here = labels.flatten(1).gather(1, centre)[:, :, None]
            region = inside & (labels == here) & (box[:, 6] == 1)
            other = labels.roll(1, 0) if kind == 2 else torch.full_like(labels, void)
            labels = torch.where(region, other, labels)
    whole = to_device(dropped[:, 0], labels.device)[:, None, None]
    return labels.masked_fill(whole, void), dropped[:, 0]


def _window(
    pool: Pool,
    numbers: npt.NDArray[np.int64],
    top: npt.NDArray[np.int64],
    left: npt.NDArray[np.int64],
    mirror: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """The plan of `Pool.cut`, (B, 5)."""
    return np.stack([pool.starts[numbers], pool.widths[numbers], top, left, mirror], 1)


def _ranges(counts: Sequence[int]) -> list[tuple[int, int]]:
    """First and count of each of several runs."""
    firsts = np.cumsum([0, *counts[:-1]])
    return [(int(first), count) for first, count in zip(firsts, counts, strict=True)]
