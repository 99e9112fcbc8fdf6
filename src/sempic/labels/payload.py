"""The payload of a label map: its head, the set of its ids, the choice of a coder.

    payload := head:u8 set:bytes [model:u8] body
    head    := coder:2 bits, kind:2 bits, the first 4 bits of the set

The set names the ids in use as a bit mask of 12, 20, 36 or 260 bits (by kind). Coder 0 stores
indices into the set with ceil(log2 n) bits; coder 1 is `adaptive`; coders 2 and 3 are `primed` with
the trained prior that the model byte names, 3 with the coarse picture. docs/spec/labels.md §2.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from sempic import checks
from sempic.errors import CorruptStream, LabelMapError, TruncatedStream, UnsupportedChunk
from sempic.labels import adaptive, network, primed, prior, range_coder
from sempic.labels.arithmetic import Ints
from sempic.labels.primed.state import State, begin, copied
from sempic.labels.range_coder import RangeCoder
from sempic.scene import Coarse, LabelMap

RAW, ADAPTIVE, CAUSAL, INFORMED = 0, 1, 2, 3
SET_BYTES = (1, 2, 4, 32)

MODELS = {"camvid": 3, "cityscapes": 4}
"""Trained priors by the palette they know; the number is in the stream."""
_FOLDER = Path(__file__).parent / "weights"
WEIGHTS = {3: _FOLDER / "camvid3.npz", 4: _FOLDER / "cityscapes4.npz"}
"""By number; 1 and 2 were never released."""


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
    coder = range_coder.encoder(raw)  # cut off where storing is shorter anyway
    if number is not None and int(ids[-1]) < prior.load(WEIGHTS[number]).classes:
        head = _head(CAUSAL if coarse is None else INFORMED, ids) + bytes([number])
        _code_primed(coder, labels.astype(np.int64), number, ids, coarse)
    else:
        head = _head(ADAPTIVE, ids)
        adaptive.code(coder, _indices(labels, ids), len(ids))
    body = range_coder.finish(coder)
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
    kind, ids, body = _parse_head(checks.stream(payload))
    if kind == RAW:
        return ids[_decode_raw(body, height, width, len(ids))]
    empty = np.zeros((height, width), np.int64)
    if kind == ADAPTIVE:
        coder = range_coder.decoder(body)
        found = ids[adaptive.code(coder, empty, len(ids))]
    else:
        number, body = _parse_model(body, ids)
        if kind == INFORMED and coarse is None:
            raise CorruptStream("this label map needs the coarse picture it was coded with")
        coder = range_coder.decoder(body)
        context = coarse if kind == INFORMED else None
        found = _code_primed(coder, empty, number, ids, context).astype(np.uint8)
    _check_length(len(body), range_coder.length(coder))
    return found


def _code_primed(
    coder: RangeCoder, labels: Ints, number: int, ids: LabelMap, coarse: Coarse | None
) -> Ints:
    known = prior.load(WEIGHTS[number])
    allowed = np.zeros(known.classes, np.int64)
    allowed[ids] = 1
    grid = None if coarse is None else network.grid(coarse, *labels.shape)
    state = copied(_begun(number, informed=grid is not None))
    return primed.code(coder, labels, allowed, known, state, grid)


@functools.cache
def _begun(number: int, *, informed: bool) -> State:
    """Where each map begins: kept, since to unpack it takes as long as a tenth of a map."""
    return begin(prior.load(WEIGHTS[number]).primed, informed=informed)


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


def _parse_model(body: bytes, ids: LabelMap) -> tuple[int, bytes]:
    if not body:
        raise TruncatedStream("the label payload ends before its model number")
    number = body[0]
    if number not in WEIGHTS:
        raise UnsupportedChunk(f"label model {number} is not known to this version")
    if int(ids[-1]) >= prior.load(WEIGHTS[number]).classes:
        raise CorruptStream(f"label {ids[-1]} is not known to label model {number}")
    return number, body[1:]


def _check_length(size: int, expected: int) -> None:
    if size < expected:
        raise TruncatedStream(f"the label map takes {expected} bytes, {size} are left")
    if size > expected:
        raise CorruptStream(f"{size - expected} bytes follow the label map")


def _indices(labels: LabelMap, ids: LabelMap) -> Ints:
    """Where each label stands among the sorted ids."""
    table = np.zeros(256, np.int64)
    table[ids] = np.arange(len(ids))
    return table[labels]


def _encode_raw(indices: Ints, n: int) -> bytes:
    shifts = np.arange((n - 1).bit_length(), dtype=np.uint8)
    return np.packbits(indices.astype(np.uint8).ravel()[:, None] >> shifts & 1).tobytes()


def _decode_raw(body: bytes, height: int, width: int, n: int) -> Ints:
    bits = (n - 1).bit_length()
    _check_length(len(body), (height * width * bits + 7) // 8)
    packed = np.unpackbits(np.frombuffer(body, np.uint8), count=height * width * bits)
    indices = np.zeros((height, width), np.int64)
    for shift, digit in enumerate(np.moveaxis(packed.reshape(height, width, bits), 2, 0)):
        indices |= digit.astype(np.int64) << shift
    if int(indices.max(initial=0)) >= n:
        raise CorruptStream("a stored label is not in the set")
    return indices
