"""Resized planes match those of Pillow."""

import platform

import numpy as np
import PIL.Image
import pytest

from sempic.segment import fit

SIZES = [
    # classes, rows, columns, share, size
    (19, 48, 64, (1.0, 1.0), (64, 85)),
    (12, 25, 16, (0.9, 0.77), (64, 85)),
    (5, 30, 30, (1.0, 1.0), (30, 30)),
    (3, 40, 50, (1.0, 0.83), (13, 17)),
    (2, 1, 1, (1.0, 1.0), (5, 7)),
]


def by_pillow(plane, share, size):
    box = (0, 0, plane.shape[1] * share[1], plane.shape[0] * share[0])
    how = PIL.Image.Resampling.BILINEAR
    return np.asarray(PIL.Image.fromarray(plane).resize(size[::-1], how, box=box))


@pytest.mark.parametrize(("classes", "rows", "columns", "share", "size"), SIZES)
def test_resized_bytes_are_those_of_pillow(classes, rows, columns, share, size):
    given = np.random.default_rng(0).integers(0, 256, (classes, rows, columns), np.uint8)
    found = fit.enlarge(given, share, size)
    assert np.array_equal(found, np.stack([by_pillow(plane, share, size) for plane in given]))


@pytest.mark.parametrize(("classes", "rows", "columns", "share", "size"), SIZES)
def test_the_best_class_is_that_of_pillow(classes, rows, columns, share, size):
    # Few levels make ties; the first of the best classes wins.
    levels = np.random.default_rng(0).integers(0, 4, (classes, rows, columns))
    given = (levels * 1.1).astype(np.float32)
    planes = np.stack([by_pillow(plane, share, size) for plane in given])
    same = fit.best(given, share, size) == planes.argmax(0)
    # On other processors, Pillow may use fused multiply-add and round differently.
    assert same.all() if platform.machine() == "x86_64" else same.mean() > 0.95
