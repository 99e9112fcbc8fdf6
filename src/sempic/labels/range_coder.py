"""Binary range coder, carryless, 48 bits; the same functions encode and decode.

As in PAQ (Mahoney, 2005): each bit selects one part of the interval low … high. The top byte is
written when both ends of the interval agree on it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sempic.compiling import kernel
from sempic.labels.arithmetic import Ints, clamp

_BYTES = 6
_MASK = (1 << 8 * _BYTES) - 1
_LOW, _HIGH, _WINDOW, _POSITION = range(4)


class RangeCoder(NamedTuple):
    """An encoder or a decoder; see `encoder` and `decoder`."""

    state: Ints
    """Low, high, the decoder's window, number of bytes written or read."""
    data: npt.NDArray[np.uint8]
    """Bytes written or read; never accessed beyond the end."""
    decodes: bool


def encoder(limit: int) -> RangeCoder:
    """An encoder that keeps the first `limit` bytes and counts the others."""
    return RangeCoder(np.array([0, _MASK, 0, 0], np.int64), np.zeros(limit, np.uint8), False)


def decoder(body: bytes) -> RangeCoder:
    """A decoder that reads zeros beyond the end of `body`."""
    window = int.from_bytes(body[:_BYTES].ljust(_BYTES, b"\0"), "big")
    data = np.frombuffer(bytearray(body), np.uint8)
    return RangeCoder(np.array([0, _MASK, window, _BYTES], np.int64), data, True)


def finish(coder: RangeCoder) -> bytes:
    """All bytes of an encoder, ended by as few bytes as possible."""
    kept = coder.data[: int(coder.state[_POSITION])].tobytes()
    return kept + int(coder.state[_HIGH]).to_bytes(_BYTES, "big")[: _tail(coder)]


def length(coder: RangeCoder) -> int:
    """Length of the body, in bytes, if the last bit that was decoded ends the body."""
    return int(coder.state[_POSITION]) - _BYTES + _tail(coder)


def _tail(coder: RangeCoder) -> int:
    """The least number of bytes whose value, followed by zeros, can lie within low … high."""
    low, high = int(coder.state[_LOW]), int(coder.state[_HIGH])
    cuts = (8 * (_BYTES - k) for k in range(_BYTES + 1))
    return next(k for k, cut in enumerate(cuts) if high >> cut << cut >= low)


@kernel
def code_bit(coder: Any, bit: Any, p: Any) -> Any:
    """Encodes `bit`, or decodes one; returns the bit. p: probability of a 1, in 1/65536."""
    state, data = coder.state, coder.data
    low, high = state[_LOW], state[_HIGH]
    middle = low + ((high - low) >> 16) * p
    if coder.decodes:
        bit = 1 if state[_WINDOW] <= middle else 0
    if bit:
        high = middle
    else:
        low = middle + 1
    while (low ^ high) >> 40 == 0:
        at = state[_POSITION]
        if coder.decodes:
            byte = np.int64(data[at]) if at < data.size else np.int64(0)
            state[_WINDOW] = ((state[_WINDOW] << 8) & _MASK) | byte
        elif at < data.size:
            data[at] = high >> 40
        state[_POSITION] = at + 1
        low = (low << 8) & _MASK
        high = ((high << 8) & _MASK) | 255
    state[_LOW] = low
    state[_HIGH] = high
    return bit


@kernel
def code_choice(coder: Any, chosen: Any, weights: Any) -> Any:
    """Encodes the index `chosen`, or decodes one, by bisection; returns the index.

    weights: int64, relative probabilities below 2^42; an index of weight 0 cannot be coded.
    """
    low, high = 0, weights.size
    while high - low > 1:
        middle = (low + high) >> 1
        below = np.int64(0)
        above = np.int64(0)
        for v in range(low, middle):
            below += weights[v]
        for v in range(middle, high):
            above += weights[v]
        if above == 0:
            high = middle
        elif below == 0:
            low = middle
        else:
            p = clamp((below << 16) // (below + above), 1, 65535)
            if code_bit(coder, 1 if chosen < middle else 0, p):
                high = middle
            else:
                low = middle
    return low
