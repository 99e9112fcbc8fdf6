"""Maps coded given an expected map: lossless, and small where the maps agree."""

import numpy as np
import pytest
from maps import MAPS, noise, scene

from sempic.labels import moved


def hints(shape, seed=0):
    return np.random.default_rng(seed).integers(0, moved.LEVELS, shape, np.uint8)


def coded(pairs, classes, hint=None):
    """Code pairs of (labels, expected) with one memory, and check that each decodes."""
    shape = pairs[0][0].shape
    hint = np.zeros(shape, np.uint8) if hint is None else hint
    ours, theirs = (moved.memory(*shape, classes) for _ in range(2))
    bodies = []
    for labels, expected in pairs:
        body = moved.encode(labels, expected, hint, ours)
        if body:
            found = moved.decode(body, expected, hint, theirs)
            assert found.dtype == np.uint8
            assert np.array_equal(found, labels)
        else:
            assert np.array_equal(labels, expected)
        bodies.append(body)
    for a, b in zip((*ours.pixels, ours.changed), (*theirs.pixels, theirs.changed), strict=True):
        assert np.array_equal(a, b)
    return bodies


@pytest.mark.parametrize("name", MAPS)
def test_any_map_is_lossless_given_any_expected_map(name):
    labels = MAPS[name]
    shift = np.roll(labels, 1, 1)
    other = noise(*labels.shape, int(labels.max()) + 1)
    coded([(labels, labels), (labels, shift), (other, labels), (labels, other)], 256,
          hints(labels.shape))  # fmt: skip


def test_maps_of_few_classes_are_lossless():
    labels = scene(classes=3)
    coded([(labels, np.zeros_like(labels)), (np.zeros_like(labels), labels)], 3)
    one = np.zeros((9, 9), np.uint8)
    assert coded([(one, one)], 1) == [b""]


def test_a_local_change_costs_a_few_bytes():
    labels = scene(240, 320)
    changed = labels.copy()
    changed[100:104, 200:206] = (labels[100, 200] + 1) % 7
    (body,) = coded([(changed, labels)], 12)
    assert 0 < len(body) < 60


def test_a_moved_outline_is_cheap():
    """The map moves by one pixel in each frame, and the coder learns the motion."""
    maps = [np.roll(scene(120, 160, seed=3), i, 1) for i in range(6)]
    bodies = coded(list(zip(maps[1:], maps[:-1], strict=True)), 12)
    alone = coded([(maps[1], np.zeros_like(maps[1]))], 12)
    assert len(bodies[-1]) < len(bodies[0])
    assert len(bodies[-1]) < 0.6 * len(alone[0])
