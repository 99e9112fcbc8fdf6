"""What there is to do: one file to read and one to write, for each, and no two of them in the way
of each other.

Everything about names is decided here, before any work: which files a folder holds, what each
becomes, that no two become one, and that nothing that is read is written over.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sempic import files
from sempic.errors import InputError, OutputError, install_hint, naming, reason, refused

if TYPE_CHECKING:
    from sempic.scene import Image, LabelMap

STDOUT = Path("-")
TAR = ".tar"


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
    fault: str | None = None
    """Why it cannot be read, if that is known already; then there is no target."""

    @property
    def name(self) -> str:
        return "-" if self.source is None else str(self.source)

    @property
    def is_tar(self) -> bool:
        return self.source is not None and self.relative.suffix.lower() == TAR

    def read(self) -> bytes:
        """Raises InputError if it cannot be read."""
        if self.fault is not None:
            raise InputError(self.fault)
        if self.source is not None:
            return read(self.source)
        if sys.stdin is None:
            raise InputError("standard input is closed")
        with refused(InputError, "cannot read standard input", OSError, ValueError):
            return sys.stdin.buffer.read()

    def write(self, data: bytes) -> None:
        """Raises OutputError if it cannot be written; BrokenPipeError if nobody reads it."""
        assert self.target is not None
        if self.target == STDOUT:
            to_stdout(data)
            return
        if self.mkdir:
            files.make_folder(self.target.parent)
        if is_local(self.target):
            files.write(self.target, data)
            return
        with refused(OutputError, f"{self.target}: cannot write", Exception):  # of each store's own
            self.target.write_bytes(data)  # object stores put a file whole or not at all


def find(
    inputs: list[str],
    output: str | None,
    *,
    found: Collection[str],
    suffix: str | None,
    foreign: Collection[str] = (),
    reads: Iterable[str | None] = (),
    writes: Iterable[str | None] = (),
    say: Callable[[str], None] | None = None,
) -> list[Job]:
    """What to do for the files and folders that were named, on disk or as URIs.

    In folders, files whose suffix is in `found` count, at any depth. Names are kept and the
    suffix changes, but for tars. Where that would give two sources one name, those of several
    folders keep the name of their folder (train/0.png and val/0.png), those of one folder their
    suffix before the new one (a.jpg.sempic and a.png.sempic).

    Args:
        found: suffixes, in lower case.
        suffix: of what is written; None: nothing is.
        foreign: suffixes of files whose number is said where they are left out.
        reads: other files that will be read: no output may be one of them.
        writes: other files that will be written, the same.
        say: is told what was left out, in one line.

    Raises InputError or OutputError, naming the sources: a name that is empty, two sources of one
    target, a target that is read, a folder without such files.
    """
    if "" in inputs or output == "":
        raise InputError("an empty name, where a file or a folder is meant")
    sources, left_out = _sources(inputs, found, foreign)
    if left_out and say is not None:
        say(f"left out, since they are no pictures that can be read here: {_counted(left_out)}")

    several = len(inputs) > 1 or _is_dir(_path(inputs[0]))
    folder = None if output is None or output == "-" else _path(output)
    into = folder is not None and (
        several or str(output).endswith(("/", os.sep)) or _is_dir(folder)
    )
    if several and output == "-":
        raise InputError("several files cannot go to standard output")
    if several and folder is not None and exists(folder) and not _is_dir(folder):
        raise OutputError(f"{output}: not a folder")
    if several and folder is not None and not exists(folder) and not str(output).endswith("/"):
        from sempic.pictures import SUFFIXES

        if folder.suffix.lower() in {".sempic", TAR, *SUFFIXES}:
            raise OutputError(f"{output}: a file for several inputs; {output}/ would be a folder")

    for source in sources:
        if suffix is None or source.fault is not None:
            continue
        source.ending = TAR if source.path and source.relative.suffix.lower() == TAR else suffix
        if output == "-" or (output is None and source.path is None):
            source.target = STDOUT
        elif folder is not None and not into:
            source.target = folder
        else:
            source.folder = folder
            source.rename()
    _separate(sources)
    others = [r for r in reads if r], [w for w in writes if w]
    _protect(sources, *others, named=output is not None)
    _check_names(sources)
    jobs = [
        Job(source=s.path, relative=s.relative, target=s.target, mkdir=into, fault=s.fault)
        for s in sources
    ]
    if suffix is None:
        return jobs
    return list({_which(job.source, job.target): job for job in jobs}.values())  # each once


# ── sources ──────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True, eq=False)
class _Source:
    path: Path | None
    relative: Path
    root: Path
    """The folder that was named, or that the file lies in."""
    fault: str | None = None
    folder: Path | None = None
    """Where its target goes; None: beside it."""
    ending: str = ""
    target: Path | None = None
    rooted: bool = False
    """Whether the target keeps the name of the root."""
    kept: bool = False
    """Whether the target keeps the suffix of the source."""

    def rename(self) -> None:
        relative = self.relative
        name = relative.name + self.ending if self.kept else relative.with_suffix(self.ending).name
        if self.folder is None:
            assert self.path is not None
            self.target = self.path.with_name(name)
            return
        above = (os.path.basename(os.path.abspath(self.root)),) if self.rooted else ()
        self.target = self.folder.joinpath(*above, *relative.parent.parts, name)


def _sources(
    inputs: list[str], suffixes: Collection[str], foreign: Collection[str]
) -> tuple[list[_Source], Counter[str]]:
    sources: list[_Source] = []
    left_out: Counter[str] = Counter()
    for name in inputs:
        path = _path(name)
        if name == "-":
            sources.append(_Source(None, Path("stdin"), Path()))
            continue
        if not _is_dir(path):
            sources.append(_Source(path, Path(path.name), path.parent))
            continue
        inside = _search(path, suffixes, foreign)
        left_out += inside.foreign
        if not inside.files and not inside.faults:
            others = f", but {_counted(inside.foreign)}" if inside.foreign else ""
            raise InputError(f"{path}: no files of a type that is looked for{others}")
        depth = len(path.parts)
        sources += [_Source(p, Path(*p.parts[depth:]), path) for p in inside.files]
        sources += [_Source(p, Path(*p.parts[depth:]), path, why) for p, why in inside.faults]
    return sources, left_out


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def _search(folder: Path, suffixes: Collection[str], foreign: Collection[str]) -> files.Found:
    if is_local(folder):
        return files.search(folder, suffixes, foreign)
    found = files.Found()
    for path in sorted(folder.rglob("*"), key=lambda p: p.parts):
        suffix = path.suffix.lower()
        hidden = any(part.startswith(".") for part in path.parts[len(folder.parts) :])
        if not hidden and suffix in suffixes and path.is_file():
            found.files.append(path)
        elif not hidden and suffix in foreign:
            found.foreign[suffix] += 1
    return found


# ── targets ──────────────────────────────────────────────────────────────────────────────────


def _separate(sources: list[_Source]) -> None:
    """Renames targets until no two are one; raises InputError where no name helps."""
    for group in _clashes(sources):
        roots = {s.root for s in group if s.folder is not None}
        if len(roots) > 1:
            for source in sources:
                if source.root in roots and source.folder is not None and source.target:
                    source.rooted = True
                    source.rename()
    while True:
        plain = [s for group in _clashes(sources) for s in group if s.ending and not s.kept]
        plain = [s for s in plain if s.target not in (None, STDOUT) and (s.folder or s.path)]
        if not plain:
            break
        for source in plain:
            source.kept = True
            source.rename()
    clashes = _clashes(sources, fold=False)
    if not clashes and _clashes(sources) and _tells_no_case(sources):
        clashes = _clashes(sources)
    for first, second, *_ in clashes:
        raise InputError(
            f"{first.path or '-'} and {second.path or '-'} would both become {second.target}; "
            "give each an output folder of its own"
        )


def _check_names(sources: list[_Source]) -> None:
    """Raises OutputError where a tar or a stream would be named as another kind of file, or another
    file as a tar."""
    from sempic import formats, pictures

    others = pictures.SUFFIXES | formats.FOREIGN
    for source in sources:
        ending = "" if source.target is None else source.target.suffix.lower()
        if source.ending == TAR and (ending == ".sempic" or ending in others):
            raise OutputError(f"{source.target}: a tar under the name of a {ending} file")
        if source.ending == ".sempic" and ending in others:
            raise OutputError(f"{source.target}: a .sempic file under the name of a picture")
        if source.ending not in ("", TAR) and ending == TAR:
            raise OutputError(f"{source.target}: a {source.ending} file under the name of a tar")


def _clashes(sources: list[_Source], *, fold: bool = True) -> list[list[_Source]]:
    """Groups of sources whose targets are one, or where one is a folder on the other's way."""
    groups: dict[str, list[_Source]] = defaultdict(list)
    for source in sources:
        if source.target is not None and source.target != STDOUT:
            groups[_key(source.target, fold)].append(source)
    for key in list(groups):
        above = key
        while (above := os.path.dirname(above)) not in ("", os.sep, os.path.dirname(above)):
            if above in groups:
                groups[above].append(groups[key][0])
    return [
        group for group in groups.values() if len({_which(s.path, s.target) for s in group}) > 1
    ]


def _which(source: Path | None, target: Path | None) -> tuple[str, Path | None]:
    """The same for two jobs that are one, by whatever name the source goes."""
    local = source is not None and is_local(source)
    return os.path.realpath(source) if local and source else str(source), target


def _key(target: Path, fold: bool) -> str:
    """One for all names that lead to one file, maybe on a disk that does not tell case."""
    name = os.path.realpath(target) if is_local(target) else str(target)
    return unicodedata.normalize("NFC", name).casefold() if fold else name


def _tells_no_case(sources: list[_Source]) -> bool:
    """Whether the disk that is written to takes names for one that differ in case only."""
    folder = next(s.target for s in sources if s.target is not None and s.target != STDOUT)
    while is_local(folder) and not folder.is_dir():
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(prefix=".sempic-", dir=folder) as probe:
            return Path(probe.name).with_name(Path(probe.name).name.upper()).exists()
    except OSError:
        return False  # it cannot be written to anyway, or lies elsewhere


def _protect(sources: list[_Source], reads: list[str], writes: list[str], *, named: bool) -> None:
    """Raises OutputError if something that is read would be written over; named: by -o."""
    names: dict[object, str] = {}
    for path in (*(s.path for s in sources if s.path is not None), *map(Path, reads)):
        if is_local(path) and os.path.isfile(path):
            names |= dict.fromkeys(filter(None, files.same(path)), str(path))
    with contextlib.suppress(OSError, AttributeError, ValueError):
        if any(s.path is None for s in sources) and os.path.isfile(f"/dev/fd/{sys.stdin.fileno()}"):
            found = os.fstat(sys.stdin.fileno())
            names[found.st_dev, found.st_ino] = "-"
    others = {files.same(Path(w))[0]: w for w in writes}
    for source in sources:
        target = source.target
        if target is None or target == STDOUT or not is_local(target):
            continue
        real, identity = files.same(target)
        victim = names.get(real) or names.get(identity)
        if target == source.path and not named and source.ending != TAR:
            sempic = source.ending == ".sempic"
            what = "a .sempic file already" if sempic else "a picture, not a .sempic"
            raise OutputError(f"{target}: by its name {what}; if it is not, say where to with -o")
        if victim == str(source.path or "-"):
            raise OutputError(f"{victim}: would replace itself; name another output with -o")
        if victim is not None:
            raise OutputError(f"{source.path or '-'}: its output {target} would replace {victim}")
        if real in others:
            raise OutputError(f"{target}: is written twice; give the files other names")
    for written in writes:
        real, identity = files.same(Path(written))
        victim = names.get(real) or names.get(identity)
        if victim is not None:
            raise OutputError(f"{written}: would replace {victim}, which is read")


def apart(reads: Iterable[str | os.PathLike[str] | None], target: str | os.PathLike[str]) -> None:
    """Raises OutputError if a file that is read would be written over; "-" is none."""
    written = set(files.same(Path(target))) - {None}
    for path in reads:
        if path is None or "-" in (str(path), str(target)) or not os.path.isfile(path):
            continue
        if written & set(files.same(Path(path))):
            raise OutputError(f"{path}: would be replaced, and it is read; name another output")


# ── files ────────────────────────────────────────────────────────────────────────────────────


def read(path: Path) -> bytes:
    """Raises InputError if it cannot be read."""
    cause = OSError if is_local(path) else Exception  # stores have errors of their own
    with refused(InputError, "cannot read", cause):
        return path.read_bytes()


def read_picture(path: Path) -> Image:
    """A picture file as the encoder gets it, uint8 (H, W, 3), upright. Raises InputError naming
    it."""
    from sempic import pictures

    with naming(path):
        return pictures.read(read(path))


def read_ids(path: Path) -> LabelMap:
    """The samples of a label map as they are stored, uint8 (H, W), whatever its colours. Raises
    InputError naming it."""
    from sempic import pictures
    from sempic.palette import INDICES

    with naming(path):
        return pictures.read_labels(read(path), INDICES)


def is_local(path: Path) -> bool:
    return "://" not in str(path)


def need_stdout() -> None:
    """Raises OutputError if there is none."""
    if sys.stdout is None:
        raise OutputError("standard output is closed")


def to_stdout(data: bytes) -> None:
    """Raises OutputError if it cannot be written; BrokenPipeError if nobody reads it."""
    need_stdout()
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as cause:
        raise OutputError(f"cannot write to standard output: {reason(cause)}") from cause


def _path(name: str) -> Path:
    if "://" not in name:
        path = Path(name)
        # "./-" is a file, "-" a standard stream
        return Path(os.path.abspath(name)) if path == STDOUT and name != "-" else path
    try:
        from upath import UPath
    except ModuleNotFoundError as error:
        raise InputError(f"{name}: URIs need universal-pathlib; {install_hint('ray')}") from error
    with refused(InputError, name, Exception):  # an unknown scheme, a missing library
        found = cast(Path, UPath(name))
        found.exists()
    return found


def _is_dir(path: Path) -> bool:
    return os.path.isdir(path) if is_local(path) else path.is_dir()


def exists(path: Path) -> bool:
    return os.path.exists(path) if is_local(path) else path.exists()
