"""Painted frames agree with each other."""

import numpy as np
import pytest
from scenes import drive, packer_of, planes

from sempic import api
from sempic.sequence import Unpacker
from sempic.sequence.painter import Painter


class Inventor:
    """A receiver that paints random detail into each frame."""

    model_id = None
    controls = frozenset({"seed"})

    def __init__(self):
        self._rng = np.random.default_rng(0)

    def __call__(self, scene, *, seed=0):
        base = api.preview(scene).astype(int)
        return np.clip(base + self._rng.integers(-20, 21, base.shape), 0, 255).astype(np.uint8)


def moments(scenes):
    packer, unpacker = packer_of(scenes[0][1]), Unpacker()
    return [
        moment
        for number, (picture, labels) in enumerate(scenes)
        for moment in unpacker.feed(packer.pack(planes(picture), lambda _, f=labels: f, qp=20))
    ]


def painted(found, **how):
    painter = Painter(api.Codec(receiver=Inventor()), **how)
    return [painter.paint(moment).astype(int) for moment in found]


def change(pictures):
    return np.mean([np.abs(a - b).mean() for a, b in zip(pictures[1:], pictures, strict=False)])


def test_detail_stays_where_the_scene_does():
    picture, labels = drive(1)[0]
    rng = np.random.default_rng(1)
    scenes = [
        (np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8), labels)
        for _ in range(6)
    ]
    found = moments(scenes)
    assert change(painted(found)) < 0.4 * change(painted(found, kept=0.0))


def test_detail_stays_where_the_painted_size_changes():
    picture, labels = (array[:47, :63] for array in drive(1)[0])
    rng = np.random.default_rng(1)
    packer, unpacker, found = packer_of(labels), Unpacker(), []
    for halved in (True, False) * 3:
        noisy = np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)
        shown = labels[::2, ::2] if halved else labels
        piece = packer.pack(planes(noisy), lambda _, f=shown: f, qp=20, key=True, halved=halved)
        found += unpacker.feed(piece)
    assert [moment.scene.halved for moment in found] == [True, False] * 3
    assert change(painted(found)) < 0.7 * change(painted(found, kept=0.0))


@pytest.mark.parametrize("labelled", [True, False])
def test_a_cut_leaves_nothing_of_the_last_picture(labelled):
    """A cut changes all colours, and all labels or none."""
    (picture, labels), *_ = drive(1)
    found = moments([(picture, np.zeros_like(labels)), (255 - picture, labels * 0 + labelled)])
    inventor = Inventor()
    painter = Painter(api.Codec(receiver=inventor))
    painter.paint(found[0])
    state = inventor._rng.bit_generator.state
    second = painter.paint(found[1])
    inventor._rng.bit_generator.state = state
    assert np.array_equal(second, inventor(found[1].scene))


def test_a_fade_leaves_nothing_of_the_last_light():
    """Its small changes are not taken for noise of quantisation."""
    picture, labels = drive(1)[0]
    found = moments([(picture // 2 - 6 * n, labels) for n in range(6)])
    painter = Painter(api.Codec(receiver=api.preview))
    for moment in found:
        assert np.array_equal(painter.paint(moment), api.preview(moment.scene))
