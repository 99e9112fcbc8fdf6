"""Frames that are lost and restored from parity packets. docs/spec/sequence.md §7.

A group of frames is cut into symbols; sums of these over GF(2⁸) are sent behind the group, by a
Cauchy matrix (Blömer et al., "An XOR-Based Erasure-Resilient Coding Scheme", 1995). As many symbols
as there are sums can be lost, whichever they are. `Guard` is the sender's part, `Mender` the
receiver's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache

import numpy as np
import numpy.typing as npt

from sempic.errors import BitstreamError
from sempic.sequence import stream
from sempic.sequence.stream import LARGEST, NUMBERS, SPAN, Advice, Damage, Frame, Head, Parity

_SECONDS = 4.0
"""Of a group. The longer, the more evenly losses are spread, and the later a frame is restored."""
_PACKETS = 2
"""Of a group's parity: each is lost as a whole."""
_HEADER = 16
"""Bytes of a packet beside its sums and counts, about."""
_END = b"\1"
"""Behind what a frame holds; zeros fill up its last symbol."""
_POLYNOMIAL = 0x11D

_Bytes = npt.NDArray[np.uint8]
_Packet = Head | Frame | Advice | Damage


class Guard:
    """The sender's part: what frames hold in, packets of parity out."""

    def __init__(self, share: float, rate: Fraction) -> None:
        """share: bytes of parity for each byte of a group, 0…1; it is at least so much that any one
        frame can be restored. rate: frames in a second."""
        self._share = share
        self._span = min(max(_PACKETS, round(_SECONDS * rate)), SPAN)
        self._number = 0
        self._group: list[bytes] = []
        self._due: list[bytes] = []

    def announce(self) -> bytes:
        """What is to be sent before a key frame, so that receivers wait for what is lost."""
        return stream.write_parity(Parity(span=self._span, wait=_PACKETS))

    def add(self, content: bytes) -> bytes:
        """What is to be sent behind the next frame, which holds this."""
        due = self._due.pop(0) if self._due else b""
        self._group.append(content)
        self._number += 1
        if len(self._group) == self._span:
            self._sum()
        return due

    def close(self) -> list[bytes]:
        """What is to be sent behind the last frame, one after the other."""
        if self._group:
            self._number += self._span - len(self._group)
            self._sum()
        due, self._due = self._due, []
        return due

    def _sum(self) -> None:
        group, self._group = self._group, []
        if sum(map(len, group)) > LARGEST:
            return
        size = self._size(group)
        counts = [_count(content, size) for content in group]
        symbols = np.concatenate([_cut(content, size) for content in group])
        numbers = len(symbols) + np.arange(self._sums(group, size))
        sums = _product(_factors(numbers, np.arange(len(symbols))), symbols)
        for part in np.array_split(np.arange(len(sums)), _PACKETS):
            if len(part):
                parity = Parity(
                    span=self._span,
                    wait=_PACKETS,
                    group=(self._number - 1) // self._span,
                    symbol=size,
                    first=int(numbers[part[0]]),
                    counts=bytes(counts).ljust(self._span, b"\0"),
                    sums=sums[part].tobytes(),
                )
                self._due.append(stream.write_parity(parity))

    def _sums(self, group: Sequence[bytes], size: int) -> int:
        """How many there are of symbols of this size."""
        wanted = self._share * sum(map(len, group)) - _PACKETS * (self._span + _HEADER)
        return max(math.ceil(wanted / size), *(_count(content, size) for content in group))

    def _size(self, group: Sequence[bytes]) -> int:
        """About the least with which symbols and sums have numbers."""
        size = max(1, sum(map(len, group)) // 256)
        while sum(_count(c, size) for c in group) + self._sums(group, size) > 256:
            size += 1 + size // 64
        return size


@dataclass(slots=True)
class _Group:
    size: int
    counts: bytes
    sums: dict[int, bytes] = field(default_factory=dict)
    """By their numbers."""


class Mender:
    """The receiver's part: packets as they come in; out in the order of their frames, with those
    that could be restored. Frames behind one that is lost wait while its parity may come.

    Frames come out each later than the last, and predicted ones behind a key frame.
    """

    def __init__(self) -> None:
        self._version = stream.VERSION
        self._span = self._wait = 0
        self._next: int | None = None
        """Number of the frame that is to go out next."""
        self._newest = -1
        self._before: list[_Packet] = []
        """What came behind the last frame."""
        self._held: dict[int, list[_Packet]] = {}
        """Frames that are to go out, by number, each behind what came before it."""
        self._known: dict[int, bytes] = {}
        """What frames hold that parity may be of."""
        self._groups: dict[int, _Group] = {}

    def take(self, packet: _Packet | Parity) -> Iterator[_Packet]:
        """What goes out now."""
        if isinstance(packet, Head):
            self._version = packet.version
            yield packet
        elif isinstance(packet, Parity):
            self._learn(packet)
            yield from self._release()
        elif not isinstance(packet, Frame):
            self._before.append(packet)
        elif self._hold(packet):
            yield from self._release()

    def close(self) -> Iterator[_Packet]:
        """What still waits; nothing comes any more."""
        self._span = 0
        yield from self._release()
        yield from self._before
        self._before = []

    def _hold(self, frame: Frame) -> bool:
        """Whether a frame is to go out."""
        number = frame.number
        if self._next is None:
            if not frame.key:
                return False
            self._next = number
        if number < self._next or number in self._held:
            return False
        self._newest = max(self._newest, number)
        self._held[number] = [*self._before, frame]
        self._before = []
        if self._span:
            self._known[number] = frame.content
            self._forget()
            self._mend(number // self._span)
        return True

    def _learn(self, parity: Parity) -> None:
        if (parity.span, parity.wait) != (self._span, self._wait):
            self._span, self._wait = parity.span, parity.wait
            self._groups.clear()
        if not parity.sums or parity.group * self._span > self._newest + NUMBERS:
            return
        group = self._groups.get(parity.group)
        if group is None or (group.size, group.counts) != (parity.symbol, parity.counts):
            group = self._groups[parity.group] = _Group(parity.symbol, parity.counts)
        for at in range(0, len(parity.sums), parity.symbol):
            group.sums[parity.first + at // parity.symbol] = parity.sums[at : at + parity.symbol]
        self._forget()
        self._mend(parity.group)

    def _forget(self) -> None:
        """What is of no use any more, or too much to be kept."""
        past = self._newest - self._span - self._wait
        for number in [n for n in self._known if n < past]:
            del self._known[number]
        while sum(map(len, self._known.values())) > 2 * LARGEST:
            del self._known[min(self._known)]
        for index in [i for i in self._groups if self._is_past(i * self._span)]:
            del self._groups[index]
        while sum(len(g.sums) * g.size for g in self._groups.values()) > 2 * LARGEST:
            del self._groups[min(self._groups)]

    def _is_past(self, number: int) -> bool:
        """Whether no more parity comes of a frame's group."""
        end = (number // self._span + 1) * self._span
        return self._newest >= end + self._wait

    def _release(self) -> Iterator[_Packet]:
        while self._held:
            assert self._next is not None
            if self._next not in self._held:
                if self._span and not self._is_past(self._next) and self._has_room():
                    return
                # Of what is so old no parity can come.
                past = self._newest - self._span - self._wait if self._span else self._newest
                self._next = min(*self._held, max(self._next + 1, past))
                continue
            yield from self._held.pop(self._next)
            self._next += 1

    def _has_room(self) -> bool:
        frames = (packets[-1] for packets in self._held.values())
        return sum(frame.size for frame in frames if isinstance(frame, Frame)) <= LARGEST

    def _mend(self, index: int) -> None:
        """Holds what can be restored of a group."""
        group = self._groups.get(index)
        if group is None or self._next is None:
            return
        symbols = np.zeros((sum(group.counts), group.size), np.uint8)
        lost: dict[int, npt.NDArray[np.int64]] = {}
        at = 0
        for number, count in enumerate(group.counts, index * self._span):
            place = np.arange(at, at := at + count)
            content = self._known.get(number)
            if content is None:
                if count:
                    lost[number] = place
            elif count == _count(content, group.size):
                symbols[place] = _cut(content, group.size)
            else:  # it is not of these frames
                del self._groups[index]
                return
        if not lost or sum(map(len, lost.values())) > len(group.sums):
            return
        missing = np.concatenate(list(lost.values()))
        numbers = np.array(sorted(group.sums)[: len(missing)])
        sums = np.frombuffer(b"".join(group.sums[n] for n in numbers), np.uint8)
        left = sums.reshape(-1, group.size) ^ _product(
            _factors(numbers, np.arange(len(symbols))), symbols
        )
        symbols[missing] = _solve(_factors(numbers, missing), left)
        del self._groups[index]
        for number, place in lost.items():
            frame = _frame(symbols[place].tobytes(), number, self._version)
            if frame is not None:
                self._known[number] = frame.content
                if number >= self._next:
                    self._held[number] = [frame]
                    self._newest = max(self._newest, number)


def _frame(data: bytes, number: int, version: int) -> Frame | None:
    """A frame from its symbols; None if they are of no frame with this number."""
    content = data.rstrip(b"\0")
    if not content.endswith(_END):
        return None
    try:
        return stream.read_frame(content[: -len(_END)], version, number)
    except BitstreamError:
        return None


# ── symbols ──────────────────────────────────────────────────────────────────────────────────


def _count(content: bytes, size: int) -> int:
    return -(-(len(content) + len(_END)) // size)


def _cut(content: bytes, size: int) -> _Bytes:
    """uint8 (count, size)."""
    whole = (content + _END).ljust(_count(content, size) * size, b"\0")
    return np.frombuffer(whole, np.uint8).reshape(-1, size)


# ── GF(2⁸) ───────────────────────────────────────────────────────────────────────────────────


@cache
def _tables() -> tuple[_Bytes, _Bytes]:
    """Products, (256, 256), and inverses, (256,), of which that of 0 is 0."""
    powers, logarithms, value = np.zeros(510, np.uint8), np.zeros(256, np.int64), 1
    for exponent in range(255):
        powers[exponent] = powers[exponent + 255] = value
        logarithms[value] = exponent
        value <<= 1
        value ^= _POLYNOMIAL if value > 255 else 0
    products = powers[logarithms[:, None] + logarithms]
    products[0] = products[:, 0] = 0
    inverses = powers[255 - logarithms]
    inverses[0] = 0
    return products, inverses


def _factors(numbers: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> _Bytes:
    """Of a group's symbols in the sums of these numbers: 1 / (number + place)."""
    found: _Bytes = _tables()[1][numbers[:, None] ^ places]
    return found


def _product(factors: _Bytes, symbols: _Bytes) -> _Bytes:
    """uint8 (m, n) times (n, size)."""
    products = _tables()[0]
    total = np.zeros((len(factors), symbols.shape[1]), np.uint8)
    for column, symbol in zip(factors.T, symbols, strict=True):
        total ^= products[column[:, None], symbol]
    return total


def _solve(factors: _Bytes, sums: _Bytes) -> _Bytes:
    """What makes these sums, by Gauss and Jordan; each minor of a Cauchy matrix is regular, so that
    no pivot is 0."""
    products, inverses = _tables()
    rows = np.concatenate((factors, sums), axis=1)
    for at in range(len(rows)):
        rows[at] = products[inverses[rows[at, at]], rows[at]]
        column = rows[:, at].copy()
        column[at] = 0
        rows ^= products[column[:, None], rows[at]]
    return rows[:, len(rows) :]
