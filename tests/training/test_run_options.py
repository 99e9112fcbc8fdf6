import json

import pytest

from sempic import fields
from sempic.fields import parse
from sempic.training.options import (
    MAY_CHANGE,
    CorpusOptions,
    DenoiseOptions,
    DistillOptions,
    LabelPriorOptions,
    RunOptions,
    SegmenterOptions,
)


@pytest.mark.parametrize(
    "words", ["", "--steps 1 --minutes 1", "--steps 1 --save-minutes 6", "--steps 1 --batch 0"]
)
def test_a_run_needs_one_limit_and_values_in_range(words, capsys):
    with pytest.raises(SystemExit):
        parse(RunOptions, ["--out", "x", *words.split()], prog="x")
    assert "--" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "--seed -1", "--threads 0", "--lr 0", "--lr nan", "--judged -1", "--limit -1",
        "--heights 0 640", "--heights 640 230", "--crop 0 64", "--crop 40 64", "--enlarge 0.9",
        "--sheet 0", "--label-drop 1.1", "--region-drop -0.1", "--busy 0",
        "--calm 0", "--steps -1", "--minutes -1", "--minutes nan",
        "--seed 4294967296", "--crop 4128 64", "--batch 5000", "--side 5000", "--workers 100000",
        "--threads 100000",
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(words, capsys):
    """By every training that has the option."""
    name = words.split()[0]
    kinds = (SegmenterOptions, DenoiseOptions, DistillOptions, LabelPriorOptions, CorpusOptions)
    having = [k for k in kinds if name[2:].replace("-", "_") in fields.of(k)]
    assert having
    for kind in having:
        argv = [] if kind is CorpusOptions else ["--steps", "1"]
        argv += ["--corpus", "x"] if "corpus" in fields.of(kind) else []
        argv += ["--data", "x"] if kind in (SegmenterOptions, LabelPriorOptions) else []
        argv += ["--init", "x"] if kind is DistillOptions else []
        argv += ["x"] if kind is CorpusOptions else []
        with pytest.raises(SystemExit):
            fields.parse(kind, ["--out", "x", *argv, *words.split()], prog="x")
        assert name in capsys.readouterr().err.splitlines()[-1]


def test_efficientnet_sees_no_crop_of_a_single_feature(capsys):
    """Its last features have stride 32: norms of one pixel and deviations over it are undefined."""
    given = ["--out", "x", "--steps", "1", "--crop", "32", "64"]
    for kind, more in (
        (SegmenterOptions, ["--data"]),
        (DistillOptions, ["--corpus", "x", "--init"]),
    ):
        with pytest.raises(SystemExit):
            parse(kind, [*given, *more, "x"], prog="x")
        assert "from 64 to 4096" in capsys.readouterr().err
    assert parse(DenoiseOptions, [*given, "--corpus", "x"], prog="x").crop == (32, 64)


def test_the_result_may_be_named_by_a_letter():
    kinds = SegmenterOptions, DenoiseOptions, DistillOptions, LabelPriorOptions, CorpusOptions
    assert all(fields.about(fields.of(kind)["out"]).flags == ("-o",) for kind in kinds)
    assert parse(CorpusOptions, ["DATA", "-o", "x"], prog="x").out.name == "x"


def test_repeated_folder_options_add_up():
    argv = ["--out", "x", "--steps", "1", "--corpus", "a", "b", "--corpus", "c"]
    assert list(map(str, parse(DenoiseOptions, argv, prog="x").corpus)) == ["a", "b", "c"]


def test_only_options_that_change_the_result_are_fixed(tmp_path):
    kinds = (SegmenterOptions, DenoiseOptions, DistillOptions, LabelPriorOptions)
    assert set().union(*map(fields.of, kinds)) > MAY_CHANGE
    run = {"out": tmp_path, "steps": 1, "corpus": (tmp_path,), "init": tmp_path / "a"}
    began = DistillOptions(**run, segmenter=(tmp_path / "s.onnx",)).fixed()
    assert json.dumps(began)  # folders and names do not matter
    longer = DistillOptions(**run | {"steps": 9}, segmenter=(tmp_path / "old/s.onnx",), threads=4)
    assert longer.fixed() == began
    for change in ({"lr": 1.0}, {"batch": 3}, {"crop": (64, 64)}, {"segmenter": ()}, {"seed": 1}):
        other = {"segmenter": (tmp_path / "s.onnx",), **change}
        assert DistillOptions(**run, **other).fixed() != began
    same = {"segmenter": (tmp_path / "s.onnx",)}
    assert DistillOptions(**run | {"corpus": (tmp_path / "b",)}, **same).fixed() == began


def test_a_file_of_the_same_name_with_another_content_is_another_run(tmp_path):
    a, b, c = (tmp_path / name for name in ("a/w.safetensors", "b/w.safetensors", "c/renamed"))
    for path, content in ((a, b"1"), (b, b"2"), (c, b"1")):
        path.parent.mkdir()
        path.write_bytes(content)

    def fixed(path, **changes):
        given = {"init": a, "discriminator": a, "segmenter": (a,), **changes}
        return DistillOptions(out=path, steps=1, corpus=(path,), **given).fixed()

    for name in ("init", "discriminator", "segmenter"):
        moved, other = ((path,) if name == "segmenter" else path for path in (c, b))
        assert fixed(tmp_path, **{name: moved}) == fixed(tmp_path)
        assert fixed(tmp_path, **{name: other}) != fixed(tmp_path)
    run = {"out": tmp_path, "steps": 1, "data": ("x",)}
    assert SegmenterOptions(**run, init=a).fixed() != SegmenterOptions(**run).fixed()
    one, other = (SegmenterOptions(**run, teacher=(path,)) for path in (a, b))
    assert one.fixed() != other.fixed()
