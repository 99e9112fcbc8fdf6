"""The primed coder's statistics, and their initial values from the training maps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sempic.labels import mixing
from sempic.labels.logistic import LIMIT, TABLES
from sempic.labels.mixing import Mixture

CONTEXTS = 17
"""Contexts of a question at an outline."""
CONTEXTS_CAUSAL = 10
"""The first contexts, which need no coarse picture."""
CHOICES = 6
CHOICES_CAUSAL = 4
CALM_CONTEXTS = 6
CALM_CONTEXTS_CAUSAL = 2
CALM_SLOTS = 1 << 15
"""Slots of a context in calm areas, for up to 31 classes (`calm_slots`)."""
NETWORK, LEAD, OVER = range(3)
"""Inputs after those of the contexts: log odds by the causal network, by the trunk against the best
other label, and by the trunk against the next candidate. In calm areas OVER equals LEAD at edges
of the coarse picture and is 0 elsewhere. The last input is mixing.BIAS."""
INPUTS = CONTEXTS + 4
CALM_INPUTS = CALM_CONTEXTS + 4
_MOST_USES = 600


class State(NamedTuple):
    outline: Mixture
    """Weights (CHOICES, SETS, INPUTS)."""
    calm: Mixture
    """Weights (1, 2 · classes, CALM_INPUTS)."""


def calm_slots(classes: int) -> int:
    """Slots of each context in calm areas: more than the largest of `primed.calm.addresses`."""
    return max(CALM_SLOTS, 1056 * classes)


def unprimed(classes: int) -> State:
    """The state before any training map."""
    outline = np.full((CHOICES, mixing.SETS, INPUTS), 4000, np.int64)
    outline[:, :, CONTEXTS + NETWORK] = 15000
    outline[:, :, CONTEXTS + LEAD :] = 500
    outline[:, :, -1] = 0
    calm = np.zeros((1, 2 * classes, CALM_INPUTS), np.int64)
    calm[:, :, :CALM_CONTEXTS] = 6000
    calm[:, :, CALM_CONTEXTS + NETWORK] = 40000
    return State(
        mixing.untrained(outline, CONTEXTS),
        mixing.untrained(calm, CALM_CONTEXTS, calm_slots(classes)),
    )


def begin(tables: dict[str, npt.NDArray[Any]], *, informed: bool) -> State:
    """The state in a prior's tables; the inverse of `tables_of`."""
    kind = "informed" if informed else "causal"
    outline, calm = unprimed(tables[f"{kind}.calm_weights"].shape[0] // 2)
    contexts = CONTEXTS if informed else CONTEXTS_CAUSAL
    choices = CHOICES if informed else CHOICES_CAUSAL
    outline.slots[:contexts] = _unpack(tables["slots"][:contexts])
    outline.weights[:choices] += tables[f"{kind}.weights"].astype(np.int64) << 4
    outline.uses[:choices] = tables[f"{kind}.seen"]
    contexts = CALM_CONTEXTS if informed else CALM_CONTEXTS_CAUSAL
    stored = _unpack(tables["calm_slots"][:contexts])
    calm.slots[:contexts, : stored.shape[1]] = stored  # fewer for few classes: model 3 has half
    calm.weights[0] = tables[f"{kind}.calm_weights"]
    return State(outline, calm)


def copied(state: State) -> State:
    """A deep copy."""
    return State(*(Mixture(m.slots.copy(), m.weights.copy(), m.uses.copy()) for m in state))


def tables_of(causal: State, informed: State) -> dict[str, npt.NDArray[Any]]:
    """The tables of a prior, in their stored types, from the states after the training maps."""
    tables: dict[str, npt.NDArray[Any]] = {
        "slots": _pack(informed.outline.slots),
        "calm_slots": _pack(informed.calm.slots),
    }
    before = unprimed(causal.calm.weights.shape[1] // 2).outline.weights
    for kind, state, choices in (
        ("causal", causal, CHOICES_CAUSAL),
        ("informed", informed, CHOICES),
    ):
        change = (state.outline.weights - before)[:choices] >> 4
        uses = state.outline.uses[:choices]
        change[uses == 0] = 0
        tables |= {
            f"{kind}.weights": change.clip(-32768, 32767).astype(np.int16),
            f"{kind}.seen": uses.clip(0, _MOST_USES).astype(np.uint16),
            f"{kind}.calm_weights": state.calm.weights[0].astype(np.int32),
        }
    return tables


# A stored slot is a byte: 64 levels of the log odds, and 4 classes of the number of visits.
_VISITS = (0, 4, 16, 60)
_LEVEL = 96


def _pack(slots: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    visits = slots & 255
    known = (visits >= 3).astype(np.int32) + (visits >= 10) + (visits >= 40)
    level = (TABLES.stretch[slots >> 14].astype(np.int32) + LIMIT + 1) // _LEVEL
    packed: npt.NDArray[np.uint8] = np.where(known, level << 2 | known, 0).astype(np.uint8)
    return packed


def _unpack(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    level = np.arange(256) >> 2
    odds = (level * _LEVEL + _LEVEL // 2).clip(0, 2 * LIMIT)
    p = TABLES.squash[odds].astype(np.int32) << 6
    values = p << 8 | np.array(_VISITS, np.int32)[np.arange(256) & 3]
    values[0] = mixing.UNSEEN
    slots: npt.NDArray[np.int32] = values[packed].astype(np.int32)
    return slots
