import numpy as np
import pytest

from sempic.palette import BY_NAME, CAMVID, CITYSCAPES, INDICES, PALETTES, to_camvid


@pytest.mark.parametrize("palette", PALETTES.values(), ids=lambda p: p.name)
def test_tables_are_whole(palette):
    assert PALETTES[palette.id] is BY_NAME[palette.name] is palette
    assert len(palette.classes) == len(palette.colours) <= 256
    assert palette.void is None or palette.void < len(palette.classes)
    assert palette.table().shape == (len(palette.classes), 3)


def test_class_counts():
    counts = {p.name: len(p.classes) for p in PALETTES.values()}
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


def test_palettes_become_camvid():
    names = ("road", "sidewalk", "traffic sign", "person", "rider", "truck", "void")
    ids = np.array([CITYSCAPES.classes.index(name) for name in names], np.uint8)
    known = to_camvid(ids, CITYSCAPES.id)
    found = [CAMVID.classes[i] for i in known]
    assert found == ["road", "pavement", "sign", "pedestrian", "bicyclist", "car", "void"]
    assert to_camvid(known, CAMVID.id) is known
    assert (to_camvid(known, INDICES.id) == CAMVID.void).all()
