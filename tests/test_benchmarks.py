"""The demo and the benchmarks of the whole codec run, with stand-ins for the networks."""

import importlib
import json
import re
import shutil
import subprocess

import numpy as np
import PIL.Image
import pytest
from conftest import ROOT, FakeSegmenter, needs_models, street
from videos import panned, write_video

import sempic
from sempic import api, check, models, segment
from sempic.evaluation.folders import spread
from sempic.evaluation.measure import Settings
from sempic.palette import CAMVID, CITYSCAPES, translate


@pytest.fixture
def folder(place, monkeypatch):
    """A folder to work in with two pictures and their label maps."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(ROOT / "examples")
    for kind in ("pictures", "maps"):
        (place / kind).mkdir()
    for i in range(2):
        picture, labels = street(48, 64, seed=i)
        PIL.Image.fromarray(picture).save(f"pictures/{i}.png")
        PIL.Image.fromarray(labels).save(f"maps/{i}.png")
    return place


@pytest.fixture
def run(folder, monkeypatch):
    """Runs a script in the folder."""

    def run(name, *arguments):
        monkeypatch.setattr("sys.argv", [name, *arguments])
        return importlib.import_module(name).main()

    return run


@pytest.fixture
def measured(folder, run):
    """Runs a script with --json, and reads the file."""

    def measured(name, *arguments):
        run(name, *arguments, "--json", "out.json")
        return json.loads((folder / "out.json").read_text())

    return measured


@pytest.mark.parametrize("labels", [[], ["--labels", "maps"]])
def test_rate_lists_the_bits_of_each_level(measured, capsys, labels):
    result = measured("rate", "pictures", *labels, "--size", "32x24", "--quality", "1,9")
    low, high = result["levels"]
    printed = capsys.readouterr().out
    assert result["pictures"] == 2
    assert (low["quality"], high["quality"]) == (1, 9)
    assert low["coarse_bpp"] < high["coarse_bpp"]
    for level in (low, high):
        parts = level["labels_bpp"] + level["coarse_bpp"] + level["other_bpp"]
        assert level["bpp"] == pytest.approx(parts)
        assert f"{level['bpp']:.4f}" in printed


def test_rate_refuses_an_empty_folder(folder, run):
    (folder / "empty").mkdir()
    with pytest.raises(SystemExit, match="no pictures"):
        run("rate", "empty")


def test_rate_refuses_what_it_cannot_read_or_write_before_the_work(folder, run, capsys):
    with pytest.raises(SystemExit, match="2"):
        run("rate", "pictures", "--json", "maps/0.png/out.json")
    assert "maps/0.png/out.json: cannot write: Not a directory" in capsys.readouterr().err
    (folder / "maps/0.png").unlink()
    with pytest.raises(SystemExit, match=r"maps/0.png: cannot read: No such file"):
        run("rate", "pictures", "--labels", "maps")
    (folder / "pictures/2.png").symlink_to("nowhere.png")
    with pytest.raises(SystemExit, match=r"pictures/2.png: a link that leads to no file"):
        run("rate", "pictures")


def test_benchmarks_end_in_one_line_without_their_files(run):
    for name, words, said in (
        ("receivers", "pictures none.onnx", "none.onnx: no such model"),
        ("roads", "nowhere", "nowhere: no such folder"),
        ("stream", "nowhere.mp4", "nowhere.mp4: not a video that can be read"),
        ("labels", "maps --flif nowhere.json", "nowhere.json: no bytes of FLIF at 'default'"),
        ("missing", "pictures --limit 1 --labels maps", "pictures: FID needs two pictures"),
        ("segmenter", "pictures --labels maps --reliability a.png", "a.png: the name of the"),
        ("serve_load", "--workers 9999", "workers is 1…32, not 9999"),
        ("roads", "skimage --labels maps", "skimage: its photographs have no --labels"),
    ):
        with pytest.raises(SystemExit, match=said):
            run(name, *words.split())


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("batch", "pictures --engines pool,dask", "--engines: dask is not one of pool, ray"),
        ("batch", "pictures --jobs 0", "--jobs: invalid positive whole number value: '0'"),
        ("batch", "pictures --limit 0", "--limit: invalid positive whole number value: '0'"),
        ("coarse", "pictures --factor 3", "--factor: invalid choice: "),
        ("coarse", "pictures --codecs bpg,gif", "--codecs: gif is not one of bpg, "),
        ("coarse", "pictures --qualities 35,a", "--qualities: invalid list of int value: '35,a'"),
        ("labels", "maps --model none", "--model: invalid choice: 'none'"),
        ("labels", "maps --images pictures", "--images is for --model"),
        ("objects", "pictures --labels maps --sides 64,0", "--sides: invalid list of positive"),
        ("paper_size", "--num_channels 32 --size 100x50", "--size takes multiples of 32"),
        ("serve_load", "--clients 0", "--clients: invalid positive whole number value: '0'"),
        ("stream", "drive.mp4 --minutes 0.01", "--minutes: ten frames at least"),
        ("stream", "drive.mp4 --minutes -1", "--minutes: invalid number above 0 value: '-1'"),
    ],
)
def test_benchmarks_refuse_wrong_arguments(run, capsys, name, words, said):
    with pytest.raises(SystemExit, match="2"):
        run(name, *words.split())
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_figures_go_into_a_folder_that_is_made(folder, run):
    run("rate", "pictures", "--quality", "5", "--json", "new/folder/out.json")
    assert json.loads((folder / "new/folder/out.json").read_text())["pictures"] == 2


def test_batch_times_the_engine_and_nothing_else(folder, measured, monkeypatch):
    batch = importlib.import_module("batch")
    clock = iter(range(0, 100, 10))
    monkeypatch.setattr(batch.time, "perf_counter", lambda: next(clock))

    def engine(work, jobs, workers):
        for job in jobs:
            yield job, [{"path": job.name}]

    monkeypatch.setattr(batch, "ENGINES", {"pool": engine})
    row = measured("batch", "pictures", "--engines", "pool")["engines"]["pool"]
    assert row["pictures"] == 2
    assert (row["first_result"], row["seconds"]) == (10, 30)  # calls 0, 1 and 3
    assert row["per_second_after_first"] == 1 / 10


def test_coarse_leaves_out_the_first_call_which_loads_and_compiles(measured, monkeypatch):
    coarse = importlib.import_module("coarse")
    times = iter([1000.0, 1.0, 3.0])
    monkeypatch.setattr(coarse, "measure", lambda *_: [next(times)] * len(coarse.COLUMNS))
    (row,) = measured("coarse", "pictures", "--codecs", "webp", "--qualities", "35")
    assert row["enc ms"] == 2


def test_segmenter_needs_probabilities_for_a_diagram(run, monkeypatch):
    segmenter = importlib.import_module("segmenter")
    monkeypatch.setattr(segmenter.segment, "load", lambda spec: FakeSegmenter())
    words = "pictures --labels maps --segmenter own --reliability a.svg"
    with pytest.raises(SystemExit, match="own gives no probabilities for --reliability"):
        run("segmenter", *words.split())


def test_segmenter_does_not_count_maps_that_are_all_void(run, measured, monkeypatch):
    monkeypatch.setattr(segment, "load", lambda spec: FakeSegmenter())
    PIL.Image.new("L", (64, 48), CAMVID.void).save("maps/0.png")
    found = measured("segmenter", "pictures", "--labels", "maps")
    assert len(found["pixels_right"]) == found["pictures"] - 1
    with pytest.raises(SystemExit, match="maps: the maps are all void"):
        run("segmenter", "pictures", "--labels", "maps", "--glob", "0.*")


def test_pictures_are_taken_evenly():
    assert [spread("abcdef", limit) for limit in (None, 9, 3)] == [[*"abcdef"]] * 2 + [[*"ace"]]


@needs_models
def test_receivers_measures_each_receiver(measured, capsys):
    path = str(models.find(models.RECEIVER))
    first, second = measured("receivers", "pictures", path, path)
    assert first["psnr"] == second["psnr"] == 99  # the same pictures
    assert first["lpips"] == second["lpips"]
    assert min(first["seconds"], second["seconds"]) > 0
    assert capsys.readouterr().out.count(path) == 2


@needs_models
def test_roads_compares_ours_with_avif_and_jpeg(folder, run, measured, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    PIL.Image.fromarray(street(96, 128)[0]).save("pictures/large.png")
    words = "--glob l* --short-side 64 --effort fast --metrics psnr"
    rows = {row["title"]: row for row in measured("roads", "pictures", *words.split())}
    printed = capsys.readouterr().out
    assert printed.startswith("1 pictures of pictures l*\n")
    assert list(rows) == [
        *("ours", "ours, all void", "ours, no labels"),
        *("AVIF, same bytes", "AVIF, twice", "AVIF, thrice", "JPEG 90"),
    ]
    ours, void, none = list(rows.values())[:3]
    assert none["bpp"] > void["bpp"]  # a finer coarse picture stands for the map
    assert none["bpp"] <= ours["bpp"]  # of a picture that is no street, ours has no map either
    assert none["psnr"] > void["psnr"]
    avif = [rows[f"AVIF, {times}"]["bpp"] for times in ("same bytes", "twice", "thrice")]
    assert avif == sorted(avif)
    for row in rows.values():
        assert f"| {row['title']} | {row['bpp']:.3f} | {row['psnr']:.2f} |" in printed
    with pytest.raises(SystemExit):
        run("roads", "pictures", "--rows", "ours,heif")


def test_roads_finds_the_setting_of_a_codec_nearest_to_a_rate(folder):
    roads = importlib.import_module("roads")
    items = roads.benchmark.items(folder / "pictures", None, 1)
    plan = roads.benchmark.Plan(items=items, size=None, settings=Settings(metrics=()))
    with roads.benchmark.Benchmark(plan, cache=folder / "cache.sqlite", jobs=1) as bench:
        picture, codec = plan.load(0)[0], plan.codec("webp")
        rates = [8 * len(codec.encode(picture, q)) / (48 * 64) for q in codec.settings]
        for bpp in (0.1, 1.0, 1.9, 99):
            found = bench.bpp(0, "webp", roads.near(bench, 0, "webp", bpp))
            best = min(rates, key=lambda rate: abs(np.log(rate / bpp)))
            assert abs(np.log(found / bpp)) <= max(abs(np.log(best / bpp)), 0.03)


@needs_models
def test_roads_counts_objects_that_maps_of_another_palette_confirm(folder, measured, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    roads = importlib.import_module("roads")
    monkeypatch.setattr(segment, "load", lambda spec, **_: FakeSegmenter())
    (folder / "coloured").mkdir()
    for i in range(2):
        labels = np.array(PIL.Image.open(f"maps/{i}.png"))
        PIL.Image.fromarray(CAMVID.paint(labels)).save(f"coloured/{i}.png")
        PIL.Image.fromarray(translate(labels, CAMVID.id, CITYSCAPES.id)).save(f"maps/{i}.png")
    items = roads.benchmark.items(folder / "pictures", folder / "maps", None)
    plan = roads.benchmark.Plan(
        items=items, size=None, settings=None, palettes=(CITYSCAPES, CAMVID)
    )
    assert (plan.load(1)[1] == street(48, 64, seed=1)[1]).mean() > 0.9
    PIL.Image.fromarray(CITYSCAPES.paint(np.array(PIL.Image.open("maps/0.png")))).save("maps/0.png")
    assert (plan.load(0)[1] == street(48, 64)[1]).mean() > 0.9  # colours, too
    for maps in ("maps --palette cityscapes", "coloured"):  # the judge's palette
        words = f"--labels {maps} --rows jpeg --metrics objects,confirmed"
        (row,) = measured("roads", "pictures", *words.split())
        assert all(group["kept"] <= group["there"] for group in row["confirmed"].values())


def test_scale_compares_native_and_half_size(run, measured, monkeypatch, capsys):
    scale = importlib.import_module("scale")

    class Measure:
        def __init__(self, settings):
            self.settings = settings

        def reference(self, picture):
            return picture.astype(float)

        def original(self, reference):
            return {"patch_fid": reference[:40, :7, 0]}

        def __call__(self, reference, shown):
            off = float(np.abs(reference - shown).mean())
            return {"lpips": off, "patch_fid": shown[:40, :7, 0] + off}

    monkeypatch.setattr(scale, "Measure", Measure)
    slope = np.add.outer(np.arange(304), np.arange(320)) * 0.4
    for name in ("soft", "softer"):  # the pictures of 64×48 are too small and left out
        PIL.Image.fromarray(np.repeat(slope[..., None], 3, 2).astype(np.uint8)).save(
            f"pictures/{name}.png"
        )
        slope = slope / 2
    result = measured("scale", "pictures", "--patches")
    printed = capsys.readouterr().out
    assert printed.startswith("2 pictures of pictures *, the first (320, 304)\n")
    assert result["patch FID"]["patches"] == 80
    for name in ("lpips", "patch FID"):
        native, half = result[name]["figures"]
        assert result[name]["change"] == pytest.approx(half - native)
        low, high = result[name]["interval"]
        assert low <= high
    low, high = result["lpips"]["interval"]
    assert low <= result["lpips"]["change"] <= high
    assert f"| {result['lpips']['change']:+.4f} | {low:+.4f} … {high:+.4f} |" in printed
    with pytest.raises(SystemExit, match="no two pictures"):
        run("scale", "pictures", "--glob", "0*")


def test_check_compares_the_receipt_with_the_judge(measured, monkeypatch, capsys):
    class Bright(FakeSegmenter):
        def __call__(self, picture):
            return np.where(picture[..., 0] > 128, CAMVID.classes.index("car"), 3).astype(np.uint8)

    see = Bright()
    verifier = check.Verifier(
        predict=lambda p: (see(p), None), palette=CAMVID.id, digest="cafe0123"
    )
    monkeypatch.setattr(api.Codec, "verifier", verifier)
    monkeypatch.setattr(segment, "load", lambda spec, *, side: see)
    result = measured("check", "pictures", "--glob", "1*")
    printed = capsys.readouterr().out
    assert result["pictures"] == 1
    assert result["bpp"]["checked"] > result["bpp"]["plain"]  # by a receipt, at least
    # Judge and verifier are the same stand-in, so they agree.
    for what, ((neither, _), (_, both)) in result["agreement"].items():
        assert neither + both == 1
        assert f"{what} by receipt and judge: neither {neither}," in printed
    assert all(len(taken) == 2 for taken in result["seconds"].values())
    assert f"with the check {result['bpp']['checked']:.4f}" in printed


def test_objects_are_counted_at_each_side(measured, monkeypatch, capsys):
    monkeypatch.setattr(segment, "load", lambda spec, *, side: FakeSegmenter())
    found = measured("objects", "pictures", "--labels", "maps", "--sides", "64,128")
    assert found["pictures"] == 2
    assert [line["side"] for line in found["sides"]] == [64, 128]
    for line in found["sides"]:  # the stand-in sees neither of the two cars
        assert line["there"] == [0, 0, 2, 0, 2]
        assert line["found"] == line["besides"] == [0, 0, 0, 0, 0]
    assert "0 of 2 / 0" in capsys.readouterr().out


def test_profiling_splits_the_time_of_each_size(measured, monkeypatch, capsys):
    profiling = importlib.import_module("profiling")
    monkeypatch.setattr(profiling, "best", lambda call: 1.0)
    result = measured("profiling", "pictures", "--sizes", "48x32,64x48")
    assert list(result["sizes"]) == ["48x32", "64x48"]
    for parts in result["sizes"]["64x48"].values():
        assert parts["labels: pixels"] > 0
        assert parts["all else"] >= 0
    printed = capsys.readouterr().out
    assert "8-bit products: " in printed
    assert "64×48, median of 2" in printed
    assert result["peaks"]["float32"] == pytest.approx(2 * 2.048**3)


@needs_models
def test_arithmetic_counts_grow_with_the_pixels(folder):
    profiling = importlib.import_module("profiling")
    feed = {"image": np.zeros((1, 64, 96, 3), np.uint8)}
    small = profiling.arithmetic(models.find(models.SEGMENTER), feed)
    feed = {"image": np.zeros((1, 128, 96, 3), np.uint8)}
    large = profiling.arithmetic(models.find(models.SEGMENTER), feed)
    assert small["int8"] > small["float32"] > 0  # most of it is the decoder's
    assert large == {kind: 2 * count for kind, count in small.items()}
    assert profiling.profile(models.find(models.SEGMENTER), feed, runs=1)[0]["QLinearConv"] > 0


def test_speed_times_each_step_of_the_codec(folder):
    speed = importlib.import_module("speed")
    times = speed.measure_warm([street(48, 64)[0]] * 2)
    assert {"encode", "unpack", "decode, 1 step", "decode, 4 steps"} <= times.keys()
    assert all(seconds >= 0 for seconds in times.values())


@needs_models
def test_speed_times_a_command_with_its_start(folder):
    speed = importlib.import_module("speed")
    seconds, peak = speed.command(["info", str(ROOT / "vectors/street.sempic")], folder)
    assert 0 < seconds < 60
    assert 10 < peak < 4000


def test_demo_of_a_picture(folder, run, capsys):
    shutil.copy("pictures/0.png", "a b.png")
    assert run("demo", "a b.png") == 0
    written = {path.name for path in (folder / "demo").iterdir()}
    assert written == {"a b.sempic", "a b.png", "side-by-side.png"}
    assert "bpp" in capsys.readouterr().out
    assert run("demo", "maps") == 2
    assert "demo: maps: " in capsys.readouterr().err
    before = (folder / "demo/a b.png").read_bytes()
    assert run("demo", "demo/a b.png") == 2
    assert (folder / "demo/a b.png").read_bytes() == before
    (folder / "broken.png").write_bytes(b"no picture")
    assert run("demo", "broken.png") == 2
    assert "demo: broken.png: not a picture" in capsys.readouterr().err


def test_demo_of_a_picture_without_a_map(folder):
    demo = importlib.import_module("demo")
    original = np.asarray(PIL.Image.open("pictures/0.png").convert("RGB"))
    panels = demo.parts(original, sempic.encode(original, labels="none"))
    assert [title for title, _ in panels][1] == "labels, 0 bytes"
    assert (panels[1][1] == 0).all()
    assert panels[3][1].shape == original.shape


def test_make_demo_quotes_its_picture():
    done = subprocess.run(
        ["make", "-n", "--no-print-directory", "demo", "IMAGE=a b.png"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    command = done.stdout.splitlines()[-1].replace(".venv/bin/python", "printf '%s|'")
    for picture, wanted in (("a b.png", "examples/demo.py|a b.png|"), ("", "examples/demo.py|")):
        shell = subprocess.run(
            ["sh", "-c", command], env={"IMAGE": picture}, capture_output=True, text=True
        )
        assert shell.stdout == wanted


def test_demo_of_the_street(folder, run, monkeypatch):
    """Its sheet has the original, labels, coarse picture, decode and AVIF at the same bytes."""
    demo = importlib.import_module("demo")
    seen = []
    monkeypatch.setattr(demo, "beside", lambda panels, columns: seen.extend(panels) or panels[0][1])
    assert run("demo") == 0
    size = (folder / "demo/street.sempic").stat().st_size
    kinds = [title.split(",")[0] for title, _ in seen]
    assert kinds == ["original", "labels", "coarse", "decoded from both", "AVIF", "classes"]
    assert all(pixels.shape == (288, 512, 3) for _, pixels in seen)
    avif = int(re.search(r"AVIF, (\d+) bytes", seen[4][0])[1])
    assert 0.8 * size < avif <= size


def test_the_sheet_of_the_demo_is_a_grid_of_panels(folder):
    demo = importlib.import_module("demo")
    panel = np.zeros((30, 40, 3), np.uint8)
    sheet = demo.beside([("a", panel), ("b", panel), ("c", panel), ("d", panel)], 3)
    assert sheet.shape == (2 * (30 + 30 + 8) + 8, 3 * (40 + 8) + 8, 3)
    large = np.zeros((10, 3000, 3), np.uint8)
    assert demo.beside([("a", large)], 1).shape[1] == 1024 + 16


def test_the_committed_curves_are_those_of_the_readmes_table(folder, run):
    (folder / "README.md").write_bytes((ROOT / "README.md").read_bytes())
    (folder / "docs/images").mkdir(parents=True)
    assert run("figures", "--root", str(folder), "--only", "curves") == 0
    drawn = (folder / "docs/images/rd.svg").read_bytes()
    assert drawn == (ROOT / "docs/images/rd.svg").read_bytes()


def test_figures_makes_the_pictures_of_readme_and_gallery(folder, run, monkeypatch):
    pytest.importorskip("skimage", reason="scikit-image is not installed (extra `docs`)")
    figures = importlib.import_module("figures")
    (folder / "examples").mkdir()
    for name in ("street.jpg", "night.jpg"):
        shutil.copy(ROOT / "examples" / name, folder / "examples")
    monkeypatch.setattr(figures, "GALLERY", (figures.GALLERY[1], figures.GALLERY[4]))
    assert run("figures", "--root", str(folder), "--only", "street,windows,gallery") == 0
    for name in ("street.jpg", "street.sempic"):
        scene = folder / figures.SCENES / name
        assert scene.read_bytes() == (folder / "examples" / name).read_bytes()
    page = (folder / "docs/gallery.md").read_text()
    for name in ("street", "gallery/night", "gallery/chelsea"):
        with PIL.Image.open(folder / f"docs/images/{name}.jpg") as sheet:
            assert sheet.width > 900
        assert name == "street" or f"](images/{name}.jpg)" in page
    assert page.startswith(figures.INTRODUCTION)
    with pytest.raises(SystemExit):
        run("figures", "--only", "nothing")


def test_the_gallery_is_what_the_script_makes(folder):
    """Texts and pictures only: the figures are those of earlier models."""
    figures = importlib.import_module("figures")
    page = (ROOT / "docs/gallery.md").read_text()
    assert page.startswith(figures.INTRODUCTION)
    for shown in figures.GALLERY:
        for text in (f"## {shown.title}\n", f"\n{shown.notice}\n", f"*{shown.credit}.*"):
            assert text in page
        name = shown.name.partition(".")[0]
        assert (ROOT / f"docs/images/gallery/{name}.jpg").stat().st_size < 250_000


@needs_models
def test_label_quality_lists_each_level(measured, capsys):
    rows = measured("label_quality", *["pictures", "--labels", "maps", "--limit", "1"])["levels"]
    assert [row["level"] for row in rows] == ["lossless", 5, 4, 3, 2, 1]
    assert rows[0]["changed"] == 0
    assert rows[0]["bytes"] >= rows[-1]["bytes"]
    assert "* the default; 1 pictures" in capsys.readouterr().out


def test_label_quality_takes_a_segmenter_of_other_classes(folder, measured, monkeypatch):
    label_quality = importlib.import_module("label_quality")

    class Exact(FakeSegmenter):
        palette = CITYSCAPES.id

        def __call__(self, picture):
            return translate(street(48, 64)[1], CAMVID.id, CITYSCAPES.id)

    monkeypatch.setattr(label_quality.segment, "load", lambda spec: Exact())
    words = "pictures --labels maps --glob 0*"
    lossless, *_ = measured("label_quality", *words.split())["levels"]
    assert lossless["miou"] > 0.99


def test_missing_swaps_scales_repaints_and_finds_grids(folder):
    missing = importlib.import_module("missing")
    original, made = street(64, 96)[0], street(64, 96, seed=1)[0]
    assert (missing.swap(original, original, 4, fine=True) == original).all()
    coarse = missing.swap(original, made, 4, fine=False)
    apart = np.abs(missing.low(coarse, 4) - missing.low(original, 4)).mean()
    assert apart < 0.2 * np.abs(missing.low(made, 4) - missing.low(original, 4)).mean()
    grey = np.repeat(original.mean(2, keepdims=True), 3, 2).astype(np.uint8)
    assert np.ptp(missing.repaint(original, grey), axis=2).max() <= 2  # chroma of the second
    close = missing.repaint(original, original).astype(int) - original
    assert np.abs(close).max() <= 3  # rounding of two conversions
    yardstick = dict(missing.changed(original, np.random.default_rng(0)))
    apart = {k: np.abs(v.astype(float) - original).mean() for k, v in yardstick.items()}
    assert all(v.shape == original.shape and v.dtype == np.uint8 for v in yardstick.values())
    assert 0 < apart["JPEG 80, 4:4:4"] < apart["JPEG 40, 4:4:4"] < apart["moved by 1 over 8"]
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    woven = noise.copy()
    woven[:, 1::2] = noise[:, ::2]  # every second column repeats the one before
    even, grid = (missing.steps(x)[0, 2:] for x in (noise, woven))
    assert even.max() / even.min() < 1.1 < 1.5 < grid.max() / grid.min()


def test_stream_prints_a_line_for_each_tenth(folder, run, capsys):
    write_video(folder / "drive.mp4", panned(96, 128, step=4, count=5))
    run("stream", "drive.mp4", "--size", "128x96", "--minutes", "0.04")
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert head == "24 frames of 128×96, 10/s"
    assert [int(line.split()[0]) for line in lines] == [10 + 2 * i for i in range(1, 11)]
