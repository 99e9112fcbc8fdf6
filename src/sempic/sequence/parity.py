"""Parity packets, from which a receiver restores lost frames. docs/spec/sequence.md §7.

The frames of a group are cut into symbols. Sums of the symbols over GF(2⁸) follow the group, by a
Cauchy matrix (Blömer et al., "An XOR-Based Erasure-Resilient Coding Scheme", 1995). Any symbols can
be restored, as many as there are sums. `Guard` is for senders, `Mender` for receivers.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache

import numpy as np
import numpy.typing as npt

from sempic.errors import BitstreamError
from sempic.sequence import stream
from sempic.sequence.stream import LARGEST, NUMBERS, SPAN, Frame, Head, Packet, Parity

_SECONDS = 4.0
"""Length of a group. A long group spreads losses more evenly, but restores frames later."""
_PACKETS = 2
"""Parity packets of a group."""
_HEADER = 16
"""Approximate bytes of a packet without sums and counts."""
_PRECEDING = 1024
"""The most packets before a frame; noise without any frame has no end."""
_END = b"\1"
"""Follows a frame's content, before the zeros that fill its last symbol."""
_POLYNOMIAL = 0x11D

_Bytes = npt.NDArray[np.uint8]


class Guard:
    """Contents of frames → parity packets, for senders."""

    def __init__(self, share: float, rate: Fraction) -> None:
        """share: bytes of parity per byte of a group, 0…1; it is raised until any one frame can be
        restored. 0: no packets. rate: frames in a second."""
        self._share = share
        self._span = min(max(_PACKETS, round(_SECONDS * rate)), SPAN)
        self._number = 0
        self._group: list[bytes] = []
        self._due: list[bytes] = []

    def announce(self) -> bytes:
        """The packet before a key frame; after it receivers wait for lost frames."""
        if not self._share:
            return b""
        return stream.write_parity(Parity(span=self._span, wait=_PACKETS))

    def add(self, content: bytes) -> bytes:
        """Takes the content of the next frame, and returns the packet that follows it, or none."""
        if not self._share:
            return b""
        due = self._due.pop(0) if self._due else b""
        self._group.append(content)
        self._number += 1
        if len(self._group) == self._span:
            self._finish_group()
        return due

    def close(self) -> list[bytes]:
        """The packets that follow the last frame."""
        if self._group:
            self._number += self._span - len(self._group)
            self._finish_group()
        due, self._due = self._due, []
        return due

    def _finish_group(self) -> None:
        group, self._group = self._group, []
        if sum(map(len, group)) > LARGEST:
            return
        size = self._symbol_size(group)
        counts = [_count(content, size) for content in group]
        symbols = np.concatenate([_symbols(content, size) for content in group])
        numbers = len(symbols) + np.arange(self._sum_count(group, size))
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

    def _sum_count(self, group: Sequence[bytes], size: int) -> int:
        """The number of sums, with symbols of this size."""
        wanted = self._share * sum(map(len, group)) - _PACKETS * (self._span + _HEADER)
        return max(math.ceil(wanted / size), *(_count(content, size) for content in group))

    def _symbol_size(self, group: Sequence[bytes]) -> int:
        """Nearly the smallest size for which symbols and sums together are 256 at most."""
        size = max(1, sum(map(len, group)) // 256)
        while sum(_count(c, size) for c in group) + self._sum_count(group, size) > 256:
            size += 1 + size // 64
        return size


@dataclass(slots=True)
class _Group:
    size: int
    counts: bytes
    sums: dict[int, bytes] = field(default_factory=dict)
    """By number."""


class Mender:
    """Received packets → packets in the order of their frames, with restored frames, for receivers.
    Frames after a lost one wait as long as parity may restore it.

    The numbers of frames rise.
    """

    def __init__(self) -> None:
        self._version = stream.VERSION
        self._span = self._wait = 0
        self._due: int | None = None
        """Number of the frame to return next."""
        self._newest = -1
        self._preceding = deque[Packet](maxlen=_PRECEDING)
        """Packets since the last frame."""
        self._held: dict[int, list[Packet]] = {}
        """Frames to return, by number, each after the packets that precede it."""
        self._contents: dict[int, bytes] = {}
        """Contents of frames by number, as long as parity may need them."""
        self._groups: dict[int, _Group] = {}

    def take(self, packet: Packet | Parity) -> Iterator[Packet]:
        """The packets that are ready now."""
        if isinstance(packet, Head):
            self._version = packet.version
            yield packet
        elif isinstance(packet, Parity):
            self._learn(packet)
            yield from self._release()
        elif not isinstance(packet, Frame):
            self._preceding.append(packet)
        elif self._hold(packet):
            yield from self._release()

    def close(self) -> Iterator[Packet]:
        """The packets that still wait, at the end of the stream."""
        self._span = 0
        yield from self._release()
        yield from self._preceding
        self._preceding.clear()

    def _hold(self, frame: Frame) -> bool:
        """Stores a frame, unless it is late, repeated, or before the first key frame and without
        parity that may restore the one before it."""
        number = frame.number
        if self._due is None:
            if not (frame.key or self._span):
                return False
            self._due = number if frame.key else 0
        if number < self._due or number in self._held:
            return False
        self._newest = max(self._newest, number)
        self._held[number] = [*self._preceding, frame]
        self._preceding.clear()
        if self._span:
            self._contents[number] = frame.content
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
        """Drops contents and sums that are too old, or too large together."""
        past = self._newest - self._span - self._wait
        for number in [n for n in self._contents if n < past]:
            del self._contents[number]
        while sum(map(len, self._contents.values())) > 2 * LARGEST:
            del self._contents[min(self._contents)]
        for index in [i for i in self._groups if self._is_past(i * self._span)]:
            del self._groups[index]
        while sum(len(g.sums) * g.size for g in self._groups.values()) > 2 * LARGEST:
            del self._groups[min(self._groups)]

    def _is_past(self, number: int) -> bool:
        """Whether parity of a frame's group comes no more."""
        end = (number // self._span + 1) * self._span
        return self._newest >= end + self._wait

    def _release(self) -> Iterator[Packet]:
        while self._held:
            assert self._due is not None
            if self._due not in self._held:
                if self._span and not self._is_past(self._due) and self._has_room():
                    return
                # Parity of frames this old comes no more.
                past = self._newest - self._span - self._wait if self._span else self._newest
                self._due = min(*self._held, max(self._due + 1, past))
                continue
            self._due += 1
            yield from self._held.pop(self._due - 1)

    def _has_room(self) -> bool:
        frames = (packets[-1] for packets in self._held.values())
        return sum(frame.size for frame in frames if isinstance(frame, Frame)) <= LARGEST

    def _mend(self, index: int) -> None:
        """Restores the lost frames of a group, if there are enough sums."""
        group = self._groups.get(index)
        if group is None or self._due is None:
            return
        counts = dict(enumerate(group.counts, index * self._span))
        lost = [n for n, count in counts.items() if count and n not in self._contents]
        wanted = sum(counts[n] for n in lost)
        if not 0 < wanted <= len(group.sums):
            return
        del self._groups[index]
        numbers = np.array(sorted(group.sums)[:wanted])
        sums = np.frombuffer(b"".join(group.sums[n] for n in numbers), np.uint8)
        left = sums.reshape(-1, group.size).copy()
        missing, at = [], 0
        for number, count in counts.items():
            places = np.arange(at, at := at + count)
            content = self._contents.get(number)
            if content is None:
                missing.append(places)
            elif count == _count(content, group.size):
                # Symbols may be far larger than contents: their zeros cost no time.
                width = min(len(content) + len(_END), group.size)
                known = _symbols(content, group.size)[:, :width]
                left[:, :width] ^= _product(_factors(numbers, places), known)
            else:  # parity of other frames
                return
        found = _solve(_factors(numbers, np.concatenate(missing)), left)
        ends = np.cumsum([counts[n] for n in lost])[:-1]
        for number, symbols in zip(lost, np.split(found, ends), strict=True):
            frame = _frame(symbols.tobytes(), number, self._version)
            if frame is not None:
                self._contents[number] = frame.content
                if number >= self._due:
                    self._held[number] = [frame]
                    self._newest = max(self._newest, number)


def _frame(data: bytes, number: int, version: int) -> Frame | None:
    """A frame from its symbols; None if they hold no frame with this number."""
    content = data.rstrip(b"\0")
    if not content.endswith(_END):
        return None
    try:
        return stream.read_frame(content[: -len(_END)], version, number)
    except BitstreamError:
        return None


# ── symbols ──────────────────────────────────────────────────────────────────────────────────


def _count(content: bytes, size: int) -> int:
    """Symbols of a frame."""
    return -(-(len(content) + len(_END)) // size)


def _symbols(content: bytes, size: int) -> _Bytes:
    """uint8 (count, size)."""
    padded = (content + _END).ljust(_count(content, size) * size, b"\0")
    return np.frombuffer(padded, np.uint8).reshape(-1, size)


# ── GF(2⁸) ───────────────────────────────────────────────────────────────────────────────────


@cache
def _tables() -> tuple[_Bytes, _Bytes]:
    """Products, (256, 256), and inverses, (256,); the inverse of 0 is set to 0."""
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
    """Factors of symbols in sums, a Cauchy matrix (numbers, places): 1 / (number + place)."""
    factors: _Bytes = _tables()[1][numbers[:, None] ^ places]
    return factors


def _product(factors: _Bytes, symbols: _Bytes) -> _Bytes:
    """Matrix product of uint8 (m, n) and (n, size)."""
    products = _tables()[0]
    total = np.zeros((len(factors), symbols.shape[1]), np.uint8)
    for column, symbol in zip(factors.T, symbols, strict=True):
        total ^= products[column[:, None], symbol]
    return total


def _solve(factors: _Bytes, sums: _Bytes) -> _Bytes:
    """Symbols from factors and sums, by Gauss-Jordan elimination. No pivot is 0, since every minor
    of a Cauchy matrix is regular."""
    products, inverses = _tables()
    rows = np.concatenate((factors, sums), axis=1)
    for at in range(len(rows)):
        rows[at] = products[inverses[rows[at, at]], rows[at]]
        column = rows[:, at].copy()
        column[at] = 0
        rows ^= products[column[:, None], rows[at]]
    return rows[:, len(rows) :]
