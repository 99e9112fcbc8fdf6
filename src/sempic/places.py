"""The places of files: on this machine, at a URI, or a standard stream. Reading and writing there,
and checks before long work.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, cast

from sempic import console, files, formats
from sempic.errors import InputError, OutputError, install_hint, naming, refused
from sempic.palette import INDICES
from sempic.scene import Image, LabelMap

STDOUT = Path("-")
_LONGEST = 1 << 30
"""Most bytes that are read of a device or a pipe: a picture of MAX_PIXELS has fewer."""


def as_path(name: str) -> Path:
    """The path of a user's name: a URI becomes a `UPath`, and "-" STDOUT. Raises InputError."""
    if is_local(name):
        path = Path(name)
        # "./-" is a file; "-" is a standard stream
        return Path(os.path.abspath(name)) if path == STDOUT and name != "-" else path
    try:
        from upath import UPath
    except ModuleNotFoundError as error:
        raise InputError(f"{name}: URIs need universal-pathlib; {install_hint('ray')}") from error
    with refused(InputError, name, Exception):  # unknown scheme, missing library, no permission
        remote = cast(Path, UPath(name))
        remote.exists()
        remote.is_dir()
    return remote


def is_local(path: Path | str) -> bool:
    return "://" not in str(path)


def need_local(output: str) -> None:
    """Raises OutputError for a URI, of which a local folder "s3:" would be made."""
    if not is_local(output):
        raise OutputError(f"{output}: must be on this machine; only pictures may be elsewhere")


def exists(path: Path) -> bool:
    return os.path.exists(path) if is_local(path) else path.exists()


def is_folder(path: Path) -> bool:
    return os.path.isdir(path) if is_local(path) else path.is_dir()


def names_folder(output: str, place: Path) -> bool:
    """Whether an output is a folder: it is there (`place`), or its name ends with a slash."""
    return output.endswith(("/", os.sep)) or is_folder(place)


def is_unnamed(target: Path) -> bool:
    """Whether a target has no suffix, because it is standard output, a device or a pipe."""
    is_stream = target == STDOUT or (is_local(target) and files.is_stream(target))
    return is_stream and not target.suffix


def is_stdout(target: Path | None) -> bool:
    """Whether a target is standard output, by any of its names."""
    if target is None or target == STDOUT or not is_local(target):
        return target == STDOUT
    try:
        return os.path.samestat(os.stat(target), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError, AttributeError):  # no such file, or no descriptor
        return False


def need_folder(place: Path) -> None:
    """Raises OutputError if a folder of this name, made where it is missing, is no place for files.
    To be called before long work."""
    if formats.is_name_of_file(place) and not place.exists():
        raise OutputError(f"{place}: a folder under the name of a file; if it is meant, make it")
    files.check_writable(place, folder=True)


def apart(reads: Iterable[str | os.PathLike[str] | None], target: str | os.PathLike[str]) -> None:
    """Raises OutputError if `target` would overwrite one of `reads`; "-" and None are no file."""
    written = set(files.identities(Path(target))) - {None}
    for path in reads:
        if path is None or "-" in (str(path), str(target)) or not os.path.isfile(path):
            continue
        if written & set(files.identities(Path(path))):
            raise OutputError(f"{path}: would be replaced, and it is read; name another output")


def read(path: Path | None) -> bytes:
    """The bytes of a file, local or remote, or of standard input (None). Raises InputError without
    the file's name."""
    if path is None:
        with refused(InputError, "cannot read standard input", OSError, ValueError):
            return _read_stream(console.stdin())
    cause = OSError if is_local(path) else Exception  # stores have errors of their own
    with refused(InputError, "cannot read", cause):
        if not is_local(path) or path.is_file():
            return path.read_bytes()
        with open(path, "rb") as stream:
            return _read_stream(stream)


def _read_stream(stream: IO[bytes]) -> bytes:
    """All bytes of a device or a pipe, which may have no end. Raises InputError."""
    data = bytearray()
    while piece := stream.read(1 << 20):
        data += piece
        if len(data) > _LONGEST:
            raise InputError(f"no end within {_LONGEST >> 20} MiB, more than any picture has")
    return bytes(data)


def read_picture(path: Path) -> Image:
    """A picture file, uint8 (H, W, 3), upright, in sRGB. Raises InputError naming the file."""
    from sempic import pictures

    with naming(path):
        return pictures.read(read(path))


def read_ids(path: Path) -> LabelMap:
    """The stored samples of a label map file, uint8 (H, W); its colours are ignored. Raises
    InputError naming the file."""
    from sempic import pictures

    with naming(path):
        return pictures.read_labels(read(path), INDICES)


def write(path: Path, data: bytes) -> None:
    """Write a file, local or remote, or STDOUT. Raises OutputError, or BrokenPipeError if the
    reader of standard output has gone."""
    if path == STDOUT:
        console.to_stdout(data)
    elif is_local(path):
        files.write(path, data)
    else:
        with refused(OutputError, f"{path}: cannot write", Exception):  # varies by store
            path.write_bytes(data)  # object stores write a whole file or none
