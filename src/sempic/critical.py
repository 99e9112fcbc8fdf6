"""Objects whose loss is worse than an error, by groups of classes, and the receipt that says what
became of them (spec/format.md §8).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from sempic import checks
from sempic.bits import Bits, from_golomb, packed, ue
from sempic.errors import JSON_FAULTS, CorruptStream, InputError, refused

SHARE = 0.001
"""Of the picture that an object takes at least, if nothing is said."""
BUDGET = 0.25
"""What mending may add to a stream if nothing is said, as a share of it."""
DIGEST = re.compile(r"[0-9a-f]{8}")
_NAME = re.compile(r"\w[\w -]{0,31}")
_MOST_TEXT = 255
"""Bytes of all names of groups, with one between two."""
MOST = (1 << 16) - 2
"""A receipt counts no further, as `Bits.golomb` has it."""


class Group(NamedTuple):
    """Classes whose regions are objects."""

    classes: tuple[str, ...]
    pixels: int = 1
    """That an object has at least."""
    share: float = SHARE
    """Of the picture that it takes at least, 0…1."""

    def least(self, size: int) -> float:
        """Pixels that an object has at least in a picture of so many."""
        return max(self.pixels, self.share * size)


Groups: TypeAlias = Mapping[str, Group]
"""By their names."""

GROUPS: Groups = {
    "people": Group(("pedestrian", "person", "rider")),
    "two-wheelers": Group(("bicyclist", "bicycle", "motorcycle")),
    "vehicles": Group(("car", "truck", "bus", "train", "caravan", "trailer")),
    "signs and lights": Group(("sign", "traffic sign", "traffic light")),
}
"""If nothing is said; classes by name, in whatever palette. CamVid's bicyclist is the rider and
what he rides."""


# ── groups of one's own ──────────────────────────────────────────────────────────────────────


class Table(NamedTuple):
    """Groups of one's own."""

    groups: Groups
    source: str
    """The file that they stand in, or what else messages call them."""

    @property
    def digest(self) -> str:
        """What a receipt says of them: eight hexadecimal digits, others for other groups."""
        return hashlib.sha256(json.dumps(self.groups).encode()).hexdigest()[:8]


def table(name: str, given: Any) -> Table:
    """Groups of one's own, of a JSON file or a mapping: group → its classes, or a mapping with
    them as `classes` and the least size of an object as `pixels`, or as `share` of the picture that
    is sent. Classes are the verifier's, or of a palette of which it has the nearest.

    Raises InputError that begins with the file, or with `name` for a mapping.
    """
    if isinstance(given, Table):
        return given
    if isinstance(given, Mapping):
        return _table(name, given)
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(f"{name} is a table of groups or its file, not {type(given).__name__}")
    source = os.fspath(given)
    what = f"{source}: no table of groups"
    with refused(InputError, what, *JSON_FAULTS, unfit=True):
        entries = json.loads(Path(source).read_text("utf-8"), object_pairs_hook=_once)
    return _table(str(source), entries)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which a name that stands twice is an error."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{max(names, key=names.count)!r} stands in it twice")
    return found


def _table(source: str, entries: Any) -> Table:
    if not isinstance(entries, Mapping) or not entries:
        raise InputError(f"{source}: no table of groups: it maps their names to classes")
    for name in entries:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InputError(
                f"{source}: group name {name!r:.40} is not 1 to 32 letters, digits, _, - or spaces"
            )
    if len("\n".join(entries).encode()) > _MOST_TEXT:
        raise InputError(f"{source}: the names of all groups take more than {_MOST_TEXT} bytes")
    return Table(
        {name: _group(f"{source}: {name}", entry) for name, entry in entries.items()}, source
    )


def _group(where: str, entry: Any) -> Group:
    told = entry if isinstance(entry, Mapping) else {"classes": entry}
    if strange := told.keys() - set(Group._fields):
        raise InputError(f"{where}: {min(map(str, strange))!r:.40} is not one of {_KEYS}")
    classes = told.get("classes")
    if (
        isinstance(classes, str)
        or not isinstance(classes, Sequence)
        or not classes
        or not all(isinstance(name, str) for name in classes)
    ):
        raise InputError(f"{where}: classes are a list of names")
    share = 0.0 if "pixels" in told else SHARE
    return Group(
        classes=tuple(classes),
        pixels=checks.whole(f"{where}: pixels", told.get("pixels", 1), 1),
        share=checks.number(f"{where}: share", told.get("share", share), 0, 1),
    )


_KEYS = ", ".join(Group._fields)


# ── receipts ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Tally:
    """Objects of a group, counted."""

    seen: int
    """In the original."""
    lost: int
    """Of those, not in the decoded picture."""
    invented: int
    """In the decoded picture alone."""

    @property
    def kept(self) -> int:
        """In both."""
        return self.seen - self.lost

    @property
    def capped(self) -> Tally:
        """The same as far as a receipt counts."""
        return Tally(*(min(count, MOST) for count in (self.seen, self.lost, self.invented)))

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.seen + other.seen, self.lost + other.lost, self.invented + other.invented)


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What a network that took no part in the coding sees in the original and in what is decoded
    with the bundled receiver, in one step, from seed 0."""

    verifier: str
    """Of that network: the first eight hexadecimal digits of its file's SHA-256."""
    groups: Mapping[str, Tally]
    """One for each of GROUPS, or of the table."""
    table: str | None = None
    """Digest of the `Table`; None: the groups are GROUPS."""

    @property
    def total(self) -> Tally:
        """Of all groups."""
        return sum(self.groups.values(), Tally(0, 0, 0))


def overhead(groups: Table | None) -> int:
    """More bytes than a receipt with its chunk's head ever takes."""
    if groups is None:
        return 32  # there is no room for many objects
    return 16 + len("\n".join(groups.groups).encode()) + 12 * len(groups.groups)


def write(receipt: Receipt) -> bytes:
    """The payload of a receipt chunk, or, of a table, of one of the sender's own groups. Raises
    InputError if it is not as `Receipt` says."""
    names = list(receipt.groups)
    head = [receipt.verifier] if receipt.table is None else [receipt.verifier, receipt.table]
    text = b"" if receipt.table is None else "\n".join(names).encode()
    if receipt.table is None:
        named = names == list(GROUPS)
    else:
        named = bool(names) and all(map(_NAME.fullmatch, names)) and len(text) <= _MOST_TEXT
    if not named or not all(map(DIGEST.fullmatch, head)):
        raise InputError("a receipt names its verifier, and counts every group")
    bits = ""
    for name, tally in receipt.groups.items():
        numbers = (tally.seen, tally.lost, tally.invented)
        if not (0 <= tally.lost <= tally.seen and all(0 <= n <= MOST for n in numbers)):
            raise InputError(f"{name}: {numbers} are no counts of objects")
        bits += ue(tally.seen) + (ue(tally.lost) if tally.seen else "") + ue(tally.invented)
    length = b"" if receipt.table is None else bytes([len(text)])
    return bytes.fromhex("".join(head)) + length + text + packed(bits)


def read(payload: bytes, *, own: bool = False) -> Receipt:
    """The receipt in a payload; `own`: of groups of the sender's own. Raises a BitstreamError if it
    is not exactly one."""
    bits = Bits(payload, "the receipt")
    verifier, table, names = f"{int(bits.take(32), 2):08x}", None, list(GROUPS)
    if own:
        table = f"{int(bits.take(32), 2):08x}"
        length = int(bits.take(8), 2)
        names = _names(int("0" + bits.take(8 * length), 2).to_bytes(length, "big"))
    groups = {}
    for name in names:
        seen = from_golomb(bits.golomb())
        lost = from_golomb(bits.golomb()) if seen else 0
        if lost > seen:
            raise CorruptStream(f"the receipt has {lost} objects lost of {seen}")
        groups[name] = Tally(seen, lost, from_golomb(bits.golomb()))
    bits.end()
    return Receipt(verifier=verifier, groups=groups, table=table)


def _names(text: bytes) -> list[str]:
    """Of a receipt's groups."""
    names = text.decode("utf-8", "replace").split("\n")
    if not all(map(_NAME.fullmatch, names)) or len(set(names)) < len(names):
        raise CorruptStream("the receipt names no groups")
    return names
