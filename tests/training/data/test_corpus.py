import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from conftest import street
from PIL import Image
from streets import write_camvid

from sempic import cli, coarse
from sempic.errors import InputError, OutputError, SempicError, SempicWarning
from sempic.training.data import render
from sempic.training.data.corpus import open_corpus
from sempic.training.data.render import make
from sempic.training.options import CorpusOptions


@pytest.fixture
def data(tmp_path_factory):
    return write_camvid(tmp_path_factory.mktemp("data") / "camvid")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A corpus of eight samples, for tests that change nothing in it."""
    root = tmp_path_factory.mktemp("made")
    make(options(write_camvid(root / "camvid"), root / "c"))
    return root / "c"


@pytest.fixture
def copied(made, tmp_path):
    """A corpus of its own for the test, with its path."""
    return shutil.copytree(made, tmp_path / "c")


def options(data, out, **changes):
    usual = {"classes": "camvid", "renditions": 2, "side": 144, "workers": 1}
    return CorpusOptions(data=(str(data),), out=out, **usual | changes)


def test_a_full_disk_names_the_folder_of_the_user(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError) as failed, render._folder(tmp_path / "c"):
            render._write(tmp_path / "c", [{"json": bytes(5000)}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(failed.value) == f"{tmp_path / 'c'}: cannot write: File too large"
    assert not list(tmp_path.iterdir())


def test_a_corpus_is_made_once_and_aligned(tmp_path, data, capsys):
    make(options(data, tmp_path / "c"))
    found = open_corpus([tmp_path / "c"])
    train, val = found.part(judged=False), found.part(judged=True)
    assert (len(train), len(val)) == (6, 2)
    assert found.weights == {"camvid": 36}
    for sample in found.samples:
        height, width = sample.image.shape[:2]
        assert height % 16 == width % 16 == 0
        assert len(sample.maps) == 1
        assert sample.maps[0].shape == (height, width)
        assert len(sample.coarse) == (1 if sample.judged else 2)
        for small in sample.coarse:
            expected = coarse.downscale(sample.image).astype(int)
            assert small.shape == expected.shape
            assert np.abs(expected - small).mean() < 25
    about = json.loads((tmp_path / "c/corpus.json").read_text())
    assert about["samples"] == 8
    make(options(data, tmp_path / "c"))
    assert "there already" in capsys.readouterr().out
    make(options(data, tmp_path / "d"))  # the same bytes again
    first, second = (tmp_path / folder / "shard-0000.tar" for folder in "cd")
    assert first.read_bytes() == second.read_bytes()


def test_a_corpus_of_other_files_or_options_is_refused(tmp_path, data):
    make(options(data, tmp_path / "c"))
    with pytest.raises(InputError, match=r"other files or options \(renditions, seed\)"):
        make(options(data, tmp_path / "c", seed=1, renditions=1))
    with pytest.raises(InputError, match=r"\(folders\)"):
        make(options(data.rename(tmp_path / "streets"), tmp_path / "c"))
    (tmp_path / "streets").rename(data)
    image, labels = street(144, 192, 9)
    Image.fromarray(image).save(data / "train/9.png")
    Image.fromarray(labels).save(data / "trainannot/9.png")
    with pytest.raises(InputError, match="other files or options"):
        make(options(data, tmp_path / "c"))


def rewrite(corpus, **changes):
    """Changes the recipe of a corpus; None removes."""
    path = corpus / "corpus.json"
    about = json.loads(path.read_text())
    about["recipe"] |= changes
    about["recipe"] = {k: v for k, v in about["recipe"].items() if v is not None}
    path.write_text(json.dumps(about))


@pytest.mark.parametrize("changes", [{"segmenter": "5e6", "maps": None}, {"blur": [0.1, 1, 2]}])
def test_a_corpus_of_another_version_is_opened_with_a_warning(copied, changes):
    rewrite(copied, **changes)
    name = list(changes)[-1]
    given = "--segmenter FILE " * ("segmenter" in changes)
    command = f"`sempic train corpus DATA {given}--renditions 2 --coarse 2 --side 144 --seed 0 "
    with pytest.warns(SempicWarning) as told:
        assert len(open_corpus([copied]).samples) == 8
    (said,) = (str(warning.message) for warning in told)
    assert said.startswith(
        f"{copied}: used as it is, but another version of sempic made its {name} in another way"
    )
    assert command in said


def test_maps_of_people_are_of_no_version(copied):
    rewrite(copied, maps="of full size")
    assert len(open_corpus([copied]).samples) == 8


def test_a_corpus_of_another_version_is_not_taken_for_a_new_one(copied, data):
    rewrite(copied, blur=None)
    with pytest.raises(InputError, match=r"c holds a corpus of another version of sempic \(blur\)"):
        make(options(data, copied))


def test_other_weights_replace_those_of_a_corpus(tmp_path, data, capsys):
    make(options(data, tmp_path / "c", renditions=1))
    assert "pictures: camvid " in capsys.readouterr().out
    made = (tmp_path / "c/shard-0000.tar").stat().st_mtime_ns
    make(options(f"{data}=2.5", tmp_path / "c", renditions=1))
    assert "with other weights now" in capsys.readouterr().out
    assert open_corpus([tmp_path / "c"]).weights == {"camvid": 2.5}
    assert (tmp_path / "c/shard-0000.tar").stat().st_mtime_ns == made


def test_two_weights_of_one_source_are_refused(tmp_path, data):
    make(options(data, tmp_path / "a"))
    make(options(f"{data}=2.5", tmp_path / "b", seed=1))
    with pytest.raises(InputError, match=r"b: camvid has the weight 2\.5 here, but 36 in another"):
        open_corpus([tmp_path / "a", tmp_path / "b"])
    make(options(data, tmp_path / "b", seed=1))
    assert len(open_corpus([tmp_path / "a", tmp_path / "b"]).samples) == 16


def test_several_processes_write_the_same_bytes(tmp_path, data):
    make(options(data, tmp_path / "one", renditions=1))
    make(options(data, tmp_path / "two", renditions=1, workers=2))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_shards_are_limited_and_damage_is_named(tmp_path, data, monkeypatch):
    monkeypatch.setattr(render, "SHARD", 100_000)
    make(options(data, tmp_path / "c"))
    shards = sorted((tmp_path / "c").glob("shard-*.tar"))
    assert len(shards) > 2
    assert len(open_corpus([tmp_path / "c"]).samples) == 2 * len(list(data.glob("train/*"))) + 2
    shards[1].write_bytes(shards[1].read_bytes()[:1000])
    with pytest.raises(InputError, match=r"shard-0001\.tar"):
        open_corpus([tmp_path / "c"])
    shards[1].unlink()
    with pytest.raises(InputError, match="shards, expected"):
        open_corpus([tmp_path / "c"])
    with pytest.raises(InputError, match="no corpus"):
        open_corpus([tmp_path])


def test_a_corpus_given_twice_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"^\S+, \S+link: the same corpus twice"):
        open_corpus([tmp_path, tmp_path / "other", tmp_path / "link"])


def test_a_truncated_shard_is_refused(copied):
    shard = copied / "shard-0000.tar"
    with tarfile.open(shard) as tar:
        second = next(m.offset for m in tar.getmembers() if m.name.startswith("000001."))
    shard.write_bytes(shard.read_bytes()[:second])
    with pytest.raises(InputError, match="1 samples, expected 8"):
        open_corpus([copied])


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "[" * 3000,
        '{"format": "sempic.corpus/1"}',
        '{"format": "sempic.corpus/1", "recipe": 1}',
    ],
)
def test_a_damaged_corpus_json_is_named(text, tmp_path):
    (tmp_path / "corpus.json").write_text(text)
    with pytest.raises(InputError, match=r"corpus\.json: "):
        open_corpus([tmp_path])


def test_a_corpus_that_cannot_be_made_leaves_nothing(tmp_path, data):
    damaged = write_camvid(tmp_path / "bad") / "trainannot/0.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("dear")
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars/shard-000000.tar").write_bytes(b"pictures of somebody's own")
    (tmp_path / "file").write_text("dear")
    for spec, out, why in (
        (tmp_path / "bad", tmp_path / "c", "damaged picture"),
        (data, tmp_path / "full", "something else"),
        (data, tmp_path / "tars", "something else"),
        (data, tmp_path / "file", "Not a directory"),
    ):
        with pytest.raises(SempicError, match=why):
            make(options(spec, out))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad", "file", "full", "tars"]
    assert (tmp_path / "tars/shard-000000.tar").exists()


@pytest.mark.parametrize("stop", [InputError, KeyboardInterrupt])
def test_a_folder_that_was_there_stays_without_shards(tmp_path, stop):
    def begun(folder):
        (folder / "shard-0000.tar").write_bytes(b"half")
        raise stop

    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "new/c"):
        with pytest.raises(stop), render._folder(folder):
            begun(folder)
    assert [p.name for p in tmp_path.rglob("*")] == ["there"]


def test_workers_leave_ctrl_c_to_their_parent(tmp_path, data, monkeypatch):
    class Pool(contextlib.nullcontext):
        map = staticmethod(map)

        def __init__(self, count, context, begin):
            super().__init__(self)
            begin()

    monkeypatch.setattr(render, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(render.processes, "watch_parent", lambda: None)
    before = signal.getsignal(signal.SIGINT)
    try:
        list(render._rendered([], options(data, tmp_path, workers=2)))
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def waits(options, job):
    (options.out / f"begun{job.rendition}").touch()
    time.sleep(600)


def test_workers_end_with_a_killed_parent(tmp_path, data):
    code = (
        "import sys; from pathlib import Path; import test_corpus as t; t.render._work = t.waits; "
        "t.make(t.options(sys.argv[1], Path(sys.argv[2]), workers=2))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, data, tmp_path / "c"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    ) as parent:
        while len(list(tmp_path.glob("c/begun*"))) < 2:
            assert parent.poll() is None
            time.sleep(0.05)
        parent.kill()
        parent.communicate(timeout=60)  # the workers hold the pipe as long as they live


def begins(begun):
    render._begin()
    begun.set()
    time.sleep(60)


def test_a_worker_does_not_die_of_the_sigterm_that_its_parent_gets_too():
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    worker = context.Process(target=begins, args=(begun,))
    worker.start()
    try:
        assert begun.wait(60)
        os.kill(worker.pid, signal.SIGTERM)
        worker.join(0.5)
        assert worker.is_alive()
    finally:
        worker.kill()
        worker.join()


def dies(options, job):
    os._exit(1)


def test_a_dead_worker_takes_one_line(tmp_path, data, monkeypatch, capsys):
    monkeypatch.setattr(render, "_work", dies)
    words = f"{data} --classes camvid --out {tmp_path / 'c'} --workers 2"
    assert cli.main(["train", "corpus", *words.split()]) == 2
    said = "sempic: a worker process died (out of memory? fewer --workers take less)\n"
    assert capsys.readouterr().err.endswith(said)
    assert not list(tmp_path.iterdir())


def test_an_unwritable_folder_is_named_before_any_picture_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(OutputError, match="c: not a writable folder"):
        make(options(tmp_path / "no pictures", tmp_path / "c"))


def test_a_corpus_is_of_one_run_at_a_time(tmp_path):
    pytest.importorskip("fcntl")
    with render._folder(tmp_path / "c"):
        (tmp_path / "c/shard-0000.tar").write_bytes(b"of the first run")
        again = render._folder(tmp_path / "c")
        with pytest.raises(OutputError, match="c: another run writes it now"), again:
            pass
        assert (tmp_path / "c/shard-0000.tar").exists()


def test_shards_of_an_interrupted_run_are_not_used(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c/shard-0007.tar").write_bytes(b"")
    make(options(write_camvid(tmp_path / "camvid"), tmp_path / "c"))
    assert len(open_corpus([tmp_path / "c"]).samples) == 8


@pytest.mark.parametrize(("classes", "why"), [("cityscapes", None), ("camvid", "give --segm")])
def test_a_limit_counts_pictures_that_can_be_used(tmp_path, classes, why):
    data = tmp_path / "plain"
    (data / "cityscapes").mkdir(parents=True)
    for name in "abcdef":
        image, labels = street(144, 192)
        Image.fromarray(image).save(data / f"{name}.png")
        if name in "cf":  # a teacher's maps
            Image.fromarray(labels).save(data / f"cityscapes/{name}.png")
    wanted = options(data, tmp_path / "c", classes=classes, limit=2, renditions=1)
    if why:
        with pytest.raises(InputError, match=why):
            make(wanted)
    else:
        make(wanted)
        names = [sample.name for sample in open_corpus([tmp_path / "c"]).samples]
        assert names == ["plain/c", "plain/f"]


def test_pictures_without_maps_need_a_segmenter(tmp_path):
    (tmp_path / "plain").mkdir()
    Image.fromarray(street(144, 192)[0]).save(tmp_path / "plain/a.png")
    with pytest.raises(InputError, match="give --segmenter"):
        make(options(tmp_path / "plain", tmp_path / "c"))
    assert not (tmp_path / "c").exists()


def test_a_picture_too_narrow_for_a_corpus_is_named(tmp_path):
    for kind, size in (("images", (900, 3, 3)), ("labels", (900, 3))):
        (tmp_path / "thin" / kind).mkdir(parents=True)
        Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / f"thin/{kind}/a.png")
    with pytest.raises(SempicError, match=r"thin/images/a.png: a coarse picture of .* beyond 4096"):
        make(options(tmp_path / "thin", tmp_path / "c"))


def test_a_few_pictures_without_a_split_are_validated_apart(tmp_path):
    data = write_camvid(tmp_path / "camvid", train=5, val=0)
    for new, old in (("images", "train"), ("labels", "trainannot")):
        (data / old).rename(data / new)
    for old in ("val", "valannot"):
        (data / old).rmdir()
    make(options(data, tmp_path / "c"))
    found = open_corpus([tmp_path / "c"])
    (judged,) = found.part(judged=True)
    learnt = found.part(judged=False)
    assert len(learnt) == 2 * 4
    assert judged.name not in {sample.name for sample in learnt}


def test_a_folder_with_val_alone_is_named(tmp_path):
    data = write_camvid(tmp_path / "camvid", train=0)
    for name in ("train", "trainannot"):
        (data / name).rmdir()
    with pytest.raises(InputError, match=r"camvid: only its val has pictures: .* the weight 0"):
        make(options(data, tmp_path / "c"))


def test_a_corpus_opens_without_a_codec(made):
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from pathlib import Path\n"
        "import sempic.training.recipes.distill\n"
        "from sempic.training.data.corpus import open_corpus\n"
        f"print(len(open_corpus([Path({str(made)!r})]).samples))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 8


def test_a_source_without_a_weight_is_named(copied):
    about = copied / "corpus.json"
    about.write_text(about.read_text().replace('"camvid": {', '"other": {'))
    with pytest.raises(InputError, match="samples of camvid"):
        open_corpus([copied])
