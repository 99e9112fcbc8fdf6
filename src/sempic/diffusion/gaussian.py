"""Gaussian diffusion of the paper's network: schedules, posteriors, losses.

Sources: Ho et al. 2020 ("DDPM"); Nichol & Dhariwal 2021 ("Improved DDPM": cosine schedule, learned
range of variances, hybrid loss). Coefficients are computed in float64 and used in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, get_args, get_type_hints

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sempic.diffusion.timesteps import respaced_timesteps
from sempic.errors import ModelError

Schedule = Literal["linear", "cosine"]
Prediction = Literal["epsilon", "x0"]
Variance = Literal["learned_range", "fixed_large", "fixed_small"]
Loss = Literal["mse", "rescaled_mse", "rescaled_kl"]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffusionConfig:
    """The process that a network is trained for."""

    steps: int = 1000
    schedule: Schedule = "linear"
    prediction: Prediction = "epsilon"
    variance: Variance = "learned_range"
    loss: Loss = "mse"
    rescale_timesteps: bool = False
    """Tell the network t · 1000 / steps rather than t."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ModelError(f"diffusion steps must be at least 1, not {self.steps}")
        for name, kind in get_type_hints(type(self)).items():
            known, value = get_args(kind), getattr(self, name)
            if known and value not in known:
                raise ModelError(f"diffusion {name} {value!r} is none of {known}")
        if self.betas().max() >= 1:
            raise ModelError(f"{self.steps} steps are too few for the {self.schedule} schedule")

    def betas(self) -> Array:
        """Variances of the forward process, float64 (steps,)."""
        if self.schedule == "linear":
            # Ho et al. 2020, §4, for 1000 steps; other numbers scale to the same final noise.
            scale = 1000 / self.steps
            return np.linspace(scale * 1e-4, scale * 0.02, self.steps).astype(np.float64)

        def signal(t: float) -> float:  # Nichol & Dhariwal 2021, eq. 17
            return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

        n = self.steps
        return np.array([min(1 - signal((i + 1) / n) / signal(i / n), 0.999) for i in range(n)])


class Gaussian(NamedTuple):
    """A diagonal Gaussian over pictures, and the clean picture behind its mean."""

    mean: Tensor
    log_variance: Tensor
    x0: Tensor


class Losses(NamedTuple):
    """Per-sample terms, float32 (B,); what is trained is `loss`."""

    loss: Tensor
    mse: Tensor | None
    vb: Tensor | None
    """Variational bound, bits per dimension (scaled if the loss is a rescaled one)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Diffusion:
    """A (possibly respaced) process. Step i of it is timestep `timesteps[i]` of the trained one."""

    config: DiffusionConfig
    betas: Array
    timesteps: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.timesteps)

    # --- coefficients, float64 (len,) ---

    @cached_property
    def alphas_cumprod(self) -> Array:
        """ᾱ of each step: the share of the picture's variance that is left (DDPM eq. 4)."""
        return np.cumprod(1.0 - self.betas, dtype=np.float64)

    @cached_property
    def alphas_cumprod_prev(self) -> Array:
        """ᾱ of the step before; 1 before step 0."""
        return np.append(1.0, self.alphas_cumprod[:-1])

    @cached_property
    def posterior_variance(self) -> Array:
        """β̃ of DDPM eq. 7. At step 0, where it is 0, that of step 1: β would blur the result."""
        before = self.alphas_cumprod_prev
        variance = self.betas * (1.0 - before) / (1.0 - self.alphas_cumprod)
        variance[0] = variance[1] if len(self) > 1 else self.betas[0]
        return variance

    @cached_property
    def _moved(self) -> dict[torch.device, dict[str, Tensor]]:
        return {}

    def _tables(self, device: torch.device) -> dict[str, Tensor]:
        """Coefficients by name, (len,) each; copied to a device once, because each copy waits for
        the device."""
        if device not in self._moved:
            here, before = self.alphas_cumprod, self.alphas_cumprod_prev
            coefficients = {
                "signal": np.sqrt(here),
                "noise": np.sqrt(1 - here),
                "x0 of x": np.sqrt(1 / here),
                "x0 of noise": np.sqrt(1 / here - 1),
                "mean of x0": self.betas * np.sqrt(before) / (1.0 - here),
                "mean of x": (1.0 - before) * np.sqrt(1.0 - self.betas) / (1.0 - here),
                "log beta": np.log(self.betas),
                "posterior": np.log(self.posterior_variance),
                "fixed large": np.log(np.append(self.posterior_variance[0], self.betas[1:])),
            }
            tables = {k: torch.tensor(v, dtype=torch.float32) for k, v in coefficients.items()}
            tables["timestep"] = torch.tensor(self.timesteps)
            self._moved[device] = {k: table.to(device) for k, table in tables.items()}
        return self._moved[device]

    def _at(self, name: str, i: Tensor) -> Tensor:
        """A coefficient at steps i, float32 (B, 1, 1, 1)."""
        return self._tables(i.device)[name][i].view(-1, 1, 1, 1)

    # --- the forward process ---

    def q_sample(self, x0: Tensor, i: Tensor, noise: Tensor) -> Tensor:
        """x0 noised to step i (DDPM eq. 4). Pictures (B, 3, H, W) in [-1, 1], i int64 (B,)."""
        return self._at("signal", i) * x0 + self._at("noise", i) * noise

    def q_posterior(self, x0: Tensor, x: Tensor, i: Tensor) -> Gaussian:
        """q(x_{i-1} | x_i, x0), DDPM eq. 6 and 7."""
        mean = self._at("mean of x0", i) * x0 + self._at("mean of x", i) * x
        return Gaussian(mean, self._at("posterior", i).expand_as(x), x0)

    # --- the network's input and output ---

    def network_time(self, i: Tensor) -> Tensor:
        """The network's time input for steps i."""
        t = self._tables(i.device)["timestep"][i]
        return t.float() * (1000.0 / self.config.steps) if self.config.rescale_timesteps else t

    def predict_x0(self, output: Tensor, x: Tensor, i: Tensor, *, clip: bool = True) -> Tensor:
        """The clean picture that a raw output implies at x = x_i."""
        raw = output[:, : x.shape[1]]
        if self.config.prediction == "x0":
            x0 = raw
        else:
            x0 = self._at("x0 of x", i) * x - self._at("x0 of noise", i) * raw
        return x0.clamp(-1, 1) if clip else x0

    def predict_epsilon(self, x0: Tensor, x: Tensor, i: Tensor) -> Tensor:
        """The noise in x = x_i if x0 is the clean picture."""
        return (self._at("x0 of x", i) * x - x0) / self._at("x0 of noise", i)

    def p_mean_variance(
        self, output: Tensor, x: Tensor, i: Tensor, *, clip: bool = True
    ) -> Gaussian:
        """p(x_{i-1} | x_i) from a raw output (B, 3 or 6, H, W)."""
        x0 = self.predict_x0(output, x, i, clip=clip)
        if self.config.variance == "learned_range":  # Improved DDPM, eq. 15
            share = (output[:, x.shape[1] :] + 1) / 2
            low = self._at("posterior", i)
            log_variance = share * self._at("log beta", i) + (1 - share) * low
        else:
            name = "fixed large" if self.config.variance == "fixed_large" else "posterior"
            log_variance = self._at(name, i).expand_as(x)
        return Gaussian(self.q_posterior(x0, x, i).mean, log_variance, x0)

    # --- losses ---

    def variational_bound(self, output: Tensor, x0: Tensor, x: Tensor, i: Tensor) -> Tensor:
        """Term L_i of the bound (DDPM eq. 5), bits per dimension, (B,): KL, or NLL at step 0."""
        truth = self.q_posterior(x0, x, i)
        model = self.p_mean_variance(output, x, i, clip=False)
        kl = gaussian_kl(truth.mean, truth.log_variance, model.mean, model.log_variance)
        nll = -discretized_log_likelihood(x0, model.mean, 0.5 * model.log_variance)
        return torch.where(i == 0, _mean(nll), _mean(kl)) / math.log(2.0)

    def losses(self, output: Tensor, x0: Tensor, x: Tensor, i: Tensor, noise: Tensor) -> Losses:
        """Training losses of a raw `output` at x = q_sample(x0, i, noise).

        "mse" is L_hybrid of Improved DDPM, eq. 16, with λ = 1 / len, "rescaled_mse" with λ = 0.001;
        i is drawn uniformly. The bound teaches only the variances: its mean is detached.
        """
        loss = self.config.loss
        if loss == "rescaled_kl":
            vb = self.variational_bound(output, x0, x, i)
            return Losses(vb * len(self), None, vb)
        target = noise if self.config.prediction == "epsilon" else x0
        raw = output[:, : x.shape[1]]
        mse = _mean((target - raw) ** 2)
        if self.config.variance != "learned_range":
            return Losses(mse, mse, None)
        frozen = torch.cat([raw.detach(), output[:, x.shape[1] :]], dim=1)
        vb = self.variational_bound(frozen, x0, x, i)
        if loss == "rescaled_mse":
            vb = vb * (len(self) / 1000.0)
        return Losses(mse + vb, mse, vb)


def make_diffusion(
    config: DiffusionConfig, respacing: str = "", max_iter_time: int | None = None
) -> Diffusion:
    """The process with the timesteps of `respaced_timesteps`.

    The betas are those that keep ᾱ at the kept timesteps (Improved DDPM, §4).
    """
    kept = respaced_timesteps(config.steps, respacing, max_iter_time)
    alphas_cumprod = np.cumprod(1.0 - config.betas())[list(kept)]
    betas = 1 - alphas_cumprod / np.append(1.0, alphas_cumprod[:-1])
    return Diffusion(config=config, betas=betas, timesteps=kept)


def gaussian_kl(mean: Tensor, log_variance: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL divergence of the first Gaussian from the second, elementwise, in nats."""
    return 0.5 * (
        log_variance2
        - log_variance
        - 1.0
        + torch.exp(log_variance - log_variance2)
        + (mean - mean2) ** 2 * torch.exp(-log_variance2)
    )


def _normal_cdf(x: Tensor) -> Tensor:
    # An approximation (Page 1977), as in the original's losses.
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def discretized_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log P of 8-bit pictures x (scaled to [-1, 1]) under a Gaussian (DDPM eq. 13), in nats.

    Each grey level takes the mass of its bin of width 2/255; the outermost bins take the tails.
    """
    centered = x - mean
    inverse = torch.exp(-log_scale)
    upper = _normal_cdf(inverse * (centered + 1.0 / 255.0))
    lower = _normal_cdf(inverse * (centered - 1.0 / 255.0))
    mass = torch.where(x < -0.999, upper, torch.where(x > 0.999, 1.0 - lower, upper - lower))
    return mass.clamp(min=1e-12).log()


def _mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(dim=1)
