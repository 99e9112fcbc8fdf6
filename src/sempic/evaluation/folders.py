"""The pictures of a folder by name."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from sempic import files, pictures
from sempic.errors import InputError

T = TypeVar("T")

ENDINGS = ("", "_color", "_gtFine_color", "_trainIds", "_gtFine_trainIds", "_gtFine_labelTrainIds")
"""Endings of predicted maps after the picture's name, in order of preference."""


def spread(items: Sequence[T], limit: int | None) -> list[T]:
    """At most `limit` of the items, evenly spread; None or 0: all."""
    if not limit or limit >= len(items):
        return list(items)
    return [items[i * len(items) // limit] for i in range(limit)]


def find_pictures(
    folder: Path,
    suffixes: Collection[str] = pictures.SUFFIXES,
    *,
    deep: bool = True,
    pattern: str = "*",
) -> list[Path]:
    """The pictures of a folder, and with `deep` of its subfolders, sorted.

    Args:
        suffixes: in lower case.
        pattern: a shell pattern of the file names to take.

    Raises InputError if there are none, or a link leads nowhere.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'not a' if folder.exists() else 'no such'} folder")
    searched = files.search(folder, suffixes, deep=deep)
    for path, why in searched.faults:
        raise InputError(f"{path}: {why}")
    found = [path for path in searched.files if fnmatch.fnmatchcase(path.name, pattern)]
    if not found:
        which = f" {pattern}" * (pattern != "*") + " (subfolders are not searched)" * (not deep)
        which += f" ({', '.join(suffixes)})" * (suffixes is not pictures.SUFFIXES)
        raise InputError(f"{folder}: no pictures{which}")
    return found


def by_name(
    folder: Path,
    suffixes: Collection[str] = pictures.SUFFIXES,
    *,
    deep: bool = True,
    pattern: str = "*",
) -> dict[str, Path]:
    """`find_pictures` by their relative paths without suffix. Raises InputError also for two of the
    same name."""
    found = find_pictures(folder, suffixes, deep=deep, pattern=pattern)
    return named(found, lambda path: path.relative_to(folder).with_suffix("").as_posix())


def named(paths: Iterable[Path], name: Callable[[Path], str]) -> dict[str, Path]:
    """Files by their names. Raises InputError for two of the same name."""
    found: dict[str, Path] = {}
    for path in paths:
        if found.setdefault(name(path), path) != path:
            raise InputError(f"{path} and {found[name(path)]} have the same name")
    return found


def twin(
    found: Mapping[str, Path], names: Sequence[str], endings: Sequence[str] = ("",)
) -> Path | None:
    """The file of a picture that has one of these names, plus one of `endings`; None without."""
    wanted = (name + ending for ending in endings for name in names)
    return next((found[name] for name in wanted if name in found), None)
