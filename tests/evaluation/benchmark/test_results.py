import csv
import functools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from sempic.evaluation import metrics
from sempic.evaluation.benchmark import report, tables
from sempic.evaluation.benchmark.bench import Benchmark, File
from sempic.evaluation.benchmark.results import CodecResults, Results, bd_rates, matched


def test_matched_rates_and_bd_rates_follow_the_curves():
    def codec(scale):
        points = [(0.1, 20.0), (0.2, 24.0), (0.4, 27.0)]
        rows = [{"bpp": scale * r, "psnr": q, "lpips": 1 - q / 40} for r, q in points]
        return CodecResults(title="", peak_bytes=0, points=rows)

    found = {"a": codec(1.0), "b": codec(0.5)}
    table = {(r["bpp"], r["codec"]): r for r in matched(found, [0.1, 0.2])}
    assert table[0.1, "a"]["psnr"] == 20
    assert table[0.1, "b"]["psnr"] == pytest.approx(24)
    assert table[0.2, "b"]["lpips"] == pytest.approx(1 - 27 / 40)
    assert "fid" not in table[0.1, "a"]
    rates = bd_rates(found, "a")
    assert rates["psnr"] == {"b": pytest.approx(-50)}
    assert rates["lpips"] == {"b": pytest.approx(-50)}


def test_the_summary_says_which_rates_a_codec_does_not_reach():
    def codec(title, *rates):
        rows = [{"bpp": bpp, "psnr": 30.0} for bpp in rates]
        return CodecResults(title=title, peak_bytes=0, points=rows)

    def summary(**codecs):
        found = matched(codecs, [0.5, 1.0])
        return tables.summary(
            Results(about={}, originals={}, codecs=codecs, matched=found, bd_rate={})
        )

    assert "–: JPEG was measured at 1.703 bpp, as" in summary(jpeg=codec("JPEG", 1.703))
    text = summary(jpeg=codec("JPEG", 0.8, 2.0), webp=codec("WebP", 0.4, 1.1))
    assert "–: JPEG was measured at 0.800 to 2.000 bpp, as" in text
    assert "WebP was" not in text


def test_an_infinite_figure_is_shown_and_not_interpolated():
    def codec(*figures):
        rows = [{"bpp": bpp, "psnr": psnr} for bpp, psnr in enumerate(figures, 1)]
        return CodecResults(title="codec", peak_bytes=0, points=rows)

    codecs = {"a": codec(30.0, math.inf), "b": codec(math.inf, math.inf)}
    rates = matched(codecs, [1.0, 2.0])
    assert [line.get("psnr") for line in rates] == [30, None, None, None]
    results = Results(
        about={}, originals={}, codecs=codecs, matched=rates, bd_rate=bd_rates(codecs, "a")
    )
    assert "| codec | 2.0000 | ∞ |" in tables.summary(results)
    assert report.plot(results).count("<polyline") == 1
    del codecs["a"]
    assert report.plot(results) == ""
    (line, _) = json.loads(tables.dump(results), parse_constant=pytest.fail)["codecs"]["b"][
        "points"
    ]
    assert line["psnr"] == "inf"


def test_the_csv_has_the_figures_that_one_picture_can_have():
    rng = np.random.default_rng(0)

    def record():
        return {"fid": rng.random(4), "patch_fid": rng.random((3, 4)), "psnr": 20.0}

    files = [File(b"12", record(), 0.5, 1, 1) for _ in range(2)]
    originals = [record() for _ in files]
    bench = SimpleNamespace(
        plan=SimpleNamespace(
            settings=SimpleNamespace(metrics=("fid", "patch_fid", "psnr", "lpips")),
            items=[SimpleNamespace(name="x"), SimpleNamespace(name="y")],
        ),
        originals=lambda: originals,
        file=lambda index, name, setting: files[index],
    )
    bench.row = functools.partial(Benchmark.row, bench)
    point = {"setting": 7, "bpp": 0.5}
    codecs = {"a": CodecResults(title="A", peak_bytes=0, points=[point])}
    results = Results(about={}, originals={}, codecs=codecs, matched=[], bd_rate={})
    lines = [*csv.DictReader(tables.pictures(bench, results).splitlines())]
    assert [(line["picture"], line["setting"]) for line in lines] == [("x", "7"), ("y", "7")]
    assert {"bpp", "psnr", "patch_fid"} <= lines[0].keys()
    assert not {"fid", "kid", "lpips"} & lines[0].keys()
    for line, file, original in zip(lines, files, originals, strict=True):
        found = metrics.frechet(original["patch_fid"], file.record["patch_fid"])
        assert float(line["patch_fid"]) == pytest.approx(found, rel=1e-4)
