"""Local files: searching folders, and writing a file completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sempic.errors import OutputError, refused

_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(slots=True)
class Found:
    """The result of a search."""

    files: list[Path] = field(default_factory=list)
    """Regular files, sorted by the parts of their paths."""
    faults: list[tuple[Path, str]] = field(default_factory=list)
    """Paths that cannot be read (dangling links, devices, unreadable folders), with the reason."""
    foreign: Counter[str] = field(default_factory=Counter)
    """Number of files by foreign suffix."""


def search(
    folder: Path, suffixes: Collection[str], foreign: Collection[str] = (), *, deep: bool = True
) -> Found:
    """The files below a folder, at any depth, whose suffix in lower case is among `suffixes`.

    Without `deep`, only those in the folder itself. Follows links, except to a parent folder. Skips
    names that begin with a dot. Counts files whose suffix is among `foreign`.
    """
    found = Found()

    def unreadable(cause: OSError) -> None:
        found.faults.append((Path(cause.filename), f"cannot search: {cause.strerror}"))

    parents = {str(folder): [identity(folder)]}  # of each folder, the folder itself included
    for top, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        kept = []
        for name in sorted(folders):
            path = os.path.join(top, name)
            number = identity(path)
            if not name.startswith(".") and (number is None or number not in parents[top]):
                parents[path] = [*parents[top], number]
                kept.append(name)
        folders[:] = kept if deep else []
        for name in names:
            file = Path(top, name)
            suffix = file.suffix.lower()
            if name.startswith("."):
                continue
            if suffix not in suffixes:
                found.foreign.update([suffix] if suffix in foreign else [])
            elif why := _fault(file):
                found.faults.append((file, why))
            else:
                found.files.append(file)
    found.files.sort(key=lambda path: path.parts)
    found.faults.sort()
    return found


def _fault(file: Path) -> str | None:
    """Why a name in a folder is no file that can be read; None: it is one."""
    try:
        is_file = stat.S_ISREG(os.stat(file).st_mode)
    except PermissionError as cause:  # its folder, or one on the way of a link, cannot be entered
        return f"cannot read: {cause.strerror}"
    except OSError:
        return "a link that leads to no file"
    return None if is_file else "neither a file nor a folder"


def identities(path: Path) -> tuple[str, tuple[int, int] | None]:
    """The real path and the identity (None: no such file). Two names of one file share either."""
    return os.path.realpath(path), identity(path)


def identity(path: str | os.PathLike[str] | int) -> tuple[int, int] | None:
    """Device and number of a file, or of a descriptor's, the same for all names; None: no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file completely or not at all: the new file replaces an old one when it is on disk.

    Follows links and keeps the permissions of an existing file. Writes directly to devices, pipes
    and open files of this process (/dev/stdout, /dev/fd/3). Overwrites a mounted file, or
    one in a read-only folder, in place, and restores it if that fails.

    Raises OutputError naming the file (no such folder, no permission, disk full).
    """
    with refused(OutputError, f"{os.fspath(path)}: cannot write"):
        stream = direct_target(path)
        if stream is not None:
            with open(stream, "wb") as file:
                file.write(data)
            return
        target = replaceable(path)
        if _only_in_place(target):
            _overwrite(target, data)
            return
    with replacing(path, data):
        pass


def append(path: Path, data: bytes, *, replacing: int = 0) -> None:
    """Append bytes completely or not at all, in place of the last `replacing` bytes. A file that
    was not there is not there after a failure. Raises OutputError."""
    existed = path.exists()
    with (
        refused(OutputError, f"{path}: cannot write"),
        open(path, "ab", buffering=0) as file,
    ):
        end = file.seek(0, os.SEEK_END) - replacing
        try:
            if replacing:
                file.truncate(end)
            write_all(file, data)
        except BaseException:
            with contextlib.suppress(OSError):
                file.truncate(end)
            if not existed:
                discard(path)
            raise


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of a file or a folder, where system and disk have locks. Raises OutputError if
    another run holds it, or it cannot be opened."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        yield
        return
    with refused(OutputError, f"{path}: cannot open"):
        # NFS locks only what is open for writing, which a folder cannot be.
        file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{path}: another run writes it now") from None
        except OSError:  # of some network disks
            pass
        yield
    finally:
        os.close(file)


def write_all(file: IO[bytes], data: bytes) -> None:
    """Write to an unbuffered file, of which a nearly full disk takes a part at a time."""
    while data:
        data = data[file.write(data) :]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], data: bytes) -> Iterator[None]:
    """As `write`, in two halves, to replace several files together: the new file is on disk before
    the block, and replaces an old one after it, unless the block fails. Raises OutputError."""
    what = f"{os.fspath(path)}: cannot write"
    with refused(OutputError, what):
        part = temporary_for(replaceable(path))
    with removed_on_failure(part):
        with refused(OutputError, what), open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield
        move_to_target(part, path)


@contextlib.contextmanager
def making(path: Path) -> Iterator[Path]:
    """An empty temporary file, for libraries that write files themselves: it is moved to the path
    after the block, and removed if the block fails. Raises OutputError, also for an OSError of the
    block."""
    part = temporary_for(path)
    with refused(OutputError, f"{path}: cannot be written"), removed_on_failure(part):
        part.touch()
        yield part
        move_to_target(part, path)


def need_suffix(path: Path, suffix: str, what: str) -> None:
    """Raises OutputError if a path has another suffix; what: the kind of file."""
    if path.suffix.lower() != suffix:
        raise OutputError(f"{path}: the name of {what} ends in {suffix}")


def check_writable(path: Path, *, folder: bool = False) -> None:
    """Raises OutputError if no file can be written at a path, or with `folder` into a folder there,
    after missing folders are made. To be called before long work."""
    what = "not a writable folder" if folder else "cannot write"
    with refused(OutputError, f"{path}: {what}"):
        existing = next((p for p in (path, *path.absolute().parents) if _exists(p)), None)
        if existing is None:  # a drive of Windows that is not there
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if (folder or existing != path) != existing.is_dir():
            code = errno.EISDIR if existing.is_dir() else errno.ENOTDIR
            raise OSError(code, os.strerror(code))
        if not os.access(existing, os.W_OK):
            raise _not_writable(existing)


def _exists(path: Path) -> bool:
    """Raises OSError if that cannot be known, as for a name that is too long. `Path.exists` does so
    before Python 3.14 only."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError):
        path.stat()
        return True
    return False


def make_folder(path: Path) -> None:
    """Make a folder and its parents, unless they exist. Raises OutputError."""
    with refused(OutputError, f"{path}: cannot make the folder"):
        path.mkdir(parents=True, exist_ok=True)


def move_to_target(part: Path, path: str | os.PathLike[str]) -> None:
    """Move a file of `temporary_for` to its path, as `write` does; raises OutputError."""
    with refused(OutputError, f"{os.fspath(path)}: cannot write"):
        stream = direct_target(path)
        if stream is not None:
            with open(part, "rb") as source, open(stream, "wb") as file:
                shutil.copyfileobj(source, file)
            part.unlink()
            return
        target = replaceable(path)
        if _only_in_place(target):
            _overwrite(target, part.read_bytes())
            part.unlink()
        else:
            _move(part, target)


def temporary_for(path: str | os.PathLike[str]) -> Path:
    """A new short name for a temporary file: in the folder of the path, or in the system's folder
    for temporary files if the path's folder is not writable."""
    target = Path(os.path.realpath(path))
    name = f".{secrets.token_hex(8)}.part"
    if target.exists() and not (target.is_file() and os.access(target.parent, os.W_OK)):
        return Path(tempfile.gettempdir(), name)
    return target.with_name(name)


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an open file of this process, a device or a pipe: nothing to replace."""
    target = Path(os.path.realpath(path))
    return _descriptor(os.fspath(path)) is not None or (target.exists() and not target.is_file())


def is_of_system(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an open file of this process or a device of the system, beside which no
    file belongs; those of /dev/shm are plain files."""
    return os.path.abspath(path).startswith(("/dev/", "/proc/")) and is_stream(path)


def direct_target(path: str | os.PathLike[str]) -> int | Path | None:
    """What to open for a path that `is_stream`: a duplicate of the file descriptor (/dev/stdout,
    /dev/fd/3), or the path of a device or pipe. None for other paths."""
    if not is_stream(path):
        return None
    number = _descriptor(os.fspath(path))
    return Path(os.path.realpath(path)) if number is None else os.dup(number)


def replaceable(path: str | os.PathLike[str]) -> Path:
    """The file behind links; raises OSError if the file is read-only."""
    target = Path(os.path.realpath(path))
    if target.exists() and not os.access(target, os.W_OK):
        raise _not_writable(target)
    return target


def _not_writable(path: Path) -> OSError:
    """Why a file or folder that exists cannot be written: it, or its whole disk, is read-only."""
    read_only_disk = hasattr(os, "statvfs") and os.statvfs(path).f_flag & os.ST_RDONLY
    code = errno.EROFS if read_only_disk else errno.EACCES
    return OSError(code, os.strerror(code))


@contextlib.contextmanager
def removed_on_failure(path: Path) -> Iterator[None]:
    """Removes the file if the block fails."""
    try:
        yield
    except BaseException:
        discard(path)
        raise


def discard(path: Path) -> None:
    """Removes a temporary file, if there is one; an error of that would hide the first, as on a
    read-only disk."""
    with contextlib.suppress(OSError):
        path.unlink()


def _move(part: Path, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if target.stat().st_mode != part.stat().st_mode:  # disks without permissions refuse a chmod
            shutil.copymode(target, part)
    try:
        os.replace(part, target)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        why = "a mount point, or in use by the system, which cannot be replaced"
        raise OSError(errno.EBUSY, f"{error.strerror}: {why}") from error


def _only_in_place(target: Path) -> bool:
    """Whether a file cannot be replaced, because of its folder or as a mount point."""
    return target.is_file() and (not os.access(target.parent, os.W_OK) or _mounted(target))


def _mounted(target: Path) -> bool:
    """Whether a file is a mount point, as in containers, and cannot be replaced."""
    # On Linux a mount can have the device of its folder, and a plain file of an overlay another.
    escaped = re.sub(rb"[\s\\]", lambda found: b"\\%03o" % ord(found[0]), os.fsencode(target))
    with contextlib.suppress(OSError):  # the fifth field of a line is the path
        return any(line.split()[4] == escaped for line in _MOUNTS.read_bytes().splitlines())
    return target.stat().st_dev != target.parent.stat().st_dev


def _overwrite(target: Path, data: bytes) -> None:
    # Not emptied first: where the disk is full, only its own bytes can surely be written again.
    with open(target, "r+b", buffering=0) as file:
        before = file.read()
        file.seek(0)
        try:
            write_all(file, data)
            file.truncate()
        except BaseException:
            file.seek(0)
            with contextlib.suppress(OSError):  # beyond a limit nothing has changed
                write_all(file, before)
            file.truncate(len(before))
            raise


def _descriptor(path: str) -> int | None:
    """The file descriptor of this process that a path names, directly or through links."""
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
