"""The pictures of a folder by name."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from sempic import files, pictures
from sempic.errors import InputError

T = TypeVar("T")


def spread(items: Sequence[T], limit: int | None) -> list[T]:
    """At most `limit` of the items, evenly spread; None or 0: all."""
    if not limit or limit >= len(items):
        return list(items)
    return [items[i * len(items) // limit] for i in range(limit)]


def by_name(folder: Path, *, deep: bool = True, pattern: str = "*") -> dict[str, Path]:
    """The pictures of a folder, and with `deep` of its subfolders, by relative path without suffix.

    `pattern` is a shell pattern of the file names to take. Raises InputError if there are none, two
    have the same name, or a link leads nowhere.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'not a' if folder.exists() else 'no such'} folder")
    searched = files.search(folder, pictures.SUFFIXES, deep=deep)
    for path, why in searched.faults:
        raise InputError(f"{path}: {why}")
    found = [path for path in searched.files if fnmatch.fnmatchcase(path.name, pattern)]
    if not found:
        which = f" {pattern}" * (pattern != "*") + " (subfolders are not searched)" * (not deep)
        raise InputError(f"{folder}: no pictures{which}")
    named: dict[str, Path] = {}
    for path in found:
        name = path.relative_to(folder).with_suffix("").as_posix()
        if named.setdefault(name, path) != path:
            raise InputError(f"{path} and {named[name]} have the same name")
    return named
