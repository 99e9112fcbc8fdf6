"""Pictures and maps of any size in device memory, and the places of rare classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sempic.training.device import to_device

RARE_RATE = 0.5
"""Share of the crops that are placed around a rare class, if the map has one."""
_SPOTS = 48
"""Number of places that are stored per map and rare class."""


class Pool:
    """Arrays of any height and width, uint8 (H, W) or (H, W, C), in one tensor on the device."""

    def __init__(self, arrays: Sequence[npt.NDArray[np.uint8]], device: torch.device) -> None:
        self.heights = np.array([a.shape[0] for a in arrays])
        self.widths = np.array([a.shape[1] for a in arrays])
        self.starts = np.cumsum([0, *(self.heights * self.widths)[:-1]])
        channels = arrays[0].shape[2:]
        flat = np.concatenate([array.reshape(-1, *channels) for array in arrays])
        self.flat = torch.from_numpy(flat).to(device)

    def cut(self, plan: npt.NDArray[np.int64], size: tuple[int, int]) -> Tensor:
        """Crops, uint8 (B, h, w) or (B, h, w, C).

        Args:
            plan: int64 (B, 4): number of the array; top and left of the crop, which must lie
                inside; 1 for a mirrored crop, else 0.
        """
        number, *place = plan.T
        columns = np.stack([self.starts[number], self.widths[number], *place])
        device = self.flat.device
        start, width, top, left, mirror = to_device(columns, device)[:, :, None]
        y, x = (torch.arange(side, device=device) for side in size)
        x = torch.where(mirror == 1, size[1] - 1 - x, x)
        return self.take(start + (top + y) * width + left, x)

    def take(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Pixels, uint8 (B, h, w) or (B, h, w, C), at the sums of `rows`, int64 (B, h), where array
        rows start in the pool, and `columns`, int64 (B, w)."""
        index = rows[:, :, None] + columns[:, None, :]
        taken = self.flat.index_select(0, index.flatten())
        return taken.reshape(*index.shape, *self.flat.shape[1:])


Spots = list[npt.NDArray[np.int16]]
"""Places of rare classes in a map: for each class int16 (N ≤ _SPOTS, 2), rows and columns."""


def draw_spot(spots: Spots, rng: np.random.Generator) -> tuple[int, int]:
    """A random place of a random class."""
    places = spots[rng.integers(len(spots))]
    row, column = places[rng.integers(len(places))]
    return int(row), int(column)


def spots_of(labels: npt.NDArray[np.uint8], rare: Sequence[int], grid: int = 4) -> Spots:
    """Places of the rare ids in a map, searched on a grid."""
    small = labels[::grid, ::grid]
    counts = np.bincount(small.ravel(), minlength=256)
    found = []
    for number in rare:
        if counts[number]:
            at = np.argwhere(small == number) * grid
            found.append(at[:: max(1, len(at) // _SPOTS)][:_SPOTS].astype(np.int16))
    return found
