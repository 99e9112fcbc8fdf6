"""Short slice headers of predicted coarse pictures. docs/spec/sequence.md §4.

The slice headers of x265 take nine bytes or more, in slices of often twenty: the picture's place,
its reference pictures, constant settings. A short slice has one byte for them.
"""

from __future__ import annotations

from typing import NamedTuple

from sempic.bits import Bits, packed, ue
from sempic.coarse import hevc
from sempic.errors import BitstreamError, CorruptStream, TruncatedStream

_UNIT = b"\x02\x01"
"""Header of a NAL unit of type 1."""
_FIRST, _TYPE = "11", ue(1)
"""The first slice of a picture, with parameter set 0; a P slice."""
_CANDIDATES = ue(2)
"""five_minus_max_num_merge_cand of x265's preset "slow"."""
_BASE_QP = 26
"""QP in x265's parameter sets; slices code their difference from it."""
QP = range(1, 52)
_WEIGHTED = 128
_FEWER = 64
"""A byte follows with the number of reference pictures, of which there can be more."""
_OPENING = 32
"""The most bytes of a slice header."""


class _Weights(NamedTuple):
    """Bits of pred_weight_table with chroma (H.265 7.3.6.3) if only the first of the reference
    pictures, the last picture, has weights."""

    scales: str
    luma: str
    chroma: str
    values: str

    def table(self, references: int) -> str:
        """All bits, for a number of reference pictures."""
        others = "0" * (references - 1)
        return self.scales + self.luma + others + self.chroma + others + self.values


_UNWEIGHTED = _Weights("11", "0", "0", "")
"""The shortest: no weights."""


def shorten(unit: bytes, places: int, references: int = 1) -> bytes | None:
    """The short form of a NAL unit, a slice that is predicted from the last pictures; None if it
    has no short form.

    places: bits of a picture's place. references: from how many of the last pictures a picture may
    be predicted.
    """
    raw = hevc.payload(unit)
    bits = Bits(raw[:_OPENING])
    try:
        if unit[:2] != _UNIT or not _is(bits, _FIRST + _TYPE):
            return None
        bits.take(places)
        if not _is(bits, "0") or not 0 < (count := _references(bits, references)) <= references:
            return None
        weights = _weights(bits, count)
        if not _is(bits, _CANDIDATES):
            return None
        qp = _BASE_QP + _signed(bits)
        bits.take(1)  # loop filter across slices: no effect in a picture of one slice
        if qp not in QP or not _is(bits, "1" + "0" * (-(bits.at + 1) % 8)):
            return None
    except BitstreamError:
        return None
    fewer = count < references
    opening = qp | _FEWER * fewer | _WEIGHTED * bool(weights)
    table = packed(weights.table(1)) if weights else b""
    return bytes((opening, *[count] * fewer)) + table + raw[bits.at // 8 :]


def restore(short: bytes, place: int, places: int, references: int = 1) -> bytes:
    """The NAL unit of a short form.

    place: number of pictures since the key frame. places, references: as of `shorten`. Raises
    CorruptStream or TruncatedStream for other bytes.
    """
    if not short:
        raise TruncatedStream("a coarse picture is cut short")
    opening, data, count, weights = short[0], short[1:], references, None
    if references > 1 and opening & _FEWER:
        opening, count, data = opening & ~_FEWER, int.from_bytes(data[:1], "big"), data[1:]
        if not 0 < count < references:
            raise CorruptStream(f"a coarse picture has {count} reference pictures")
    if (qp := opening & ~_WEIGHTED) not in QP:
        raise CorruptStream(f"a coarse picture has a QP of {qp}")
    if opening & _WEIGHTED:
        bits = Bits(data[:_OPENING], "a coarse picture")
        weights = _weights(bits, 1)
        data = data[-(-bits.at // 8) :]
    # After a loss fewer pictures may be left than the slice needs: HEVC then repeats them.
    kept = min(place, count)
    delta = qp - _BASE_QP
    head = _FIRST + _TYPE + f"{place % (1 << places):0{places}b}"
    head += "0" + ue(kept) + ue(0) + (ue(0) + "1") * kept
    head += "0" if count == 1 else "1" + ue(count - 1)
    head += (weights or _UNWEIGHTED).table(count) + _CANDIDATES
    head += ue(2 * delta - 1 if delta > 0 else -2 * delta) + "11"
    return _UNIT + hevc.escaped(packed(head) + data)


def _is(bits: Bits, expected: str) -> bool:
    """Whether the next bits are these; takes them."""
    return bits.take(len(expected)) == expected


def _signed(bits: Bits) -> int:
    number = bits.ue()
    return (number + 1) // 2 if number % 2 else -(number // 2)


def _references(bits: Bits, most: int) -> int:
    """From how many of the last pictures a slice is predicted (H.265 7.3.7, 7.3.6.1); 0 for other
    pictures. If at most one may be, more can be kept, from which nothing is predicted."""
    count = bits.ue()
    if not _is(bits, ue(0)):
        return 0
    last = [_is(bits, ue(0) + "1")] if count else []
    for _ in range(count - 1):
        following = bits.golomb() == ue(0)
        last.append(bits.take(1) == "1" and following)
    active = bits.ue() + 1 if bits.take(1) == "1" else 1
    return active if last and all(last[:active]) and active == (1 if most == 1 else count) else 0


def _weights(bits: Bits, references: int) -> _Weights | None:
    """The weights of the last picture; None: no weights. Raises CorruptStream if other pictures
    have some."""
    scales = bits.golomb() + bits.golomb()
    luma, chroma = bits.take(references), bits.take(references)
    if "1" in luma[1:] + chroma[1:]:
        raise CorruptStream("not only the last coarse picture has weights")
    start = bits.at
    for _ in range(2 * int(luma[0]) + 4 * int(chroma[0])):
        bits.golomb()
    found = _Weights(scales, luma[0], chroma[0], bits.bits[start : bits.at])
    return found if found.values else None
