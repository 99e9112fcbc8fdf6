"""The payload of a label map: head, set of ids, choice of a coder.

    payload := head:u8 set:bytes [model] body
    head    := coder:2 bits, kind:2 bits, the first 4 bits of the set
    model   := number:u8, or 0 and four bytes of the digest of a user's own prior

The set names the ids in use as a bit mask of 12, 20, 36 or 260 bits (by kind). Coder 0 stores
indices into the set with ceil(log2 n) bits; coder 1 is `adaptive`; coders 2 and 3 are `primed` with
the trained prior that `model` names, 3 with the coarse picture. docs/spec/labels.md §2.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sempic import checks
from sempic.errors import (
    CorruptStream,
    InputError,
    LabelMapError,
    TruncatedStream,
    UnsupportedChunk,
)
from sempic.labels import adaptive, primed, range_coder, trunk
from sempic.labels.arithmetic import Ints
from sempic.labels.primed.state import State, begin, copied
from sempic.labels.prior import Prior, load
from sempic.labels.range_coder import RangeCoder
from sempic.scene import Coarse, LabelMap

RAW, ADAPTIVE, CAUSAL, INFORMED = 0, 1, 2, 3
SET_BYTES = (1, 2, 4, 32)

MODELS = {"camvid": 3, "cityscapes": 4}
"""Number of the bundled prior of a palette; the stream contains the number."""
_FOLDER = Path(__file__).parent / "weights"
WEIGHTS = {3: _FOLDER / "camvid3.npz", 4: _FOLDER / "cityscapes4.npz"}
"""Files of the bundled priors by number; 1 and 2 were never released."""
OWN = 0
"""In place of a number: the digest of a user's own prior follows."""
_DIGEST = 4
_PIXELS_A_BIT = 45427
"""Most pixels that a bit of a coded body stands for, rounded up. Among two labels or more, each
pixel is one question at least, and none costs less than log2(1 + 1/65536) bits
(`range_coder.code_bit`)."""


class _Model(NamedTuple):
    name: bytes
    """The `model` field of a payload."""
    prior: Prior


def _bundled(number: int) -> _Model:
    return _Model(bytes([number]), load(WEIGHTS[number]))


def _own(prior: Prior) -> _Model:
    return _Model(bytes([OWN]) + bytes.fromhex(prior.digest), prior)


def coarse_features(
    coarse: Coarse, height: int, width: int, model: str
) -> primed.CoarseFeatures | None:
    """The part of `encode` that needs only the coarse picture, and can run before labels exist.

    height, width: of the map. model: as in `encode`. None if the model has no bundled prior.
    """
    if model not in MODELS:
        return None
    prior = _bundled(MODELS[model]).prior
    return primed.coarse_features(prior, trunk.grid(coarse, height, width), height, width)


def encode(
    labels: LabelMap,
    *,
    coarse: Coarse | None = None,
    model: str | None = None,
    own: Prior | None = None,
    features: primed.CoarseFeatures | None = None,
) -> bytes:
    """The lossless payload of a map: at most 33 bytes plus ceil(log2 n) bits per pixel for n ids.

    labels: uint8 (H, W), any ids, at least one pixel.
    coarse: planes that the decoder has before the labels; used if there is a prior.
    model: full name of the palette of `labels`, which selects a bundled prior (MODELS); None:
    any palette.
    own: the user's own prior (`sempic.labels.own`). It is used if its palette is `model` and the
    payload gets shorter; then the decoder needs it, too.
    features: the result of `coarse_features` for `coarse`, this size and this model; None: computed
    here.
    Raises LabelMapError unless `labels` is such an array.
    """
    if not checks.is_uint8(labels, 2) or labels.size == 0:
        raise LabelMapError(
            f"a label map is uint8 (H, W), not empty; this is {checks.kind(labels)}"
        )
    ids = np.unique(labels)
    plain = _head(RAW, ids)
    raw = len(plain) + (labels.size * (len(ids) - 1).bit_length() + 7) // 8
    if len(ids) == 1:
        return plain
    number = None if model is None else MODELS.get(model)
    bundled = None if number is None else _bundled(number)
    payloads = [_encode_coded(labels, ids, coarse, bundled, raw, features)]
    if (prior := _checked(own)) is not None and prior.palette == model:
        payloads.append(_encode_coded(labels, ids, coarse, _own(prior), raw))
    shortest = min(payloads, key=len)
    return shortest if len(shortest) < raw else plain + _encode_raw(_indices(labels, ids), len(ids))


def _encode_coded(
    labels: LabelMap,
    ids: LabelMap,
    coarse: Coarse | None,
    model: _Model | None,
    limit: int,
    features: primed.CoarseFeatures | None = None,
) -> bytes:
    """The payload of the primed coder, or of the adaptive one if there is no model or the model
    lacks an id. A body beyond `limit` bytes is cut, but stays longer than `limit`."""
    coder = range_coder.encoder(limit)
    if model is not None and int(ids[-1]) < model.prior.classes:
        head = _head(CAUSAL if coarse is None else INFORMED, ids) + model.name
        _code_primed(coder, labels.astype(np.int64), model.prior, ids, coarse, features)
    else:
        head = _head(ADAPTIVE, ids)
        adaptive.code(coder, _indices(labels, ids), len(ids))
    return head + range_coder.finish(coder)


def decode(
    payload: bytes,
    height: int,
    width: int,
    *,
    coarse: Coarse | None = None,
    own: Prior | None = None,
) -> LabelMap:
    """The map of a payload, uint8 (height, width).

    The caller bounds height and width. coarse, own: exactly what `encode` was given.
    Raises TruncatedStream or CorruptStream if no map of this size has such a payload, and
    UnsupportedChunk if the payload needs a prior that is missing. A damaged payload may also decode
    to a wrong map; the container's checksum detects this.
    """
    kind, ids, body = _parse_head(checks.stream(payload))
    if kind == RAW:
        return ids[_decode_raw(body, height, width, len(ids))]
    empty = np.zeros((height, width), np.int64)
    if kind == ADAPTIVE:
        _check_least(len(body), height * width, len(ids))
        coder = range_coder.decoder(body)
        labels = ids[adaptive.code(coder, empty, len(ids))]
    else:
        prior, body = _parse_model(body, ids, _checked(own))
        if kind == INFORMED and coarse is None:
            raise CorruptStream("this label map needs the coarse picture it was coded with")
        _check_least(len(body), height * width, len(ids))
        coder = range_coder.decoder(body)
        context = coarse if kind == INFORMED else None
        labels = _code_primed(coder, empty, prior, ids, context).astype(np.uint8)
    _check_length(len(body), range_coder.length(coder))
    return labels


def _code_primed(
    coder: RangeCoder,
    labels: Ints,
    prior: Prior,
    ids: LabelMap,
    coarse: Coarse | None,
    features: primed.CoarseFeatures | None = None,
) -> Ints:
    allowed = np.zeros(prior.classes, np.int64)
    allowed[ids] = 1
    grid = None if coarse is None else trunk.grid(coarse, *labels.shape)
    state = copied(_first_state(prior, informed=grid is not None))
    return primed.code(coder, labels, allowed, prior, state, grid, features)


@functools.lru_cache(8)
def _first_state(prior: Prior, *, informed: bool) -> State:
    """The coder's first state, cached: unpacking takes a tenth of the time of a map."""
    return begin(prior.primed, informed=informed)


def _checked(own: Prior | None) -> Prior | None:
    given: object = own
    if given is not None and not isinstance(given, Prior):
        raise InputError(f"own must be a prior of sempic.labels.own, not {type(given).__name__}")
    return own


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


def _parse_model(body: bytes, ids: LabelMap, own: Prior | None) -> tuple[Prior, bytes]:
    """The prior that the body names, and the bytes after the name."""
    if not body:
        raise TruncatedStream("the label payload ends before its model number")
    number = body[0]
    if number != OWN and number not in WEIGHTS:
        raise UnsupportedChunk(f"label model {number} is not known to this version")
    if number == OWN and len(body) <= _DIGEST:
        raise TruncatedStream("the label payload ends before the digest of its prior")
    model = _bundled(number) if number != OWN else _named(body[1 : 1 + _DIGEST].hex(), own)
    if int(ids[-1]) >= model.prior.classes:
        raise CorruptStream(f"label {ids[-1]} is not known to label model {number}")
    return model.prior, body[len(model.name) :]


def _named(digest: str, own: Prior | None) -> _Model:
    """`own`, if it is the prior that a payload names by its digest."""
    if own is not None and own.digest == digest:
        return _own(own)
    here = "none is given" if own is None else f"that of the given one with {own.digest}"
    raise UnsupportedChunk(
        f"the label map needs a prior whose file's SHA-256 begins with {digest}; {here}"
    )


def _check_length(size: int, expected: int) -> None:
    if size < expected:
        raise TruncatedStream(f"the label map takes {expected} bytes, {size} are left")
    if size > expected:
        raise CorruptStream(f"{size - expected} bytes follow the label map")


def _check_least(size: int, pixels: int, n: int) -> None:
    """Raises TruncatedStream if no map of so many pixels and n labels is coded in so few bytes: a
    short file may claim a size whose decoding takes half a minute."""
    in_coder = 48  # bits that the coder's interval may hold back
    least = (pixels // _PIXELS_A_BIT - in_coder) // 8
    if n > 1 and size < least:
        raise TruncatedStream(f"the label map takes {least} bytes or more, {size} are left")


def _indices(labels: LabelMap, ids: LabelMap) -> Ints:
    """The index of each label in the sorted ids."""
    table = np.zeros(256, np.int64)
    table[ids] = np.arange(len(ids))
    return table[labels]


def _encode_raw(indices: Ints, n: int) -> bytes:
    shifts = np.arange((n - 1).bit_length(), dtype=np.uint8)
    return np.packbits(indices.astype(np.uint8).ravel()[:, None] >> shifts & 1).tobytes()


def _decode_raw(body: bytes, height: int, width: int, n: int) -> Ints:
    bits = (n - 1).bit_length()
    _check_length(len(body), (height * width * bits + 7) // 8)
    packed, rest = np.split(np.unpackbits(np.frombuffer(body, np.uint8)), [height * width * bits])
    if rest.any():
        raise CorruptStream("bits other than 0 follow the stored labels")
    indices = np.zeros((height, width), np.int64)
    for shift, digit in enumerate(np.moveaxis(packed.reshape(height, width, bits), 2, 0)):
        indices |= digit.astype(np.int64) << shift
    if int(indices.max(initial=0)) >= n:
        raise CorruptStream("a stored label is not in the set")
    return indices
