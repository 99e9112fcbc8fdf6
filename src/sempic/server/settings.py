"""The settings of a server; not in `app`, so that `--help` needs no web framework."""

from __future__ import annotations

from dataclasses import dataclass

from sempic import processes
from sempic.fields import option
from sempic.options import Models


@dataclass(frozen=True, kw_only=True)
class Settings(Models):
    """The settings of a server, as in `sempic serve --help`. Raises InputError."""

    workers: int = option(
        "processes that code, one job at a time each", 2, low=1, high=processes.most(), metavar="N"
    )
    queue: int = option("requests that may wait for a worker; more get 429", 16, low=1, metavar="N")
    seconds: float = option(
        "time limit of a request, waiting included", 60.0, above=0, high=86400, metavar="N"
    )
    max_bytes: int = option("bytes of the largest body of a request", 1 << 25, low=1, metavar="N")
    max_pixels: int = option(
        "pixels of the largest picture that is coded or decoded; pictures that max_side scales "
        "down may have 8 times as many",
        1 << 22,
        low=1,
        metavar="N",
    )
