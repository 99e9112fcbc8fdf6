"""The metrics that count objects and compare windows; tables and pages derive from all metrics."""

import argparse
import json
import os

import numpy as np
import PIL.Image
import pytest
from conftest import street

from sempic import cli, models, segment
from sempic.commands import _measuring
from sempic.critical import GROUPS, Tally
from sempic.evaluation import markup, metrics, weights
from sempic.evaluation.benchmark import report, tables
from sempic.evaluation.benchmark.results import CodecResults, Results, matched
from sempic.evaluation.measure import SIDE, Measure, Settings, row
from sempic.evaluation.measures import FIGURES, METRICS, inception, objects
from sempic.evaluation.measures.base import Figure, Mean
from sempic.palette import CAMVID, CITYSCAPES, CITYSCAPES_FULL, INDICES, PALETTES

SIZE = (100, 200)
"""0.1 % of it: 20 pixels."""


def map_of(*things, palette=CAMVID):
    """A map of void with rectangles (class, top, left, height, width)."""
    labels = np.full(SIZE, palette.void, np.uint8)
    for name, top, left, height, width in things:
        labels[top : top + height, left : left + width] = palette.classes.index(name)
    return labels


def count(before, after, palette=CAMVID):
    found = objects.count(
        map_of(*before, palette=palette), map_of(*after, palette=palette), palette
    )
    return dict(zip(GROUPS, found.tolist(), strict=True))


CAR, MAN, SIGN = ("car", 10, 10, 10, 20), ("pedestrian", 40, 80, 12, 4), ("sign", 5, 120, 5, 4)


def test_a_void_that_is_the_first_id_is_no_class(monkeypatch):
    class Judge:
        palette = CITYSCAPES_FULL.id

        def __call__(self, picture):
            return picture[..., 0]

    monkeypatch.setattr(segment, "load", lambda spec, **_: Judge())
    truth = np.array([[0, 7, 7, 26, 255, 34]], np.uint8)
    shown = np.array([[7, 7, 0, 26, 7, 7]], np.uint8)
    measure = Measure(Settings(metrics=("miou",)))
    original, picture = (np.repeat(ids[..., None], 3, 2) for ids in (truth, shown))
    found = row([measure(measure.reference(original, truth), picture)], [], None)
    pairs = zip(found["classes"], found["iou"], strict=True)
    scores = {name: iou for name, iou in pairs if iou is not None}
    assert scores == {"road": 0.5, "car": 1}
    assert found["miou"] == found["agreement"] == 0.75


def test_the_cache_key_has_the_content_of_the_networks(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "sempic").mkdir()
    files = {"fid": tmp_path / "fid.pt", "miou": tmp_path / "judge.onnx"}
    files["lpips"] = tmp_path / "sempic/alexnet.safetensors"
    settings = Settings(inception=str(files["fid"]), judge=str(files["miou"]))
    keys = []
    for time in (1, 2):
        for file in files.values():
            file.write_bytes(bytes([time]))  # of equal size
            os.utime(file, (time, time))
        keys.append({METRICS[name].key(settings) for name in files})
    assert len(keys[0] | keys[1]) == 2 * len(files)


@pytest.mark.parametrize("module", ["networks.py", "objects.py", "fit.py"])
def test_the_cache_key_has_the_code_that_measures(module, monkeypatch):
    before, digest = METRICS["psnr"].key(Settings()), weights.digest
    monkeypatch.setattr(weights, "digest", lambda path: digest(path) + "x" * (path.name == module))
    assert METRICS["psnr"].key(Settings()) != before


def test_objects_that_stay_are_kept():
    found = count([CAR, MAN, SIGN], [CAR, MAN, SIGN])
    assert found["vehicles"] == found["people"] == found["signs and lights"] == [1, 1, 0]
    assert found["two-wheelers"] == [0, 0, 0]


def test_small_regions_are_no_objects():
    assert count([("sign", 5, 120, 4, 5)], [])["signs and lights"] == [1, 0, 0]  # 20 pixels
    assert count([("sign", 5, 120, 1, 19)], [])["signs and lights"] == [0, 0, 0]
    assert count([], [("sign", 5, 120, 1, 19)])["signs and lights"] == [0, 0, 0]


@pytest.mark.parametrize(("rows", "kept"), [(4, 1), (3, 0)])
def test_a_kept_object_keeps_at_least_40_per_cent(rows, kept):
    assert count([CAR], [("car", 10, 10, rows, 20)])["vehicles"] == [1, kept, 0]


@pytest.mark.parametrize(("row", "kept"), [(18, 1), (19, 0)])
def test_two_pixels_around_an_object_count_as_the_object(row, kept):
    # The car ends before row 20, and grown before 22.
    assert count([CAR], [("car", row, 10, 10, 20)])["vehicles"] == [1, kept, 0]


@pytest.mark.parametrize(("column", "invented"), [(31, 0), (32, 1), (150, 1)])
def test_an_invented_object_touches_none_of_its_group_in_the_original(column, invented):
    # The car ends before column 30, and grown before 32.
    found = count([CAR], [CAR, ("car", 10, column, 10, 20)])
    assert found["vehicles"] == [1, 1, invented]


def test_an_object_of_another_group_is_lost_and_invented():
    found = count([CAR], [("pedestrian", *CAR[1:])])
    assert found["vehicles"] == [1, 0, 0]
    assert found["people"] == [0, 0, 1]


def test_regions_connect_at_corners():
    touching = [("car", 10, 10, 4, 4), ("car", 14, 14, 4, 4)]  # 16 pixels each
    assert count(touching, [])["vehicles"] == [1, 0, 0]


def test_groups_unite_the_classes_of_cityscapes():
    road = [("truck", 10, 10, 10, 20), ("bus", 10, 30, 10, 20), ("rider", 40, 80, 12, 4)]
    road += [("motorcycle", 52, 80, 9, 9), ("traffic light", 5, 120, 5, 4)]
    found = count(road, [("car", 10, 10, 10, 40), ("person", 40, 80, 12, 4)], CITYSCAPES)
    assert found["vehicles"] == [1, 1, 0]  # truck and bus are one region of the group
    assert found["people"] == [1, 1, 0]
    assert found["two-wheelers"] == [1, 0, 0]
    assert found["signs and lights"] == [1, 0, 0]


def test_every_class_of_a_group_is_in_a_palette():
    named = {name for palette in PALETTES.values() for name in palette.classes}
    assert {name for group in GROUPS.values() for name in group.classes} <= named
    some = np.arange(256, dtype=np.uint8).repeat(80).reshape(128, 160)
    assert objects.count(some, some, INDICES).sum() == 0


class Judge:
    """Sees a car in red pixels, also in those of a JPEG."""

    palette = CAMVID.id

    def __init__(self):
        self.calls = 0

    def __call__(self, image):
        self.calls += 1
        red = image.astype(int) @ [2, -1, -1] > 255
        return np.where(red, CAMVID.classes.index("car"), CAMVID.void).astype(np.uint8)


@pytest.fixture
def judge(monkeypatch):
    judge = Judge()
    monkeypatch.setattr(segment, "load", lambda spec, **_: judge)
    return judge


def painted(*cars):
    """A grey picture with red cars at (top, left)."""
    picture = np.full((*SIZE, 3), 120, np.uint8)
    for top, left in cars:
        picture[top : top + 10, left : left + 20] = 230, 20, 20
    return picture


def test_the_figures_of_a_jpeg_stand_beside_those_of_a_codec(judge):
    measure = Measure(Settings(metrics=("objects",)))
    original = painted((10, 10), (10, 60), (50, 30))
    reference = measure.reference(original)
    decoded = painted((10, 60), (70, 150))
    record = measure(reference, decoded)
    assert judge.calls == 2
    found = row([record], [measure.original(reference)], None)
    assert judge.calls == 3  # the original is looked at once
    car = found["objects"]["vehicles"]
    assert car == {"there": 3, "kept": 1, "invented": 1, "jpeg_kept": 3, "jpeg_invented": 0}
    assert found["objects"]["all"] == car
    assert found["objects_kept"] == pytest.approx(1 / 3)
    assert found["objects_invented"] == pytest.approx(1 / 3)
    assert [f.text(found) for f in METRICS["objects"].figures] == ["0.333", "0.333"]
    heads, mine, beside = METRICS["objects"].details([("mine", found)])
    assert heads[heads.index("vehicles: 3")] in heads
    assert (mine[3], beside[3]) == ("1 / 1", "3 / 0")
    assert "objects_kept" not in row([measure(measure.reference(painted()), painted())], [], None)


def test_only_objects_of_the_human_map_are_confirmed(judge):
    measure = Measure(Settings(metrics=("objects", "confirmed")))
    truth = map_of(("car", 10, 10, 10, 20), ("car", 10, 60, 10, 7), ("pedestrian", 50, 30, 10, 20))
    reference = measure.reference(painted((10, 10), (10, 60), (50, 30)), truth)
    decoded = [painted((10, 10)), painted((10, 60), (50, 30))]
    records = [measure(reference, picture) for picture in decoded]
    # Of the three cars that the judge sees, one is in the map; less than 40 % of the second are,
    # and the third is a pedestrian there.
    found = row(records, [measure.original(reference)] * 2, None)
    assert found["objects"]["all"]["there"] == 6
    assert found["confirmed"]["all"] == {"there": 2, "kept": 1, "jpeg_kept": 2}
    assert found["confirmed_kept"] == 0.5
    assert [f.text(found) for f in METRICS["confirmed"].figures] == ["0.500"]
    heads, mine, beside = METRICS["confirmed"].details([("mine", found)])
    assert (heads[3], mine[3], beside[3]) == ("vehicles: 2", "1", "2")
    without = measure.reference(painted((10, 10)))
    assert "confirmed_kept" not in row([*records, measure(without, decoded[0])], [], None)


def test_a_pedestrian_is_confirmed_by_a_rider_but_not_by_a_car():
    man, rider = (map_of((name, 40, 80, 12, 4)) for name in ("pedestrian", "bicyclist"))
    car = map_of(("car", 40, 80, 12, 4))
    for truth, seen in ((man, 1), (rider, 1), (car, 0)):
        changes = objects.confirmed(man, man, truth, CAMVID)
        assert changes["people"].tally == Tally(seen, 0, 0)


@pytest.mark.parametrize(("rows", "seen"), [(4, 1), (3, 0)])
def test_a_human_map_confirms_an_object_by_at_least_40_per_cent(rows, seen):
    car, nothing, truth = map_of(CAR), map_of(), map_of(("car", 10, 10, rows, 20))
    for after, lost in ((car, 0), (nothing, seen)):
        changes = objects.confirmed(car, after, truth, CAMVID)
        assert changes["vehicles"].tally == Tally(seen, lost, 0)


def test_counts_of_pictures_add_up(judge):
    measure = Measure(Settings(metrics=("objects",)))
    records = [
        measure(measure.reference(painted((10, 10))), painted(*cars))
        for cars in ([(10, 10)], [], [(60, 100)])
    ]
    found = row(records, [], None)
    assert found["objects"]["all"] == {"there": 3, "kept": 1, "invented": 1}


def test_the_bundled_judge_finds_objects_at_its_best_size(monkeypatch):
    asked = []
    monkeypatch.setattr(segment, "load", lambda spec, **options: asked.append((spec, options)))
    for judge in (None, "other.onnx"):
        measure = Measure(Settings(judge=judge))
        assert measure.judge is measure.finder is None
    bundled = str(models.find(models.JUDGE))
    assert asked == [(bundled, {}), (bundled, {"side": SIDE}), ("other.onnx", {})]


@pytest.mark.parametrize(
    ("size", "count"), [((64, 64), 1), ((63, 200), 0), ((96, 96), 2), ((256, 341), 20 + 12)]
)
def test_windows_overlap_by_half(size, count):
    picture = np.arange(size[0] * size[1] * 3, dtype=np.uint32).reshape(*size, 3).astype(np.uint8)
    found = inception.patches(picture)
    assert len(found) == count
    assert {window.shape for window in found} <= {(64, 64, 3)}
    if count == 2:
        np.testing.assert_array_equal(found[0], picture[:64, :64])
        np.testing.assert_array_equal(found[1], picture[32:, 32:])


class Network:
    """Mean and spread of a window instead of Inception's features."""

    def features(self, picture):
        return np.concatenate([picture.mean((0, 1)), picture.std((0, 1))]).astype(np.float32)

    def features_of(self, pictures):
        return [self.features(picture) for picture in pictures]


def test_patch_fid_is_the_fid_of_all_windows(monkeypatch):
    monkeypatch.setattr(METRICS["fid"], "load", lambda settings: Network())
    measure = Measure(Settings(metrics=("patch_fid",)))
    pictures = [street(96, 160, seed=seed)[0] for seed in range(3)]
    references = [measure.reference(picture) for picture in pictures]
    originals = [measure.original(reference) for reference in references]
    other = [
        measure(reference, 255 - picture)
        for reference, picture in zip(references, pictures, strict=True)
    ]
    found = row(other, originals, None)
    assert found["patches"] == 3 * (2 + 2)
    windows = [
        np.array([Network().features(w) for p in some for w in inception.patches(p)], np.float64)
        for some in (pictures, [255 - p for p in pictures])
    ]
    assert found["patch_fid"] == pytest.approx(metrics.frechet(*windows), rel=1e-2)  # float16
    assert row(originals, originals, None)["patch_fid"] == pytest.approx(0, abs=1e-3)
    small = measure(measure.reference(painted()[:50]), painted()[:50])
    assert "patch_fid" not in row([small], [small], None)


def test_slow_metrics_are_measured_only_on_request(tmp_path):
    file = tmp_path / "network.pt"
    file.write_bytes(b"")
    args = argparse.Namespace(metrics=None, inception=str(file), judge=None)
    assert "patch_fid" not in _measuring.settings(args, of_maps=True).metrics
    args.metrics = ["patch_fid"]
    assert _measuring.settings(args, of_maps=True).metrics == ("patch_fid",)


def test_a_figure_names_its_metric(tmp_path):
    (tmp_path / "inception.pt").touch()
    wanted, file = ["psnr", "kid", "fid", "psnr"], str(tmp_path / "inception.pt")
    args = argparse.Namespace(metrics=wanted, inception=file, judge=None)
    assert _measuring.settings(args, of_maps=True).metrics == ("psnr", "fid")


def test_a_new_metric_shows_in_tables_page_curves_and_json(tmp_path, monkeypatch, capsys):
    class Darkness(Mean):
        def __init__(self):
            super().__init__(Figure(name="dark", title="darkness", digits="{:.3f}", lower=True))

        def measure(self, reference, shown):
            return {"dark": float((shown.picture < 100).mean())}

    monkeypatch.setitem(METRICS, "dark", Darkness())
    monkeypatch.setitem(FIGURES, "dark", METRICS["dark"].figures[0])
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "samples"):
        (tmp_path / folder).mkdir()
        PIL.Image.fromarray(street(48, 64)[0]).save(f"{folder}/a.png")
    assert cli.main(["evaluate", ".", "--metrics", "dark"]) == 0
    assert "darkness" in capsys.readouterr().out
    assert cli.main(["compare", "images/a.png", "samples/a.png", "--metrics", "dark"]) == 0
    assert "darkness" in capsys.readouterr().out
    assert "darkness" in (tmp_path / "compare.html").read_text()
    points = [{"setting": bpp, "bpp": bpp, "dark": 0.1 / bpp} for bpp in (1, 2)]
    coded = {"a": CodecResults(title="A", peak_bytes=1, points=points)}
    results = Results(
        about={"pictures": 1},
        originals={"pictures": 1},
        codecs=coded,
        matched=matched(coded, [1, 2]),
        bd_rate={},
    )
    assert "darkness" in tables.summary(results)
    assert "darkness" in report.plot(results, ["dark"])
    assert results.matched[1]["dark"] == 0.05
    told = json.loads(tables.dump(results))["codecs"]["a"]["points"][1]
    assert told == points[1]


def test_heads_of_pages_say_how_many_windows_and_which_values_are_better():
    figures = [FIGURES[name] for name in ("patch_fid", "psnr")]
    assert markup.heads(figures, {"patches": 32}) == ["patch FID (N = 32) ↓", "PSNR, dB ↑"]
