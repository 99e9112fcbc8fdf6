"""The size of JPEG XL files is checked before their plugin runs: huge sizes crashed it."""

import base64
import io

import numpy as np
import PIL.Image
import pytest

from sempic import formats, pictures
from sempic.errors import ImageError, LabelMapError

pytest.importorskip("pillow_jxl", reason="pillow-jxl-plugin is not installed")

CRASH = base64.b64decode(
    "/wpORw0KGgoAAAANSUhEUgAAACAAAAAYBAMAAABpiVBORw0KGgoAAAANSUh94klEUgAAACAAAAAYBAMAAABpfeIH"
    "AAAAJElEQVR4nGNcxcDAcJaBgeE9lGZiQAP0EWA0htpPX2sxBFjeMzAwzGRAYOTaREEAAAA0SVR4nGNcxcBEQVSU"
    "ZmJAA/Rg0QbAcACWgYHhPZQHAAAAJElEQVQ="
)
"""Found by benchmarks/fuzz.py: it announces 37476085×21080298 pixels."""


def saved(size, **options):
    out = io.BytesIO()
    PIL.Image.new("RGB", size, (90, 40, 20)).save(out, "JXL", **options)
    return out.getvalue()


def boxed(*parts):
    """A file of boxes with the codestream in parts."""
    boxes = [(b"JXL ", b"\r\n\x87\n"), (b"ftyp", b"jxl \0\0\0\0jxl ")]
    boxes += [(b"jxlp", number.to_bytes(4, "big") + part) for number, part in enumerate(parts)]
    return b"".join((len(data) + 8).to_bytes(4, "big") + kind + data for kind, data in boxes)


@pytest.mark.parametrize("size", [(1, 1), (24, 8), (32, 24), (64, 64), (341, 256), (700, 3)])
@pytest.mark.parametrize("use_container", [False, True])
def test_the_size_of_a_jxl_file_matches_its_plugin(size, use_container):
    data = saved(size, use_container=use_container)
    assert data[:2] == (b"\0\0" if use_container else b"\xff\n")
    assert formats.jxl_size(data) == size
    assert pictures.peek(data) == size


def test_a_jxl_codestream_may_span_several_boxes():
    data = saved((32, 24), use_container=False)
    file = boxed(data[:3], data[3:7], data[7:])
    assert formats.jxl_size(file) == (32, 24)
    assert pictures.read(file).shape == (24, 32, 3)


def test_the_orientation_of_a_jxl_file_is_applied_once(tmp_path):
    """cjxl writes the orientation of a photograph to the codestream, and keeps its EXIF."""
    picture = PIL.Image.new("RGB", (64, 40), "white")
    picture.paste("black", (0, 0, 32, 20))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    data = pictures.saved(picture, "JXL")
    # SizeHeader of 14 bits, then ImageMetadata with orientation 6 and else usual values.
    header = int.from_bytes(data[2:4], "little") & 0x3FFF | 0x9C816 << 14
    turned = data[:2] + header.to_bytes(5, "little") + data[4:]
    block = b"Exif" + bytes(4) + exif.tobytes()[6:]
    file = boxed(turned) + (len(block) + 4).to_bytes(4, "big") + block
    upright = np.rot90(np.array(picture), -1)
    picture.save(tmp_path / "a.jpg", exif=exif)
    with PIL.Image.open(tmp_path / "a.jpg") as jpeg:
        jpeg.save(tmp_path / "a.jxl", lossless_jpeg=True)
    for data in (file, (tmp_path / "a.jxl").read_bytes()):
        with PIL.Image.open(io.BytesIO(data)) as opened:
            assert opened.getexif()[0x0112] == 6
        assert np.abs(pictures.read(data).astype(int) - upright).mean() < 5


@pytest.mark.parametrize("data", [CRASH, boxed(CRASH), boxed(CRASH[:5], CRASH[5:])])
def test_a_jxl_file_beyond_the_limit_is_refused_before_it_is_opened(data):
    with pytest.raises(ImageError, match=r"each side must be|more than the limit"):
        pictures.read(data)
    with pytest.raises(LabelMapError):
        pictures.read_labels(data)


@pytest.mark.parametrize("data", [CRASH[:9], boxed(), boxed(b"nothing like it"), boxed()[:12]])
def test_an_invalid_jxl_header_is_an_error(data):
    with pytest.raises(ImageError, match="a JPEG XL file without a whole header"):
        pictures.read(data)


def test_other_files_are_no_jxl():
    assert formats.jxl_size(b"\x89PNG\r\n\x1a\n") is None
    assert formats.jxl_size(b"") is None
