"""Shared parts of the benchmarks: command lines, folders of pictures at one size, results."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sempic import files, pictures
from sempic.commands._files import positive as positive
from sempic.commands.benchmark import parse_size as parse_size
from sempic.errors import SempicError, naming
from sempic.evaluation.benchmark.results import processor
from sempic.evaluation.folders import by_name, spread
from sempic.places import read, read_picture
from sempic.scene import Image, LabelMap


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """Decorates `main`: an error of ours ends the benchmark with its one line."""
    try:
        yield
    except SempicError as error:
        raise SystemExit(str(error)) from None


def new_parser(doc: str | None, *, figures: bool = True) -> argparse.ArgumentParser:
    """A parser with a module's docstring as help; `figures`: with the option of `save`."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if figures:
        help = "write the figures here, too"
        parser.add_argument("--json", type=new_file, metavar="OUT", help=help)
    return parser


def above_zero(text: str) -> float:
    """argparse type of a number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


above_zero.__name__ = "number above 0"


def listed(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """argparse type of values separated by commas; `kind`: that of one value."""

    def parts(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",")]

    parts.__name__ = f"list of {kind.__name__}"
    return parts


def new_file(text: str) -> Path:
    """argparse type of a file that can be written, which is checked before the work."""
    try:
        files.check_writable(Path(text))
        files.make_folder(Path(text).parent)
    except SempicError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def save(args: argparse.Namespace, figures: Any) -> None:
    """Writes figures to the file of --json, if there is one."""
    if args.json:
        files.write(args.json, (json.dumps(figures, indent=1) + "\n").encode())


def add_folder(parser: argparse.ArgumentParser, *, scaled: bool = True) -> None:
    """Adds the arguments of `load_pictures`; `scaled`: with --size."""
    parser.add_argument("folder", type=Path, help="pictures, searched at any depth")
    parser.add_argument("--glob", default="*", metavar="PATTERN", help="take matching file names")
    if scaled:
        text = "scale to this size first (PIL BICUBIC, maps NEAREST)"
        parser.add_argument("--size", type=parse_size, metavar="WxH", help=text)
    parser.set_defaults(size=None)
    parser.add_argument("--limit", type=positive, metavar="N", help="take N, evenly spread")


def load_pictures(args: argparse.Namespace) -> list[tuple[Path, Image]]:
    """The pictures of the folder with their paths, sorted. Raises InputError if there are none, or
    one cannot be read."""
    paths = spread([*by_name(args.folder, pattern=args.glob).values()], args.limit)
    return [(path, load_picture(path, args.size)) for path in paths]


def load_picture(path: Path, size: tuple[int, int] | None) -> Image:
    """At a size (width, height); None: its own."""
    picture = read_picture(path)
    return picture if size is None else pictures.resized(picture, size, "BICUBIC")


def load_labels(path: Path, size: tuple[int, int] | None) -> LabelMap:
    with naming(path):
        labels = pictures.read_labels(read(path))
    return labels if size is None else pictures.resized(labels, size, "NEAREST")


def now() -> np.ndarray:
    """Seconds, and processor seconds of this process; differences count."""
    return np.array((time.perf_counter(), time.process_time()))


def machine() -> str:
    return f"{processor()}, {os.cpu_count()} cores, {platform.system()}"
