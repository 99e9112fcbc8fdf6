"""The initial state of the primed coder survives storage in a model."""

from __future__ import annotations

import numpy as np
import pytest

from sempic.labels import mixing, prior
from sempic.labels.payload import WEIGHTS
from sempic.labels.primed import state


def test_slots_survive_quantization_to_a_byte() -> None:
    packed = np.arange(256, dtype=np.uint8)
    slots = state._unpack(packed)
    assert (slots[packed & 3 > 0] & 255 > 0).all()
    again = state._pack(slots)
    kept = (
        (packed & 3 > 0) & (packed >> 2 >= 8) & (packed >> 2 < 56)
    )  # beyond, levels are too close
    assert np.array_equal(again[kept], packed[kept])
    assert state._unpack(np.zeros(1, np.uint8))[0] == mixing.UNSEEN


@pytest.mark.parametrize("classes", [12, 20])
def test_a_state_survives_a_round_trip_through_tables(classes: int) -> None:
    states = [state.unprimed(classes) for _ in range(2)]
    states[1].outline.weights[5, 7, 3] += 16 * 250
    states[1].outline.uses[5, 7] = 9
    states[1].calm.weights[0, 2 * classes - 1, 1] = -77
    states[1].calm.slots[5, -1] = 1 << 28 | 50
    tables = state.tables_of(*states)
    again = state.begin(tables, informed=True)
    assert np.array_equal(again.outline.weights, states[1].outline.weights)
    assert np.array_equal(again.outline.uses, states[1].outline.uses)
    assert np.array_equal(again.calm.weights, states[1].calm.weights)
    assert again.calm.slots[5, -1] & 255 == 60
    alone = state.begin(tables, informed=False)
    assert np.array_equal(alone.outline.weights, state.unprimed(classes).outline.weights)
    assert (alone.calm.slots == mixing.UNSEEN).all()


def test_a_model_may_store_half_of_the_calm_slots() -> None:
    tables = prior.load(WEIGHTS[3]).primed
    assert tables["calm_slots"].shape[1] == state.CALM_SLOTS // 2
    calm = state.begin(tables, informed=True).calm
    assert (calm.slots[:, state.CALM_SLOTS // 2 :] == mixing.UNSEEN).all()
    assert (calm.slots[:, : state.CALM_SLOTS // 2] != mixing.UNSEEN).any(1).all()


def test_without_a_coarse_picture_its_contexts_are_untrained() -> None:
    begun = state.begin(prior.load(WEIGHTS[3]).primed, informed=False)
    assert (begun.outline.slots[state.CONTEXTS_CAUSAL :] == mixing.UNSEEN).all()
    assert (begun.calm.slots[state.CALM_CONTEXTS_CAUSAL :] == mixing.UNSEEN).all()
