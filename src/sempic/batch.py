"""Many files at once: what there is to do, by whom it is done, and what came of it.

A `Job` names one file to read and one to write. *Work* is a picklable function of a job that
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
import os
import pickle
import sys
import tarfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sempic import api
from sempic.errors import InputError, OutputError, SempicError, SempicWarning, install_hint

Record = dict[str, Any]
"""What is reported of one picture: path, output, seconds, and bytes, bpp, … or error."""
STDOUT = Path("-")
TAR = ".tar"
_BLOCK = 16
"""Jobs that travel together through Ray Data; what is under way at an interruption is lost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One file to be read and one to be written; files elsewhere (s3://…) are `UPath`s."""

    source: Path | None
    """None is standard input."""
    relative: Path
    """The source below the folder that was named."""
    target: Path | None
    """None: nothing is written; STDOUT is standard output."""
    mkdir: bool
    """Whether folders above the target are made."""

    @property
    def name(self) -> str:
        return "-" if self.source is None else str(self.source)

    def read(self) -> bytes:
        return sys.stdin.buffer.read() if self.source is None else read(self.source)

    def write(self, data: bytes) -> None:
        assert self.target is not None
        if self.target == STDOUT:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        from sempic.pictures import write_file

        with naming(self.target):
            if self.mkdir:
                try:
                    self.target.parent.mkdir(parents=True, exist_ok=True)
                except OSError as cause:
                    raise OutputError(f"cannot make the folder: {cause.strerror}") from cause
            if _is_local(self.target):
                write_file(self.target, data)
                return
            try:  # object stores put a file whole or not at all
                self.target.write_bytes(data)
            except Exception as cause:  # each store has its own errors
                raise OutputError(f"cannot write: {_line(cause)}") from cause


def find(
    inputs: list[str], output: str | None, *, found: Iterable[str], suffix: str | None
) -> list[Job]:
    """What to do for the files and folders that were named, on disk or as URIs.

    In folders, files whose suffix is in `found` count, at any depth. Names are kept and the
    suffix changes, but for tars; where that would give two sources one name (a.jpg and a.png), they
    keep their suffix before the new one (a.jpg.sempic and a.png.sempic).
    With `suffix` None nothing is to be written.
    """
    sources: list[tuple[Path | None, Path]] = []
    for name in inputs:
        path = _path(name)
        if name == "-":
            sources.append((None, Path("stdin")))
        elif path.is_dir():
            inside = sorted(
                (p for p in path.rglob("*") if p.suffix.lower() in set(found) and p.is_file()),
                key=lambda p: p.parts,
            )
            if not inside:
                raise InputError(f"{path}: no files of a type that is looked for")
            sources += [(p, Path(*p.parts[len(path.parts) :])) for p in inside]
        else:
            sources.append((path, Path(path.name)))

    several = len(inputs) > 1 or _path(inputs[0]).is_dir()
    folder = None if output is None else _path(output)
    into = folder is not None and (
        several or str(output).endswith(("/", os.sep)) or folder.is_dir()
    )
    if several and output == "-":
        raise InputError("several files cannot go to standard output")
    if several and folder is not None and folder.exists() and not folder.is_dir():
        raise OutputError(f"{output}: not a folder")
    if several and folder is not None and not folder.exists() and not str(output).endswith("/"):
        from sempic.pictures import SUFFIXES

        if folder.suffix.lower() in {".sempic", TAR, *SUFFIXES}:
            raise OutputError(f"{output}: a file for several inputs; {output}/ would be a folder")

    targets: list[Path | None] = []
    endings: list[str] = []
    for source, relative in sources:
        ending = TAR if source is not None and relative.suffix.lower() == TAR else suffix or ""
        endings.append(ending)
        if suffix is None:
            targets.append(None)
        elif output == "-" or (output is None and source is None):
            targets.append(STDOUT)
        elif folder is not None and into:
            targets.append(folder.joinpath(*relative.with_suffix(ending).parts))
        elif folder is not None:
            targets.append(folder)
        else:
            assert source is not None
            targets.append(source.with_suffix(ending))
            if targets[-1] == source:
                if ending == TAR:
                    raise OutputError(f"{source}: would replace itself; name the output with -o")
                what = (
                    "a .sempic file already" if ending == ".sempic" else "a picture, not a .sempic"
                )
                raise OutputError(
                    f"{source}: by its name {what}; if it is not, say where to with -o"
                )
    clashes = Counter(str(t).lower() for t in targets)
    return [
        Job(
            source=source,
            relative=relative,
            target=(
                target.with_name(relative.name + ending)
                if target and ending and clashes[str(target).lower()] > 1
                else target
            ),
            mkdir=into,
        )
        for (source, relative), target, ending in zip(sources, targets, endings, strict=True)
    ]


# ── encoding ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True, slots=True)
class Encode:
    """What `sempic encode` does to one file, wherever that may be."""

    segmenter: str | None = None
    labels: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, job: Job) -> Record | list[Record]:
        from sempic import pictures

        if job.relative.suffix.lower() == TAR and job.source is not None:
            if self.labels:
                raise InputError("--labels are for pictures, not for tars of them")
            data, records = _map_tar(job.read(), job.name, self._code, pictures.SUFFIXES)
            job.write(data)
            return [{"output": str(job.target)} | record for record in records]
        labels = None
        picture = pictures.read(job.read())
        if self.labels:
            path = Path(self.labels)
            if path.is_dir():
                path = path / job.relative.with_suffix(".png")
            with naming(path):
                labels = pictures.read_labels(read(path))
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
    """In so many processes of one thread each; in the order of the jobs."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    for name, value in _one_thread().items():
        os.environ.setdefault(name, value)
    context = multiprocessing.get_context("spawn")  # forks of threaded libraries hang
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context)
    try:
        futures = [pool.submit(_attempt, work, job) for job in jobs]
        for job, future in zip(jobs, futures, strict=True):
            try:
                yield job, future.result()
            except BrokenProcessPool:
                yield job, [{"path": job.name, "error": "a worker process died"}]
    finally:
        pool.shutdown(cancel_futures=True)


def in_ray(work: Work, jobs: list[Job], workers: int) -> Done:
    """By so many actors of Ray Data, in whatever order they finish; extra `ray`.

    The cluster is the one that RAY_ADDRESS names, else one on this machine that ends with us.

    Raises:
        InputError: Ray is missing, or the cluster fails.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no word to anybody
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
            raise InputError(f"ray: {_line(error)}") from error
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
        raise InputError(f"ray: {_line(error)}") from error
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
    except (SempicError, MemoryError) as error:
        result = {"error": str(error) or "not enough memory"}
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


# ── tars of WebDataset ───────────────────────────────────────────────────────────────────────


def _map_tar(
    data: bytes, name: str, change: Callable[[bytes], tuple[bytes, Record]], suffixes: Iterable[str]
) -> tuple[bytes, list[Record]]:
    """A tar with each member whose suffix counts coded to KEY.sempic; all others are kept.

    Members that fail are left out, and recorded; records bear the path NAME/MEMBER.

    Raises InputError: not a tar, or a damaged one.
    """
    out, records, wanted = io.BytesIO(), [], frozenset(suffixes)
    try:
        with (
            tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as source,
            tarfile.open(fileobj=out, mode="w") as target,
        ):
            for member in source:
                content = source.extractfile(member)
                if content is None:
                    continue
                payload, path = content.read(), PurePosixPath(member.name)
                if path.suffix.lower() in wanted:
                    start = time.perf_counter()
                    record: Record = {"path": f"{name}/{member.name}"}
                    try:
                        with _noting() as notes:
                            payload, described = change(payload)
                        record |= described | notes
                    except (SempicError, MemoryError) as error:
                        record["error"] = str(error) or "not enough memory"
                    record["seconds"] = round(time.perf_counter() - start, 4)
                    records.append(record)
                    if "error" in record:
                        continue
                    path = path.with_suffix(".sempic")
                entry = tarfile.TarInfo(str(path))
                entry.size, entry.mtime = len(payload), member.mtime
                target.addfile(entry, io.BytesIO(payload))
    except (tarfile.TarError, EOFError, OSError, ValueError) as cause:
        raise InputError(f"a damaged tar: {_line(cause)}") from cause
    return out.getvalue(), records


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
        if path.exists():
            text = read(path).decode("utf-8", "replace")
        for number, line in enumerate(text.splitlines()):
            try:
                entry = json.loads(line)
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
            if str(job.target) not in self._done or not job.target or not job.target.exists()
        ]

    def add(self, records: list[Record]) -> None:
        keys = ("output", "bytes", "bpp", "seconds", "error")
        self._append([{"file": r["path"]} | {k: r.get(k) for k in keys} for r in records])

    def _append(self, entries: list[Record]) -> None:
        self._write("".join(json.dumps(e, ensure_ascii=False) + "\n" for e in entries))

    def _write(self, text: str) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(text)
        except OSError as cause:
            raise OutputError(f"{self._path}: cannot write: {cause.strerror}") from cause


# ── files ────────────────────────────────────────────────────────────────────────────────────


def read(path: Path) -> bytes:
    """Raises InputError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as cause:
        raise InputError(f"cannot read: {cause.strerror or _line(cause)}") from cause
    except Exception as cause:
        if _is_local(path):
            raise
        raise InputError(f"cannot read: {_line(cause)}") from cause  # a store's own error


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts the file's name before the message of an error in another file than the source."""
    try:
        yield
    except SempicError as error:
        raise type(error)(f"{path}: {error}") from error


def _path(name: str) -> Path:
    if "://" not in name:
        return Path(name)
    try:
        from upath import UPath
    except ModuleNotFoundError as error:
        raise InputError(f"{name}: URIs need: {install_hint('ray')}") from error
    try:
        path: Any = UPath(name)
        path.exists()
    except Exception as cause:  # an unknown scheme, a missing library, no permission
        raise InputError(f"{name}: {_line(cause)}") from cause
    found: Path = path
    return found


def _is_local(path: Path) -> bool:
    return "://" not in str(path)


def _line(cause: BaseException) -> str:
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]
