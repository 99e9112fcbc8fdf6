"""Samplers of the paper's network: generators over the steps of a process, last timestep first.

The caller supplies the start: noise, or, as in the paper, the bilinearly upsampled coarse picture
without noise, for a process truncated by `max_iter_time`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sempic.diffusion.gaussian import Array, Diffusion
from sempic.errors import ModelError, install_hint

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x, t) → raw network output; x float32 (B, 3, H, W), t (B,) of `Diffusion.network_time`."""
Noise = Callable[[Tensor], Tensor]
"""x → standard normal noise of its shape; called once per step, also in the last."""


class Step(NamedTuple):
    """The state of a sampler after one step."""

    sample: Tensor
    x0: Tensor
    """The network's estimate of the clean picture in this step."""


def seeded_noise(*generators: torch.Generator) -> Noise:
    """Noise drawn on the generators' device, so that a seed gives the same noise for any device.

    With a generator per picture, a picture's noise does not depend on the others of its batch. A
    single generator draws for the whole batch.
    """

    def draw(x: Tensor) -> Tensor:
        parts = [
            torch.randn(part.shape, generator=generator, device=generator.device)
            for part, generator in zip(x.chunk(len(generators)), generators, strict=True)
        ]
        return torch.cat(parts).to(x.device)

    return draw


def paper_start(coarse: Tensor, size: tuple[int, int]) -> Tensor:
    """The coarse picture upsampled to (H, W), where the paper's sampling starts."""
    return F.interpolate(coarse, size, mode="bilinear", align_corners=False)


def guided(
    model: nn.Module,
    coarse: Tensor,
    condition: Tensor,
    scale: float = 1.0,
    *,
    together: bool | None = None,
) -> Denoiser:
    """The network under classifier-free guidance on the label map (Ho & Salimans 2021).

    out[:, :3] = null + scale · (cond − null), where null is the output for an all-zero condition;
    variances are those of cond. A scale of 1 or less is the network without guidance, at half the
    cost, as in the original.

    `together`: cond and null in one pass over twice the batch; default: not on a CPU, where one
    pass is not faster, needs twice the memory, and may round differently.
    """
    if scale <= 1.0:
        return lambda x, t: model(x, t, coarse, condition)
    one_pass = coarse.device.type != "cpu" if together is None else together
    nothing = torch.zeros_like(condition)
    if one_pass:
        coarse, condition = torch.cat([coarse, coarse]), torch.cat([condition, nothing])

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        if one_pass:
            out, null = model(torch.cat([x, x]), torch.cat([t, t]), coarse, condition).chunk(2)
        else:
            out, null = model(x, t, coarse, condition), model(x, t, coarse, nothing)
        epsilon = null[:, :3] + scale * (out[:, :3] - null[:, :3])
        return torch.cat([epsilon, out[:, 3:]], dim=1)

    return denoise


def to_unit(pictures: Tensor) -> Tensor:
    """uint8 (…, H, W, 3) → float (…, 3, H, W) in [-1, 1]."""
    return pictures.movedim(-1, -3).float() / 127.5 - 1


def to_uint8(pictures: Tensor) -> npt.NDArray[np.uint8]:
    """float (…, 3, H, W) in [-1, 1] → uint8 (…, H, W, 3)."""
    levels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return np.ascontiguousarray(levels.movedim(-3, -1).cpu().numpy())


def ddpm(
    diffusion: Diffusion,
    denoise: Denoiser,
    x: Tensor,
    *,
    noise: Noise = torch.randn_like,
    clip: bool = True,
) -> Iterator[Step]:
    """Ancestral sampling (Ho et al. 2020, alg. 2); `clip` keeps each x0 in [-1, 1]."""
    for index in reversed(range(len(diffusion))):
        i, output = _evaluate(diffusion, denoise, x, index)
        p = diffusion.p_mean_variance(output, x, i, clip=clip)
        drawn = noise(x)
        x = p.mean + torch.exp(0.5 * p.log_variance) * drawn if index else p.mean
        yield Step(x, p.x0)


def ddim(
    diffusion: Diffusion,
    denoise: Denoiser,
    x: Tensor,
    *,
    eta: float = 0.0,
    noise: Noise = torch.randn_like,
    clip: bool = True,
) -> Iterator[Step]:
    """DDIM (Song et al. 2021, eq. 12 and 16): deterministic at `eta` 0, DDPM-like at 1."""
    for index in reversed(range(len(diffusion))):
        i, output = _evaluate(diffusion, denoise, x, index)
        x0 = diffusion.predict_x0(output, x, i, clip=clip)
        epsilon = diffusion.predict_epsilon(x0, x, i)
        now, before = diffusion.alphas_cumprod[index], diffusion.alphas_cumprod_prev[index]
        sigma = eta * np.sqrt((1 - before) / (1 - now) * (1 - now / before))
        x = float(np.sqrt(before)) * x0 + float(np.sqrt(1 - before - sigma**2)) * epsilon
        if eta > 0:
            drawn = noise(x)
            x = x + float(sigma) * drawn if index else x
        yield Step(x, x0)


def multistep(
    diffusion: Diffusion,
    denoise: Denoiser,
    x: Tensor,
    *,
    solver: Literal["dpmsolver++", "unipc"] = "dpmsolver++",
    clip: bool = True,
) -> Iterator[Step]:
    """DPM-Solver++ (Lu et al. 2022) or UniPC (Zhao et al. 2023), both of second order, by the
    schedulers of diffusers.

    It omits step 0: step 1 gives the clean picture. Step 0 would remove the last 1 % of noise, but
    second-order extrapolation across the jump in log-SNR before it overshoots by more than it
    gains. Raises ModelError if diffusers is not installed (the extra `train`).
    """
    first = min(1, len(diffusion) - 1)
    scheduler = _scheduler(diffusion.alphas_cumprod[first:], solver)
    for index in reversed(range(first, len(diffusion))):
        i, output = _evaluate(diffusion, denoise, x, index)
        x0 = diffusion.predict_x0(output, x, i, clip=clip)
        x = scheduler.step(x0, index - first, x).prev_sample
        yield Step(x, x0)


def _evaluate(
    diffusion: Diffusion, denoise: Denoiser, x: Tensor, index: int
) -> tuple[Tensor, Tensor]:
    """The step as a tensor (B,), and the network's output there."""
    i = torch.full((x.shape[0],), index, dtype=torch.long, device=x.device)
    with torch.no_grad():
        return i, denoise(x, diffusion.network_time(i))


def _scheduler(alphas_cumprod: Array, solver: str) -> Any:
    try:
        from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
    except ImportError as error:
        raise ModelError(f"{solver} needs diffusers: {install_hint('train')}") from error
    # The scheduler takes our steps as its whole process, and our (clipped) estimate of the clean
    # picture: respacing, truncation and prediction of x0 stay here.
    shared = {
        "num_train_timesteps": len(alphas_cumprod),
        "trained_betas": 1 - alphas_cumprod / np.append(1.0, alphas_cumprod[:-1]),
        "prediction_type": "sample",
        "timestep_spacing": "trailing",
        "solver_order": 2,
        "final_sigmas_type": "zero",
    }
    kind = DPMSolverMultistepScheduler if solver == "dpmsolver++" else UniPCMultistepScheduler
    scheduler = kind(**shared)
    scheduler.set_timesteps(len(alphas_cumprod))
    return scheduler
