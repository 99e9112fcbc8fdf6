import contextlib
import dataclasses
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sempic import fields, palette
from sempic.errors import InputError, LabelMapError
from sempic.options import EncodeOptions
from sempic.palette import (
    BY_NAME,
    CAMVID,
    CITYSCAPES,
    CITYSCAPES_FULL,
    INDICES,
    OWN,
    PALETTES,
    translate,
)
from sempic.simplify import class_weights


@pytest.mark.parametrize("palette", PALETTES.values(), ids=lambda p: p.name)
def test_palette_tables_are_complete(palette):
    assert PALETTES[palette.id] is BY_NAME[palette.name] is palette
    assert len(palette.classes) == len(palette.colours) <= 256
    assert palette.void is None or palette.void < len(palette.classes)
    assert palette.table().shape == (len(palette.classes), 3)


def test_class_counts():
    assert [PALETTES[number].known for number in range(4)] == [256, 11, 19, 34]
    counts = {p.name: len(p.classes) for p in PALETTES.values() if p.id < OWN}
    assert counts == {
        "indices": 256,
        "camvid": 12,
        "cityscapes": 20,
        "cityscapes-labelids": 35,
    }


def test_colours_of_indices_differ():
    assert len(set(PALETTES[0].colours)) == 256


def test_paint():
    painted = CAMVID.paint(np.array([[0, 3], [11, 10]], np.uint8))
    assert painted.dtype == np.uint8
    assert painted.tolist() == [[[128, 128, 128], [128, 64, 128]], [[0, 0, 0], [0, 128, 192]]]


@pytest.mark.parametrize("palette", PALETTES.values(), ids=lambda p: p.name)
def test_unpaint_inverts_paint(palette):
    """Ids of one colour become the lowest of them."""
    ids = np.arange(len(palette.classes), dtype=np.uint8)[None]
    lowest = [[palette.colours.index(colour) for colour in palette.colours]]
    assert palette.unpaint(palette.paint(ids)).tolist() == lowest
    strange = palette.paint(ids)
    strange[0, 1] = 1, 2, 3
    with pytest.raises(LabelMapError, match=rf"\(1, 2, 3\) is not a colour of {palette.name}"):
        palette.unpaint(strange)


def test_ids_of_files_become_ids_of_the_palette():
    ids = np.array([[0, 7, 200, 255]], np.uint8)
    for known, last in ((CAMVID, 11), (CITYSCAPES, 19), (CITYSCAPES_FULL, 34), (INDICES, 255)):
        assert known.settle(ids).tolist() == [[0, 7, 200, last]]
    assert CAMVID.settle(ids, 7).tolist() == [[0, 11, 200, 11]]
    assert CITYSCAPES_FULL.settle(ids, 255).tolist() == [[0, 7, 200, 0]]
    with pytest.raises(InputError, match="palette indices has no void that 7 could become"):
        INDICES.settle(ids, 7)


def test_other_palettes_convert_to_camvid():
    names = ("road", "sidewalk", "traffic sign", "person", "rider", "truck", "void")
    ids = np.array([CITYSCAPES.classes.index(name) for name in names], np.uint8)
    known = translate(ids, CITYSCAPES.id, CAMVID.id)
    found = [CAMVID.classes[i] for i in known]
    assert found == ["road", "pavement", "sign", "pedestrian", "bicyclist", "car", "void"]
    assert translate(known, CAMVID.id, CAMVID.id) is known
    assert (translate(known, INDICES.id, CAMVID.id) == CAMVID.void).all()


def test_camvid_converts_to_cityscapes_and_back():
    ids = np.arange(12, dtype=np.uint8)
    there = translate(ids, CAMVID.id, CITYSCAPES.id)
    assert [CITYSCAPES.classes[i] for i in there] == [
        "sky", "building", "pole", "road", "sidewalk", "vegetation",
        "traffic sign", "fence", "car", "person", "rider", "void",
    ]  # fmt: skip
    assert np.array_equal(translate(there, CITYSCAPES.id, CAMVID.id), ids)


def test_classes_are_found_by_their_names_in_any_spelling():
    assert palette.numbers(["pedestrian", "Car", "TRAFFIC_Sign", "traffic-light"], CITYSCAPES) == [
        *(CITYSCAPES.classes.index(n) for n in ("person", "car", "traffic sign", "traffic light"))
    ]
    assert palette.numbers(["Person", "traffic_light", "sign"], CAMVID) == [9, 6, 6]
    assert palette.numbers(["Ego_Vehicle"], CITYSCAPES_FULL) == [1]


def test_classes_with_commas_are_found_in_lists_that_were_split_at_commas():
    classes = [(name, (0, 0, 0)) for name in ("window", "Window, pane", "a,b", "x = y, z")]
    own = palette.own("commas", classes)
    for given, meant in (
        ("window, pane", [1]),
        ("window,window,PANE", [0, 1]),
        ("pane", ["pane"]),
        ("a , b,x_=_y,z,window", [2, 3, 0]),
    ):
        keep = EncodeOptions(keep=(given,)).keep
        found = [palette.spelt(name, own) or name for name in palette.rejoined(keep, own)]
        assert found == [own.classes[n] if isinstance(n, int) else n for n in meant]
    weights = dict(fields.pairs("window,pane=3,a,b=inf,x = y, z=0"))
    assert list(class_weights(own, weights))[:4] == [1, 3, math.inf, 0]


def test_an_unknown_class_is_answered_with_the_nearest_ones():
    two = palette.own("two-cases", [("Car", (1, 2, 3)), ("car", (4, 5, 6))])
    for name, known, said in (
        ("256", INDICES, "indices: 0, …, 255"),
        ("ghost", CAMVID, f"camvid: {', '.join(CAMVID.classes)}"),
        ("Pedestrain", CAMVID, f"camvid: {', '.join(CAMVID.classes)}; did you mean pedestrian?"),
        ("cars", two, "two-cases: Car, car, void; did you mean car?"),
        ("CAR", two, "two-cases: Car, car, void; did you mean car?"),
    ):
        with pytest.raises(InputError) as caught:
            palette.numbers([name], known)
        assert str(caught.value) == f"class {name!r} is not one of palette {said}"
    assert palette.numbers(["Car", "car"], two) == [0, 1]


def test_label_ids_convert_to_train_ids():
    """As in cityscapesScripts (labels.py)."""
    train = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    known = translate(np.array(train, np.uint8), CITYSCAPES_FULL.id, CITYSCAPES.id)
    assert known.tolist() == list(range(19))
    ignored = translate(np.array([0, 1, 2, 3, 4, 5, 6, 10], np.uint8), 3, CITYSCAPES.id)
    assert (ignored == CITYSCAPES.void).all()


def test_a_custom_palette(tmp_path):
    what = {"name": "toys", "classes": [{"name": "ball", "colour": [1, 2, 3]}, {"name": "table"}]}
    (tmp_path / "toys.json").write_text(json.dumps(what))
    toys = palette.find(str(tmp_path / "toys.json"))
    assert toys.classes == ("ball", "table", "void")
    assert toys.colours[0] == (1, 2, 3)
    assert toys.void == 2
    assert PALETTES[toys.id] is BY_NAME["toys"] is toys
    assert toys.id >= OWN
    assert palette.find(str(tmp_path / "toys.json")) == toys
    assert palette.from_description(palette.described(toys)) == toys
    assert palette.from_description("camvid") is CAMVID
    assert CAMVID.identity is None
    assert toys.identity == "toys#" + toys.identity[-8:]
    many = palette.own("many", [(str(number), (0, 0, 0)) for number in range(126)])
    assert many.known == many.void == 126
    with pytest.raises(InputError, match="another palette called toys"):
        palette.own("toys", [("table", (0, 0, 0)), ("ball", (0, 0, 0))])


def test_threads_register_palettes_of_different_ids(monkeypatch):
    together, make = threading.Barrier(2), palette._palette

    def slow(*arguments, **keywords):  # both threads have chosen an id before either registers it
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(0.1)
        return make(*arguments, **keywords)

    monkeypatch.setattr(palette, "_palette", slow)
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(
            lambda name: palette.own(name, [("a", (0, 0, 0))]), ("first", "second")
        )
    assert one.id != other.id
    assert (PALETTES[one.id], PALETTES[other.id]) == (one, other)


@pytest.mark.parametrize(
    "what",
    [
        "mars",
        {"classes": [{"name": "a"}]},
        {"name": "camvid", "classes": [{"name": "a"}]},
        {"name": "a b", "classes": [{"name": "a"}]},
        {"name": "x", "classes": []},
        {"name": "x", "classes": [{"name": "a"}] * 2},
        {"name": "x", "classes": [{"name": "void"}]},
        {"name": "x", "classes": [{"name": "a", "colour": [1, 2]}]},
        {"name": "x", "classes": [{"name": "a", "colour": [1, 2, 256]}]},
        {"name": "x", "classes": [{"name": str(i)} for i in range(127)]},
        ["a"],
        {"name": 5, "classes": [{"name": "a"}]},
        *(
            {"name": "x", "classes": [{"name": "a"}, entry]}
            for entry in (
                {"name": ["b"]},
                {"name": None},
                {"name": 1},
                {"name": " "},
                {"name": "b\nc"},
                {"name": "\ud800"},
                {"name": "b", "colour": [float("inf"), 0, 0]},
                {"name": "b", "colour": [1.5, 0, 0]},
                {"name": "b", "colour": [True, 0, 0]},
                {"name": "b", "colour": "123"},
                {"name": "b", "color": [1, 2, 3]},
            )
        ),
    ],
)
def test_invalid_palettes_are_refused(what, tmp_path):
    before = dict(PALETTES)
    (tmp_path / "x.json").write_text(json.dumps(what))
    with pytest.raises(InputError, match=r"x\.json"):
        palette.find(str(tmp_path / "x.json"))
    assert before == PALETTES


def test_bare_names_of_classes_are_refused_with_the_form(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"name": "bare", "classes": ["ball"]}))
    with pytest.raises(InputError, match=r"""a class is an object with a "name", not 'ball'$"""):
        palette.find(str(tmp_path / "x.json"))


def test_an_unknown_key_of_a_palette_file_is_refused(tmp_path):
    what = {"name": "voids", "classes": [{"name": "ball"}, {"name": "other"}], "void": "other"}
    (tmp_path / "x.json").write_text(json.dumps(what))
    with pytest.raises(InputError, match=r"x\.json: its key 'void' is not one of name, classes$"):
        palette.find(str(tmp_path / "x.json"))


def test_a_byte_order_mark_is_accepted(tmp_path):
    what = {"name": "marked", "classes": [{"name": "ball"}]}
    (tmp_path / "x.json").write_text(json.dumps(what), "utf-8-sig")
    assert palette.find(str(tmp_path / "x.json")).classes == ("ball", "void")


def test_a_file_nested_beyond_the_parser_limit_is_no_palette(tmp_path):
    (tmp_path / "x.json").write_text("[" * 3000)
    with pytest.raises(InputError, match=r"x\.json: not a palette file"):
        palette.find(str(tmp_path / "x.json"))


def test_a_network_of_other_classes_is_told_apart_by_number_and_by_name():
    assert CAMVID.unlike(11, CAMVID) is CAMVID.unlike(11, None) is None
    assert CAMVID.unlike(19, CITYSCAPES) == "19 classes, not 11"
    renamed = dataclasses.replace(CAMVID, name="things", classes=tuple("abcdefghijkv"))
    assert CAMVID.unlike(11, renamed) == "the classes of things, not of camvid"
