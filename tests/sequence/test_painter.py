"""Painted frames agree with each other."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from scenes import drive, packed, packer_of, planes

from sempic import api, sequence
from sempic.errors import CorruptStream
from sempic.models import runtime
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


def shifting(count):
    """Scenes of which each third shows the same as the one before it."""
    scenes = drive(count)
    return [scenes[at - (at % 3 == 2)] for at in range(count)]


def test_pictures_painted_at_a_time_are_the_same(monkeypatch):
    monkeypatch.setattr(runtime, "cores", lambda: 3)
    coder, found = api.Codec(), moments(shifting(8))
    painter = Painter(coder)
    expected = [painter.paint(moment) for moment in found]
    assert len({picture.tobytes() for picture in expected}) > 5
    for given in (found, [part for moment in found for part in (moment, None)]):
        for picture, other in zip(Painter(coder).paint_all(given), expected, strict=True):
            assert np.array_equal(picture, other)


def test_no_moment_is_waited_for_with_a_picture_at_hand(monkeypatch):
    monkeypatch.setattr(runtime, "cores", lambda: 2)
    found, read, shown = moments(drive(5)), [], []

    def arriving():
        for moment in (*found[:3], None, *found[3:], None):
            if moment is None:  # the next moment would be waited for
                yield None
                assert len(shown) == len(read)
            else:
                read.append(moment)
                yield moment

    for picture in Painter(api.Codec()).paint_all(arriving()):
        shown.append(picture)
    assert len(shown) == 5


def test_pictures_before_a_fault_come_first(monkeypatch):
    monkeypatch.setattr(runtime, "cores", lambda: 2)

    def breaking():
        yield from moments(drive(4))
        raise CorruptStream("broken")

    pictures = Painter(api.Codec()).paint_all(breaking())
    for _ in range(4):
        next(pictures)
    with pytest.raises(CorruptStream, match="broken"):
        next(pictures)


def test_pictures_painted_at_a_time_warn_as_one_by_one(monkeypatch):
    """Once, and of the caller's line."""
    packer = packer_of(drive(1)[0][1], model=3)
    pieces = [packer.pack(planes(picture), lambda _: None) for picture, _ in drive(4)]
    for count in (1, 2):
        monkeypatch.setattr(runtime, "cores", lambda count=count: count)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("default")
            assert len(list(sequence.decode(pieces, guidance=2.0))) == 4
        assert len(told) == 2
        assert {warning.filename for warning in told} == {__file__}


def test_pictures_are_painted_while_python_ends(tmp_path):
    """In a function of `atexit` no thread can start."""
    (tmp_path / "x.sempic").write_bytes(b"".join(packed(drive(3))))
    code = (
        "import atexit; from sempic import sequence; "
        "atexit.register(lambda: print(len(list(sequence.decode(open('x.sempic', 'rb').read())))))"
    )
    env = os.environ | {"SEMPIC_THREADS": "2"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["3"], done.stderr


def test_a_stream_is_not_read_ahead_while_it_arrives():
    """A caller may decode each frame before it makes the next."""
    packer, made = packer_of(drive(1)[0][1]), []

    def arriving():
        for picture, labels in drive(3):
            made.append(picture)
            yield packer.pack(planes(picture), lambda _, f=labels: f, qp=20)

    for number, _ in enumerate(sequence.decode(arriving()), 1):
        assert len(made) == number


def test_receivers_of_others_paint_one_picture_after_the_other(monkeypatch):
    monkeypatch.setattr(runtime, "cores", lambda: 4)
    found, read = moments(drive(4)), []
    arriving = (read.append(moment) or moment for moment in found)
    for number, _ in enumerate(Painter(api.Codec(receiver=Inventor())).paint_all(arriving), 1):
        assert len(read) == number
