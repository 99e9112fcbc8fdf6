"""Files of this machine: what a folder holds, and writing one whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from sempic.errors import OutputError


@dataclass(slots=True)
class Found:
    """What a search found; nothing is left out without a word."""

    files: list[Path] = field(default_factory=list)
    """Sorted by their parts; dangling links and what is no regular file are among `faults`."""
    faults: list[tuple[Path, str]] = field(default_factory=list)
    """Files and folders that cannot be read, and why."""
    foreign: Counter[str] = field(default_factory=Counter)
    """How many files have a suffix that was named as foreign."""


def search(folder: Path, suffixes: Collection[str], foreign: Collection[str] = ()) -> Found:
    """The files below a folder whose suffix, in lower case, is among `suffixes`, at any depth.

    Links are followed, but never back into a folder that they lie in. Names that begin with a dot
    are not searched.
    """
    found = Found()

    def unreadable(cause: OSError) -> None:
        found.faults.append((Path(cause.filename), f"cannot search: {cause.strerror}"))

    above = {str(folder): [_identity(folder)]}  # the folders that lead to one, itself included
    for top, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        kept = []
        for name in sorted(folders):
            path = os.path.join(top, name)
            identity = _identity(path)
            if not name.startswith(".") and (identity is None or identity not in above[top]):
                above[path] = [*above[top], identity]
                kept.append(name)
        folders[:] = kept
        for name in names:
            file = Path(top, name)
            suffix = file.suffix.lower()
            if name.startswith("."):
                continue
            if suffix not in suffixes:
                found.foreign.update([suffix] if suffix in foreign else [])
            elif file.is_file():
                found.files.append(file)
            elif file.is_symlink():
                found.faults.append((file, "a link that leads to no file"))
            else:
                found.faults.append((file, "neither a file nor a folder"))
    found.files.sort(key=lambda path: path.parts)
    found.faults.sort()
    return found


def same(path: Path) -> tuple[str, tuple[int, int] | None]:
    """What tells whether two names are of one file: its real path, and its identity if it is."""
    return os.path.realpath(path), _identity(path)


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all: an existing one is replaced only once all is on disk.

    Links are followed, and an existing file keeps its permissions. Devices, pipes and our own open
    files (/dev/stdout, /dev/fd/3) are written to as they are. Where a file may be written but
    its folder may not, it is overwritten in place, and restored if that fails.

    Raises OutputError, and leaves nothing behind, if that fails (no such folder, no permission,
    disk full).
    """
    try:
        number = _descriptor(os.fspath(path))
        if number is not None:
            with open(os.dup(number), "wb") as file:
                file.write(data)
            return
        target = Path(os.path.realpath(path))  # through a link, not over it
        if target.exists() and not target.is_file():  # a pipe or a device: nothing to replace
            target.write_bytes(data)
            return
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(13, os.strerror(13))
        _replace(target, data)
    except OSError as cause:
        raise OutputError(f"cannot write: {cause.strerror}") from cause


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there. Raises OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise OutputError(f"{path}: cannot make the folder: {cause.strerror}") from cause


def part_of(target: Path) -> Path:
    """A name beside a file for what is to replace it; it fits where any name does."""
    return target.with_name(f".{secrets.token_hex(8)}.part")


def _replace(target: Path, data: bytes) -> None:
    temporary = part_of(target)
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError:
        temporary.unlink(missing_ok=True)
        if not target.is_file() or (os.access(target.parent, os.W_OK) and not _mounted(target)):
            raise
        _overwrite(target, data)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _mounted(target: Path) -> bool:
    """Whether a file is a mount of its own, as containers have them: it cannot be replaced."""
    return target.stat().st_dev != target.parent.stat().st_dev


def _overwrite(target: Path, data: bytes) -> None:
    before = target.read_bytes()
    try:
        target.write_bytes(data)
    except BaseException:
        target.write_bytes(before)
        raise


def _descriptor(path: str) -> int | None:
    """The number of the open file of ours that a path names, maybe through links."""
    for _ in range(40):
        folder, name = os.path.split(os.path.abspath(path))
        if re.fullmatch(
            rf"/proc/({os.getpid()}|self)(/task/\d+)?/fd|/dev/fd", os.path.realpath(folder)
        ):
            return int(name) if name.isdecimal() else None
        if not os.path.islink(path):
            return None
        path = os.path.join(folder, os.readlink(path))
    return None


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
