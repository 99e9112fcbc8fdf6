import itertools

import numpy as np
import pytest

from sempic.receive import tiling


def test_tiles_of_a_local_function_are_exact(monkeypatch):
    monkeypatch.setattr(tiling, "TILE", 160)
    noisy = np.random.default_rng(0).random((3, 320, 400), np.float32)
    labels = np.random.default_rng(1).integers(0, 12, (320, 400), np.uint8)
    small = np.zeros((3, 80, 100), np.float32)
    out = tiling.tiled(
        lambda noisy, small, labels: noisy * labels, noisy, small, labels, lambda: None
    )
    np.testing.assert_allclose(out, noisy * labels, rtol=1e-5)


@pytest.mark.parametrize("size", [16, 1024, 1040, 2048, 5008])
def test_tiles_cover_the_picture(size):
    tiles = list(tiling.tiles(size))
    assert tiles[0][0] == 0
    assert tiles[-1][1] == size
    for (_, end), (start, _) in itertools.pairwise(tiles):
        assert end - start >= tiling.OVERLAP
    assert all(start % 16 == 0 and end - start <= tiling.TILE for start, end in tiles)
