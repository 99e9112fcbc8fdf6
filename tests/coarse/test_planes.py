"""Colour conversion and scaling: near their real-valued definitions, and exact for grey."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import street
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sempic import coarse
from sempic.errors import ImageError, InputError
from sempic.scene import Coarse

rgbs = hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))

# BT.601 full range as JFIF prints it.
MATRIX = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


@given(rgbs)
def test_from_rgb_is_bt601_full_range(rgb):
    planes = coarse.from_rgb(rgb, "444")
    expected = rgb @ MATRIX.T + (0, 128, 128)
    got = np.stack((planes.y, planes.cb, planes.cr), -1)
    assert np.abs(got - np.clip(expected, 0, 255)).max() < 0.51


@given(rgbs)
def test_full_chroma_survives_a_round_trip(rgb):
    back = coarse.to_rgb(coarse.from_rgb(rgb, "444"))
    assert np.abs(back.astype(int) - rgb).max() <= 2


@given(rgbs)
def test_half_chroma_is_the_mean_of_four(rgb):
    height, width = rgb.shape[:2]
    half = coarse.from_rgb(rgb, "420")
    assert half.cb.shape == half.cr.shape == ((height + 1) // 2, (width + 1) // 2)
    assert np.array_equal(half.y, coarse.from_rgb(rgb, "444").y)
    even = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    blocks = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2, 3).mean((1, 3))
    expected = np.clip(blocks @ MATRIX.T[:, 1:] + 128, 0, 255)
    assert np.abs(np.stack((half.cb, half.cr), -1) - expected).max() < 0.51


@given(st.integers(0, 255), st.integers(1, 9), st.integers(1, 9), st.sampled_from(["420", "444"]))
def test_grey_is_exact(value, height, width, chroma):
    grey = np.full((height, width, 3), value, np.uint8)
    assert np.array_equal(coarse.to_rgb(coarse.from_rgb(grey, chroma)), grey)


@given(st.tuples(*[st.integers(0, 255)] * 3), st.integers(1, 9), st.integers(1, 9))
def test_constant_chroma_is_the_same_at_either_size(ycc, height, width):
    y, cb, cr = (np.full((height, width), v, np.uint8) for v in ycc)
    half = (slice((height + 1) // 2), slice((width + 1) // 2))
    small = Coarse(y=y, cb=cb[half], cr=cr[half])
    assert np.array_equal(coarse.to_rgb(small), coarse.to_rgb(Coarse(y=y, cb=cb, cr=cr)))


def test_half_chroma_keeps_a_gradient_in_place():
    ramp = np.linspace(40, 210, 32)
    cb = np.tile(np.rint(ramp.reshape(16, 2).mean(1)).astype(np.uint8), (8, 1))
    grey = np.full((16, 32), 128, np.uint8)
    rgb = coarse.to_rgb(Coarse(y=grey, cb=cb, cr=np.full_like(cb, 128)))
    blue = 128 + (ramp - 128) * 1.772
    inside = (blue > 4) & (blue < 251) & (np.arange(32) > 4) & (np.arange(32) < 27)
    assert np.abs(rgb[8, inside, 2] - blue[inside]).max() < 2.5


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 21), st.integers(1, 21), st.just(3))),
    st.integers(1, 8),
)
def test_downscale_averages_blocks(rgb, factor):
    small = coarse.downscale(rgb, factor)
    height, width = rgb.shape[:2]
    assert small.shape == (-(-height // factor), -(-width // factor), 3)
    for y, x in np.ndindex(small.shape[:2]):
        rows = np.minimum(np.arange(y * factor, (y + 1) * factor), height - 1)
        columns = np.minimum(np.arange(x * factor, (x + 1) * factor), width - 1)
        mean = rgb[np.ix_(rows, columns)].reshape(-1, 3).mean(0)
        assert np.abs(small[y, x] - mean).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("factor", [16, 17, 40])
def test_sums_of_large_blocks_do_not_overflow(factor):
    assert (coarse.downscale(np.full((40, 40, 3), 255, np.uint8), factor) == 255).all()


@given(st.integers(1, 600), st.integers(1, 600), st.integers(1, 16))
def test_factor_is_found_from_the_sizes(width, height, factor):
    found = coarse.factor(width, height, -(-width // factor), -(-height // factor))
    assert found is not None
    assert found <= factor
    assert -(-width // found) == -(-width // factor)
    assert -(-height // found) == -(-height // factor)


def test_unrelated_sizes_have_no_factor():
    assert coarse.factor(341, 256, 86, 63) is None
    assert coarse.factor(341, 256, 86, 64) == 4


@pytest.mark.parametrize("chroma", ["420", "444"])
@pytest.mark.parametrize(
    "size", [(144, 108), (86, 64), (85, 63), (43, 33), (22, 16), (67, 45), (131, 97), (9, 40)]
)  # fmt: skip
def test_decoded_pictures_resemble_their_originals(size, chroma):
    image, _ = street(4 * size[1], 4 * size[0])
    small = coarse.downscale(image)
    decoded = coarse.to_rgb(coarse.decode(coarse.encode(small, quality=20, chroma=chroma)))
    assert np.abs(decoded.astype(int) - small)[..., 1].mean() < 6


def test_downscale_of_the_working_size():
    image, _ = street(256, 341)
    assert coarse.downscale(image).shape == (64, 86, 3)


@pytest.mark.parametrize(
    "picture",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8),
     np.zeros((4, 4, 3))],
)  # fmt: skip
def test_invalid_arrays_are_refused(picture):
    for function in (coarse.from_rgb, coarse.downscale, coarse.encode):
        with pytest.raises(ImageError, match="uint8"):
            function(picture)


def test_chroma_of_other_sizes_is_refused():
    with pytest.raises(InputError, match="422"):
        coarse.from_rgb(np.zeros((4, 4, 3), np.uint8), "422")
