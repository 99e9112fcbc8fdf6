"""Simplified maps take fewer bits and lose nothing important."""

from __future__ import annotations

import math

import numpy as np
import pytest
from maps import MAPS, noise, scene

import sempic
from sempic import labels
from sempic.errors import InputError
from sempic.palette import CAMVID, INDICES
from sempic.scene import LabelMap
from sempic.simplify import LEVELS, class_weights, simplify

ROAD, PEDESTRIAN = (CAMVID.classes.index(name) for name in ("road", "pedestrian"))


def two_halves() -> LabelMap:
    a = np.zeros((40, 50), np.uint8)
    a[20:] = ROAD
    return a


def jagged() -> LabelMap:
    """Blobs with rows shifted at random by up to one pixel."""
    shifts = np.random.default_rng(2).integers(-1, 2, 120)
    return np.stack([np.roll(r, d) for r, d in zip(scene(120, 160), shifts, strict=True)])


def test_lower_levels_take_fewer_bits_and_change_more() -> None:
    maps = [jagged(), *(simplify(jagged(), q, palette=INDICES.id) for q in (5, 1))]
    sizes = [len(labels.encode(a)) for a in maps]
    changes = [int((a != maps[0]).sum()) for a in maps]
    assert sizes[2] < min(sizes[:2])
    assert 0 < changes[1] < changes[2] < maps[0].size / 10


def test_speckles_and_spurs_vanish() -> None:
    clean = two_halves()
    dirty = clean.copy()
    dirty[5, 9] = dirty[30:32, 30:32] = CAMVID.classes.index("tree")
    dirty[19, 25] = ROAD  # a spur
    assert np.array_equal(simplify(dirty, 3, palette=CAMVID.id), clean)


def test_important_pixels_never_change() -> None:
    """At every level, important pixels stay, and no other pixel becomes one."""
    rng = np.random.default_rng(0)
    original = two_halves()
    original[rng.random(original.shape) < 0.05] = PEDESTRIAN
    for level in LEVELS:
        simplified = simplify(original, level, palette=CAMVID.id)
        assert np.array_equal(simplified == PEDESTRIAN, original == PEDESTRIAN)
    lost = simplify(original, 1, palette=CAMVID.id, importance={"pedestrian": 0.1})
    assert (lost == PEDESTRIAN).sum() < (original == PEDESTRIAN).sum() / 2


def test_infinite_importance_of_all_classes_is_lossless() -> None:
    original = scene()
    importance = dict.fromkeys(CAMVID.classes, math.inf)
    same = simplify(original, 1, palette=CAMVID.id, importance=importance)
    assert np.array_equal(same, original)


@pytest.mark.parametrize("name", MAPS)
def test_any_map_may_be_simplified(name: str) -> None:
    original = MAPS[name]
    simplified = simplify(original, 2, palette=INDICES.id)
    assert simplified.shape == original.shape
    assert simplified.dtype == np.uint8
    assert set(np.unique(simplified)) <= set(np.unique(original))


def test_wrong_arguments_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="1…5"):
        simplify(scene(), 6, palette=CAMVID.id)
    with pytest.raises(InputError, match="'dragon'"):
        simplify(scene(), 3, palette=CAMVID.id, importance={"dragon": 1})
    for weight in (-1.0, math.nan, 10**400):
        with pytest.raises(InputError, match="pole"):
            simplify(scene(), 3, palette=CAMVID.id, importance={"pole": weight})


def test_the_weight_of_a_class_is_the_given_one_else_its_own() -> None:
    weights = class_weights(CAMVID, {"sky": 3, "Truck": math.inf, "person": 0})
    found = dict(zip(CAMVID.classes, weights, strict=True))
    assert (found["sky"], found["car"], found["pedestrian"]) == (3, math.inf, 0)
    assert (found["pole"], found["road"], found["bicyclist"]) == (2, 1, math.inf)
    with pytest.raises(InputError, match="'car' and 'bus' are one class: car"):
        class_weights(CAMVID, {"car": 3, "bus": 2})


def test_given_maps_are_lossless_by_default() -> None:
    picture = np.zeros((60, 90, 3), np.uint8)
    original = scene()
    assert np.array_equal(sempic.unpack(sempic.encode(picture, labels=original)).labels, original)
    stream = sempic.encode(picture, labels=original, label_quality=1)
    expected = simplify(original, 1, palette=CAMVID.id)
    assert not np.array_equal(expected, original)
    assert np.array_equal(sempic.unpack(stream).labels, expected)
    exact = sempic.encode(picture, labels=original, label_quality="lossless")
    assert np.array_equal(sempic.unpack(exact).labels, original)


def test_the_segmenters_maps_are_simplified_by_default() -> None:
    found = noise(60, 90, 3)
    codec = sempic.Codec(segmenter=lambda image: found)
    picture = np.zeros((60, 90, 3), np.uint8)
    kept = sempic.unpack(codec.encode(picture, label_quality="lossless")).labels
    assert np.array_equal(kept, found)
    assert not np.array_equal(sempic.unpack(codec.encode(picture)).labels, found)


def test_a_pixel_of_a_smaller_map_stands_for_several_of_the_picture() -> None:
    original = jagged()
    assert LEVELS[5] == 4 * LEVELS[3]
    same = simplify(original, 5, palette=CAMVID.id)
    assert np.array_equal(simplify(original, 3, palette=CAMVID.id, area=4), same)
    assert not np.array_equal(simplify(original, 3, palette=CAMVID.id), same)


def test_doubtful_outlines_take_fewer_bytes_and_keep_important_objects() -> None:
    original = jagged() % PEDESTRIAN
    things = ((slice(20, 23), slice(30, 32)), (slice(40, 52), slice(50, 51)))
    for thing in things:
        original[thing] = PEDESTRIAN
    sure = (np.arange(11)[:, None, None] == original) * np.uint8(255)
    doubtful = np.full_like(sure, 20)
    np.put_along_axis(doubtful, original[None].astype(np.int64), np.uint8(50), 0)
    sizes = []
    for probabilities in (sure, None, doubtful):
        simplified = simplify(original, 3, palette=CAMVID.id, probabilities=probabilities)
        sizes.append(len(labels.encode(simplified)))
        for thing in things:
            assert (simplified[thing] == PEDESTRIAN).any()
    assert sizes[2] < min(sizes[:2])
