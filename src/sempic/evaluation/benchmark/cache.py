"""Results cached by content, so that an interrupted benchmark resumes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np

from sempic.errors import OutputError, refused


class Cache:
    """Dictionaries of arrays by key, in one SQLite file; only the parent process writes.

    Raises OutputError if the file cannot be created, opened, read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._refused("opened"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab+") as file:  # SQLite overwrites tiny files of other kinds
                file.seek(0)
                if file.read(16) not in (b"", b"SQLite format 3\0"):
                    raise OSError("it is a file of another kind")
            self._db = sqlite3.connect(path, isolation_level=None, timeout=60)
            with contextlib.ExitStack() as on_failure:
                on_failure.callback(self.close)
                # SQLite does not wait here for a process that opens the file, too.
                with contextlib.suppress(sqlite3.OperationalError):
                    self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.execute(
                    "CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value BLOB)"
                )
                on_failure.pop_all()

    def _refused(self, done: str) -> contextlib.AbstractContextManager[None]:
        # Of a damaged value zipfile and NumPy raise all kinds of errors.
        return refused(
            OutputError, f"{self._path}: the cache cannot be {done}", Exception, unfit=True
        )

    def __contains__(self, key: str) -> bool:
        with self._refused("read"):
            found = self._db.execute("SELECT 1 FROM kept WHERE key = ?", (key,))
            return found.fetchone() is not None

    def get(self, key: str) -> dict[str, Any] | None:
        """The dictionary under a key; arrays without dimensions come back as numbers."""
        with self._refused("read"):
            row = self._db.execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            with np.load(io.BytesIO(row[0]), allow_pickle=False) as arrays:
                return {name: a if a.ndim else a.item() for name, a in arrays.items()}

    def put(self, key: str, arrays: dict[str, Any]) -> None:
        out = io.BytesIO()
        np.savez(out, **arrays)
        with self._refused("written"):
            self._db.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (key, out.getvalue()))

    def close(self) -> None:
        self._db.close()


def key(*parts: object) -> str:
    """A hash of all parts."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def digest(array: Any) -> str:
    """A hash of an array's shape and content; "" for None."""
    if array is None:
        return ""
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()
