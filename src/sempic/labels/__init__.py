"""Label map ⇄ payload, lossless. docs/LABELS.md is the normative text.

    payload := head:u8 set:bytes [model:u8] body
    head    := coder:2 bits, kind:2 bits, the first 4 bits of the set

The set names the ids in use as a bit mask of 12, 20, 36 or 260 bits (by kind). Coder 0 stores
indices into the set with ceil(log2 n) bits; coder 1 is adaptive context mixing (`_model`); coders
2 and 3 add the trained prior that the model byte names (`prior`), 3 with the coarse picture: model
1 in `_model`, models 2 and 3 in `_primed`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from sempic import checks
from sempic.errors import CorruptStream, LabelMapError, TruncatedStream, UnsupportedChunk
from sempic.labels import _model, _primed, prior
from sempic.scene import Coarse, LabelMap

__all__ = ["decode", "encode"]

RAW, ADAPTIVE, CAUSAL, INFORMED = 0, 1, 2, 3
SET_BYTES = (1, 2, 4, 32)

MODELS = {"camvid": 3}
"""Trained priors by the palette they know; the number is in the stream."""
_HERE = Path(__file__).parent
_FILES = {
    1: (_HERE / "camvid1.npz",),
    2: (_HERE / "camvid1.npz", _HERE / "camvid2.npz"),
    3: (_HERE / "camvid1.npz", _HERE / "camvid3.npz"),
}
"""Of every model there ever was; 2 and 3 add to the networks of 1."""


def encode(labels: LabelMap, *, coarse: Coarse | None = None, model: str | None = None) -> bytes:
    """Codes a map without loss.

    labels: uint8 (H, W), any ids, at least one pixel. Never longer than 33 bytes plus
    ceil(log2 n) bits per pixel, n being the number of ids in use.
    coarse: what the decoder will hold already; it narrows the labels down if `model` is given.
    model: a trained prior for the palette of `labels` (a key of MODELS); None for any palette.
    Raises LabelMapError if the array is of another kind.
    """
    given: object = labels
    if not isinstance(given, np.ndarray):
        raise LabelMapError(f"a label map is uint8 (H, W), not {type(given).__name__}")
    if labels.dtype != np.uint8 or labels.ndim != 2 or labels.size == 0:
        raise LabelMapError(
            f"a label map is uint8 (H, W), not empty; this is {labels.dtype} {labels.shape}"
        )
    ids = np.unique(labels)
    plain = _head(RAW, ids)
    raw = len(plain) + (labels.size * (len(ids) - 1).bit_length() + 7) // 8
    if len(ids) == 1:
        return plain
    number = None if model is None else MODELS.get(model)
    if number is not None and int(ids[-1]) < prior.load(*_FILES[number]).classes:
        head = _head(CAUSAL if coarse is None else INFORMED, ids) + bytes([number])
        run = _trained(number, ids, coarse, *labels.shape)
        body = _encode_mixed(labels.astype(np.int64), raw, run)
    else:
        head = _head(ADAPTIVE, ids)
        body = _encode_mixed(_indices(labels, ids), raw, _adaptive(len(ids)))
    if len(head) + len(body) < raw:
        return head + body
    return plain + _encode_raw(_indices(labels, ids), len(ids))


def decode(payload: bytes, height: int, width: int, *, coarse: Coarse | None = None) -> LabelMap:
    """Rebuilds the map: uint8 (height, width).

    The caller bounds height and width. coarse: the planes that `encode` was given, exactly; needed
    only if it was given some.
    Raises TruncatedStream or CorruptStream when the payload cannot be that of such a map; a damaged
    payload may also decode to a wrong map, which the container's checksum tells.
    """
    coder, ids, body = _parse_head(checks.stream(payload))
    if coder == RAW:
        return ids[_decode_raw(body, height, width, len(ids))]
    if coder == ADAPTIVE:
        return ids[_decode_mixed(body, height, width, _adaptive(len(ids)))]
    if not body:
        raise TruncatedStream("the label payload ends before its model number")
    number = body[0]
    if number not in _FILES:
        raise UnsupportedChunk(f"label model {number} is not known to this version")
    if int(ids[-1]) >= prior.load(*_FILES[number]).classes:
        raise CorruptStream(f"label {ids[-1]} is not known to label model {number}")
    if coder == INFORMED and coarse is None:
        raise CorruptStream("this label map needs the coarse picture it was coded with")
    run = _trained(number, ids, coarse if coder == INFORMED else None, height, width)
    return _decode_mixed(body[1:], height, width, run).astype(np.uint8)


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


def _check_length(size: int, expected: int) -> None:
    if size < expected:
        raise TruncatedStream(f"the label map takes {expected} bytes, {size} are left")
    if size > expected:
        raise CorruptStream(f"{size - expected} bytes follow the label map")


def _indices(labels: LabelMap, ids: LabelMap) -> _model.Ints:
    """Where each label stands among the sorted ids."""
    table = np.zeros(256, np.int64)
    table[ids] = np.arange(len(ids))
    return table[labels]


def _encode_raw(indices: _model.Ints, n: int) -> bytes:
    shifts = np.arange((n - 1).bit_length(), dtype=np.uint8)
    return np.packbits(indices.astype(np.uint8).ravel()[:, None] >> shifts & 1).tobytes()


def _decode_raw(body: bytes, height: int, width: int, n: int) -> _model.Ints:
    bits = (n - 1).bit_length()
    _check_length(len(body), (height * width * bits + 7) // 8)
    packed = np.unpackbits(np.frombuffer(body, np.uint8), count=height * width * bits)
    indices = np.zeros((height, width), np.int64)
    for shift, digit in enumerate(np.moveaxis(packed.reshape(height, width, bits), 2, 0)):
        indices |= digit.astype(np.int64) << shift
    if int(indices.max(initial=0)) >= n:
        raise CorruptStream("a stored label is not in the set")
    return indices


_Run: TypeAlias = Callable[..., None]
"""One of the coders with all that both sides know before the first pixel."""


def _adaptive(n: int) -> _Run:
    return partial(_model.run, allowed=np.ones(n, np.int64), state=_model.fresh_state(n))


def _trained(number: int, ids: LabelMap, coarse: Coarse | None, height: int, width: int) -> _Run:
    known = prior.load(*_FILES[number])
    allowed = np.zeros(known.classes, np.int64)
    allowed[ids] = 1
    grid = None if coarse is None else prior.grid(coarse, height, width)
    if known.primed is not None:
        return partial(
            _primed.run,
            allowed=allowed,
            state=_primed.begin(known.primed, informed=grid is not None),
            network=known.causal,
            evidence=_primed.evidence(known, grid, height, width),
        )
    tables = known.causal_tables if grid is None else known.informed_tables
    return partial(
        _model.run,
        allowed=allowed,
        state=_model.fresh_state(known.classes, tables or _model.untrained_tables()),
        network=known.causal if grid is None else known.informed,
        features=None if grid is None else prior.features(known, grid),
    )


def _encode_mixed(indices: _model.Ints, limit: int, run: _Run) -> bytes:
    """The body; cut off at `limit`, where storing is shorter anyway."""
    coder, data = _model.new_coder(), np.zeros(limit, np.uint8)
    run(indices, coder, data, decode=False)
    tail = _model.flush_length(coder)
    return data[: int(coder[3])].tobytes() + int(coder[1]).to_bytes(6, "big")[:tail]


def _decode_mixed(body: bytes, height: int, width: int, run: _Run) -> _model.Ints:
    indices = np.zeros((height, width), np.int64)
    coder = _model.new_coder()
    coder[2] = int.from_bytes(body[:6].ljust(6, b"\0"), "big")
    coder[3] = 6
    data = np.frombuffer(bytearray(body), np.uint8)
    run(indices, coder, data, decode=True)
    _check_length(len(body), int(coder[3]) - 6 + _model.flush_length(coder))
    return indices
