"""How strong detail is: said by the sender, heeded by the receiver."""

import numpy as np
from conftest import FakeReceiver, FakeSegmenter

from sempic import api, sequence
from sempic.sequence import detail

LABELS = np.repeat(np.array([[0, 3]], np.uint8), 40, 0).repeat(32, 1)


def noise(strong, weak, seed=0):
    """Detail of two strengths, (40, 64, 3), grey."""
    rng = np.random.default_rng(seed)
    scale = np.where(LABELS == 0, strong, weak)[..., None]
    return (scale * rng.normal(size=(40, 64, 1))).repeat(3, 2).astype(np.float32)


def test_strengths_are_medians_of_each_class():
    found = detail.strengths(noise(4, 1), LABELS)
    assert found.keys() == {0, 3}
    for number, scale in ((0, 4), (3, 1)):  # of a normal distribution 0.674 of its deviation
        assert abs(found[number] / detail.UNIT - 0.674 * scale) < 0.1 * scale
    assert detail.strengths(noise(4, 4), None).keys() == {detail.WITHOUT}
    few = np.zeros_like(LABELS)
    few[:10, :30] = 7
    assert detail.strengths(noise(4, 4), few).keys() == {0}


def test_what_is_too_strong_is_weakened():
    painted = noise(4, 1)
    said = {0: 8, 3: 200}
    detail.heed(painted, LABELS, said)
    found = detail.strengths(painted, LABELS)
    assert abs(found[0] - 8) <= 1
    assert np.array_equal(painted[LABELS == 3], noise(4, 1)[LABELS == 3])
    whole = noise(4, 4)
    detail.heed(whole, None, {detail.WITHOUT: 8})
    assert abs(detail.strengths(whole, None)[detail.WITHOUT] - 8) <= 1


def test_only_news_is_said():
    said = detail.news({0: 20, 3: 40}, {})
    assert said.keys() == {0, 3}
    assert detail.news({0: 21, 3: 38}, said) == {}
    assert detail.news({0: 21, 3: 80}, said).keys() == {3}


def test_a_blurred_street_is_not_painted_grainy(monkeypatch):
    """From the pictures to the pictures, with a receiver that paints grain everywhere."""
    monkeypatch.setattr(api.Codec, "segmenter", FakeSegmenter())
    rng = np.random.default_rng(0)
    grain = rng.integers(-30, 31, (48, 64, 3))

    class Grainy(FakeReceiver):
        def __call__(self, scene, **how):
            return np.clip(api.preview(scene) + grain, 0, 255).astype(np.uint8)

    coder = api.Codec(receiver=Grainy())
    flat = [np.full((48, 64, 3), 90 + i, np.uint8) for i in range(3)]
    rough = [np.clip(f + grain, 0, 255).astype(np.uint8) for f in flat]
    for frames, least, most in ((flat, 0, 2), (rough, 8, 14)):
        pieces = list(sequence.encode(frames, codec=coder))
        for picture in sequence.decode(pieces, codec=coder):
            assert least <= np.asarray(picture).astype(int).std(axis=(0, 1)).mean() <= most
