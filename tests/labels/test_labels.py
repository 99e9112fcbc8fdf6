"""The label coder is lossless, never expands, and survives any payload."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from maps import MAPS, scene

from sempic import labels
from sempic.errors import BitstreamError, CorruptStream, LabelMapError, TruncatedStream
from sempic.labels import payload as parts
from sempic.scene import LabelMap

SCENE = labels.encode(MAPS["scene"])


@pytest.mark.parametrize("name", MAPS)
def test_adversarial_maps_are_lossless_and_do_not_expand(name: str) -> None:
    original = MAPS[name]
    payload = labels.encode(original)
    decoded = labels.decode(payload, *original.shape)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, original)
    n = len(np.unique(original))
    head = 2 if original.max() < 12 else 33
    assert len(payload) <= head + (original.size * (n - 1).bit_length() + 7) // 8


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.uint8,
        st.tuples(st.integers(1, 24), st.integers(1, 24)),
        elements=st.sampled_from([0, 1, 5, 11, 19, 200, 255]),
    )
)
def test_any_small_map_is_lossless(original: LabelMap) -> None:
    assert np.array_equal(labels.decode(labels.encode(original), *original.shape), original)


def test_array_views_are_coded_like_copies() -> None:
    original = scene()[::-1, ::2]
    assert labels.encode(original) == labels.encode(original.copy())


def test_structured_maps_take_few_bytes() -> None:
    original = scene(120, 160)
    raw = original.size * 3 / 8
    assert len(labels.encode(original)) < raw / 4
    assert len(labels.encode(MAPS["checkerboard"])) < 40


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 2), np.int64), np.zeros((0, 3), np.uint8), np.zeros(4, np.uint8)]
)
def test_invalid_arrays_are_refused(wrong: LabelMap) -> None:
    with pytest.raises(LabelMapError):
        labels.encode(wrong)


@pytest.mark.parametrize("name", ["scene", "noise 256", "one class"])
def test_a_prefix_is_refused_or_is_another_map(name: str) -> None:
    """Missing bytes read as zeros, and some prefixes are complete payloads."""
    payload = labels.encode(MAPS[name])
    for cut in range(0, len(payload), max(1, len(payload) // 50)):
        try:
            decoded = labels.decode(payload[:cut], *MAPS[name].shape)
        except TruncatedStream:
            continue
        assert cut >= 2
        assert not np.array_equal(decoded, MAPS[name])


def test_a_raw_prefix_is_refused() -> None:
    payload = labels.encode(MAPS["noise 256"])
    assert payload[0] >> 6 == parts.RAW
    for cut in (0, 1, 20, 33, 100, len(payload) - 1):
        with pytest.raises(TruncatedStream):
            labels.decode(payload[:cut], *MAPS["noise 256"].shape)


@pytest.mark.parametrize("name", ["scene", "noise 5", "one class"])
def test_trailing_bytes_are_refused(name: str) -> None:
    with pytest.raises(CorruptStream):
        labels.decode(labels.encode(MAPS[name]) + b"\0", *MAPS[name].shape)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 30), st.integers(1, 30))
def test_garbage_raises_a_sempic_error_or_decodes_to_some_map(
    payload: bytes, height: int, width: int
) -> None:
    try:
        decoded = labels.decode(payload, height, width)
    except BitstreamError:
        return
    assert decoded.shape == (height, width)
    assert decoded.dtype == np.uint8


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damage_raises_a_sempic_error_or_decodes_to_some_map(data: st.DataObject) -> None:
    payload = bytearray(SCENE)
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded = labels.decode(bytes(payload), *MAPS["scene"].shape)
    except BitstreamError:
        return
    assert decoded.shape == MAPS["scene"].shape


def test_the_bytes_do_not_depend_on_the_compiler() -> None:
    """Plain Python and machine code make the same bytes, and read them."""
    original = scene(24, 32, classes=13)
    program = (
        "import sys, numpy as np; from sempic import labels\n"
        "a = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(24, 32)\n"
        "b = labels.encode(a)\n"
        "assert np.array_equal(labels.decode(b, 24, 32), a)\n"
        "sys.stdout.buffer.write(b)\n"
    )
    plain = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", program],
        input=original.tobytes(),
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        check=True,
    )
    assert plain.stdout == labels.encode(original)
