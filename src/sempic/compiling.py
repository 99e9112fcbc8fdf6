"""Compiling what numba makes fast: once on a machine, kept on disk, and said while it lasts.

numba's own cache gives up where no folder can be written, and takes whatever it finds in its files.
This one then compiles without a cache, and knows its files by their SHA-256.
"""

# numba has no types, here least of all.
# mypy: disable-error-code="no-untyped-call,attr-defined,assignment,misc"

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sempic import progress
from sempic._start import COMMAND
from sempic.errors import SempicWarning

with warnings.catch_warnings(record=True) as _told:
    import numba
    from numba.core import caching, config, event
    from numba.core.serialize import dumps
for _warning in _told:  # of its environment variables, with a traceback
    warnings.warn(str(_warning.message).splitlines()[0], SempicWarning, stacklevel=2)

if COMMAND and "scipy" not in sys.modules:
    # numba looks whether there is a BLAS in it, which no kernel of ours needs: a tenth of a second.
    sys.modules["scipy"] = None
    import numba.np.arraymath

    del sys.modules["scipy"]

TEXT = "compiling the label coder, once on this machine (about ten seconds)"


def compiled(signature: str | None = None, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit`, cached on disk where that can be: for `signature`, or for what it is given."""

    def wrap(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        if config.DISABLE_JIT:
            return dispatcher  # the function itself
        dispatcher._cache = _cache(function)
        if signature is not None:
            dispatcher.compile(signature)
            dispatcher.disable_compile()
        return dispatcher

    return wrap


# Kernels make no arrays: those that come to them are counted by who calls them, and counting each
# use again would take half of their time. numba has no public name for that.
_KERNEL: dict[str, Any] = {"error_model": "numpy", "_nrt": False}

kernel = compiled(**_KERNEL)
"""For functions that are called for every pixel; arrays are given to them, none is made."""

merged: Callable[[Callable[..., Any]], Any] = numba.njit(inline="always")
"""For parts of kernels: compiled with these, and with what is constant there."""

inlined = compiled(forceinline=True, **_KERNEL)
"""For parts that are compiled once and then copied into kernels."""


def integers(signature: str) -> Callable[[Callable[..., Any]], Any]:
    """`inlined`, compiled for these types alone and not again for each constant."""
    return compiled(signature, forceinline=True, **_KERNEL)


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


event.register("numba:compile", _Listener())


# ── the cache ────────────────────────────────────────────────────────────────────────────────


def _cache(function: Callable[..., Any]) -> Any:
    try:
        return _Cache(function)
    except (RuntimeError, OSError):
        warnings.warn(
            "the label coder is compiled at each start, since no folder can be written to keep it "
            "in; NUMBA_CACHE_DIR names one",
            SempicWarning,
            stacklevel=3,
        )
        return caching.NullCache()


def folders(source: str) -> Iterator[str]:
    """Where what is compiled of a source file may be kept, the best place first."""
    below = _Locator.get_suitable_cache_subpath(source)
    if config.CACHE_DIR:
        yield os.path.join(config.CACHE_DIR, below)
    yield os.path.join(os.path.dirname(source), "__pycache__")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(home):  # "~" stays where there is no home
        yield os.path.join(home, "sempic", "numba", below)
    with contextlib.suppress(OSError):
        yield os.path.join(_private(), below)


def _private() -> str:
    """A folder for temporary files that nobody else can write to: what is there will be run."""
    path = os.path.join(tempfile.gettempdir(), f"sempic-{os.getuid()}")
    os.makedirs(path, mode=0o700, exist_ok=True)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(path)
    return path


class _Locator(caching._SourceFileBackedLocatorMixin, caching._CacheLocator):
    def __init__(self, function: Any, path: str) -> None:
        self._py_file, self._path = function.__code__.co_filename, path
        self._lineno = function.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return self._path

    @classmethod
    def from_function(cls, function: Any, source: str) -> Any:
        for path in folders(source):
            found = cls(function, path)
            with contextlib.suppress(OSError, ValueError):
                found.ensure_cache_path()
                return found
        return None


class _Impl(caching.CompileResultCacheImpl):
    _locator_classes = (_Locator,)


class _File(caching.IndexDataCacheFile):
    """Each file begins with the SHA-256 of the rest; one that does not counts for nothing."""

    def _load_index(self) -> dict[Any, str]:
        try:
            version, stamp, overloads = pickle.loads(_checked(self._index_path))
        except (OSError, ValueError):
            return {}
        fresh = (version, stamp) == (self._version, self._source_stamp)
        return overloads if fresh else {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        self._write(self._index_path, (self._version, self._source_stamp, overloads))

    def _load_data(self, name: str) -> Any:
        return pickle.loads(_checked(self._data_path(name)))

    def _save_data(self, name: str, data: Any) -> None:
        self._write(self._data_path(name), data)

    def _write(self, path: str, value: Any) -> None:
        data = dumps(value)
        with self._open_for_write(path) as file:
            file.write(hashlib.sha256(data).digest() + data)


def _checked(path: str) -> bytes:
    with open(path, "rb") as file:
        digest, data = file.read(32), file.read()
    if hashlib.sha256(data).digest() != digest:
        raise OSError("damaged, or of another kind")
    return data


@functools.cache
def _sources(module: str, own: str) -> tuple[Path, ...]:
    """All that the machine code of functions of a module in the file `own` may be made of: a kernel
    has parts from other modules of its package, and this one says how they are compiled."""
    here, parts = Path(__file__), module.split(".")
    if parts[0] == "sempic" and (here.parent / parts[1]).is_dir():
        return (here, *sorted((here.parent / parts[1]).rglob("*.py")))
    return here, Path(own)


@functools.cache
def _stamp(*sources: Path) -> str:
    """SHA-256 of the files, whose times may be those of any release."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


class _Cache(caching.FunctionCache):
    """Never fails: what cannot be read is compiled, what cannot be written is not kept."""

    _impl_class = _Impl

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        stamp = _stamp(*_sources(function.__module__, function.__code__.co_filename))
        self._cache_file = _File(self._cache_path, self._impl.filename_base, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # of a numba or a machine that is not quite the same
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):  # a full disk
            super().save_overload(sig, data)
