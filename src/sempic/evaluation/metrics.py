"""Figures without networks: arrays in, numbers out. Pictures are uint8 (H, W, 3)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sempic.errors import InputError
from sempic.scene import Image, LabelMap

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def psnr(a: Image, b: Image) -> float:
    """Peak signal-to-noise ratio over all RGB samples, in dB; infinite for equal pictures."""
    error = np.square(a.astype(np.float64) - b).mean()
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def ms_ssim(a: Image, b: Image) -> float:
    """Multi-scale structural similarity (Wang et al. 2003) of RGB, 1 for equal pictures.

    NaN if the short side is below 176 pixels: the coarsest of the five scales would be smaller than
    the window of 11 pixels.
    """
    if min(a.shape[:2]) < 176:
        return float("nan")
    import torch
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure as measure,
    )

    x, y = (torch.from_numpy(p.transpose(2, 0, 1)[None] / np.float32(255)) for p in (a, b))
    return float(measure(x, y, data_range=1.0, normalize="relu"))


def confusion(truth: LabelMap, guess: LabelMap, classes: int) -> Counts:
    """Pixels by true class (rows) and guessed class, int64 (classes, classes + 1).

    True ids from `classes` on are void and not counted. Guessed ids from `classes` on count in the
    last column, as wrong.
    """
    known = truth < classes
    found = np.minimum(guess[known].astype(np.int64), classes)  # 256 is no uint8
    index = truth[known].astype(np.int64) * (classes + 1) + found
    return np.bincount(index, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def iou(matrix: Counts) -> Floats:
    """Intersection over union of each class, float (classes,); NaN for a class in neither map."""
    inter = np.diag(matrix).astype(np.float64)
    union = matrix.sum(1) + matrix[:, : len(matrix)].sum(0) - inter
    return np.divide(inter, union, out=np.full(len(matrix), np.nan), where=union > 0)


def miou(matrix: Counts) -> float:
    """Mean of `iou` over the classes that occur; NaN for empty maps."""
    scores = iou(matrix)
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")


def pixel_accuracy(matrix: Counts) -> float:
    """Share of pixels with the right class; NaN for no pixels."""
    return float(np.trace(matrix) / matrix.sum()) if matrix.sum() else float("nan")


def frechet(a: Floats, b: Floats) -> float:
    """Fréchet distance of two Gaussians fitted to features (N, D) (Heusel et al. 2017, eq. 6).

    With centred and scaled features A and B, the trace of (AᵀA BᵀB)^½ is the sum of the singular
    values of A Bᵀ, an (N, N) matrix. If N > D, the triangles of the QR decompositions replace A and
    B: AᵀA and BᵀB stay the same, and the matrix is (D, D).

    Raises InputError for fewer than two pictures.
    """
    if min(len(a), len(b)) < 2:
        raise InputError("FID needs two pictures or more")
    centred = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b)]
    centred = [np.linalg.qr(x, mode="r") if len(x) > x.shape[1] else x for x in centred]
    cross = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    traces = sum(np.square(x).sum() for x in centred)
    found = np.square(a.mean(0) - b.mean(0)).sum() + traces - 2 * cross
    return max(0.0, float(found))  # rounding may give -1e-14


def kernel_distance(a: Floats, b: Floats) -> float:
    """Kernel inception distance (Bińkowski et al. 2018) of features (N, D), cubic kernel.

    The unbiased estimate over all pictures, without subsets; may be negative. Raises InputError for
    fewer than two pictures.
    """
    if min(len(a), len(b)) < 2:
        raise InputError("KID needs two pictures or more")

    def kernel(x: Floats, y: Floats) -> Floats:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Floats) -> float:
        values = kernel(x, x)
        return float((values.sum() - np.trace(values)) / (len(x) * (len(x) - 1)))

    return within(a) + within(b) - 2 * float(kernel(a, b).mean())


def bootstrap(
    values: npt.NDArray[np.float64] | Counts, statistic: Callable[[Any], float] | None = None
) -> tuple[float, float]:
    """95 % confidence interval of a statistic, by percentile bootstrap (1000 rounds, fixed seed).

    Args:
        values: (N, …), the contribution of each picture.
        statistic: sum over the drawn pictures → float; None: the mean.
    """
    rng = np.random.default_rng(0)
    count = len(values)
    found = []
    for _ in range(1000):
        weights = np.bincount(rng.integers(0, count, count), minlength=count)
        total = np.tensordot(weights, values, 1)
        found.append(float(total) / count if statistic is None else statistic(total))
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)


def bd_rate(
    anchor: Sequence[tuple[float, float]],
    test: Sequence[tuple[float, float]],
    *,
    falling: bool = False,
) -> float | None:
    """Bjøntegaard's mean difference in rate at equal quality, in per cent; below 0 saves bits.

    Args:
        anchor, test: (bpp, quality) of each operating point.
        falling: whether lower quality figures are better (FID, LPIPS).

    None if a curve has fewer than two points with rising quality, or the curves do not overlap.
    """
    from bjontegaard import bd_rate as measure

    curves = []
    for curve in (anchor, test):
        rising = _rising([(r, -q if falling else q) for r, q in curve])
        if len(rising) < 2:
            return None
        curves += [[r for r, _ in rising], [q for _, q in rising]]
    if min(curves[1][-1], curves[3][-1]) <= max(curves[1][0], curves[3][0]):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about small overlap
        found = measure(*curves, method="pchip", require_matching_points=False, min_overlap=0)
    return float(found) if np.isfinite(found) else None


def at_rate(curve: Sequence[tuple[float, float]], bpp: float) -> float | None:
    """The figure at a rate, interpolated linearly in log(bpp) between the points of a curve.

    None if the rate is outside the curve by more than 2 %.
    """
    points = sorted(curve)
    if not points or not points[0][0] * 0.98 <= bpp <= points[-1][0] * 1.02:
        return None
    rates = [np.log(r) for r, _ in points]
    return float(np.interp(np.log(bpp), rates, [q for _, q in points]))


def _rising(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points by rising rate, without those that are no better than a cheaper one."""
    ordered = sorted(points)
    return [p for i, p in enumerate(ordered) if all(p[1] > q for _, q in ordered[:i])]
