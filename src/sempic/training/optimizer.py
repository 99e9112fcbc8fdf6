"""Optimizer with schedule and clipping, and the moving average of a network's weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Schedule:
    """A learning rate that rises over `warmup` steps and falls as a cosine to the share `floor`."""

    warmup: int = 0
    floor: float = 1.0

    def __call__(self, step: int, progress: float) -> float:
        """The share of the full rate at a step, when `progress` (0…1) of the run is done."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        cosine = 0.5 + 0.5 * math.cos(math.pi * progress)
        return warm * (self.floor + (1 - self.floor) * cosine)


class Optimizer:
    """Adam, or AdamW with a weight decay, with a schedule and gradient clipping."""

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        *,
        schedule: Callable[[int, float], float],
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        clip: float | None = None,
    ) -> None:
        """
        Args:
            groups: parameter groups of torch.optim, each with `params` and `lr`.
            schedule: (step, progress) → share of each group's `lr`, for example a `Schedule`.
            clip: largest norm of the gradient.
        """
        self.schedule, self.clip = schedule, clip
        self.parameters = [p for group in groups for p in group["params"]]
        self.full_rates = [float(group["lr"]) for group in groups]
        adam = torch.optim.AdamW if weight_decay else torch.optim.Adam
        fastest = "fused" if self.parameters[0].device.type == "cuda" else "foreach"
        self.adam = adam(
            [dict(group) for group in groups],
            betas=betas,
            weight_decay=weight_decay,
            **{fastest: True},
        )

    def set_rate(self, step: int, progress: float) -> None:
        share = self.schedule(step, progress)
        for group, full_rate in zip(self.adam.param_groups, self.full_rates, strict=True):
            group["lr"] = full_rate * share

    def minimise(self, loss: Tensor) -> Tensor:
        """One step down the loss. Returns the gradient's norm before clipping, on the device; 0
        without clipping."""
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        return self.advance()

    def advance(self) -> Tensor:
        """`minimise` for gradients that are already computed."""
        norm = torch.zeros((), device=self.parameters[0].device)
        if self.clip is not None:
            norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.adam.step()
        return norm


class Ema:
    """Exponential moving average of a network's floating-point state; integers are copied.

    With `warmup` the decay is at most (1 + step) / (10 + step): early averages forget the
    initialisation.
    """

    def __init__(self, network: nn.Module, decay: float, *, warmup: bool = True) -> None:
        self.decay, self.warmup = decay, warmup
        current = network.state_dict()
        self.state = {key: value.detach().clone() for key, value in current.items()}
        floats = [key for key, value in current.items() if value.is_floating_point()]
        self._current = [current[key] for key in floats]
        self._averaged = [self.state[key] for key in floats]
        self._counters = [(current[k], self.state[k]) for k in current if k not in set(floats)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Include the network's state after step number `step`, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        torch._foreach_lerp_(self._averaged, self._current, 1 - decay)
        for value, copy in self._counters:
            copy.copy_(value)
