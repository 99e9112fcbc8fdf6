"""`sempic evaluate`: a folder of results in, one row of figures out."""

import json

import numpy as np
import PIL.Image
import pytest
from conftest import FakeSegmenter, street

import sempic
from sempic import cli, segment
from sempic.evaluation.measure import Measure, Settings

SIZE = (48, 64)


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(segment, "load", lambda spec: FakeSegmenter())
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
        (tmp_path / f"sempic/{i}.sempic").write_bytes(
            sempic.pack(width=SIZE[1], height=SIZE[0], labels=labels, palette=1)
        )
    return tmp_path


def evaluate(capsys, *arguments):
    code = cli.main(["evaluate", ".", "--metrics", "miou,psnr", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_figures(results, capsys):
    code, out, err = evaluate(capsys, "--json")
    assert code == 0, err
    found = json.loads(out)
    samples = found["samples"]
    sizes = [p.stat().st_size for p in (results / "sempic").iterdir()]
    assert samples["bpp"] == pytest.approx(8 * np.mean(sizes) / (SIZE[0] * SIZE[1]))
    assert samples["agreement"] == 1  # the stand-in sees the same in every picture
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


def test_lines(results, capsys):
    code, out, _ = evaluate(capsys)
    assert code == 0
    assert out.startswith("3 pictures\n")
    for word in ("bpp", "mIoU", "originals", "agreement", "PSNR", "IoU road", "judge"):
        assert word in out


def test_bpg_and_flif_count_together(results, capsys):
    for path in (results / "sempic").iterdir():
        path.unlink()
    for i in range(3):
        (results / f"{i}.bpg").write_bytes(bytes(500))
        (results / f"labels/{i}.flif").write_bytes(bytes(1000))
    found = json.loads(evaluate(capsys, "--json")[1])
    assert found["samples"]["bpp"] == pytest.approx(8 * 1500 / (SIZE[0] * SIZE[1]))
    (results / "labels/1.flif").unlink()
    code, out, err = evaluate(capsys)
    assert code == 2
    assert not out
    assert "1.flif" in err.strip().splitlines()[-1]


def test_without_labels_and_files(results, capsys):
    for kind in ("labels", "sempic"):
        for path in (results / kind).iterdir():
            path.unlink()
        (results / kind).rmdir()
    found = json.loads(evaluate(capsys, "--json")[1])["samples"]
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
def test_what_is_missing_is_named(results, capsys, broken, message):
    (results / broken).unlink()
    code, out, err = evaluate(capsys)
    assert code == 2
    assert not out
    assert message in err


def test_what_does_not_fit_is_named(results, capsys):
    PIL.Image.new("RGB", (20, 20)).save("samples/2.png")
    code, _, err = evaluate(capsys)
    assert code == 2
    assert "2.png" in err
    assert "(20, 20, 3)" in err
    (results / "samples/2.png").write_bytes(b"no picture")
    assert "2.png" in evaluate(capsys)[2]
    assert "palette" in evaluate(capsys, "--palette", "cityscapes")[2]
    assert "not one of" in evaluate(capsys, "--metrics", "beauty")[2]


def test_no_such_folder(capsys):
    assert cli.main(["evaluate", "nowhere", "--metrics", "psnr"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_an_original_is_looked_at_once(monkeypatch):
    judge = FakeSegmenter()
    monkeypatch.setattr(segment, "load", lambda spec: judge)
    measure = Measure(Settings(metrics=("miou",)))
    picture, labels = street(*SIZE)
    reference = measure.reference(picture, labels)
    for _ in range(3):
        measure(reference, picture.copy())
    assert judge.calls == 4
    measure(reference, picture)
    assert judge.calls == 4
