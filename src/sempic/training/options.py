"""What every training run takes; `sempic.fields` makes its command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from sempic.fields import option, parse

__all__ = ["RunOptions", "option", "parse"]


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
