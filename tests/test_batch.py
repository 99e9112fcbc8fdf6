"""Many files at once: engines, tars, manifests. tests/test_cli.py has the single files."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from conftest import ROOT, FakeReceiver, FakeSegmenter, street

import sempic
from sempic import api, batch, cli, console, fields, jobs, pictures
from sempic.batch import engines
from sempic.batch.tar import change
from sempic.errors import InputError, OutputError, install_hint
from sempic.options import EncodeOptions

IMAGE, LABELS = street(48, 64)
REAL = {name: vars(api.Codec)[name] for name in ("segmenter", "receiver")}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(api.Codec, "segmenter", FakeSegmenter())
    batch.coder_with.cache_clear()
    return tmp_path


@pytest.fixture
def shots():
    """A bad picture, and three with label maps: other processes then need no network."""
    for folder in ("shots", "maps"):
        Path(folder).mkdir()
    for i in range(3):
        PIL.Image.fromarray(np.roll(IMAGE, i, 1)).save(f"shots/{i}.png")
        PIL.Image.fromarray(np.roll(LABELS, i, 1)).save(f"maps/{i}.png")
    Path("shots/bad.png").write_bytes(b"no picture")
    return ["shots", "--labels", "maps"]


def refused(capsys, command, said):
    """Check that the command fails, and that stderr has the text."""
    capsys.readouterr()
    assert cli.main(command if isinstance(command, list) else command.split()) == 2
    assert said in capsys.readouterr().err


def contents_of(folder, pattern="*.sempic"):
    return {p.name: p.read_bytes() for p in Path(folder).rglob(pattern)}


def entries(path="out/manifest.jsonl"):
    first, *rest = (json.loads(line) for line in Path(path).read_text().splitlines())
    assert first.keys() == {"settings"}
    return rest


def test_several_processes_make_the_same_files(shots, capsys):
    assert cli.main(["encode", *shots, "-o", "one"]) == 2
    assert cli.main(["encode", *shots, "-o", "two", "--jobs", "2", "--json"]) == 2
    out, err = capsys.readouterr()
    assert contents_of("one") == contents_of("two")
    assert len(contents_of("two")) == 3
    assert err.count("not a picture") == 2
    assert err.count("1 of 4 files failed") == 2
    records = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert [Path(r["path"]).name for r in records] == ["0.png", "1.png", "2.png", "bad.png"]


def test_the_folder_of_maps_may_be_one_that_decode_has_written(shots):
    assert cli.main(["encode", *shots, "-o", "coded"]) == 2
    assert cli.main(["decode", "coded", "-o", "written", "--only", "labels"]) == 0
    assert contents_of("written", "*.png").keys() == {f"{i}.labels.png" for i in range(3)}
    assert cli.main(["encode", "shots", "--labels", "written", "-o", "again"]) == 2
    assert contents_of("again") == contents_of("coded")


def test_each_picture_has_a_map_of_its_own_where_names_are_alike():
    maps = {"train": LABELS, "val": np.roll(LABELS, 1, 1)}
    for folder, labels in maps.items():
        for path in (f"shots/{folder}", f"maps/{folder}"):
            Path(path).mkdir(parents=True)
        PIL.Image.fromarray(IMAGE).save(f"shots/{folder}/0.png")
        PIL.Image.fromarray(labels).save(f"maps/{folder}/0.png")
    PIL.Image.fromarray(LABELS).save("maps/0.png")
    run = ["encode", "shots/train", "shots/val", "-o"]
    assert cli.main([*run, "coded", "--labels", "maps"]) == 0
    for folder, labels in maps.items():
        stream = Path(f"coded/{folder}/0.sempic").read_bytes()
        assert np.array_equal(sempic.unpack(stream).labels, labels)

    Path("shots/val/0.png").rename("shots/train/0.tif")  # 0.png.labels.png, 0.tif.labels.png
    assert cli.main(["encode", "shots/train", "-o", "coded"]) == 0
    assert cli.main(["decode", "coded", "-o", "written", "--only", "labels"]) == 0
    assert cli.main(["encode", "shots/train", "--labels", "written", "-o", "again"]) == 0
    assert contents_of("again").keys() == {"0.png.sempic", "0.tif.sempic"}


def test_pictures_of_two_folders_may_not_share_a_map(capsys):
    for path in ("a/0.png", "b/0.png", "a/0.tif"):
        Path(path).parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(IMAGE).save(path)
    for path in ("maps/0.png", "maps/b/0.png"):
        Path(path).parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(LABELS).save(path)
    said = f"sempic: {Path('a/0.png')} and {Path('b/0.png')} would both have the map "
    refused(capsys, "encode a/0.png b/0.png --labels maps", said + f"{Path('maps/0.png')}\n")
    assert not contents_of(".")
    assert cli.main(["encode", "a/0.png", "b/0.png", "--labels", "maps/0.png"]) == 0
    Path("maps/0.png").rename("maps/a.png")
    Path("maps/a").mkdir()
    Path("maps/a.png").rename("maps/a/0.png")
    assert cli.main(["encode", "a/0.png", "b/0.png", "--labels", "maps", "-o", "out"]) == 0
    assert cli.main(["encode", "a/0.png", "a/0.tif", "--labels", "maps/a", "-o", "again"]) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    "command",
    [
        "encode shots -o out --segmenter wrong",
        "encode shots -o out --segmenter gone",
        "encode shots -o out --check --verifier wrong",
        "encode shots -o out --check --receiver wrong",
        "encode shots -o out --check --critical wrong.json",
        "encode shots -o out --labels maps --prior wrong",
        "encode shots -o out --labels wrong",
        "encode shots.tar -o out.tar --segmenter wrong",
        "decode coded -o out --receiver wrong",
        "decode coded -o out --receiver gone",
        "decode coded -o out --only labels --prior wrong",
        "info coded --map --prior wrong",
    ],
)
def test_a_wrong_model_is_one_error_before_the_work(command, workers, shots, monkeypatch, capsys):
    for name in ("segmenter", "receiver"):
        monkeypatch.setattr(api.Codec, name, REAL[name])
    Path("wrong").write_bytes(b"no network")
    Path("wrong.json").write_text('{"a": ["ghost"]}')
    Path("coded").mkdir()
    for i in range(2):
        Path(f"coded/{i}.sempic").write_bytes(sempic.encode(IMAGE, labels=LABELS))
    with tarfile.open("shots.tar", "w") as tar:
        tar.add("shots")
    capsys.readouterr()
    more = [] if command.startswith("info") else ["--jobs", workers]
    assert cli.main([*command.split(), *more]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(("sempic: wrong", "sempic: gone"))
    assert not list(Path().glob("out*"))


@pytest.fixture
def importable(monkeypatch):
    """Let workers import this module."""
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}")


def job_called(name):
    return jobs.Job(source=Path(name), relative=Path(name), target=None, mkdir=False)


def dies(job):
    os._exit(1)


def test_a_dead_worker_is_reported(importable):
    job = job_called("a")
    before = dict(os.environ)
    ((done, records),) = batch.in_processes(dies, [job], 1)
    assert dict(os.environ) == before
    assert done == job
    assert records == [{"path": "a", "error": "a worker process died"}]


def test_more_processes_than_a_machine_bears_are_refused(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    many = [job_called(str(i)) for i in range(17)]
    with pytest.raises(InputError, match=r"17 processes at once: .* at most 16 --jobs"):
        batch.run(dies, many, workers=1000)
    batch.run(dies, many[1:], workers=1000)  # never more processes than jobs; nothing runs yet


def test_no_jobs_are_no_work_and_an_unknown_engine_is_refused():
    work = batch.Encode()
    assert not any(map(list, (batch.here(work, []), batch.in_processes(work, [], 2))))
    assert not list(batch.in_ray(work, [], 2))
    with pytest.raises(InputError, match="engine 'dask' is not one of pool, ray"):
        batch.run(work, [], engine="dask")


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_makes_the_same_files_and_a_manifest(shots, capsys):
    pytest.importorskip("ray.data", reason="Ray is not installed (extra `ray`)")
    cli.main(["encode", *shots, "-o", "one"])
    capsys.readouterr()
    code = cli.main(["encode", *shots, "-o", "out", "--engine", "ray"])
    if "timed out during startup" in capsys.readouterr().err:
        pytest.skip("this machine is so busy that Ray does not start within its 30 s")
    assert code == 2
    assert contents_of("one") == contents_of("out")
    assert len(contents_of("out")) == 3
    assert sorted(Path(e["file"]).name for e in entries()) == sorted(os.listdir("shots"))


@pytest.mark.parametrize(
    ("module", "where", "said"),
    [
        ("ray", ["-o", "out", "--engine", "ray"], "needs ray; "),
        ("upath", ["-o", "s3://bucket/out"], "need universal-pathlib; "),
    ],
)
def test_a_missing_package_is_named(module, where, said, shots, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    refused(capsys, ["encode", *shots, *where], said + install_hint("ray"))
    assert not os.path.exists("out")  # not even for a manifest


@pytest.mark.parametrize("folder", ["locked", "locked/new"])
def test_a_manifest_without_write_permission_is_refused_before_the_work(
    shots, monkeypatch, capsys, folder
):
    Path("locked").mkdir()
    really = os.access
    monkeypatch.setattr(
        os, "access", lambda path, *how: "locked" not in str(path) and really(path, *how)
    )
    assert cli.main(["encode", *shots, "-o", "out", "--manifest", f"{folder}/m.jsonl"]) == 2
    assert capsys.readouterr().err == (
        f"sempic: {folder}/m.jsonl: cannot write: Permission denied\n"
    )
    assert not os.path.exists("out")


def test_a_manifest_below_a_file_is_refused_before_the_work(shots, capsys):
    assert cli.main(["encode", *shots, "-o", "out", "--manifest", "shots/0.png/m.jsonl"]) == 2
    told = "sempic: shots/0.png/m.jsonl: cannot write: Not a directory\n"
    assert capsys.readouterr().err == told
    assert not os.path.exists("out")


def test_a_manifest_records_the_result_of_each_file(shots):
    assert cli.main(["encode", *shots, "-o", "out", "--manifest", "m.jsonl"]) == 2
    by_name = {Path(e["file"]).name: e for e in entries("m.jsonl")}
    assert by_name.keys() == {"0.png", "1.png", "2.png", "bad.png"}
    good, bad = by_name["1.png"], by_name["bad.png"]
    size = os.path.getsize("out/1.sempic")
    assert (good["output"], good["bytes"], good["error"]) == ("out/1.sempic", size, None)
    assert good["bpp"] == pytest.approx(8 * size / (48 * 64), abs=1e-5)
    assert good["seconds"] >= 0
    assert (bad["output"], bad["bytes"]) == (None, None)
    assert "not a picture" in bad["error"]
    assert good["receipt"] is bad["receipt"] is None


def test_a_manifest_lists_settings_in_the_order_of_their_options(shots):
    """Not of a set, which differs from run to run."""
    assert cli.main(["encode", "shots/0.png", "--manifest", "m.jsonl"]) == 0
    settings = json.loads(Path("m.jsonl").read_text().splitlines()[0])["settings"]
    named = [name for name in fields.of(batch.Encode) if name not in ("options", "replace")]
    assert list(settings) == [*fields.of(EncodeOptions), *named, "sempic"]


def test_a_manifest_records_the_receipts_of_a_check(shots):
    verifier = str(ROOT / "weights/camvid/segmenter.onnx")
    run = ["encode", "shots/0.png", "shots/1.png", "-o", "out", "--check", "--verifier", verifier]
    assert cli.main([*run, "--manifest", "m.jsonl"]) == 0
    for entry in entries("m.jsonl"):
        receipt = sempic.info(Path(entry["output"]).read_bytes())["receipt"]
        assert entry["receipt"] == receipt
        assert receipt["verifier"]


def test_a_run_resumes_after_an_interruption(shots, capsys):
    run = ["encode", *shots, "-o", "out", "--manifest", "m.jsonl"]
    cli.main(run)
    text = Path("m.jsonl").read_text()
    Path("m.jsonl").write_text(text[: text.index('{"file": "shots/2') + 20])  # killed here
    Path("out/0.sempic").unlink()  # recorded, but gone
    kept = Path("out/1.sempic").stat().st_mtime_ns
    capsys.readouterr()
    Path("shots/bad.png").write_bytes(pictures.encode(IMAGE, ".png"))
    PIL.Image.fromarray(LABELS).save("maps/bad.png")
    assert cli.main(run) == 0
    assert "1 of 4 are done" in capsys.readouterr().err
    assert Path("out/1.sempic").stat().st_mtime_ns == kept
    assert len(contents_of("out")) == 4
    assert len(entries("m.jsonl")) == 5  # three before, the half line is gone
    assert cli.main(run) == 0
    assert "4 of 4 are done" in capsys.readouterr().err


def test_a_full_disk_leaves_whole_lines_in_a_manifest():
    resource = pytest.importorskip("resource")
    path, limits = Path("m.jsonl"), resource.getrlimit(resource.RLIMIT_FSIZE)
    records = [{"path": name, "output": f"{name}.sempic"} for name in ("a", "b", "c")]
    for number, record in enumerate(records):
        with ExitStack() as held:
            manifest = batch.Manifest(path, {}, held)
            before = path.read_bytes() if number else b""
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
            try:
                with pytest.raises(OutputError, match=r"m\.jsonl: cannot write: File too large"):
                    manifest.add([record])
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            assert path.read_bytes() == before if number else not path.exists()
            manifest.add([record])
    assert [entry["file"] for entry in entries(path)] == ["a", "b", "c"]


@pytest.mark.parametrize("options", ["--keep cra", "--imagine cra", "--importance cra=2"])
@pytest.mark.parametrize("labels", ["", " --labels none"])
def test_an_unknown_class_is_an_error_once_for_all_files(capsys, shots, options, labels):
    name = options.split()[0][2:]
    said = f"sempic: {name}: class 'cra' is not one of palette camvid: "
    refused(capsys, f"encode shots -o out {options}{labels}", said)
    assert not os.path.exists("out")


def test_a_manifest_of_windows_has_the_names_of_other_systems(shots, monkeypatch):
    monkeypatch.setattr("sempic.processes.WINDOWS", True)
    Path("out").mkdir()
    Path("out/0.sempic").touch()
    record = {"path": r"shots\0.png", "output": r"out\0.sempic"}
    with ExitStack() as held:
        manifest = batch.Manifest(Path("m.jsonl"), {}, held)
        manifest.add([record, {"path": r"shots\1.png", "error": "cannot read"}])
    names = [(entry["file"], entry["output"]) for entry in entries("m.jsonl")]
    assert names == [("shots/0.png", "out/0.sempic"), ("shots/1.png", None)]
    todo = jobs.find(["shots/0.png"], "out/", accepted=(), suffix=".sempic")
    with ExitStack() as held:
        assert batch.Manifest(Path("m.jsonl"), {}, held).remaining(todo) == []


def test_a_manifest_is_of_one_run_at_a_time(shots, capsys):
    pytest.importorskip("fcntl")
    path, record = Path("m.jsonl"), {"path": "a", "output": "a.sempic"}
    run = ["encode", "shots/0.png", "--manifest", "m.jsonl"]
    with ExitStack() as held:
        manifest, late = (batch.Manifest(path, {}, held) for _ in range(2))
        manifest.add([record])
        before = path.read_bytes()
        with pytest.raises(OutputError, match=r"^m\.jsonl: another run has begun it"):
            late.add([record])  # both began before there was a file
        refused(capsys, run, "m.jsonl: another run writes it now")
        assert path.read_bytes() == before
        manifest.add([record])
    assert len(entries(path)) == 2
    path.unlink()
    assert cli.main(run) == cli.main(run) == 0


def test_a_run_resumes_only_what_was_coded_from_the_same_file(shots, capsys):
    for folder in ("other", "out"):
        Path(folder).mkdir()
    Path("other/0.png").write_bytes(pictures.encode(IMAGE[::-1], ".png"))
    to = ["-o", "out/0.sempic", "--manifest", "m.jsonl"]
    streams = []
    for source in ("shots/0.png", "other/0.png"):
        assert cli.main(["encode", source, *to]) == 0
        streams.append(Path("out/0.sempic").read_bytes())
    assert streams[0] != streams[1]
    capsys.readouterr()
    assert cli.main(["encode", os.path.abspath("other/0.png"), *to]) == 0
    assert "1 of 1 are done" in capsys.readouterr().err


def test_a_manifest_has_one_line_per_file_for_any_name():
    strange = "a\nb", "c\u2028d", "e\x85f", "g\rh", "caf\udce9", 'i"j', "\x0bk"
    names = [f"{name}.png" for name in strange]
    Path("shots").mkdir()
    for name in names:
        Path("shots", name).write_bytes(pictures.encode(IMAGE, ".png"))
    run = ["encode", "shots", "-o", "out", "--manifest", "m.jsonl"]
    assert cli.main(run) == 0
    lines = Path("m.jsonl").read_bytes().split(b"\n")
    assert {json.loads(line)["file"] for line in lines[1:-1]} == {
        f"shots/{console.readable(name)}" for name in names
    }
    before = Path("m.jsonl").read_bytes()
    assert cli.main(run) == 0
    assert Path("m.jsonl").read_bytes() == before  # all were done


def test_names_that_are_not_utf8_are_escaped_in_json(capsys):
    for name in ("caf\udce8", "caf\udce9"):
        Path(f"{name}.sempic").write_bytes(sempic.pack(width=64, height=48, labels=LABELS))
    command = ["decode", ".", "-o", "out", "--only", "labels", "--manifest", "m.jsonl", "--json"]
    assert cli.main(command) == 0
    said = [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()]
    assert said == [r"caf\udce8.sempic", r"caf\udce9.sempic"]
    assert [line["file"] for line in entries("m.jsonl")] == said
    next(Path("out").glob("caf\udce8*")).unlink()
    assert cli.main(command) == 0
    out, err = capsys.readouterr()
    assert "1 of 2 are done" in err
    assert json.loads(out)["path"] == r"caf\udce8.sempic"


def test_a_manifest_is_a_file(shots, capsys):
    os.mkfifo("pipe")
    before = sorted(os.listdir())
    for path in ("pipe", "/dev/zero", "."):
        refused(capsys, ["encode", *shots, "-o", "out", "--manifest", path], f"{path}: not a file")
    refused(capsys, ["encode", *shots, "--manifest", "s3://b/m.jsonl"], "must be on this machine")
    assert sorted(os.listdir()) == before


def test_a_manifest_of_other_settings_is_refused(shots, capsys):
    cli.main(["encode", *shots, "-o", "out", "--manifest", "m.jsonl"])
    before = Path("m.jsonl").read_bytes()
    run = ["encode", *shots, "-o", "out", "--manifest", "m.jsonl"]
    refused(capsys, [*run, "-q", "9"], "other settings, quality 5 and not 9; remove it")
    refused(capsys, [*run, "--keep", "car"], "other settings, keep [] and not ['car']; remove it")
    refused(capsys, "decode out -o png --manifest m.jsonl", "settings, those of another command")
    assert Path("m.jsonl").read_bytes() == before
    # 3000 brackets are deeper than Python's parser goes.
    for other in ("something else\n", "[" * 3000 + "\n", "[]\n", '{"settings": 5}\n'):
        Path("m.jsonl").write_text(other)
        refused(capsys, run, "not a manifest")
    for file in ("5", "null", "[]"):  # lines without sense: their files are coded again
        record = f'{{"file": {file}, "output": "out/0.sempic", "error": null}}\n'
        Path("m.jsonl").write_bytes(before.splitlines(keepends=True)[0] + record.encode())
        capsys.readouterr()
        assert cli.main(run) == 2
        assert capsys.readouterr().err.endswith("sempic: 1 of 4 files failed\n")  # the broken shot
    assert cli.main(["encode", "shots/0.png", "-o", "-", "--manifest", "n.jsonl"]) == 2


# ── WebDataset ───────────────────────────────────────────────────────────────────────────────


def tar(path, **members):
    write_tar(path, members.items())


def write_tar(path, members):
    with tarfile.open(path, "w") as out:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))


def contents(path):
    with tarfile.open(path) as source:
        return {m.name: source.extractfile(m).read() for m in source}


def test_tars_are_encoded_and_resumed(capsys):
    png = pictures.encode(IMAGE, ".png")
    tar("a.tar", **{"x/0.png": png, "x/0.cls": b"7", "x/1.jpg": b"?", "x/2.left.png": png})
    run = ["encode", "a.tar", "-o", "out.tar", "--manifest", "m.jsonl"]
    assert cli.main(run) == 2
    found = contents("out.tar")
    assert found.keys() == {"x/0.sempic", "x/0.cls", "x/2.left.sempic"}
    assert found["x/0.sempic"] == sempic.Codec().encode(IMAGE)
    assert found["x/0.cls"] == b"7"
    by_name = {e["file"]: e for e in entries("m.jsonl")}
    assert by_name["a.tar/x/0.png"]["bytes"] == len(found["x/0.sempic"])
    assert "not a picture" in by_name["a.tar/x/1.jpg"]["error"]
    capsys.readouterr()
    assert cli.main(run) == 0
    assert "1 of 1 are done; 1 without members that failed, see m.jsonl" in capsys.readouterr().err
    tar("a.tar", **{"x/0.png": png, "x/1.jpg": png})  # mended
    Path("out.tar").unlink()
    for _ in range(2):
        assert cli.main(run) == 0
    assert capsys.readouterr().err.endswith("1 of 1 are done\n")


def test_a_shard_whose_members_all_fail_is_not_written(capsys):
    tar("a.tar", **{"0.png": b"?", "1.png": b"?", "0.cls": b"7"})
    Path("out.tar").write_bytes(b"of yesterday")
    run = ["encode", "a.tar", "-o", "out.tar", "--manifest", "m.jsonl"]
    for _ in range(2):  # the second run does it again
        refused(capsys, run, "2 of 2 files failed")
    assert Path("out.tar").read_bytes() == b"of yesterday"
    assert {entry["output"] for entry in entries("m.jsonl")} == {None}


def test_tars_without_supported_members_are_refused(capsys):
    """For example after a wrong --images: a mere copy must not look like the result."""
    tar("a.tar", **{"0.png": pictures.encode(IMAGE, ".png"), "0.cls": b"7"})
    tar("empty.tar")
    for command in ("encode a.tar --images .jpg", "encode empty.tar", "decode a.tar"):
        refused(
            capsys, [*command.split(), "-o", "out.tar"], "no files of a supported type in this tar"
        )
    assert not Path("out.tar").exists()


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_compressed_tars_in_folders_are_counted(command, capsys):
    Path("in").mkdir()
    for name in ("a.tar.gz", "b.tgz", "c.tar.gz"):
        Path("in", name).touch()
    refused(capsys, [command, "in", "-o", "out"], "in: no files of a supported type, but 2 .gz, 1")
    picture = pictures.encode(IMAGE, ".png")
    Path("in/d.png").write_bytes(picture)
    Path("in/d.sempic").write_bytes(sempic.encode(IMAGE, labels="none"))
    assert cli.main([command, "in", "-o", "out"]) == 0
    assert "skipped files of other kinds: 2 .gz, 1 .tgz\n" in capsys.readouterr().err


def test_the_shards_of_a_folder_are_encoded():
    Path("shards").mkdir()
    for i in range(2):
        tar(f"shards/{i}.tar", **{f"{i}.png": pictures.encode(IMAGE, ".png")})
    assert cli.main(["encode", "shards", "-o", "out"]) == 0
    assert contents("out/1.tar").keys() == {"1.sempic"}


def map_png(seed=0):
    return pictures.encode_labels(np.roll(LABELS, seed), sempic.PALETTES[0], ".png")


def test_a_label_map_beside_a_picture_is_copied():
    """The usual layouts of segmentation in WebDataset."""
    jpg, png = pictures.encode(IMAGE, ".jpg"), pictures.encode(IMAGE, ".png")
    painted = pictures.encode(sempic.PALETTES[1].paint(LABELS), ".png")
    samples = {
        "a.jpg": jpg,
        "a.png": map_png(),
        "a.json": b"{}",
        "d/b.jpg": jpg,
        "d/b.seg.png": painted,
        "c.png": png,
        "c.mask.png": map_png(1),
        "e.left.png": png,
        "e.right.png": pictures.encode(IMAGE[:, ::-1], ".png"),
        "e.depth.png": saved_16_bit(),
        "._a.png": b"of macOS",
        "f.png": map_png(),  # alone: a picture of few colours
    }
    tar("a.tar", **samples)
    assert cli.main(["encode", "a.tar", "-o", "out.tar"]) == 0
    coded = {"a.jpg", "d/b.jpg", "c.png", "e.left.png", "e.right.png", "f.png"}
    found = contents("out.tar")
    kept = {name: data for name, data in samples.items() if name not in coded}
    assert {name: found.get(name) for name in kept} == kept
    assert found.keys() - kept.keys() == {str(Path(n).with_suffix(".sempic")) for n in coded}


def saved_16_bit():
    out = io.BytesIO()
    PIL.Image.fromarray(np.arange(3072, dtype=np.uint16).reshape(48, 64)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    "names",
    [
        ("a.jpg", "a.jpeg"),
        ("a.jpg", "A.JPG"),
        ("a.jpg", "./a.webp"),
        ("a.jpg", "a.jpg"),
        ("a.jpg", "a.sempic"),
        ("a.txt", "a.txt"),
    ],
)
def test_shards_with_clashing_outputs_are_refused(names, capsys):
    data = pictures.encode(IMAGE, ".jpg")
    write_tar("a.tar", [(name, data) for name in names])
    assert cli.main(["encode", "a.tar", "-o", "out.tar"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(Path(name).name in err for name in names)
    assert ("is in it twice" if names[0] == names[1] else "--images") in err
    assert not Path("out.tar").exists()


def test_images_selects_pictures_in_tars_by_suffix(capsys):
    grey = pictures.encode_labels(LABELS, sempic.PALETTES[0], ".png")
    tar("a.tar", **{"a.png": grey, "a.gt.png": grey, "b.png": grey})
    refused(capsys, "encode a.tar -o out.tar", "a.png and a.gt.png: which is the picture? --images")
    tar("a.tar", **{"a.rgb.png": grey, "a.gt.png": grey, "b.rgb.png": grey})
    assert cli.main(["encode", "a.tar", "-o", "out.tar", "--images", "rgb.png"]) == 0
    found = contents("out.tar")
    assert found.keys() == {"a.rgb.sempic", "a.gt.png", "b.rgb.sempic"}
    assert found["a.gt.png"] == grey


def test_a_broken_picture_beside_its_map_is_the_only_member_that_fails(capsys):
    jpg = pictures.encode(IMAGE, ".jpg")
    tar("a.tar", **{"a.jpg": jpg[:300], "a.png": map_png(), "b.jpg": jpg, "b.png": map_png(1)})
    assert cli.main(["encode", "a.tar", "-o", "out.tar"]) == 2
    err = capsys.readouterr().err
    assert "a.tar/a.jpg: " in err
    assert err.endswith("1 of 2 files failed\n")
    assert contents("out.tar").keys() == {"a.png", "b.sempic", "b.png"}


def test_members_keep_the_key_of_their_sample(place):
    """`tar -C folder .` puts ./ before all names; WebDataset compares whole names."""
    png = pictures.encode(IMAGE, ".png")
    tar("a.tar", **{"./a.png": png, "./a.json": b"{}", "../b.left.png": png, "/c.png": png})
    assert cli.main(["encode", "a.tar", "-o", "out.tar"]) == 0
    names = {"./a.sempic", "./a.json", "../b.left.sempic", "/c.sempic"}
    assert contents("out.tar").keys() == names


@pytest.mark.parametrize("name", ["./a.png", "../a.png", "../../../../../a.png", "/a.png"])
def test_a_tar_is_coded_once_whatever_its_members_are_called(place, capsys, name):
    tar("a.tar", **{name: pictures.encode(IMAGE, ".png")})
    line = ["encode", "a.tar", "-o", "out.tar", "--manifest", "m.jsonl"]
    assert cli.main(line) == cli.main(line) == 0
    assert "1 of 1 are done" in capsys.readouterr().err


@pytest.mark.parametrize("moment", ["nan", "inf", "-inf"])
def test_a_member_whose_time_is_no_number_is_coded(moment):
    info = tarfile.TarInfo("a.png")
    info.pax_headers = {"mtime": moment}
    with tarfile.open("a.tar", "w") as out:
        out.addfile(info)
    changed = change(Path("a.tar").read_bytes(), lambda _: b"1", lambda members: members, ".x")
    Path("b.tar").write_bytes(changed)
    assert contents("b.tar") == {"a.x": b"1"}


def test_a_sparse_member_may_not_claim_any_number_of_bytes():
    def changed(size):
        info = tarfile.TarInfo("a.bin")
        info.size = 512
        sparse = {"size": size, "map": "0,512", "numblocks": 1}
        info.pax_headers = {f"GNU.sparse.{name}": str(value) for name, value in sparse.items()}
        with tarfile.open("a.tar", "w") as out:
            out.addfile(info, io.BytesIO(bytes(512)))
        data = Path("a.tar").read_bytes()
        return change(data, lambda member: member.data, lambda members: members, "")

    assert len(changed(1 << 20)) > 1 << 20
    with pytest.raises(InputError, match=r"damaged tar: a\.bin: more than 256 MiB"):
        changed(1 << 40)


def test_tars_with_dangling_links_are_refused(capsys):
    with tarfile.open("a.tar", "w") as out:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "gone.png"
        out.addfile(link)
    refused(capsys, "encode a.tar -o b.tar", "damaged tar: a.png is a link that leads to no member")
    with tarfile.open("a.tar", "w") as out:
        link.linkname = "a.png"
        out.addfile(link)
        out.addfile(link)
    refused(capsys, "encode a.tar -o b.tar", "damaged tar: a.png is a link that leads to no member")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_damaged_tar_is_refused_as_a_whole(mode):
    """tarfile takes a damaged header for the end, and does not see one of gzip: members after it
    were lost silently."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as made:
        for name in ("a.txt", "b.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = 999
            made.addfile(entry, io.BytesIO(np.random.default_rng(7).bytes(999)))
    data = bytearray(out.getvalue())
    assert len(change(data, lambda member: member.data, lambda members: members, "")) > 2048
    data[1536 if mode == "w" else len(data) // 2] ^= 1
    with pytest.raises(InputError, match="a damaged tar: "):
        change(data, lambda member: member.data, lambda members: members, "")


# ── decoding ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def coded(shots):
    Path("shots/bad.png").unlink()
    assert cli.main(["encode", *shots, "-o", "coded", "--max-side", "32"]) == 0
    Path("coded/bad.sempic").write_bytes(b"")
    return ["coded", "--only", "labels"]  # other processes then need no network


def test_decoding_in_several_processes_makes_the_same_files(coded, capsys):
    assert cli.main(["decode", *coded, "-o", "one"]) == 2
    assert cli.main(["decode", *coded, "-o", "two", "--jobs", "2"]) == 2
    assert contents_of("one", "*.png") == contents_of("two", "*.png")
    assert contents_of("two", "*.png").keys() == {f"{i}.labels.png" for i in range(3)}
    assert capsys.readouterr().err.count("1 of 4 files failed") == 2


def test_decoding_resumes_from_a_manifest(coded, capsys):
    run = ["decode", *coded, "-o", "out", "--manifest", "m.jsonl"]
    assert cli.main(run) == 2
    by_name = {Path(e["file"]).name: e for e in entries("m.jsonl")}
    assert by_name["0.sempic"]["output"] == "out/0.labels.png"
    assert "no bytes" in by_name["bad.sempic"]["error"]
    Path("out/1.labels.png").unlink()
    kept = Path("out/0.labels.png").stat().st_mtime_ns
    refused(capsys, run, "2 of 4 are done")
    assert Path("out/0.labels.png").stat().st_mtime_ns == kept
    assert Path("out/1.labels.png").exists()
    refused(capsys, [*run[:2], "--only", "coarse", *run[4:]], "other settings")


def test_tars_are_decoded(monkeypatch, capsys):
    monkeypatch.setattr(api.Codec, "receiver", FakeReceiver())
    tar("a.tar", **{"x/0.png": pictures.encode(IMAGE, ".png"), "x/0.cls": b"7"})
    assert cli.main(["encode", "a.tar", "-o", "b.tar"]) == 0
    assert cli.main(["decode", "b.tar", "-o", "c.tar", "--seed", "5"]) == 0
    found = contents("c.tar")
    assert found.keys() == {"x/0.png", "x/0.cls"}
    stream = contents("b.tar")["x/0.sempic"]
    assert np.array_equal(pictures.read(found["x/0.png"]), sempic.Codec().decode(stream, seed=5))
    tar("d.tar", **{"0.sempic": stream, "0.png": map_png(), "1.sempic": b"?"})
    refused(capsys, "decode d.tar -o e.tar", "0.sempic and 0.png would both become 0.png; --images")
    assert cli.main(["decode", "d.tar", "-o", "e.tar", "--images", "seen.jpg"]) == 2
    found = contents("e.tar")
    assert found.keys() == {"0.seen.jpg", "0.png"}
    assert found["0.seen.jpg"].startswith(b"\xff\xd8")
    assert "d.tar/1.sempic: not a .sempic" in capsys.readouterr().err
    refused(capsys, "decode b.tar -o f.tar --uncertainty u.png", "--uncertainty is for one file")


# ── failures of single files ───────────────────────────────────────────────────


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a\nb"),
        SyntaxError("x"),
        KeyError(7),
        RecursionError(),
        MemoryError(),
        Exception(),
    ],
)
@pytest.mark.parametrize("tars", [False, True])
def test_every_exception_is_recorded_with_its_file(error, tars, shots, monkeypatch, capsys):
    Path("shots/bad.png").unlink()
    encode = api.Codec.encode

    def fails(self, image, **options):
        if (image == np.roll(IMAGE, 1, 1)).all():
            raise error
        return encode(self, image, **options)

    monkeypatch.setattr(api.Codec, "encode", fails)
    if tars:
        tar("a.tar", **{p.name: p.read_bytes() for p in Path("shots").iterdir()})
        assert cli.main(["encode", "a.tar", "-o", "out.tar", "--manifest", "m.jsonl"]) == 2
        assert contents("out.tar").keys() == {"0.sempic", "2.sempic"}
    else:
        assert cli.main(["encode", "shots", "-o", "out", "--manifest", "m.jsonl"]) == 2
        assert contents_of("out").keys() == {"0.sempic", "2.sempic"}
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert err.count("\n") == 2
    failed = [e for e in entries("m.jsonl") if e["error"] is not None]
    assert [Path(e["file"]).name for e in failed] == ["1.png"]
    assert type(error).__name__ in failed[0]["error"] or failed[0]["error"] == "not enough memory"


def dies_of_two(job):
    if job.name in ("2", "5"):
        os._exit(1)
    return {"width": 1}


def test_a_file_that_ends_its_process_leaves_rays_actor_alive(importable, monkeypatch):
    """Ray repeats without end what ends an actor."""
    for name in engines._one_thread():
        monkeypatch.setenv(name, "1")
    actor = engines._Actor(dies_of_two)
    rows = ({"id": i, "job": pickle.dumps(job_called(str(i)))} for i in (1, 2, 3))
    answers = {answer["id"]: json.loads(answer["records"])[0] for answer in map(actor, rows)}
    actor._process.stop()
    assert [answers[i].get("error") for i in (1, 2, 3)] == [None, "a worker process died", None]


def test_a_dead_worker_costs_only_its_own_file(importable):
    todo = [job_called(str(i)) for i in range(8)]
    done = list(batch.in_processes(dies_of_two, todo, 2))
    assert [job for job, _ in done] == todo
    failed = {job.name: records[0]["error"] for job, records in done if "error" in records[0]}
    assert failed == {"2": "a worker process died", "5": "a worker process died"}


def waits(job):
    Path("started").touch()
    if job.name == "1":
        time.sleep(600)
    return {"width": 1}


HOLDS = """
import signal
import test_batch
from sempic import batch

if __name__ == "__main__":
    todo = [test_batch.job_called(str(i)) for i in range(4)]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for _ in batch.in_processes(test_batch.waits, todo, 2):
        pass
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="this system has no /proc")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGINT"])
def test_workers_end_with_their_parent(name, importable):
    Path("hold.py").write_text(HOLDS)
    with subprocess.Popen(
        [sys.executable, "hold.py"], start_new_session=True, stdout=-1, stderr=-1
    ) as parent:
        while not Path("started").exists():
            time.sleep(0.05)
        parent.send_signal(signal.Signals[name])
        try:
            parent.communicate(timeout=60)  # the workers hold the pipe as long as they live
        finally:
            parent.kill()  # otherwise a failing test would wait forever
    for _ in range(600):
        left = [p for p in Path("/proc").glob("[0-9]*/stat") if group(p) == parent.pid]
        if not left:
            break
        time.sleep(0.1)
    assert not left


def group(stat):
    try:
        state, _, process_group = stat.read_text().rsplit(")", 1)[1].split()[:3]
    except OSError:
        return None
    return None if state == "Z" else int(process_group)


# ── tars that fail as a whole ────────────────────────────────────────────────────────────────


def test_an_output_without_a_place_is_refused_before_the_work(shots, monkeypatch, capsys):
    monkeypatch.setattr(jobs.Job, "read", None)
    tar("a.tar", **{"0.png": pictures.encode(IMAGE, ".png")})
    said = "a.tar: none/b.tar: cannot write: No such file or directory"
    refused(capsys, "encode a.tar -o none/b.tar", said)
    refused(capsys, ["encode", *shots, "-o", "a.tar/x"], "a.tar/x: not a writable folder: Not a")


def test_tars_that_cannot_be_coded_are_refused(capsys):
    tar("a.tar", **{"0.png": pictures.encode(IMAGE, ".png")})
    refused(capsys, "encode a.tar", "replace itself")
    Path("b.tar").write_bytes(b"no tar")
    refused(capsys, "encode b.tar -o c.tar", "damaged tar")
    for open_as in ("w", "w:gz", "w:bz2", "w:xz"):
        with tarfile.open("a", open_as) as file:
            file.add("a.tar")
        for command in ("encode a", "decode a", "info a"):
            refused(
                capsys,
                command,
                "; it seems to be a tar: encode and decode take those, compressed or not, as N",
            )
    refused(capsys, "encode a -o c.tar", "under the name of a tar; by its name a is none")
    Path("b.tar").write_bytes(Path("a.tar").read_bytes()[:700])
    assert cli.main(["encode", "b.tar", "-o", "c.tar"]) == 2
    assert not Path("c.tar").exists()
    refused(capsys, "encode a.tar -o c.tar --labels maps", "not for tars")
    write_tar("b.tar", [("0.png", b"?"), ("0.cls", b"7"), ("0.cls", b"8")])  # as of tar -r
    refused(capsys, "encode b.tar -o c.tar", "b.tar: 0.cls is in it twice\n")


# ── files elsewhere ──────────────────────────────────────────────────────────────────────────


def test_sources_and_targets_may_be_uris(shots, place, capsys):
    pytest.importorskip("upath", reason="universal-pathlib is not installed (extra `ray`)")
    Path("shots/bad.png").unlink()
    source = f"{place.as_uri()}/shots"
    assert cli.main(["encode", source, "-o", "memory://bucket/out", "--manifest", "m.jsonl"]) == 0
    from upath import UPath

    assert UPath("memory://bucket/out/1.sempic").read_bytes() == sempic.Codec().encode(
        np.roll(IMAGE, 1, 1)
    )
    capsys.readouterr()
    assert cli.main(["encode", source, "-o", "memory://bucket/out", "--manifest", "m.jsonl"]) == 0
    assert "3 of 3 are done" in capsys.readouterr().err
    assert cli.main(["info", "memory://bucket/out"]) == 0
    refused(capsys, "info nowhere://bucket/out", "nowhere://bucket/out")
