"""Tars of WebDataset: replacing the pictures or streams among their members."""

from __future__ import annotations

import io
import math
import posixpath
import tarfile
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from sempic.errors import InputError, refused

_HOLES = 1 << 28
"""Most bytes of all sparse members: a tar of a few KB can claim any number."""


@dataclass(slots=True, eq=False)
class Member:
    info: tarfile.TarInfo
    data: bytes
    target: str
    """Name in the new tar."""

    @property
    def name(self) -> str:
        return self.info.name


def change(
    data: bytes,
    change: Callable[[Member], bytes | None],
    choose: Callable[[list[Member]], list[Member]],
    ending: str,
) -> bytes:
    """A tar with changed members.

    Args:
        data: the tar.
        change: member → new content, or None to drop the member.
        choose: members → members to change; all others stay unchanged.
        ending: a changed member is named KEY + ending.

    Raises InputError: not a tar, a damaged tar, no chosen members, or two members with one name.
    """
    with refused(InputError, "a damaged tar", Exception):  # each compression has errors of its own
        members = _members(data)
    chosen = set(choose(members))
    for member in chosen:
        member.target = posixpath.splitext(member.name)[0] + ending  # keeps ./ of the sample's KEY
    seen: dict[str, Member] = {}
    for member in members:
        key = unicodedata.normalize("NFC", posixpath.normpath(member.target)).casefold()
        other = seen.setdefault(key, member)
        if other is not member:
            if other.name == member.name:
                raise InputError(f"{member.name} is in it twice")
            raise InputError(
                f"{other.name} and {member.name} would both become {member.target}; "
                "--images names the ending of the pictures, such as --images .jpg"
            )
    if not chosen:
        raise InputError("no files of a supported type in this tar")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as target:
        for member in members:
            payload = change(member) if member in chosen else member.data
            if payload is None:
                continue
            entry = tarfile.TarInfo(member.target)
            entry.size = len(payload)
            if math.isfinite(member.info.mtime):  # pax headers are text and may hold "nan"
                entry.mtime = member.info.mtime
            target.addfile(entry, io.BytesIO(payload))
    return out.getvalue()


def streams(members: list[Member]) -> list[Member]:
    """The .sempic files among the members."""
    return [m for m in members if _is_file(m.name, ".sempic")]


def pictures(members: list[Member], *, ending: str | None = None) -> list[Member]:
    """The pictures among the members: names with `ending`, or, for None, with the suffix of a
    picture. Of several in a sample (members of one KEY), label maps (`pictures.is_map`) are left
    out."""
    from sempic.pictures import SUFFIXES

    if ending is not None:
        return [m for m in members if _is_file(m.name, "." + ending.lower().lstrip("."))]
    return _without_maps([m for m in members if _is_file(m.name, *SUFFIXES)])


def _is_file(name: str, *endings: str) -> bool:
    file = posixpath.basename(name).lower()
    return file.endswith(endings) and not file.startswith(".")  # macOS adds ._NAME files


def _members(data: bytes) -> list[Member]:
    members = []
    try:
        source = tarfile.open(fileobj=io.BytesIO(data), mode="r:*")  # noqa: SIM115
    except tarfile.ReadError as cause:
        raise ValueError("neither plain nor compressed with gzip, bzip2 or xz") from cause
    with source:
        holes = _HOLES
        for info in source:
            holes -= info.size if info.issparse() else 0
            if holes < 0:
                raise ValueError(f"{info.name}: more than {_HOLES >> 20} MiB of sparse members")
            try:
                content = source.extractfile(info)
            except (KeyError, RecursionError) as cause:
                raise ValueError(f"{info.name} is a link that leads to no member") from cause
            if content is not None:
                members.append(Member(info, content.read(), info.name))
        assert source.fileobj is not None
        source.fileobj.seek(source.offset)
        rest = source.fileobj.read(-1)  # to the end, where gzip checks all bytes
        if rest[: tarfile.BLOCKSIZE].strip(b"\0"):  # tarfile takes any damage for the end
            raise ValueError(f"no header of a member at byte {source.offset}")
    return members


def _without_maps(members: list[Member]) -> list[Member]:
    """The members that are no label maps beside pictures, broken files included: they fail as
    pictures, alone. Raises InputError for samples of nothing but maps."""
    from sempic.pictures import is_map

    samples: dict[str, list[Member]] = {}
    for member in members:
        folder, file = posixpath.split(member.name)
        samples.setdefault(posixpath.join(folder, file.split(".")[0]), []).append(member)
    kept = []
    for sample in samples.values():
        if len(sample) > 1:
            are_maps = [is_map(member.data) for member in sample]
            if all(are_maps):
                names = " and ".join(member.name for member in sample)
                raise InputError(
                    f"{names}: which is the picture? --images names its ending, such as .jpg"
                )
            sample = [m for m, is_one in zip(sample, are_maps, strict=True) if is_one is not True]
        kept += sample
    return kept
