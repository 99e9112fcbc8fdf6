"""Work: encoding or decoding the file of a job, and the records of the result."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sempic import api, codec, console, container, fields, files, formats, processes, progress
from sempic.batch import tar
from sempic.errors import (
    BitstreamError,
    ImageError,
    InputError,
    LabelMapError,
    OutputError,
    SempicError,
    line,
    naming,
    noting,
    reason,
)
from sempic.fields import another, option
from sempic.jobs import Job
from sempic.options import DecodeOptions, EncodeOptions, Models
from sempic.palette import PALETTES, by_id
from sempic.places import STDOUT, is_unnamed, read
from sempic.scene import LabelMap, Scene

Record = dict[str, Any]
"""The report of one picture: path, output, seconds, and bytes, bpp, … or error."""
Work = Callable[[Job], Record | list[Record]]
"""Picklable, for other processes: a module-level function or an instance with __call__."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encode:
    """The work of `sempic encode`; its own arguments besides `options`."""

    labels: str | None = option(
        "send this label map (a picture of ids, or a folder of them with the pictures' names or "
        "with those of decode --only labels), not the segmenter's; none: no map (./none is a file)",
        None,
        metavar="MAP",
    )
    segmenter: str | None = another(Models, "segmenter", None)
    receiver: str | None = another(
        Models,
        "receiver",
        None,
        help="the receiver whose picture the check looks at, as of sempic decode; default: the "
        "bundled receiver",
    )
    verifier: str | None = another(Models, "verifier", None)
    prior: str | None = another(Models, "prior", None)
    images: str | None = option(
        "ending of the pictures' names in tars, such as .jpg; default: any picture that is not a "
        "label map",
        None,
        metavar="ENDING",
    )
    options: EncodeOptions = field(default_factory=EncodeOptions)

    def __call__(self, job: Job) -> Record | list[Record]:
        job.check()
        if job.is_tar:
            if self.labels not in (None, "none"):
                raise InputError("--labels are for pictures, not for tars of them")
            choose = functools.partial(tar.pictures, ending=self.images)
            return _change_tar(job, self._encode, choose, ".sempic")
        stream, record = self._encode(job.read(), job)
        job.write(stream)
        return record

    def prepare(self, jobs: list[Job]) -> None:
        """Find what would fail for each of several files, before the work.

        Raises ModelError for a network or a prior that cannot be loaded, and InputError for
        classes to check that the verifier lacks, an unknown class where no label map is given, and
        for a label map that cannot be read, or that pictures of two folders would share.
        """
        load(**self.models)
        table = self.options.table
        if table is not None or (self.options.check and self.models.get("verifier")):
            from sempic import check

            check.wanted(table, coder_with(**self.models).verifier)
        pictures = [job for job in jobs if job.source and not job.is_tar and not job.fault]
        if self.labels in (None, "none"):
            self._check_classes()
            return
        if not pictures:
            return
        if not os.path.isdir(self.labels):
            with naming(self.labels):
                self._read_map(Path(self.labels))
            return
        takers: dict[Path | None, Job] = {}
        for job in pictures:
            other = takers.setdefault(path := self._map(job), job)
            if os.path.dirname(other.name) != os.path.dirname(job.name):
                raise InputError(f"{other.name} and {job.name} would both have the map {path}")

    def _check_classes(self) -> None:
        from sempic import simplify
        from sempic.windows import choice

        options = self.options
        if not (options.keep or options.imagine or options.importance):
            return
        found = sent = options.known_palette
        if self.labels is None:
            found = by_id(coder_with(**self.models).segmenter.palette)
            sent = found if options.palette is None else sent
        choice.apart_in(sent, options.keep, options.imagine)
        with naming("importance"):
            simplify.class_weights(found, options.importance)

    @property
    def models(self) -> dict[str, str | None]:
        """The arguments of `Codec`, by their names."""
        return {role: getattr(self, role) for role in fields.of(Models)}

    def _map(self, job: Job | None) -> Path | None:
        """The file of the user's label map; None: there is none."""
        if job is None or self.labels in (None, "none"):
            return None
        path = Path(self.labels)
        if not os.path.isdir(path):
            return path
        plain = path / job.relative.with_suffix(".png")
        # `decode` writes a.labels.png, and beside another a.* a.jpg.labels.png.
        written = (plain.with_suffix(".labels.png"), path / f"{job.relative}.labels.png")
        return next((file for file in (plain, *written) if os.path.exists(file)), plain)

    def _read_map(self, path: Path) -> tuple[LabelMap, int]:
        """A label map and the id of its palette: that of the options, or of its colours."""
        from sempic import pictures

        data = read(path)
        given = self.options.palette is not None
        palette = self.options.known_palette if given else pictures.palette_of(data)
        return pictures.read_labels(data, palette), palette.id

    def _encode(self, data: bytes, job: Job | None = None) -> tuple[bytes, Record]:
        """job: None for a member of a tar, which has no label map of the user."""
        from sempic import pictures

        try:
            picture = pictures.read(data)
        except ImageError as error:
            if job is not None and formats.is_video(data):
                raise ImageError(f"{error}; --sequence encodes it") from error
            if job is not None and formats.is_tar(data):
                raise ImageError(f"{error}; {_TAR}") from error
            raise
        labels: Any = "none" if self.labels == "none" else None
        options = self.options.keywords()
        if (path := self._map(job)) is not None:
            with naming(path):
                labels, options["palette"] = self._read_map(path)
        try:
            stream = coder_with(**self.models).encode(picture, labels=labels, **options)
        except LabelMapError as error:
            if path is None:
                raise
            raise type(error)(f"{path}: {error}") from error
        return stream, api.info(stream)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decode:
    """The work of `sempic decode`; its own arguments besides `options` and `replace`."""

    only: Literal["labels", "coarse"] | None = option(
        "only the coloured label map or the enlarged coarse picture; needs no receiver",
        None,
        choices=("labels", "coarse"),
    )
    uncertainty: str | None = option(
        "also write a grey picture of the differences between seeds: four times the standard "
        "deviation of each pixel over --samples decodes. Black: the seeds agree, but may all be "
        "wrong",
        None,
        metavar="MAP",
    )
    samples: int = option("number of decodes for --uncertainty", 8, low=2, metavar="N")
    receiver: str | None = another(Models, "receiver", None, flags=("--receiver", "--model"))
    prior: str | None = another(Models, "prior", None)
    images: str = option(
        "ending of the pictures' names, such as .jpg, where -o does not name them",
        ".png",
        metavar="ENDING",
    )
    options: DecodeOptions = field(default_factory=DecodeOptions)
    replace: bool = True
    """Whether an existing picture may be replaced."""

    def __call__(self, job: Job) -> Record | list[Record]:
        from sempic import pictures

        job.check()
        if self.uncertainty is not None:
            files.check_writable(Path(self.uncertainty))
        if job.is_tar:
            return _change_tar(job, self._decode, tar.streams, self.ending)
        stream = stream_of(job.read())
        target = job.target
        assert target is not None
        if not self.replace and target != STDOUT and target.exists():
            raise OutputError(f"{target} exists, maybe the original; name the output with -o")
        scene = self._scene(stream)
        suffix = ".png" if is_unnamed(target) else target.suffix
        with naming(target):
            pictures.format_of(suffix)  # before the receiver's work
        data = self._picture(scene, suffix)
        if self.uncertainty is None:
            job.write(data)
            return api.info(stream)
        spread = self._coder.uncertainty(scene, samples=self.samples, **self.options.keywords())
        grey = np.minimum(np.rint(4 * spread), 255).astype(np.uint8)
        path = Path(self.uncertainty)
        with naming(path):
            grey_file = pictures.encode(grey, path.suffix)
        with files.replacing(path, grey_file):
            job.write(data)
        return api.info(stream)

    def prepare(self, jobs: list[Job]) -> None:
        """As `Encode.prepare`. Raises ModelError."""
        load(**self._models)

    @property
    def ending(self) -> str:
        """`images` with a dot in front."""
        return "." + self.images.lstrip(".")

    def _decode(self, data: bytes) -> tuple[bytes, Record]:
        """A member of a tar."""
        stream = stream_of(data)
        return self._picture(self._scene(stream), Path(f"x{self.ending}").suffix), api.info(stream)

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
        return coder_with(**self._models)

    @property
    def _models(self) -> dict[str, str | None]:
        return {"receiver": self.receiver, "prior": self.prior}


def part_of(scene: Scene, only: str, suffix: str) -> bytes:
    """A picture file of one part of a scene: "labels" in their colours, or "coarse", enlarged.

    Raises BitstreamError if the scene does not have the part.
    """
    from sempic import pictures

    if only == "coarse":
        return pictures.encode(api.preview(scene), suffix)
    if scene.labels is None:
        raise BitstreamError("the stream has no label map")
    return pictures.encode_labels(scene.labels, PALETTES[scene.palette], suffix)


_TAR = "it seems to be a tar: encode and decode take those, compressed or not, as NAME.tar"

coder_with = functools.cache(api.Codec)
"""A cached codec, so that a process loads networks once for all files."""


def load(**models: str | None) -> None:
    """Load the given models of `coder_with`. Raises ModelError."""
    coder = coder_with(**models)
    for name, spec in models.items():
        if spec is not None:
            getattr(coder, name)


def json_line(record: Record) -> str:
    """A record as JSON on one line, its numbers with five decimals at most."""
    return console.as_json(record, decimals=5)


def stream_of(data: bytes) -> bytes:
    """`data` unchanged; raises InputError if it is a picture, a video or a tar, which is clearer
    than a decoding error."""
    from sempic import pictures

    if data.startswith(container.MAGIC):
        return data
    if kind := pictures.kind(data):
        raise InputError(f"a picture ({kind}), not a .sempic file; sempic encode makes one")
    if formats.is_video(data):
        raise InputError("a video, not a .sempic file; sempic encode makes one")
    if formats.is_tar(data):
        raise InputError(f"not a .sempic file; {_TAR}")
    return data


def _change_tar(
    job: Job,
    change: Callable[[bytes], tuple[bytes, Record]],
    choose: Callable[[list[tar.Member]], list[tar.Member]],
    ending: str,
) -> list[Record]:
    """Change members of a tar; a member that fails is dropped, and its record has an error."""
    records: list[Record] = []

    def change_or_drop(member: tar.Member) -> bytes | None:
        payload = None

        def work() -> Record:
            nonlocal payload
            payload, record = change(member.data)
            return record

        place = {"path": f"{job.name}/{member.name}", "output": str(job.target)}
        records.extend(place | record for record in _records_of(work))
        return payload

    changed = tar.change(job.read(), change_or_drop, choose, ending)
    if records and all("error" in record for record in records):  # write no tar
        return [{k: v for k, v in record.items() if k != "output"} for record in records]
    job.write(changed)
    return records


def attempt(work: Work, job: Job) -> list[Record]:
    """Run work on a job; an exception becomes a record with an error."""
    processes.raise_if_interrupted()
    output = {} if job.target is None else {"output": str(job.target)}
    return [
        {"path": job.name} | ({} if "error" in record else output) | record
        for record in _records_of(lambda: work(job))
    ]


def _records_of(work: Callable[[], Record | list[Record]]) -> list[Record]:
    """The records of some work, with its seconds; that of an exception has an error."""
    start = time.perf_counter()
    try:
        with noting() as notes:
            found = work()
        noted = {"notes": notes} if notes else {}
        records = [found | noted] if isinstance(found, dict) else found
    except BrokenPipeError:  # the reader of standard output has gone: not the file's error
        raise
    except Exception as error:
        processes.raise_if_interrupted()
        records = [{"error": cause(error)}]
    seconds = time.perf_counter() - start
    return [{"seconds": seconds} | record for record in records]


def cause(error: Exception) -> str:
    """The text of an exception in a record."""
    if isinstance(error, SempicError):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {reason(error)}"
    return f"{type(error).__name__}: {line(error)}"
