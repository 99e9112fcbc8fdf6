"""Label map ⇄ payload, lossless. docs/LABELS.md is the normative text.

    payload := head:u8 set:bytes body
    head    := coder:2 bits, kind:2 bits, the first 4 bits of the set

The set names the ids in use as a bit mask of 12, 20, 36 or 260 bits (by kind). Coder 0 stores
indices into the set with ceil(log2 n) bits; coder 1 is adaptive context mixing (`_model`).
"""

from __future__ import annotations

import numpy as np

from spic.errors import CorruptStream, LabelMapError, TruncatedStream, UnsupportedChunk
from spic.labels import _model
from spic.labels._tables import SQUASH, STRETCH
from spic.scene import LabelMap

__all__ = ["decode", "encode"]

RAW, ADAPTIVE = 0, 1
SET_BYTES = (1, 2, 4, 32)


def encode(labels: LabelMap) -> bytes:
    """Codes a map without loss.

    labels: uint8 (H, W), any ids, at least one pixel. Never longer than 33 bytes plus
    ceil(log2 n) bits per pixel, n being the number of ids in use.
    Raises LabelMapError if the array is of another kind.
    """
    if labels.dtype != np.uint8 or labels.ndim != 2 or labels.size == 0:
        raise LabelMapError(
            f"a label map is uint8 (H, W), not empty; this is {labels.dtype} {labels.shape}"
        )
    ids, flat = np.unique(labels, return_inverse=True)
    indices = flat.reshape(labels.shape).astype(np.int64)
    raw = _encode_raw(indices, len(ids))
    if not raw:
        return _head(RAW, ids)
    mixed = _encode_adaptive(indices, len(ids), len(raw))
    return _head(RAW, ids) + raw if mixed is None else _head(ADAPTIVE, ids) + mixed


def decode(payload: bytes, height: int, width: int) -> LabelMap:
    """Rebuilds the map: uint8 (height, width).

    The caller bounds height and width. Raises TruncatedStream or CorruptStream when the payload
    cannot be that of such a map; a damaged payload may also decode to a wrong map, which the
    container's checksum tells.
    """
    coder, ids, body = _parse_head(payload)
    if coder == RAW:
        indices = _decode_raw(body, height, width, len(ids))
    elif coder == ADAPTIVE:
        indices = _decode_adaptive(body, height, width, len(ids))
    else:
        raise UnsupportedChunk(f"label coder {coder} is not known to this version")
    return ids[indices]


def _head(coder: int, ids: LabelMap) -> bytes:
    kind = next(k for k, size in enumerate(SET_BYTES) if int(ids[-1]) < 8 * size + 4)
    mask = sum(1 << int(i) for i in ids)
    return bytes([coder << 6 | kind << 4 | mask & 15]) + (mask >> 4).to_bytes(
        SET_BYTES[kind], "little"
    )


def _parse_head(payload: bytes) -> tuple[int, LabelMap, bytes]:
    if not payload:
        raise TruncatedStream("the label payload is empty")
    coder, size = payload[0] >> 6, SET_BYTES[payload[0] >> 4 & 3]
    if len(payload) < 1 + size:
        raise TruncatedStream(f"the set of labels takes {size} bytes, {len(payload) - 1} are left")
    mask = int.from_bytes(payload[1 : 1 + size], "little") << 4 | payload[0] & 15
    if mask == 0 or mask >> 256:
        raise CorruptStream("the set of labels is empty or names ids above 255")
    ids = np.array([i for i in range(256) if mask >> i & 1], np.uint8)
    return coder, ids, payload[1 + size :]


def _raw_bits(n: int) -> int:
    return (n - 1).bit_length()


def _encode_raw(indices: _model.Ints, n: int) -> bytes:
    shifts = np.arange(_raw_bits(n))
    return np.packbits((indices.ravel()[:, None] >> shifts & 1).astype(np.uint8)).tobytes()


def _decode_raw(body: bytes, height: int, width: int, n: int) -> _model.Ints:
    bits = _raw_bits(n)
    expected = (height * width * bits + 7) // 8
    _check_length(len(body), expected)
    packed = np.unpackbits(np.frombuffer(body, np.uint8), count=height * width * bits)
    shifts = np.arange(bits)
    indices: _model.Ints = (packed.reshape(height, width, bits).astype(np.int64) << shifts).sum(-1)
    if int(indices.max(initial=0)) >= n:
        raise CorruptStream("a stored label is not in the set")
    return indices


def _check_length(size: int, expected: int) -> None:
    if size < expected:
        raise TruncatedStream(f"the label map takes {expected} bytes, {size} are left")
    if size > expected:
        raise CorruptStream(f"{size - expected} bytes follow the label map")


def _framed(height: int, width: int, n: int) -> _model.Ints:
    return np.full((height + _model.PAD, width + 2 * _model.PAD), n, np.int64)


def _encode_adaptive(indices: _model.Ints, n: int, limit: int) -> bytes | None:
    """The mixed code, or None if it does not get below `limit` bytes."""
    height, width = indices.shape
    image = _framed(height, width, n)
    image[_model.PAD :, _model.PAD : -_model.PAD] = indices
    coder = _model.new_coder()
    data = np.zeros(limit, np.uint8)
    _model.code_map(
        image.ravel(), height, width, n, coder, data, False,
        _model.fresh_state(n), SQUASH, STRETCH,
    )  # fmt: skip
    size, tail = int(coder[3]), _model.flush_length(coder)
    if size + tail >= limit:
        return None
    return data[:size].tobytes() + int(coder[1]).to_bytes(6, "big")[:tail]


def _decode_adaptive(body: bytes, height: int, width: int, n: int) -> _model.Ints:
    image = _framed(height, width, n)
    image[_model.PAD :, _model.PAD : -_model.PAD] = 0
    coder = _model.new_coder()
    coder[2] = int.from_bytes(body[:6].ljust(6, b"\0"), "big")
    coder[3] = 6
    _model.code_map(
        image.ravel(), height, width, n, coder, np.frombuffer(bytearray(body), np.uint8), True,
        _model.fresh_state(n), SQUASH, STRETCH,
    )  # fmt: skip
    _check_length(len(body), int(coder[3]) - 6 + _model.flush_length(coder))
    return image[_model.PAD :, _model.PAD : -_model.PAD]
