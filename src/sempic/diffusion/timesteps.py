"""Which timesteps run: respacing and truncation when sampling, draws when training."""

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
    """Timesteps of a `steps`-step process that are kept, in rising order.

    `respacing`: "" keeps all; "100" spreads 100 over the whole range, both ends included;
    "10,15,20" does so within each of three equal sections; "ddim25" takes a whole-numbered
    stride from 0 that yields 25 (Nichol & Dhariwal 2021, §4; Song et al. 2021, §5).
    `max_iter_time` then drops every timestep above it: the paper's truncated start.
    Raises `ModelError` if the string cannot be met.
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
        position = 0.0  # summed, not multiplied, as in the original: roundings are to agree
        for _ in range(count):
            kept.append(start + round(position))
            position += stride
        start += length
    return kept


class UniformSampler:
    """Draws the timesteps that a training batch is noised to, each as likely as any other."""

    memory: dict[str, Tensor]
    """What it has learned: tensors that share its memory."""

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
        """Learns from the unweighted losses (all processes' together) at steps t."""


class LossSecondMomentSampler(UniformSampler):
    """Steps in proportion to the root mean square of their latest losses.

    Importance sampling of Nichol & Dhariwal 2021, §3.3: uniform until every step has `history`
    losses; `uniform_share` of the probability stays uniform for good.
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
            # The oldest loss gives way: column n of a full row is always the n-th oldest.
            if self.counts[step] == self.history:
                self.losses[step, :-1] = self.losses[step, 1:]
                self.losses[step, -1] = loss
            else:
                self.losses[step, self.counts[step]] = loss
                self.counts[step] += 1
