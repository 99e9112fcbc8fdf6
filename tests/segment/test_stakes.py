import numpy as np
import pytest

from sempic.palette import CITYSCAPES, INDICES
from sempic.segment.stakes import KNOWN, SPECK, STAKES, Stake, decide

ROAD, CAR, PERSON = 0, 13, 11
HIGH = {**STAKES, "people": Stake(15, KNOWN)}
SIDE = 100


def scene(person: int, side: int = 10, road: int = 150):
    """A road with a square that is a person with probability `person` / 255."""
    labels = np.full((SIDE, SIDE), ROAD, np.uint8)
    probabilities = np.zeros((19, SIDE, SIDE), np.uint8)
    probabilities[ROAD] = 255
    square = np.s_[20 : 20 + side, 30 : 30 + side]
    probabilities[(ROAD, *square)], probabilities[(PERSON, *square)] = road, person
    return labels, probabilities, square


@pytest.mark.parametrize(
    ("person", "stakes", "sent"),
    [(30, STAKES, ROAD), (50, STAKES, PERSON), (30, HIGH, PERSON), (5, HIGH, ROAD)],
)
def test_a_person_is_sent_where_missing_them_is_the_greater_risk(monkeypatch, person, stakes, sent):
    monkeypatch.setattr("sempic.segment.stakes.STAKES", stakes)
    labels, probabilities, square = scene(person)
    decided = decide(labels, probabilities, CITYSCAPES)
    assert (decided[square] == sent).all()
    decided[square] = ROAD
    assert (decided == ROAD).all()


def test_the_most_important_group_wins_in_any_order():
    labels, probabilities, square = scene(0)
    for first, second in ((PERSON, CAR), (CAR, PERSON)):
        probabilities[(first, *square)], probabilities[(second, *square)] = 240, 90
        labels[square] = first
        worth = {PERSON: STAKES["people"].worth, CAR: STAKES["vehicles"].worth}
        expected = max((first, second), key=lambda i: worth[i] * int(probabilities[(i, 25, 35)]))
        assert (decide(labels, probabilities, CITYSCAPES)[square] == expected).all()


def test_specks_are_sent_only_when_sure():
    side = int((SPECK * SIDE * SIDE) ** 0.5)
    for person, sent in ((120, ROAD), (200, PERSON)):
        labels, probabilities, square = scene(person, side, road=255 - person)
        labels[square] = PERSON if person > 127 else ROAD
        assert (decide(labels, probabilities, CITYSCAPES)[square] == sent).all()


def test_the_likeliest_class_takes_the_place_of_a_speck():
    labels, probabilities, square = scene(100, 2, road=20)
    probabilities[(8, *square)] = 60
    labels[square] = PERSON
    assert (decide(labels, probabilities, CITYSCAPES)[square] == 8).all()


def test_a_palette_without_critical_classes_is_unchanged():
    labels, probabilities, _ = scene(200)
    assert decide(labels, probabilities, INDICES) is labels
