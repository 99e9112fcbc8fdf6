import copy
import io
import mimetypes
import pickle
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from conftest import FakeReceiver, FakeSegmenter, street

import sempic
import sempic.pillow
from sempic import api, sequence

IMAGE, LABELS = street(48, 64)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch, tmp_path):
    codec = sempic.Codec(FakeSegmenter(), FakeReceiver())
    monkeypatch.setattr(api, "shared", lambda: codec)
    monkeypatch.chdir(tmp_path)


def test_save_encodes_and_open_decodes():
    PIL.Image.fromarray(IMAGE).save("x.sempic", quality=3)
    with open("x.sempic", "rb") as file:
        stream = file.read()
    assert stream == sempic.encode(IMAGE, quality=3)
    with PIL.Image.open("x.sempic") as picture:
        assert (picture.format, picture.mode, picture.size) == ("SEMPIC", "RGB", (64, 48))
        assert picture.info == sempic.info(stream)
        assert np.array_equal(np.array(picture), np.array(sempic.decode(stream)))


def test_the_error_for_a_sequence_says_what_it_is():
    stream = b"".join(sequence.encode([IMAGE], rate=5))
    with pytest.raises(PIL.UnidentifiedImageError, match="a sequence of pictures, not a picture"):
        PIL.Image.open(io.BytesIO(stream))


def test_options_of_save_and_load():
    out = io.BytesIO()
    PIL.Image.fromarray(IMAGE).save(out, "SEMPIC", labels=LABELS, palette="camvid", max_side=None)
    assert np.array_equal(sempic.unpack(out.getvalue()).labels, LABELS)
    picture = PIL.Image.open(out)
    picture.load(steps=2, seed=9)
    assert np.array(picture)[0, 0].tolist() == [LABELS[0, 0], 2, 9]
    picture.load()  # the second call does nothing
    with pytest.raises(ValueError, match="decoded or closed: open the file again"):
        picture.load(steps=3)
    assert picture.getpixel((0, 0))[1] == 2


def test_pillow_operations_work_on_an_opened_picture():
    PIL.Image.fromarray(IMAGE).save("x.sempic", labels=LABELS)
    with PIL.Image.open("x.sempic") as picture:
        assert picture.convert("L").size == (64, 48)
        picture.save("y.png")
        picture.copy().resize((32, 24)).save("z.sempic")
    with PIL.Image.open("z.sempic") as small:
        assert small.size == (32, 24)


def test_the_format_and_mime_type_are_registered():
    assert PIL.Image.MIME["SEMPIC"] == sempic.pillow.MIME == mimetypes.guess_type("a.sempic")[0]
    assert (
        PIL.Image.open(io.BytesIO(sempic.encode(IMAGE))).get_format_mimetype() == sempic.pillow.MIME
    )


def test_damage_raises_the_errors_of_pillow():
    stream = sempic.encode(IMAGE)
    for broken in (stream[:-1], stream[:40] + b"?" + stream[41:]):
        with pytest.raises(PIL.UnidentifiedImageError) as caught:
            PIL.Image.open(io.BytesIO(broken))
        assert isinstance(caught.value.__cause__, sempic.BitstreamError)
    with pytest.raises(PIL.UnidentifiedImageError):
        PIL.Image.open(io.BytesIO(b"neither this nor that"))


def test_wrong_options_are_value_errors():
    picture = PIL.Image.fromarray(IMAGE)
    with pytest.raises(ValueError, match="1…9"):
        picture.save("x.sempic", quality=95)
    with pytest.raises(ValueError, match="steps"):
        PIL.Image.open(io.BytesIO(sempic.encode(IMAGE))).load(steps=0)


def test_a_closed_picture_is_not_loaded():
    PIL.Image.fromarray(IMAGE).save("x.sempic")
    for loaded in (False, True):
        picture = PIL.Image.open("x.sempic")
        if loaded:
            picture.load()
        picture.close()
        with pytest.raises(ValueError, match="closed image"):
            picture.load()
        picture.close()


def test_only_single_pictures_are_saved():
    still = PIL.Image.fromarray(IMAGE)
    still.save("x.sempic", save_all=True)
    assert Path("x.sempic").read_bytes() == sempic.encode(IMAGE)
    with pytest.raises(ValueError, match="holds one picture"):
        still.save("y.sempic", save_all=True, append_images=[still])
    still.save("x.gif", save_all=True, append_images=[PIL.Image.new("RGB", still.size)])
    with PIL.Image.open("x.gif") as moving, pytest.raises(ValueError, match="holds one picture"):
        moving.save("y.sempic", save_all=True)
    assert not Path("y.sempic").exists()


def test_a_missing_model_is_an_os_error(monkeypatch):
    stream = sempic.encode(IMAGE)

    def fails(*_, **__):
        raise sempic.ModelError("no weights")

    monkeypatch.setattr(api, "shared", lambda: sempic.Codec(receiver=fails))
    with pytest.raises(OSError, match="no weights"):
        PIL.Image.open(io.BytesIO(stream)).load()


def test_imageio_reads_streams():
    iio = pytest.importorskip("imageio.v3", reason="imageio is not installed (extra `test`)")
    iio.imwrite("x.sempic", IMAGE, plugin="pillow", quality=9)
    with open("x.sempic", "rb") as file:
        assert file.read() == sempic.encode(IMAGE, quality=9)
    assert iio.imread("x.sempic").shape == IMAGE.shape
    assert iio.immeta("x.sempic", plugin="pillow")["palette"] == "camvid"
    assert sempic.encode(iio.imread("x.sempic"))  # sempic accepts the arrays of imageio


@pytest.mark.parametrize("used", [False, True])
def test_new_and_loaded_pictures_can_be_copied_and_pickled(used):
    PIL.Image.fromarray(IMAGE).save("x.sempic")
    expected = np.asarray(sempic.decode(Path("x.sempic").read_bytes()))
    for duplicate in (
        lambda p: p.copy(),
        copy.copy,
        copy.deepcopy,
        lambda p: pickle.loads(pickle.dumps(p)),
        lambda p: p.crop((0, 0, *p.size)),
    ):
        with PIL.Image.open("x.sempic") as picture:
            if used:
                picture.load()
            again = duplicate(picture)
            assert np.array_equal(np.asarray(again), expected)
            assert np.array_equal(np.asarray(duplicate(again)), expected)
            assert np.array_equal(np.asarray(picture), expected)
            assert again.info["bytes"] == picture.info["bytes"]
