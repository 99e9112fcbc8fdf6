import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
from conftest import FakeSegmenter, give_stdin, street
from priors import write_prior

import sempic
from sempic import api, cli, commands, models, pictures, processes
from sempic.commands import train
from sempic.errors import install_hint
from sempic.labels import own
from sempic.palette import CAMVID

IMAGE, LABELS = street(48, 64)
pytestmark = pytest.mark.usefixtures("place")
REAL = {name: vars(api.Codec)[name] for name in ("segmenter", "receiver")}


@pytest.fixture
def photo():
    return picture("photo.png")


def picture(name, image=IMAGE):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pictures.encode(image, path.suffix))
    return path


def files(folder="."):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


def one_line(capsys, *parts):
    """Check that nothing is on stdout, and on stderr one line with all of the parts."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("sempic: ")
    for part in parts:
        assert part in err


def refused(capsys, command, *parts):
    """Check that the command fails with one line on stderr that has all of the parts."""
    capsys.readouterr()
    assert cli.main(command if isinstance(command, list) else command.split()) == 2
    one_line(capsys, *parts)


def test_encode_info_decode(photo, capsys):
    assert cli.main(["encode", "photo.png"]) == 0
    out = capsys.readouterr().out
    size = os.path.getsize("photo.sempic")
    assert f"{size} bytes, {8 * size / (64 * 48):.4f} bpp" in out
    assert cli.main(["info", "photo.sempic"]) == 0
    out = capsys.readouterr().out
    for part in ("version 1, 64×48, palette camvid", "labels", "coarse (bpg)", f"{size} bytes"):
        assert part in out
    assert out.endswith(f"{models.TERMS}\n")
    assert cli.main(["decode", "photo.sempic", "-o", "out.png", "--steps", "3", "--seed", "7"]) == 0
    pixels = np.array(PIL.Image.open("out.png"))
    assert np.array_equal(pixels[..., 0], FakeSegmenter()(IMAGE))
    assert pixels[0, 0, 1:].tolist() == [3, 7]


def test_uncertainty(photo, capsys):
    cli.main(["encode", "photo.png"])
    command = ["decode", "photo.sempic", "-o", "out.png", "--samples", "3"]
    assert cli.main([*command, "--uncertainty", "map.png"]) == 0
    grey = np.array(PIL.Image.open("map.png"))
    assert grey.shape == (48, 64)
    assert (grey == round(4 / 3**0.5)).all()  # only blue, the seed, varies: 0, 1, 2
    capsys.readouterr()
    for wrong in (["photo.sempic", "photo.sempic"], ["photo.sempic", "--only", "labels"]):
        command = ["decode", *wrong, "-o", "out", "--uncertainty", "map.png"]
        refused(capsys, command, "--uncertainty is for one file")


def test_picture_and_uncertainty_are_replaced_together_or_not_at_all(photo, capsys):
    cli.main(["encode", "photo.png"])
    for name in ("out.png", "map.png"):
        Path(name).write_bytes(b"before")
    command = ["decode", "photo.sempic", "--samples", "2", "-o"]
    for picture, spread in (
        ("none/out.png", "map.png"),
        ("out.xyz", "map.png"),
        ("out.png", "none/map.png"),
        ("out.png", "map.xyz"),
    ):
        assert cli.main([*command, picture, "--uncertainty", spread]) == 2
        assert files() == ["map.png", "out.png", "photo.png", "photo.sempic"]
        assert Path("out.png").read_bytes() == Path("map.png").read_bytes() == b"before"
    refused(
        capsys,
        [*command, "out.png", "--uncertainty", "none/map.png"],
        "photo.sempic: none/map.png: cannot write",
    )
    assert cli.main([*command, "out.png", "--uncertainty", "map.png"]) == 0
    for name in ("out.png", "map.png"):
        assert pictures.peek(Path(name).read_bytes()) == (64, 48)


def test_decode_does_not_replace_the_original_unless_named(photo, capsys):
    cli.main(["encode", "photo.png"])
    before = photo.read_bytes()
    refused(capsys, "decode photo.sempic", "photo.sempic", "photo.png exists")
    assert photo.read_bytes() == before
    assert cli.main(["decode", "photo.sempic", "-o", "photo.png"]) == 0
    assert photo.read_bytes() != before


def test_quality_and_coarse_codec(photo):
    for i, options in enumerate((["-q", "1"], ["-q", "9"], ["--coarse-codec", "webp"])):
        assert cli.main(["encode", "photo.png", "-o", f"{i}.sempic", *options]) == 0
    low, high, webp = (sempic.info(Path(f"{i}.sempic").read_bytes()) for i in range(3))
    assert low["bytes"] < high["bytes"]
    assert webp["coarse_codec"] == "webp"


def test_encode_takes_labels_from_a_file(photo, capsys):
    Path("map.png").write_bytes(pictures.encode(np.dstack([LABELS] * 3), ".png"))
    refused(capsys, "encode photo.png --labels map.png", "photo.png", "map.png", "mode RGB")
    PIL.Image.fromarray(LABELS).save("map.png")
    assert cli.main(["encode", "photo.png", "--labels", "map.png"]) == 0
    assert np.array_equal(sempic.unpack(Path("photo.sempic").read_bytes()).labels, LABELS)
    assert cli.main(["encode", "photo.png", "--labels", "map.png", "--palette", "cityscapes"]) == 0
    assert sempic.unpack(Path("photo.sempic").read_bytes()).palette == 2


@pytest.mark.parametrize("palette", ["camvid", "cityscapes", "cityscapes-labelids", "indices"])
def test_encode_takes_the_map_that_decode_writes(photo, palette):
    labels = LABELS if palette == "camvid" else LABELS + 8
    stream = sempic.encode(IMAGE, labels=labels, palette=palette)
    Path("coded.sempic").write_bytes(stream)
    assert cli.main(["decode", "coded.sempic", "--only", "labels", "-o", "map.png"]) == 0
    assert cli.main(["encode", "photo.png", "--labels", "map.png"]) == 0
    assert Path("photo.sempic").read_bytes() == stream
    named = ["encode", "photo.png", "--labels", "map.png", "--palette", "indices"]
    assert cli.main(named) == 0  # a given palette wins
    assert sempic.unpack(Path("photo.sempic").read_bytes()).palette == 0


def test_encode_sends_no_map_on_demand(photo, capsys):
    expected = sempic.encode(IMAGE, labels="none")
    assert cli.main(["encode", "photo.png", "--labels", "none"]) == 0
    assert Path("photo.sempic").read_bytes() == expected
    with tarfile.open("a.tar", "w") as tar:
        tar.add("photo.png")
    assert cli.main(["encode", "a.tar", "-o", "b.tar", "--labels", "none"]) == 0
    with tarfile.open("b.tar") as tar:
        assert tar.extractfile("photo.sempic").read() == expected
    refused(capsys, "encode photo.png --labels ./none", "none: cannot read: No such file")


def test_a_custom_prior(photo, capsys):
    PIL.Image.fromarray(LABELS).save("map.png")
    digest = own.load(write_prior(Path("mine.npz"), sempic.PALETTES[1], LABELS)).digest
    given = ["--prior", "mine.npz"]
    assert cli.main(["encode", "photo.png", "--labels", "map.png", *given]) == 0
    decode = ["decode", "photo.sempic", "-o", "out.png"]
    assert cli.main([*decode, *given]) == 0
    assert np.array_equal(pictures.read(Path("out.png").read_bytes())[..., 0], LABELS)
    assert cli.main([*decode, "--only", "labels", *given]) == 0
    assert cli.main(["info", "photo.sempic", "--map", *given]) == 0
    capsys.readouterr()
    Path("out.png").unlink()
    for command in (decode, [*decode, "--only", "labels"], ["info", "photo.sempic", "--map"]):
        refused(capsys, command, "photo.sempic", f"begins with {digest}; none is given")
    assert not Path("out.png").exists()
    Path("bad.npz").write_bytes(b"nonsense")
    missing = "gone.npz is no prior of the label coder: No such file or directory"
    refused(capsys, "encode photo.png --prior gone.npz", "photo.png", missing)
    broken = "bad.npz is no prior of the label coder"
    refused(capsys, "encode photo.png --prior bad.npz", "photo.png", broken)
    refused(capsys, ["info", "photo.sempic", *given], "--prior is for --map")
    assert cli.main(["encode", "photo.png", *given, "-o", "mine.npz"]) == 2


def test_encode_takes_labels_from_a_folder():
    for i in range(2):
        picture(f"shots/{i}.png")
        Path("maps").mkdir(exist_ok=True)
        PIL.Image.fromarray(np.roll(LABELS, i)).save(f"maps/{i}.png")
    assert cli.main(["encode", "shots", "-o", "out", "--labels", "maps"]) == 0
    for i in range(2):
        scene = sempic.unpack(Path(f"out/{i}.sempic").read_bytes())
        assert np.array_equal(scene.labels, np.roll(LABELS, i))


@pytest.mark.parametrize("wrong", [LABELS[:-1], LABELS + np.uint8(12)])
def test_labels_that_do_not_fit_are_refused(photo, wrong, capsys):
    PIL.Image.fromarray(wrong).save("map.png")
    refused(capsys, "encode photo.png --labels map.png", "photo.png: map.png: the label map")
    assert files() == ["map.png", "photo.png"]


def test_target_bpp(photo, capsys):
    assert cli.main(["encode", "photo.png", "--target-bpp", "1.2"]) == 0
    assert sempic.info(Path("photo.sempic").read_bytes())["bpp"] <= 1.2
    os.remove("photo.sempic")
    least = "photo.png: 0.0001 bpp cannot be reached: the least"
    refused(capsys, "encode photo.png --target-bpp 0.0001", least)
    assert files() == ["photo.png"]


def test_target_bytes(photo, capsys):
    assert cli.main(["encode", "photo.png", "--target-bytes", "220"]) == 0
    assert 100 < Path("photo.sempic").stat().st_size <= 220
    least = "photo.png: 20 bytes cannot be reached: the least"
    refused(capsys, "encode photo.png --target-bytes 20", least)


def test_a_target_beyond_the_finest_level_is_reported(photo, capsys):
    assert cli.main(["encode", "photo.png", "--target-bpp", "500", "--json"]) == 0
    out, err = capsys.readouterr()
    bpp = sempic.info(Path("photo.sempic").read_bytes())["bpp"]
    note = f"quality 9, the finest, takes {bpp:.4f} bpp of the 500 given"
    assert err == f"sempic: photo.png: {note}\n"
    assert json.loads(out)["notes"] == [note]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("encode photo.png -q 5 --target-bpp 1", "not allowed with argument"),
        ("encode photo.png --labels m.png --segmenter s.onnx", "--labels replaces the map"),
        ("encode photo.png photo.png -o one.sempic", "one.sempic: one file for several inputs"),
        ("encode . -o all.SEMPIC", "all.SEMPIC: one file for several inputs"),
        ("decode . . -o a.jpg", "a.jpg: one file for several inputs"),
        ("decode . . -o a.mp4", "a.mp4: one file for several inputs; a.mp4/ names a folder"),
        ("encode . -o a.tar.gz", "a.tar.gz: one file for several inputs"),
        ("encode photo.png -o a.mp4", "a.mp4: a .sempic file under the name of a .mp4 file"),
        ("encode . -o out --manifest a.png", "a.png: a .jsonl file under the name of a .png file"),
        ("encode photo.png -o x.png", "x.png: a .sempic file under the name of a .png file"),
        ("encode photo.png -o x.JPG", "x.JPG: a .sempic file under the name of a .jpg file"),
        ("encode photo.png -o x.jxl", "x.jxl: a .sempic file under the name of a .jxl file"),
        ("encode photo.png --verifier none.onnx", "--verifier is for --check"),
        ("encode photo.png --receiver none.onnx", "--receiver is for --check"),
        ("encode photo.png --check-budget 0.5", "--check-budget is for --check"),
        ("encode photo.png --critical x.json", "argument --critical: x.json: no table"),
        ("encode photo.png --labels none --prior p.npz", "--prior is for label maps"),
        ("decode a.sempic --only coarse --prior p.npz", "--prior is for label maps"),
        ("encode a.mp4 --bitrate 9k -q 3", "quality and bitrate exclude each other"),
        ("encode photo.png -o x.tar", "x.tar: a .sempic file under the name of a tar"),
        ("decode a.sempic -o b.png --samples 3", "--samples is for --uncertainty"),
        ("decode a.sempic -o b.png --uncertainty u", "--uncertainty: cannot write pictures of"),
        ("decode a.sempic --uncertainty u.png --manifest m", "not with --only or --manifest"),
        ("decode none -o out", "none: cannot read: No such file"),
        ("encode none/photo.png", "none/photo.png: cannot read: No such file"),
        ("decode a.sempic -o b --steps 99", "type (no suffix); the name of a folder ends in /"),
        ("decode a.sempic -o b.png --images .jpg", "--images is for folders and tars; -o names"),
        ("decode a.sempic --images .xyz", "--images: cannot write pictures of type .xyz"),
        ("encode photo.png --images .png", "--images is for tars"),
        ("encode photo.png --manifest -", "--manifest is for files, not for standard output"),
        ("decode a.sempic --only labels --steps 1", "--steps is for the receiver"),
        ("decode a.sempic --only coarse --seed 0", "--seed is for the receiver"),
        ("decode a.sempic --only coarse --receiver x.onnx", "--receiver is for the receiver"),
        ("decode photo.png", "photo.png: by its name a picture, not a .sempic"),
        ("decode photo.png -o b.png", "photo.png: a picture (PNG), not a .sempic file"),
        ("info photo.png", "photo.png: a picture (PNG), not a .sempic file; sempic encode"),
        ("decode film.sempic", "film.sempic: a video, not a .sempic file; sempic encode makes one"),
        ("info film.sempic", "film.sempic: a video, not a .sempic file; sempic encode makes one"),
        ("encode a.sempic", "a.sempic: by its name a .sempic file already"),
    ],
)
def test_options_without_effect_are_refused(photo, command, said, capsys):
    Path("a.sempic").write_bytes(sempic.pack(width=64, height=48, labels=LABELS))
    Path("film.sempic").write_bytes(b"\x1aE\xdf\xa3 and so on")
    before = {name: Path(name).read_bytes() for name in files()}
    try:
        code = cli.main(command.split())
    except SystemExit as exit:  # argparse prints the usage, too
        code = exit.code
        said_last = capsys.readouterr().err.splitlines()[-1]
        assert said in said_last
    else:
        one_line(capsys, said)
    assert code == 2
    assert {name: Path(name).read_bytes() for name in files()} == before


@pytest.mark.parametrize(
    "command", ["decode a.sempic -o a.mp4", "decode a.sempic -o a.png", "info a.sempic"]
)
def test_an_empty_file_is_said_to_be_empty(command, place, capsys):
    Path("a.sempic").touch()  # nobody knows whether it was a picture
    refused(capsys, command, "a.sempic: no bytes at all")
    assert files() == ["a.sempic"]


def test_a_folder_may_have_a_dot_in_its_name(photo):
    picture("b.png")
    assert cli.main(["encode", "photo.png", "b.png", "-o", "take.1"]) == 0
    assert cli.main(["encode", "photo.png", "b.png", "-o", "odd.sempic/"]) == 0
    assert files("take.1") == files("odd.sempic") == ["b.sempic", "photo.sempic"]


def test_losses_of_a_picture_are_reported(capsys):
    frames = [PIL.Image.new("RGB", (32, 32), c) for c in ("red", "blue")]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    PIL.Image.new("RGBA", (32, 32), (0, 0, 0, 9)).save("b.png")
    assert cli.main(["encode", "a.gif", "b.png", "-o", "out"]) == 0
    err = capsys.readouterr().err
    assert "sempic: a.gif: an animation or several pages: the first is taken" in err
    assert "sempic: b.png: transparency is laid over white" in err
    assert files("out") == ["a.sempic", "b.sempic"]


def test_images_chooses_the_format_of_pictures_that_no_one_names(photo):
    picture("b.png")
    assert cli.main(["encode", "photo.png", "b.png", "-o", "coded"]) == 0
    command = ["decode", "coded", "--only", "coarse", "--images", "jpg"]
    assert cli.main([*command, "-o", "seen"]) == 0
    assert files("seen") == ["b.coarse.jpg", "photo.coarse.jpg"]
    assert pictures.read(Path("seen/b.coarse.jpg").read_bytes()).shape == (48, 64, 3)
    assert cli.main(command) == 0  # beside the files
    assert files("coded") == ["b.coarse.jpg", "b.sempic", "photo.coarse.jpg", "photo.sempic"]


def test_max_side(photo):
    assert cli.main(["encode", "photo.png", "--max-side", "32"]) == 0
    assert sempic.info(Path("photo.sempic").read_bytes())["width"] == 32


def test_only_labels_and_only_coarse(photo, monkeypatch):
    monkeypatch.delattr(api.Codec, "receiver")  # none is needed
    PIL.Image.fromarray(LABELS).save("map.png")
    cli.main(["encode", "photo.png", "--labels", "map.png"])
    assert cli.main(["decode", "photo.sempic", "--only", "labels"]) == 0
    assert cli.main(["decode", "photo.sempic", "--only", "coarse"]) == 0
    assert np.array_equal(pictures.read_labels(Path("photo.labels.png").read_bytes()), LABELS)
    coloured = pictures.read(Path("photo.labels.png").read_bytes())
    assert np.array_equal(coloured, sempic.PALETTES[1].paint(LABELS))
    assert pictures.read(Path("photo.coarse.png").read_bytes()).shape == IMAGE.shape


def test_only_a_missing_part_is_refused(capsys):
    Path("a.sempic").write_bytes(sempic.pack(width=64, height=48, labels=LABELS))
    refused(capsys, "decode a.sempic --only coarse", "a.sempic", "no coarse")
    assert files() == ["a.sempic"]


def test_folders_are_encoded_and_decoded():
    picture("shots/a.jpg")
    picture("shots/deep/b.PNG")
    Path("shots/notes.txt").write_text("not a picture")
    assert cli.main(["encode", "shots/", "-o", "out/", "--quality", "3"]) == 0
    assert files("out") == ["a.sempic", "deep/b.sempic"]
    assert cli.main(["decode", "out/", "-o", "pictures/"]) == 0
    assert files("pictures") == ["a.png", "deep/b.png"]
    assert cli.main(["info", "out"]) == 0


def test_patterns_are_for_the_shell_except_on_windows(monkeypatch, capsys):
    for name in ("b.png", "a.png", "[1].png", "[1]x.png"):
        picture(name)
    monkeypatch.setattr(processes, "WINDOWS", False)
    refused(capsys, "encode *.png", "*.png: cannot read: ")
    monkeypatch.setattr(processes, "WINDOWS", True)
    assert cli.main(["encode", "?.png", "[1].png", "[1]?.png", "-o", "out"]) == 0
    assert files("out") == ["[1].sempic", "[1]x.sempic", "a.sempic", "b.sempic"]
    refused(capsys, "encode *.jpg", "*.jpg: cannot read: ")


def test_equal_stems_do_not_collide():
    picture("shots/a.jpg")
    picture("shots/a.png", IMAGE[:, ::-1])
    assert cli.main(["encode", "shots", "-o", "out"]) == 0
    assert files("out") == ["a.jpg.sempic", "a.png.sempic"]
    assert cli.main(["decode", "out", "-o", "back"]) == 0
    assert files("back") == ["a.jpg.png", "a.png.png"]


def test_one_bad_file_does_not_stop_the_rest(capsys):
    for name in "ace":
        picture(f"shots/{name}.png")
    Path("shots/b.png").write_bytes(b"nonsense")
    Path("shots/d.png").write_bytes(b"")
    assert cli.main(["encode", "shots", "-o", "out", "--json"]) == 2
    assert files("out") == ["a.sempic", "c.sempic", "e.sempic"]
    out, err = capsys.readouterr()
    assert f"sempic: {Path('shots/b.png')}: not a picture" in err
    assert f"sempic: {Path('shots/d.png')}: the file is empty" in err
    assert "2 of 5 files failed" in err
    records = [json.loads(line) for line in out.splitlines()]
    assert ["error" in r for r in records] == [False, True, False, True, False]
    Path("out/c.sempic").write_bytes(Path("out/c.sempic").read_bytes()[:-1])
    assert cli.main(["decode", "out", "-o", "back"]) == 2
    assert files("back") == ["a.png", "e.png"]


def test_info_lists_the_classes_of_the_map(capsys):
    labels = np.full((48, 64), 3, np.uint8)
    labels[:12] = 11
    Path("a.sempic").write_bytes(sempic.pack(width=64, height=48, labels=labels))
    Path("b.sempic").write_bytes(sempic.encode(IMAGE, labels="none"))
    assert cli.main(["info", "a.sempic", "--map"]) == 0
    assert "  map: road 75.0%, void 25.0%\n" in capsys.readouterr().out
    assert cli.main(["info", "a.sempic", "b.sempic", "--map", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["classes"] for r in records] == [{"road": 0.75, "void": 0.25}, None]


def test_json(photo, capsys):
    assert cli.main(["encode", "photo.png", "--json"]) == 0
    assert cli.main(["decode", "photo.sempic", "-o", "out.png", "--json"]) == 0
    assert cli.main(["info", "photo.sempic", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    size = os.path.getsize("photo.sempic")
    assert len(records) == 3
    for record in records:
        assert (record["width"], record["height"], record["bytes"]) == (64, 48, size)
        assert record["bpp"] == pytest.approx(8 * size / (64 * 48), abs=1e-5)
        assert sum(record["chunks"].values()) + record["overhead"] == size
        assert record["seconds"] >= 0
        assert all(n == round(n, 5) for n in record.values() if isinstance(n, float))
    assert [r.get("output") for r in records] == ["photo.sempic", "out.png", None]
    assert [r["path"] for r in records] == ["photo.png", "photo.sempic", "photo.sempic"]


class Pipe:
    def __init__(self, data=b""):
        self.buffer = io.BytesIO(data)


class Terminal(io.BytesIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "command"),
    [
        ("input", "encode - -o b.sempic"),
        ("input", "encode - --sequence -o b.sempic"),
        ("input", "decode - -o b.png"),
        ("input", "info -"),
        ("output", "encode photo.png -o -"),
        ("output", "encode frames --sequence -o -"),
        ("output", "decode a.sempic -o -"),
    ],
)
def test_bytes_neither_come_from_a_terminal_nor_go_to_one(
    stream, command, photo, monkeypatch, capsys
):
    Path("a.sempic").write_bytes(sempic.pack(width=64, height=48, labels=LABELS))
    Path("frames").mkdir()
    picture("frames/0.png")
    terminal = Pipe()
    terminal.buffer = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, f"std{stream[:-3]}", terminal)
        assert cli.main(command.split()) == 2
    assert terminal.buffer.getvalue() == b""
    one_line(capsys, f"standard {stream} is a terminal")


@pytest.mark.parametrize("command", ["encode photo.png", "info a.sempic", "compare a b"])
def test_json_needs_standard_output(command, photo, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    refused(capsys, f"{command} --json", "standard output is closed")
    assert files() == ["photo.png"]


def test_pipes(photo, monkeypatch, capsys):
    def run(command, data):
        out = Pipe()
        with monkeypatch.context() as patch:
            give_stdin(patch, data)
            patch.setattr(sys, "stdout", out)
            assert cli.main(command) == 0
        return out.buffer.getvalue()

    stream = run(["encode", "-", "-o", "-"], photo.read_bytes())
    assert sempic.info(stream)["width"] == 64  # not mixed with the report:
    assert f"{len(stream)} bytes" in capsys.readouterr().err
    assert run(["decode", "-", "--json"], stream) == run(["decode", "-", "-o", "-"], stream)
    assert '"bytes"' in capsys.readouterr().err
    assert cli.main(["encode", "photo.png", "-o", "a.sempic"]) == 0
    assert Path("a.sempic").read_bytes() == stream


@pytest.mark.skipif(not os.path.exists("/dev/fd/1"), reason="this system has no /dev/fd")
@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1"])
def test_the_report_is_not_mixed_with_the_picture(name):
    Path("a.sempic").write_bytes(sempic.pack(width=64, height=48, labels=LABELS))
    command = [sys.executable, "-m", "sempic", "decode", "a.sempic", "--only", "labels", "-o", name]
    done = subprocess.run(command, capture_output=True, timeout=120)
    expected = pictures.encode_labels(LABELS, CAMVID, ".png")
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
    assert done.stderr.decode().startswith(f"a.sempic → {name}: 64×48")


@pytest.mark.parametrize("command", ["encode", "decode", "info"])
@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"", ""), (b"nonsense", "not a"), (None, "No such file"), (b"\x89PNG\r\n\x1a\n1234", "")],
)
def test_bad_inputs_are_refused_in_one_line(command, content, cause, capsys):
    if content is not None:
        Path("bad.x").write_bytes(content)
    before = files()
    refused(capsys, [command, "bad.x"], "bad.x: ", cause)
    assert files() == before


def test_streams_cut_short_leave_no_file(photo, capsys):
    cli.main(["encode", "photo.png"])
    stream = Path("photo.sempic").read_bytes()
    capsys.readouterr()
    for cut in range(0, len(stream), 7):
        Path("cut.sempic").write_bytes(stream[:cut])
        refused(capsys, "decode cut.sempic", "cut.sempic: ")
    assert files() == ["cut.sempic", "photo.png", "photo.sempic"]


def test_unwritable_outputs_are_refused_in_one_line(photo, capsys):
    refused(capsys, "encode photo.png -o none/photo.sempic", "photo.png", "none", "No such file")
    Path("file").write_text("in the way")
    refused(capsys, "encode photo.png -o file/", "file")
    refused(capsys, "encode . -o file", "file", "not a folder")
    cli.main(["encode", "photo.png"])
    refused(capsys, "decode photo.sempic -o photo.txt", "photo.sempic", ".txt")
    assert files() == ["file", "photo.png", "photo.sempic"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_full_disk(photo, capsys):
    refused(capsys, "encode photo.png -o /dev/full", "photo.png", "/dev/full", "No space left")


@pytest.mark.parametrize("content", [None, b"", b"not a network"])
def test_missing_and_broken_models_are_refused_in_one_line(photo, content, monkeypatch, capsys):
    if content is not None:
        Path("net.onnx").write_bytes(content)
    cli.main(["encode", "photo.png"])
    capsys.readouterr()
    before = files()
    for name, member in REAL.items():
        monkeypatch.setattr(api.Codec, name, member)
    refused(capsys, "encode photo.png -o new.sempic --segmenter net.onnx", "photo.png", "net.onnx")
    refused(
        capsys, "decode photo.sempic -o new.png --receiver net.onnx", "photo.sempic", "net.onnx"
    )
    assert files() == before


def test_errors_of_the_system_name_their_file(monkeypatch, capsys):
    """For example of a folder without permission: standard output must not be blamed."""

    def run(args):
        raise PermissionError(13, "Permission denied", "a/samples")

    monkeypatch.setattr(commands.load("info"), "run", run)
    assert cli.main(["info", "x.sempic"]) == 2
    assert capsys.readouterr().err == "sempic: a/samples: Permission denied\n"


def test_a_name_that_is_too_long_is_named(capsys):
    Path(name := "x" * 248 + ".sempic").write_bytes(sempic.encode(IMAGE, labels="none"))
    target = "x" * 248 + ".coarse.png"
    refused(
        capsys,
        ["decode", name, "--only", "coarse"],
        f"{target}: cannot write: File name too long\n",
    )


def test_a_lack_of_memory_takes_one_line(monkeypatch, capsys):
    def run(args):
        raise MemoryError

    monkeypatch.setattr("sempic.commands.info.run", run)
    assert cli.main(["info", "a.sempic"]) == 2
    assert capsys.readouterr().err == "sempic: not enough memory\n"


def test_a_current_folder_that_is_removed_is_named(capsys):
    Path("gone").mkdir()
    os.chdir("gone")
    Path("../gone").rmdir()
    refused(capsys, "encode photo.png", "the current folder: No such file or directory")


def test_empty_folders_and_several_inputs_for_standard_output_are_refused(capsys):
    Path("empty").mkdir()
    refused(capsys, "encode empty", "empty", "no files")
    picture("a.png")
    refused(capsys, "encode a.png a.png -o -", "standard output")


@pytest.mark.parametrize(
    "command",
    [
        ["compare", "", "a.png"],
        ["compare", "a.png", "a.png", "-o", ""],
        ["compare", "a.png", "a.png", "--labels="],
        ["benchmark", ""],
        ["info", ""],
        ["encode", "a.png", "--target-bytes", ""],
        ["decode", "--output=", "a.sempic"],
    ],
)
def test_an_empty_argument_is_not_the_current_folder(command, capsys):
    picture("a.png")
    refused(capsys, command, "empty")
    assert files() == ["a.png"]


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["enhance", "a.png"],
        ["encode"],
        ["encode", "a.png", "--quality", "10"],
        ["encode", "a.png", "--target-bpp", "-1"],
        ["encode", "a.png", "--target-bpp", "nan"],
        ["encode", "a.png", "--max-side", "0"],
        ["decode", "a.sempic", "--steps", "0"],
        ["decode", "a.sempic", "--only", "sound"],
        ["encode", "a.png", "--qualty", "3"],
        ["info", "a.sempic", "-o", "a.txt"],
    ],
)
def test_wrong_usage(wrong, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(wrong)
    assert exit.value.code == 2
    said = capsys.readouterr().err
    usage = (
        f"usage: sempic {wrong[0]} " if wrong and wrong[0] in commands.COMMANDS else "usage: sempic"
    )
    assert said.startswith(usage)
    assert [line for line in said.splitlines() if ": error: " in line] == said.splitlines()[-1:]


@pytest.mark.parametrize("command", [[], ["encode"], ["decode"], ["info"], ["completion"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main([*command, "--help"])
    assert exit.value.code == 0
    assert "usage: sempic" in capsys.readouterr().out


def test_the_help_says_which_commands_need_an_extra(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for name, about in commands.COMMANDS.items():
        needed = f" (needs the extra {about.extra})" if about.extra else ""
        assert f" {name} {about.help}{needed} " in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell, capsys):
    pytest.importorskip("shtab", reason="shtab is not installed (extra `completion`)")
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("encode", "target-bpp", "distill", "sempic"):
        assert word in script


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["enc"], "encode"),
        (["decode", "--st"], "--steps"),
        (["train", "seg"], "segmenter"),
        (["train", "label"], "label-prior"),
        (["train", "label-prior", "''"], "network export tables"),
        (["train", "corpus", "''"], "photo.png"),
        (["train", "corpus", "photo.png", "seg"], ""),
        (["train", "corpus", "--out", "ph"], "photo.png"),
        (["distill", "--out", "ph"], "photo.png"),
        (["compare", "ph"], "photo.png"),
        (["evaluate", "ph"], "photo.png"),
        (["benchmark", ".", "--labels", "ph"], "photo.png"),
    ],
)
def test_completion_in_bash(photo, typed, offered, capsys):
    pytest.importorskip("shtab", reason="shtab is not installed (extra `completion`)")
    cli.main(["completion", "bash"])
    ask = f"COMP_WORDS=(sempic {' '.join(typed)}); COMP_CWORD={len(typed)}; _shtab_sempic"
    script = capsys.readouterr().out + f'\n{ask}; echo "${{COMPREPLY[@]}}"\n'
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=True)
    assert set(offered.split()) <= set(done.stdout.split())
    if "train" in typed:  # nothing else is offered
        assert done.stdout.split() == offered.split()


def test_completion_without_shtab_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    refused(capsys, "completion bash", "shtab", install_hint("completion"))


def test_version(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"sempic {sempic.__version__}\n{models.TERMS}\n"


def test_training_needs_no_docstrings():
    command = [sys.executable, "-OO", "-m", "sempic", "train", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "segmenter" in done.stdout, done.stderr


def test_training_without_torch_names_the_extra(monkeypatch, capsys):
    for name in [n for n in sys.modules if n.startswith("sempic.training")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(sempic, "training", raising=False)  # the import sets it anew
    monkeypatch.setitem(sys.modules, "torch", None)
    command = "train denoise --corpus c --out r --steps 1"
    refused(capsys, command, "torch", install_hint("train"))


HELP = (
    *(f"train {name}" for name in train.TRAININGS),
    "train",
    "train --preset camvid-small",
    *["distill", "sample", "benchmark", "compare", "evaluate", "serve"],
)


def test_help_needs_no_extra():
    """One process for all commands, with torch and other extras hidden."""
    code = (
        "import contextlib, importlib.machinery, io, sys\n"
        "find = importlib.machinery.PathFinder.find_spec\n"
        "hidden = ('torch', 'torchmetrics', 'accelerate', 'diffusers', 'onnx', 'safetensors',\n"
        "          'efficientnet_lite_pytorch', 'fastapi', 'uvicorn', 'scipy', 'bjontegaard')\n"
        "importlib.machinery.PathFinder.find_spec = lambda name, *rest: (\n"
        "    None if name.partition('.')[0] in hidden else find(name, *rest))\n"
        "from sempic import cli\n"
        "assert cli.main('train denoise --corpus c --out r --steps 1'.split()) == 2\n"
        f"for command in {HELP!r}:\n"
        "    out = io.StringIO()\n"
        "    try:\n"
        "        with contextlib.redirect_stdout(out):\n"
        "            print(cli.main([*command.split(), '--help']))\n"
        "    except SystemExit as stop:\n"
        "        print(stop.code, out.getvalue().splitlines()[0])\n"
        "    else:\n"
        "        print('no help', command)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert len(lines) == len(HELP), done.stderr
    for line, command in zip(lines, HELP, strict=True):
        words = [
            word for word in command.split() if "preset" not in word and word != "camvid-small"
        ]
        said = {"distill": "train distill", "train paper": "train"}.get(command, " ".join(words))
        assert line.startswith(f"0 usage: sempic {said}"), line
    assert f"torch is missing; {install_hint('train')}" in done.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="this system has no SIGPIPE")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_run_whose_reader_has_gone_ends_by_sigpipe(photo, more):
    Path("a.sempic").write_bytes(sempic.pack(width=64, height=48, labels=LABELS))
    command = [sys.executable, "-m", "sempic", "info", *["a.sempic"] * 2000, *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout.read(1)
        run.stdout.close()
        assert run.stderr.read() == b""
        assert run.wait(60) == -signal.SIGPIPE


@pytest.mark.parametrize(
    ("command", "goes_on"),
    [
        ("denoise --corpus c --out r --steps 1", True),
        ("paper --data_dir d --dataset_mode folder", True),
        ("corpus d --out c", False),
        ("export a.safetensors a.onnx", False),
    ],
)
def test_an_interrupted_command_of_train_goes_on_only_from_a_checkpoint(
    monkeypatch, capsys, command, goes_on
):
    def stop(_):
        raise KeyboardInterrupt

    name = command.split()[0]
    stopped = train.TRAININGS[name]._replace(function="stopped:run")
    monkeypatch.setitem(train.TRAININGS, name, stopped)
    monkeypatch.setitem(sys.modules, "sempic.training.stopped", SimpleNamespace(run=stop))
    assert cli.main(["train", *command.split()]) == 2
    assert ("goes on from the last checkpoint" in capsys.readouterr().err) == goes_on
