"""Says that numba compiles the label coders, which it does once on a machine and keeps on disk."""

from __future__ import annotations

import contextlib
from typing import Any

from numba.core import event

from sempic import progress

TEXT = "compiling the label coder, once on this machine (about ten seconds)"


class _Listener(event.Listener):
    """Told of each function, the outermost first; never of one that is read from disk."""

    def __init__(self) -> None:
        self._depth = 0
        self._told = contextlib.ExitStack()

    def on_start(self, event: Any) -> None:
        if not self._depth:
            self._told.enter_context(progress.waiting(TEXT))
        self._depth += 1

    def on_end(self, event: Any) -> None:
        self._depth -= 1
        if not self._depth:
            self._told.close()


event.register("numba:compile", _Listener())  # type: ignore[no-untyped-call]
