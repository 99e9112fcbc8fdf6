from __future__ import annotations

import numpy as np

from sempic.palette import CITYSCAPES
from sempic.segment.prediction import Prediction

ROAD, SKY, PERSON, CAR, POLE, SIGN = map(
    CITYSCAPES.classes.index, ("road", "sky", "person", "car", "pole", "traffic sign")
)


def prediction(*planes: tuple[int, list[list[int]]], labels: object) -> Prediction:
    probabilities = np.zeros((19, *np.shape(labels)), np.uint8)
    for number, plane in planes:
        probabilities[number] = plane
    return Prediction(np.array(labels, np.uint8), probabilities, CITYSCAPES.id, True)


def test_at_half_the_size_the_likeliest_of_four_ids_stays():
    road, sky = [[200, 200, 90], [90, 200, 90]], [[55, 55, 165], [165, 55, 165]]
    whole = prediction((ROAD, road), (SKY, sky), labels=[[ROAD, ROAD, SKY], [SKY, ROAD, SKY]])
    half = whole.halved()
    assert np.array_equal(half.labels, [[ROAD, SKY]])  # the last column is repeated
    assert half.probabilities is not None
    assert np.array_equal(half.probabilities[ROAD], [[173, 90]])  # 172.5
    assert (half.area, half.palette, half.voids) == (4, CITYSCAPES.id, True)


def test_at_half_the_size_small_and_thin_things_lose_less():
    corner, rest = [[180, 0], [0, 0]], [[20, 250], [250, 250]]
    for thing, left in ((CAR, 45), (PERSON, (45 + 180) // 2), (POLE, 180), (SIGN, 180)):
        labels = [[thing, ROAD], [ROAD, ROAD]]
        half = prediction((thing, corner), (ROAD, rest), labels=labels).halved()
        assert half.probabilities is not None
        assert half.probabilities[[thing, ROAD], 0, 0].tolist() == [left, 193]  # 192.5
        assert half.labels.tolist() == [[ROAD]]


def test_void_stays_at_half_the_size_where_nothing_else_is():
    void = CITYSCAPES.void
    assert void == 19  # has no probability
    labels = [[void, void, void, CAR], [void, void, void, void]]
    car = [[90, 90, 90, 140], [90, 90, 90, 90]]
    assert prediction((CAR, car), labels=labels).halved().labels.tolist() == [[void, CAR]]


def test_a_map_without_probabilities_keeps_its_size():
    whole = Prediction(np.array([[ROAD, SKY]], np.uint8), None, CITYSCAPES.id, False)
    assert whole.halved() is whole
