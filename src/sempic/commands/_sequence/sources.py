"""Reads frames of videos and folders, and bytes of sequences."""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from sempic import files
from sempic.console import stdin
from sempic.container import SEQUENCE_MAGIC
from sempic.errors import ImageError, InputError, refused
from sempic.places import apart, read_picture
from sempic.sequence.names import WRITTEN

_PIECE_SIZE = 1 << 16
_FOLDER_RATE = Fraction(10)
"""Default for folders of frames, a second."""


def open_frames(
    name: str, target: str, *, rate: Fraction | None, max_side: int | None, segmenter: str | None
) -> tuple[Iterable[Any], Fraction, int | None]:
    """The frames of a video or folder, their rate, and their expected number.

    Raises InputError if they cannot be read, OutputError if the target is one of the files read.
    """
    if Path(name).is_dir():
        paths = _frame_files(Path(name))
        apart((*map(str, paths), segmenter), target)
        frames = _of_one_size(_read_pictures(paths, max_side))
        return frames, rate or _FOLDER_RATE, len(paths)
    from sempic.sequence.video import Source

    apart((name, segmenter), target)
    source = Source(name, rate=rate, max_side=max_side)
    named = ((f"{name}: frame {number}", frame) for number, frame in enumerate(source))
    return _of_one_size(named), source.rate, source.count


def _frame_files(folder: Path) -> list[Path]:
    """The pictures in the order of their names, 9 before 10. Raises InputError for a file that
    cannot be a frame: a frame may be missing."""
    from sempic import formats, pictures

    found = files.search(folder, pictures.SUFFIXES, formats.FOREIGN)
    for path, why in found.faults:
        raise InputError(f"{path}: {why}")
    for suffix in found.foreign:
        raise InputError(f"{folder}: {suffix} files in it cannot be read here")
    if not found.files:
        raise InputError(f"{folder}: no pictures in it")
    return sorted(found.files, key=_in_order)


def _in_order(path: Path) -> list[str | int]:
    """A key by which numbers in names are in their order, whether zeros fill them up or not."""
    texts = re.split("([0-9]+)", str(path))
    return [int(text) if number % 2 else text for number, text in enumerate(texts)]


def _read_pictures(paths: list[Path], max_side: int | None) -> Iterator[tuple[str, Any]]:
    from sempic import pictures

    for path in paths:
        pixels = read_picture(path)
        if max_side is not None:
            pixels = pictures.shrink(pixels, None, max_side)[0]
        yield str(path), pixels


def _of_one_size(named_frames: Iterable[tuple[str, Any]]) -> Iterator[Any]:
    """The frames without their names. Raises ImageError if one differs in size from the first."""
    first = None
    for name, pixels in named_frames:
        size = f"{pixels.shape[1]}×{pixels.shape[0]}"
        first = first or size
        if size != first:
            raise ImageError(f"{name} is {size}, and the first was {first}")
        yield pixels


def is_sequence(name: str, output: str | None = None) -> bool:
    """Whether a file or standard input ("-") starts like a sequence, or, where the start is not
    known, as that of a pipe or a missing file, whether a video is to be made of it.

    Raises InputError if standard input cannot be read."""
    start = _start(name)
    if start is None and output is not None and not os.path.isdir(name):
        return Path(output).suffix.lower() in WRITTEN
    return start == SEQUENCE_MAGIC


def _start(name: str) -> bytes | None:
    """The first two bytes; None: not known."""
    if name == "-":
        with refused(InputError, "cannot read standard input"):
            return None if sys.stdin is None else bytes(stdin().peek(2)[:2])
    if not os.path.isfile(name):  # the first bytes of a pipe cannot be read twice
        return None
    try:
        with open(name, "rb") as file:
            return file.read(2)
    except OSError:
        return None  # the caller opens the file, too, and reports the error


def read_pieces(name: str) -> Iterator[bytes]:
    """The bytes of a file or of standard input ("-"), as they arrive; b"" before a wait for more.

    Raises InputError."""
    with refused(InputError, f"{name}: cannot read"), contextlib.ExitStack() as stack:
        file = stdin() if name == "-" else stack.enter_context(open(name, "rb"))
        while True:
            if _must_wait(file):
                yield b""
            if not (piece := file.read1(_PIECE_SIZE)):
                return
            yield piece


def _must_wait(file: Any) -> bool:
    """Whether no byte is there yet; also if the system cannot tell."""
    try:
        return not select.select([file], [], [], 0)[0]
    except (OSError, ValueError):  # no files on Windows, nor those without a descriptor
        return True
