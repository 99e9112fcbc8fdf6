"""The causal network of a prior."""

from __future__ import annotations

import numpy as np
import pytest

from sempic.labels import causal, neighbourhood, prior
from sempic.labels.causal import Causal
from sempic.labels.logistic import TABLES
from sempic.labels.neighbourhood import PAD
from sempic.labels.payload import WEIGHTS


@pytest.mark.parametrize("weights", ["bundled", "random", "largest"])
def test_the_causal_network_follows_its_specification(weights: str) -> None:
    known, rng = prior.load(WEIGHTS[3]).causal, np.random.default_rng(0)
    if weights == "random":
        known = Causal(*(rng.integers(-2048, 2048, x.shape).astype(np.int32) for x in known))
    if weights == "largest":  # alternating signs: sums reach both ends of their range
        signs = np.where(np.arange(13) % 2, 2047, -2048).astype(np.int32)[None, :, None]
        known = Causal(*(np.full_like(x, 2047) for x in known))
        known = known._replace(template=np.broadcast_to(signs, known.template.shape).copy())
    noise = rng.integers(0, 12, (20, 24))
    blocks = rng.integers(0, 12, (5, 6)).repeat(4, 0).repeat(4, 1)
    allowed = np.ones(12, np.int64)
    allowed[4] = 0
    for map_ in (noise, blocks):
        frame = neighbourhood.frame(map_, 12)
        net = causal.predictor(causal.prepare(known), allowed, frame.stride)
        for y, x in ((0, 0), (9, 12), (14, 7), (19, 23)):
            o = (y + PAD) * frame.stride + x + PAD
            mass = causal.predict(net, frame.image, np.int64(o), 3, 5, TABLES.exp)
            sums = known.rows[3].astype(np.int64) + known.columns[5]
            for t, (dy, dx) in enumerate(causal.TEMPLATE):
                sums = sums + known.template[t, frame.image[o + dy * frame.stride + dx]]
            hidden = sums.clip(0, 7936)
            outputs = ((hidden @ known.second >> 8) + known.second_bias).clip(0, 7936)
            scores = (outputs @ known.last >> 8) + known.last_bias
            chance = TABLES.exp[(scores.max() - scores).clip(0, 4095)] * allowed
            assert np.array_equal(net.chance, chance)
            assert mass == chance.sum()
