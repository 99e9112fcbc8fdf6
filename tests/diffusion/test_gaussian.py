from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sempic.diffusion.gaussian import Diffusion, DiffusionConfig, make_diffusion
from sempic.errors import ModelError


def diffusion(**changes: object) -> Diffusion:
    return make_diffusion(DiffusionConfig(**changes))


def picture(seed: int = 0, batch: int = 4) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, 5, 7), generator=g) / 127.5 - 1


def noise(seed: int = 1, batch: int = 4) -> Tensor:
    return torch.randn(batch, 3, 5, 7, generator=torch.Generator().manual_seed(seed))


def test_the_linear_schedule_rises_evenly():
    betas = DiffusionConfig().betas()
    assert betas[0] == 1e-4
    assert betas[-1] == 0.02
    np.testing.assert_allclose(np.diff(betas), (0.02 - 1e-4) / 999)
    short = DiffusionConfig(steps=100).betas()
    assert short[-1] == pytest.approx(0.2)


def test_cosine_schedule_leaves_a_squared_cosine_of_the_signal():
    d = diffusion(schedule="cosine")
    t = np.arange(1, 1001) / 1000
    f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / math.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(d.alphas_cumprod[:990], f[:990], rtol=1e-9)
    assert d.betas[-1] == 0.999


def test_respaced_process_has_the_same_marginals():
    whole = diffusion()
    part = make_diffusion(DiffusionConfig(), "20", 200)
    np.testing.assert_allclose(
        part.alphas_cumprod, whole.alphas_cumprod[list(part.timesteps)], rtol=1e-12
    )


def test_q_sample_has_the_marginal_moments():
    d = diffusion()
    i = torch.tensor([0, 10, 300, 999])
    x0 = picture()
    torch.testing.assert_close(
        d.q_sample(x0, i, torch.zeros_like(x0)),
        x0 * torch.tensor(d.alphas_cumprod[i.numpy()]).sqrt().float().view(4, 1, 1, 1),
    )
    gap = d.q_sample(x0, i, noise()) - d.q_sample(x0, i, torch.zeros_like(x0))
    scale = torch.tensor(1 - d.alphas_cumprod[i.numpy()]).sqrt().float().view(4, 1, 1, 1)
    torch.testing.assert_close(gap, scale * noise(), atol=1e-6, rtol=1e-4)


def test_q_posterior_is_bayes_rule():
    d = diffusion()
    i = torch.tensor([1, 10, 300, 999])
    x0, x = picture(), noise()
    q = d.q_posterior(x0, x, i)
    beta, before = (torch.tensor(v[i.numpy()]).view(4, 1, 1, 1) for v in (
        d.betas, d.alphas_cumprod_prev
    ))  # fmt: skip
    # q(x_i | x_{i-1}) · q(x_{i-1} | x0): two Gaussians in x_{i-1}, precisions add.
    precision = (1 - beta) / beta + 1 / (1 - before)
    mean = ((1 - beta).sqrt() / beta * x + before.sqrt() / (1 - before) * x0) / precision
    torch.testing.assert_close(q.mean, mean.float(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        q.log_variance, (-precision.log()).float().expand_as(x), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("prediction", ["epsilon", "x0"])
def test_a_perfect_prediction_recovers_the_picture(prediction):
    d = diffusion(prediction=prediction, variance="fixed_small")
    i = torch.tensor([0, 10, 300, 600])
    x0, e = picture(), noise()
    x = d.q_sample(x0, i, e)
    out = e if prediction == "epsilon" else x0
    torch.testing.assert_close(d.predict_x0(out, x, i), x0, atol=1e-4, rtol=0)
    torch.testing.assert_close(d.predict_epsilon(x0, x, i), e, atol=2e-4, rtol=1e-4)
    bound = d.variational_bound(out, x0, x, i)
    assert bound[1:].abs().max() < 1e-4  # p = q, so no divergence; step 0 is a likelihood
    terms = d.losses(out, x0, x, i, e)
    assert terms.loss.max() < 1e-8
    assert terms.vb is None


def test_clipping_limits_the_predicted_picture():
    d = diffusion(variance="fixed_small")
    i = torch.tensor([900] * 4)
    x0 = d.predict_x0(noise(2), noise(3), i)
    assert x0.abs().max() == 1
    assert d.predict_x0(noise(2), noise(3), i, clip=False).abs().max() > 10


def test_learned_range_spans_both_variances():
    d = diffusion()
    i = torch.tensor([1, 5, 500, 999])
    x = noise()
    for v, expected in ((-1.0, np.log(d.posterior_variance)), (1.0, np.log(d.betas))):
        out = torch.cat([noise(2), torch.full_like(x, v)], dim=1)
        got = d.p_mean_variance(out, x, i).log_variance
        want = torch.tensor(expected[i.numpy()]).float().view(4, 1, 1, 1).expand_as(x)
        torch.testing.assert_close(got, want)


def test_fixed_large_is_beta_but_at_step_0():
    d = diffusion(variance="fixed_large")
    lv = d.p_mean_variance(noise(2), noise(), torch.tensor([0, 1, 5, 999])).log_variance
    want = [d.posterior_variance[1], *d.betas[[1, 5, 999]]]
    np.testing.assert_allclose(lv[:, 0, 0, 0].exp().numpy(), want, rtol=1e-5)


def numeric_bound(d: Diffusion, out: Tensor, x0: Tensor, x: Tensor, i: int) -> float:
    """L_i of one picture by integration, in float64, in bits per dimension."""
    index = torch.tensor([i])
    p = d.p_mean_variance(out, x, index, clip=False)
    mean, scale = p.mean.double().flatten(), (0.5 * p.log_variance.double()).exp().flatten()
    if i == 0:
        normal = torch.distributions.Normal(mean, scale)
        upper, lower = x0.flatten() + 1 / 255, x0.flatten() - 1 / 255
        above = torch.where(x0.flatten() > 0.999, torch.ones_like(mean), normal.cdf(upper))
        below = torch.where(x0.flatten() < -0.999, torch.zeros_like(mean), normal.cdf(lower))
        return float(-(above - below).clamp(min=1e-12).log2().mean())
    q = d.q_posterior(x0, x, index)
    q_mean, q_scale = q.mean.double().flatten(), (0.5 * q.log_variance.double()).exp().flatten()
    z = torch.linspace(-10, 10, 4001, dtype=torch.float64)[:, None]
    y = q_mean + q_scale * z
    q_log = torch.distributions.Normal(q_mean, q_scale).log_prob(y)
    p_log = torch.distributions.Normal(mean, scale).log_prob(y)
    integrand = q_log.exp() * (q_log - p_log) * q_scale
    return float(torch.trapezoid(integrand, z.flatten(), dim=0).mean() / math.log(2))


@pytest.mark.parametrize("i", [0, 1, 7, 400, 999])
def test_variational_bound_against_integration(i):
    d = diffusion()
    x0, e = picture(batch=1), noise(batch=1)
    x0[0, 0, 0, :2] = torch.tensor([-1.0, 1.0])  # the open-ended bins, too
    index = torch.tensor([i])
    x = d.q_sample(x0, index, e)
    out = torch.cat([e + 0.3 * noise(5, 1), noise(6, 1).clamp(-1, 1)], dim=1)
    got = d.variational_bound(out, x0, x, index).item()
    # The original's cdf is an approximation: 3e-4 at most, which step 0 shows.
    assert got == pytest.approx(numeric_bound(d, out, x0, x, i), rel=2e-2 if i == 0 else 1e-4)


def test_losses_are_combined_as_in_the_original():
    x0, e = picture(), noise()
    i = torch.tensor([0, 3, 100, 999])
    out = torch.cat([noise(2), 0.3 * noise(3)], dim=1).requires_grad_()
    by_kind = {}
    for kind in ("mse", "rescaled_mse", "rescaled_kl"):
        d = make_diffusion(DiffusionConfig(loss=kind), "500")
        i = i.clamp(max=499)
        by_kind[kind] = d.losses(out, x0, d.q_sample(x0, i, e), i, e)
    plain, rescaled = by_kind["mse"], by_kind["rescaled_mse"]
    torch.testing.assert_close(plain.mse, ((e - out[:, :3]) ** 2).mean((1, 2, 3)))
    torch.testing.assert_close(plain.loss, plain.mse + plain.vb)
    torch.testing.assert_close(rescaled.vb, plain.vb * 0.5)
    torch.testing.assert_close(by_kind["rescaled_kl"].loss, plain.vb * 500)

    (gradient,) = torch.autograd.grad(plain.vb.sum(), out, retain_graph=True)
    assert gradient[:, :3].abs().max() == 0  # the bound teaches variances only
    assert gradient[:, 3:].abs().max() > 0
    (gradient,) = torch.autograd.grad(by_kind["rescaled_kl"].loss.sum(), out)
    assert gradient[:, :3].abs().max() > 0


def test_network_time_is_the_original_timestep():
    part = make_diffusion(DiffusionConfig(), "20", 200)
    assert part.network_time(torch.tensor([0, 3])).tolist() == [0, 158]
    for rescaled, last in (({}, 499), ({"rescale_timesteps": True}, 998)):
        part = make_diffusion(DiffusionConfig(steps=500, **rescaled), "5")
        assert part.network_time(torch.tensor([0, 4])).tolist() == [0, last]


def test_tables_are_copied_to_a_device_once(monkeypatch):
    d = diffusion()
    out = torch.cat([noise(2), noise(3)], dim=1)
    i = torch.arange(4)

    def step(device: str) -> list[Tensor]:
        x, e, o, at = (tensor.to(device) for tensor in (picture(), noise(), out, i))
        losses = d.losses(o, x, d.q_sample(x, at, e), at, e)
        return [losses.loss, d.predict_epsilon(x, e, at), d.network_time(at)]

    first = step("cpu")
    assert {tensor.device.type for tensor in step("meta")} == {"meta"}
    with monkeypatch.context() as patched:
        for name in ("tensor", "as_tensor", "from_numpy"):
            patched.setattr(torch, name, None)
        again = step("cpu")
        step("meta")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_tables_made_while_sampling_work_in_training():
    """Autograd cannot save tensors made in inference mode, only tensors indexed from them."""
    d, i = diffusion(), torch.arange(4)
    with torch.inference_mode():
        d.q_sample(picture(), i, noise())
    out = torch.cat([noise(2), noise(3)], dim=1).requires_grad_()
    d.losses(out, picture(), d.q_sample(picture(), i, noise()), i, noise()).loss.sum().backward()
    assert out.grad is not None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"steps": 20}, "20 steps are too few for the linear schedule"),
        ({"schedule": "square"}, "schedule 'square' is none of"),
        ({"loss": "l1"}, "loss 'l1' is none of"),
        ({"variance": "none"}, "variance 'none' is none of"),
    ],
)
def test_impossible_configurations_are_refused(changes, said):
    with pytest.raises(ModelError, match=said):
        DiffusionConfig(**changes)


def test_a_process_of_one_step_is_finite():
    d = make_diffusion(DiffusionConfig(), "1")
    i = torch.zeros(4, dtype=torch.long)
    out = torch.cat([noise(2), noise(3)], dim=1)
    assert all(torch.isfinite(v).all() for v in d.p_mean_variance(out, noise(), i))
