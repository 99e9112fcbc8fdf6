import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sempic.diffusion.timesteps import (
    LossSecondMomentSampler,
    UniformSampler,
    respaced_timesteps,
)
from sempic.errors import ModelError


@pytest.mark.parametrize(
    ("respacing", "limit", "expected"),
    [
        ("4", None, [0, 333, 666, 999]),
        ("20", 200, [0, 53, 105, 158]),
        ("ddim25", None, list(range(0, 1000, 40))),
        ("1", None, [0]),
        ("2,0,1", None, [0, 333, 667]),
        ("100", 100, [0, 10, 20, 30, 40, 50, 61, 71, 81, 91]),
    ],
)
def test_respacing_gives_the_known_timesteps(respacing, limit, expected):
    assert list(respaced_timesteps(1000, respacing, limit)) == expected


def test_each_section_is_spread_by_itself():
    kept = respaced_timesteps(300, "10,15,20")
    assert len(kept) == 45
    assert [sum(a <= t < a + 100 for t in kept) for a in (0, 100, 200)] == [10, 15, 20]
    assert {0, 99, 100, 199, 200, 299} <= set(kept)


def test_the_papers_run_has_twenty_steps():
    assert len(respaced_timesteps(1000, "100", 200)) == 20


def test_the_limit_is_inclusive():
    assert respaced_timesteps(1000, "ddim25", 200)[-1] == 200
    assert respaced_timesteps(1000, "ddim25", 199)[-1] == 160
    assert respaced_timesteps(10) == tuple(range(10))


@given(st.integers(1, 60), st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_timesteps_rise_and_stay_inside(steps, counts):
    respacing = ",".join(map(str, counts))
    try:
        kept = respaced_timesteps(steps, respacing)
    except ModelError:
        assert any(c > steps // len(counts) for c in counts)
        return
    assert len(kept) == sum(counts)
    assert list(kept) == sorted(set(kept))
    assert kept[0] == 0
    assert kept[-1] < steps


@pytest.mark.parametrize(
    "respacing", ["ddim999", "ddim0", "1001", "600,600", "x", "10,", "-3", "ddim", "0"]
)
def test_impossible_respacings_are_refused(respacing):
    with pytest.raises(ModelError):
        respaced_timesteps(1000, respacing)


def test_a_limit_that_leaves_no_timestep_is_refused():
    with pytest.raises(ModelError, match="leave none"):
        respaced_timesteps(1000, "", -1)


def test_the_uniform_sampler_weighs_all_alike():
    t, weights = UniformSampler(10).draw(4000, np.random.default_rng(0))
    assert weights.tolist() == [1.0] * 4000
    assert np.bincount(t.numpy(), minlength=10).min() > 300


def test_the_loss_aware_sampler_follows_the_last_losses():
    sampler = LossSecondMomentSampler(4, history=3, uniform_share=0.1)
    t, weights = sampler.draw(8, np.random.default_rng(0))
    assert (weights == 1).all()  # not warm yet
    for round_ in range(5):  # only the last three losses count: 2, 3, 4 times the step's share
        sampler.update(range(4), [float(round_ * s) for s in (1, 1, 1, 3)])
    p = sampler.probability()
    np.testing.assert_allclose(p, 0.9 * np.array([1, 1, 1, 3]) / 6 + 0.1 / 4)
    t, weights = sampler.draw(6000, np.random.default_rng(1))
    assert abs((t == 3).float().mean().item() - p[3]) < 0.02
    # Weighted means estimate the unweighted ones: E[w f(t)] = mean f.
    assert abs((weights * t.float()).mean().item() - 1.5) < 0.05

    other = LossSecondMomentSampler(4, history=3, uniform_share=0.1)
    for name, tensor in other.memory.items():
        tensor.copy_(sampler.memory[name])
    np.testing.assert_array_equal(other.probability(), p)


def test_the_loss_aware_sampler_takes_losses_of_any_scale():
    for losses, expected in (([1e-6, 3e-6], [0.3, 0.7]), ([0.0, 0.0], [0.5, 0.5])):
        sampler = LossSecondMomentSampler(2, history=1, uniform_share=0.2)
        sampler.update(range(2), losses)
        np.testing.assert_allclose(sampler.probability(), expected)
