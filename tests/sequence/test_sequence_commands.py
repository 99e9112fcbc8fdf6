"""`sempic encode` and `sempic decode` of sequences."""

import io
import json
import os
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from conftest import FakeReceiver, FakeSegmenter, give_stdin
from hypothesis import given, settings
from hypothesis import strategies as st
from videos import FRAMES

from sempic import api, batch, cli, pictures, roles, sequence
from sempic.commands._sequence import sources
from sempic.errors import CorruptStream
from sempic.sequence import stream, video


def test_the_command_line_encodes_and_decodes(clip, capsys):
    assert cli.main(["encode", "drive.mp4", "--key-interval", "0.3"]) == 0
    data = (clip / "drive.sempic").read_bytes()
    assert sequence.info(data)["frames"] == 6
    assert sequence.info(data)["keys"] == 2
    assert "6 frames of 64×48" in capsys.readouterr().out
    assert cli.main(["info", "drive.sempic", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 6
    assert cli.main(["info", "drive.sempic", "--map"]) == 0
    told = capsys.readouterr()
    assert "key frames" in told.out
    assert "drive.sempic: --map is for pictures" in told.err
    assert cli.main(["decode", "drive.sempic", "-o", "again.mkv"]) == 0
    assert len(list(video.Source("again.mkv"))) == 6
    assert video.Source("again.mkv").rate == 10
    assert cli.main(["decode", "drive.sempic", "-o", "frames/"]) == 0
    assert [p.name for p in sorted((clip / "frames").iterdir())] == [
        f"{i:06d}.png" for i in range(6)
    ]
    assert cli.main(["encode", "frames", "--sequence", "-o", "b.sempic", "--fps", "12.5"]) == 0
    assert sequence.info((clip / "b.sempic").read_bytes())["rate"] == 12.5


def test_skipped_files_of_a_folder_are_reported(clip, capsys):
    (clip / "frames").mkdir()
    PIL.Image.fromarray(FRAMES[0]).save(clip / "frames/0.png")
    (clip / "frames/1.png").symlink_to("gone.png")
    assert cli.main(["encode", "frames", "--sequence", "-o", "b.sempic"]) == 2
    assert "1.png: a link that leads to no file" in capsys.readouterr().err
    (clip / "frames/1.png").unlink()
    (clip / "frames/1.DNG").touch()
    assert cli.main(["encode", "frames", "--sequence", "-o", "b.sempic"]) == 2
    assert "frames: .dng files in it cannot be read here" in capsys.readouterr().err
    assert not (clip / "b.sempic").exists()


def test_frames_of_a_folder_are_in_the_order_of_their_numbers(place):
    Path("frames").mkdir()
    for number, picture in enumerate(FRAMES, 7):
        PIL.Image.fromarray(picture).save(f"frames/{number}.png")
    frames, _, count = sources.open_frames("frames", "x", rate=None, max_side=None, segmenter=None)
    assert count == len(FRAMES)
    for found, picture in zip(frames, FRAMES, strict=True):
        assert (found == picture).all()


def test_the_output_may_be_a_folder(clip):
    (clip / "there").mkdir()
    assert cli.main(["encode", "drive.mp4", "-o", "there"]) == 0
    assert cli.main(["encode", "drive.mp4", "-o", "new/"]) == 0
    assert (clip / "new/drive.sempic").read_bytes() == (clip / "there/drive.sempic").read_bytes()
    (clip / "frames.v1").mkdir()
    PIL.Image.fromarray(FRAMES[0]).save(clip / "frames.v1/0.png")
    os.chdir("frames.v1")
    assert cli.main(["encode", "--sequence", "."]) == 0
    assert (clip / "frames.v1.sempic").exists()
    os.chdir(clip)
    assert cli.main(["decode", "new/drive.sempic", "-o", "frames.v2/"]) == 0
    assert (clip / "frames.v2/000000.png").exists()


@pytest.mark.parametrize(
    "command",
    [
        "encode drive.mp4 -o drive.mp4",
        "encode drive.mp4 -o other.mp4",
        "encode frames --sequence -o frames/0.png",
        "encode frames --sequence -o link",
        "encode drive.mp4 --segmenter net.onnx -o net.onnx",
        "decode drive.sempic --receiver net.mp4 -o net.mp4",
    ],
)
def test_no_target_overwrites_a_source(clip, capsys, command):
    (clip / "frames").mkdir()
    PIL.Image.fromarray(FRAMES[0]).save(clip / "frames/0.png")
    (clip / "link").symlink_to("frames/0.png")
    for name in ("other.mp4", "net.onnx", "net.mp4"):
        (clip / name).write_bytes(b"good")
    (clip / "drive.sempic").write_bytes(b"".join(sequence.encode(FRAMES[:2], codec=api.Codec())))
    before = {p: p.read_bytes() for p in clip.rglob("*") if p.is_file()}
    assert cli.main(command.split()) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert {p: p.read_bytes() for p in clip.rglob("*") if p.is_file()} == before


def test_standard_streams(clip, monkeypatch, capsys):
    out = io.BytesIO()
    pipe = io.TextIOWrapper(out, write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        assert cli.main(["encode", "drive.mp4", "-o", "-", "--json"]) == 0
    told = json.loads(capsys.readouterr().err)  # as of pictures
    assert told["bytes"] == len(out.getvalue())
    give_stdin(monkeypatch, out.getvalue())
    assert cli.main(["decode", "-", "-o", "out.mp4"]) == 0
    assert len(list(video.Source("out.mp4"))) == 6


@pytest.mark.skipif(os.name != "posix", reason="only POSIX tells whether a pipe has bytes")
def test_pieces_of_a_pipe_come_as_they_arrive(monkeypatch):
    reading, writing = os.pipe()
    with open(reading, "rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        pieces = sources.read_pieces("-")
        os.write(writing, b"abc")
        assert [next(pieces), next(pieces)] == [b"abc", b""]
        os.write(writing, b"de")
        assert next(pieces) == b"de"
        os.close(writing)
        assert list(pieces) == []


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has named pipes")
def test_a_named_pipe_is_decoded_to_a_video(clip):
    """Its first bytes cannot be read twice, so the name of the video tells."""
    data = b"".join(sequence.encode(FRAMES[:2], codec=api.Codec()))
    os.mkfifo("pipe")
    writer = threading.Thread(target=Path("pipe").write_bytes, args=(data,))
    writer.start()
    assert cli.main(["decode", "pipe", "-o", "x.mp4"]) == 0
    writer.join()
    assert Path("x.mp4").exists()


@pytest.mark.parametrize("names", [("-", "drive.sempic"), ("drive.sempic", "-")])
def test_a_sequence_on_standard_input_is_decoded_alone(place, monkeypatch, capsys, names):
    data = b"".join(sequence.encode(FRAMES[:1], codec=api.Codec()))
    Path("drive.sempic").write_bytes(b"no sequence")
    give_stdin(monkeypatch, data)
    assert cli.main(["decode", *names, "-o", "x/"]) == 2
    assert capsys.readouterr().err == "sempic: -: a sequence; decode one at a time\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_behind_standard_output_takes_one_line(clip, monkeypatch, capsys):
    with monkeypatch.context() as patch, open("/dev/full", "wb", buffering=0) as full:
        patch.setattr(sys, "stdout", io.TextIOWrapper(full, write_through=True))
        assert cli.main(["encode", "drive.mp4", "-o", "-"]) == 2
    told = capsys.readouterr().err
    assert told == "sempic: cannot write to standard output: No space left on device\n"


def test_a_frame_of_another_size_is_named(clip, capsys):
    (clip / "frames").mkdir()
    for name, size in (("a", (64, 48)), ("b", (64, 48)), ("c", (10, 20))):
        PIL.Image.new("RGB", size).save(clip / f"frames/{name}.png")
    assert cli.main(["encode", "frames", "--sequence", "-o", "x.sempic"]) == 2
    told = "sempic: frames/c.png is 10×20, and the first was 64×48\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("text", ["1000", "0", "1/0", "fast", "nan"])
def test_invalid_rates_are_refused(capsys, text):
    with pytest.raises(SystemExit) as end:
        cli.main(["encode", "drive.mp4", "--fps", text])
    assert end.value.code == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.endswith(
        f"--fps: frames in a second are 0.01…240, such as 10, 12.5 or 30000/1001, not '{text}'"
    )


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("encode drive.mp4 --keep sign", "--keep is for pictures"),
        ("encode drive.mp4 --jobs 2", "--jobs is for pictures"),
        ("encode drive.mp4 drive.mp4", "drive.mp4: one video at a time"),
        (
            "encode photo.png photo.png --sequence",
            "time; pictures that are its frames are named as a",
        ),
        ("encode photo.png --bitrate 16k", "--bitrate is for videos"),
        ("encode photo.png --fps 5", "--fps is for videos"),
        ("encode text.mp4", "text.mp4: not a video"),
        ("encode empty.mp4", "empty.mp4: not a video that can be read: the file is empty"),
        ("encode moving.webp --sequence", "can be read: of pictures, only animated GIFs and PNGs"),
        ("encode moving.avif --sequence", "can be read: of pictures, only animated GIFs and PNGs"),
        ("encode none.mp4", "none.mp4: not a video that can be read: No such file"),
        ("encode rtsp://host/x", "name the output"),
        ("encode drive.mp4 -o drive.mp4", "under the name of a .mp4 file"),
        ("encode drive.mp4 -o s3://bucket/", "s3://bucket/: must be on this machine"),
        ("decode drive.sempic -o out.txt", "a video is"),
        ("decode drive.sempic -o /dev/null", "/dev/null: a video is .mp4"),
        ("decode drive.sempic -o s3://bucket/", "s3://bucket/: must be on this machine"),
        ("decode drive.sempic --only labels", "--only is for pictures"),
        ("decode drive.sempic --images .jpg", "--images is for pictures"),
        ("decode drive.sempic --engine ray", "--engine is for pictures"),
        ("decode drive.sempic -o -", "cannot go to standard output"),
        ("decode drive.sempic", "exists"),
        ("decode cut.sempic -o x.mp4", "no frame"),
        ("decode none.sempic -o x.mp4", "none.sempic: cannot read: No such file"),
    ],
)
def test_errors_take_one_line(clip, capsys, command, says):
    PIL.Image.fromarray(FRAMES[0]).save("photo.png")
    (clip / "moving.webp").write_bytes(pictures.animation(FRAMES, 10, "WEBP"))
    first, *rest = map(PIL.Image.fromarray, FRAMES)
    first.save("moving.avif", save_all=True, append_images=rest, duration=100)
    (clip / "text.mp4").write_text("no video")
    (clip / "empty.mp4").touch()
    data = b"".join(sequence.encode(FRAMES[:2], codec=api.Codec()))
    (clip / "drive.sempic").write_bytes(data)
    (clip / "cut.sempic").write_bytes(data[:30])
    before = {p: p.read_bytes() for p in clip.iterdir()}
    assert cli.main(command.split()) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1
    assert {p: p.read_bytes() for p in clip.iterdir()} == before


def test_lost_frames_are_reported(clip, capsys):
    pieces = list(sequence.encode(FRAMES, codec=api.Codec(), key_interval=0.3))
    (clip / "lossy.sempic").write_bytes(b"".join(pieces[:1] + pieces[2:]))
    assert cli.main(["decode", "lossy.sempic", "-o", "x.mp4"]) == 0
    assert "needs a frame that is lost" in capsys.readouterr().err
    assert len(list(video.Source("x.mp4"))) == 6


def test_losses_take_one_line_in_frame_order(clip, capsys):
    frames = [FRAMES[i % 6] for i in range(24)]
    pieces = list(sequence.encode(frames, codec=api.Codec(), key_interval=1))
    broken = bytes([*pieces[21][:-2], pieces[21][-2] ^ 1, 0])
    left = [*pieces[:3], *pieces[4:13], *pieces[14:21], broken, *pieces[22:], b"cut"]
    (clip / "lossy.sempic").write_bytes(b"".join(left))
    assert cli.main(["decode", "lossy.sempic", "-o", "x.mp4"]) == 0
    assert capsys.readouterr().err == (
        "sempic: lossy.sempic: frames 3 to 9, 13 to 19, 21 to 23: each is lost or needs a frame "
        "that is lost; a checksum does not match: a packet was changed or cut; "
        "the last 3 bytes are no whole frame\n"
    )
    (clip / "lossy.sempic").write_bytes(b"".join(pieces[:9] + pieces[10:]))
    assert cli.main(["decode", "lossy.sempic", "-o", "x.mp4"]) == 0
    assert "frame 9: it is lost" in capsys.readouterr().err
    pieces = list(sequence.encode(frames, codec=api.Codec(), key_interval=0.2))
    left = [piece for number, piece in enumerate(pieces) if number % 2 == 0]
    (clip / "lossy.sempic").write_bytes(b"".join(left))
    assert cli.main(["decode", "lossy.sempic", "-o", "x.mp4"]) == 0
    assert "17, 19 and others, 11 in all:" in capsys.readouterr().err


def rounded(info):
    """As in JSON."""
    return json.loads(batch.json_line(info))


@pytest.mark.parametrize(
    ("gone", "lost"), [((), 0), ((1, 2, 4), 5), ((0, 1), 2)], ids=["restored", "lost", "at first"]
)
@pytest.mark.parametrize("source", ["guarded.sempic", "-"])
def test_decode_reports_what_it_wrote(clip, monkeypatch, capsys, gone, lost, source):
    """The report counts the frames written, even where some never arrived."""
    if gone:
        made = list(
            sequence.encode(FRAMES, codec=api.Codec(), key_interval=0.2 if 0 in gone else 9)
        )
        left = [piece for number, piece in enumerate(made) if number not in gone]
        data = b"".join([made[0][:3], *left] if 0 in gone else left)
    else:
        data = (Path(__file__).parents[2] / "vectors/sequences/parity.sempic").read_bytes()
    (clip / "guarded.sempic").write_bytes(data)
    give_stdin(monkeypatch, data)
    assert cli.main(["decode", source, "-o", "x.mp4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    info = rounded(sequence.info(data))
    assert {key: told[key] for key in info} == info
    written = len(list(video.Source("x.mp4")))
    assert (told["frames"], told["lost"], told["bytes"]) == (written, lost, len(data))
    assert told["seconds"] == written / told["rate"]
    assert told["kbps"] == pytest.approx(8 * len(data) / told["seconds"] / 1000)
    (clip / "guarded.sempic").write_bytes(data)
    assert cli.main(["decode", "guarded.sempic", "-o", "x.mp4"]) == 0
    assert f": {written} frames of " in capsys.readouterr().out


def test_the_report_opens_no_file_again(clip, monkeypatch, capsys):
    """A file may have grown meanwhile, be gone, or be a pipe."""
    info = sequence.info
    monkeypatch.setattr(Path, "read_bytes", None)
    assert cli.main(["encode", "drive.mp4", "--json"]) == 0
    told = [json.loads(capsys.readouterr().out)]
    assert cli.main(["decode", "drive.sempic", "-o", "x.mp4", "--json"]) == 0
    told.append(json.loads(capsys.readouterr().out))
    monkeypatch.undo()
    monkeypatch.chdir(clip)
    found = rounded(info((clip / "drive.sempic").read_bytes()))
    for record in told:
        assert {key: record[key] for key in found} == found


def test_info_counts_packets_that_cannot_be_read(clip, capsys):
    data = b"".join(sequence.encode(FRAMES[:2], codec=api.Codec()))
    for rest, told in ((b"x", "1 packet cannot"), (b"x\0y", "2 packets cannot")):
        (clip / "cut.sempic").write_bytes(data + rest)
        assert cli.main(["info", "cut.sempic"]) == 0
        assert f"  {told} be read\n" in (said := capsys.readouterr().out)
        assert "48, 2 frames, 1 key frame, 10 a second" in said
        assert "lost" not in said


@given(st.sampled_from(("street", "parity")), *[st.sets(st.integers(0, 9), max_size=3)] * 2)
@settings(max_examples=30, deadline=None)
def test_info_and_decoders_count_the_same_frames(name, lost, torn):
    """Whatever is lost or changed, with parity and without."""
    data = (Path(__file__).parents[2] / f"vectors/sequences/{name}.sempic").read_bytes()
    packets = data[3:].split(b"\0")[:-1]
    left = [p[:-1] if n in torn else p for n, p in enumerate(packets) if n not in lost]
    broken = data[:3] + b"\0".join(left) + b"\0"
    unpacker = sequence.Unpacker()
    try:
        moments = list(unpacker.moments([broken]))
    except CorruptStream:
        return
    gone = {n for numbers in unpacker.course.lost for n in numbers}
    assert {m.number for m in moments if not m.arrived} <= gone
    assert not {m.number for m in moments if m.arrived} & gone
    info = sequence.info(broken)
    assert (info["frames"], info["lost"]) == (len(moments), len(gone))


def test_a_sequence_of_another_version_is_named(clip, capsys):
    (clip / "new.sempic").write_bytes(stream.MAGIC + bytes([99, 1, 0]))
    assert cli.main(["decode", "new.sempic", "-o", "x.mp4"]) == 2
    assert capsys.readouterr().err == "sempic: new.sempic: sequence version 99 is not known here\n"


def test_leftover_frames_of_a_longer_sequence_are_reported(clip, capsys):
    assert cli.main(["encode", "drive.mp4"]) == 0
    for _ in range(2):  # frames of the same sequence are replaced silently
        assert cli.main(["decode", "drive.sempic", "-o", "frames/"]) == 0
        assert capsys.readouterr().err == ""
    assert cli.main(["encode", "drive.mp4", "--fps", "5", "-o", "short.sempic"]) == 0
    assert cli.main(["decode", "short.sempic", "-o", "frames"]) == 0
    assert "frames/000003.png" in (said := capsys.readouterr().err)
    assert said.count("\n") == 1
    assert len(list((clip / "frames").iterdir())) == 6


def test_warnings_while_decoding_are_reported_once(clip, monkeypatch, capsys):
    assert cli.main(["encode", "drive.mp4", "--model", "3"]) == 0
    capsys.readouterr()

    class Other(FakeReceiver):
        model_id = 4

    monkeypatch.setattr(api.Codec, "receiver", Other())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert cli.main(["decode", "drive.sempic", "-o", "x.mp4"]) == 0
    assert not told
    note = "sempic: drive.sempic: the stream is for receiver 3; this is receiver 4\n"
    assert capsys.readouterr().err == note


def test_an_error_of_the_receiver_names_the_file(clip, monkeypatch, capsys):
    assert cli.main(["encode", "drive.mp4"]) == 0
    capsys.readouterr()
    wrong = roles.as_receiver(lambda scene, **_: np.zeros((1, 1, 3), np.uint8))
    monkeypatch.setattr(api.Codec, "receiver", wrong)
    assert cli.main(["decode", "drive.sempic", "-o", "x.mp4"]) == 2
    assert capsys.readouterr().err.startswith("sempic: drive.sempic: the receiver is at fault")
    assert not Path("x.mp4").exists()


def test_an_unsure_segmenter_sends_no_map(clip, monkeypatch, capsys):
    class Unsure(FakeSegmenter):
        def predict(self, image):
            return super().predict(image)[0], np.full((12, *image.shape[:2]), 20, np.uint8)

    monkeypatch.setattr(api.Codec, "segmenter", Unsure())
    assert cli.main(["encode", "drive.mp4"]) == 0
    assert "without a label map" in capsys.readouterr().err
    data = (clip / "drive.sempic").read_bytes()
    assert sequence.info(data)["chunks"]["labels"] == 0
    assert all(m.scene.labels is None for m in sequence.Unpacker().feed(data))
