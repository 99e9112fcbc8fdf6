"""The training loop: resumption, log, checkpoints, validation, export and the time budget.

The loop knows no network, data or loss: a `Recipe` supplies them.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed

from sempic import files
from sempic.errors import ModelError, OutputError, refused
from sempic.networks.weights import save_shards
from sempic.places import apart, need_folder, read_picture
from sempic.training.checkpoint import Folder, Moving
from sempic.training.device import step_seed
from sempic.training.options import RunOptions

if TYPE_CHECKING:
    from sempic.training.recipe import Recipe

LARGEST_EXPORT = 16 << 20
"""Size limit of a file in --export-dir, in bytes."""
_RESERVE = 0.02
"""Share of --minutes reserved for the final validation until one has been timed."""


class Clock:
    """Progress of a run in steps or in time; earlier sessions of a resumed run count."""

    def __init__(self, options: RunOptions, spent: float = 0.0) -> None:
        """`spent`: seconds of earlier sessions."""
        self._steps, self._budget = options.steps, 60 * options.minutes
        self._began = time.monotonic() - spent
        self._reserve = _RESERVE * self._budget

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def reserve(self, seconds: float) -> None:
        """Keep time for work after the last step that has taken this long before."""
        self._reserve = min(0.5 * self._budget, max(self._reserve, 1.5 * seconds))

    def progress(self, step: int) -> float:
        """0 at the start, 1 at the end; always 0 for a run without an end."""
        if self._steps:
            return min(1.0, step / self._steps)
        if math.isinf(self._budget):
            return 0.0
        return min(1.0, self.seconds / max(1e-9, self._budget - self._reserve))


def train(recipe: Recipe, options: RunOptions) -> None:
    """Train until --steps, --minutes or SIGTERM ends the run; resume a run that `--out` holds.
    `need_folders` comes before it.

    With several processes (torch.distributed) only the first one writes files. The last lines that
    it prints name the weights.

    Raises:
        ModelError: a logged figure is not finite, or the folder holds another run.
        OutputError: a folder cannot be written, another run writes it now, or an input of the run
            would be replaced.
    """
    _keep_inputs(recipe, options)
    folder = Folder(options.out)
    with files.locked(options.out) if _is_writer() else contextlib.nullcontext():
        _train(recipe, options, folder)


def need_folders(options: RunOptions) -> None:
    """Raises OutputError for folders that a run cannot write. To be called before long work."""
    need_folder(options.out)
    if options.export_dir is not None:
        need_folder(options.export_dir)
        if options.export_dir.resolve() == options.out.resolve():
            raise OutputError(
                f"{options.out}: float16 would replace its weights: another --export-dir"
            )


def _keep_inputs(recipe: Recipe, options: RunOptions) -> None:
    """Raises OutputError if the weights that a run writes would replace those it begins with."""
    for folder in filter(None, (options.out, options.export_dir)):
        for kind in (recipe.kind, *recipe.networks):
            shards = folder.glob(f"{kind}-1-of-*.safetensors")
            for path in (folder / f"{kind}.safetensors", *shards):
                apart(options.inputs(), path)


def _train(recipe: Recipe, options: RunOptions, folder: Folder) -> None:
    moving, fixed = _moving(recipe), json.loads(json.dumps(recipe.fixed()))
    step, seconds = _resume(recipe, folder, moving, fixed)
    clock = Clock(options, seconds)
    log = _Log(folder, options, clock, step)
    judged = next(iter(recipe.averages.values()))

    def save() -> None:
        log.check(step)
        if _is_writer():
            folder.save(moving, {"step": step, "seconds": clock.seconds, "fixed": fixed})

    def save_weights() -> list[Path]:
        averages = recipe.averages.items() if _is_writer() else ()
        return [recipe.save(part.state, options.out, name, step) for name, part in averages]

    def validate() -> list[Path]:
        log.check(step)
        began = time.monotonic()
        if _is_writer():
            sheet = options.out / f"sheet-{step:06}.png"
            log.write(step, recipe.validate(judged.state, sheet))
        written = save_weights()
        clock.reserve(time.monotonic() - began)
        return written

    saved = time.monotonic()
    written: list[Path] = []
    with _sigterm_recorded() as signals:
        while not (stopped := _any_process(signals)) and clock.progress(step) < 1:
            torch.manual_seed(step_seed(options, step))
            progress = clock.progress(step)
            for optimizer in recipe.optimizers.values():
                optimizer.set_rate(step, progress)
            figures = recipe.step(step)
            step += 1
            for average in recipe.averages.values():
                average.update(step)
            log.add(figures)
            if step % options.log_every == 0:
                log.write_means(step)
            written = validate() if step % options.check_every == 0 else []
            if time.monotonic() - saved >= 60 * options.save_minutes:
                save()
                saved = time.monotonic()
        save()
        if stopped or signals:
            written = save_weights()
        elif not written:
            written = validate()
        if written:
            print(f"{', '.join(map(str, written))}: weights of step {step}", flush=True)
        if options.export_dir is not None:
            _export(recipe, judged.state, folder, options.export_dir)


def _moving(recipe: Recipe) -> Moving:
    """Everything that training changes, by its name in the checkpoint."""
    average, *others = recipe.averages.values()
    return {
        "network": recipe.network,
        **recipe.networks,
        **{f"{name}.optimizer": part.adam for name, part in recipe.optimizers.items()},
        "average": average.state,
        **{f"average{number}": other.state for number, other in enumerate(others, 2)},
        "memory": recipe.memory,
    }


def _resume(
    recipe: Recipe, folder: Folder, moving: Moving, fixed: dict[str, object]
) -> tuple[int, float]:
    """The next step and the seconds spent so far, with `moving` filled from the checkpoint."""
    state = folder.load(moving, fixed)
    if state is None:
        recipe.prepare()
        return recipe.first, 0.0
    what = f"{folder.state}: does not say how far its run had come"
    with refused(ModelError, what, KeyError, TypeError, ValueError, unfit=True):
        return int(state["step"]), float(state["seconds"])


def _is_writer() -> bool:
    """Whether this process writes files and prints: the first one does."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def _any_process(signals: list[int]) -> bool:
    """Whether any process received a signal; all must stop at the same step, or they deadlock."""
    if not distributed.is_initialized():
        return bool(signals)
    received: list[object] = [None] * distributed.get_world_size()
    distributed.all_gather_object(received, bool(signals))
    return any(received)


@contextlib.contextmanager
def _sigterm_recorded() -> Iterator[list[int]]:
    """A list to which each SIGTERM is appended, instead of ending the process."""
    signals: list[int] = []
    try:
        before = signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    except ValueError:  # only the main thread can handle signals
        yield signals
        return
    try:
        yield signals
    finally:
        signal.signal(signal.SIGTERM, before)


class _Log:
    """Sums figures on the device between log lines, and writes the lines."""

    def __init__(self, folder: Folder, options: RunOptions, clock: Clock, step: int) -> None:
        """`step`: the first of this session."""
        self._folder, self._options, self._clock = folder, options, clock
        self._first, self._began = step, time.monotonic()
        self._sums: dict[str, tuple[Tensor, int]] = {}
        if _is_writer():
            folder.forget_after(step)

    def add(self, figures: dict[str, Tensor]) -> None:
        for name, value in figures.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + value.detach().float().sum(), count + value.numel()

    def check(self, step: int) -> dict[str, float]:
        """The means since the last line, copied to the host. Raises ModelError if one is not
        finite."""
        if not self._sums:
            return {}
        totals = torch.stack([total for total, _ in self._sums.values()]).tolist()
        means = {
            name: total / count
            for (name, (_, count)), total in zip(self._sums.items(), totals, strict=True)
        }
        for name, value in means.items():
            if not math.isfinite(value):
                raise ModelError(f"step {step}: {name} is {value:g}")
        return means

    def write_means(self, step: int) -> None:
        self.write(step, self.check(step))
        self._sums.clear()

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line of the log, and on the terminal with speed and remaining time."""
        if not _is_writer():
            return
        self._show(step, values)
        if not values:
            return
        self._folder.note(step, values)
        options = self._options
        steps = step - self._first
        seconds = (time.monotonic() - self._began) / max(1, steps)
        left, of = seconds * (options.steps - step), f"/{options.steps}"
        if not options.steps:
            left, of = 60 * options.minutes * (1 - self._clock.progress(step)), ""
        line = [f"step {step}{of}", *(f"{name} {value:.4g}" for name, value in values.items())]
        if steps:  # else this is the validation of a run that had ended
            line += [f"{seconds:.2f} s/step", f"{options.batch / max(seconds, 1e-9):.3g} images/s"]
        if steps and left < timedelta.max.total_seconds():  # else the run is without an end
            line.append(f"ETA {timedelta(seconds=int(max(0.0, left)))}")
        print("  ".join(line), flush=True)

    @cached_property
    def _board(self) -> Any:
        """TensorBoard's writer into the run's folder; None if TensorBoard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return None
        return SummaryWriter(self._folder.path, purge_step=self._first + 1)

    def _show(self, step: int, values: dict[str, float]) -> None:
        """Copy values, and the sheet of this step, to TensorBoard. Raises OutputError."""
        what = f"{self._folder.path}: cannot write TensorBoard's events"
        with refused(OutputError, what):
            if self._board is None:
                return
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
            sheet = self._folder.path / f"sheet-{step:06}.png"
            if sheet.exists():
                self._board.add_image("sheet", read_picture(sheet), step, dataformats="HWC")
            self._board.flush()


def _export(recipe: Recipe, state: dict[str, Tensor], run: Folder, folder: Path) -> None:
    """Write averaged weights and the other networks as float16, ONNX, the log, the newest sheet."""
    files.make_folder(folder)
    states = {recipe.kind: state} | {k: part.state_dict() for k, part in recipe.networks.items()}
    for kind, tensors in states.items():
        about = recipe.about() if kind == recipe.kind else {}
        save_shards(tensors, kind, about, folder / f"{kind}.safetensors", LARGEST_EXPORT)
    recipe.export(state, folder)
    for path in folder.glob("sheet-[0-9]*.png"):
        path.unlink()  # of the run's earlier ends
    sheets = sorted(run.path.glob("sheet-*.png"), key=lambda path: (len(path.name), path.name))
    logs = [run.log] if run.log.exists() else []  # a run shorter than log_every has none
    for path in (*logs, *sheets[-1:]):
        files.write(folder / path.name, path.read_bytes())
    made = [path for path in folder.iterdir() if path.is_file()]
    large = [path for path in made if path.stat().st_size > LARGEST_EXPORT]
    of_them = f", of them {len(large)} larger than 16 MiB" if large else ""
    print(f"{folder}: {len(made)} files{of_them}", flush=True)
