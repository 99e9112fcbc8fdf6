"""Files of this machine: what a folder holds, and writing one whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sempic.errors import OutputError, refused


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

    Raises OutputError, which names the file, and leaves nothing behind, if that fails (no such
    folder, no permission, disk full).
    """
    with refused(OutputError, f"{os.fspath(path)}: cannot write"):
        stream = as_it_is(path)
        if stream is not None:
            with open(stream, "wb") as file:
                file.write(data)
            return
        target = replaceable(path)
        try:
            temporary = part_of(target)
            with removed_on_failure(temporary):
                _fill(temporary, data)
                _move(temporary, target)
        except OSError:
            if not target.is_file() or (os.access(target.parent, os.W_OK) and not _mounted(target)):
                raise
            _overwrite(target, data)


def stage(path: str | os.PathLike[str], data: bytes) -> Path:
    """The first half of `write`, for files that are to be replaced together: a file that `place`
    puts there. Raises OutputError as `write` does."""
    with refused(OutputError, f"{os.fspath(path)}: cannot write"):
        part = part_of(replaceable(path))
        with removed_on_failure(part):
            _fill(part, data)
    return part


def need_suffix(path: Path, suffix: str, what: str) -> None:
    """Raises OutputError, before the work, for the name of another kind of file."""
    if path.suffix.lower() != suffix:
        raise OutputError(f"{path}: the name of {what} ends in {suffix}")


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there. Raises OutputError."""
    with refused(OutputError, f"{path}: cannot make the folder"):
        path.mkdir(parents=True, exist_ok=True)


def place(part: Path, path: str | os.PathLike[str]) -> None:
    """Put a file that was written elsewhere, beside or `part_of`, where `write` would put its
    bytes, and in the same way; raises OutputError."""
    with refused(OutputError, f"{os.fspath(path)}: cannot write"):
        stream = as_it_is(path)
        if stream is not None:
            with open(part, "rb") as source, open(stream, "wb") as file:
                shutil.copyfileobj(source, file)
            part.unlink()
            return
        target = replaceable(path)
        if part.parent != target.parent or (target.is_file() and _mounted(target)):
            _overwrite(target, part.read_bytes())
            part.unlink()
        else:
            _move(part, target)


def part_of(path: str | os.PathLike[str]) -> Path:
    """A name for what is to be put at a path when it is whole: beside the file, where that can be,
    and such that it fits where any name does."""
    target = Path(os.path.realpath(path))
    name = f".{secrets.token_hex(8)}.part"
    if target.exists() and not (target.is_file() and os.access(target.parent, os.W_OK)):
        return Path(tempfile.gettempdir(), name)
    return target.with_name(name)


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether there is nothing to replace at a path: an open file of ours, a device or a pipe."""
    target = Path(os.path.realpath(path))
    return _descriptor(os.fspath(path)) is not None or (target.exists() and not target.is_file())


def as_it_is(path: str | os.PathLike[str]) -> int | Path | None:
    """What is to be opened where `is_stream`: a copy of an open file of ours that the path names
    (/dev/stdout, /dev/fd/3), or the path of a device or a pipe; else None."""
    if not is_stream(path):
        return None
    number = _descriptor(os.fspath(path))
    return Path(os.path.realpath(path)) if number is None else os.dup(number)


def replaceable(path: str | os.PathLike[str]) -> Path:
    """The file that is meant, through links; PermissionError if it is protected."""
    target = Path(os.path.realpath(path))
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(13, os.strerror(13))
    return target


def _fill(part: Path, data: bytes) -> None:
    """Makes a file; it is on disk then."""
    with open(part, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def removed_on_failure(path: Path) -> Iterator[None]:
    """Leaves no file there when what is done within fails."""
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _move(part: Path, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.copymode(target, part)
    os.replace(part, target)


def _mounted(target: Path) -> bool:
    """Whether a file is a mount of its own, as containers have them: it cannot be replaced."""
    return target.stat().st_dev != target.parent.stat().st_dev


def _overwrite(target: Path, data: bytes) -> None:
    before = target.read_bytes() if target.exists() else None
    try:
        target.write_bytes(data)
    except BaseException:
        if before is None:
            target.unlink(missing_ok=True)
        else:
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
