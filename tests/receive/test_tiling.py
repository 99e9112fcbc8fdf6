import itertools
import math

import numpy as np
import pytest

from sempic.receive import tiling


def test_tiles_of_a_local_function_are_exact(monkeypatch):
    monkeypatch.setattr(tiling, "AREA", 240 * 256)
    noisy = np.random.default_rng(0).random((3, 320, 400), np.float32)
    labels = np.random.default_rng(1).integers(0, 12, (320, 400), np.uint8)
    small = np.zeros((3, 80, 100), np.float32)
    done = []
    out = tiling.tiled(
        lambda noisy, small, labels: noisy * labels, noisy, small, labels, lambda: done.append(1)
    )
    assert len(done) == len(tiling.tiles(320, 400)) == 4
    np.testing.assert_allclose(out, noisy * labels, rtol=1e-5)


@pytest.mark.parametrize(
    "size",
    [(16, 16), (720, 1280), (1088, 1920), (1024, 2048), (5008, 6000), (16, 65536), (640, 816)],
)
def test_tiles_cover_the_picture(size):
    tiles = tiling.tiles(*size)
    for side, spans in zip(size, zip(*tiles, strict=True), strict=True):
        along = sorted(set(spans))
        assert (along[0][0], along[-1][1]) == (0, side)
        for (_, end), (start, _) in itertools.pairwise(along):
            assert end - start >= tiling.OVERLAP
        assert all(start % 16 == end % 16 == 0 for start, end in along)
        assert len({end - start for start, end in along}) == 1
    sizes = [(bottom - top) * (right - left) for (top, bottom), (left, right) in tiles]
    assert max(sizes) <= tiling.AREA
    assert sum(sizes) < 1.5 * math.prod(size)


def test_large_tiles_are_split_the_cheapest_way():
    assert tiling.tiles(512, 1024) == [((0, 512), (0, 1024))]
    assert tiling.tiles(720, 1280) == [((0, 720), (0, 688)), ((0, 720), (592, 1280))]
    assert len(tiling.tiles(1088, 1920)) == 6
