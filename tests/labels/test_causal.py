"""The causal network of a prior."""

from __future__ import annotations

import numpy as np

from sempic.labels import causal, neighbourhood, prior
from sempic.labels.logistic import TABLES
from sempic.labels.neighbourhood import PAD
from sempic.labels.payload import WEIGHTS


def test_the_causal_network_is_what_its_specification_says() -> None:
    known = prior.load(WEIGHTS[3]).causal
    rng = np.random.default_rng(0)
    map_ = rng.integers(0, 12, (20, 24))
    frame = neighbourhood.frame(map_, 12)
    allowed = np.ones(12, np.int64)
    allowed[4] = 0
    net = causal.predictor(known, allowed, frame.stride)
    for y, x in ((0, 0), (9, 12), (19, 23)):
        o = (y + PAD) * frame.stride + x + PAD
        mass = causal.predict(net, frame.image, np.int64(o), 3, 5, TABLES.exp)
        hidden = known.rows[3].astype(np.int64) + known.columns[5]
        for t, (dy, dx) in enumerate(causal.TEMPLATE):
            hidden = hidden + known.template[t, frame.image[o + dy * frame.stride + dx]]
        hidden = hidden.clip(0, 7936)
        outputs = ((hidden @ known.second >> 8) + known.second_bias).clip(0, 7936)
        scores = (outputs @ known.last >> 8) + known.last_bias
        chance = TABLES.exp[(scores.max() - scores).clip(0, 4095)] * allowed
        assert np.array_equal(net.chance, chance)
        assert mass == chance.sum()
