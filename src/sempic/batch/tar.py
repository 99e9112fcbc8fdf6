"""Tars of WebDataset: some members are coded, all others are kept."""

from __future__ import annotations

import io
import posixpath
import tarfile
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from sempic.errors import InputError, line


@dataclass(slots=True)
class Member:
    info: tarfile.TarInfo
    data: bytes
    target: str
    """Its name in the new tar."""

    @property
    def name(self) -> str:
        return self.info.name


def change(
    data: bytes,
    change: Callable[[Member], bytes | None],
    choose: Callable[[list[Member]], list[Member]],
    ending: str,
) -> bytes:
    """A tar in which the members that are chosen are changed, and named KEY and the ending.

    Those of which `change` makes None are left out; all that are not chosen are kept.

    Raises InputError: not a tar, a damaged one, one of which nothing is chosen, or in which two
    members would have one name.
    """
    try:
        members = _members(data)
    except (tarfile.TarError, EOFError, OSError, ValueError, KeyError) as cause:
        raise InputError(f"a damaged tar: {line(cause).rstrip(':')}") from cause
    chosen = choose(members)
    for member in chosen:
        member.target = str(PurePosixPath(member.name).with_suffix("")) + ending
    seen: dict[str, Member] = {}
    for member in members:
        key = unicodedata.normalize("NFC", posixpath.normpath(member.target)).casefold()
        other = seen.setdefault(key, member)
        if other is not member:
            raise InputError(
                f"{other.name} and {member.name} would both become {member.target}; "
                "--images names the ending of the pictures, such as --images .jpg"
            )
    if not chosen:
        raise InputError("no files of a supported type in this tar")
    wanted = {id(member) for member in chosen}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as target:
        for member in members:
            payload = change(member) if id(member) in wanted else member.data
            if payload is None:
                continue
            entry = tarfile.TarInfo(member.target)
            entry.size, entry.mtime = len(payload), member.info.mtime
            target.addfile(entry, io.BytesIO(payload))
    return out.getvalue()


def streams(members: list[Member]) -> list[Member]:
    """The .sempic files among the members."""
    return [m for m in members if _is_file(m.name, ".sempic")]


def pictures(members: list[Member], *, ending: str | None = None) -> list[Member]:
    """The pictures among the members: those whose names end so, or, for None, all that have the
    suffix of one. Where a sample (members of one KEY) has several, those that look like label maps
    (`pictures.is_map`) are none."""
    from sempic.pictures import SUFFIXES

    if ending is not None:
        return [m for m in members if _is_file(m.name, "." + ending.lower().lstrip("."))]
    return _without_maps([m for m in members if _is_file(m.name, *SUFFIXES)])


def _is_file(name: str, *endings: str) -> bool:
    file = posixpath.basename(name).lower()
    return file.endswith(endings) and not file.startswith(".")  # as what macOS leaves beside files


def _members(data: bytes) -> list[Member]:
    members = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as source:
        for info in source:
            content = source.extractfile(info)
            if content is not None:
                members.append(Member(info, content.read(), info.name))
    return members


def _without_maps(members: list[Member]) -> list[Member]:
    """The pictures among the members of each sample; raises InputError if that cannot be told."""
    from sempic.pictures import is_map

    samples: dict[str, list[Member]] = {}
    for member in members:
        folder, file = posixpath.split(member.name)
        samples.setdefault(posixpath.join(folder, file.split(".")[0]), []).append(member)
    kept = []
    for sample in samples.values():
        if len(sample) > 1:
            seen_as = [is_map(member.data) for member in sample]
            if all(seen is not False for seen in seen_as) and True in seen_as:
                names = " and ".join(member.name for member in sample)
                raise InputError(
                    f"{names}: which is the picture? --images names its ending, such as .jpg"
                )
            sample = [m for m, seen in zip(sample, seen_as, strict=True) if seen is not True]
        kept += sample
    return kept
