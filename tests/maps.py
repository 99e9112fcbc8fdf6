"""Label maps: usual, extreme, and unlike those that models are trained on."""

from __future__ import annotations

import numpy as np

from sempic.scene import LabelMap


def stripes(height: int, width: int, *, across: bool) -> LabelMap:
    y, x = np.mgrid[:height, :width]
    return ((x if across else y) % 2).astype(np.uint8)


def scene(height: int = 60, width: int = 90, classes: int = 7, seed: int = 0) -> LabelMap:
    """Blobs: the class of the nearest of random sites, by noisy distances."""
    rng = np.random.default_rng(seed)
    sites = rng.uniform(0, 1, (3 * classes, 2)) * (height, width)
    y, x = np.mgrid[:height, :width]
    far = (y[..., None] - sites[:, 0]) ** 2 + (x[..., None] - sites[:, 1]) ** 2
    return (np.argmin(far + rng.uniform(0, 20, far.shape), -1) % classes).astype(np.uint8)


def noise(height: int, width: int, classes: int) -> LabelMap:
    return np.random.default_rng(1).integers(0, classes, (height, width)).astype(np.uint8)


MAPS = {
    "1x1": np.full((1, 1), 9, np.uint8),
    "one class": np.full((50, 70), 255, np.uint8),
    "1xN": scene(1, 300),
    "Nx1": scene(300, 1),
    "scene": scene(),
    "binary": scene(classes=2),
    "columns": stripes(40, 50, across=True),
    "rows": stripes(40, 50, across=False),
    "checkerboard": stripes(40, 50, across=True) ^ stripes(40, 50, across=False),
    "noise 2": noise(40, 50, 2),
    "noise 5": noise(40, 50, 5),
    "noise 256": noise(70, 90, 256),
    "all ids once": np.arange(256, dtype=np.uint8).reshape(16, 16),
    "two far ids": (stripes(20, 30, across=True) * 255).astype(np.uint8),
}
