"""Bit strings: HEVC's parameter sets, headers of windows, receipts, textures."""

from __future__ import annotations

from sempic.errors import CorruptStream, TruncatedStream

_LONGEST = 1 << 13
"""Most bytes that are read: twice the longest header, receipt or texture. Text takes eight times
the memory, and a payload may be as long as its stream."""


class Bits:
    """Reads a string of bits from the left."""

    def __init__(self, data: bytes, what: str = "an HEVC header") -> None:
        """what: the name of the data in error messages."""
        data = data[:_LONGEST]
        self.bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}" if data else ""
        self.at = 0
        self._what = what

    def take(self, n: int) -> str:
        """The next n bits."""
        if self.at + n > len(self.bits):
            raise TruncatedStream(f"{self._what} is cut short")
        self.at += n
        return self.bits[self.at - n : self.at]

    def number(self, n: int) -> int:
        """The next n bits as a number."""
        return int("0" + self.take(n), 2)

    def ue(self) -> int:
        """The number of the next Exp-Golomb code."""
        return from_golomb(self.golomb())

    def golomb(self) -> str:
        """The bits of the next Exp-Golomb code (H.265 9.2), of a number below 2^16 - 1."""
        one = self.bits.find("1", self.at, self.at + 16)
        if one < 0 and len(self.bits) < self.at + 16:
            raise TruncatedStream(f"{self._what} is cut short")
        if one < 0:
            raise CorruptStream(f"{self._what} holds a number that is too large")
        return self.take(2 * (one - self.at) + 1)

    def end(self) -> None:
        """Raises CorruptStream unless only zeros follow, up to the end of the last byte."""
        if len(self.bits) - self.at > 7 or "1" in self.bits[self.at :]:
            raise CorruptStream(f"{self._what} is longer than need be")

    def pcm(self) -> str:
        """pcm_enabled_flag and the fields that depend on it (H.265 7.3.2.2)."""
        flag = self.take(1)
        if flag == "1":
            flag += self.take(8) + self.golomb() + self.golomb() + self.take(1)
        return flag


def from_golomb(golomb: str) -> int:
    """The number of an Exp-Golomb code."""
    return int(golomb, 2) - 1


def ue(number: int) -> str:
    """The Exp-Golomb code of a number."""
    bits = f"{number + 1:b}"
    return "0" * (len(bits) - 1) + bits


def packed(bits: str) -> bytes:
    """Bits as bytes; zeros fill the last byte."""
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")
