"""Which timesteps run: respacing and truncation when sampling, draws when training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

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


class TimestepSampler(Protocol):
    """Draws the timesteps that a training batch is noised to."""

    def draw(self, batch: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """int64 (batch,) step indices and float32 (batch,) weights of their losses."""
        ...

    def update(self, t: Sequence[int], losses: Sequence[float]) -> None:
        """Learns from the unweighted losses (all processes' together) at steps t."""
        ...

    @property
    def memory(self) -> dict[str, Tensor]:
        """What it has learned: tensors that share its memory."""
        ...


def _draw(
    probability: npt.NDArray[np.float64], batch: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    t = generator.choice(len(probability), size=batch, p=probability)
    weights = 1 / (len(probability) * probability[t])
    return torch.from_numpy(t).long(), torch.from_numpy(weights).float()


@dataclass(frozen=True, slots=True)
class UniformSampler:
    """Every step is as likely as any other."""

    steps: int

    def draw(self, batch: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        return _draw(np.full(self.steps, 1 / self.steps), batch, generator)

    def update(self, t: Sequence[int], losses: Sequence[float]) -> None:
        pass

    @property
    def memory(self) -> dict[str, Tensor]:
        return {}


@dataclass(slots=True)
class LossSecondMomentSampler:
    """Steps in proportion to the root mean square of their latest losses.

    Importance sampling of Nichol & Dhariwal 2021, §3.3: uniform until every step has `history`
    losses; `uniform_share` of the probability stays uniform for good.
    """

    steps: int
    history: int = 10
    uniform_share: float = 0.001
    losses: npt.NDArray[np.float64] = field(init=False)
    counts: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.losses = np.zeros((self.steps, self.history))
        self.counts = np.zeros(self.steps, np.int64)

    def probability(self) -> npt.NDArray[np.float64]:
        """float64 (steps,), sums to 1."""
        uniform = np.full(self.steps, 1 / self.steps)
        if (self.counts < self.history).any():
            return uniform
        weights = np.sqrt(np.mean(self.losses**2, axis=1))
        total = weights.sum()
        if not total > 0:
            return uniform
        return weights / total * (1 - self.uniform_share) + uniform * self.uniform_share

    def draw(self, batch: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        return _draw(self.probability(), batch, generator)

    def update(self, t: Sequence[int], losses: Sequence[float]) -> None:
        for step, loss in zip(t, losses, strict=True):
            # The oldest loss gives way: column n of a full row is always the n-th oldest.
            if self.counts[step] == self.history:
                self.losses[step, :-1] = self.losses[step, 1:]
                self.losses[step, -1] = loss
            else:
                self.losses[step, self.counts[step]] = loss
                self.counts[step] += 1

    @property
    def memory(self) -> dict[str, Tensor]:
        return {"losses": torch.from_numpy(self.losses), "counts": torch.from_numpy(self.counts)}
