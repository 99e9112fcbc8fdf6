import pytest
import torch
from streets import TINY, trained

from sempic.diffusion import edm
from sempic.models import RENOISE
from sempic.networks.compact import CompactNet, one_hot


def void(count, side):
    return one_hot(torch.zeros(count, side, side, dtype=torch.uint8), 11)


def test_the_loss_of_the_wiener_filter_is_one():
    network = CompactNet(TINY)
    residual = torch.randn(64, 3, 16, 16) * TINY.sigma_data
    sigma, noise = torch.full((64,), 0.3), torch.randn(residual.shape)
    loss = edm.loss(network, residual, torch.zeros(64, 3, 4, 4), void(64, 16), sigma, noise)
    assert loss.mean().item() == pytest.approx(1, rel=0.05)  # by EDM's weighting


def test_sigmas_fall_from_the_maximum():
    for steps in (1, 2, 4, 8):
        levels = edm.sigmas(steps, 0.8)
        assert len(levels) == steps
        assert levels[0].item() == pytest.approx(0.8)
        assert (levels.diff() < 0).all()
        assert (levels >= edm.SIGMA_MIN).all()


def test_noise_levels_of_training_are_log_normal():
    generator = torch.Generator().manual_seed(0)
    drawn = edm.draw_sigma(20_000, torch.device("cpu"), generator).log()
    assert (drawn.mean().item(), drawn.std().item()) == pytest.approx((-1.1, 1.0), abs=0.02)


def test_each_step_begins_with_the_last_estimate_and_noise_of_its_level(monkeypatch):
    noisy = []

    def estimate(network, given, *rest):
        noisy.append(given)
        return torch.full_like(given, 5)

    monkeypatch.setattr(edm, "denoise", estimate)
    levels, drawn = torch.tensor([0.8, 0.2]), torch.Generator().manual_seed(0)
    assert len([*edm.sample(None, torch.zeros(1, 3, 8, 8), void(1, 32), levels, drawn)]) == 2
    drawn = torch.Generator().manual_seed(0)
    first, second = (edm.draw((1, 3, 32, 32), torch.device("cpu"), drawn) for _ in range(2))
    torch.testing.assert_close(noisy[0], 0.8 * first)
    torch.testing.assert_close(noisy[1], 5 + RENOISE * 0.2 * second)


def test_only_the_last_step_of_a_sample_has_a_gradient():
    coarse = torch.randn(1, 3, 8, 8, requires_grad=True)
    first, second = edm.sample(
        trained(), coarse, void(1, 32), edm.sigmas(2, 0.8), torch.Generator().manual_seed(0)
    )
    assert not first.requires_grad
    (slope,) = torch.autograd.grad(second.sum(), coarse)
    assert slope.abs().sum() > 0


def test_fidelity_changes_every_step():
    torch.manual_seed(1)
    network = CompactNet(TINY)
    for parameter in network.parameters():  # some are zero at first
        parameter.data += 0.1
    coarse = torch.zeros(1, 3, 8, 8)

    def steps(fidelity):
        generator = torch.Generator().manual_seed(0)
        return edm.sample(network, coarse, void(1, 32), edm.sigmas(2, 0.8), generator, fidelity)

    assert all((low != high).any() for low, high in zip(steps(0.0), steps(1.0), strict=True))


def test_strength_scales_the_noise_of_each_pixel():
    network, coarse = trained(), torch.zeros(1, 3, 8, 8)

    def painted(strength):
        drawn = torch.Generator().manual_seed(0)
        levels = edm.sigmas(1, 0.8)
        (found,) = edm.sample(network, coarse, void(1, 32), levels, drawn, strength=strength)
        return found

    assert (painted(torch.ones(1, 1, 32, 32)) == painted(1.0)).all()
    part = torch.ones(1, 1, 32, 32)
    part[..., 16:] = 0
    assert (painted(part) != painted(1.0)).any()
    assert (painted(part) != painted(0.0)).any()


def test_noise_is_of_the_generator_or_of_the_global_seed():
    drawn = [
        edm.draw((2, 3), torch.device("cpu"), torch.Generator().manual_seed(5)) for _ in range(2)
    ]
    assert (drawn[0] == drawn[1]).all()
    torch.manual_seed(5)
    assert (edm.draw((2, 3), torch.device("cpu")) == drawn[0]).all()
