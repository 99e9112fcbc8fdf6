"""The range coder is lossless for bits and choices, and close to their entropy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sempic.labels import range_coder
from sempic.labels.range_coder import RangeCoder, code_bit, code_choice


def coded(coder: RangeCoder, bits: list[int], chances: list[int]) -> list[int]:
    return [code_bit(coder, b, p) for b, p in zip(bits, chances, strict=True)]


@pytest.mark.parametrize("p", [1, 400, 32768, 65535])
def test_bits_survive_a_round_trip(p: int) -> None:
    rng = np.random.default_rng(p)
    bits = (rng.random(2000) < p / 65536).astype(int).tolist()
    bits[7], bits[8] = 0, 1  # both occur, however unlikely
    encoder = range_coder.encoder(4000)
    assert coded(encoder, bits, [p] * 2000) == bits
    body = range_coder.finish(encoder)
    decoder = range_coder.decoder(body)
    assert coded(decoder, [0] * 2000, [p] * 2000) == bits
    assert range_coder.length(decoder) == len(body)
    entropy = -sum(math.log2(p / 65536 if b else 1 - p / 65536) for b in bits)
    assert entropy / 8 - 1 <= len(body) <= entropy / 8 * 1.01 + 2


def test_no_bits_take_no_bytes() -> None:
    assert range_coder.finish(range_coder.encoder(9)) == b""
    assert range_coder.length(range_coder.decoder(b"")) == 0


def test_bytes_beyond_the_limit_are_only_counted() -> None:
    bits = [0, 1] * 200
    whole, cut = range_coder.encoder(100), range_coder.encoder(5)
    for encoder in (whole, cut):
        coded(encoder, bits, [32768] * 400)
    assert range_coder.finish(cut)[:5] == range_coder.finish(whole)[:5]
    assert len(range_coder.finish(whole)) >= 50
    assert cut.data.size == 5


def test_choices_survive_and_sole_choices_cost_nothing() -> None:
    weights = np.array([0, 5, 0, 90, 1, 0, 0, 4], np.int64)
    choices = [3, 1, 7, 3, 4, 3]
    encoder = range_coder.encoder(100)
    assert [code_choice(encoder, c, weights) for c in choices] == choices
    body = range_coder.finish(encoder)
    decoder = range_coder.decoder(body)
    assert [code_choice(decoder, 0, weights) for _ in choices] == choices
    alone = range_coder.encoder(100)
    assert code_choice(alone, 2, np.array([0, 0, 8], np.int64)) == 2
    assert range_coder.finish(alone) == b""
