"""The figures themselves: arrays in, numbers out, no weights. Pictures are uint8 (H, W, 3)."""

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


def ms_ssim(a: Image, b: Image) -> float | None:
    """Multi-scale structural similarity (Wang et al. 2003) of RGB, 1 for equal pictures.

    None where the shorter side is at most 160 pixels: the coarsest of its five scales would be
    smaller than its window.
    """
    if min(a.shape[:2]) <= 160:
        return None
    import torch
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure as measure,
    )

    x, y = (torch.from_numpy(p.transpose(2, 0, 1)[None] / np.float32(255)) for p in (a, b))
    return float(measure(x, y, data_range=1.0, normalize="relu"))


def confusion(truth: LabelMap, guess: LabelMap, classes: int) -> Counts:
    """Pixels by true class (rows) and guessed class, int64 (classes, classes + 1).

    Pixels whose true id is `classes` or more are void and left out; guesses like that count as
    wrong, in the last column.
    """
    known = truth < classes
    found = np.minimum(guess[known], classes).astype(np.int64)
    index = truth[known].astype(np.int64) * (classes + 1) + found
    return np.bincount(index, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def iou(matrix: Counts) -> Floats:
    """Intersection over union of each class, float (classes,); NaN for a class in neither map."""
    inter = np.diag(matrix).astype(np.float64)
    union = matrix.sum(1) + matrix[:, : len(matrix)].sum(0) - inter
    return np.divide(inter, union, out=np.full(len(matrix), np.nan), where=union > 0)


def miou(matrix: Counts) -> float:
    """Mean of `iou` over the classes that occur; NaN if none does."""
    scores = iou(matrix)
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")


def pixel_accuracy(matrix: Counts) -> float:
    """Share of pixels with the right class; NaN for no pixels."""
    return float(np.trace(matrix) / matrix.sum()) if matrix.sum() else float("nan")


def frechet(a: Floats, b: Floats) -> float:
    """Fréchet distance of two Gaussians fitted to features (N, D) (Heusel et al. 2017, eq. 6).

    With centred and scaled features A and B, the trace of (AᵀA BᵀB)^½ is the sum of the singular
    values of A Bᵀ, which is as small as the number of pictures. Of more pictures than features, A
    and B are the triangles of their QR decompositions, which have the same AᵀA and BᵀB.
    """
    if min(len(a), len(b)) < 2:
        raise InputError("FID needs two pictures or more")
    centred = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b)]
    centred = [np.linalg.qr(x, mode="r") if len(x) > x.shape[1] else x for x in centred]
    cross = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    traces = sum(np.square(x).sum() for x in centred)
    return float(np.square(a.mean(0) - b.mean(0)).sum() + traces - 2 * cross)


def kernel_distance(a: Floats, b: Floats) -> float:
    """Kernel inception distance (Bińkowski et al. 2018) of features, cubic kernel.

    Both are (N, D), of equally many pictures. The unbiased estimate over all pictures at once, no
    subsets; it can be below 0.
    """
    import torch
    from torchmetrics.image.kid import poly_mmd

    return float(poly_mmd(torch.from_numpy(a), torch.from_numpy(b)))


def bootstrap(
    values: npt.NDArray[np.float64] | Counts,
    statistic: Callable[[Any], float] | None = None,
) -> tuple[float, float]:
    """95 % confidence interval of a statistic of the sum over pictures (percentile bootstrap of
    1000 rounds, always the same).

    Args:
        values: (N, …), what each picture adds.
        statistic: sum over the drawn pictures → float; None: their mean.
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
        falling: whether less of the quality figure is better (FID, LPIPS).

    None where there is nothing to compare: fewer than two points with rising quality, or no
    stretch of quality that both curves reach.
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
        warnings.simplefilter("ignore")  # about small overlap, which the caller's table shows
        found = measure(*curves, method="pchip", require_matching_points=False, min_overlap=0)
    return float(found) if np.isfinite(found) else None


def at_rate(curve: Sequence[tuple[float, float]], bpp: float) -> float | None:
    """The figure at a rate, on the straight lines in log(bpp) between the points of a curve.

    None outside the rates of the curve, but for 2 % on either side.
    """
    points = sorted(curve)
    if not points or not points[0][0] * 0.98 <= bpp <= points[-1][0] * 1.02:
        return None
    rates = [np.log(r) for r, _ in points]
    return float(np.interp(np.log(bpp), rates, [q for _, q in points]))


def _rising(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Sorted by rate, without the points that are no better than a cheaper one."""
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(points):
        if not kept or quality > kept[-1][1]:
            kept.append((rate, quality))
    return kept
