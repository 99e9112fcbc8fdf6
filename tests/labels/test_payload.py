"""The head of a label payload, valid and invalid."""

from __future__ import annotations

import numpy as np
import pytest

from sempic import labels
from sempic.errors import CorruptStream, TruncatedStream, UnsupportedChunk
from sempic.labels import payload, range_coder

RAW_OF_1_2_3 = b"\x0e\0"
"""The head of stored labels 1, 2 and 3."""


@pytest.mark.parametrize(
    ("only", "kind", "size"),
    [(0, 0, 1), (11, 0, 1), (12, 1, 2), (19, 1, 2), (35, 2, 4), (36, 3, 32), (255, 3, 32)],
)
def test_a_map_of_one_class_is_a_head_as_long_as_its_largest_id_needs(
    only: int, kind: int, size: int
) -> None:
    mask = 1 << only
    head = bytes([kind << 4 | mask & 15]) + (mask >> 4).to_bytes(size, "little")
    assert labels.encode(np.full((256, 341), only, np.uint8)) == head
    assert (labels.decode(head, 5, 4) == np.full((5, 4), only)).all()


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
    head = bytes([coder << 6 | 3, 0]) + b"\x04" * (coder == payload.CAUSAL)
    for body in (b"", bytes(177)):
        with pytest.raises(TruncatedStream, match=f"takes 178 bytes or more, {len(body)} are left"):
            labels.decode(head + body, 8192, 8192)


def test_the_least_payload_of_a_large_map_is_long_enough() -> None:
    plain = np.zeros((2048, 2048), np.uint8)
    plain[0, 0] = 1  # all else is as likely as the coder allows
    coded = labels.encode(plain, model="camvid")
    assert np.array_equal(labels.decode(coded, 2048, 2048), plain)


def test_a_stored_label_outside_the_class_set_is_refused() -> None:
    assert labels.decode(RAW_OF_1_2_3 + b"\x40", 1, 2).tolist() == [[3, 1]]
    with pytest.raises(CorruptStream, match="not in the set"):
        labels.decode(RAW_OF_1_2_3 + b"\xf0", 1, 2)


def test_stored_labels_have_one_spelling() -> None:
    with pytest.raises(CorruptStream, match="bits other than 0 follow"):
        labels.decode(RAW_OF_1_2_3 + b"\x41", 1, 2)
