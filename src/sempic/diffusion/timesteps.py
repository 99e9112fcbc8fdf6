"""Timesteps: respacing and truncation for sampling, random draws for training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sempic.errors import ModelError


def respaced_timesteps(
    steps: int, respacing: str = "", max_iter_time: int | None = None
) -> tuple[int, ...]:
    """Timesteps that sampling uses of a process of `steps` steps, in rising order.

    Args:
        respacing: "" keeps all; "100" spreads 100 over the whole range, both ends included;
            "10,15,20" does so within each of three equal sections; "ddim25" takes the integer
            stride from 0 that gives 25 (Nichol & Dhariwal 2021, §4; Song et al. 2021, §5).
        max_iter_time: largest timestep to keep, for the paper's truncated start.

    Raises:
        ModelError: an impossible `respacing`, or no timestep is left.
    """
    kept = _ddim(steps, respacing) if respacing.startswith("ddim") else _sections(steps, respacing)
    if max_iter_time is not None:
        kept = [t for t in kept if t <= max_iter_time]
    if not kept:
        raise ModelError(
            f"respacing {respacing!r} and max_iter_time {max_iter_time} leave none of {steps} steps"
        )
    return tuple(kept)


def _number(text: str, respacing: str) -> int:
    if not text.strip().isdecimal():
        raise ModelError(f"timestep_respacing {respacing!r} is not like '100', 'ddim25', '10,15'")
    return int(text)


def _ddim(steps: int, respacing: str) -> list[int]:
    count = _number(respacing.removeprefix("ddim"), respacing)
    for stride in range(1, steps):
        kept = list(range(0, steps, stride))
        if len(kept) == count:
            return kept
    raise ModelError(f"no whole stride gives {count} of {steps} timesteps")


def _sections(steps: int, respacing: str) -> list[int]:
    if not respacing:
        return list(range(steps))
    counts = [_number(part, respacing) for part in respacing.split(",")]
    size, extra = divmod(steps, len(counts))
    kept: list[int] = []
    start = 0
    for i, count in enumerate(counts):
        length = size + (i < extra)
        if count > length:
            raise ModelError(f"timestep_respacing {respacing!r}: {count} steps out of {length}")
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        position = 0.0  # summed, not multiplied, to round like the original
        for _ in range(count):
            kept.append(start + round(position))
            position += stride
        start += length
    return kept


class UniformSampler:
    """Draws timesteps for training, uniformly."""

    memory: dict[str, Tensor]
    """State for checkpoints; the tensors share memory with the sampler."""

    def __init__(self, steps: int) -> None:
        self.steps, self.memory = steps, {}

    def probability(self) -> npt.NDArray[np.float64]:
        """float64 (steps,), sums to 1."""
        return np.full(self.steps, 1 / self.steps)

    def draw(self, batch: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """int64 (batch,) step indices and float32 (batch,) weights of their losses."""
        probability = self.probability()
        t = generator.choice(self.steps, size=batch, p=probability)
        weights = 1 / (self.steps * probability[t])
        return torch.from_numpy(t).long(), torch.from_numpy(weights).float()

    def update(self, t: Sequence[int], losses: Sequence[float]) -> None:
        """Take account of unweighted losses at steps t, of all processes."""


class LossSecondMomentSampler(UniformSampler):
    """Draws steps in proportion to the root mean square of their last losses.

    Importance sampling of Nichol & Dhariwal 2021, §3.3: uniform until each step has `history`
    losses; `uniform_share` of the probability is always uniform.
    """

    def __init__(self, steps: int, history: int = 10, uniform_share: float = 0.001) -> None:
        super().__init__(steps)
        self.history, self.uniform_share = history, uniform_share
        self.losses, self.counts = np.zeros((steps, history)), np.zeros(steps, np.int64)
        arrays = {"losses": self.losses, "counts": self.counts}
        self.memory = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def probability(self) -> npt.NDArray[np.float64]:
        uniform = super().probability()
        weights = np.sqrt(np.mean(self.losses**2, axis=1))
        total = weights.sum()
        if (self.counts < self.history).any() or not total > 0:
            return uniform
        return weights / total * (1 - self.uniform_share) + uniform * self.uniform_share

    def update(self, t: Sequence[int], losses: Sequence[float]) -> None:
        for step, loss in zip(t, losses, strict=True):
            if self.counts[step] == self.history:  # drop the oldest loss, the first of its row
                self.losses[step] = np.roll(self.losses[step], -1)
                self.counts[step] -= 1
            self.losses[step, self.counts[step]] = loss
            self.counts[step] += 1
