"""Jobs: which file each input file becomes, planned before any file is read or written.

`find` expands folders, names the outputs, and refuses plans in which two outputs are one file or
an output overwrites an input.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from sempic import console, files, formats, places
from sempic.errors import InputError, OutputError, refused
from sempic.places import STDOUT, as_path, exists, is_folder, is_local, names_folder

TAR = ".tar"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One file to read and one file to write; remote files (s3://…) are `UPath`s."""

    source: Path | None
    """None: standard input."""
    relative: Path
    """The source, relative to the input folder; with the folder's name where the target has it."""
    target: Path | None
    """None: no output. STDOUT: standard output."""
    mkdir: bool
    """Whether `write` makes missing parent folders of the target."""
    fault: str | None = None
    """Why the source cannot be read, if the search already knows; then `target` is None."""

    @property
    def name(self) -> str:
        return "-" if self.source is None else str(self.source)

    @property
    def is_tar(self) -> bool:
        return self.relative.suffix.lower() == TAR

    def read(self) -> bytes:
        """The bytes of the source. Raises InputError."""
        if self.fault is not None:
            raise InputError(self.fault)
        return places.read(self.source)

    def check(self) -> None:
        """Raises OutputError if the target cannot be written; before long work."""
        target = self.target
        if target == STDOUT:
            console.need_stdout(for_bytes=True)
            return
        if target is None or not is_local(target):
            return
        if self.source is not None and is_local(self.source) and not exists(self.source):
            return  # `read` says so, and not that its folder cannot be written
        with refused(OutputError, f"{target}: cannot write"):  # a name that is too long, say
            if files.is_stream(target):
                return
            files.check_writable(target)
            if not self.mkdir and not target.absolute().parent.is_dir():
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def write(self, data: bytes) -> None:
        """Write the target. Raises OutputError, or BrokenPipeError if the reader of standard
        output has gone."""
        assert self.target is not None
        if self.mkdir:
            files.make_folder(self.target.parent)
        places.write(self.target, data)


def find(
    inputs: list[str],
    output: str | None,
    *,
    accepted: Collection[str],
    suffix: str | None,
    foreign: Collection[str] = (),
    reads: Iterable[str | None] = (),
    writes: Iterable[str | None] = (),
) -> list[Job]:
    """The jobs for files and folders, on disk or as URIs.

    Folders are searched at any depth for files with an accepted suffix. An output has the name of
    its input with the new suffix; tars keep their suffix. Where two outputs would have
    one name, inputs from several folders keep the name of their folder (train/0.png and
    val/0.png), and inputs from one folder keep their suffix (a.jpg.sempic and a.png.sempic).

    Args:
        inputs: files, folders, URIs, or "-" for standard input.
        output: a file, a folder, a URI or "-"; None: beside each input.
        accepted: suffixes of inputs in folders, in lower case.
        suffix: suffix of the outputs; None: no outputs.
        foreign: suffixes of unsupported files; a line on stderr says how many were skipped.
        reads: other files that the run reads: no output may overwrite them.
        writes: other files that the run writes: no output may be one of them, and they may not
            overwrite an input.

    Raises InputError or OutputError, naming the files: an empty name, two inputs with one output,
    an output that overwrites an input, a folder without matching files.
    """
    if not inputs:
        raise InputError("no files and no folders")
    names = inputs if output is None else [*inputs, output]
    if any(not name or "\0" in name for name in names):
        raise InputError("an empty name, or a null character, instead of a file or a folder")
    sources, skipped = _sources(inputs, accepted, foreign)
    if skipped:
        console.say(f"skipped files of other kinds: {_listed(skipped)}")

    several = len(inputs) > 1 or is_folder(as_path(inputs[0]))
    place = None if output is None or output == "-" else as_path(output)
    into_folder = place is not None and (several or names_folder(str(output), place))
    if several and output == "-":
        raise InputError("several files cannot go to standard output")
    if several and place is not None:
        _check_folder(place, str(output))

    for source in sources:
        if suffix is None or source.fault is not None:
            continue
        source.suffix = TAR if source.relative.suffix.lower() == TAR else suffix
        if output == "-" or (output is None and source.path is None):
            source.aim(STDOUT)
        elif place is not None and not into_folder:
            source.aim(place)
        else:
            source.output_folder = place
            source.name_target()
    _separate(sources)
    other_files = [r for r in reads if r], [w for w in writes if w]
    _protect(sources, *other_files, output_given=output is not None)
    _check_suffixes(sources)
    if suffix is not None:  # sources of one target are one file
        sources = list({s.real or str(s.path): s for s in sources}.values())
    return [
        Job(source=s.path, relative=s.relative, target=s.target, mkdir=into_folder, fault=s.fault)
        for s in sources
    ]


# ── sources ──────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True, eq=False)
class _Source:
    path: Path | None
    """None: standard input."""
    relative: Path
    """The source, relative to `root`; where targets would clash, to its parent folder."""
    root: Path
    """The input folder, or the folder of an input file."""
    fault: str | None = None
    output_folder: Path | None = None
    """None: the target lies beside the source."""
    suffix: str = ""
    """Of the target."""
    target: Path | None = None
    real: str = ""
    """The target's path without links, which takes time to find; "": no target."""
    keeps_suffix: bool = False
    """Whether the target's name includes the suffix of the source."""

    def aim(self, target: Path) -> None:
        """Sets the target."""
        self.target, self.real = target, _real(target)

    def name_target(self) -> None:
        """Raises OutputError where no file belongs beside the source."""
        relative = self.relative
        changed = relative.with_suffix(self.suffix).name
        name = relative.name + self.suffix if self.keeps_suffix else changed
        if self.output_folder is None:
            assert self.path is not None
            if is_local(self.path) and files.is_of_system(self.path):
                raise OutputError(f"{self.path}: name the output with -o")
            self.aim(self.path.with_name(name))
            return
        self.aim(self.output_folder.joinpath(*relative.parent.parts, name))


def _sources(
    inputs: list[str], suffixes: Collection[str], foreign: Collection[str]
) -> tuple[list[_Source], Counter[str]]:
    """The sources, and how many files of each foreign suffix were skipped."""
    sources: list[_Source] = []
    skipped: Counter[str] = Counter()
    for name in inputs:
        path = as_path(name)
        if name == "-":
            sources.append(_Source(None, Path("stdin"), Path()))
            continue
        if not is_folder(path):
            sources.append(_Source(path, Path(path.name), path.parent))
            continue
        inside = _search(path, suffixes, foreign)
        skipped += inside.foreign
        if not inside.files and not inside.faults:
            others = f", but {_listed(inside.foreign)}" if inside.foreign else ""
            raise InputError(f"{path}: no files of a supported type{others}")
        depth = len(path.parts)
        sources += [_Source(p, Path(*p.parts[depth:]), path) for p in inside.files]
        sources += [_Source(p, Path(*p.parts[depth:]), path, why) for p, why in inside.faults]
    return sources, skipped


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common())


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


def _check_folder(place: Path, output: str) -> None:
    """Raises OutputError unless `place` can be the output folder of several inputs."""
    if exists(place):
        if not is_folder(place):
            raise OutputError(f"{output}: not a folder")
    elif not names_folder(output, place) and formats.is_name_of_file(place):
        raise OutputError(f"{output}: one file for several inputs; {output}/ names a folder")


def _separate(sources: list[_Source]) -> None:
    """Renames targets until all differ; raises InputError if longer names do not help."""
    if not (groups := _clashes(sources)):
        return
    roots = [{s.root for s in group if s.output_folder is not None} for group in groups]
    alike = {root for several in roots if len(several) > 1 for root in several}
    for source in sources:
        if source.root in alike and source.target:
            source.relative = os.path.basename(os.path.abspath(source.root)) / source.relative
            source.name_target()
    while short := [
        source
        for group in _clashes(sources)
        for source in group
        if not source.keeps_suffix and source.relative.suffix != source.suffix
    ]:
        for source in short:
            source.keeps_suffix = True
            source.name_target()
    for first, second, *_ in _clashes(sources, fold=_ignores_case(sources)):
        raise InputError(
            f"{first.path or '-'} and {second.path or '-'} would both become {second.target}; "
            "give each an output folder of its own"
        )


def _check_suffixes(sources: list[_Source]) -> None:
    """Raises OutputError if a target's name has the suffix of another kind of file."""
    for source in sources:
        if source.target is None:
            continue
        if source.suffix not in ("", TAR) and source.target.suffix.lower() == TAR:
            raise OutputError(
                f"{source.target}: a {source.suffix} file under the name of a tar; by its name "
                f"{source.path or '-'} is none"
            )
        if source.suffix in (".sempic", TAR):
            formats.check_name(source.target, source.suffix)


def _clashes(sources: list[_Source], *, fold: bool = True) -> list[list[_Source]]:
    """Groups of sources with one target, or with a target that is a parent folder of another.

    fold: names that differ only in case or Unicode normalization count as one.
    """
    groups: dict[str, list[_Source]] = defaultdict(list)
    for source in sources:
        if source.target is not None and source.target != STDOUT:
            folded = unicodedata.normalize("NFC", source.real).casefold()
            groups[folded if fold else source.real].append(source)
    for key in list(groups):
        parent = key
        while (parent := os.path.dirname(parent)) not in ("", os.sep, os.path.dirname(parent)):
            if parent in groups:
                groups[parent].append(groups[key][0])
    # A source that is named twice, or found through a link, too, does not clash with itself.
    several = (group for group in groups.values() if len(group) > 1)
    return [group for group in several if len({(_real(s.path), s.real) for s in group}) > 1]


def _real(path: Path | None) -> str:
    """The path of a file without links, the same for all; remote files have their URI."""
    return os.path.realpath(path) if path is not None and is_local(path) else str(path)


def _ignores_case(sources: list[_Source]) -> bool:
    """Whether the output disk treats names that differ only in case as one."""
    folder = next(s.target for s in sources if s.target is not None and s.target != STDOUT)
    while is_local(folder) and not folder.is_dir():
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(prefix=".sempic-", dir=folder) as probe:
            return Path(probe.name).with_name(Path(probe.name).name.upper()).exists()
    except OSError:
        return False  # remote, or not writable: writing reports the error


def _protect(
    sources: list[_Source], reads: list[str], writes: list[str], *, output_given: bool
) -> None:
    """Raises OutputError if a target or one of `writes` would overwrite a file that is read."""
    readers: dict[object, str] = {}
    for path in (*(s.path for s in sources if s.path is not None), *map(Path, reads)):
        if not is_local(path):
            readers[_real(path)] = str(path)
        elif os.path.isfile(path):
            readers |= dict.fromkeys(filter(None, files.identities(path)), str(path))
    with contextlib.suppress(OSError, AttributeError, ValueError):
        if any(s.path is None for s in sources) and os.path.isfile(sys.stdin.fileno()):
            readers[files.identity(sys.stdin.fileno())] = "-"

    def overwritten(path: Path, real: str) -> str | None:
        return readers.get(real) or (readers.get(files.identity(path)) if is_local(path) else None)

    other_targets = {os.path.realpath(name) for name in writes}
    for source in sources:
        target = source.target
        if target is None or target == STDOUT:
            continue
        victim = overwritten(target, source.real)
        if target == source.path and not output_given and source.suffix != TAR:
            is_stream = source.suffix == ".sempic"
            what = "a .sempic file already" if is_stream else "a picture, not a .sempic"
            raise OutputError(f"{target}: by its name {what}; otherwise name the output with -o")
        if victim == str(source.path or "-"):
            raise OutputError(f"{victim}: would replace itself; name another output with -o")
        if victim is not None:
            raise OutputError(f"{source.path or '-'}: its output {target} would replace {victim}")
        if source.real in other_targets:
            raise OutputError(f"{target}: is written twice; give the files other names")
    for name in writes:
        if victim := overwritten(Path(name), os.path.realpath(name)):
            raise OutputError(f"{name}: would replace {victim}, which is read")
