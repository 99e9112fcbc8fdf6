"""Which pictures are painted at half size, and how they are enlarged."""

import numpy as np
import PIL.Image
import PIL.ImageFilter
import pytest
from conftest import street

from sempic import halving


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (70, 40), (31, 64), (100, 9)])
def test_enlarging_removes_specks_and_sharpens(size):
    small = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    large = PIL.Image.fromarray(small).resize((2 * size[1], 2 * size[0]), PIL.Image.BICUBIC)
    median = large.filter(PIL.ImageFilter.MedianFilter(3))
    expected = median.filter(PIL.ImageFilter.UnsharpMask(1, 100, 0))
    assert np.array_equal(halving.enlarged(small), np.asarray(expected))


def test_large_pictures_without_fine_detail_are_soft():
    sharp = street(420, 500)[0]  # with noise in each pixel
    blurred = np.asarray(PIL.Image.fromarray(sharp).reduce(4).resize((500, 420)))
    assert halving.is_soft(blurred)
    assert halving.is_soft(blurred[1:, 1:])
    assert not halving.is_soft(sharp)
    assert not halving.is_soft(blurred[:300])  # as large as training pictures
