from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator

import pytest
import torch
from tiny import inputs, tiny_unet
from torch import Tensor

from sempic.diffusion import sampling
from sempic.diffusion.gaussian import Diffusion, DiffusionConfig, make_diffusion
from sempic.diffusion.sampling import ddim, ddpm, guided, paper_start, seeded_noise

needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed"
)
# diffusers hands tensors to numpy in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
Sampler = Callable[..., Iterator[sampling.Step]]


def dpm(*args: object, **options: object) -> Iterator[sampling.Step]:
    return sampling.multistep(*args, solver="dpmsolver++", **options)


def unipc(*args: object, **options: object) -> Iterator[sampling.Step]:
    return sampling.multistep(*args, solver="unipc", **options)


SAMPLERS = [
    ddpm,
    ddim,
    pytest.param(dpm, marks=needs_diffusers),
    pytest.param(unipc, marks=needs_diffusers),
]


def last(steps: Iterator[sampling.Step]) -> Tensor:
    *_, step = steps
    return step.sample


def process(respacing: str, limit: int | None = None, **changes: object) -> Diffusion:
    return make_diffusion(DiffusionConfig(**changes), respacing, limit)


def perfect_network(x0: Tensor, diffusion: Diffusion) -> sampling.Denoiser:
    """A network that always sees the same clean picture."""
    position = {t: i for i, t in enumerate(diffusion.timesteps)}

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        i = torch.tensor([position[int(v)] for v in t])
        return torch.cat([diffusion.predict_epsilon(x0, x, i), torch.zeros_like(x)], dim=1)

    return denoise


def gaussian_network(scale: float, diffusion: Diffusion) -> sampling.Denoiser:
    """The ideal network for pictures of independent N(0, scale²) pixels."""
    a = torch.tensor(diffusion.alphas_cumprod)
    position = {t: i for i, t in enumerate(diffusion.timesteps)}

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        a_t = float(a[position[int(t[0])]])
        return x * (1 - a_t) ** 0.5 / (a_t * scale**2 + 1 - a_t)

    return denoise


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("respacing", "limit"), [("10", None), ("20", 200), ("ddim25", None)])
def test_a_perfect_network_gives_its_picture(sampler, respacing, limit):
    diffusion = process(respacing, limit)
    g = torch.Generator().manual_seed(0)
    x0 = torch.rand(2, 3, 4, 6, generator=g) * 2 - 1
    start = torch.randn(2, 3, 4, 6, generator=g)
    steps = list(sampler(diffusion, perfect_network(x0, diffusion), start))
    last_step = 0 if sampler in (ddpm, ddim) else 1
    assert len(steps) == len(diffusion) - last_step
    torch.testing.assert_close(steps[-1].sample, x0, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sampler", [ddim, *SAMPLERS[2:]])
def test_deterministic_samplers_solve_the_probability_flow(sampler):
    """For Gaussian data the ODE keeps each x at its quantile: x_0 = x_T · scale / std_T."""
    scale, x = 0.5, torch.full((1, 3, 2, 2), 1.3)
    errors = []
    for respacing in ("10", "100"):
        diffusion = process(respacing, 600, variance="fixed_small")
        a = float(diffusion.alphas_cumprod[-1])
        exact = 1.3 * scale / (a * scale**2 + 1 - a) ** 0.5
        got = last(sampler(diffusion, gaussian_network(scale, diffusion), x, clip=False))
        errors.append(abs(float(got.mean()) - exact))
    assert errors[1] < 0.02
    assert errors[1] < errors[0]


@needs_diffusers
def test_second_order_solvers_beat_ddim():
    scale, x = 0.5, torch.full((1, 3, 2, 2), 1.3)
    diffusion = process("30", 600, variance="fixed_small")
    a = float(diffusion.alphas_cumprod[-1])
    exact = 1.3 * scale / (a * scale**2 + 1 - a) ** 0.5
    network = gaussian_network(scale, diffusion)
    error = {
        s: abs(float(last(s(diffusion, network, x, clip=False)).mean()) - exact)
        for s in (ddim, dpm, unipc)
    }
    assert error[dpm] < error[ddim] / 5
    assert error[unipc] < error[ddim] / 5


def test_ddim_at_eta_0_draws_no_noise_and_repeats():
    model = tiny_unet()
    _, _, coarse, condition = inputs()
    start = paper_start(coarse, (16, 24))

    def refuse(x: Tensor) -> Tensor:
        raise AssertionError("noise was drawn")

    network = guided(model, coarse, condition)
    diffusion = process("4", 400)
    runs = [last(ddim(diffusion, network, start, noise=refuse)) for _ in range(2)]
    assert torch.equal(*runs)
    other = last(ddim(diffusion, network, start, eta=1.0))
    assert not torch.equal(runs[0], other)


def test_ddim_at_eta_1_is_ddpm_with_the_posterior_variance():
    """Song et al. 2021, §4.1: mean and variance agree, so the same noise gives the same sample."""
    diffusion = process("6", variance="fixed_small")
    model = tiny_unet(learn_sigma=False)
    x, _, coarse, condition = inputs()
    network = guided(model, coarse, condition)
    outs = []
    for sampler, options in ((ddpm, {}), (ddim, {"eta": 1.0})):
        noise = seeded_noise(torch.Generator().manual_seed(3))
        outs.append(last(sampler(diffusion, network, x, noise=noise, **options)))
    torch.testing.assert_close(*outs, atol=1e-3, rtol=1e-3)


def test_the_seed_determines_the_sample():
    diffusion = process("20", 200)
    model = tiny_unet()
    _, _, coarse, condition = inputs()
    network = guided(model, coarse, condition)
    start = paper_start(coarse, (16, 24))
    a, b, c = (
        last(ddpm(diffusion, network, start, noise=seeded_noise(torch.Generator().manual_seed(s))))
        for s in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_guidance_moves_epsilon_away_from_the_null_condition():
    model = tiny_unet()
    x, t, coarse, condition = inputs()
    with torch.no_grad():
        cond = model(x, t, coarse, condition)
        null = model(x, t, coarse, torch.zeros_like(condition))
        out = guided(model, coarse, condition, 1.5)(x, t)
        torch.testing.assert_close(out[:, :3], null[:, :3] + 1.5 * (cond - null)[:, :3])
        assert torch.equal(out[:, 3:], cond[:, 3:])
        for none in (1.0, 0.5, 0.0):  # as in the original
            assert torch.equal(guided(model, coarse, condition, none)(x, t), cond)


def test_guidance_in_one_pass_equals_two_passes():
    model = tiny_unet()
    x, t, coarse, condition = inputs()
    batches: list[int] = []
    model.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    with torch.no_grad():
        outs = [
            guided(model, coarse, condition, 1.5, together=together)(x, t)
            for together in (False, True)
        ]
    assert batches == [2, 2, 4]
    torch.testing.assert_close(*outs)


def test_a_pictures_noise_does_not_depend_on_its_batch():
    def noise(*seeds: int) -> Tensor:
        draw = seeded_noise(*(torch.Generator().manual_seed(seed) for seed in seeds))
        shape = (len(seeds), 3, 4, 5)
        return torch.stack([draw(torch.zeros(shape)), draw(torch.zeros(shape))])

    together = noise(1, 2, 3)
    for k, seed in enumerate((1, 2, 3)):
        assert torch.equal(together[:, k : k + 1], noise(seed))


def test_the_papers_start_is_the_upsampled_coarse_picture():
    coarse = torch.tensor([[[[0.0, 1.0]]]])
    assert paper_start(coarse, (1, 4)).flatten().tolist() == [0, 0.25, 0.75, 1]
