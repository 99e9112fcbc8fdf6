import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import street
from PIL import Image
from streets import write_camvid

from sempic import palette
from sempic.errors import InputError, SempicWarning
from sempic.evaluation.folders import spread
from sempic.training.data import readers, taxonomy
from sempic.training.data.readers import Item
from sempic.training.data.sources import DEFAULT_WEIGHT, WEIGHTS, Source, open_sources

NINETEEN, ELEVEN = taxonomy.load("cityscapes"), taxonomy.load("camvid")


def write(path, labels=None):
    """A street at `path`, and its label map at `labels`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image, map_ = street(32, 48)
    Image.fromarray(image).save(path)
    if labels is not None:
        labels.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(map_).save(labels)


def test_the_layout_of_camvid_reads(tmp_path):
    (source,) = open_sources([str(write_camvid(tmp_path / "camvid"))], ELEVEN)
    assert (source.name, source.weight) == ("camvid", WEIGHTS["camvid"])
    assert (len(source.train), len(source.val)) == (3, 2)
    known = source.train[1].opened(ELEVEN)[1]
    assert (known == street(144, 192, 1)[1]).all()


@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".gif", ".jp2"])
@pytest.mark.parametrize("labelled", [False, True])
def test_pictures_of_all_formats_that_encode_reads_are_found(tmp_path, suffix, labelled):
    labels = tmp_path / "toys/labels/a b.png" if labelled else None
    write(tmp_path / f"toys/images/a b{suffix}", labels)
    (source,) = open_sources([str(tmp_path / "toys")], ELEVEN)
    assert [item.opened(ELEVEN)[0].shape for item in source.train] == [(32, 48, 3)]


def test_the_layout_of_cityscapes_reads(tmp_path):
    for kind, end in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds")):
        path = tmp_path / f"city/{kind}/train/ulm/ulm_0_{end}.png"
        path.parent.mkdir(parents=True)
        pixels = np.full((16, 16, 3), 7, np.uint8)
        Image.fromarray(pixels if kind == "leftImg8bit" else pixels[..., 0]).save(path)
    (source,) = open_sources([f"{tmp_path / 'city'}=3"], NINETEEN)
    assert source.weight == 3
    assert (source.train[0].opened(NINETEEN)[1] == 0).all()  # labelId 7 is road


def test_a_new_layout_needs_a_reader_and_an_entry(tmp_path, monkeypatch):
    def night(folder, split, classes, image_path):
        read = readers.LAYOUTS["camvid"].read(folder.parent / "camvid", split, classes)
        return replace(read, items=read.items[:1])

    layout = readers.Layout(
        images="{split}-night",
        labels="{split}-maps",
        classes=(11,),
        reader=night,
    )
    monkeypatch.setitem(readers.LAYOUTS, "night", layout)
    write_camvid(tmp_path / "camvid")
    for name in ("train-night", "train-maps"):
        (tmp_path / "dark" / name).mkdir(parents=True)
    (source,) = open_sources([str(tmp_path / "dark")], ELEVEN)
    assert (source.name, len(source.train), len(source.val)) == ("dark", 1, 0)
    assert readers.open_dataset("night", tmp_path / "dark", "train").num_classes == 11


def test_a_layout_of_other_classes_needs_a_class_file(tmp_path):
    for folder, end in (("images", "jpg"), ("annotations", "png")):
        (tmp_path / folder / "training").mkdir(parents=True)
        shape = (16, 16, 3) if end == "jpg" else (16, 16)
        Image.fromarray(np.ones(shape, np.uint8)).save(tmp_path / folder / f"training/a.{end}")
    why = r"ade20k has 150 classes, cityscapes 19; .*--classes FILE \(126 at most: merge some"
    with pytest.raises(InputError, match=why):
        open_sources([str(tmp_path)], NINETEEN)


def test_as_many_classes_are_not_the_same_classes(tmp_path):
    write(tmp_path / "train/images/a.png", tmp_path / "train/labels/a.png")
    with pytest.raises(InputError, match=r"celeba has 19 classes, .* its own with --classes FILE$"):
        open_sources([str(tmp_path)], NINETEEN)
    faces = {"name": "faces", "classes": [{"name": f"p{n}", "colour": [n] * 3} for n in range(19)]}
    (source,) = open_sources([str(tmp_path)], taxonomy.from_description(faces))
    assert len(source.train) == 1


@pytest.mark.parametrize(("count", "accepted"), [(18, True), (19, True), (20, False), (25, False)])
def test_no_class_of_a_class_file_is_lost_to_a_layout_of_fewer(tmp_path, count, accepted):
    write(tmp_path / "train/images/a.png", tmp_path / "train/labels/a.png")
    classes = [{"name": f"p{n}", "colour": [n] * 3} for n in range(count)]
    parts = taxonomy.from_description({"name": f"parts{count}", "classes": classes})
    if accepted:
        assert open_sources([str(tmp_path)], parts)
        return
    why = f"celeba has 19 classes, parts{count} {count}; put other data .* folders images and label"
    with pytest.raises(InputError, match=why):
        open_sources([str(tmp_path)], parts)


def test_a_teachers_maps_beside_the_pictures_are_no_pictures(tmp_path):
    write(tmp_path / "own/a.png", tmp_path / "own/cityscapes/a.png")
    (source,) = open_sources([str(tmp_path / "own")], NINETEEN)
    (item,) = source.train
    assert (item.image, item.teacher) == (tmp_path / "own/a.png", tmp_path / "own/cityscapes/a.png")


def test_two_pictures_may_not_share_a_teachers_map(tmp_path):
    for split in ("train", "val"):
        write(tmp_path / f"images/{split}/a.png", tmp_path / f"labels/{split}/a.png")
    write(tmp_path / "x.png", tmp_path / "cityscapes/a.png")
    why = r"cityscapes/a.png: of .*images/train/a.png or of .*images/val/a.png\? Rename them"
    with pytest.raises(InputError, match=why):
        open_sources([str(tmp_path)], NINETEEN)


def test_a_teachers_map_adds_hidden_people(tmp_path):
    folder = tmp_path / "labelmefacade"  # CamVid's ids; people are unlabelled
    write(folder / "images/a.png", folder / "labels/a.png")
    (folder / "cityscapes").mkdir()
    person = NINETEEN.ids(["person"])[0]
    Image.fromarray(np.full((16, 24), person, np.uint8)).save(folder / "cityscapes/a.png")
    (source,) = open_sources([str(folder)], NINETEEN)
    assert (source.train[0].opened(NINETEEN)[1] == person).all()
    assert source.train[0].hidden


def test_an_index_splits_pictures_into_sources_and_splits(tmp_path, capsys):
    folder = tmp_path / "roads"
    index = {}
    for name, split in (("idd-1", "train"), ("idd-2", "val"), ("nuscenes-1", "val"),
                        ("aerial-1", "train"), ("oslo-1", "train")):  # fmt: skip
        write(folder / f"images/{name}.png")
        index[name] = {"split": split}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "cityscapes").mkdir()
    Image.fromarray(np.zeros((16, 24), np.uint8)).save(folder / "cityscapes/idd-1.png")
    (folder / "images/._idd-1.png").write_bytes(b"what macOS leaves beside a picture")
    found = {s.name: s for s in open_sources([str(folder)], NINETEEN)}
    assert set(found) == {"idd", "oslo"}  # aerial pictures are left out; nuscenes is for validation
    assert f"aerial is left out by default: give {folder}=WEIGHT" in capsys.readouterr().out
    assert found["oslo"].weight == DEFAULT_WEIGHT
    (first,), (val,) = found["idd"].train, found["idd"].val
    assert (first.opened(NINETEEN)[1] == 0).all()
    assert val.opened(NINETEEN)[1] is None


def test_only_an_index_holds_pictures_back_by_their_names(tmp_path):
    for number in (1, 2):
        write(tmp_path / f"drives/nuscenes-{number}.png")
    (source,) = open_sources([str(tmp_path / "drives")], NINETEEN)
    assert len(source.train) == 2


def test_a_folder_may_have_an_equals_sign_in_its_name(tmp_path):
    write(tmp_path / "gain=2/a.png")
    specs = [str(tmp_path / "gain=2")], [f"{tmp_path}/gain=2=3"]
    found = [open_sources(spec, NINETEEN)[0] for spec in specs]
    assert [(source.name, source.weight) for source in found] == [("gain=2", 10), ("gain=2", 3)]


def test_pictures_are_read_as_the_encoder_reads_them(tmp_path):
    grey = street(32, 48)[0][..., 1]
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(np.dstack([grey] * 3 + [np.zeros_like(grey)])).save(tmp_path / "empty.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(grey).save(tmp_path / "turned.png", exif=turned)
    with pytest.warns(SempicWarning, match="transparency"):
        deep, empty, upright = (
            item.opened(NINETEEN)[0] for item in open_sources([str(tmp_path)], NINETEEN)[0].train
        )
    assert (deep == grey[..., None]).all()
    assert (empty == 255).all()
    assert (upright == np.rot90(grey, -1)[..., None]).all()


def test_a_teachers_map_in_colours_is_refused(tmp_path):
    write(tmp_path / "images/a.png")
    (tmp_path / "cityscapes").mkdir()
    Image.fromarray(street(16, 24)[0]).save(tmp_path / "cityscapes/a.png")
    (item,) = open_sources([str(tmp_path)], NINETEEN)[0].train
    with pytest.raises(InputError, match=r"cityscapes/a\.png: a label map is a grey"):
        item.opened(NINETEEN)


def test_maps_of_no_class_that_is_learnt_are_refused(tmp_path, monkeypatch):
    """They would all be void."""
    monkeypatch.setattr(palette, "PALETTES", dict(palette.PALETTES))
    monkeypatch.setattr(palette, "BY_NAME", dict(palette.BY_NAME))
    described = {"name": "toys", "classes": [{"name": "ball"}]}
    toys = taxonomy.from_description(described)
    with pytest.raises(InputError, match="its maps have classes of camvid, none of toys"):
        open_sources([str(write_camvid(tmp_path / "camvid"))], toys)
    write(tmp_path / "labelmefacade/images/x.png", tmp_path / "labelmefacade/labels/x.png")
    for classes, known in ((NINETEEN, "camvid"), (toys, "toys")):
        (source,) = open_sources([str(tmp_path / "labelmefacade")], classes)
        assert source.train[0].palette.name == known


def test_unusable_sources_are_named(tmp_path):
    def refused(*specs):
        with pytest.raises(InputError) as error:
            open_sources(specs, NINETEEN)
        return str(error.value)

    assert "no such folder" in refused(str(tmp_path / "no"))
    assert "'much' is no number" in refused(f"{tmp_path}=much")
    assert f"{tmp_path}: no pictures" in refused(str(tmp_path))
    write(tmp_path / "d/x.png")
    assert "no pictures to learn from" in refused(f"{tmp_path / 'd'}=0")
    write(tmp_path / "a/images/x.png", tmp_path / "a/labels/y.png")
    assert "y.png" in refused(str(tmp_path / "a"))
    write(tmp_path / "b/images/x.png", tmp_path / "b/labels/x.png")
    (tmp_path / "c").mkdir()
    write(tmp_path / "c/b/images/x.png")
    assert "two sources are called b" in refused(str(tmp_path / "b"), str(tmp_path / "c/b"))
    (item,) = open_sources([str(tmp_path / "b")], NINETEEN)[0].train
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "b/images/x.png")
    with pytest.raises(InputError, match=r"x\.png is 48×32, but .* is 9×9"):
        item.opened(NINETEEN)
    (tmp_path / "c/b/images/x.png").write_bytes(b"no picture")
    (item,) = open_sources([str(tmp_path / "c/b")], NINETEEN)[0].train
    with pytest.raises(InputError, match=r"x.png: not a picture"):
        item.opened(NINETEEN)


@pytest.mark.parametrize(
    ("index", "why"),
    [
        ('{"a": {"split": "test"}}', "the split 'test' of a is neither train nor val"),
        ('["a"]', "cannot be read"),
        ('{"a": "train"}', "cannot be read"),
        ("{", "cannot be read"),
        ("[" * 3000, "cannot be read"),
    ],
)
def test_a_damaged_index_is_named(tmp_path, index, why):
    write(tmp_path / "images/a.png")
    (tmp_path / "index.json").write_text(index)
    with pytest.raises(InputError, match=rf"index.json: {why}"):
        open_sources([str(tmp_path)], NINETEEN)


@pytest.mark.parametrize(("count", "found"), [(0, 10), (1, 1), (3, 3), (7, 7), (10, 10), (99, 10)])
def test_spread_picks_as_many_as_asked_for(count, found):
    chosen = spread(range(10), count)
    assert len(set(chosen)) == len(chosen) == found
    assert chosen[0] == 0


def test_validation_has_the_pictures_of_val_or_some_that_are_held_out():
    def source(train, val=0):
        items = [Item(name=f"{n}", image=Path(f"{n}.png")) for n in range(train + val)]
        return Source(name="x", weight=1, train=tuple(items[:train]), val=tuple(items[train:]))

    def counts(source, **how):
        train, val = source.divided(**how)
        return len(train), len(val)

    assert counts(source(100, 30)) == (100, 24)
    assert counts(source(100, 30), limit=10, judged=0, one_in=10) == (10, 30)
    assert counts(source(100)) == (100, 0)
    assert counts(source(100), one_in=10) == (90, 10)
    assert counts(source(100), one_in=10, limit=5) == (4, 1)
    assert counts(source(1000), one_in=10) == (976, 24)
    assert [counts(source(n), one_in=40, least=5) for n in (4, 5)] == [(4, 0), (4, 1)]
    assert counts(source(1), one_in=10) == (1, 0)
    train, val = source(30).divided(one_in=10)
    assert [item.name for item in val] == ["0", "10", "20"]
    assert not set(train) & set(val)
