import numpy as np
import pytest
import torch
from conftest import needs_models, street
from PIL import Image, ImageOps
from streets import train, write_camvid

from sempic import coarse, codec, models
from sempic.labels import own, payload, prior, trunk
from sempic.training.data import label_maps, taxonomy
from sempic.training.data.label_maps import Maps
from sempic.training.data.sources import open_sources
from sempic.training.recipes.label_prior import Pixels, evaluate

BUNDLED = payload.WEIGHTS[4]


@pytest.mark.parametrize("classes", ["camvid", "cityscapes"])
@needs_models
def test_a_prior_trains_and_is_exported(tmp_path, capsys, classes):
    data = write_camvid(tmp_path / "camvid", train=2, val=1)
    common = ("--data", data, "--classes", classes)
    steps = ("--steps", 1, "--batch", 1, "--busy", 20, "--calm", 10)
    network = ("label-prior", "network", *common, *steps)
    for name, more in (("causal", []), ("informed", ["--coarse"])):
        assert train(*network, "--out", tmp_path / name, *more) == 0, capsys.readouterr().err
    kept = [dict(np.load(path)) for path in tmp_path.glob("prior-*.npz")]
    assert train(*network, "--lr", 0.5, "--out", tmp_path / "causal") == 2
    assert f"lr is 0.5, but {tmp_path / 'causal'} began with 0.003" in capsys.readouterr().err
    assert len(kept) == 2  # of both runs: one to train on, one to validate on
    assert sorted(len(part["planes"]) for part in kept) == [1, 2]
    # For Cityscapes' classes, maps of the bundled segmenter are added if they have several labels.
    most = 2 if classes == "cityscapes" else 1
    assert all(len(part["planes"]) <= len(part["labels"]) <= most * 2 for part in kept)
    assert kept[0]["labels"].shape[1:] == (256, 341)
    for cache in tmp_path.glob("prior-*.npz"):
        whole = cache.read_bytes()
        cache.write_bytes(whole[:1000])
        assert train(*network, "--out", tmp_path / "other") == 2
        assert f"{cache}: damaged, delete it (" in capsys.readouterr().err
        cache.write_bytes(whole)
    (data / "val/0.png").write_bytes((data / "train/1.png").read_bytes())
    assert train(*network, "--out", tmp_path / "again") == 0
    assert len(list(tmp_path.glob("prior-*.npz"))) == 3  # other files, other pictures
    runs = ("--causal", tmp_path / "causal", "--informed", tmp_path / "informed")
    networks, model = tmp_path / "networks.npz", tmp_path / "model.npz"
    assert train("label-prior", "export", *runs, "--out", networks) == 0
    assert train("label-prior", "tables", *common, "--networks", networks, "--out", model) == 0
    known = prior.load(model)
    assert known.classes == {"camvid": 12, "cityscapes": 20}[classes]
    assert known.readout is not None
    assert known.primed
    assert own.load(model).palette == classes
    assert train("label-prior", "export", *runs[:2], "--informed", "no", "--out", "x.npz") == 2
    swapped = ("--causal", tmp_path / "informed", "--informed", tmp_path / "causal")
    assert train("label-prior", "export", *swapped, "--out", tmp_path / "x.npz") == 2
    assert "causal: a run without --coarse" in capsys.readouterr().err
    assert train("label-prior", "export", *runs, "--out", tmp_path / "x.png") == 2
    assert "x.png: the name of a label model ends in .npz" in capsys.readouterr().err
    assert not list(tmp_path.glob("x.*"))


@needs_models
def test_sent_maps_have_half_the_size_of_their_pictures(tmp_path, monkeypatch):
    """As they are coded; human maps have all of it. Each has the planes of its own picture."""
    pictures, sent = [], street(256, 341, seed=9)[1]

    def send(_, picture):
        pictures.append(picture)
        return codec.repeated(sent, 2, picture.shape[:2])

    monkeypatch.setattr(label_maps, "sent_map", send)
    classes = taxonomy.load("cityscapes")
    (source,) = open_sources([str(write_camvid(tmp_path / "camvid", train=1, val=1))], classes)

    def maps():
        segmenter = models.find(models.SEGMENTER)
        return label_maps.maps_of([source.train], [1.0], classes, segmenter, tmp_path)

    found = maps()
    (large,) = pictures
    assert large.shape == (512, 682, 3)
    assert found.labels.shape == (2, 256, 341)
    assert (found.labels[1] == sent).all()
    small = ImageOps.fit(Image.open(source.train[0].image), (341, 256), Image.Resampling.BICUBIC)
    for planes, picture in zip(found.planes, (np.array(small), large), strict=True):
        for view, (quality, chroma) in zip(planes, label_maps.VIEWS, strict=True):
            payload = coarse.encode(coarse.downscale(picture), quality=quality, chroma=chroma)
            assert (view == trunk.grid(coarse.decode(payload), 256, 341)).all()
    maps()
    assert len(pictures) == 1  # from the cache
    monkeypatch.setattr(label_maps, "VIEWS", label_maps.VIEWS[:1])
    assert maps().planes.shape[:2] == (2, 1)


@pytest.mark.parametrize("noisy", [False, True])
def test_pixels_of_every_kind_of_map_are_drawn(noisy):
    """A map may have no pixel whose neighbours are alike."""
    labels = np.random.default_rng(0).integers(0, 2 if noisy else 1, (1, 40, 60), np.uint8)
    drawn = Pixels(labels, 2).draw(0, torch.Generator().manual_seed(0), 30, 10)
    chosen, around, target, weight = drawn
    assert len(chosen) == len(around) == len(target) == len(weight) == 40
    assert weight.sum().item() == pytest.approx(40 * 60)


def test_a_validation_takes_its_maps_to_the_device_of_the_network():
    class Elsewhere:
        template, trunk = torch.zeros((), device="meta"), ()

        def __call__(self, around, row, column, features):
            assert {x.device.type for x in (around, row, column)} == {"meta"}
            return torch.zeros(len(around), 4)

    pixels = Pixels(np.zeros((1, 40, 60), np.uint8), 4)
    maps = Maps(*[np.zeros((1, 1), np.uint8)] * 3)
    assert evaluate(Elsewhere(), pixels, maps, [0]) == pytest.approx(40 * 60 * 2 / 8)


@needs_models
def test_a_model_of_other_classes_is_refused_as_a_start(tmp_path, capsys):
    data = write_camvid(tmp_path / "camvid", train=1, val=1)
    words = ("--data", data, "--classes", "camvid", "--out", tmp_path / "run")
    assert train("label-prior", "network", *words, "--steps", 1, "--init", BUNDLED) == 2
    assert "another number of classes" in capsys.readouterr().err
    tables = ("--data", data, "--classes", "camvid", "--out", tmp_path / "x.npz")
    assert train("label-prior", "tables", *tables, "--networks", BUNDLED) == 2
    assert "another number of classes" in capsys.readouterr().err
