"""Objects whose loss is worse than an error, by groups of classes, and the receipt that says what
became of them (spec/format.md §8).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sempic.bits import Bits, from_golomb, packed, ue
from sempic.errors import CorruptStream, InputError

GROUPS = {
    "people": ("pedestrian", "person", "rider"),
    "two-wheelers": ("bicyclist", "bicycle", "motorcycle"),
    "vehicles": ("car", "truck", "bus", "train", "caravan", "trailer"),
    "signs and lights": ("sign", "traffic sign", "traffic light"),
}
"""Classes by name, in whatever palette. CamVid's bicyclist is the rider and what he rides."""
SHARE = 0.001
"""Of the picture that an object takes at least."""
BUDGET = 0.25
"""What mending may add to a stream if nothing is said, as a share of it."""
VERIFIER = re.compile(r"[0-9a-f]{8}")
_MOST = (1 << 16) - 1
"""Counts are smaller, as `Bits.golomb` has it."""


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

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.seen + other.seen, self.lost + other.lost, self.invented + other.invented)


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What a network that took no part in the coding sees in the original and in what is decoded
    with the bundled receiver, in one step, from seed 0."""

    verifier: str
    """Of that network: the first eight hexadecimal digits of its file's SHA-256."""
    groups: Mapping[str, Tally]
    """One for each of GROUPS."""

    @property
    def total(self) -> Tally:
        """Of all groups."""
        return sum(self.groups.values(), Tally(0, 0, 0))


def write(receipt: Receipt) -> bytes:
    """The payload of a receipt chunk. Raises InputError if it is not as `Receipt` says."""
    if not VERIFIER.fullmatch(receipt.verifier) or list(receipt.groups) != list(GROUPS):
        raise InputError("a receipt names its verifier, and counts every group")
    bits = ""
    for name, tally in receipt.groups.items():
        numbers = (tally.seen, tally.lost, tally.invented)
        if not (0 <= tally.lost <= tally.seen and all(0 <= n < _MOST for n in numbers)):
            raise InputError(f"{name}: {numbers} are no counts of objects")
        bits += ue(tally.seen) + (ue(tally.lost) if tally.seen else "") + ue(tally.invented)
    return bytes.fromhex(receipt.verifier) + packed(bits)


def read(payload: bytes) -> Receipt:
    """The receipt in a payload. Raises a BitstreamError if it is not exactly one."""
    bits = Bits(payload, "the receipt")
    verifier = f"{int(bits.take(32), 2):08x}"
    groups = {}
    for name in GROUPS:
        seen = from_golomb(bits.golomb())
        lost = from_golomb(bits.golomb()) if seen else 0
        if lost > seen:
            raise CorruptStream(f"the receipt has {lost} objects lost of {seen}")
        groups[name] = Tally(seen, lost, from_golomb(bits.golomb()))
    if len(bits.bits) - bits.at > 7 or "1" in bits.bits[bits.at :]:
        raise CorruptStream("the receipt is longer than need be")
    return Receipt(verifier=verifier, groups=groups)
