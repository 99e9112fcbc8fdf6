"""Connected regions of a map."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sempic.compiling import kernel


def components(labels: npt.NDArray[np.uint8], *, corners: bool = False) -> npt.NDArray[np.int64]:
    """The number of each pixel's region, int64 (H, W); first pixels of regions are in order.

    A region is connected pixels of one id of a map, uint8 (H, W).
    corners: pixels that share only a corner are connected, too.
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
    """Union-find over rows.

    parent: first each pixel's own index, at the end the number of its region.
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
    for i in range(parent.size):  # a root precedes the pixels that point to it
        if parent[i] == i:
            parent[i] = -1 - count
            count += 1
        else:
            parent[i] = parent[parent[i]]
    for i in range(parent.size):
        parent[i] = -1 - parent[i]
