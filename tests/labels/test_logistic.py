"""The tables match the functions they approximate."""

import numpy as np

from sempic.labels.logistic import LIMIT, TABLES


def test_squash():
    x = np.arange(-LIMIT, LIMIT + 1)
    exact = 65536 / (1 + np.exp(-x / 256))
    assert np.abs(TABLES.squash - exact.clip(1, 65535)).max() <= 0.5 + 1e-6
    assert np.array_equal(TABLES.squash[LIMIT:], 65536 - TABLES.squash[LIMIT::-1].clip(1))


def test_stretch_is_the_smallest_that_squashes_to_it():
    for p in (1, 2, 300, 32767, 32768, 32769, 65000, 65535):
        x = int(TABLES.stretch[p])
        assert TABLES.squash[x + LIMIT] >= p
        assert x == -LIMIT or TABLES.squash[x + LIMIT - 1] < p


def test_exp():
    exact = 2**24 * np.exp(-np.arange(4096) / 256)
    assert np.array_equal(TABLES.exp, np.floor(exact).clip(1))
