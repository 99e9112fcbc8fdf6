"""The loop of every training: schedule, clipping, average, log, checkpoints, a budget of time.

A `Recipe` says what is trained, on what, and towards what; nothing here knows any of them.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn

from sempic import files
from sempic.errors import ModelError, OutputError, refused
from sempic.networks.weights import save_shards, save_tensors
from sempic.training.checkpoint import Folder, Moving
from sempic.training.options import RunOptions

LARGEST_EXPORT = 16 << 20
"""Bytes of a file in --export-dir."""
_RESERVE = 0.02
"""Share of the minutes that is kept for the end, before it is known how long the end takes."""
_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a learning rate rises over some steps and falls as a cosine to a share of its height."""

    warmup: int = 0
    floor: float = 1.0

    def __call__(self, step: int, progress: float) -> float:
        """The share of the full rate, for a run of which `progress` (0…1) is over."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        cosine = 0.5 + 0.5 * math.cos(math.pi * progress)
        return warm * (self.floor + (1 - self.floor) * cosine)


class Optimizer:
    """Adam, or AdamW where weights decay, with its schedule and how it is clipped."""

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        *,
        schedule: Callable[[int, float], float],
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        clip: float | None = None,
    ) -> None:
        """`groups` are `params` and `lr`, as torch.optim takes them; `schedule` is a `Schedule`, or
        a function like it."""
        self.schedule, self.clip = schedule, clip
        self.parameters = [p for group in groups for p in group["params"]]
        self.full = [float(group["lr"]) for group in groups]
        kind = torch.optim.AdamW if weight_decay else torch.optim.Adam
        fused = self.parameters[0].device.type == "cuda"
        self.adam = kind(
            [dict(group) for group in groups],
            betas=betas,
            weight_decay=weight_decay,
            fused=fused or None,
            foreach=None if fused else True,
        )

    def set_rate(self, step: int, progress: float) -> None:
        share = self.schedule(step, progress)
        for group, full in zip(self.adam.param_groups, self.full, strict=True):
            group["lr"] = full * share

    def minimise(self, loss: Tensor) -> Tensor:
        """One step down the loss; the norm of its gradient, which stays on the device (0 where
        nothing is clipped)."""
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        return self.advance()

    def advance(self) -> Tensor:
        """The part of `minimise` after the gradients are there."""
        norm = torch.zeros((), device=self.parameters[0].device)
        if self.clip is not None:
            norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.adam.step()
        return norm


class Ema:
    """Exponential moving average of a network's weights and norms; counters are copied.

    The decay warms up as (1 + step) / (10 + step), so that early averages forget the start.
    """

    def __init__(self, network: nn.Module, decay: float, *, warmup: bool = True) -> None:
        self.decay, self.warmup = decay, warmup
        current = network.state_dict()
        self.state = {key: value.detach().clone() for key, value in current.items()}
        moving = [key for key, value in current.items() if value.is_floating_point()]
        self._current = [current[key] for key in moving]
        self._moving = [self.state[key] for key in moving]
        self._counters = [(current[k], self.state[k]) for k in current if k not in set(moving)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the network after its `step`th step, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        torch._foreach_lerp_(self._moving, self._current, 1 - decay)
        for value, kept in self._counters:
            kept.copy_(value)


class Recipe(ABC):
    """One training: what it builds, what it minimises, how it is judged.

    Everything that changes lies in `networks`, `optimizers` and `memory`, which are saved and
    restored as they are.
    """

    kind: str
    """Of the weights that it makes, as in their metadata."""
    network: nn.Module
    """What is trained, averaged and exported."""
    networks: Mapping[str, nn.Module] = MappingProxyType({})
    """What is trained beside it."""
    optimizers: dict[str, Optimizer]
    memory: Mapping[str, Tensor] = MappingProxyType({})
    """Running figures; changed in place."""
    decay: float
    """Of the average of `network`."""
    first: int = 0
    """Its first step, once prepared: not 0 where it goes on with somebody else's run."""

    @cached_property
    def averages(self) -> dict[str, Ema]:
        """By the name of the weights that are saved; what is judged and exported is the first."""
        return {self.kind: Ema(self.network, self.decay)}

    def averaged(self, state: dict[str, Tensor]) -> Any:
        """A copy of the network that has averaged weights, not training."""
        network = copy.deepcopy(self.network).eval()
        network.load_state_dict(state)
        return network

    def fixed(self) -> dict[str, Any]:
        """What a run cannot be gone on with in another way, as JSON has it."""
        return {}

    def prepare(self) -> None:  # noqa: B027 - most have nothing to do
        """Called before the very first step."""

    @abstractmethod
    def step(self, number: int) -> dict[str, Tensor]:
        """Make one step; figures for the log, of any shape, which stay on the device."""

    def log(self, step: int, figures: dict[str, float]) -> None:  # noqa: B027
        """Told what the log says."""

    @abstractmethod
    def validate(self, state: dict[str, Tensor], sheet: Path) -> dict[str, float]:
        """Figures of averaged weights; may draw a picture at `sheet`."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What the weights' metadata says of the network."""

    def save(self, state: dict[str, Tensor], path: Path) -> None:
        """Write averaged weights."""
        save_tensors(state, self.kind, self.about(), path)

    def file_name(self, name: str, step: int) -> str:
        """Of the weights of one of the `averages`."""
        return f"{name}.safetensors"

    def export(self, state: dict[str, Tensor], folder: Path) -> None:  # noqa: B027
        """Write what else is of use, ONNX for one, into a folder."""


class Clock:
    """How much of a run is over: by steps, or by the time spent, other sessions' included."""

    def __init__(self, options: RunOptions, spent: float = 0.0) -> None:
        self._steps, self._budget = options.steps, 60 * options.minutes
        self._began = time.monotonic() - spent
        self._reserve = _RESERVE * self._budget

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def reserve(self, seconds: float) -> None:
        """Keep so much time for what comes after the last step."""
        self._reserve = min(0.5 * self._budget, max(self._reserve, 1.5 * seconds))

    def progress(self, step: int) -> float:
        if self._steps:
            return min(1.0, step / self._steps)
        if math.isinf(self._budget):
            return 0.0
        return min(1.0, self.seconds / max(1e-9, self._budget - self._reserve))


def train(recipe: Recipe, options: RunOptions) -> None:
    """Train until the steps or the minutes are over, or SIGTERM asks to stop; resume if begun.

    Of several processes (torch.distributed) the first one writes.

    Raises:
        ModelError: a gradient that is no number, or a folder with another run.
        OutputError: the folder cannot be written.
    """
    folder = Folder(options.out)
    if options.export_dir is not None:  # not only when all the time is spent
        files.make_folder(options.export_dir)
        if not os.access(options.export_dir, os.W_OK):
            raise OutputError(f"{options.export_dir}: cannot be written")
    average, *others = recipe.averages.values()
    moving: Moving = {
        "network": recipe.network,
        **recipe.networks,
        **{f"{name}.optimizer": m.adam for name, m in recipe.optimizers.items()},
        "average": average.state,
        **{f"average{number}": other.state for number, other in enumerate(others, 2)},
        "memory": recipe.memory,
    }
    fixed = json.loads(json.dumps(recipe.fixed()))
    state = folder.load(moving, fixed)
    if state is None:
        recipe.prepare()
        state = {"step": recipe.first, "seconds": 0.0}
    try:
        step, clock = int(state["step"]), Clock(options, float(state["seconds"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder.state}: does not say how far its run had come") from error
    log = _Log(recipe, folder, options, clock, step)

    def save() -> None:
        log.check(step)
        if _writes():
            folder.save(moving, {"step": step, "seconds": clock.seconds, "fixed": fixed})

    def save_weights() -> None:
        for name, average in recipe.averages.items() if _writes() else ():
            recipe.save(average.state, options.out / recipe.file_name(name, step))

    def validate() -> None:
        began = time.monotonic()
        if _writes():
            sheet = options.out / f"sheet-{step:06}.png"
            log.write(step, recipe.validate(average.state, sheet))
        save_weights()
        clock.reserve(time.monotonic() - began)

    saved = time.monotonic()
    validated = -1
    with _until_sigterm() as asked:
        while not _anywhere(asked) and clock.progress(step) < 1:
            torch.manual_seed(options.seed * 1_000_003 + step)
            progress = clock.progress(step)
            for optimizer in recipe.optimizers.values():
                optimizer.set_rate(step, progress)
            figures = recipe.step(step)
            step += 1
            for each in recipe.averages.values():
                each.update(step)
            log.add(figures)
            if step % options.log_every == 0:
                log.means(step)
            if step % options.check_every == 0:
                validate()
                validated = step
            if time.monotonic() - saved >= 60 * options.save_minutes:
                save()
                saved = time.monotonic()
        save()
        if asked:
            save_weights()
        elif validated != step:
            validate()
        if options.export_dir is not None:
            _export(recipe, average.state, folder, options.export_dir)


def _writes() -> bool:
    """Whether this process writes files and lines: the first one, of several."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def _anywhere(asked: list[int]) -> bool:
    """Whether any of the processes was asked to stop: they stop together, or wait for ever."""
    if not distributed.is_initialized():
        return bool(asked)
    several: list[object] = [None] * distributed.get_world_size()
    distributed.all_gather_object(several, bool(asked))
    return any(several)


@contextlib.contextmanager
def _until_sigterm() -> Iterator[list[int]]:
    """A list that is empty until SIGTERM arrives."""
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)

    try:
        before = signal.signal(signal.SIGTERM, ask)
    except ValueError:  # not the main thread, which alone hears signals
        yield asked
        return
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


class _Log:
    """Means since the last line, summed on the device."""

    def __init__(
        self, recipe: Recipe, folder: Folder, options: RunOptions, clock: Clock, step: int
    ) -> None:
        self._recipe, self._folder, self._options, self._clock = recipe, folder, options, clock
        self._first, self._began = step, time.monotonic()
        self._sums: dict[str, tuple[Tensor, int]] = {}
        if _writes():
            folder.forget_after(step)

    def add(self, figures: dict[str, Tensor]) -> None:
        for name, value in figures.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + value.detach().float().sum(), count + value.numel()

    def check(self, step: int) -> dict[str, float]:
        """Bring the means here; raises ModelError if one is no number."""
        if not self._sums:
            return {}
        totals = torch.stack([total for total, _ in self._sums.values()]).tolist()
        found = {
            name: total / count
            for (name, (_, count)), total in zip(self._sums.items(), totals, strict=True)
        }
        for name, value in found.items():
            if not math.isfinite(value):
                raise ModelError(f"step {step}: {name} is {value:g}")
        return found

    def means(self, step: int) -> None:
        self.write(step, self.check(step))
        self._sums.clear()

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line of the log and of the terminal, with speed and remaining time."""
        if not _writes():
            return
        self._recipe.log(step, values)
        if not values:
            return
        self._folder.note(step, values)
        options = self._options
        seconds = (time.monotonic() - self._began) / max(1, step - self._first)
        left, of = seconds * (options.steps - step), f"/{options.steps}"
        if not options.steps:
            left, of = 60 * options.minutes * (1 - self._clock.progress(step)), ""
        line = [f"step {step}{of}", *(f"{name} {value:.4g}" for name, value in values.items())]
        line += [f"{seconds:.2f} s/step", f"{options.batch / max(seconds, 1e-9):.3g} images/s"]
        if math.isfinite(left):
            minutes, rest = divmod(int(max(0.0, left)), 60)
            line.append(f"ETA {minutes // 60}:{minutes % 60:02}:{rest:02}")
        print("  ".join(line), flush=True)


def _export(recipe: Recipe, state: dict[str, Tensor], run: Folder, folder: Path) -> None:
    """Averaged weights and what was trained beside them as float16, ONNX, log and newest sheet."""
    save_shards(
        state, recipe.kind, recipe.about(), folder / f"{recipe.kind}.safetensors", LARGEST_EXPORT
    )
    for name, network in recipe.networks.items():
        save_shards(network.state_dict(), name, {}, folder / f"{name}.safetensors", LARGEST_EXPORT)
    recipe.export(state, folder)
    sheets = sorted(run.path.glob("sheet-*.png"), key=lambda path: (len(path.name), path.name))
    logs = [run.log] if run.log.exists() else []  # the shortest runs have none
    for path in (*logs, *sheets[-1:]):
        files.write(folder / path.name, path.read_bytes())
    made = [path for path in folder.iterdir() if path.is_file()]
    large = [path for path in made if path.stat().st_size > LARGEST_EXPORT]
    if large or len(made) > 8:
        print(f"{folder}: {len(made)} files, of them {len(large)} larger than 16 MiB", flush=True)


def autocast(device: torch.device) -> torch.autocast:
    """Mixed precision: convolutions in bfloat16 on the CPU and on GPUs alike."""
    kind = "cpu" if device.type == "meta" else device.type
    return torch.autocast(kind, torch.bfloat16)


def compiled(module: _Module, device: torch.device) -> _Module:
    """The module through torch.compile on a GPU; on a CPU as it is, where that does not pay.

    Inputs must keep their shapes: each new one is compiled anew, which takes a minute.
    """
    if device.type != "cuda":
        return module
    return cast("_Module", torch.compile(module, dynamic=False))


def set_up(options: RunOptions) -> torch.device:
    """Threads, seeds and precision of a run; returns its device. Raises ModelError."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(auto if options.device == "auto" else options.device)
    except RuntimeError as error:
        raise ModelError(f"--device {options.device}: PyTorch knows no such device") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"--device {options.device}: there is no GPU that PyTorch can use")
    # Of devices that this PyTorch or machine lacks each has an error of its own.
    with refused(ModelError, f"--device {options.device}: cannot be used", Exception, unfit=True):
        torch.zeros((), device=device).item()
    if options.reproducible:
        torch.use_deterministic_algorithms(True, warn_only=True)
    elif device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    return device


def generator(options: RunOptions, step: int) -> torch.Generator | None:
    """What noise of a step is drawn with: one of the CPU's where devices must agree, else None,
    the device's own, which `train` seeds before each step."""
    if not options.reproducible:
        return None
    return torch.Generator().manual_seed(options.seed * 1_000_003 + step)
