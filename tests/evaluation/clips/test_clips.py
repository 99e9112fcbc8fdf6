"""`sempic benchmark CLIP`: reading, coding, measuring and the report."""

import json
import re
import warnings
from fractions import Fraction

import numpy as np
import PIL.Image
import pytest
from conftest import FakeReceiver, FakeSegmenter, needs_models, street
from videos import panned, write_video

from sempic import api, cli, segment
from sempic.errors import InputError, SempicWarning
from sempic.evaluation import clips
from sempic.evaluation.clips import measuring


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """drive.mp4 in a folder, five frames at 10 a second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(segment, "load", lambda *_, **how: FakeSegmenter())
    monkeypatch.setattr(api.Codec, "receiver", FakeReceiver())
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips/drive.mp4", panned(96, 128, step=4, count=5))
    return tmp_path


@needs_models
@pytest.mark.parametrize("source", ["clips", "clips/drive.mp4"])
def test_the_report_has_every_codec_and_adds_up(folder, capsys, source):
    arguments = f"benchmark {source} --limit 4 --metrics miou,objects --drop 0.3 -o out"
    names = "single,av1,hevcx2" if source == "clips" else "sempic"
    assert cli.main([*arguments.split(), "--codecs", names]) == 0, capsys.readouterr()
    printed = capsys.readouterr().out
    assert printed == (folder / "out/summary.md").read_text()
    assert "drive.mp4: 4 frames of 128×96, 10/s" in printed
    found = json.loads((folder / "out/report.json").read_text())["drive.mp4"]["codecs"]
    ours = found["sempic"]
    assert ours["bytes"] == ours["coarse"] + ours["labels"] + ours["overhead"]
    assert ours["kbps"] == pytest.approx(8 * ours["bytes"] / 0.4 / 1000)
    assert 0 < ours["agreement"] <= 1
    for name in ("losses_of_maps", "losses_of_pictures"):
        assert len(ours[name]) == measuring.TRIALS
    page = (folder / "out/report.html").read_text()
    assert page.count("data:image/webp") == 1 + len(found)
    assert not re.search(r"(src|href)=['\"](?!data:)", page)  # opens offline
    if source == "clips":
        assert list(found) == ["sempic", "single", "av1", "hevcx2"]
        assert ours["bytes"] < found["single"]["bytes"]
        share = ours["bytes"] / found["single"]["bytes"]
        assert f"Against single pictures: {share:.3f} of the bits" in printed
        assert 0.5 * ours["bytes"] < found["hevcx2"]["bytes"] < 4 * ours["bytes"]


@needs_models
def test_single_pictures_have_the_label_quality_of_the_sequence(folder, monkeypatch):
    class Speckled(FakeSegmenter):
        def __call__(self, image):
            return np.where(image[..., 0] % 16, super().__call__(image), 8).astype(np.uint8)

    monkeypatch.setattr(segment, "load", lambda *_, **how: Speckled())
    bytes_of_maps = []
    for quality in ("1", "lossless"):
        words = (
            f"benchmark clips --limit 2 --metrics psnr --codecs single --label-quality {quality}"
        )
        assert cli.main([*words.split(), "-o", "out"]) == 0
        found = json.loads((folder / "out/report.json").read_text())["drive.mp4"]["codecs"]
        bytes_of_maps.append(found["single"]["labels"])
    assert bytes_of_maps[0] < bytes_of_maps[1]


@needs_models
def test_a_warning_about_all_frames_is_printed_once(folder, monkeypatch, capsys):
    class Unsure(FakeSegmenter):
        def predict(self, image):
            sure = 20 + image[:20].mean() / 10  # another one for each picture
            return super().predict(image)[0], np.full((12, *image.shape[:2]), sure, np.uint8)

    monkeypatch.setattr(segment, "load", lambda *_, **how: Unsure())
    command = "benchmark clips --metrics miou --codecs single --key-interval 0.1 --drop 1 -o out"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert cli.main(command.split()) == 0
    assert not [warning for warning in warned if issubclass(warning.category, SempicWarning)]
    out, err = capsys.readouterr()
    assert "No map was sent that losses could damage.\n" in out
    assert err.startswith("sempic: clips/drive.mp4: sent without a label map: ")
    assert err.count("\n") == 1


def test_clips_and_options_that_do_not_fit_are_refused_in_one_line(folder, capsys):
    PIL.Image.fromarray(street()[0]).save(folder / "picture.png")
    for arguments, why in (
        ("clips/drive.mp4 --rates 0.1", "--rates is for pictures"),
        ("clips/drive.mp4 --codecs bpg", "'bpg' is not one of sempic, single, av1"),
        ("clips/drive.mp4 --start 9", "two frames or more, there are 0"),
        ("clips/drive.mp4 picture.png", "picture.png: not a clip"),
        ("clips nothere", "nothere: no such file or folder"),
        ("clips/drive.mp4 nothere.mp4", "nothere.mp4: no such file or folder"),
        (". --bitrate 16k", "--bitrate is for clips"),
        ("clips/drive.mp4 clips/../clips/drive.mp4", "drive.mp4 have the same name"),
        ("nowhere.mp4", "nowhere.mp4: not a video that can be read"),
    ):
        assert cli.main(["benchmark", *arguments.split(), "-o", "out"]) == 2
        err = capsys.readouterr().err
        assert why in err
        assert err.count("\n") == 1
    assert not (folder / "out").exists()


def test_a_clip_that_cannot_be_read_is_named_before_the_work(folder, monkeypatch, capsys):
    (folder / "clips/worn.mp4").write_bytes((folder / "clips/drive.mp4").read_bytes()[:99])
    monkeypatch.setattr(measuring, "_sequence", lambda *_: pytest.fail("work was done"))
    assert cli.main(["benchmark", "clips", "--metrics", "psnr", "-o", "out"]) == 2
    assert "worn.mp4: " in capsys.readouterr().err


@needs_models
def test_losses_are_those_of_frames_that_arrive(folder, monkeypatch, capsys):
    """Without a loss maps and pictures are the same; of lost frames nothing is judged."""

    class Eye(FakeSegmenter):
        def __call__(self, image):
            return image[..., 0] // 32

    class Preview(FakeReceiver):
        def __call__(self, scene, **wishes):
            return api.preview(scene)

    monkeypatch.setattr(segment, "load", lambda spec, **_: Eye() if spec else FakeSegmenter())
    monkeypatch.setattr(api.Codec, "receiver", Preview())
    for drop, is_whole in (("1e-9", True), ("1", True), ("0.5", False)):
        command = f"benchmark clips --metrics miou --codecs sempic -o out --every 2 --drop {drop}"
        assert cli.main(command.split()) == 0, capsys.readouterr().err
        ours = json.loads((folder / "out/report.json").read_text())["drive.mp4"]["codecs"]["sempic"]
        maps, pictures = ours["losses_of_maps"], ours["losses_of_pictures"]
        assert len(maps) == len(pictures) == measuring.TRIALS
        if is_whole:
            assert (set(maps), set(pictures)) == ({1.0}, {0.0})
        else:
            assert min(maps) < 1
            assert min(pictures) < -0.01


@needs_models
def test_a_figure_that_no_frame_has_is_said_to_be_missing(folder, capsys):
    words = "benchmark clips --limit 2 --metrics psnr,ms_ssim --codecs sempic -o out"
    assert cli.main(words.split()) == 0
    assert "sempic: no MS-SSIM: samples are the same as" in capsys.readouterr().err


def test_a_clip_is_read_at_a_rate_and_a_size(folder):
    whole = clips.read(folder / "clips/drive.mp4")
    assert (len(whole.frames), whole.rate, whole.seconds) == (5, 10, 0.5)
    part = clips.read(
        folder / "clips/drive.mp4", size=(64, 48), rate=Fraction(20), start=0.1, count=3
    )
    assert [frame.shape for frame in part.frames] == [(48, 64, 3)] * 3
    assert np.array_equal(part.frames[0], part.frames[1])  # twice the rate shows each twice
    part = clips.read(folder / "clips/drive.mp4", rate=Fraction(100), start=0.07)
    assert len(part.frames) == 43  # 0.07 * 100 is more than 7
    with pytest.raises(InputError, match="two frames or more"):
        clips.read(folder / "clips/drive.mp4", count=1)


def test_flicker_is_relative_to_the_original():
    """1 for the original's own changes, 0 for a still picture, more than 1 for more noise."""
    rng = np.random.default_rng(0)
    picture = street()[0].astype(np.int16)
    noise = [rng.integers(-2, 3, picture.shape) for _ in range(3)]
    frames = [np.clip(picture + n, 0, 255).astype(np.uint8) for n in noise]
    wilder = [np.clip(picture + 3 * n, 0, 255).astype(np.uint8) for n in noise]
    places = [np.arange(picture[..., 0].size, dtype=np.int32).reshape(picture.shape[:2])] * 2
    assert measuring.flicker(frames, frames, places) == 1
    assert measuring.flicker(frames, [frames[0]] * 3, places) == 0
    assert 2 < measuring.flicker(frames, wilder, places) < 4
    assert measuring.flicker([frames[0]] * 3, frames, places) is None


def test_agreement_is_the_mean_iou_of_two_maps():
    labels = street()[1]
    assert measuring.agreement(labels, labels) == measuring.agreement(None, None) == 1
    assert measuring.agreement(labels, None) == measuring.agreement(None, labels) == 0
    half = np.array([[1, 1, 2, 2]], np.uint8)
    assert measuring.agreement(half, np.array([[1, 1, 2, 1]], np.uint8)) == (2 / 3 + 1 / 2) / 2
