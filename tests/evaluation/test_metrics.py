"""Metrics agree with independent implementations or with values worked out by hand."""

import numpy as np
import pytest
import scipy.linalg

from sempic.errors import InputError
from sempic.evaluation import metrics


def test_psnr_is_that_of_the_formula():
    a = np.full((8, 8, 3), 100, np.uint8)
    b = a.copy()
    b[..., 0] += 3
    assert metrics.psnr(a, b) == pytest.approx(10 * np.log10(255**2 / 3))
    assert metrics.psnr(a, a) == np.inf
    assert metrics.psnr(np.full_like(a, 0), np.full_like(a, 255)) == 0  # no wrap-around


def test_ms_ssim_falls_with_noise():
    y, x = np.mgrid[0:176, 0:180]
    a = np.stack([x, y, (x + y) // 2], -1).astype(np.uint8)
    noise = np.random.default_rng(0).normal(size=a.shape)
    noisy = [np.clip(a + sigma * noise, 0, 255).astype(np.uint8) for sigma in (10, 40)]
    assert metrics.ms_ssim(a, a) == pytest.approx(1)
    assert 1 > metrics.ms_ssim(a, noisy[0]) > metrics.ms_ssim(a, noisy[1]) > 0
    assert np.isnan(metrics.ms_ssim(a[:160], a[:160]))
    assert np.isnan(metrics.ms_ssim(a[:175], a[:175]))
    assert metrics.ms_ssim(a[:176], a[:176]) == pytest.approx(1)


def test_confusion_iou_and_accuracy_are_those_of_the_formulas():
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(0, 4, (2, 30, 40), dtype=np.uint8)  # 3 is void
    matrix = metrics.confusion(truth, guess, 3)
    assert matrix.shape == (3, 4)
    known = truth != 3
    for c in range(3):
        both = (truth == c) & (guess == c)
        either = ((truth == c) | (guess == c)) & known
        assert metrics.iou(matrix)[c] == pytest.approx(both.sum() / either.sum())
    assert metrics.pixel_accuracy(matrix) == pytest.approx((truth == guess)[known].mean())
    assert metrics.miou(matrix) == pytest.approx(metrics.iou(matrix).mean())


def test_all_256_ids_may_be_classes():
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert metrics.miou(metrics.confusion(ids, ids, 256)) == 1


def test_absent_classes_do_not_count():
    truth = np.zeros((4, 4), np.uint8)
    matrix = metrics.confusion(truth, truth, 3)
    assert np.isnan(metrics.iou(matrix)[1])
    assert metrics.miou(matrix) == 1
    nothing = metrics.confusion(np.full((2, 2), 3, np.uint8), truth[:2, :2], 3)
    assert np.isnan(metrics.miou(nothing))
    assert np.isnan(metrics.pixel_accuracy(nothing))


@pytest.mark.parametrize("sizes", [(300, 200), (12, 15)])
def test_fid_is_that_of_the_formula(sizes):
    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=(n, 64)) @ rng.normal(size=(64, 64)) + i for i, n in enumerate(sizes))
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    means = np.square(a.mean(0) - b.mean(0)).sum()
    expected = means + np.trace(covariances[0] + covariances[1] - 2 * np.real(root))
    assert metrics.frechet(a, b) == pytest.approx(expected, rel=1e-3)
    assert metrics.frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert all(metrics.frechet(x[:n], x[:n]) >= 0 for x in (a, b) for n in range(2, 12))


@pytest.mark.parametrize("distance", [metrics.frechet, metrics.kernel_distance])
def test_fid_and_kid_of_one_picture_are_errors(distance):
    with pytest.raises(InputError, match="two pictures"):
        distance(np.zeros((1, 4)), np.zeros((5, 4)))
    assert np.isfinite(distance(np.eye(2, 4), np.eye(2, 4)))


@pytest.mark.parametrize("sizes", [(9, 9), (9, 6)])
def test_kid_is_that_of_the_formula(sizes):
    rng = np.random.default_rng(2)
    a, b = (rng.normal(i / 2, 1, size=(n, 16)) for i, n in enumerate(sizes))

    def kernel(x, y):
        return (x @ y / 16 + 1) ** 3

    same = [
        np.mean([kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j])
        for s in (a, b)
    ]
    expected = sum(same) - 2 * np.mean([kernel(x, y) for x in a for y in b])
    assert metrics.kernel_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_bootstrap_intervals_have_the_width_of_the_normal():
    values = np.random.default_rng(3).normal(5, 2, 400)
    low, high = metrics.bootstrap(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 2 / np.sqrt(400), rel=0.2)
    assert metrics.bootstrap(values) == (low, high)  # the same each time
    assert all(metrics.bootstrap(only)[1] > 0.2 for only in np.eye(5))  # each picture is drawn
    matrices = np.tile(np.eye(2, 3, dtype=np.int64), (10, 1, 1))
    assert metrics.bootstrap(matrices, metrics.miou) == (1, 1)


def test_bd_rate_is_the_mean_saving():
    curve = [(0.1, 20.0), (0.2, 24.0), (0.4, 27.0), (0.8, 29.0)]
    cheaper = [(0.8 * rate, quality) for rate, quality in curve]
    assert metrics.bd_rate(curve, cheaper) == pytest.approx(-20)
    assert metrics.bd_rate(cheaper, curve) == pytest.approx(25)
    fid = [(rate, 300 - 5 * quality) for rate, quality in curve]
    fid_cheaper = [(rate, 300 - 5 * quality) for rate, quality in cheaper]
    assert metrics.bd_rate(fid, fid_cheaper, falling=True) == pytest.approx(-20)
    assert metrics.bd_rate(curve, [(r, q + 50) for r, q in curve]) is None  # no common quality
    assert metrics.bd_rate(curve, curve[:1]) is None


def test_at_rate_interpolates_and_does_not_extrapolate():
    curve = [(0.4, 30.0), (0.1, 20.0)]
    assert metrics.at_rate(curve, 0.2) == pytest.approx(25)
    assert metrics.at_rate(curve, 0.4) == 30
    assert metrics.at_rate(curve, 0.099) == 20
    assert metrics.at_rate(curve, 0.09) is None
    assert metrics.at_rate(curve, 0.5) is None
    assert metrics.at_rate([], 0.5) is None
