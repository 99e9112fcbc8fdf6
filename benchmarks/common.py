"""What the benchmarks share: a folder of pictures, at a size."""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import numpy as np
import PIL.Image

from sempic import pictures
from sempic.scene import Image, LabelMap

Size = tuple[int, int]
"""(width, height) in pixels."""


def add_folder(parser: argparse.ArgumentParser, *, scaled: bool = True) -> None:
    """What `load_pictures` needs; scaled: whether they may be scaled to one size first."""
    parser.add_argument("folder", type=Path, help="pictures, searched at any depth")
    parser.add_argument("--glob", default="*", metavar="PATTERN", help="of the names to take")
    if scaled:
        text = "scale to this first (PIL BICUBIC, maps NEAREST)"
        parser.add_argument("--size", type=parse_size, metavar="WxH", help=text)
    parser.set_defaults(size=None)
    parser.add_argument("--limit", type=int, metavar="N", help="take N pictures, evenly spread")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here, too")


def load_pictures(args: argparse.Namespace) -> list[tuple[Path, Image]]:
    """Every picture of the folder with its path, in the order of names."""
    paths = sorted(p for p in args.folder.rglob(args.glob) if p.suffix.lower() in pictures.SUFFIXES)
    if args.limit and args.limit < len(paths):
        paths = [paths[i * len(paths) // args.limit] for i in range(args.limit)]
    return [(path, load_picture(path, args.size)) for path in paths]


def load_picture(path: Path, size: Size | None) -> Image:
    picture = pictures.read(path.read_bytes())
    return _resize(picture, size, PIL.Image.Resampling.BICUBIC)


def load_labels(path: Path, size: Size | None) -> LabelMap:
    labels = pictures.read_labels(path.read_bytes())
    return _resize(labels, size, PIL.Image.Resampling.NEAREST)


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _resize(array: np.ndarray, size: Size | None, filter: PIL.Image.Resampling) -> np.ndarray:
    return array if size is None else np.array(PIL.Image.fromarray(array).resize(size, filter))


def parse_size(text: str) -> Size:
    width, height = text.lower().split("x")
    return int(width), int(height)
