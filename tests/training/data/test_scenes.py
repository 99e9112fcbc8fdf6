from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sempic import coarse
from sempic.errors import InputError
from sempic.palette import CAMVID, CITYSCAPES
from sempic.training.data.readers import Dataset, open_dataset
from sempic.training.data.scenes import SceneFolder, instance_edges, resize_picture

RNG = np.random.default_rng(0)


def save(path: Path, array: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)
    return path


def picture(height: int = 48, width: int = 64) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def ids(*values: int, height: int = 48, width: int = 64) -> np.ndarray[Any, Any]:
    """A map whose columns go through `values`."""
    columns = np.asarray(values)[np.arange(width) * len(values) // width]
    return np.broadcast_to(columns, (height, width)).astype(np.uint8)


def make_cityscapes(root: Path, *, train_ids: bool = False) -> None:
    for city, name in (("ulm", "ulm_000000_000019"), ("jena", "jena_000001_000019")):
        truth = root / "gtFine/train" / city
        save(root / "leftImg8bit/train" / city / f"{name}_leftImg8bit.png", picture())
        save(truth / f"{name}_gtFine_labelIds.png", ids(0, 7, 33, 255))
        save(truth / f"{name}_gtFine_color.png", picture())
        save(truth / f"{name}_gtFine_instanceIds.png", ids(7, 26).astype(np.uint16) * 1000)
        if train_ids:
            save(truth / f"{name}_gtFine_labelTrainIds.png", ids(255, 0, 18, 255))


def make_camvid(root: Path) -> None:
    for name in ("a", "b"):
        save(root / "train" / f"{name}.png", picture())
        save(root / "trainannot" / f"{name}.png", ids(0, 10, 11, 3))


def make_ade20k(root: Path) -> None:
    save(root / "images/training/a.jpg", picture())
    save(root / "annotations/training/a.png", ids(0, 1, 150, 2))


def make_celeba(root: Path) -> None:
    save(root / "train/images/0.jpg", picture())
    save(root / "train/labels/0.png", ids(0, 18))


def make_coco(root: Path) -> None:
    save(root / "train_img/0.jpg", picture())
    save(root / "train_label/0.png", ids(0, 181, 255, 182))
    save(root / "train_inst/0.png", ids(1, 2))


def make_plain(root: Path) -> None:
    save(root / "images/deep/a.png", picture())
    save(root / "labels/deep/a.png", ids(0, 1, 2, 200))


def scenes(dataset: Dataset, size: int = 48, **options: Any) -> SceneFolder:
    return SceneFolder(dataset=dataset, image_size=size, **options)


@pytest.mark.parametrize(
    ("mode", "make", "classes", "columns", "has_edges"),
    [
        ("cityscapes", make_cityscapes, None, [19, 0, 18, 19], True),
        ("cityscapes", make_cityscapes, 35, [0, 7, 33, 34], True),
        ("cityscapes", make_cityscapes, 34, [0, 7, 33, 34], True),
        ("camvid", make_camvid, None, [0, 10, 11, 3], False),
        ("ade20k", make_ade20k, None, [150, 0, 149, 1], False),
        ("celeba", make_celeba, None, [0, 0, 18, 18], False),
        ("coco", make_coco, None, [0, 181, 182, 182], True),
        ("folder", make_plain, 3, [0, 1, 2, 3], False),
    ],
)
def test_every_layout_reads(tmp_path, mode, make, classes, columns, has_edges):
    make(tmp_path)
    dataset = open_dataset(mode, tmp_path, "train", num_classes=classes)
    if classes:
        assert dataset.num_classes == classes
    scene = scenes(dataset)[0]
    assert scene.image.shape == (48, 64, 3)
    assert scene.labels[7, 8::16].tolist() == columns
    assert scene.coarse.shape == (12, 16, 3)
    assert (scene.edges is not None) == has_edges
    if scene.edges is not None:
        assert scene.edges[5].nonzero()[0].tolist() == [31, 32]


def test_train_ids_files_are_preferred_if_complete(tmp_path):
    make_cityscapes(tmp_path, train_ids=True)
    dataset = open_dataset("cityscapes", tmp_path, "train")
    assert dataset.items[0].labels.stem.endswith("labelTrainIds")
    assert scenes(dataset)[0].labels[7, 8::16].tolist() == [19, 0, 18, 19]
    assert [e.name for e in dataset.items] == ["jena_000001_000019", "ulm_000000_000019"]


@pytest.mark.parametrize("ending", ["_trainIds", "_gtFine_trainIds"])
def test_train_ids_files_with_the_originals_names_are_found(tmp_path, ending):
    make_cityscapes(tmp_path)
    for path in list((tmp_path / "gtFine").rglob("*_labelIds.png")):
        name = path.stem.removesuffix("_gtFine_labelIds")
        path.unlink()
        save(path.with_name(f"{name}{ending}.png"), ids(18, 0, 255, 3))
    dataset = open_dataset("cityscapes", tmp_path, "train")
    assert scenes(dataset)[0].labels[7, 8::16].tolist() == [18, 0, 19, 3]


def test_image_path_replaces_the_pictures_of_cityscapes(tmp_path):
    make_cityscapes(tmp_path / "data")
    mine = picture()
    save(tmp_path / "mine/jena_000001_000019_leftImg8bit.png", mine)
    dataset = open_dataset("cityscapes", tmp_path / "data", "train", image_path=tmp_path / "mine")
    (entry,) = dataset.items
    assert entry.name == "jena_000001_000019"
    np.testing.assert_array_equal(scenes(dataset)[0].image, mine)
    assert scenes(dataset)[0].labels[7, 8::16].tolist() == [19, 0, 18, 19]


ULM = "ulm/ulm_000000_000019"


@pytest.mark.parametrize(
    ("mode", "make", "missing", "named"),
    [
        ("cityscapes", make_cityscapes, f"gtFine/train/{ULM}_gtFine_labelIds.png",
         "ulm_000000_000019_leftImg8bit.png.*ulm_000000_000019_gtFine_labelIds.png is missing"),
        ("cityscapes", make_cityscapes, f"leftImg8bit/train/{ULM}_leftImg8bit.png",
         "ulm_000000_000019_gtFine_labelIds.png: no picture"),
        ("camvid", make_camvid, "trainannot/b.png", "b.png: its label map b.png"),
        ("camvid", make_camvid, "train/b.png", "trainannot.b.png: no picture"),
        ("ade20k", make_ade20k, "images/training/a.jpg", "training: no pictures"),
    ],
)  # fmt: skip
def test_a_missing_file_of_a_pair_is_named(tmp_path, mode, make, missing, named):
    make(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(InputError, match=named):
        open_dataset(mode, tmp_path, "train")


def test_missing_folders_and_wrong_modes_are_named(tmp_path):
    make_camvid(tmp_path)
    with pytest.raises(InputError, match="val: no such folder"):
        open_dataset("camvid", tmp_path, "val")
    with pytest.raises(InputError, match="none of ade20k, camvid"):
        open_dataset("imagenet", tmp_path, "train")
    with pytest.raises(InputError, match=r"leftImg8bit.train: no such folder"):
        open_dataset("cityscapes", tmp_path, "train")
    with pytest.raises(InputError, match=r"\S+: its layout has 11 .*, not 12 \(--num_classes\)"):
        open_dataset("camvid", tmp_path, "train", num_classes=12)
    with pytest.raises(InputError, match=r"19 .*34 or 35"):
        open_dataset("cityscapes", tmp_path, "train", num_classes=20)


def test_links_are_followed_and_hidden_files_ignored(tmp_path):
    make_camvid(tmp_path / "real")
    for part in ("train", "trainannot"):
        (tmp_path / part).symlink_to(tmp_path / "real" / part)
        (tmp_path / "real" / part / "._a.png").write_bytes(b"of macOS")
    plain = open_dataset("camvid", tmp_path / "real", "train")
    linked = open_dataset("camvid", tmp_path, "train")
    assert [e.name for e in linked.items] == [e.name for e in plain.items]
    (tmp_path / "real/train/gone.png").symlink_to("nowhere.png")
    with pytest.raises(InputError, match=r"gone.png: a link"):
        open_dataset("camvid", tmp_path, "train")


def test_damaged_and_unfit_files_are_named(tmp_path):
    make_camvid(tmp_path)
    folder = scenes(open_dataset("camvid", tmp_path, "train"))
    save(tmp_path / "trainannot/a.png", ids(0, 1, width=60))
    with pytest.raises(InputError, match=r"trainannot.a.png is 60×48"):
        folder[0]
    save(tmp_path / "trainannot/a.png", picture())
    with pytest.raises(InputError, match=r"a.png: a label map is a grey or palette picture"):
        folder[0]
    (tmp_path / "train/a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"train.a.png: not a picture that can be read"):
        folder[0]
    assert folder[1].name == "b"


def test_predicted_maps_replace_human_maps(tmp_path):
    root, predicted = tmp_path / "data", tmp_path / "predicted"
    make_camvid(root)
    save(predicted / "a.png", CAMVID.table()[ids(3, 3, 11, 7, height=24, width=32)])
    save(predicted / "deep/b.png", ids(2, 200))
    dataset = open_dataset("camvid", root, "train", generated_semantic=predicted)
    folder = scenes(dataset)
    assert folder[0].labels[7, 8::16].tolist() == [3, 3, 11, 7]
    assert folder[0].labels.shape == (48, 64)
    assert folder[1].labels[7, 8::32].tolist() == [2, 11]
    save(predicted / "a.png", np.full((4, 4, 3), 77, np.uint8))
    with pytest.raises(InputError, match=r"a.png: \(77, 77, 77\) is not a colour of camvid"):
        folder[0]
    (predicted / "a.png").unlink()
    with pytest.raises(InputError, match=r"a.png: its predicted label map .*a.png is missing"):
        open_dataset("camvid", root, "train", generated_semantic=predicted)


def test_maps_are_turned_as_pictures(tmp_path):
    root, predicted, exif = tmp_path / "data", tmp_path / "predicted", Image.Exif()
    make_coco(root)
    exif[0x112] = 6
    for path in root.rglob("0.*"):
        Image.open(path).save(path, exif=exif)
    scene = scenes(open_dataset("coco", root, "train"))[0]
    assert scene.edges is not None
    assert scene.image.shape[:2] == scene.labels.shape == scene.edges.shape == (64, 48)
    assert scene.edges.all(1).nonzero()[0].tolist() == [31, 32]
    make_camvid(root)
    for name in ("a", "b"):
        colours = Image.fromarray(CAMVID.table()[ids(3, 11, height=64, width=48)])
        predicted.mkdir(exist_ok=True)
        colours.save(predicted / f"{name}.png", exif=exif)
    folder = scenes(open_dataset("camvid", root, "train", generated_semantic=predicted))
    assert folder[0].labels[12::24, 7].tolist() == [3, 11]


def test_predicted_cityscapes_maps_by_either_name(tmp_path):
    root, predicted = tmp_path / "data", tmp_path / "predicted"
    make_cityscapes(root)
    colours = CITYSCAPES.table()
    save(predicted / "ulm_000000_000019_leftImg8bit.png", colours[ids(5, 5)])
    save(predicted / "jena_000001_000019.png", colours[ids(6, 6)])
    dataset = open_dataset("cityscapes", root, "train", generated_semantic=predicted)
    assert [scenes(dataset)[i].labels[0, 0] for i in (0, 1)] == [6, 5]


@pytest.mark.parametrize("middle", ["", "_leftImg8bit", "_gtFine"])
def test_predicted_cityscapes_maps_by_the_originals_name(tmp_path, middle):
    """`*_color.png`, also beside other maps."""
    root, predicted = tmp_path / "data", tmp_path / "predicted"
    make_cityscapes(root)
    for name, number in (("ulm_000000_000019", 5), ("jena_000001_000019", 6)):
        colours = CITYSCAPES.table()[ids(number)]
        save(predicted / f"{name}{middle}_color.png", colours)
        save(predicted / f"{name}_gtFine_labelIds.png", ids(1))
    dataset = open_dataset("cityscapes", root, "train", generated_semantic=predicted)
    assert [scenes(dataset)[i].labels[0, 0] for i in (0, 1)] == [6, 5]


def test_predicted_maps_of_other_ids_are_refused(tmp_path):
    """LabelIds for 19 classes, and trainIds for 34."""
    root, predicted = tmp_path / "data", tmp_path / "predicted"
    make_cityscapes(root)
    names = "jena_000001_000019", "ulm_000000_000019"
    for name in names:
        save(predicted / f"{name}.png", ids(7, 11, 23, 255))
    ends = root, "train"
    given = {"generated_semantic": predicted}
    with pytest.raises(InputError, match=r"19\.png: the label map has id 23, which palette city"):
        scenes(open_dataset("cityscapes", *ends, **given))[0]
    whole = scenes(open_dataset("cityscapes", *ends, num_classes=34, **given))[0]
    assert whole.labels[7, 8::16].tolist() == [7, 11, 23, 34]
    for name in names:
        (predicted / f"{name}.png").unlink()
        save(predicted / f"{name}_gtFine_labelTrainIds.png", ids(0, 2, 10, 255))
    assert scenes(open_dataset("cityscapes", *ends, **given))[0].labels[0, -1] == 19
    with pytest.raises(InputError, match=r"trainIds, but 34 classes are labelIds"):
        scenes(open_dataset("cityscapes", *ends, num_classes=34, **given))[0]


def test_predicted_colours_may_be_opaque(tmp_path):
    """As in Cityscapes' own `*_gtFine_color.png`."""
    root, predicted = tmp_path / "data", tmp_path / "predicted"
    make_cityscapes(root)
    for name in ("jena_000001_000019", "ulm_000000_000019"):
        colours = Image.fromarray(CITYSCAPES.table()[ids(5, 8)]).convert("RGBA")
        save(predicted / f"{name}_gtFine_color.png", colours)
    dataset = open_dataset("cityscapes", root, "train", generated_semantic=predicted)
    assert scenes(dataset)[0].labels[7, 16::32].tolist() == [5, 8]


def test_coarse_path_replaces_the_coarse_pictures(tmp_path):
    root, ready = tmp_path / "data", tmp_path / "coarse"
    make_camvid(root)
    mine = picture(10, 14)
    save(ready / "a.png", mine)
    planes = coarse.from_rgb(picture(12, 16))
    (ready / "b.bpg").write_bytes(coarse.bpg.encode(planes, qp=30))
    folder = scenes(open_dataset("camvid", root, "train", coarse_path=ready))
    np.testing.assert_array_equal(folder[0].coarse, mine)
    assert folder[1].coarse.shape == (12, 16, 3)
    (ready / "b.bpg").write_bytes(b"BPG\xfb")
    with pytest.raises(InputError, match=r"b.bpg"):
        folder[1]
    (ready / "b.bpg").unlink()
    with pytest.raises(InputError, match=r"b.bpg: cannot read: No such file"):
        folder[1]
    with pytest.raises(InputError, match=r"b.png: its coarse picture"):
        open_dataset("camvid", root, "train", coarse_path=ready)


def test_coarse_pictures_are_coded_as_in_a_stream(tmp_path):
    make_camvid(tmp_path / "data")
    for chroma in ("420", "444"):
        scene = scenes(open_dataset("camvid", tmp_path / "data", "train"), chroma=chroma)[0]
        sent = coarse.encode(coarse.downscale(scene.image, 4), quality=35, chroma=chroma)
        assert scene.payload == sent
        np.testing.assert_array_equal(scene.coarse, coarse.to_rgb(coarse.decode(sent)))


def test_pictures_are_halved_then_resized_bicubically():
    image = Image.fromarray(picture(240, 400))
    step = image.resize((200, 120), Image.Resampling.BOX).resize((100, 60), Image.Resampling.BOX)
    expected = step.resize((50, 30), Image.Resampling.BOX)
    np.testing.assert_array_equal(resize_picture(image, 30), expected)
    expected = step.resize((83, 50), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(resize_picture(image, 50), expected)
    assert resize_picture(image, 480).size == (800, 480)


def test_instances_are_resized_as_labels_are(tmp_path):
    make_coco(tmp_path)
    striped = ids(*range(29), height=48)
    save(tmp_path / "train_label/0.png", striped)
    save(tmp_path / "train_inst/0.png", striped.astype(np.uint16) * 1000)
    scene = scenes(open_dataset("coco", tmp_path, "train"), 17)[0]
    assert scene.edges is not None
    np.testing.assert_array_equal(scene.edges, instance_edges(scene.labels))


def test_edges_lie_on_both_sides_of_a_border():
    square = np.zeros((5, 5), np.uint16)
    square[1:4, 1:4] = 26_001
    edges = instance_edges(square)
    assert edges.sum() == 8 + 12  # the inner ring of the square, and its 4-neighbours
    assert edges[2, 2] == 0
    assert edges[0, 0] == 0


def test_the_cityscapes_sample_reads(shared):
    dataset = open_dataset("cityscapes", shared / "data/cityscapes", "train")
    assert len(dataset.items) == 8
    scene = scenes(dataset, 256)[3]
    assert scene.image.shape == (256, 512, 3)
    assert scene.coarse.shape == (64, 128, 3)
    assert scene.labels.max() <= 19
    assert (scene.labels[-30] == 19).any()  # the ego vehicle is void
    assert scene.edges is not None
    assert 0.005 < scene.edges.mean() < 0.3
    full = open_dataset("cityscapes", shared / "data/cityscapes", "train", num_classes=35)
    assert {0, 1, 7} < set(np.unique(scenes(full, 256)[3].labels).tolist())


def test_camvid_reads(shared):
    dataset = open_dataset("camvid", shared / "data/camvid", "val")
    assert len(dataset.items) == 101
    scene = scenes(dataset, 256)[0]
    assert scene.image.shape == (256, 341, 3)
    assert scene.coarse.shape == (64, 86, 3)
    assert scene.labels.max() <= 11
    assert len(open_dataset("camvid", shared / "data/camvid", "train").items) == 367


def test_a_missing_split_is_not_replaced_by_another(tmp_path):
    save(tmp_path / "a/images/train/x.png", picture())
    save(tmp_path / "a/labels/train/x.png", ids(1))
    with pytest.raises(InputError, match="images/val: no such folder"):
        open_dataset("folder", tmp_path / "a", "val")
    make_plain(tmp_path / "b")
    with pytest.raises(InputError, match="images/test: no such folder"):
        open_dataset("folder", tmp_path / "b", "test")
