import numpy as np
import pytest
import torch
from conftest import street

from sempic import coarse, texture
from sempic.diffusion.sampling import to_unit
from sempic.errors import InputError
from sempic.training.data import batches, taxonomy
from sempic.training.data.batches import Crops, Drops, drop
from sempic.training.data.corpus import Corpus, Sample

CPU = torch.device("cpu")
CLASSES = taxonomy.load("camvid")


def sample(seed, source="camvid", size=(144, 192)):
    labels = street(*size, seed)[1]
    # The picture shows its labels, so any crop of both must agree.
    image = np.repeat(labels[..., None] * 20, 3, 2)
    small, maps = (coarse.downscale(image),), (labels, labels.copy())
    return Sample(source, str(seed), False, image, small, maps, ({},) * 3)


def corpus(*samples):
    return Corpus(CLASSES, {"camvid": 3.0, "other": 1.0}, list(samples))


def crops(*samples, size=(64, 96), drops=(0.0, 0.0, 0.0)):
    return Crops(corpus(*samples), size=size, device=CPU, drops=Drops(*drops))


def test_crops_align_picture_and_maps_and_follow_the_seed():
    source = crops(*(sample(s) for s in range(4)))
    for step in range(5):
        plan = source.plan(1, step, 6)
        assert (plan[:, 3:5] % 16 == 0).all()
        batch = source.draw(1, step, 6)
        image, small, labels, truth = batch.image, batch.coarse, batch.labels, batch.truth
        assert image.shape == (6, 3, 64, 96)
        assert (truth == labels).all()  # nothing is dropped
        assert small.shape == (6, 3, 16, 24)
        again = source.draw(1, step, 6)
        assert all((a == b).all() for a, b in zip(batch, again, strict=True))
        # The light augmentation scales all colours by one factor.
        wanted = to_unit((labels * 20)[..., None].repeat(1, 1, 1, 3)) + 1
        part = (wanted > 0.1) & (image < 0.99)
        for k in range(6):
            ratio = ((image + 1) / wanted)[k, 0][part[k, 0]]
            assert ratio.std() < 0.02
        down = torch.nn.functional.avg_pool2d(image, 4)
        assert (down - small).abs().mean() < 0.1
    assert (source.draw(1, 0, 6).image != source.draw(2, 0, 6).image).any()


def test_crops_prefer_rare_classes_and_heavy_sources(monkeypatch):
    pole = CLASSES.ids(["pole"])[0]
    one = sample(0, size=(288, 384))
    source = crops(one, sample(1, "other"), size=(32, 32))
    found = {}
    for rate in (0.0, 1.0):
        monkeypatch.setattr(batches, "RARE_RATE", rate)
        labels = torch.cat([source.draw(0, step, 16).labels for step in range(10)])
        found[rate] = (labels == pole).flatten(1).any(1).float().mean().item()
    assert found[1.0] == 1
    assert found[0.0] < 0.7
    plans = np.concatenate([source.plan(0, step, 16) for step in range(60)])
    assert (plans[:, 0] == 0).mean() == pytest.approx(0.75, abs=0.05)
    assert plans[:, 5].mean() == pytest.approx(0.5, abs=0.06)


def test_maps_are_dropped_at_the_rate():
    source = crops(sample(0), drops=(0.3, 0.0, 0.0))
    labels = torch.cat([source.draw(0, step, 20).labels for step in range(30)])
    void = (labels == CLASSES.classes).flatten(1).all(1)
    assert void.float().mean().item() == pytest.approx(0.3, abs=0.06)
    assert (source.draw(0, 0, 20).truth != CLASSES.classes).flatten(1).any(1).all()


def test_regions_become_void_or_those_of_another_map():
    labels = torch.stack([torch.full((32, 48), n, dtype=torch.uint8) for n in range(4)])
    labels[:, :, 24:] = 9
    dropped, whole = drop(labels, 11, Drops(0, 1, 0), np.random.default_rng(0))
    assert not whole.any()
    gone = dropped == 11
    assert gone.flatten(1).any(1).all()
    assert (gone.flatten(1).float().mean(1) < 0.6).all()
    for number in range(4):  # of one region only
        assert len(labels[number][gone[number]].unique()) == 1
    wrong, _ = drop(labels, 11, Drops(0, 0, 1), np.random.default_rng(1))
    changed = wrong != labels
    assert (wrong[changed] == labels.roll(1, 0)[changed]).all()
    assert changed.any()
    same, _ = drop(labels, 11, Drops(0, 0, 0), np.random.default_rng(1))
    assert (same == labels).all()


def test_texture_levels_follow_the_class_of_each_patch(monkeypatch):
    road, sky = (CLASSES.ids([name])[0] for name in ("road", "sky"))
    labels = np.full((64, 96), road, np.uint8)
    labels[:32] = sky
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    measured = {road: (20, 24, True), sky: (8, 12, False)}
    one = Sample(
        "camvid", "0", False, image, (image[::4, ::4],), (labels,), (measured, {0: (4, 6, True)})
    )

    def drawn(as_sent, of_all, whole=0):
        monkeypatch.setattr(batches, "AS_SENT", as_sent)
        monkeypatch.setattr(batches, "OF_ALL", of_all)
        return crops(one, size=(64, 96), drops=(whole, 0, 0)).draw(0, 0, 8)

    batch = drawn(1.0, 0.0)  # as a sender: only classes that receivers paint too strong
    said = batch.texture[:, 0]
    middle = batch.labels[:, 2::4, 2::4]
    assert batch.texture.shape == (8, texture.CONDITION, 16, 24)
    assert (said == (middle == road)).all()
    level = batch.texture[:, 1] * 16 + 16
    # The light augmentation makes texture stronger: 25 % more light is 1.3 levels.
    assert (level[said == 1] - 20).abs().max() < 2.1
    assert (level[said == 1] - 20).abs().max() > 0.1
    assert not batch.texture[:, :, :8].any()
    # The noise has the strength that a receiver gets (`sempic.texture.noise_strength`).
    assert batch.strength.shape == (8, 1, 64, 96)
    noise = batch.strength[:, 0, 2::4, 2::4]
    assert (noise - (0.1 * level - 0.3).clamp(0.4, 1.6))[said == 1].abs().max() < 1e-5
    usual = texture.noise_strength(texture.condition({}), texture.default_noise(CLASSES.palette))
    assert (batch.strength[:, 0][batch.labels == sky] == float(usual[sky])).all()
    assert drawn(0.0, 1.0).texture[:, 0].all()
    assert not drawn(0.0, 0.0).texture.any()
    alone = drawn(1.0, 0.0, whole=1).texture  # without a map: the level of the whole picture
    assert alone[:, 0].all()
    assert (alone[:, 1] * 16 + 16 - 4).abs().max() < 2.1


def test_crops_must_fit_into_the_pictures_and_the_grid():
    with pytest.raises(InputError, match="as large as a crop of 160×160"):
        crops(sample(0), size=(160, 160))
    with pytest.raises(InputError, match="multiple of 16"):
        crops(sample(0), size=(60, 60))
