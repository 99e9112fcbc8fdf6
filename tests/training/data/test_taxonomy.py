import json

import numpy as np
import pytest

from sempic.errors import InputError
from sempic.palette import CAMVID, CITYSCAPES
from sempic.training.data import taxonomy
from sempic.training.data.taxonomy import GROUP, UNKNOWN

NINETEEN, ELEVEN = taxonomy.load("cityscapes"), taxonomy.load("camvid")


def city(*names):
    return np.array([[CITYSCAPES.classes.index(n) for n in names]], np.uint8)


def camvid(*names):
    return np.array([[CAMVID.classes.index(n) for n in names]], np.uint8)


def test_class_counts_leave_out_void():
    assert (NINETEEN.classes, ELEVEN.classes) == (19, 11)
    assert NINETEEN.ids(["road", "pole", "void", "nothing"]) == (0, 5)
    with pytest.raises(InputError, match="none of cityscapes, camvid"):
        taxonomy.load("mars")


def test_an_agreeing_teacher_refines_a_human_label():
    human = camvid("car", "car", "car", "road", "void", "tree")
    teacher = city("bus", "road", "void", "sidewalk", "person", "vegetation")
    known = NINETEEN.known(human, CAMVID, teacher)
    bus, person, vegetation = (int(city(n)[0, 0]) for n in ("bus", "person", "vegetation"))
    cars = GROUP + CAMVID.classes.index("car")
    # agrees; contradicted; unsure; contradicted, but the human label is one class; unlabelled
    assert known.tolist() == [[bus, cars, cars, 0, person, vegetation]]
    allowed = NINETEEN.groups[cars - GROUP]
    assert {CITYSCAPES.classes[i] for i in np.flatnonzero(allowed)} == {
        "car", "truck", "bus", "train",
    }  # fmt: skip


def test_hidden_classes_of_the_teacher_always_count():
    human, teacher = camvid("building", "building"), city("person", "road")
    known = NINETEEN.known(human, CAMVID, teacher, hidden=("person",))
    assert known.tolist() == [[int(city("person")[0, 0]), int(city("building")[0, 0])]]


def test_human_or_teacher_alone_is_used_as_given():
    assert NINETEEN.known(None, CITYSCAPES, city("bus", "void")).tolist() == [[15, UNKNOWN]]
    assert NINETEEN.known(city("bus", "void"), CITYSCAPES).tolist() == [[15, UNKNOWN]]
    assert ELEVEN.known(camvid("sky", "void"), CAMVID).tolist() == [[0, UNKNOWN]]
    assert ELEVEN.known(city("train", "rider"), CITYSCAPES).tolist() == [[8, 10]]


def test_settle_picks_one_class_of_a_group():
    groups = np.array([[GROUP + CAMVID.classes.index(n) for n in ("car", "bicyclist", "sign")]])
    settled = NINETEEN.settle(np.concatenate([groups.astype(np.uint8), [[3, UNKNOWN, 18]]], 1))
    names = [CITYSCAPES.classes[i] for i in settled[0]]
    assert names == ["car", "rider", "traffic sign", "wall", "void", "bicycle"]


def test_critical_classes_count_more_in_every_palette():
    fine = NINETEEN.critical()
    at = CITYSCAPES.classes.index
    assert fine.shape == (256,)
    assert fine[at("person")] == fine[at("traffic sign")] == 0.5
    assert fine[at("car")] == 0.125
    assert fine[at("road")] == fine[CITYSCAPES.void] == 0
    coarse = NINETEEN.critical(CAMVID)
    assert coarse[CAMVID.classes.index("sign")] == 0.5  # a sign or a light
    assert coarse[CAMVID.classes.index("car")] == 0.125
    assert coarse[CAMVID.classes.index("sky")] == coarse[CAMVID.void] == 0
    assert ELEVEN.critical()[CAMVID.classes.index("pedestrian")] == 0.5


@pytest.mark.parametrize(
    "entry",
    [
        {"rare": "no"},
        {"importance": True},
        {"importance": "high"},
        {"importance": 0},
        {"importance": float("nan")},
        {"importance": 10**400},
        {"weight": 3},
    ],
)
def test_wrong_values_in_a_class_file_are_named(entry, tmp_path):
    table = {"name": "strange", "classes": [{"name": "ball", **entry}]}
    (tmp_path / "x.json").write_text(json.dumps(table))
    with pytest.raises(InputError, match=r"x\.json: ball: "):
        taxonomy.load(str(tmp_path / "x.json"))
