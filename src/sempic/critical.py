"""Critical objects by groups of classes, and the receipt of them (docs/spec/format.md §8)."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from sempic import checks
from sempic.bits import Bits, packed, ue
from sempic.errors import JSON_FAULTS, CorruptStream, InputError, refused

SHARE = 0.001
"""Default least size of an object, as a share of the picture."""
BUDGET = 0.25
"""Default budget of a check, as a share of the stream."""
DIGEST = re.compile(r"[0-9a-f]{8}")
_NAME = re.compile(r"\w[\w -]{0,31}")
_MOST_TEXT = 255
"""Most bytes of all group names, joined by one separator each."""
MOST = (1 << 16) - 2
"""Largest count of a receipt, as of `Bits.golomb`."""


class Group(NamedTuple):
    """Classes whose regions are objects."""

    classes: tuple[str, ...]
    pixels: int = 1
    """Least size of an object."""
    share: float = SHARE
    """Least size of an object, as a share of the picture, 0…1."""

    def least(self, size: int) -> float:
        """Least size of an object, in pixels, in a picture of `size` pixels."""
        return max(self.pixels, self.share * size)


Groups: TypeAlias = Mapping[str, Group]
"""By their names."""

GROUPS: Groups = {
    "people": Group(("pedestrian", "person", "rider")),
    "two-wheelers": Group(("bicyclist", "bicycle", "motorcycle")),
    "vehicles": Group(("car", "truck", "bus", "train", "caravan", "trailer")),
    "signs and lights": Group(("sign", "traffic sign", "traffic light")),
}
"""Default groups; classes by name, of all palettes. CamVid's bicyclist is rider and bicycle."""


# ── groups of one's own ──────────────────────────────────────────────────────────────────────


class Table(NamedTuple):
    """Groups of one's own."""

    groups: Groups
    source: str
    """The file, or another name for messages."""

    @property
    def digest(self) -> str:
        """A hash of the groups for receipts, eight hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.groups).encode()).hexdigest()[:8]


def table(name: str, given: Any) -> Table:
    """Groups of one's own.

    Args:
        name: of the argument, for messages.
        given: a mapping or the path of a JSON file. Keys are group names. Values are lists of
            classes, or mappings with `classes` and the least size of an object in the picture
            that is sent: `pixels`, or `share`. Classes are the verifier's, or of a palette whose
            nearest classes the verifier has.

    Raises InputError that begins with the file, or with `name` for a mapping.
    """
    if isinstance(given, Table):
        return given
    if isinstance(given, Mapping):
        return _table(name, given)
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(f"{name} is a table of groups or its file, not {type(given).__name__}")
    source = os.fsdecode(given)
    what = f"{source}: no table of groups"
    with refused(InputError, what, *JSON_FAULTS, unfit=True):
        content = entries(Path(source).read_text("utf-8-sig"))
    return _table(source, content)


def entries(text: str) -> Any:
    """The content of a table in JSON; raises ValueError for other text, or a repeated name."""
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises ValueError for a repeated name."""
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
    values = entry if isinstance(entry, Mapping) else {"classes": entry}
    if unknown := values.keys() - set(Group._fields):
        keys = ", ".join(Group._fields)
        raise InputError(f"{where}: {min(map(str, unknown))!r:.40} is not one of {keys}")
    classes = values.get("classes")
    if (
        isinstance(classes, str)
        or not isinstance(classes, Sequence)
        or not classes
        or not all(isinstance(name, str) for name in classes)
    ):
        raise InputError(f"{where}: classes are a list of names")
    share = 0.0 if "pixels" in values else SHARE
    return Group(
        classes=tuple(classes),
        pixels=checks.whole(f"{where}: pixels", values.get("pixels", 1), 1),
        share=checks.number(f"{where}: share", values.get("share", share), 0, 1),
    )


# ── receipts ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of the objects of a group."""

    seen: int
    """In the original."""
    lost: int
    """Seen, but not in the decoded picture."""
    invented: int
    """Only in the decoded picture."""

    @property
    def kept(self) -> int:
        """In both."""
        return self.seen - self.lost

    @property
    def capped(self) -> Tally:
        """The counts, at most MOST each."""
        return Tally(*(min(count, MOST) for count in (self.seen, self.lost, self.invented)))

    def described(self) -> dict[str, int]:
        """The counts by name."""
        return {name: getattr(self, name) for name in ("seen", "kept", "lost", "invented")}

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.seen + other.seen, self.lost + other.lost, self.invented + other.invented)


@dataclass(frozen=True, slots=True)
class FoundObject:
    """A critical object of an original or of its decoded picture."""

    group: str
    """One of GROUPS, or of the table's groups."""
    verdict: Literal["kept", "lost", "invented"]
    """In both pictures; only in the original; only in the decoded picture."""
    box: tuple[int, int, int, int]
    """Left, top, width and height in pixels of the decoded picture; of kept and lost objects where
    they are in the original."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """Objects that a verifier finds in the original and in the picture that the sender's receiver
    paints from seed 0, by default the bundled one in one step."""

    verifier: str
    """The first eight hexadecimal digits of the SHA-256 of the verifier's file."""
    groups: Mapping[str, Tally]
    """For each of GROUPS, or of the table's groups."""
    table: str | None = None
    """Digest of the `Table`; None: the groups are GROUPS."""

    @property
    def total(self) -> Tally:
        """The sum over all groups."""
        return sum(self.groups.values(), Tally(0, 0, 0))

    def described(self) -> dict[str, Any]:
        """The receipt as in `sempic.info`."""
        return {
            "verifier": self.verifier,
            "table": self.table,
            "groups": {name: tally.described() for name, tally in self.groups.items()},
            "all": self.total.described(),
        }


def overhead(groups: Table | None) -> int:
    """An upper bound for the bytes of a receipt with its chunk's head."""
    if groups is None:
        return 32  # a picture has no room for large counts
    return 16 + len("\n".join(groups.groups).encode()) + 12 * len(groups.groups)


@refused(InputError, "no receipt", AttributeError, TypeError, ValueError)
def write(receipt: Receipt) -> bytes:
    """The payload of a receipt chunk; of a receipt with a table, the payload of the chunk for the
    sender's own groups. Raises InputError for an invalid receipt."""
    names, digests, text = list(receipt.groups), [receipt.verifier], b""
    named = names == list(GROUPS)
    if receipt.table is not None:
        digests.append(receipt.table)
        text = "\n".join(names).encode()
        named = bool(names) and all(map(_NAME.fullmatch, names)) and len(text) <= _MOST_TEXT
    if not named or not all(map(DIGEST.fullmatch, digests)):
        raise InputError("a receipt names its verifier, and counts every group")
    bits = ""
    for name, tally in receipt.groups.items():
        numbers = (tally.seen, tally.lost, tally.invented)
        if not (0 <= tally.lost <= tally.seen and all(0 <= n <= MOST for n in numbers)):
            raise InputError(f"{name}: {numbers} are no counts of objects")
        bits += ue(tally.seen) + (ue(tally.lost) if tally.seen else "") + ue(tally.invented)
    length = bytes([len(text)] if text else [])
    return bytes.fromhex("".join(digests)) + length + text + packed(bits)


def read(payload: bytes, *, own: bool = False) -> Receipt:
    """The receipt in a payload; `own`: of the sender's own groups. Raises BitstreamError if the
    payload is not exactly one receipt."""
    bits = Bits(payload, "the receipt")
    verifier, table, names = f"{bits.number(32):08x}", None, list(GROUPS)
    if own:
        table = f"{bits.number(32):08x}"
        length = bits.number(8)
        text = bits.number(8 * length).to_bytes(length, "big")
        names = text.decode("utf-8", "replace").split("\n")
        if not all(map(_NAME.fullmatch, names)) or len(set(names)) < len(names):
            raise CorruptStream("the receipt names no groups")
    groups = {}
    for name in names:
        seen = bits.ue()
        lost = bits.ue() if seen else 0
        if lost > seen:
            raise CorruptStream(f"the receipt has {lost} objects lost of {seen}")
        groups[name] = Tally(seen, lost, bits.ue())
    bits.end()
    return Receipt(verifier=verifier, groups=groups, table=table)
