"""The trunk of a prior: exact integers in any order of summation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from threadpoolctl import threadpool_limits

from sempic.labels import prior, trunk
from sempic.labels.payload import WEIGHTS
from sempic.scene import LabelMap


def hidden_by_integers(known: prior.Prior, planes: npt.NDArray[np.uint8]) -> LabelMap:
    """`trunk.convolve` as its specification says: integer convolutions."""

    def conv(i: int, x: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        inputs, outputs, kernel, stride = trunk.LAYERS[i]
        weights, multiplier, bias = known.layers[i]
        w = weights.astype(np.int64).reshape(outputs, kernel, kernel, inputs)
        padded = np.pad(x, ((0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (1, 2))
        sums = np.einsum("ihwkl,okli->ohw", windows[:, ::stride, ::stride], w)
        return (sums * multiplier[:, None, None] + bias[:, None, None] >> 24).clip(0, 255)

    def join(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.concatenate([a.repeat(2, 1).repeat(2, 2)[:, : b.shape[1], : b.shape[2]], b])

    return trunk.trunk(trunk.signed(planes).astype(np.int64), conv, join).astype(np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (16, 21)])
def test_float32_sums_are_exact(size: tuple[int, int]) -> None:
    known = prior.load(WEIGHTS[3])
    planes = np.random.default_rng(3).integers(0, 256, (3, *size), np.uint8)
    assert np.array_equal(trunk.convolve(known.layers, planes), hidden_by_integers(known, planes))


@pytest.mark.parametrize("size", [(130, 9), (49, 21), (48, 5)])
def test_strips_do_not_change_the_result(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = prior.load(WEIGHTS[3])
    assert known.readout is not None
    planes = np.random.default_rng(3).integers(0, 256, (3, *size), np.uint8)
    hidden = trunk.convolve(known.layers, planes)
    scores = trunk.scores(known.layers, known.readout, planes)
    monkeypatch.setattr(trunk, "_STRIP", 1)
    monkeypatch.setattr(trunk, "_AT_ONCE", 1 << 12)  # a few rows
    assert len(list(trunk._strips(known.layers, planes))) == -(-size[0] // trunk._HALO)
    assert np.array_equal(trunk.convolve(known.layers, planes), hidden)
    assert np.array_equal(trunk.scores(known.layers, known.readout, planes), scores)


def test_products_use_one_thread_and_restore_the_thread_count() -> None:
    def threads() -> set[int]:
        return {library.num_threads for library in trunk._blas()}

    with threadpool_limits(2, user_api="blas"):
        with trunk._one_thread():
            assert threads() <= {1}
            with trunk._one_thread():  # as if from another thread
                pass
            assert threads() <= {1}
        assert threads() <= {2}


@pytest.mark.parametrize("number", WEIGHTS)
def test_sums_stay_within_the_exact_range_of_float32(number: int) -> None:
    known = prior.load(WEIGHTS[number])
    assert known.readout is not None
    for weights, multiplier, _ in (*known.layers, known.readout):
        worst = 255 * np.abs(weights).sum(1).max()
        assert worst < 1 << 24
        assert worst * int(multiplier.max()) < 1 << 62
    for field in known.causal:
        assert np.abs(field).max() < 1 << 11


def test_scores_are_the_readout_of_each_pixel() -> None:
    known = prior.load(WEIGHTS[3])
    assert known.readout is not None
    planes = np.random.default_rng(3).integers(0, 256, (3, 5, 7), np.uint8)
    found = trunk.scores(known.layers, known.readout, planes)
    assert found.shape == (12, 20, 28)
    hidden = trunk.convolve(known.layers, planes).astype(np.int64)
    for y, x, v in ((0, 0, 0), (6, 9, 5), (19, 27, 11)):
        output = (4 * (y % 4) + x % 4) * 12 + v
        weights, multiplier, bias = (field[output] for field in known.readout)
        total = int(weights.astype(np.int64) @ hidden[:, y // 4, x // 4]) * int(multiplier)
        assert found[v, y, x] == min(max(total + int(bias) >> 24, 0), 255)


def test_threads_do_not_change_the_result_of_the_trunk() -> None:
    known = prior.load(WEIGHTS[3])
    planes = np.random.default_rng(0).integers(0, 256, (3, 64, 86), np.uint8)
    found = []
    for count in (1, 2):
        with threadpool_limits(count, user_api="blas"):
            found.append(trunk.convolve(known.layers, planes))
    assert np.array_equal(*found)
