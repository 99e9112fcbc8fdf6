"""`sempic encode` and `sempic decode` of sequences: videos, cameras, folders of frames."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sempic import api, fields, files, processes, progress, sequence
from sempic.commands._files import only_for
from sempic.container import SEQUENCE_MAGIC
from sempic.errors import (
    ImageError,
    InputError,
    OutputError,
    SempicError,
    naming,
    notes_to,
    refused,
)
from sempic.jobs import apart, need_stdout, read_picture, to_stdout
from sempic.options import DecodeOptions, EncodeOptions
from sempic.sequence import SequenceOptions

if TYPE_CHECKING:
    from sempic.sequence import Moment, Unpacker
    from sempic.sequence.summary import Summary

_ALSO = ("quality", "label_quality", "model", "max_side")
"""What is asked of pictures and of frames alike."""
_PICTURES = "pictures, not for sequences"
_PIECE = 1 << 16
_NEEDY = "it needs a frame that is lost"
"""What an `Unpacker` notes of a frame that can be shown in part."""
_MOST_RUNS, _MOST_WHYS = 10, 3
"""Of what is lost, so much is said."""


def add_encode(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sequences", "of videos, cameras and streams")
    group.add_argument(
        "--sequence",
        action="store_true",
        help="standard input is a video, or a folder holds the frames of one in the order of "
        "their names; files such as .mp4, /dev/video0 and rtsp:// are taken for videos anyway",
    )
    group.add_argument(
        "--fps", type=rate, metavar="N", help="frames in a second; default: as the video has"
    )
    fields.add(group, SequenceOptions, but=_ALSO)


def encodes(args: argparse.Namespace) -> bool:
    """Whether a sequence is meant. Raises InputError where that cannot be."""
    from sempic.sequence.video import is_video

    videos = [name for name in args.inputs if is_video(name)]
    if args.sequence or videos:
        if len(args.inputs) > 1:
            raise InputError("one video at a time")
        return True
    given = fields.given(args, SequenceOptions).keys() - set(_ALSO)
    given |= {"fps"} if args.fps else set()
    only_for("videos; with --sequence the input is taken for one", sorted(given))
    return False


def encode(args: argparse.Namespace) -> int:
    from sempic.sequence.summary import Summary

    (name,) = args.inputs
    given = [name for name in fields.given(args, EncodeOptions) if name not in _ALSO]
    others = ("labels", "verifier", "prior", "manifest", "images")
    only_for(_PICTURES, [*given, *filter(vars(args).get, others)])
    options = SequenceOptions(**fields.given(args, SequenceOptions))
    target = _encoded(name, args.output)
    segmenter = vars(args).get("segmenter")
    frames, rate, count = _frames(name, args, target, segmenter)
    coder = api.Codec(segmenter=segmenter)
    summary = Summary()
    start = time.perf_counter()
    with noted(name), _growing(target) as write:
        done = 0
        with progress.bar(count, "frame") as advance:
            pieces = sequence.encode(frames, rate=rate, codec=coder, **options.keywords())
            for piece in pieces:
                write(piece)
                summary.feed(piece)
                done += 1
                advance()
    if not done:
        raise InputError(f"{name}: a video without frames")
    if target != "-" and not files.is_stream(target):
        _tell(args, name, target, summary.info(), start)
    return 0


def noted(name: str) -> contextlib.AbstractContextManager[None]:
    """Says what sempic warns of as soon as it does, not at the end: a camera has none."""

    def note(text: str) -> None:
        with progress.aside():
            processes.say(f"{name}: {text}")

    return notes_to(note)


def decodes(args: argparse.Namespace) -> bool:
    """Whether a sequence is meant: by how the file begins."""
    (first, *others) = args.inputs
    if first == "-":
        with refused(InputError, "cannot read standard input"):
            return sys.stdin is not None and _standard_input().peek(2)[:2] == SEQUENCE_MAGIC
    found = [name for name in args.inputs if _begins(name)]
    if found and others:
        raise InputError(f"{found[0]}: a sequence; decode one at a time")
    return bool(found)


def decode(args: argparse.Namespace) -> int:
    from sempic.sequence.pack import Unpacker
    from sempic.sequence.painter import Painter
    from sempic.sequence.summary import Summary

    (name,) = args.inputs
    others = ("only", "uncertainty", "samples", "prior", "manifest")
    only_for(_PICTURES, filter(vars(args).get, others))
    options = DecodeOptions(**fields.given(args, DecodeOptions))
    target = args.output or _beside(name, ".mp4")
    if target == "-":
        raise OutputError("a video cannot go to standard output; name a file or a folder with -o")
    receiver = vars(args).get("receiver")
    apart((name, receiver), target)
    if args.output is None and Path(target).exists():
        raise OutputError(f"{target} exists, maybe the original; name the output with -o")
    painter = Painter(api.Codec(receiver=receiver), **options.keywords())
    unpacker, summary, tally = Unpacker(), Summary(), _Tally()
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        sink: Callable[[Any], None] | None = None
        stack.enter_context(noted(name))
        advance = stack.enter_context(progress.bar(None, "frame"))
        for moment in _moments(name, unpacker, summary):
            if sink is None:
                assert unpacker.head is not None
                sink = stack.enter_context(_pictures(target, unpacker.head.rate))
            sink(painter.paint(moment))
            tally.add(moment)
            advance()
    if damage := tally.damage(unpacker.damage):
        processes.say(f"{name}: {damage}")
    _tell(args, name, target, tally.record(summary.info()), start)
    return 0


def _moments(name: str, unpacker: Unpacker, summary: Summary) -> Iterator[Moment]:
    for piece in _pieces(name):
        with naming(Path(name)):
            summary.feed(piece)
            yield from unpacker.feed(piece)
    with naming(Path(name)):
        rest = unpacker.close()
    yield from rest


@dataclass(slots=True)
class _Tally:
    """What became of the frames of a sequence."""

    frames: int = 0
    """That were written."""
    lost: list[range] = field(default_factory=list)
    """Numbers of frames that are lost or need one that is, in order."""
    _due: int = 0
    """Number of the next frame."""

    def add(self, moment: Moment) -> None:
        """A frame is written."""
        self.frames += 1
        gone = range(self._due, moment.number + (not moment.arrived))
        self._due = moment.number + 1
        if gone and self.lost and self.lost[-1].stop == gone.start:
            self.lost[-1] = range(self.lost[-1].start, gone.stop)
        elif gone:
            self.lost.append(gone)

    @property
    def _lost_count(self) -> int:
        return sum(run.stop - run.start for run in self.lost)

    def record(self, read: dict[str, Any]) -> dict[str, Any]:
        """What is reported: `sequence.info` of what was read, but of the frames that were written;
        and lost, a number of frames."""
        seconds, size = self.frames / read["rate"], read["bytes"]
        return read | {
            "frames": self.frames,
            "lost": self._lost_count,
            "seconds": seconds,
            "kbps": 8 * size / seconds / 1000,
            "bpp": 8 * size / (self.frames * read["width"] * read["height"]),
        }

    def damage(self, notes: Iterable[str]) -> str:
        """What went wrong, on one line; "" if nothing did. notes: of the `Unpacker`."""
        whys = dict.fromkeys(re.sub(r"^frame \d+: ", "", note) for note in notes)
        whys.pop(_NEEDY, None)
        parts = list(whys)[:_MOST_WHYS]
        if self.lost:
            many = self._lost_count > 1
            why = (
                "each is lost or needs a frame that is lost" if many else f"it is lost, or {_NEEDY}"
            )
            parts.insert(0, f"{_listed(self.lost)}: {why}")
        return "; ".join(parts)


def _listed(runs: list[range]) -> str:
    """Numbers of frames for people, such as "frames 1, 3 to 12"."""
    shown = [
        f"{run.start} to {run.stop - 1}" if run.stop - run.start > 1 else str(run.start)
        for run in runs[:_MOST_RUNS]
    ]
    count = sum(run.stop - run.start for run in runs)
    more = f" and others, {count} in all" if len(runs) > _MOST_RUNS else ""
    return f"frame{'s' if count > 1 else ''} {', '.join(shown)}{more}"


def described(data: bytes) -> dict[str, Any]:
    """`sequence.info` of a file, as it is reported."""
    record = sequence.info(data)
    return record | {"bpp": round(record["bpp"], 5), "kbps": round(record["kbps"], 3)}


def details(record: dict[str, Any]) -> str:
    """What a sequence holds, a line for each part."""
    count, seconds = record["frames"], record["seconds"] or 1
    parts = [*record["chunks"].items(), ("all else", record["overhead"]), ("all", record["bytes"])]
    return "\n".join(
        [
            f"{processes.printable(record['path'])}: a sequence, version {record['version']}, "
            f"{record['width']}×{record['height']}, {count} frames, {record['keys']} of them key "
            f"frames, {record['rate']:g} a second, palette {record['palette']}",
            *(
                f"  {name:<10}{size:>9} bytes{size / max(1, count):>9.1f} a frame"
                f"{8 * size / seconds / 1000:>9.2f} kbit/s"
                for name, size in parts
            ),
            *([f"  {record['damaged']} packets cannot be read"] if record["damaged"] else []),
        ]
    )


# ── sources ──────────────────────────────────────────────────────────────────────────────────


def _frames(
    name: str, args: argparse.Namespace, target: str, segmenter: str | None
) -> tuple[Iterable[Any], Fraction, int | None]:
    """Frames, how many in a second, and how many there may be; none of them is the target."""
    max_side = getattr(args, "max_side", None)
    if Path(name).is_dir():
        from sempic import formats, pictures

        found = files.search(Path(name), pictures.SUFFIXES, formats.FOREIGN)
        for path, why in found.faults:
            raise InputError(f"{path}: {why}")
        for suffix in found.foreign:
            raise InputError(f"{name}: {suffix} files in it cannot be read here")
        if not found.files:
            raise InputError(f"{name}: no pictures in it")
        apart((*map(str, found.files), segmenter), target)
        frames = _alike(_read(found.files, max_side))
        return frames, args.fps or Fraction(10), len(found.files)
    from sempic.sequence.video import Source

    apart((name, segmenter), target)
    source = Source(name, rate=args.fps, max_side=max_side)
    frames = _alike((f"{name}: frame {number}", one) for number, one in enumerate(source))
    return frames, source.rate, source.count


def _alike(frames: Iterable[tuple[str, Any]]) -> Iterator[Any]:
    """Named frames without their names; ImageError where one has another size than the first."""
    first = None
    for name, pixels in frames:
        size = f"{pixels.shape[1]}×{pixels.shape[0]}"
        first = first or size
        if size != first:
            raise ImageError(f"{name} is {size}, and the first was {first}")
        yield pixels


def _read(paths: list[Path], max_side: int | None) -> Iterator[tuple[str, Any]]:
    """The frames of files, with their names."""
    from sempic import pictures

    for path in paths:
        pixels = read_picture(path)
        if max_side is not None:
            pixels = pictures.shrink(pixels, None, max_side)[0]
        yield str(path), pixels


def _pieces(name: str) -> Iterator[bytes]:
    if name == "-":
        while piece := _standard_input().read1(_PIECE):
            yield piece
        return
    with refused(InputError, f"{name}: cannot read"), open(name, "rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _standard_input() -> Any:
    """As it is buffered: its first bytes can be looked at before it is read."""
    return sys.stdin.buffer


def _begins(name: str) -> bool:
    if not os.path.isfile(name):  # what is read of a pipe is gone
        return False
    try:
        with open(name, "rb") as file:
            return file.read(2) == SEQUENCE_MAGIC
    except OSError:
        return False  # whoever opens it says so


# ── targets ──────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _growing(target: str) -> Iterator[Callable[[bytes], None]]:
    """Writes pieces as they come. What was written stays if it ends early, beside a file that was
    there: hours of a camera may be in it."""
    if target == "-":
        need_stdout()
        yield to_stdout
        return
    from sempic.sequence.video import Growing

    file = Growing(Path(target))
    try:
        yield file.write
    except KeyboardInterrupt:
        raise KeyboardInterrupt(file.interrupt()) from None
    except SempicError as error:
        kept = file.interrupt()
        if kept and not file.is_new:
            raise type(error)(f"{error}; {kept}") from error
        raise
    except BaseException:
        file.close(keep=file.size > 0 and file.is_new)
        raise
    file.close(keep=file.size > 0)


@contextlib.contextmanager
def _pictures(target: str, rate: Fraction) -> Iterator[Callable[[Any], None]]:
    """A video, or a folder of numbered pictures. If the user ends it early, what was made of a
    video stays, and replaces no file."""
    from sempic.sequence.video import WRITTEN, Video

    path = Path(target)
    if path.suffix.lower() in WRITTEN and not path.is_dir():
        video = Video(path, rate)
        try:
            yield video.add
        except KeyboardInterrupt:
            raise KeyboardInterrupt(video.interrupt()) from None
        except BaseException:
            video.close(keep=False)
            raise
        video.close(keep=True)
        return
    if path.suffix and not path.is_dir():
        raise OutputError(f"{target}: a video is {', '.join(WRITTEN)}, or a folder of pictures")
    from sempic import pictures

    files.make_folder(path)
    numbers = itertools.count()

    def add(picture: Any) -> None:
        file = path / f"{next(numbers):06d}.png"
        files.write(file, pictures.encode(picture, ".png"))

    yield add
    if (after := path / f"{next(numbers):06d}.png").exists():
        processes.say(f"{after} and what follows were there before, and are none of these frames")


def _encoded(name: str, output: str | None) -> str:
    """Where the sequence goes: as named, into a folder that was named, or beside the source."""
    from sempic import pictures
    from sempic.sequence.video import READ

    if output is None:
        return "-" if name == "-" else _beside(name, ".sempic")
    if output != "-" and (output.endswith(("/", os.sep)) or os.path.isdir(output)):
        with contextlib.suppress(OSError):  # whoever opens the file says so
            os.makedirs(output, exist_ok=True)
        return str(Path(output, Path(_beside(name, ".sempic")).name))
    if Path(output).suffix.lower() in pictures.SUFFIXES | READ:
        raise OutputError(f"{output}: a .sempic file under the name of a picture or a video")
    return output


def _beside(name: str, suffix: str) -> str:
    path = Path(os.path.abspath(name) if name.strip("./") == "" else name)
    if "://" in name or name.startswith("/dev/") or name == "-" or not path.name:
        raise OutputError(f"{name}: name the output with -o")
    return str(path.with_name(path.name + suffix) if path.is_dir() else path.with_suffix(suffix))


def _tell(
    args: argparse.Namespace, name: str, target: str, record: dict[str, Any], start: float
) -> None:
    seconds = round(time.perf_counter() - start, 3)
    record = {"path": name, "output": target, "took": seconds, **record}
    if args.json:
        print(json.dumps(record))
    else:
        frames = "1 frame" if record["frames"] == 1 else f"{record['frames']} frames"
        print(
            f"{processes.printable(name)} → {processes.printable(target)}: {frames} "
            f"of {record['width']}×{record['height']}, {record['bytes']} bytes, "
            f"{record['kbps']:.1f} kbit/s, {seconds:.1f} s"
        )


def rate(text: str) -> Fraction:
    """For argparse: frames in a second, such as 10, 12.5 or 30000/1001."""
    with contextlib.suppress(ValueError, ZeroDivisionError):
        value = Fraction(text)
        if Fraction(1, 100) <= value <= 240:
            return value
    raise argparse.ArgumentTypeError(
        f"frames in a second are 0.01…240, such as 10, 12.5 or 30000/1001, not {text!r}"
    )
