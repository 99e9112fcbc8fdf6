"""Many files at once: what there is to do, by whom it is done, and what came of it.

`sempic.jobs` says what there is to do. *Work* is a picklable function of a job that
returns records, one for each picture. `here`, `in_processes` and `in_ray` are three ways to have it
done; each yields (job, records) as they come, with failures as records, so that one bad file never
stops the rest. A `Manifest` keeps the records, and knows after an interruption what is done.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import multiprocessing
import os
import pickle
import posixpath
import tarfile
import time
import unicodedata
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path, PurePosixPath
from typing import Any

from sempic import api, processes
from sempic.errors import InputError, OutputError, SempicError, SempicWarning, install_hint
from sempic.jobs import TAR, Job, exists, line, naming, read
from sempic.palette import CAMVID
from sempic.palette import find as find_palette

Record = dict[str, Any]
"""What is reported of one picture: path, output, seconds, and bytes, bpp, … or error."""
_BLOCK = 16
"""Jobs that travel together through Ray Data; what is under way at an interruption is lost."""


# ── encoding ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True, slots=True)
class Encode:
    """What `sempic encode` does to one file, wherever that may be."""

    segmenter: str | None = None
    labels: str | None = None
    images: str | None = None
    """How the names of pictures end in tars; None: found out."""
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, job: Job) -> Record | list[Record]:
        from sempic import pictures

        if job.relative.suffix.lower() == TAR and job.source is not None:
            if self.labels:
                raise InputError("--labels are for pictures, not for tars of them")
            data, records = _map_tar(
                job.read(), job.name, self._code, pictures.SUFFIXES, self.images
            )
            job.write(data)
            return [{"output": str(job.target)} | record for record in records]
        labels = None
        picture = pictures.read(job.read())
        if self.labels:
            path = Path(self.labels)
            if os.path.isdir(path):
                path = path / job.relative.with_suffix(".png")
            with naming(path):
                palette = find_palette(self.options.get("palette") or CAMVID.name)
                labels = pictures.read_labels(read(path), palette)
        stream = _codec(self.segmenter).encode(picture, labels=labels, **self.options)
        job.write(stream)
        return described(stream)

    def _code(self, picture: bytes) -> tuple[bytes, Record]:
        from sempic import pictures

        stream = _codec(self.segmenter).encode(pictures.read(picture), **self.options)
        return stream, described(stream)


@functools.cache
def _codec(segmenter: str | None) -> api.Codec:
    return api.Codec(segmenter=segmenter)


def described(stream: bytes) -> Record:
    """`sempic.info` of a stream, as it is reported."""
    record = api.info(stream)
    record["bpp"] = round(record["bpp"], 5)
    return record


# ── three ways to have it done ───────────────────────────────────────────────────────────────

Work = Callable[[Job], Record | list[Record]]
"""A function of the module's top level, or an instance with __call__: it is sent to processes."""
Done = Iterator[tuple[Job, list[Record]]]


def here(work: Work, jobs: list[Job]) -> Done:
    """One after another, in this process."""
    for job in jobs:
        yield job, _attempt(work, job)


def in_processes(work: Work, jobs: list[Job], workers: int) -> Done:
    """In so many processes of one thread each; in the order of the jobs.

    A process that dies costs the file that it was at, and is replaced. None outlives this one.
    """
    for name, value in _one_thread().items():
        os.environ.setdefault(name, value)
    waiting = deque(enumerate(jobs))
    done: dict[int, list[Record]] = {}
    crew: list[_Process] = []
    idle: list[_Process] = []
    try:
        for number, job in enumerate(jobs):
            while number not in done:
                while waiting and (idle or len(crew) < workers):
                    if not idle:
                        crew.append(_Process(work))
                        idle.append(crew[-1])
                    idle.pop().begin(*waiting.popleft())
                for process in _ready(crew):
                    at, records = process.end()
                    done[at] = records
                    if process.lost:
                        crew.remove(process)
                    else:
                        idle.append(process)
            yield job, done.pop(number)
    finally:
        for process in crew:
            process.stop()


class _Process:
    """The parent's end of a process that does one job after another.

    Not concurrent.futures': there a process that dies takes all jobs with it, and the processes
    stay behind when the parent is killed.
    """

    def __init__(self, work: Work) -> None:
        context = multiprocessing.get_context("spawn")  # forks of threaded libraries hang
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_live, args=(theirs, work), daemon=True)
        with processes.signals_held():  # Ctrl-C is for the parent, which ends the others
            self._process.start()
        theirs.close()
        self._job: tuple[int, Job] | None = None
        self.lost = False

    def begin(self, number: int, job: Job) -> None:
        self._job = number, job
        with contextlib.suppress(OSError):  # it has died: `end` says so
            self.pipe.send(job)

    def end(self) -> tuple[int, list[Record]]:
        assert self._job is not None
        number, job = self._job
        self._job = None
        try:
            records: list[Record] = self.pipe.recv()
        except (EOFError, OSError):
            self.lost = True
            self.stop()
            return number, [{"path": job.name, "error": "a worker process died"}]
        return number, records

    @property
    def busy(self) -> bool:
        return self._job is not None

    def stop(self) -> None:
        self.pipe.close()
        processes.stop(self._process)


def _ready(crew: list[_Process]) -> list[_Process]:
    """Those that have answered or died; waits for one."""
    pipes = {process.pipe: process for process in crew if process.busy}
    found: Any = wait(list(pipes))
    return [pipes[pipe] for pipe in found]


def _live(pipe: Connection, work: Work) -> None:
    """The life of a process: until the pipe closes or the parent ends."""
    processes.end_with_parent()
    with contextlib.suppress(EOFError, OSError):
        while True:
            pipe.send(_attempt(work, pipe.recv()))


def in_ray(work: Work, jobs: list[Job], workers: int) -> Done:
    """By so many actors of Ray Data, in whatever order they finish; extra `ray`.

    The cluster is the one that RAY_ADDRESS names, else one on this machine that ends with us.

    Raises:
        InputError: Ray is missing, or the cluster fails.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_worker_niceness", "0")  # how nice to be is the user's to say
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise InputError(f"--engine ray needs: {install_hint('ray')}") from error

    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(
                num_cpus=None if "RAY_ADDRESS" in os.environ else workers + 1,  # one for Ray Data
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:  # Ray raises plain ones, too
            raise InputError(f"ray: {line(error)}") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = [{"id": i, "job": pickle.dumps(job)} for i, job in enumerate(jobs)]
    worker: Any = _Worker
    try:
        blocks = max(workers, -(-len(jobs) // _BLOCK))
        done = ray.data.from_items(rows, override_num_blocks=min(len(jobs), blocks)).map(
            worker,
            fn_constructor_args=(work,),
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(jobs))),
            num_cpus=1,
        )
        for row in done.iter_rows():
            yield jobs[row["id"]], json.loads(row["records"])
    except ray.exceptions.RayError as error:
        raise InputError(f"ray: {line(error)}") from error
    finally:
        if ours:
            ray.shutdown()


class _Worker:
    """An actor of Ray Data: rows with a pickled job come back with its records as JSON."""

    def __init__(self, work: Work) -> None:
        os.environ |= _one_thread()
        self._work = work

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        records = _attempt(self._work, pickle.loads(row["job"]))
        return {"id": row["id"], "records": json.dumps(records)}


def _attempt(work: Work, job: Job) -> list[Record]:
    start = time.perf_counter()
    common: Record = {"path": job.name}
    if job.target is not None:
        common["output"] = str(job.target)
    try:
        with _noting() as notes:
            result = work(job)
        if isinstance(result, dict):
            result = result | notes
    except BrokenPipeError:  # nobody reads what we write: no fault of the file
        raise
    except Exception as error:
        result = {"error": _cause(error)}
        common.pop("output", None)
    seconds = {"seconds": round(time.perf_counter() - start, 4)}
    return [common | seconds | r for r in (result if isinstance(result, list) else [result])]


@contextlib.contextmanager
def _noting() -> Iterator[Record]:
    """A part of a record, filled at the end with what sempic warned of, if it did."""
    record: Record = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SempicWarning)
        yield record
    for warning in caught:
        if issubclass(warning.category, SempicWarning):
            record.setdefault("notes", []).append(str(warning.message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def _one_thread() -> dict[str, str]:
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "SEMPIC_THREADS"), "1")


def _cause(error: Exception) -> str:
    """What a record says of an exception: whatever it was, it costs this file and no other."""
    if isinstance(error, SempicError):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory"
    return f"{type(error).__name__}: {line(error)}"


# ── tars of WebDataset ───────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Member:
    info: tarfile.TarInfo
    data: bytes
    target: str
    """Its name in the new tar."""
    record: Record | None = None
    """Of one that is coded."""


def _map_tar(
    data: bytes,
    name: str,
    change: Callable[[bytes], tuple[bytes, Record]],
    suffixes: Collection[str],
    images: str | None = None,
) -> tuple[bytes, list[Record]]:
    """A tar with its pictures coded to KEY.sempic; all other members are kept.

    Pictures are members with one of the suffixes; where a sample (members of one KEY) has several,
    those that look like label maps (`pictures.is_map`) are kept as they are. `images` names the
    ending of the pictures instead: ".jpg", or ".left.png". Members that fail are left out, and
    recorded; records bear the path NAME/MEMBER.

    Raises InputError: not a tar, a damaged one, or one in which two members would have one name.
    """
    try:
        members = _members(data)
    except (tarfile.TarError, EOFError, OSError, ValueError, KeyError) as cause:
        raise InputError(f"a damaged tar: {line(cause)}") from cause
    wanted = [m for m in members if _is_picture(m.info.name, suffixes, images)]
    if images is None:
        wanted = _without_maps(wanted)
    for member in wanted:
        member.target = str(PurePosixPath(member.info.name).with_suffix(".sempic"))
        member.record = {"path": f"{name}/{member.info.name}"}
    seen: dict[str, _Member] = {}
    for member in members:
        key = unicodedata.normalize("NFC", posixpath.normpath(member.target)).casefold()
        other = seen.setdefault(key, member)
        if other is not member:
            raise InputError(
                f"{other.info.name} and {member.info.name} would both become {member.target}; "
                "--images names the ending of the pictures, such as --images .jpg"
            )
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as target:
        for member in members:
            payload = member.data
            if member.record is not None:
                start = time.perf_counter()
                try:
                    with _noting() as notes:
                        payload, described = change(payload)
                    member.record |= described | notes
                except Exception as error:
                    member.record["error"] = _cause(error)
                member.record["seconds"] = round(time.perf_counter() - start, 4)
                if "error" in member.record:
                    continue
            entry = tarfile.TarInfo(member.target)
            entry.size, entry.mtime = len(payload), member.info.mtime
            target.addfile(entry, io.BytesIO(payload))
    return out.getvalue(), [m.record for m in members if m.record is not None]


def _members(data: bytes) -> list[_Member]:
    members = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as source:
        for info in source:
            content = source.extractfile(info)
            if content is not None:
                members.append(_Member(info, content.read(), info.name))
    return members


def _is_picture(name: str, suffixes: Collection[str], images: str | None) -> bool:
    path = PurePosixPath(name)
    if path.name.startswith("."):  # what macOS leaves beside files
        return False
    if images is None:
        return path.suffix.lower() in suffixes
    return path.name.lower().endswith("." + images.lower().lstrip("."))


def _without_maps(members: list[_Member]) -> list[_Member]:
    """The pictures among the members of each sample; raises InputError if that cannot be told."""
    from sempic import pictures

    samples: dict[str, list[_Member]] = {}
    for member in members:
        folder, file = posixpath.split(member.info.name)
        samples.setdefault(posixpath.join(folder, file.split(".")[0]), []).append(member)
    kept = []
    for sample in samples.values():
        if len(sample) > 1:
            looks = [pictures.is_map(member.data) for member in sample]
            if all(look is not False for look in looks) and True in looks:
                names = " and ".join(member.info.name for member in sample)
                raise InputError(
                    f"{names}: which is the picture? --images names its ending, such as .jpg"
                )
            sample = [m for m, look in zip(sample, looks, strict=True) if look is not True]
        kept += sample
    return kept


# ── what came of it ──────────────────────────────────────────────────────────────────────────


class Manifest:
    """A file of JSON lines: first the settings, then one record for each picture.

    Each has file, output, bytes, bpp, seconds and error (null where there was none). A later run
    with the same settings adds to it.
    """

    def __init__(self, path: Path, settings: Record) -> None:
        """Raises InputError if the file is of a run with other settings, or none of ours."""
        self._path, self._done = path, set[str]()
        text = ""
        if os.path.exists(path):
            with naming(path):
                text = read(path).decode("utf-8", "replace")
        for number, row in enumerate(text.rstrip("\n").split("\n") if text else ()):
            try:
                entry = json.loads(row)
                if number == 0 and entry["settings"] != settings:
                    raise InputError(
                        f"{path}: of a run with other settings; remove it to begin anew, or name "
                        "another with --manifest"
                    )
                if number and entry["error"] is None:
                    self._done.add(entry["output"])
            except (ValueError, KeyError, TypeError) as cause:
                if number == 0:
                    raise InputError(f"{path}: not a manifest of sempic") from cause
                # A line that an interruption cut short: its file is coded again.
        if not text:
            self._append([{"settings": settings}])
        elif not text.endswith("\n"):
            self._write("\n")

    def remaining(self, jobs: list[Job]) -> list[Job]:
        """Those whose output is not both recorded and there."""
        return [
            job
            for job in jobs
            if str(job.target) not in self._done or not job.target or not exists(job.target)
        ]

    def add(self, records: list[Record]) -> None:
        keys = ("output", "bytes", "bpp", "seconds", "error")
        self._append([{"file": r["path"]} | {k: r.get(k) for k in keys} for r in records])

    def _append(self, entries: list[Record]) -> None:
        self._write("".join(json.dumps(e) + "\n" for e in entries))

    def _write(self, text: str) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(text)
        except OSError as cause:
            raise OutputError(f"{self._path}: cannot write: {cause.strerror}") from cause
