"""The pictures of a folder by name."""

from __future__ import annotations

from pathlib import Path

from sempic import files, pictures
from sempic.errors import InputError


def find(folder: Path) -> list[Path]:
    """The pictures of a folder, sorted by name. Raises InputError if there are none."""
    _need_folder(folder)
    candidates = (p for p in folder.iterdir() if p.suffix.lower() in pictures.SUFFIXES)
    found = sorted(p for p in candidates if p.name[0] != ".")  # macOS leaves ._NAME beside NAME
    if not found:
        raise InputError(f"{folder}: no pictures (subfolders are not searched)")
    return found


def by_name(folder: Path, *, deep: bool = True) -> dict[str, Path]:
    """The pictures of a folder, and with `deep` of its subfolders, by relative path without suffix.

    Raises InputError if there are none, or two have the same name.
    """
    named: dict[str, Path] = {}
    for path in _below(folder) if deep else find(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if named.setdefault(name, path) != path:
            raise InputError(f"{path} and {named[name]} have the same name")
    return named


def _below(folder: Path) -> list[Path]:
    _need_folder(folder)
    found = files.search(folder, pictures.SUFFIXES)
    for path, why in found.faults:
        raise InputError(f"{path}: {why}")
    if not found.files:
        raise InputError(f"{folder}: no pictures")
    return found.files


def _need_folder(path: Path) -> None:
    if not path.is_dir():
        raise InputError(f"{path}: {'not a' if path.exists() else 'no such'} folder")
