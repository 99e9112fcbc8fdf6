from __future__ import annotations

import numpy as np
import pytest
from streets import write_camvid

from sempic.errors import InputError
from sempic.training.data.crops import CropStream, crop
from sempic.training.data.readers import open_dataset
from sempic.training.data.scenes import SceneFolder, TrainingScene


def test_a_stream_decodes_each_scene_once(tmp_path, monkeypatch):
    data = write_camvid(tmp_path / "data", train=2, val=1)
    folder = SceneFolder(dataset=open_dataset("camvid", data, "train"), image_size=48)
    decoded = []
    load = SceneFolder.__getitem__

    def counted(self: SceneFolder, index: int) -> TrainingScene:
        decoded.append(index)
        return load(self, index)

    monkeypatch.setattr(SceneFolder, "__getitem__", counted)
    size = folder[0].coarse.shape[0] * 4 // 2, 16
    decoded.clear()
    one, two = (CropStream(folder, size, flip=True, seed=3, threads=2) for _ in "ab")
    one.prepare(range(4))
    crops = [one[position] for position in range(9)]
    assert sorted(decoded) == list(range(len(folder)))
    again = two[7]  # does not depend on earlier crops
    np.testing.assert_array_equal(again.image, crops[7].image)
    np.testing.assert_array_equal(again.labels, crops[7].labels)
    assert len({crop.image.tobytes() for crop in crops}) > len(folder)


def test_crops_cut_picture_maps_and_coarse_alike():
    y, x = np.mgrid[0:64, 0:96].astype(np.uint8)
    image = np.stack([y, x, 0 * x], -1)
    scene = TrainingScene(name="s", image=image, labels=x, edges=y, coarse=image[::4, ::4])
    with pytest.raises(
        InputError, match=r"s is 96×64, smaller than .* 128×64: give a smaller --cro"
    ):
        crop(scene, (64, 128), 4, np.random.default_rng(0), flip=True)
    seen = set()
    for seed in range(20):
        part = crop(scene, (32, 64), 4, np.random.default_rng(seed), flip=True)
        mirrored = part.labels[0, 0] > part.labels[0, 1]
        fine = part.image[::4, 3::4] if mirrored else part.image[::4, ::4]
        np.testing.assert_array_equal(fine, part.coarse)
        np.testing.assert_array_equal(part.labels, part.image[..., 1])
        np.testing.assert_array_equal(part.edges, part.image[..., 0])
        seen.add((bool(mirrored), int(part.image[0, 0, 0])))
    assert {m for m, _ in seen} == {True, False}
    assert len(seen) > 6
