"""Names the outputs of sequences, and writes them."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sempic import console, files, formats
from sempic.errors import OutputError, SempicError
from sempic.places import names_folder, need_local
from sempic.sequence.names import WRITTEN

if TYPE_CHECKING:
    from sempic.sequence.video import Growing, Video


def sequence_path(name: str, output: str | None) -> str:
    """The path of the sequence made from `name`: the output, a file in the output if that is a
    folder, or by default a file beside the source. Raises OutputError."""
    if output is None:
        return "-" if name == "-" else beside(name, ".sempic")
    need_local(output)
    if output != "-" and names_folder(output, Path(output)):
        with contextlib.suppress(OSError):  # opening the file reports the error
            os.makedirs(output, exist_ok=True)
        return str(Path(output, Path(beside(name, ".sempic")).name))
    formats.check_name(Path(output), ".sempic")
    return output


def beside(name: str, suffix: str) -> str:
    """The source's name with another suffix. Raises OutputError if the source is no file."""
    path = Path(os.path.abspath(name) if name.strip("./") == "" else name)
    if "://" in name or files.is_of_system(name) or name == "-" or not path.name:
        raise OutputError(f"{name}: name the output with -o")
    return str(path.with_name(path.name + suffix) if path.is_dir() else path.with_suffix(suffix))


@contextlib.contextmanager
def sequence_writer(target: str) -> Iterator[Callable[[bytes], None]]:
    """Writes bytes to a file or standard output at once. After an error or an interruption the
    frames until then stay, at the target or, if a file was there, beside it."""
    if target == "-":
        console.need_stdout(for_bytes=True)
        yield console.to_stdout
        return
    from sempic.sequence.video import Growing

    file = Growing(Path(target))
    with _kept_early(file):
        yield file.write


@contextlib.contextmanager
def _kept_early(output: Growing | Video) -> Iterator[None]:
    """Closes an output, also after an error or an interruption."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(output.interrupt()) from None
    except SempicError as error:
        kept = output.interrupt()
        if kept and not output.is_new:
            raise type(error)(f"{error}; {kept}") from error
        raise
    except BaseException:
        output.close(keep=output.is_new)
        raise
    output.close(keep=True)


@contextlib.contextmanager
def picture_writer(target: str, rate: Fraction) -> Iterator[Callable[[Any], None]]:
    """Writes pictures to a video, or to a folder as numbered PNG files; reports older files there
    that seem to follow them. After an error or an interruption the video until then stays, at the
    target or, if a file was there, beside it."""
    from sempic import pictures
    from sempic.sequence.video import Video

    path = Path(target)
    suffix = "" if names_folder(target, path) else path.suffix
    if suffix.lower() in WRITTEN:
        video = Video(path, rate)
        with _kept_early(video):
            yield video.add
        return
    if suffix or (path.exists() and not path.is_dir()):
        raise OutputError(f"{target}: a video is {', '.join(WRITTEN)}, or a folder of pictures")
    files.make_folder(path)
    paths = (path / f"{number:06d}.png" for number in itertools.count())
    yield lambda picture: files.write(next(paths), pictures.encode(picture, ".png"))
    if (after := next(paths)).exists():
        console.say(f"{after} and what follows were there before, and are none of these frames")
