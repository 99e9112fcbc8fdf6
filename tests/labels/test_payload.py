"""The head of a label payload, valid and invalid."""

from __future__ import annotations

import numpy as np
import pytest

from sempic import labels
from sempic.errors import CorruptStream, TruncatedStream, UnsupportedChunk
from sempic.labels import payload, range_coder


@pytest.mark.parametrize("ids", [[0], [11], [3, 12], [0, 20, 35], [36], [255], list(range(256))])
def test_heads_survive_a_round_trip(ids: list[int]) -> None:
    for coder in range(4):
        head = payload._head(coder, np.array(ids, np.uint8))
        found, read, rest = payload._parse_head(head + b"rest")
        assert (found, read.tolist(), rest) == (coder, ids, b"rest")


def test_invalid_class_sets_are_refused() -> None:
    for body in (b"\x40\x00", b"\x70" + bytes(31) + b"\x10"):
        with pytest.raises(CorruptStream, match="empty or names ids above 255"):
            labels.decode(body + b"more", 4, 4)


@pytest.mark.parametrize("number", [1, 2, 5, 255])
@pytest.mark.parametrize("coder", [payload.CAUSAL, payload.INFORMED])
def test_unreleased_models_are_refused(coder: int, number: int) -> None:
    with pytest.raises(UnsupportedChunk, match=f"label model {number} is not known"):
        labels.decode(bytes([coder << 6 | 3, 0, number]) + b"body", 4, 4)


@pytest.mark.parametrize("coder", [payload.ADAPTIVE, payload.CAUSAL])
def test_a_short_payload_of_a_huge_map_is_refused_before_the_work(
    coder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(range_coder, "decoder", lambda body: pytest.fail("decoded"))
    head = payload._head(coder, np.array([0, 1], np.uint8)) + b"\x04" * (coder == payload.CAUSAL)
    for body in (b"", bytes(177)):
        with pytest.raises(TruncatedStream, match=f"takes 178 bytes or more, {len(body)} are left"):
            labels.decode(head + body, 8192, 8192)


def test_the_least_payload_of_a_large_map_is_long_enough() -> None:
    plain = np.zeros((2048, 2048), np.uint8)
    plain[0, 0] = 1  # all else is as likely as the coder allows
    coded = labels.encode(plain, model="camvid")
    payload._check_least(len(coded) - 3, plain.size, 2)
    assert np.array_equal(labels.decode(coded, 2048, 2048), plain)


def test_a_stored_label_outside_the_class_set_is_refused() -> None:
    head = payload._head(payload.RAW, np.array([1, 2, 3], np.uint8))
    assert labels.decode(head + b"\x40", 1, 2).tolist() == [[3, 1]]
    with pytest.raises(CorruptStream, match="not in the set"):
        labels.decode(head + b"\xf0", 1, 2)


def test_stored_labels_have_one_spelling() -> None:
    head = payload._head(payload.RAW, np.array([1, 2, 3], np.uint8))
    with pytest.raises(CorruptStream, match="bits other than 0 follow"):
        labels.decode(head + b"\x41", 1, 2)
