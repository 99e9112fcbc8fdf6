"""Writing videos."""

import subprocess
import sys
from fractions import Fraction

import pytest
from conftest import FakeReceiver
from videos import FRAMES, write_video

from sempic import api, cli, sequence
from sempic.errors import OutputError
from sempic.sequence import video


def test_a_killed_decoder_leaves_a_part_file(place):
    """It is called `NAME.part`, and the next decoder does not touch it."""
    (place / "x.mp4").write_bytes(b"a good file")
    film = video.Video(place / "x.mp4", Fraction(10))
    for picture in FRAMES:
        film.add(picture)
    assert {path.name for path in place.iterdir()} == {"x.mp4", "x.mp4.part"}
    write_video(place / "x.mp4", FRAMES[:3])
    assert len(list(video.Source("x.mp4"))) == 3
    assert {path.name for path in place.iterdir()} == {"x.mp4", "x.mp4.part"}
    film.close(keep=False)


@pytest.mark.parametrize("name", ["x.mp4", "x.mov", "x.mkv"])
def test_a_full_disk_takes_one_line(place, name):
    """FFmpeg crashed where it could not write the head of the file."""
    pytest.importorskip("resource")
    code = f"""
import resource, numpy
from fractions import Fraction
from sempic.commands._sequence.targets import picture_writer
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
with picture_writer({name!r}, Fraction(5)) as write:
    for _ in range(60):
        write(numpy.random.default_rng(0).integers(0, 255, (54, 96, 3), "uint8"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done
    said = f"sempic.errors.OutputError: {name}: cannot write: File too large"
    assert done.stderr.splitlines()[-1] == said
    assert not list(place.iterdir())


@pytest.mark.parametrize("rate", [Fraction(2**32 - 1), Fraction(1, 2**32 - 1), Fraction(10**6)])
def test_a_rate_that_no_video_has_is_refused(place, rate):
    """A stream may name any; FFmpeg wrote a video without frames, or its numbers overflowed."""
    with pytest.raises(OutputError, match="frames a second"):
        video.Video(place / "x.mp4", rate)
    assert not list(place.iterdir())


def test_a_rate_of_long_numbers_is_rounded(place):
    film = video.Video(place / "x.mp4", Fraction(2**32 - 1, 2**32 - 2))
    film.add(FRAMES[0])
    film.close(keep=True)
    assert video.Source("x.mp4").rate == 1


@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_an_interruption_keeps_the_decoded_frames(clip, monkeypatch, capsys, there, part):
    """Under its name or, if there is a file, as `NAME.part`; part: that name is taken, too."""
    assert cli.main(["encode", "drive.mp4"]) == 0
    if there:
        (clip / "x.mp4").write_bytes(b"a good file")
    if part:
        (clip / "x.mp4.part").write_bytes(b"another")
    before = {path: path.read_bytes() for path in clip.iterdir()}
    calls = []

    class Interrupted(FakeReceiver):
        def __call__(self, scene, **how):
            calls.append(1)
            if len(calls) > 3:
                raise KeyboardInterrupt
            return super().__call__(scene, **how)

    monkeypatch.setattr(api.Codec, "receiver", Interrupted())
    assert cli.main(["decode", "drive.sempic", "-o", "x.mp4"]) == 2
    assert {path: path.read_bytes() for path in before} == before
    (made,) = set(clip.iterdir()) - set(before)
    assert there or made.name == "x.mp4"
    assert part or not there or made.name == "x.mp4.part"
    told = capsys.readouterr().err
    assert f"{made.name} has all frames until now\n" in told
    assert told.count("\n") == 1
    made.rename("made.mp4")
    assert len(list(video.Source("made.mp4"))) == 3


@pytest.mark.parametrize("there", [False, True])
def test_a_second_head_keeps_the_decoded_frames(clip, monkeypatch, capsys, there):
    """As `encode` keeps those until an error."""
    assert cli.main(["encode", "drive.mp4"]) == 0
    assert cli.main(["encode", "drive.mp4", "--max-side", "32", "-o", "small.sempic"]) == 0
    small = (clip / "small.sempic").read_bytes()
    (clip / "both.sempic").write_bytes((clip / "drive.sempic").read_bytes() + small[3:])
    if there:
        (clip / "x.mp4").write_bytes(b"a good file")
    monkeypatch.setattr(api.Codec, "receiver", FakeReceiver())
    capsys.readouterr()
    assert cli.main(["decode", "both.sempic", "-o", "x.mp4"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("sempic: both.sempic: a second head differs from the first")
    assert told.count("\n") == 1
    assert ("x.mp4.part has all frames until now" in told) == there
    made = clip / ("x.mp4.part" if there else "x.mp4")
    made.rename("made.mp4")
    assert len(list(video.Source("made.mp4"))) == 6
    assert sequence.info((clip / "both.sempic").read_bytes())["frames"] == 6
