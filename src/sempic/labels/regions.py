"""Connected regions of a map."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sempic.compiling import kernel


def components(labels: npt.NDArray[np.uint8], *, corners: bool = False) -> npt.NDArray[np.int64]:
    """Number of the region that each pixel is in, int64 (H, W), by first pixels from 0 on.

    Regions are equal ids of a map, uint8 (H, W), joined by sides, and by corners if that is said.
    """
    numbers = np.arange(labels.size, dtype=np.int64)
    _join(np.ascontiguousarray(labels), numbers, corners)
    return numbers.reshape(labels.shape)


@kernel
def _root(parent: Any, i: Any) -> Any:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def _join(labels: Any, parent: Any, corners: Any) -> None:
    """Union-find over rows; regions are numbered by their first pixels.

    parent: of each pixel itself; becomes the numbers.
    """
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            here = y * width + x
            if x and labels[y, x - 1] == labels[y, x]:
                parent[here] = _root(parent, here - 1)
            if y:
                for above in range(max(x - corners, 0), min(x + corners, width - 1) + 1):
                    if labels[y - 1, above] == labels[y, x]:
                        a, b = _root(parent, here), _root(parent, here - width + above - x)
                        parent[max(a, b)] = min(a, b)
    count = 0
    for i in range(parent.size):  # roots come before what points to them
        if parent[i] == i:
            parent[i] = -1 - count
            count += 1
        else:
            parent[i] = parent[parent[i]]
    for i in range(parent.size):
        parent[i] = -1 - parent[i]
