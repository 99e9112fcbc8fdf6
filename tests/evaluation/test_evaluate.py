"""`sempic evaluate`: the figures of a folder of results."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from conftest import FakeSegmenter, street

import sempic
from sempic import cli, palette, pictures, segment
from sempic.evaluation import evaluate as evaluation
from sempic.evaluation import metrics, networks
from sempic.evaluation.human_maps import read_map
from sempic.evaluation.measure import Measure, Settings
from sempic.evaluation.measures import METRICS
from sempic.palette import CAMVID, CITYSCAPES, CITYSCAPES_FULL

SIZE = (48, 64)
PIXELS = SIZE[0] * SIZE[1]


def write_stream(path, labels, palette=1):
    path.write_bytes(sempic.pack(width=SIZE[1], height=SIZE[0], labels=labels, palette=palette))


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(segment, "load", lambda spec, **_: FakeSegmenter())
    monkeypatch.chdir(tmp_path)
    for kind in ("images", "labels", "samples", "sempic"):
        (tmp_path / kind).mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        picture, labels = street(*SIZE, seed=i)
        noisy = np.clip(picture + rng.normal(0, 9, picture.shape), 0, 255).astype(np.uint8)
        PIL.Image.fromarray(picture).save(f"images/{i}.png")
        PIL.Image.fromarray(labels).save(f"labels/{i}.png")
        PIL.Image.fromarray(noisy).save(f"samples/{i}.png")
        write_stream(tmp_path / f"sempic/{i}.sempic", labels)
    return tmp_path


def evaluate(capsys, *arguments):
    code = cli.main(["evaluate", ".", "--metrics", "miou,psnr", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def refusal(capsys, *arguments):
    """The error of an evaluation that fails and prints nothing else."""
    code, out, err = evaluate(capsys, *arguments)
    assert (code, out) == (2, "")
    return err


def figures(capsys, *arguments):
    """The JSON of an evaluation that succeeds."""
    code, out, err = evaluate(capsys, "--json", *arguments)
    assert code == 0, err
    return json.loads(out)


def test_figures_are_means_over_the_pictures(results, capsys):
    found = figures(capsys)
    samples = found["samples"]
    sizes = [p.stat().st_size for p in (results / "sempic").iterdir()]
    assert samples["bpp"] == pytest.approx(8 * np.mean(sizes) / PIXELS)
    assert samples["agreement"] == 1  # the stand-in predicts the same map for every picture
    assert samples["miou"] == found["originals"]["miou"]
    assert samples["miou_ci"][0] <= samples["miou"] <= samples["miou_ci"][1]
    assert [p["name"] for p in found["pictures"]] == ["0", "1", "2"]
    assert np.mean([p["psnr"] for p in found["pictures"]]) == pytest.approx(samples["psnr"])
    truth = np.stack([np.array(PIL.Image.open(f"labels/{i}.png")) for i in range(3)])
    guess = np.zeros_like(truth)
    guess[:, SIZE[0] // 2 :] = 3
    road = ((truth == 3) & (guess == 3)).sum() / ((truth == 3) | (guess == 3)).sum()
    assert samples["iou"][3] == pytest.approx(road)
    assert samples["pixel_accuracy"] == pytest.approx((truth == guess).mean())


def test_subfolders_are_evaluated_as_well(results, capsys):
    """`sempic sample` writes subfolders for nested data, where names repeat."""
    flat = figures(capsys)
    for kind in ("images", "labels", "samples", "sempic"):
        for index, name in enumerate(("bonn/1", "bonn/2", "ulm/1")):
            (old,) = (results / kind).glob(f"{index}.*")
            new = results / kind / f"{name}{old.suffix}"
            new.parent.mkdir(exist_ok=True)
            old.rename(new)
    nested = figures(capsys)
    assert [p.pop("name") for p in nested["pictures"]] == ["bonn/1", "bonn/2", "ulm/1"]
    assert [p.pop("name") for p in flat["pictures"]] == ["0", "1", "2"]
    assert nested == flat


def test_files_of_one_name_in_different_subfolders_are_kept_apart(results, capsys):
    for kind in ("images", "labels", "samples", "sempic"):
        (old,) = (results / kind).glob("1.*")
        (results / kind / "bonn").mkdir()
        old.rename(results / kind / f"bonn/0{old.suffix}")
    write_stream(results / "sempic/bonn/0.sempic", np.zeros(SIZE, np.uint8))  # of another size
    for picture in figures(capsys)["pictures"]:
        size = Path(f"sempic/{picture['name']}.sempic").stat().st_size
        assert picture["bpp"] == pytest.approx(8 * size / PIXELS)
    Path("sempic/0.sempic").unlink()
    assert refusal(capsys) == "sempic: .: no 0.sempic, but other .sempic files\n"


def test_an_infinite_psnr_has_no_mean_and_is_reported(results, capsys):
    (results / "samples/1.png").write_bytes((results / "images/1.png").read_bytes())
    code, out, err = evaluate(capsys)
    assert code == 0
    assert "PSNR" not in out
    assert "sempic: no PSNR, dB: 1 of 3 samples have none, as they are the same as" in err


def test_the_text_output_has_every_figure(results, capsys):
    code, out, _ = evaluate(capsys)
    assert code == 0
    assert out.startswith("3 pictures\n")
    for word in ("bpp", "mIoU", "originals", "agreement", "PSNR", "IoU road", "judge"):
        assert word in out


def test_spaces_between_metrics_are_no_part_of_their_names(results, capsys):
    assert cli.main(["evaluate", ".", "--metrics", "psnr, miou,psnr"]) == 0
    assert capsys.readouterr().out.count("PSNR") == 1


def test_a_picture_that_is_all_void_has_no_miou(results, capsys):
    PIL.Image.fromarray(np.full(SIZE, 255, np.uint8)).save("labels/1.png")
    code, out, _ = evaluate(capsys, "--json")
    assert code == 0
    pictures = json.loads(out, parse_constant=pytest.fail)["pictures"]  # NaN is not JSON
    assert ["miou" in picture for picture in pictures] == [True, False, True]


@pytest.mark.parametrize("more", [(), ("--predictions", "labels")])
def test_maps_that_are_all_void_are_said_to_give_no_miou(results, capsys, more):
    for i in range(3):
        PIL.Image.fromarray(np.full(SIZE, 255, np.uint8)).save(f"labels/{i}.png")
    code, out, err = evaluate(capsys, *more)
    assert (code, err) == (0, "sempic: no mIoU: the human maps are all void\n")
    assert "mIoU" not in out


@pytest.mark.parametrize("predicted", [False, True])
def test_ids_that_the_palette_lacks_are_refused(results, capsys, predicted):
    wrong = results / f"{'predictions' if predicted else 'labels'}/1.png"
    (results / "predictions").mkdir()
    for path in (results / "labels").iterdir():
        (results / "predictions" / path.name).write_bytes(path.read_bytes())
    arguments = ["--predictions", "predictions"] * predicted
    assert evaluate(capsys, *arguments)[0] == 0
    PIL.Image.fromarray(np.full(SIZE, 26, np.uint8)).save(wrong)
    assert f"{wrong.name}: the label map has id 26, which palette camvid lacks" in refusal(
        capsys, *arguments
    )


def test_bpg_and_flif_count_together(results, capsys):
    for path in (results / "sempic").iterdir():
        path.unlink()
    for i in range(3):
        (results / f"{i}.bpg").write_bytes(bytes(500))
        (results / f"labels/{i}.flif").write_bytes(bytes(1000))
    assert figures(capsys)["samples"]["bpp"] == pytest.approx(8 * 1500 / PIXELS)
    (results / "labels/1.flif").unlink()
    assert "1.flif" in refusal(capsys).strip().splitlines()[-1]


def test_without_labels_and_streams_there_is_no_miou_and_no_bpp(results, capsys):
    for kind in ("labels", "sempic"):
        for path in (results / kind).iterdir():
            path.unlink()
        (results / kind).rmdir()
    found = figures(capsys)["samples"]
    assert "miou" not in found
    assert "bpp" not in found
    assert found["agreement"] == 1


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("images/1.png", "no picture 1"),
        ("labels/1.png", "no label map 1"),
        ("sempic/1.sempic", "no 1.sempic"),
    ],
)
def test_a_missing_file_is_named(results, capsys, broken, message):
    (results / broken).unlink()
    assert message in refusal(capsys)


def test_originals_without_a_sample_are_reported(results, capsys):
    """A codec that fails on the hard pictures would look better than it is."""
    assert figures(capsys)["notes"] == []
    (results / "samples/1.png").unlink()
    found = figures(capsys)
    assert [p["name"] for p in found["pictures"]] == ["0", "2"]
    assert found["notes"] == ["1 of 3 originals have no sample and are left out"]


def test_a_damaged_stream_is_named(results, capsys):
    stream = results / "sempic/1.sempic"
    stream.write_bytes(stream.read_bytes()[:-5])
    assert "1.sempic: " in refusal(capsys)


@pytest.mark.parametrize("kind", ["images", "labels", "samples"])
def test_two_pictures_of_one_name_are_refused(results, capsys, kind):
    PIL.Image.open(f"{kind}/1.png").save(f"{kind}/1.bmp")
    err = refusal(capsys)
    assert "1.png and" in err
    assert "1.bmp have the same name" in err


def test_a_picture_with_two_streams_is_refused(results, capsys):
    (results / "old").mkdir()
    (results / "sempic/1.sempic").rename("old/1.sempic")
    assert evaluate(capsys)[0] == 0
    (results / "sempic/1.sempic").write_bytes((results / "old/1.sempic").read_bytes())
    assert refusal(capsys) == "sempic: sempic/1.sempic and old/1.sempic are both of the picture 1\n"


@pytest.mark.parametrize("name", ["images/9.png", "labels/9.png", "samples/9.png", "s/1.sempic"])
def test_a_dead_link_is_refused(results, capsys, name):
    (results / "s").mkdir()
    (results / name).symlink_to("nowhere")
    assert refusal(capsys) == f"sempic: {name}: a link that leads to no file\n"
    (results / name).rename("other.txt")
    assert evaluate(capsys)[0] == 0


def test_wrong_sizes_pictures_and_options_are_named(results, capsys):
    PIL.Image.new("RGB", (20, 20)).save("samples/2.png")
    code, _, err = evaluate(capsys)
    assert code == 2
    assert "2.png" in err
    assert "20×20" in err
    assert "64×48" in err
    (results / "samples/2.png").write_bytes(b"no picture")
    assert "2.png" in evaluate(capsys)[2]
    assert "palette 'moon' is not one of" in evaluate(capsys, "--palette", "moon")[2]
    assert "not one of" in evaluate(capsys, "--metrics", "beauty")[2]


def as_the_original_writes(labels):
    """A label map as image_sample.py saves it: grey of id / 35; 255 is void."""
    level = np.floor(np.clip(labels / np.float32(35), 0, 1) * 255 + 0.5).astype(np.uint8)
    return PIL.Image.fromarray(np.repeat(level[..., None], 3, -1))


@pytest.fixture
def cityscapes(results):
    """A Result folder of the authors' code: grey maps of trainIds, .bpg and .flif, no .sempic."""
    for path in (results / "sempic").iterdir():
        path.unlink()
    (results / "compressed").mkdir()
    (results / "sem_generated").mkdir()
    rng = np.random.default_rng(1)
    truth, guess = [], []
    for i in range(3):
        truth.append(rng.choice([*range(19), 255], SIZE).astype(np.uint8))
        guess.append(np.where(rng.random(SIZE) < 0.5, truth[-1], 13).astype(np.uint8) % 19)
        as_the_original_writes(truth[-1]).save(f"labels/{i}.png")
        PIL.Image.fromarray(CITYSCAPES.paint(guess[-1])).save(f"sem_generated/{i}.png")
        (results / f"compressed/{i}.bpg").write_bytes(bytes(500))
        (results / f"labels/{i}.flif").write_bytes(bytes(1000))
    return results, np.stack(truth), np.stack(guess)


def expected_miou(truth, guess):
    known = truth < 19
    scores = [
        ((truth == c) & (guess == c)).sum() / (((truth == c) | (guess == c)) & known).sum()
        for c in range(19)
    ]
    return np.mean(scores)


def test_a_judge_of_other_classes_gives_no_miou_and_a_warning(cityscapes, capsys):
    code, out, err = evaluate(capsys, "--json")
    assert code == 0
    found = json.loads(out)["samples"]
    assert found["bpp"] == pytest.approx(8 * 1500 / PIXELS)
    assert {"psnr", "agreement"} <= found.keys()
    assert "miou" not in found
    assert "palette cityscapes, the judge knows camvid" in err.replace("\n", " ")


def test_predictions_replace_the_judge(cityscapes, capsys):
    results, truth, guess = cityscapes
    found = figures(capsys, "--predictions", "sem_generated")
    assert found["samples"]["miou"] == pytest.approx(expected_miou(truth, guess))
    assert "agreement" not in found["samples"]
    assert found["judge"] == "sem_generated"
    assert "IoU terrain" in evaluate(capsys, "--predictions", "sem_generated")[1]
    for i in range(3):  # maps of ids and of another size
        path = results / f"sem_generated/{i}.png"
        path.unlink()
        PIL.Image.fromarray(guess[i]).resize((128, 96), 0).save(path.with_stem(f"{i}_color"))
    again = figures(capsys, "--predictions", "sem_generated")
    assert again["samples"]["miou"] == found["samples"]["miou"]
    for i in range(3):
        (results / f"sem_generated/{i}_color.png").rename(f"sem_generated/{i}_trainIds.png")
    assert figures(capsys, "--predictions", "sem_generated") == again
    (results / "sem_generated/1_trainIds.png").unlink()
    assert "no prediction 1" in evaluate(capsys, "--predictions", "sem_generated")[2]
    PIL.Image.new("RGB", (64, 48), (1, 2, 3)).save("sem_generated/1.png")
    assert "1.png: (1, 2, 3) is not a colour of cityscapes" in refusal(
        capsys, "--predictions", "sem_generated"
    )


def test_label_ids_are_judged_as_train_ids(cityscapes, capsys):
    _, truth, guess = cityscapes
    table = np.zeros(256, np.uint8)
    table[:19] = [CITYSCAPES_FULL.classes.index(name) for name in CITYSCAPES.classes[:19]]
    for i in range(3):
        as_the_original_writes(table[truth[i]]).save(f"labels/{i}.png")
    arguments = ("--predictions", "sem_generated")
    assert figures(capsys, *arguments, "--palette", "cityscapes-labelids") == (
        found := figures(capsys, *arguments)
    )
    assert found["samples"]["miou"] == pytest.approx(expected_miou(truth, guess))
    for i in range(3):  # predictions in the colours of label ids, also with them as indices
        map_ = pictures.encode_labels(table[guess[i]], CITYSCAPES_FULL, ".png")
        (cityscapes[0] / f"sem_generated/{i}.png").write_bytes(map_)
    assert figures(capsys, *arguments) == found
    painted = CITYSCAPES_FULL.paint(table[guess[0]])
    painted[table[truth[0]] == 0] = CITYSCAPES_FULL.colours[6]  # not a colour of train ids
    PIL.Image.fromarray(painted).save("sem_generated/0.png")
    assert figures(capsys, *arguments) == found


def test_a_rate_without_labels_is_reported(cityscapes, capsys):
    for i in range(3):
        (cityscapes[0] / f"labels/{i}.flif").unlink()
    code, out, err = evaluate(capsys, "--json")
    assert code == 0
    assert json.loads(out)["samples"]["bpp"] == pytest.approx(8 * 500 / PIXELS)
    assert "bpp is that of the coarse pictures alone" in err


def test_ids_without_a_palette_are_evaluated(results, monkeypatch, capsys):
    """Void is 255, or every id from --num_classes on."""
    judge = FakeSegmenter()
    judge.palette = 0
    monkeypatch.setattr(segment, "load", lambda spec, **_: judge)
    truth = []
    for i in range(3):
        labels = np.array(PIL.Image.open(f"labels/{i}.png"))
        labels = np.where(labels == 8, 5, np.where(labels == 3, 3, 0)).astype(np.uint8)
        truth.append(labels)
        PIL.Image.fromarray(labels).save(f"labels/{i}.png")
        write_stream(results / f"sempic/{i}.sempic", labels, palette=0)
    truth = np.stack(truth)
    guess = np.zeros_like(truth)
    guess[:, SIZE[0] // 2 :] = 3

    def iou(number, known):
        there, here = (truth == number) & known, (guess == number) & known
        return (there & here).sum() / (there | here).sum()

    for arguments, known, classes in (
        ((), truth < 255, (0, 3, 5)),
        (("--num_classes", "5"), truth < 5, (0, 3)),
    ):
        expected = np.mean([iou(number, known) for number in classes])
        assert figures(capsys, *arguments)["samples"]["miou"] == pytest.approx(expected)
    for path in (results / "sempic").iterdir():
        path.unlink()
    assert figures(capsys, "--num_classes", "5")["samples"]["miou"] == pytest.approx(expected)
    lines = evaluate(capsys)[1].splitlines()
    assert all(line.strip() for line in lines)
    assert [line.split()[1] for line in lines if "IoU " in line and "mIoU" not in line] == [
        "0", "3", "5",
    ]  # fmt: skip
    out = evaluate(capsys, "--num_classes", "11")[1]  # as many as CamVid has
    assert "IoU 3 " in out
    assert "IoU road" not in out


def test_maps_of_a_custom_palette_need_its_file(results, capsys):
    """Here their ids are those of CamVid's first three classes; all else is void."""
    classes = [{"name": name} for name in ("above", "between", "below")]
    Path("own.json").write_text(json.dumps({"name": "evaluated", "classes": classes}))
    found = palette.find("own.json")
    truth = np.stack([np.array(PIL.Image.open(f"labels/{i}.png")) for i in range(3)])
    truth = np.where(truth < 3, truth, 255).astype(np.uint8)
    guess = np.roll(truth, 5, 1)
    (results / "guess").mkdir()
    for i in range(3):
        PIL.Image.fromarray(truth[i]).save(f"labels/{i}.png")
        PIL.Image.fromarray(guess[i]).save(f"guess/{i}.png")
        write_stream(results / f"sempic/{i}.sempic", found.settle(truth[i]), palette=found.id)
    predicted = ("--predictions", "guess", "--metrics", "miou")
    matrix = metrics.confusion(truth, guess, 3)
    row = figures(capsys, *predicted, "--palette", "own.json")["samples"]
    assert row["miou"] == pytest.approx(metrics.miou(matrix))
    assert row["classes"] == ["above", "between", "below"]
    del palette.PALETTES[found.id], palette.BY_NAME[found.name]  # as in another process
    assert (
        "0.png: the palette of its ids is unknown: name it with --palette"
        in (evaluate(capsys, *predicted)[2])
    )


def test_a_judge_of_a_custom_palette_knows_that_of_its_file(results, monkeypatch, capsys):
    classes = [{"name": f"class {number}"} for number in range(12)]
    Path("own.json").write_text(json.dumps({"name": "twelve", "classes": classes}))
    judge = FakeSegmenter()
    judge.palette = palette.find("own.json").id
    monkeypatch.setattr(segment, "load", lambda spec, **_: judge)
    code, out, err = evaluate(capsys, "--palette", "own.json")
    assert (code, err) == (0, "")
    assert "IoU class 3" in out


def test_maps_in_the_colours_of_a_palette_have_that_palette(results, capsys):
    """As `sempic sample` writes them; streams may have another palette."""
    for i in range(3):
        labels = np.array(PIL.Image.open(f"labels/{i}.png"))
        write_stream(results / f"sempic/{i}.sempic", labels, palette=2)
        data = pictures.encode_labels(labels, CAMVID, ".png")
        (results / f"labels/{i}.png").write_bytes(data)
    _, _, err = evaluate(capsys, "--palette", "cityscapes")
    assert "palette cityscapes, the judge knows camvid" in err
    assert "miou" in figures(capsys)["samples"]
    colours = [CITYSCAPES.colours[i] for i in (0, 13, 19)]  # another order, as optimisers make
    sorted_map = PIL.Image.fromarray(np.arange(3, dtype=np.uint8)[None])
    sorted_map.putpalette(np.array(colours, np.uint8).tobytes())
    sorted_map.save("sorted.png")
    assert read_map(Path("sorted.png"), CITYSCAPES).tolist() == [[0, 13, 19]]


@pytest.mark.parametrize("mode", ["P", "RGB", "RGBA", "grey"])
def test_maps_of_all_modes_are_turned_as_pictures(tmp_path, mode):
    ids = np.array([[0, 3, 9], [10, 3, 0]], np.uint8)
    original = np.repeat(np.rint(ids * (255 / 35)).astype(np.uint8)[..., None], 3, 2)
    colours = original if mode == "grey" else CAMVID.paint(ids)
    shown = PIL.Image.fromarray(colours).convert("RGBA" if mode == "RGBA" else "RGB")
    if mode == "P":
        shown = PIL.Image.fromarray(ids)
        shown.putpalette(CAMVID.table().tobytes())
    exif = PIL.Image.Exif()
    exif[0x112] = 6
    shown.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_map(tmp_path / "turned.png", CAMVID), np.rot90(ids, -1))


def test_rgb_maps_in_the_colours_of_a_palette_have_that_palette(results, capsys):
    ids = figures(capsys)["samples"]["miou"]
    for i in range(3):
        labels = np.array(PIL.Image.open(f"labels/{i}.png"))
        write_stream(results / f"sempic/{i}.sempic", labels, palette=2)
        PIL.Image.fromarray(CAMVID.paint(labels)).save(f"labels/{i}.png")
    assert figures(capsys)["samples"]["miou"] == ids
    for i in range(3):
        PIL.Image.fromarray(CITYSCAPES.paint(labels)).save(f"labels/{i}.png")
    assert "palette cityscapes, the judge knows camvid" in evaluate(capsys)[2]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--predictions labels", "--predictions is for mIoU, and miou is not among the metrics"),
        ("--num_classes 5", "--num_classes is for mIoU, and miou is not among the metrics"),
        ("--palette camvid", "--palette is for human maps, and no metric compares with them"),
    ],
)
def test_options_of_miou_without_it_are_refused(results, capsys, words, why):
    assert refusal(capsys, "--metrics", "psnr", *words.split()) == f"sempic: {why}\n"


def test_metrics_that_predictions_replace_are_named(results, capsys):
    words = ("--metrics", "miou,objects", "--predictions", "labels")
    noted = "sempic: no objects: it needs a judge, which --predictions replace\n"
    assert evaluate(capsys, *words)[::2] == (0, noted)


def test_confirmed_objects_need_no_miou(results, capsys):
    assert cli.main(["evaluate", ".", "--metrics", "confirmed", "--json"]) == 0
    assert "confirmed" in json.loads(capsys.readouterr().out)["samples"]


@pytest.mark.parametrize("metric", ["fid", "patch_fid"])
def test_a_figure_that_needs_several_pictures_says_so(results, monkeypatch, capsys, metric):
    monkeypatch.setattr(METRICS[metric], "networks", lambda *_: [])
    monkeypatch.setattr(METRICS[metric], "measure", lambda *_: {metric: np.ones(1)})
    monkeypatch.setattr(Measure, "show", lambda *_: None)
    for i in (1, 2):
        (results / f"samples/{i}.png").unlink()
    assert cli.main(["evaluate", ".", "--metrics", metric]) == 0
    what = {"fid": "FID and KID of fewer than two pictures"}
    what["patch_fid"] = "patch FID of fewer than two windows of 64×64 pixels"
    assert capsys.readouterr().err.endswith(f"sempic: no {what[metric]}\n")


def test_a_judge_beside_predictions_is_refused(results, capsys):
    assert (
        refusal(capsys, "--predictions", "labels", "--judge", "judge.onnx")
        == "sempic: --predictions replace the judge: leave out --judge\n"
    )


def test_the_number_of_classes_is_of_the_palette_indices(results, capsys):
    assert (
        refusal(capsys, "--num_classes", "5")
        == "sempic: num_classes is of the palette indices; labels has camvid\n"
    )


def test_a_missing_folder_is_named(capsys):
    assert cli.main(["evaluate", "nowhere", "--metrics", "psnr"]) == 2
    assert capsys.readouterr().err == "sempic: nowhere/samples: no such folder\n"


def test_a_file_or_an_empty_folder_is_refused(results, capsys):
    for name, why in (
        ("samples/1.png", "not a folder"),
        (".", "no pictures (subfolders are not searched)"),
    ):
        assert cli.main(["benchmark", name, "-o", "report", "--metrics", "psnr"]) == 2
        assert capsys.readouterr().err == f"sempic: {name}: {why}\n"
    (results / "samples").rename("kept")
    (results / "samples").touch()
    assert refusal(capsys) == "sempic: samples: not a folder\n"


def test_networks_see_each_picture_once(results, monkeypatch, capsys):
    """The batch size follows the picture size: the first, large picture shares its batch only with
    its sample."""
    for kind in ("images", "samples"):
        PIL.Image.fromarray(street(96, 128)[0]).save(f"{kind}/0.png")
    seen = {"inception": [], "lpips": []}

    class Network:
        def __init__(self, name):
            self.name = name

        def features_of(self, pictures):
            seen[self.name].append(len(pictures))
            return [p.reshape(-1, 3).mean(0).astype(np.float32) for p in pictures]

        def features(self, picture):
            return self.features_of([picture])[0]

        def distance(self, a, b):
            return float(np.abs(a - b).mean())

    monkeypatch.setattr(networks, "Inception", lambda path: Network("inception"))
    monkeypatch.setattr(networks, "Lpips", lambda backbone: Network("lpips"))
    monkeypatch.setattr(networks, "batch_size", lambda picture: 96 // len(picture))
    settings = Settings(metrics=("fid", "lpips"))
    found = evaluation.evaluate(results, settings)
    assert seen == {"inception": [2, 4], "lpips": [2, 4]}
    assert found.samples["fid"] > 0
    assert found.samples["lpips"] > 0


def test_the_judge_sees_each_original_once(monkeypatch):
    judge = FakeSegmenter()
    monkeypatch.setattr(segment, "load", lambda spec, **_: judge)
    measure = Measure(Settings(metrics=("miou",)))
    picture, labels = street(*SIZE)
    reference = measure.reference(picture, labels)
    for _ in range(3):
        measure(reference, picture)
    measure.original(reference)
    assert judge.calls == 4
    measure = Measure(Settings(metrics=("miou", "objects"), judge="other.onnx"))
    measure(measure.reference(picture), picture.copy())
    assert judge.calls == 6
