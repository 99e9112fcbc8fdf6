"""What is done to one file, wherever that may be, and what is reported of it."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sempic import api, codec, container, files, formats, progress
from sempic.batch import tar
from sempic.errors import (
    BitstreamError,
    ImageError,
    InputError,
    OutputError,
    SempicError,
    line,
    naming,
    notes_to,
)
from sempic.fields import another, option
from sempic.jobs import STDOUT, Job, read
from sempic.options import DecodeOptions, EncodeOptions, Models
from sempic.palette import PALETTES
from sempic.scene import Scene

Record = dict[str, Any]
"""What is reported of one picture: path, output, seconds, and bytes, bpp, … or error."""
Work = Callable[[Job], Record | list[Record]]
"""A function of the module's top level, or an instance with __call__: it is sent to processes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encode:
    """What `sempic encode` does to one file; all but `options` are arguments of its own."""

    labels: str | None = option(
        "send this label map (a picture of ids, or a folder of them under the pictures' names) "
        "instead of the segmenter's",
        None,
        metavar="MAP",
    )
    segmenter: str | None = another(Models, "segmenter", None)
    verifier: str | None = another(Models, "verifier", None)
    prior: str | None = another(Models, "prior", None)
    images: str | None = option(
        "how the names of pictures end in tars, such as .jpg; default: label maps beside them are "
        "recognised",
        None,
        metavar="ENDING",
    )
    options: EncodeOptions = field(default_factory=EncodeOptions)

    def __call__(self, job: Job) -> Record | list[Record]:
        if job.is_tar:
            if self.labels:
                raise InputError("--labels are for pictures, not for tars of them")
            choose = functools.partial(tar.pictures, ending=self.images)
            return _change_tar(job, self._coded, choose, ".sempic")
        stream, record = self._coded(job.read(), job)
        job.write(stream)
        return record

    def _labels(self, job: Job) -> Any:
        from sempic import pictures

        assert self.labels is not None
        path = Path(self.labels)
        if os.path.isdir(path):
            path = path / job.relative.with_suffix(".png")
        with naming(path):
            return pictures.read_labels(read(path), self.options.known_palette)

    def _coded(self, data: bytes, job: Job | None = None) -> tuple[bytes, Record]:
        """`job`: whose picture it is, which may have a label map; None: a member of a tar."""
        from sempic import pictures

        try:
            picture = pictures.read(data)
        except ImageError as error:
            if job is None or not formats.is_video(data):
                raise
            raise ImageError(f"{error}; a video takes --sequence") from error
        labels = self._labels(job) if job is not None and self.labels else None
        coder = coder_with(segmenter=self.segmenter, verifier=self.verifier, prior=self.prior)
        stream = coder.encode(picture, labels=labels, **self.options.keywords())
        return stream, described(stream)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decode:
    """What `sempic decode` does to one file; all but `options` and `replace` are arguments of its
    own."""

    only: Literal["labels", "coarse"] | None = option(
        "just the coloured label map, or the coarse picture enlarged; no receiver needed",
        None,
        choices=("labels", "coarse"),
    )
    uncertainty: str | None = option(
        "also write this grey picture of where decodes of other seeds differ: four times the "
        "standard deviation of each pixel over --samples of them. Black is where the seeds agree, "
        "which they may where all are wrong",
        None,
        metavar="MAP",
    )
    samples: int = option("of --uncertainty", 8, low=1, metavar="N")
    receiver: str | None = another(Models, "receiver", None, flags=("--receiver", "--model"))
    prior: str | None = another(Models, "prior", None)
    images: str = option(
        "how the names of pictures are to end in tars, such as .jpg", ".png", metavar="ENDING"
    )
    options: DecodeOptions = field(default_factory=DecodeOptions)
    replace: bool = True
    """Whether a picture that is there may be replaced."""

    def __call__(self, job: Job) -> Record | list[Record]:
        from sempic import pictures

        if job.is_tar:
            return _change_tar(job, self._member, tar.streams, "." + self.images.lstrip("."))
        stream = stream_of(job.read())
        target = job.target
        assert target is not None
        if not self.replace and target != STDOUT and target.exists():
            raise OutputError(f"{target} exists, maybe the original; name the output with -o")
        scene = self._scene(stream)
        data = self._picture(scene, ".png" if target == STDOUT else target.suffix)
        if self.uncertainty is not None:
            spread = self._coder.uncertainty(scene, samples=self.samples, **self.options.keywords())
            grey = np.minimum(np.rint(4 * spread), 255).astype(np.uint8)
            path = Path(self.uncertainty)
            with naming(path):
                spread_data = pictures.encode(grey, path.suffix)
            part = files.stage(path, spread_data)
            with files.removed_on_failure(part):
                job.write(data)
                files.place(part, path)
        else:
            job.write(data)
        return described(stream)

    def _member(self, data: bytes) -> tuple[bytes, Record]:
        stream = stream_of(data)
        suffix = "." + self.images.rpartition(".")[2]
        return self._picture(self._scene(stream), suffix), described(stream)

    def _scene(self, stream: bytes) -> Any:
        with progress.waiting("reading labels and coarse picture", aloud=False):
            return codec.unpack(stream, only=self.only, prior=self._coder.prior)

    def _picture(self, scene: Any, suffix: str) -> bytes:
        from sempic import pictures

        if self.only is not None:
            return part_of(scene, self.only, suffix)
        picture = self._coder.synthesize(scene, **self.options.keywords())
        return pictures.encode(picture, suffix)

    @property
    def _coder(self) -> api.Codec:
        return coder_with(receiver=self.receiver, prior=self.prior)


def part_of(scene: Scene, only: str, suffix: str) -> bytes:
    """A picture file of a part of a scene: "labels" in their colours, or "coarse", enlarged.

    Raises BitstreamError if the scene lacks it.
    """
    from sempic import pictures

    if only == "coarse":
        return pictures.encode(api.preview(scene), suffix)
    if scene.labels is None:
        raise BitstreamError("the stream has no label map")
    return pictures.encode_labels(scene.labels, PALETTES[scene.palette], suffix)


coder_with = functools.cache(api.Codec)
"""One codec for all files of a process: its networks are loaded once."""


def described(stream: bytes, *, shares: bool = False, prior: str | None = None) -> Record:
    """`sempic.info` of a stream, as it is reported; the prior is for the shares."""
    record = api.info(stream, shares=shares, prior=coder_with(prior=prior).prior)
    record["bpp"] = round(record["bpp"], 5)
    return record


def stream_of(data: bytes) -> bytes:
    """What should be a .sempic file; raises InputError for a picture, to tell that from damage."""
    from sempic import pictures

    if not data.startswith(container.MAGIC) and (kind := pictures.kind(data)):
        raise InputError(f"a picture ({kind}), not a .sempic file; sempic encode makes one of it")
    return data


def _change_tar(
    job: Job,
    change: Callable[[bytes], tuple[bytes, Record]],
    choose: Callable[[list[tar.Member]], list[tar.Member]],
    ending: str,
) -> list[Record]:
    records: list[Record] = []

    def tried(member: tar.Member) -> bytes | None:
        start = time.perf_counter()
        record: Record = {"path": f"{job.name}/{member.name}", "output": str(job.target)}
        records.append(record)
        payload = None
        try:
            with noting() as notes:
                payload, found = change(member.data)
            record |= found | notes
        except Exception as error:
            record["error"] = cause(error)
        record["seconds"] = round(time.perf_counter() - start, 4)
        return payload

    changed = tar.change(job.read(), tried, choose, ending)
    if records and all("error" in record for record in records):  # nothing that could be of use
        return [{k: v for k, v in record.items() if k != "output"} for record in records]
    job.write(changed)
    return records


def attempt(work: Work, job: Job) -> list[Record]:
    """The records of a job; whatever went wrong is one, and costs this file and no other."""
    start = time.perf_counter()
    common: Record = {"path": job.name}
    if job.target is not None:
        common["output"] = str(job.target)
    try:
        with noting() as notes:
            result = work(job)
        if isinstance(result, dict):
            result = result | notes
        else:
            common.pop("output", None)  # of a tar each member says it
    except BrokenPipeError:  # nobody reads what we write: no fault of the file
        raise
    except Exception as error:
        result = {"error": cause(error)}
        common.pop("output", None)
    seconds = {"seconds": round(time.perf_counter() - start, 4)}
    return [common | seconds | r for r in (result if isinstance(result, list) else [result])]


@contextlib.contextmanager
def noting() -> Iterator[Record]:
    """A part of a record, filled with what sempic warns of within, if it does: each once."""
    record: Record = {}
    with notes_to(lambda text: record.setdefault("notes", []).append(text)):
        yield record


def cause(error: Exception) -> str:
    """What a record says of an exception: whatever it was, it costs this file and no other."""
    if isinstance(error, SempicError):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory"
    return f"{type(error).__name__}: {line(error)}"
