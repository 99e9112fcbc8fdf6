import dataclasses
import json

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import street
from streets import needs_imagenet, train, write_camvid

from sempic.errors import InputError, ModelError
from sempic.networks.segmenter import SegmentationNet, SegmenterConfig
from sempic.networks.weights import load_segmenter
from sempic.palette import CAMVID, CITYSCAPES
from sempic.segment import WORKING_SIDE
from sempic.training.data import taxonomy
from sempic.training.data.readers import Item
from sempic.training.data.taxonomy import GROUP, UNKNOWN
from sempic.training.data.views import Pictures
from sempic.training.options import SegmenterOptions
from sempic.training.recipes import segmenter

NINETEEN = taxonomy.load("cityscapes")
GROUPS = torch.from_numpy(NINETEEN.groups)


def pixel(value):
    return torch.full((1, 1, 1), value, dtype=torch.uint8)


def test_a_group_allows_each_of_its_classes():
    logits = torch.zeros(1, 19, 1, 1)
    weight = torch.ones(19)
    car = GROUP + CAMVID.classes.index("car")
    loss = segmenter.cross_entropy(logits, pixel(car), GROUPS, weight)
    assert loss.item() == pytest.approx(np.log(19 / 4))
    logits[0, CITYSCAPES.classes.index("bus")] = 30  # sure of one of them
    assert segmenter.cross_entropy(logits, pixel(car), GROUPS, weight).item() < 1e-6
    assert segmenter.cross_entropy(logits, pixel(0), GROUPS, weight).item() > 20


def test_a_group_has_the_weight_of_its_heaviest_class():
    logits = torch.zeros(1, 19, 1, 2)
    weight = torch.ones(19)
    weight[CITYSCAPES.classes.index("bus")] = 3
    known = torch.tensor([[[GROUP + CAMVID.classes.index("car"), 0]]], dtype=torch.uint8)
    loss = segmenter.cross_entropy(logits, known, GROUPS, weight)
    assert loss.item() == pytest.approx((3 * np.log(19 / 4) + np.log(19)) / 4)


def test_unknown_pixels_have_no_gradient():
    logits = torch.randn(2, 19, 4, 4, requires_grad=True)
    known = torch.full((2, 4, 4), UNKNOWN, dtype=torch.uint8)
    known[0, 0, 0] = 3
    loss = segmenter.cross_entropy(logits, known, GROUPS, torch.ones(19))
    (loss + segmenter.soft_jaccard(logits, known)).backward()
    touched = logits.grad.abs().sum(1) > 0
    assert touched.sum() == 1
    assert touched[0, 0, 0]


def class_weights(known):
    found = segmenter.frequencies([Pictures("a", 1, [known], [known])], NINETEEN)
    return segmenter.class_weights(found, NINETEEN)


def test_rare_and_important_classes_weigh_more():
    known = np.zeros((10, 10), np.uint8)
    known[0, 0] = CITYSCAPES.classes.index("person")
    known[:, 5] = CITYSCAPES.classes.index("building")
    weights = class_weights(known)
    person = weights[CITYSCAPES.classes.index("person")]
    assert weights[0] < weights[CITYSCAPES.classes.index("building")] <= person
    assert weights.max() == pytest.approx(segmenter.HEAVIEST * 1.5)


def test_maps_of_groups_alone_weigh_all_classes_alike():
    known = np.full((4, 4), GROUP + CAMVID.classes.index("car"), np.uint8)
    weights = class_weights(known)
    assert set(weights / weights[0]) == {1, 1.125, 1.5}  # the importances


def test_a_validation_without_a_labelled_pixel_has_no_scores(tmp_path):
    for name, array in (("x", np.zeros((32, 32, 3), np.uint8)), ("y", np.full((32, 32), 255))):
        PIL.Image.fromarray(array.astype(np.uint8)).save(tmp_path / f"{name}.png")
    item = Item(
        name="x",
        image=tmp_path / "x.png",
        labels=tmp_path / "y.png",
        palette=CITYSCAPES,
        ids=(19,) * 256,
    )
    validation = segmenter.Validation([item], NINETEEN)
    assert len(validation.scenes) == 1
    assert validation.scores(SegmentationNet(SegmenterConfig(width=16)).eval()) == {}


def test_a_validation_enlarges_as_an_encoder_does(tmp_path, monkeypatch):
    image, labels = street(144, 192)
    for name, array in (("x", image), ("y", labels)):
        PIL.Image.fromarray(array).save(tmp_path / f"{name}.png")
    item = Item(
        name="x", image=tmp_path / "x.png", labels=tmp_path / "y.png", palette=CAMVID,
        ids=tuple(range(256)),
    )  # fmt: skip
    validation, scales = segmenter.Validation([item], taxonomy.load("camvid")), []

    def predicted(network, image, scale):
        scales.append(scale)
        return np.zeros(image.shape[:2], np.uint8)

    monkeypatch.setattr(segmenter, "predict", predicted)
    for enlarge in (1.5, 9.0):
        config = SegmenterConfig(classes=11, width=16, enlarge=enlarge)
        validation.scores(SegmentationNet(config).eval())
    assert scales == [1.5, WORKING_SIDE / 256]


def test_a_validation_measures_the_coarser_classes(tmp_path):
    """A network of CamVid's classes cannot tell Cityscapes' apart; one of own classes need not know
    all of CamVid's; and CamVid's do not tell Cityscapes' apart."""
    PIL.Image.new("RGB", (256, 256)).save(tmp_path / "x.png")

    def scores(known, palette, *names):
        """Of a network that finds the `names` of its classes, in maps of all classes."""
        labels = np.repeat(np.arange(palette.known, dtype=np.uint8), 256)
        PIL.Image.fromarray(np.resize(labels, (256, 256))).save(tmp_path / "y.png")
        image, labels = tmp_path / "x.png", tmp_path / "y.png"
        item = Item(name="x", image=image, labels=labels, palette=palette, ids=tuple(range(256)))
        validation = segmenter.Validation([item], known)
        truth = known.known(np.array(PIL.Image.open(labels)), palette)
        guess = np.where(np.isin(truth, known.ids(names)), truth, known.palette.void)
        network = SegmentationNet(SegmenterConfig(classes=known.classes, width=16)).eval()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(segmenter, "predict", lambda *_: guess.astype(np.uint8))
            return validation.scores(network)

    camvid, names = taxonomy.load("camvid"), CAMVID.classes[:11]
    assert scores(camvid, CITYSCAPES, *names) == {"miou": 1} | dict.fromkeys(names, 1)
    own = {"name": "ways", "classes": [{"name": "road"}, {"name": "pavement"}]}
    ways = taxonomy.from_description(own)
    assert scores(ways, CAMVID, "road") == {"miou": 0.5, "road": 1, "pavement": 0}
    assert scores(NINETEEN, CAMVID, "road").keys() == {"miou", *names}


def test_camvid_classes_keep_their_probabilities_in_a_grown_head(tmp_path):
    """Equal logits for car, truck, bus and train would make a car four times as likely, and each of
    the four unlikely."""
    torch.manual_seed(0)
    given = SegmentationNet(SegmenterConfig(classes=11, width=16)).eval()
    network = SegmentationNet(SegmenterConfig(width=16)).eval()
    x = torch.rand(1, 3, 32, 32)
    common = np.ones(19)
    common[CITYSCAPES.classes.index("car")] = 17
    for frequency, share in ((np.ones(19), 0.25), (common, 0.85)):
        segmenter.grow_head(network, given, tmp_path, frequency)
        with torch.no_grad():
            eleven, nineteen = given(x).softmax(1), network(x).softmax(1)
        for group, names in (
            ("car", ("car", "truck", "bus", "train")), ("sky", ("sky",)),
            ("bicyclist", ("rider", "bicycle", "motorcycle")),
        ):  # fmt: skip
            parts = nineteen[:, [CITYSCAPES.classes.index(name) for name in names]]
            whole = eleven[:, CAMVID.classes.index(group)]
            torch.testing.assert_close(parts.sum(1), whole)
            if group == "car":
                torch.testing.assert_close(parts[:, 0], share * whole)
    with pytest.raises(ModelError, match="another backbone"):
        segmenter.grow_head(SegmentationNet(SegmenterConfig(width=24)), given, tmp_path, common)


@needs_imagenet
def test_a_segmenter_trains_resumes_and_is_exported(tmp_path, capsys):
    data = write_camvid(tmp_path / "camvid")

    def run(steps, *more, out="run", to="out"):
        return train(
            "segmenter", "--data", data, "--out", tmp_path / out, "--batch", 2, "--crop", 64, 64,
            "--threads", 1, "--enlarge", 1, "--judged", 1, "--log-every", 1,
            "--export-dir", tmp_path / to, "--steps", steps, *more,
        )  # fmt: skip

    assert run(1) == 0
    said = capsys.readouterr().out
    assert "pictures with label maps: camvid 3\n" in said
    assert "class weights: road " in said
    assert "not learned" not in said  # each class is one of a group
    trained = load_segmenter(tmp_path / "run/segmenter.safetensors")
    assert trained.config.enlarge == 1
    before = trained.state_dict()
    assert run(2) == 0
    after = load_segmenter(tmp_path / "run/segmenter.safetensors").state_dict()
    assert any((before[k] != after[k]).any() for k in after if k.startswith("head"))
    lines = [json.loads(x) for x in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines] == [1, 1, 2, 2]
    assert run(3, "--heights", 240, 640) == 2
    assert "heights is [240, 640], but " in capsys.readouterr().err
    assert 0 <= lines[-1]["miou"] <= 1
    assert "road" in lines[-1]
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"segmenter.safetensors", "segmenter.onnx", "log.jsonl"}
    exported = tmp_path / "out/segmenter.safetensors"
    assert run(1, "--teacher", exported, out="again") == 2
    assert f"{exported}: would be replaced" in capsys.readouterr().err
    again = {"out": "again", "to": "out again"}
    assert run(1, "--init", exported, "--teacher", exported, exported, **again) == 0
    first = json.loads((tmp_path / "again/log.jsonl").read_text().splitlines()[0])
    assert first["teacher"] >= 0


@needs_imagenet
def test_classes_that_no_map_has_are_named(tmp_path, capsys):
    data = write_camvid(tmp_path / "camvid")
    for path in data.glob("*annot/*"):
        PIL.Image.fromarray(np.full((144, 192), 1, np.uint8)).save(path)
    given = SegmenterOptions(data=(str(data),), out=tmp_path / "out", steps=1, classes="camvid")
    segmenter.Segmenter(given, torch.device("cpu"))
    absent = [name for name in CAMVID.classes[:11] if name != "building"]
    assert f"no map has {', '.join(absent)}: not learned\n" in capsys.readouterr().out


def test_maps_without_a_known_pixel_are_refused(tmp_path, capsys):
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
        shape = (64, 64, 3) if part == "images" else (64, 64)
        PIL.Image.fromarray(np.full(shape, 255, np.uint8)).save(tmp_path / part / "a.png")
    given = SegmenterOptions(data=(str(tmp_path),), out=tmp_path / "out", steps=1, classes="camvid")
    with pytest.raises(InputError, match="no pixel of a map is of any class of camvid"):
        segmenter.Segmenter(given, torch.device("cpu"))
    assert "nothing is validated" in capsys.readouterr().out
    (tmp_path / "labels").rename(tmp_path / "other")
    with pytest.raises(InputError, match="no picture to learn from has a label map"):
        segmenter.Segmenter(given, torch.device("cpu"))
    assert f"pictures with label maps: {tmp_path.name} 0\n" in capsys.readouterr().out
    absent = tmp_path / "x.safetensors"
    for networks in ({"init": absent}, {"teacher": (absent,)}):  # before the pictures
        wrong = dataclasses.replace(given, data=("absent",), **networks)
        with pytest.raises(ModelError, match=r"x\.safetensors: cannot read"):
            segmenter.Segmenter(wrong, torch.device("cpu"))
