"""Losses of generated pictures that need no weights."""

import numpy as np
import pytest
import torch

from sempic.training import losses


def test_moments_ignore_positions():
    feature = torch.randn(2, 3, 8, 8)
    found = losses.moments(feature)
    torch.testing.assert_close(found[:, :3], feature.mean((2, 3)))
    torch.testing.assert_close(found[:, 3:], feature.std((2, 3)), atol=1e-3, rtol=0)
    torch.testing.assert_close(losses.moments(feature.flip(2).transpose(2, 3)), found)


def test_energies_are_differences_along_each_axis():
    """Of stripes one pixel wide: neighbours differ, pixels two apart do not."""
    stripes = (torch.arange(64) % 2).float().expand(1, 3, 32, 64)
    found = losses.energies(stripes)
    assert found.shape == (1, 4, 3, 16, 1, 2)
    luma, *colours = found.unbind(2)
    torch.testing.assert_close(luma[0, :, 0, 0, 0], torch.tensor([0.0, 0.0, 1.0, 0.0]))
    assert all(colour.abs().max() < 1e-6 for colour in colours)
    blue = stripes * torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1)
    found = losses.energies(blue.transpose(2, 3))[0, 0, :, 0, 0, 0]
    torch.testing.assert_close(found, torch.tensor([0.114, 0.886, 0.114]))


def test_unevenness_is_relative_to_the_detail_of_the_original():
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert losses.unevenness(0 * image, image).item() == pytest.approx(1)
    patchy = image.clone()
    patchy[..., ::4, ::4] += 1
    uneven = losses.unevenness(patchy, image)
    assert uneven > 2 * losses.unevenness(image, image)
    torch.testing.assert_close(losses.unevenness(patchy / 2, image / 2), uneven)


def test_a_window_is_half_a_crop_anywhere_at_multiples_of_four():
    rng, like = np.random.default_rng(0), torch.zeros(1, 3, 32, 64)
    found = [losses.random_window(like, rng) for _ in range(200)]
    assert {(rows.start, rows.stop) for rows, _ in found} == {(4 * n, 4 * n + 16) for n in range(5)}
    assert {(at.start, at.stop) for _, at in found} == {(4 * n, 4 * n + 32) for n in range(9)}


def test_a_view_shifts_all_pictures_alike_and_enlarges_every_other():
    rng, like = np.random.default_rng(0), torch.rand(1, 3, 32, 48)
    shifts, near = set(), 0
    for _ in range(100):
        view = losses.random_view(like, rng)
        seen = view(like)
        assert seen.shape == like.shape
        assert torch.equal(view(like), seen)
        match = [
            (y, x)
            for y in range(4)
            for x in range(4)
            if torch.equal(like.roll((y, x), (2, 3)), seen)
        ]
        shifts.update(match)
        near += not match
    assert len(shifts) == 16
    assert 35 < near < 65


def test_planes_shrink_to_the_features_and_to_those_of_the_window():
    planes = torch.zeros(1, 2, 32, 32)
    planes[..., 16:, 8:24] = 1
    whole = [torch.zeros(1, 1, 32 >> n, 32 >> n) for n in range(losses.BACKBONE)]
    near = [torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 4, 4)]
    window = slice(16, 32), slice(8, 24)
    found = losses.shrunk(planes, [*whole, *near], window)
    assert [f.shape[1:] for f in found] == [(2, *f.shape[2:]) for f in (*whole, *near)]
    assert all(f.mean() == 0.25 for f in found[: losses.BACKBONE])
    assert all((f == 1).all() for f in found[losses.BACKBONE :])


def test_a_discriminator_judges_the_features_with_a_head_and_their_conditions():
    torch.manual_seed(0)
    judge = losses.Discriminator([3, 5], [4, 0], classes=2)
    features = [torch.randn(1, 3, 8, 8), torch.randn(1, 5, 4, 4)]
    classes = torch.ones(1, 2, 8, 8)
    window = slice(0, 4), slice(0, 4)

    def scores(coarse, planes):
        (found,) = judge(features, losses.conditioning(coarse, planes, window))
        return found

    usual = scores(features, classes)
    assert usual.shape == (1, 1, 8, 8)
    assert (scores(features, 0 * classes) != usual).any()
    assert (scores([2 * f for f in features], classes) != usual).any()
