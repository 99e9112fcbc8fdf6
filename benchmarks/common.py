"""Shared parts of the benchmarks: command lines, folders of pictures at one size, results."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

from sempic import pictures
from sempic.evaluation.benchmark.results import processor
from sempic.scene import Image, LabelMap

Size = tuple[int, int]
"""(width, height) in pixels."""


def new_parser(doc: str | None, *, figures: bool = True) -> argparse.ArgumentParser:
    """A parser with a module's docstring as help; `figures`: with the option of `save`."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if figures:
        help = "write the figures here, too"
        parser.add_argument("--json", type=Path, metavar="OUT", help=help)
    return parser


def save(args: argparse.Namespace, figures: Any) -> None:
    """Writes figures to the file of --json, if there is one."""
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


def add_folder(parser: argparse.ArgumentParser, *, scaled: bool = True) -> None:
    """Adds the arguments of `load_pictures`; `scaled`: with --size."""
    parser.add_argument("folder", type=Path, help="pictures, searched at any depth")
    parser.add_argument("--glob", default="*", metavar="PATTERN", help="take matching file names")
    if scaled:
        text = "scale to this size first (PIL BICUBIC, maps NEAREST)"
        parser.add_argument("--size", type=parse_size, metavar="WxH", help=text)
    parser.set_defaults(size=None)
    parser.add_argument("--limit", type=int, metavar="N", help="take N pictures, evenly spread")


def load_pictures(args: argparse.Namespace) -> list[tuple[Path, Image]]:
    """The pictures of the folder with their paths, sorted. Raises SystemExit if there are none."""
    paths = sorted(p for p in args.folder.rglob(args.glob) if p.suffix.lower() in pictures.SUFFIXES)
    if not paths:
        raise SystemExit(f"{args.folder}: no pictures")
    if args.limit and args.limit < len(paths):
        paths = [paths[i * len(paths) // args.limit] for i in range(args.limit)]
    return [(path, load_picture(path, args.size)) for path in paths]


def load_picture(path: Path, size: Size | None) -> Image:
    picture = pictures.read(path.read_bytes())
    return picture if size is None else pictures.resized(picture, size, "BICUBIC")


def load_labels(path: Path, size: Size | None) -> LabelMap:
    labels = pictures.read_labels(path.read_bytes())
    return labels if size is None else pictures.resized(labels, size, "NEAREST")


def machine() -> str:
    return f"{processor()}, {os.cpu_count()} cores, {platform.system()}"


def parse_size(text: str) -> Size:
    width, height = text.lower().split("x")
    return int(width), int(height)
