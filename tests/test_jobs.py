"""Planning of jobs: names, targets and conflicts, before any work."""

import os
import unicodedata
from pathlib import Path

import pytest

from sempic import batch, jobs, places
from sempic.errors import InputError, OutputError, SempicError


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")


def plan(*inputs, output=None, suffix=".sempic", **options):
    found = jobs.find(
        list(inputs), output, accepted={".png", ".jpg", ".tar"}, suffix=suffix, **options
    )
    return {str(job.source): None if job.target is None else str(job.target) for job in found}


def test_folders_keep_their_names_where_they_would_clash():
    touch("train/0.png", "val/0.png", "val/deep/1.png", "other/2.png")
    assert plan("train", "val", "other", output="out") == {
        "train/0.png": "out/train/0.sempic",
        "val/0.png": "out/val/0.sempic",
        "val/deep/1.png": "out/val/deep/1.sempic",
        "other/2.png": "out/2.sempic",
    }
    assert plan("train/", "./val", output="out")["val/0.png"] == "out/val/0.sempic"
    assert plan("train/0.png", "val/0.png", output="out")["val/0.png"] == "out/val/0.sempic"
    assert plan("train/0.png", "val", output="out")["val/deep/1.png"] == "out/val/deep/1.sempic"


@pytest.mark.parametrize(
    "names",
    [
        ("a.png", "a.jpg"),
        ("a.png", "a.jpg", "a.png.jpg"),
        ("a.png", "a.jpg", "a.png.jpg", "a.png.png", "a.png.png.png"),
        ("a.png", "A.jpg"),
        ("ä.png", "a\u0308.jpg"),  # composed and decomposed
        ("straße.png", "STRASSE.jpg"),
        ("a.sempic/b.png", "a.png"),  # one target is a parent folder of the other
        ("a.sempic/b.png", "a.png", "a.jpg"),
        ("a.tar", "a.tar.png"),
    ],
)
def test_no_two_jobs_share_a_target(names):
    touch(*(f"in/{name}" for name in names))
    targets = list(plan("in", output="out").values())
    keys = {unicodedata.normalize("NFC", os.path.abspath(t)).casefold() for t in targets}
    assert len(keys) == len(targets)
    for key in keys:
        assert not any(other.startswith(key + os.sep) for other in keys)


def test_planning_is_linear(monkeypatch):
    """Archives have a million files, and each look at one on a network disk takes time."""
    for folder in ("train", "val"):
        touch(*(f"{folder}/{i}.png" for i in range(50)))
    looks = []
    look = jobs._real
    monkeypatch.setattr(jobs, "_real", lambda path: looks.append(path) or look(path))
    assert len(plan("train", output="out")) == 50
    assert len(looks) <= 50
    looks.clear()
    targets = plan("train", "val", output="out")  # all names clash
    assert {Path(target).parent.name for target in targets.values()} == {"train", "val"}
    assert len(looks) <= 5 * 100


def test_two_sources_of_one_target_are_refused_by_name():
    touch("a/shots/0.png", "b/shots/0.png")
    with pytest.raises(InputError, match=r"a/shots/0.png and b/shots/0.png would both become out"):
        plan("a/shots", "b/shots", output="out")
    touch("x/a.png", "y/a.png")
    Path("out").mkdir()
    Path("out/one").mkdir()
    Path("out/x").symlink_to("one")
    Path("out/y").symlink_to("one")
    with pytest.raises(InputError, match="would both become"):  # through links
        plan("x", "y", output="out")


def test_names_that_differ_only_in_case_clash_where_case_is_ignored(monkeypatch):
    touch("in/a.png", "in/A.png")
    assert len(set(plan("in", output="out").values())) == 2
    monkeypatch.setattr(jobs, "_ignores_case", lambda sources: True)
    with pytest.raises(InputError, match=r"in/A.png and in/a.png would both become"):
        plan("in", output="out")


def test_tars_whose_names_differ_only_in_case_keep_their_names():
    touch("in/x.tar", "in/X.tar", "in/y.tar", "in/y.TAR")
    assert plan("in", output="out") == {
        "in/x.tar": "out/x.tar",
        "in/X.tar": "out/X.tar",
        "in/y.tar": "out/y.tar",
        "in/y.TAR": "out/y.TAR.tar",
    }


def test_inputs_named_twice_are_done_once():
    touch("in/a.png", "in/b.png")
    Path("link").symlink_to("in")
    for names in (["in", "in"], ["in", "in/a.png"], ["in", "./in/"], ["in", "link"]):
        assert len(plan(*names, output="out")) == 2
    assert plan("in/a.png", "in/a.png") == {"in/a.png": "in/a.sempic"}
    Path("in/latest").symlink_to("day")  # as cameras make them
    touch("in/day/0.png")
    assert sorted(plan("in").values()) == ["in/a.sempic", "in/b.sempic", "in/latest/0.sempic"]
    assert len(plan("in", output="out")) == 4


def test_no_target_overwrites_a_source():
    touch("a.png", "b.png", "c.png", "net.onnx", "map.png")
    Path("a.sempic").symlink_to("a.png")
    os.link("b.png", "b.sempic")
    Path("c.sempic").symlink_to("map.png")
    Path("folder").mkdir()
    Path("folder/a.png").symlink_to("../a.png")
    for inputs, options in (
        (["a.png"], {"output": "a.png"}),
        (["a.png"], {"output": "./folder/../a.png"}),
        (["a.png"], {}),  # by a link
        (["b.png"], {}),  # by a hard link
        (["folder/a.png"], {"output": "a.png"}),
        (["a.png"], {"output": "net.onnx", "reads": ["net.onnx"]}),
        (["c.png"], {"reads": ["map.png"]}),
        (["c.png"], {"output": "new", "writes": ["c.png"]}),
        (["c.png"], {"output": "new", "writes": ["map.png"], "reads": ["map.png"]}),
        (["c.png"], {"output": "new", "writes": ["./new"]}),
    ):
        with pytest.raises(OutputError, match=r"would replace|twice|by its name"):
            plan(*inputs, **options)
    for named in ({"output": "a.png"}, {"output": "a.png", "suffix": ".png"}):
        with pytest.raises(OutputError, match=r"^a.png: would replace itself; name another"):
            plan("a.png", **named)
    with pytest.raises(OutputError, match="by its name a picture, not a"):
        plan("a.png", suffix=".png")
    touch("a.tar")
    with pytest.raises(OutputError, match="would replace itself; name another output with -o"):
        plan("a.tar")
    touch("x.sempic.png", "x.png")
    Path("x.sempic").symlink_to("x.sempic.png")
    with pytest.raises(OutputError, match=r"x.png: its output x.sempic would replace x.sempic.png"):
        plan("x.png", "x.sempic.png")


def test_no_remote_target_overwrites_a_source():
    upath = pytest.importorskip("upath", reason="universal-pathlib is not installed (extra `ray`)")
    for name in ("a.tar", "photo"):
        upath.UPath(f"memory://there/{name}").write_bytes(b"kept")
    for name, output in (
        ("a.tar", None),
        ("a.tar", "memory://there"),
        ("a.tar", "memory://there/a.tar"),
        ("photo", "memory://there/photo"),
    ):
        with pytest.raises(OutputError, match=f"^memory://there/{name}: would replace itself"):
            plan(f"memory://there/{name}", output=output)
    assert plan("memory://there/photo", output="memory://there") == {
        "memory://there/photo": "memory://there/photo.sempic"
    }


def test_errors_of_a_store_name_the_file(monkeypatch):
    upath = pytest.importorskip("upath", reason="universal-pathlib is not installed (extra `ray`)")

    def denied(_):
        raise RuntimeError("access denied")

    monkeypatch.setattr(type(upath.UPath("memory://there")), "is_dir", denied)
    with pytest.raises(InputError, match=r"^memory://there/a\.png: access denied"):
        plan("memory://there/a.png")


@pytest.mark.parametrize(
    ("source", "output", "suffix", "said"),
    [
        ("a.tar", "b.png", ".png", "b.png: a .tar file under the name of a .png file"),
        ("a.tar", "b.SEMPIC", ".sempic", "b.SEMPIC: a .tar file under the name of a .sempic file"),
        ("a.tar", "b.tar.gz", ".sempic", "b.tar.gz: a .tar file under the name of a .gz file"),
        (
            "a.png",
            "b.tar",
            ".sempic",
            "b.tar: a .sempic file under the name of a tar; by its name a.png is none",
        ),
        (
            "a.png",
            "b.TAR",
            ".png",
            "b.TAR: a .png file under the name of a tar; by its name a.png is none",
        ),
    ],
)
def test_only_targets_of_tars_are_named_as_tars(source, output, suffix, said):
    touch(source)
    with pytest.raises(OutputError, match=f"^{said}$"):
        plan(source, output=output, suffix=suffix)
    assert plan("a.tar", output="shard", suffix=suffix) == {"a.tar": "shard"}


def test_standard_input_is_a_source(monkeypatch):
    touch("a.png")
    with open("a.png") as file:
        monkeypatch.setattr("sys.stdin", file)
        with pytest.raises(OutputError, match="would replace"):
            plan("-", output="a.png")


@pytest.mark.parametrize("options", [{}, {"output": "out"}, {"output": "-"}])
def test_empty_names_are_refused(options):
    touch("a.png")
    for inputs in ([""], ["a.png", ""]):
        with pytest.raises(InputError, match="empty name"):
            plan(*inputs, **options)
    with pytest.raises(InputError, match="empty name"):
        plan("a.png", output="")
    for inputs, output in ((["a\0.png"], None), (["a.png"], "b\0.sempic")):
        with pytest.raises(InputError, match="null character"):
            plan(*inputs, output=output)
    with pytest.raises(InputError, match="no files and no folders"):
        plan()
    assert plan(".") == {"a.png": "a.sempic"}  # the dot still means the folder


def test_a_file_may_be_called_dash():
    touch("-")
    (job,) = jobs.find(["./-"], "./out-", accepted=(), suffix=".sempic")
    assert job.read() == b"x"
    (job,) = jobs.find(["./-"], "./-x/../-2", accepted=(), suffix=".sempic")
    assert job.target != places.STDOUT
    (job,) = jobs.find(["-"], "./-", accepted=(), suffix=".sempic")
    assert job.target != places.STDOUT
    assert job.target.name == "-"


def test_names_beyond_the_length_limit_are_refused():
    (job,) = jobs.find(["x" * 300], None, accepted=(), suffix=".sempic")
    with pytest.raises(SempicError, match="too long"):
        job.read()
    with pytest.raises(SempicError, match="too long"):
        job.write(b"x")


def test_unreadable_files_are_failed_jobs(capsys):
    touch("in/a.png")
    Path("in/b.png").symlink_to("gone")
    touch("in/c.heic", "in/d.HEIC", "in/e.dng", "in/f.txt")
    found = jobs.find(["in"], "out", accepted={".png"}, suffix=".sempic", foreign={".heic", ".dng"})
    assert [(j.name, j.target and str(j.target)) for j in found] == [
        ("in/a.png", "out/a.sempic"),
        ("in/b.png", None),
    ]
    with pytest.raises(InputError, match="link"):
        found[1].read()
    assert capsys.readouterr().err == "sempic: skipped files of other kinds: 2 .heic, 1 .dng\n"
    touch("phone/c.heic", "phone/d.mov", "phone/e.mov")
    with pytest.raises(InputError, match=r"^phone: no files .* but 2 .mov, 1 .heic$"):
        jobs.find(["phone"], "out", accepted={".png"}, suffix=".sempic", foreign={".heic", ".mov"})


def test_no_output_lies_beside_a_device(tmp_path):
    reader, writer = os.pipe()  # as in sempic encode <(curl …)
    for name in (f"/dev/fd/{reader}", "/dev/null", "/dev/stdin"):
        with pytest.raises(OutputError, match=f"^{name}: name the output with -o"):
            plan(name)
        assert plan(name, output="a.sempic") == {name: "a.sempic"}
    assert plan("/dev/shm/frame.png") == {"/dev/shm/frame.png": "/dev/shm/frame.sempic"}
    os.close(reader)
    os.close(writer)


def test_a_job_whose_target_cannot_be_written_is_refused_before_it_is_read(monkeypatch):
    touch("a.png", "file")
    Path("sub").mkdir()
    (job,) = jobs.find(["a.png"], None, accepted={".png"}, suffix=".sempic")
    job.check()
    for output, why in (("none/a.sempic", "No such file"), ("file/", "Not a directory")):
        (other,) = jobs.find(["a.png"], output, accepted={".png"}, suffix=".sempic")
        with pytest.raises(OutputError, match=why):
            other.check()
    monkeypatch.setattr(os, "access", lambda *_: False)  # a card mounted read-only
    with pytest.raises(OutputError, match=r"^a\.sempic: cannot write: "):
        job.check()
    with pytest.raises(OutputError, match=r"^a\.sempic: cannot write: "):
        batch.Encode()(job)
    (long,) = jobs.find(["a.png"], "o" * 300, accepted={".png"}, suffix=".sempic")
    with pytest.raises(OutputError, match="oo: cannot write: File name too long"):
        long.check()
    (device,) = jobs.find(["a.png"], "/dev/null", accepted={".png"}, suffix=".sempic")
    device.check()
