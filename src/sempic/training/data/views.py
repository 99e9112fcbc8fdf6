"""Batches of crops at random scales for a segmenter, resampled and degraded on the device.

Resampling follows Pillow: bicubic, with a wider kernel when shrinking. Each crop is multiplied by
one matrix for its rows and one for its columns. Blur and loss of resolution are matrices, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sempic.scene import Image, LabelMap
from sempic.training.data.degrade import degrade
from sempic.training.data.pool import RARE_RATE, Pool, draw_spot, spots_of
from sempic.training.data.taxonomy import GROUP, UNKNOWN, Taxonomy
from sempic.training.device import to_device


class Pictures(NamedTuple):
    """A source's pictures in memory."""

    name: str
    share: float
    """Share of the crops, not normalised."""
    images: list[Image]
    known: list[LabelMap]
    """Known maps (`taxonomy`), one per image."""


def _bicubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -1/2."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def resampling(
    outputs: int,
    inputs: int,
    *,
    first: Tensor,
    start: Tensor,
    step: Tensor,
    count: Tensor,
    length: Tensor,
) -> Tensor:
    """Matrices, float (B, outputs, inputs), that resample rows as Pillow does.

    Args:
        first: (B, 1, 1), number in the source of the first input row.
        start: (B, 1, 1), position in the source where the first output row begins.
        step: (B, 1, 1), source rows per output row.
        count: (B, 1, 1), valid output rows; further ones mirror them.
        length: (B, 1, 1), rows of the source; inputs outside have weight 0.
    """
    number = torch.arange(outputs, device=start.device)[:, None]
    number = torch.where(number < count, number, (2 * count - 1 - number).clamp_min(0))
    source = first + torch.arange(inputs, device=start.device)
    centre = start + (number + 0.5) * step
    weights = _bicubic((source + 0.5 - centre) / step.clamp_min(1))
    weights = weights * ((source >= 0) & (source < length))
    return weights / weights.sum(2, keepdim=True).clamp_min(1e-6)


def blurring(size: int, deviation: Tensor) -> Tensor:
    """Matrices, (B, size, size), that blur rows by Gaussians of standard deviation `deviation`,
    (B, 1, 1)."""
    at = torch.arange(size, device=deviation.device)
    weights = torch.exp(-0.5 * ((at[:, None] - at) / deviation) ** 2)
    return weights / weights.sum(2, keepdim=True)


def coarsening(size: int, small: Tensor) -> Tensor:
    """Matrices, (B, size, size), that shrink rows to `small`, (B, 1, 1), and enlarge them again."""
    zero, full = torch.zeros_like(small), torch.full_like(small, size)
    down = resampling(
        size, size, first=zero, start=zero, step=full / small, count=full, length=full
    )
    up = resampling(size, size, first=zero, start=zero, step=small / full, count=full, length=small)
    return up @ down


class Views:
    """Batches of random crops of several sources, which are copied to device memory."""

    def __init__(
        self,
        sources: Sequence[Pictures],
        taxonomy: Taxonomy,
        *,
        size: tuple[int, int],
        heights: tuple[int, int],
        device: torch.device,
    ) -> None:
        """
        Args:
            size: (height, width) of a crop.
            heights: range of the height to which a whole picture is scaled, log-uniform.
        """
        self.size, self.heights, self.device = size, heights, device
        self.images = Pool([image for s in sources for image in s.images], device)
        self.known = Pool([known for s in sources for known in s.known], device)
        shares = np.array([s.share for s in sources])
        self._shares = shares / shares.sum()
        self._ends = np.cumsum([0] + [len(s.images) for s in sources])
        rare = list(taxonomy.ids(sorted(taxonomy.rare)))
        rare += [GROUP + g for g, row in enumerate(taxonomy.groups) if row[rare].any()]
        self._spots = [spots_of(known, rare, 2) for s in sources for known in s.known]

    def draw(self, seed: int, step: int, batch: int) -> tuple[Tensor, Tensor]:
        """Pictures, float (B, 3, H, W) in [0, 1], and known maps, uint8 (B, H, W)."""
        rng = np.random.default_rng((seed, step))
        rows = np.empty((batch, 2, 3))  # along each axis: start, step, outputs
        plan = np.empty((batch, 4), np.int64)  # start, height, width, mirrored
        for slot in range(batch):
            source = rng.choice(len(self._shares), p=self._shares)
            number = int(rng.integers(*self._ends[source : source + 2]))
            sides = int(self.images.heights[number]), int(self.images.widths[number])
            scale = float(np.exp(rng.uniform(*np.log(np.divide(self.heights, sides[0])))))
            spot = None
            if rng.random() < RARE_RATE and self._spots[number]:
                spot = draw_spot(self._spots[number], rng)
            for axis, side in enumerate(sides):
                extent = self.size[axis] / scale
                if spot is None:
                    at = rng.random() * (side - extent)
                else:
                    at = spot[axis] - rng.uniform(0.2, 0.8) * extent
                start = float(np.clip(at, 0, max(0.0, side - extent)))
                end = min(side, start + extent)
                outputs = min(self.size[axis], max(1, round((end - start) * scale)))
                rows[slot, axis] = start, (end - start) / outputs, outputs
            plan[slot] = self.images.starts[number], *sides, rng.random() < 0.5
        return self._cut(plan, rows, rng), self._labels(plan, rows)

    def _cut(
        self, plan: npt.NDArray[np.int64], rows: npt.NDArray[np.float64], rng: np.random.Generator
    ) -> Tensor:
        start, step, _ = rows.transpose(2, 0, 1)  # (B, 2) each
        reach = 2 * np.maximum(step, 1) + 1
        first = np.floor(start - reach).astype(np.int64)
        ends = np.ceil(start + np.array(self.size) * step + reach)
        window = (ends - first).max(0).astype(int).tolist()
        cut = to_device(np.concatenate([plan, first], 1), self.device)
        offset, height, width, mirror, top, left = (c[:, None] for c in cut.unbind(1))
        y = (top + torch.arange(window[0], device=self.device)).clamp_min(0)
        x = (left + torch.arange(window[1], device=self.device)).clamp_min(0)
        y, x = torch.minimum(y, height - 1), torch.minimum(x, width - 1)
        pixels = self.images.take(offset + y * width, x).flatten(2).float()

        steps = to_device(rows.astype(np.float32), self.device)[..., None, None]
        matrices = []
        for axis, (length, begin) in enumerate(((height, top), (width, left))):
            given = {"first": begin[:, :, None], "length": length[:, :, None]}
            given |= zip(("start", "step", "count"), steps[:, axis].unbind(1), strict=True)
            matrices.append(resampling(self.size[axis], window[axis], **given))
        matrices = self._soften(matrices, rng)
        matrices[1] = torch.where(mirror[:, :, None] == 1, matrices[1].flip(1), matrices[1])
        down = (matrices[0] @ pixels).reshape(len(plan), self.size[0], window[1], 3)
        image = torch.einsum("bhwc,bxw->bchx", down, matrices[1]) / 255
        return degrade(image.clamp(0, 1), rng)

    def _soften(self, matrices: list[Tensor], rng: np.random.Generator) -> list[Tensor]:
        """The resampling matrices, with blur or loss of resolution for some crops."""
        batch = len(matrices[0])
        blurred = np.flatnonzero(rng.random(batch) < 0.2)
        coarse = np.flatnonzero(rng.random(batch) < 0.4)
        deviations = rng.uniform(0.3, 1.5, len(blurred))
        factors = rng.uniform(0.5, 0.9, len(coarse))
        softened = []
        for size, matrix in zip(self.size, matrices, strict=True):
            small = np.maximum(1, np.round(size * factors))
            for change, at, by in ((blurring, blurred, deviations), (coarsening, coarse, small)):
                if len(at):
                    chosen = to_device(at, self.device)
                    column = to_device(by.astype(np.float32), self.device)[:, None, None]
                    changed = change(size, column) @ matrix[chosen]
                    matrix = matrix.index_copy(0, chosen, changed)
            softened.append(matrix)
        return softened

    def _labels(self, plan: npt.NDArray[np.int64], rows: npt.NDArray[np.float64]) -> Tensor:
        """Known maps of the crops, by nearest neighbour; UNKNOWN outside the picture."""
        cut = to_device(plan, self.device)
        offset, height, width, mirror = (c[:, None] for c in cut.unbind(1))
        steps = to_device(rows.astype(np.float32), self.device)
        found = []
        for axis, side in enumerate((height, width)):
            start, step, count = (c[:, None] for c in steps[:, axis].unbind(1))
            number = torch.arange(self.size[axis], device=self.device)[None]
            if axis == 1:
                number = torch.where(mirror == 1, self.size[1] - 1 - number, number)
            at = (start + (number + 0.5) * step).long()
            found.append((torch.minimum(at.clamp_min(0), side - 1), number < count))
        (y, rows_inside), (x, columns_inside) = found
        known = self.known.take(offset + y * width, x)
        inside = rows_inside[:, :, None] & columns_inside[:, None, :]
        return known.masked_fill(~inside, UNKNOWN)
