"""Frozen files decode to frozen arrays (vectors/README.md)."""

import sys

import numpy as np
import pytest
from conftest import ROOT, module_at, refuses_prefixes_and_flips

import sempic
from sempic import compiling, container, labels, machine
from sempic.codec import is_doubled
from sempic.labels import moved
from sempic.sequence import Unpacker
from sempic.sequence.stream import Frame, Reader

MAKER = ROOT / "vectors/make.py"
FILES = sorted((ROOT / "vectors").glob("*.sempic"))


@pytest.fixture(params=machine.levels() or [None], autouse=True)
def _machine_code(request, monkeypatch):
    """Run all tests here with each level of machine code shipped for this processor."""
    if level := request.param:
        monkeypatch.setattr(machine, "levels", lambda: [level])
        monkeypatch.setattr(compiling, "_compile", None)
        for module in [m for name, m in sys.modules.items() if name.startswith("sempic.")]:
            for value in vars(module).values():
                if isinstance(value, compiling.Kernel):
                    monkeypatch.setattr(value, "_entries", {})


@pytest.fixture(params=FILES, ids=lambda p: p.stem)
def vector(request):
    with np.load(request.param.with_suffix(".npz")) as arrays:
        return request.param.stem, request.param.read_bytes(), dict(arrays)


@pytest.mark.parametrize(
    "which",
    ["street", "exposure", "parity", "halved", "short", "small", "focus", "references"],
)
def test_a_sequence_decodes_to_the_expected_frames(which):
    file = ROOT / f"vectors/sequences/{which}.sempic"
    make = module_at(MAKER)
    stream = file.read_bytes()
    with np.load(file.with_suffix(".npz")) as expected:
        found = make.frames_of(stream)
        assert found.keys() == set(expected) - {"strengths"}  # an earlier kind of advice
        for name, array in found.items():
            assert np.array_equal(array, expected[name]), name
    if which == "street":
        labels = make.street(96, 140)[1]
        for frame, left in zip(found["labels"], (0, 3, 3, 6, 9, 12), strict=True):
            assert np.array_equal(frame, labels[:, left : left + 125])
    if which == "halved":
        labels = make.street(72, 120)[1]
        for frame, left in zip(found["labels"], range(0, 16, 4), strict=True):
            assert np.array_equal(frame[::2, ::2], labels[:71, left : left + 101][::2, ::2])
            assert is_doubled(frame)
    if which == "short":
        labels = make.street(64, 96)[1]
        for frame, left in zip(found["labels"], (0, 2, 2, 4, 6, 8), strict=True):
            assert np.array_equal(frame, labels[:, left : left + 80])
    if which == "references":
        labels = make.street(64, 110)[1]
        for frame, left in zip(found["labels"], range(0, 30, 3), strict=True):
            assert np.array_equal(frame, labels[:, left : left + 80])
    if which == "small":
        for frame, number in zip(found["labels"], range(3), strict=True):
            assert np.array_equal(frame, make.patches(number)[1])
    if which == "parity":  # including lost frames
        labels = make.street(48, 80)[1]
        for frame, left in zip(found["labels"], range(0, 18, 2), strict=True):
            assert np.array_equal(frame, labels[:, left : left + 60])


def test_maps_of_a_sequence_are_encoded_to_the_frozen_bytes():
    """Coarse pictures are taken from the file; expected maps and map bytes are made again."""
    file = ROOT / "vectors/sequences/street.sempic"
    frames = [f for f in Reader().feed(file.read_bytes()) if isinstance(f, Frame)]
    memory = moved.memory(96, 125, 12)
    moments = list(Unpacker().feed(file.read_bytes()))
    assert len(frames) == len(moments) == 6
    for frame, moment in zip(frames[1:5], moments[1:5], strict=True):
        expected = moment.expected
        body = moved.encode(moment.scene.labels, expected.labels, expected.hint, memory)
        assert body == (frame.labels or b"")


def test_there_are_vectors():
    assert len(FILES) >= 9


def test_decodes_to_the_expected_scene(vector):
    _, stream, expected = vector
    scene = sempic.unpack(stream)
    size = [scene.width, scene.height, scene.palette, scene.model]
    assert size == expected.pop("size").tolist()
    got = {} if scene.labels is None else {"labels": scene.labels}
    if scene.coarse is not None:
        got |= {"y": scene.coarse.y, "cb": scene.coarse.cb, "cr": scene.coarse.cr}
    for number, window in enumerate(scene.windows):
        assert expected.pop(f"window{number}-at").tolist() == [window.x, window.y]
        got[f"window{number}"] = window.picture
    if scene.texture:
        said = [[number, *levels] for number, levels in scene.texture.items()]
        assert expected.pop("texture").tolist() == said
    assert got.keys() == expected.keys()
    for name, array in got.items():
        assert array.dtype == np.uint8
        assert np.array_equal(array, expected[name]), name


def test_label_maps_are_those_that_were_drawn():
    make = module_at(MAKER)
    for name, size in (
        ("street", (256, 341)),
        ("small", (48, 64)),
        ("subsampled", (45, 61)),
        ("optional", (48, 64)),
        ("primed3", (48, 64)),
        ("primed3-alone", (128, 171)),
        ("primed4", (48, 64)),
        ("primed4-alone", (128, 171)),
        ("windows", (61, 83)),
        ("windows-alone", (61, 83)),
        ("groups", (48, 64)),
        ("texture", (61, 83)),
    ):
        stream = (ROOT / f"vectors/{name}.sempic").read_bytes()
        assert np.array_equal(sempic.unpack(stream, only="labels").labels, make.street(*size)[1])
    for name in ("halved", "doubled"):
        scene = sempic.unpack((ROOT / f"vectors/{name}.sempic").read_bytes())
        assert (scene.doubled, scene.halved) == (True, name == "halved")
        assert np.array_equal(scene.labels[::2, ::2], make.street(45, 61)[1][::2, ::2])


def test_receipts_are_read_as_expected():
    none = {"seen": 0, "kept": 0, "lost": 0, "invented": 0}
    receipt = sempic.info((ROOT / "vectors/windows.sempic").read_bytes())["receipt"]
    assert (receipt["verifier"], receipt["table"]) == ("0badcafe", None)
    assert receipt["groups"] == dict.fromkeys(
        ("people", "two-wheelers", "vehicles", "signs and lights"), none
    ) | {"vehicles": none | {"seen": 1, "kept": 1}}
    receipt = sempic.info((ROOT / "vectors/groups.sempic").read_bytes())["receipt"]
    assert (receipt["verifier"], receipt["table"]) == ("0badcafe", "00c0ffee")
    assert receipt["groups"] == {
        "Füchse": {"seen": 3, "kept": 2, "lost": 1, "invented": 0},
        "all that rolls": none | {"invented": 2},
    }


def test_label_maps_are_encoded_to_the_frozen_bytes(vector):
    """Given the same palette and coarse picture."""
    _, stream, expected = vector
    found = container.read(stream)
    if found.labels is None:
        return
    coarse = sempic.unpack(stream).coarse
    models = {1: "camvid", 2: "cityscapes"}
    model = None if vector[0] == "subsampled" else models.get(found.palette)  # older than model 4
    coded = expected["labels"][::2, ::2] if found.doubled else expected["labels"]
    assert labels.encode(coded, coarse=coarse, model=model) == found.labels


def test_every_coder_of_label_maps_has_a_vector():
    """Every coder and, with a prior, every model number."""
    found = set()
    for file in FILES:
        if payload := container.read(file.read_bytes()).labels:
            coder = payload[0] >> 6
            size = (1, 2, 4, 32)[payload[0] >> 4 & 3]
            found.add((coder, payload[1 + size] if coder > 1 else 0))
    assert found == {(0, 0), (1, 0), (2, 3), (3, 3), (2, 4), (3, 4)}


def test_every_prefix_and_every_single_bit_flip_is_refused():
    refuses_prefixes_and_flips((ROOT / "vectors/small.sempic").read_bytes())
