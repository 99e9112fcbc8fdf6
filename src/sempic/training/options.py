"""A frozen dataclass → a command line: each field is an option, its default and help beside it."""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

Options = TypeVar("Options")
_NEEDED = object()


def option(
    help: str,
    default: Any = _NEEDED,
    *,
    positional: bool = False,
    metavar: str | tuple[str, ...] | None = None,
    choices: Sequence[Any] | None = None,
) -> Any:
    """A field of an options dataclass; without a default it must be given.

    The field's type says how it is read: `bool` is a switch, `tuple[int, int]` takes two numbers,
    `tuple[Path, ...]` any number of them, and `X | None` may be left out.
    """
    told = {"help": help, "positional": positional, "metavar": metavar, "choices": choices}
    if default is _NEEDED:
        return field(metadata=told)
    return field(default=default, metadata=told)


def parse(
    kind: type[Options], argv: Sequence[str], *, prog: str, description: str | None = None
) -> Options:
    """The options that a command line gives. Wrong ones end the program, as argparse does."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description or kind.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    types_of = typing.get_type_hints(kind)
    for part in dataclasses.fields(kind):  # type: ignore[arg-type]
        how = _how(types_of[part.name])
        how["help"] = part.metadata["help"]
        if part.metadata["choices"] is not None:
            how["choices"] = part.metadata["choices"]
        if part.metadata["metavar"] is not None:
            how["metavar"] = part.metadata["metavar"]
        needed = part.default is dataclasses.MISSING
        if not needed:
            how["default"] = part.default
            if part.default not in (None, False, ()):
                how["help"] += f" ({_shown(part.default)})"
        how["help"] = how["help"].replace("%", "%%")
        if part.metadata["positional"]:
            if not needed:
                how["nargs"] = how.get("nargs", "?")
            parser.add_argument(part.name, **how)
        else:
            name = "--" + part.name.replace("_", "-")
            parser.add_argument(name, required=needed, dest=part.name, **how)
    given = vars(parser.parse_args(list(argv)))
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    try:
        return kind(**values)
    except ValueError as error:
        parser.error(str(error))


def _how(kind: Any) -> dict[str, Any]:
    if isinstance(kind, types.UnionType):
        (kind,) = (part for part in kind.__args__ if part is not type(None))
    if kind is bool:
        return {"action": "store_true"}
    if typing.get_origin(kind) is tuple:
        first, *rest = typing.get_args(kind)
        return {"type": first, "nargs": "+" if rest == [...] else 1 + len(rest)}
    return {"type": kind}


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What every training run takes."""

    out: Path = option("folder of the run; resumed if it has begun")
    steps: int = option("end after this many", 0)
    minutes: float = option(
        "end after so much time, checkpoints and exports included; the learning rate follows "
        "the elapsed share",
        0.0,
    )
    batch: int = option("crops in a step", 8)
    lr: float = option("learning rate at its highest", 1e-3)
    init: Path | None = option("weights to begin with, .safetensors", None)
    seed: int = option("of every random draw", 0)
    threads: int = option("of a CPU", 2)
    device: str = option("where to train; auto: the GPU if there is one", "auto")
    reproducible: bool = option(
        "draw noise on the CPU, and use deterministic algorithms: the same run on every device",
        False,
    )
    log_every: int = option("steps between lines of the log", 50)
    check_every: int = option("steps between validations, which write a sheet and weights", 500)
    save_minutes: float = option("between checkpoints, at most 5", 3.0)
    export_dir: Path | None = option(
        "folder that gets the results in at most 8 files of at most 16 MiB", None
    )

    def __post_init__(self) -> None:
        if (self.steps > 0) == (self.minutes > 0):
            raise ValueError("give either --steps or --minutes")
        if self.batch < 1 or self.log_every < 1 or self.check_every < 1:
            raise ValueError("--batch, --log-every and --check-every must be 1 or more")
        if not 0 <= self.save_minutes <= 5:
            raise ValueError("--save-minutes must lie in 0…5")

    @property
    def where(self) -> torch.device:
        """The device that is meant."""
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(auto if self.device == "auto" else self.device)
