"""Progress messages and bars of long work, shown only within `shown`."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

PATIENCE = 1.0
"""Seconds before work is announced."""


class _Display:
    """Where progress is shown: lines to `say` (default: stderr), or live on a terminal."""

    def __init__(self, say: Callable[[str], object] | None) -> None:
        self.say = say or (lambda text: print(f"sempic: {text}", file=sys.stderr, flush=True))
        self.terminal = say is None and sys.stderr.isatty()
        self.said: set[str] = set()


_display: _Display | None = None


@contextlib.contextmanager
def shown(say: Callable[[str], object] | None = None) -> Iterator[None]:
    """Shows `waiting` and `bar` on stderr, or passes lines of text to `say`."""
    global _display
    before, _display = _display, _Display(say)
    try:
        yield
    finally:
        _display = before


@contextlib.contextmanager
def waiting(text: str, *, aloud: bool = True) -> Iterator[None]:
    """Announces work that takes longer than PATIENCE; a terminal shows the elapsed seconds.

    aloud: False for announcements on terminals only.
    """
    display = _display
    if display is None:
        yield
        return
    over = threading.Event()

    def tell() -> None:
        if over.wait(PATIENCE):
            return
        if display.terminal:
            with _tqdm(bar_format=f"sempic: {text} … {{elapsed}}") as line:
                while not over.wait(1):
                    line.refresh()
        elif aloud and text not in display.said:
            display.said.add(text)
            display.say(text)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


@contextlib.contextmanager
def bar(total: int | None, unit: str) -> Iterator[Callable[[], object]]:
    """Yields a function to call after each of `total` parts (None: unknown); a terminal shows a
    bar."""
    if _display is None or not _display.terminal or (total is not None and total < 2):
        yield lambda: None
        return
    with _tqdm(total=total, unit=unit, delay=PATIENCE) as line:
        yield line.update


def aside() -> contextlib.AbstractContextManager[None]:
    """Hides a bar while the block prints lines on stderr."""
    tqdm = sys.modules.get("tqdm")
    return tqdm.tqdm.external_write_mode(file=sys.stderr) if tqdm else contextlib.nullcontext()


def _tqdm(**options: Any) -> Any:
    from tqdm import tqdm

    return tqdm(leave=False, file=sys.stderr, **options)
