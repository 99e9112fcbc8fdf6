"""What long work says on the way: nothing, unless a program asks for it with `shown`."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

PATIENCE = 1.0
"""Seconds: what takes no longer is not announced."""


class _Watcher:
    """Who is told, and what has been said to them."""

    def __init__(self, say: Callable[[str], object] | None) -> None:
        self.say = say or (lambda text: print(f"sempic: {text}", file=sys.stderr, flush=True))
        self.terminal = say is None and sys.stderr.isatty()
        self.said: set[str] = set()


_watcher: _Watcher | None = None


@contextlib.contextmanager
def shown(say: Callable[[str], object] | None = None) -> Iterator[None]:
    """Within it, `waiting` and `bar` are seen: on stderr, or by `say`, which gets lines of text."""
    global _watcher
    before, _watcher = _watcher, _Watcher(say)
    try:
        yield
    finally:
        _watcher = before


@contextlib.contextmanager
def waiting(text: str, *, aloud: bool = True) -> Iterator[None]:
    """Says what is waited for once it takes longer than PATIENCE; a terminal counts the seconds.

    aloud: False for what only who sits at a terminal wants to know.
    """
    watcher = _watcher
    if watcher is None:
        yield
        return
    over = threading.Event()

    def tell() -> None:
        if over.wait(PATIENCE):
            return
        if watcher.terminal:
            with _tqdm(bar_format=f"sempic: {text} … {{elapsed}}") as line:
                while not over.wait(1):
                    line.refresh()
        elif aloud and text not in watcher.said:
            watcher.said.add(text)
            watcher.say(text)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


@contextlib.contextmanager
def bar(total: int | None, unit: str) -> Iterator[Callable[[], object]]:
    """Gives a function to call after each of `total` parts, None: nobody knows how many; a terminal
    shows how far they are."""
    if _watcher is None or not _watcher.terminal or (total is not None and total < 2):
        yield lambda: None
        return
    with _tqdm(total=total, unit=unit, delay=PATIENCE) as line:
        yield line.update


def aside() -> contextlib.AbstractContextManager[None]:
    """Within it lines can be printed on stderr: a bar that is there makes way for them."""
    tqdm = sys.modules.get("tqdm")
    return tqdm.tqdm.external_write_mode(file=sys.stderr) if tqdm else contextlib.nullcontext()


def _tqdm(**options: Any) -> Any:
    from tqdm import tqdm

    return tqdm(leave=False, file=sys.stderr, **options)
