"""`sempic encode` and `sempic decode` of sequences: videos, cameras, folders of frames."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sempic import api, batch, console, fields, progress, sequence
from sempic.commands._files import only_for
from sempic.commands._sequence import sources, targets
from sempic.commands._sequence.report import details, summary
from sempic.errors import InputError, ModelError, OutputError, naming, notes_to
from sempic.options import DecodeOptions, EncodeOptions
from sempic.places import apart, is_stdout, need_local
from sempic.sequence import SequenceOptions
from sempic.sequence.names import is_video
from sempic.sequence.options import FASTEST, SLOWEST

if TYPE_CHECKING:
    from sempic.scene import Image
    from sempic.sequence import Moment, Unpacker
    from sempic.sequence.summary import Summary

__all__ = ["add_encode", "decode", "decodes", "details", "encode", "encodes", "noted", "rate"]

_SHARED = ("quality", "label_quality", "model", "max_side")
"""Options shared by pictures and sequences."""


def add_encode(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sequences", "of videos, cameras and streams")
    group.add_argument(
        "--sequence",
        action="store_true",
        help="read standard input as a video, or the pictures of a folder, in the order of their "
        "names, as its frames; files such as .mp4, /dev/video0 and rtsp:// are videos anyway",
    )
    group.add_argument(
        "--fps",
        type=rate,
        metavar="N",
        help="frames in a second; default: as the video has, 10 for a folder",
    )
    fields.add(group, SequenceOptions, but=_SHARED)


def encodes(args: argparse.Namespace) -> bool:
    """Whether the input is a sequence. Raises InputError for several videos, and for options of
    sequences with pictures."""
    if args.sequence or any(map(is_video, args.inputs)):
        if len(args.inputs) > 1:
            frames = "; pictures that are its frames are named as a folder" if args.sequence else ""
            raise InputError(f"{args.inputs[1]}: one video at a time{frames}")
        return True
    names = fields.from_args(args, SequenceOptions).keys() - set(_SHARED)
    names |= {"fps"} if args.fps else set()
    only_for("videos; with --sequence the input is taken for one", sorted(names))
    return False


def _refuse(args: argparse.Namespace, *names: str) -> None:
    """Raises InputError if one of these options, or one of runs over many files, is given."""
    usual = {"jobs": 1, "engine": batch.ENGINES[0]}
    others = (*names, "prior", "images", "manifest", *usual)
    used = [name for name in others if vars(args).get(name) not in (None, usual.get(name))]
    only_for("pictures, not for sequences", used)


def encode(args: argparse.Namespace) -> int:
    from sempic.sequence.summary import Summary

    (name,) = args.inputs
    unusable = [option for option in fields.from_args(args, EncodeOptions) if option not in _SHARED]
    _refuse(args, *unusable, "labels", "receiver", "verifier")
    options = SequenceOptions(**fields.from_args(args, SequenceOptions))
    target = targets.sequence_path(name, args.output)
    segmenter = vars(args).get("segmenter")
    max_side = vars(args).get("max_side")
    frames, frame_rate, count = sources.open_frames(
        name, target, rate=args.fps, max_side=max_side, segmenter=segmenter
    )
    coder = api.Codec(segmenter=segmenter)
    read = Summary()
    start = time.perf_counter()
    is_empty = True
    with (
        noted(name),
        targets.sequence_writer(target) as write,
        progress.bar(count, "frame") as advance,
    ):
        for piece in sequence.encode(frames, rate=frame_rate, codec=coder, **options.keywords()):
            write(piece)
            read.feed(piece)
            is_empty = False
            advance()
    if is_empty:
        raise InputError(f"{name}: a video without frames")
    _report(args, name, target, read.info(), start)
    return 0


def noted(name: str) -> contextlib.AbstractContextManager[None]:
    """Prints warnings of sempic at once, since a camera never ends."""

    def note(text: str) -> None:
        with progress.aside():
            console.say(f"{name}: {text}")

    return notes_to(note)


def decodes(args: argparse.Namespace) -> bool:
    """Whether the input is a sequence (`sources.is_sequence`). Raises InputError for several files
    with a sequence among them."""
    if len(args.inputs) == 1:
        return sources.is_sequence(args.inputs[0], args.output)
    if found := list(filter(sources.is_sequence, args.inputs)):
        raise InputError(f"{found[0]}: a sequence; decode one at a time")
    return False


def decode(args: argparse.Namespace) -> int:
    from sempic.sequence.pack import Unpacker
    from sempic.sequence.painter import Painter
    from sempic.sequence.summary import Summary, damage

    (name,) = args.inputs
    _refuse(args, "only", "uncertainty", "samples")
    options = DecodeOptions(**fields.from_args(args, DecodeOptions))
    target = args.output or targets.beside(name, ".mp4")
    if target == "-":
        raise OutputError("a video cannot go to standard output; name a file or a folder with -o")
    need_local(target)
    receiver = vars(args).get("receiver")
    apart((name, receiver), target)
    if args.output is None and Path(target).exists():
        raise OutputError(f"{target} exists, maybe the original; name the output with -o")
    painter = Painter(api.Codec(receiver=receiver), **options.keywords())
    unpacker, read = Unpacker(), Summary()
    start = time.perf_counter()
    pictures = _named(name, painter.paint_all(_moments(name, unpacker, read)))
    with noted(name), progress.bar(None, "frame") as advance:
        first = next(pictures)
        assert unpacker.head is not None
        with targets.picture_writer(target, unpacker.head.rate) as write:
            for picture in itertools.chain([first], pictures):
                write(picture)
                advance()
    if found := damage(unpacker):
        console.say(f"{name}: {found}")
    _report(args, name, target, read.info(unpacker.course), start)
    return 0


def _named(name: str, pictures: Iterator[Image]) -> Iterator[Image]:
    """The pictures; errors of the receiver begin with the file, as those of `_moments` do."""
    try:
        yield from pictures
    except ModelError as error:
        raise ModelError(f"{Path(name)}: {error}") from error


def _moments(name: str, unpacker: Unpacker, read: Summary) -> Iterator[Moment | None]:
    """The frames of a file, and None before a wait for more; also feeds the summary of what was
    read."""
    for piece in sources.read_pieces(name):
        if not piece:
            yield None
            continue
        with naming(Path(name)):
            read.feed(piece)
            yield from unpacker.feed(piece)
    with naming(Path(name)):
        rest = unpacker.close()
    yield from rest


def _report(
    args: argparse.Namespace, name: str, target: str, info: dict[str, Any], start: float
) -> None:
    took = time.perf_counter() - start
    record = {"path": name, "output": target, "took": took, **info}
    out = sys.stderr if is_stdout(Path(target)) else sys.stdout
    print(batch.json_line(record) if args.json else summary(record), file=out)


def rate(text: str) -> Fraction:
    """For argparse: frames in a second, such as 10, 12.5 or 30000/1001."""
    with contextlib.suppress(ValueError, ZeroDivisionError):
        value = Fraction(text)
        if SLOWEST <= value <= FASTEST:
            return value
    raise argparse.ArgumentTypeError(
        f"frames in a second are {float(SLOWEST)}…{FASTEST}, such as 10, 12.5 or 30000/1001, not "
        f"{text!r}"
    )
