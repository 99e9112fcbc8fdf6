"""Growing output files, and what an interruption leaves."""

import concurrent.futures
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, FakeReceiver, FakeSegmenter

from sempic import api, cli, errors, sequence
from sempic.errors import OutputError
from sempic.sequence import video


@pytest.mark.skipif(os.name == "nt", reason="there are no such pipes")
def test_a_pipe_without_a_reader_is_an_error(place):
    os.mkfifo("out")
    reader = os.open("out", os.O_RDONLY | os.O_NONBLOCK)
    file = video.Growing(Path("out"))
    file.write(b"some")
    os.close(reader)
    with pytest.raises(OutputError, match="out: cannot write: Broken pipe"):
        file.write(b"more")
    assert file.interrupt() == ""


def test_a_disk_that_takes_a_part_of_the_last_frame_is_full(place):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    file = video.Growing(Path("out"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (9, limits[1]))
    try:
        with pytest.raises(OutputError, match="out: cannot write: File too large"):
            file.write(bytes(10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    file.close(keep=False)


@pytest.mark.parametrize("there", [False, True])
def test_an_interruption_keeps_the_frames_so_far(clip, monkeypatch, capsys, there):
    """Under the name of the output, or as `.part` beside an existing file."""
    if there:
        (clip / "drive.sempic").write_bytes(b"a good file")
    calls = []

    class Interrupted(FakeSegmenter):
        def predict(self, image):
            calls.append(1)
            if len(calls) > 3:
                part = clip / ("drive.sempic.part" if there else "drive.sempic")
                assert sequence.info(part.read_bytes())["frames"] == 3  # as after kill -9
                if there:
                    assert (clip / "drive.sempic").read_bytes() == b"a good file"
                raise KeyboardInterrupt
            return super().predict(image)

    monkeypatch.setattr(api.Codec, "segmenter", Interrupted())
    assert cli.main(["encode", "drive.mp4", "--segment-every", "1"]) == 2
    kept = "drive.sempic.part" if there else "drive.sempic"
    assert f"{kept} has all frames until now" in capsys.readouterr().err
    assert sequence.info((clip / kept).read_bytes())["frames"] == 3
    assert (clip / "drive.sempic.part").exists() == there
    if there:
        assert (clip / "drive.sempic").read_bytes() == b"a good file"


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from conftest import FakeSegmenter
from sempic import api, cli

class Slow(FakeSegmenter):
    looks = 0
    def predict(self, image):
        self.looks += 1
        if self.looks > 3:
            print("three frames are there", flush=True)
            time.sleep(60)
        return super().predict(image)

api.Codec.segmenter = Slow()
cli.main(["encode", "drive.mp4", "--segment-every", "1"])
"""


def test_a_killed_encoder_leaves_a_decodable_file(clip):
    """After SIGKILL, the file holds all whole frames."""
    folder = str(ROOT / "tests")
    command = [sys.executable, "-c", KILLED, folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as encoder:
        assert encoder.stdout.readline() == "three frames are there\n"
        encoder.kill()
    assert encoder.returncode == -signal.SIGKILL
    assert cli.main(["decode", "drive.sempic", "-o", "x.mp4"]) == 0
    assert len(list(video.Source("x.mp4"))) == 3


def test_an_error_replaces_no_file(clip, monkeypatch, capsys):
    (clip / "drive.sempic").write_bytes(b"a good file")

    class Failing(FakeSegmenter):
        def predict(self, image):
            raise errors.ModelError("no more")

    monkeypatch.setattr(api.Codec, "segmenter", Failing())
    assert cli.main(["encode", "drive.mp4"]) == 2
    assert (clip / "drive.sempic").read_bytes() == b"a good file"
    assert not (clip / "drive.sempic.part").exists()
    (clip / "drive.sempic").unlink()
    assert cli.main(["encode", "drive.mp4"]) == 2
    assert not (clip / "drive.sempic").exists()


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    "command", ["encode drive.mp4 -o x.sempic", "decode drive.sempic -o x.mp4"]
)
def test_an_interruption_before_the_first_frame_leaves_no_file(
    clip, monkeypatch, capsys, command, there
):
    assert cli.main(["encode", "drive.mp4"]) == 0
    target = clip / command.split()[-1]
    if there:
        target.write_bytes(b"a good file")

    class Interrupted(FakeReceiver, FakeSegmenter):
        def __call__(self, *_, **how):
            raise KeyboardInterrupt

        predict = __call__

    for role in ("segmenter", "receiver"):
        monkeypatch.setattr(api.Codec, role, Interrupted())
    before = {path: path.read_bytes() for path in clip.iterdir()}
    capsys.readouterr()
    assert cli.main(command.split()) == 2
    assert capsys.readouterr().err == "sempic: interrupted\n"
    assert {path: path.read_bytes() for path in clip.iterdir()} == before


def test_links_devices_and_pipes_are_written_as_for_pictures(clip, capfd):
    """Links are followed, devices and open files written to; modes and other files stay."""
    (clip / "real.sempic").write_bytes(b"old")
    (clip / "real.sempic").chmod(0o600)
    (clip / "real.sempic.part").write_bytes(b"somebody's")
    (clip / "link.sempic").symlink_to("real.sempic")
    (clip / "real.mp4").write_bytes(b"old")
    (clip / "link.mp4").symlink_to("real.mp4")
    assert cli.main(["encode", "drive.mp4", "-o", "link.sempic"]) == 0
    assert cli.main(["decode", "link.sempic", "-o", "link.mp4"]) == 0
    assert (clip / "link.sempic").is_symlink()
    assert (clip / "link.mp4").is_symlink()
    assert len(list(video.Source("real.mp4"))) == 6
    assert (clip / "real.sempic").stat().st_mode & 0o777 == 0o600
    assert (clip / "real.sempic.part").read_bytes() == b"somebody's"
    assert cli.main(["encode", "drive.mp4", "-o", "/dev/null"]) == 0
    with (clip / "log").open("ab") as log:
        log.write(b"before\n")
        log.flush()
        assert cli.main(["encode", "drive.mp4", "-o", f"/dev/fd/{log.fileno()}"]) == 0
    coded = (clip / "real.sempic").read_bytes()
    assert (clip / "log").read_bytes() == b"before\n" + coded
    (clip / "fd.mp4").symlink_to("/dev/stdout")
    capfd.readouterr()
    assert cli.main(["decode", "real.sempic", "-o", "fd.mp4"]) == 0
    assert "ftyp" in capfd.readouterr().out
    os.mkfifo("pipe")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        got = pool.submit(Path("pipe").read_bytes)
        assert cli.main(["encode", "drive.mp4", "-o", "pipe"]) == 0
        assert got.result() == coded


def test_file_names_may_have_the_greatest_length(clip):
    long, name = "s" * 248 + ".sempic", "v" * 251 + ".mp4"
    for _ in range(2):  # new, then over an existing file
        assert cli.main(["encode", "drive.mp4", "-o", long]) == 0
        assert cli.main(["decode", long, "-o", name]) == 0
    assert sequence.info(Path(long).read_bytes())["frames"] == 6
    assert len(list(video.Source(name))) == 6
    assert not [p.name for p in clip.iterdir() if p.suffix == ".part"]
