import contextlib
import errno
import io
import os
import stat

import numpy as np
import PIL.Image
import pytest
from conftest import street
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageCms

from sempic import pictures
from sempic.errors import ImageError, InputError, LabelMapError, OutputError, SempicWarning
from sempic.palette import CAMVID, INDICES

IMAGE, LABELS = street(20, 30)


def saved(picture, format="PNG", **options):
    out = io.BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()


def test_rgb_passes_unchanged():
    assert np.array_equal(pictures.read(saved(PIL.Image.fromarray(IMAGE))), IMAGE)
    assert np.array_equal(pictures.to_rgb(PIL.Image.fromarray(IMAGE)), IMAGE)
    assert pictures.to_rgb(IMAGE) is IMAGE


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "LAB", "RGBX"])
def test_modes_become_rgb(mode):
    picture = PIL.Image.fromarray(IMAGE).convert("RGB" if mode == "LAB" else mode)
    if mode == "LAB":
        to_lab = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        picture = ImageCms.applyTransform(picture, to_lab)
    rgb = pictures.to_rgb(picture)
    assert rgb.dtype == np.uint8
    assert rgb.shape == IMAGE.shape
    if mode in ("YCbCr", "CMYK", "RGBX"):
        assert np.abs(rgb.astype(int) - IMAGE).max() <= 4


def test_grey():
    grey = IMAGE[..., 0]
    assert np.array_equal(pictures.to_rgb(PIL.Image.fromarray(grey)), np.dstack([grey] * 3))


def test_16_bit_grey_keeps_its_range():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    rgb = pictures.read(saved(PIL.Image.fromarray(ramp)))
    assert np.array_equal(rgb[..., 0], np.arange(256).reshape(16, 16))


def test_undefined_ranges_are_refused():
    with pytest.raises(ImageError, match="floating-point"):
        pictures.to_rgb(PIL.Image.fromarray(np.zeros((2, 2), np.float32)))
    with pytest.raises(ImageError, match="32-bit"):
        pictures.to_rgb(PIL.Image.fromarray(np.full((2, 2), 70000, np.int32)))


def test_transparency_lies_over_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = 0, 255, 128
    with pytest.warns(SempicWarning, match="transparency is laid over white"):
        pixels = pictures.to_rgb(PIL.Image.fromarray(rgba))
    assert pixels[0, :, 0].tolist() == [255, 0, 127]
    rgba[..., 3] = 255  # none, whatever the mode: nothing to be told
    assert not pictures.to_rgb(PIL.Image.fromarray(rgba)).any()
    palette = PIL.Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    data = saved(palette, transparency=0)
    with pytest.warns(SempicWarning, match="transparency"):
        assert pictures.read(data)[0, 0].tolist() == [255, 255, 255]


def test_exif_rotation_is_applied():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was turned a quarter
    rgb = pictures.read(saved(PIL.Image.fromarray(IMAGE), exif=exif))
    assert np.array_equal(rgb, np.rot90(IMAGE, -1))


def test_colour_profiles_are_converted():
    lab = ImageCms.createProfile("LAB")  # does not fit RGB pixels: ignored
    broken, srgb = b"not a profile", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    for profile in (broken, ImageCms.ImageCmsProfile(lab).tobytes(), srgb.tobytes()):
        rgb = pictures.read(saved(PIL.Image.fromarray(IMAGE), icc_profile=profile))
        assert np.abs(rgb.astype(int) - IMAGE).max() <= 1


def test_the_first_frame_of_an_animation():
    frames = [PIL.Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    for format in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = saved(frames[0], format, save_all=True, append_images=frames[1:], **options)
        with pytest.warns(SempicWarning, match="the first is taken"):
            assert pictures.read(data)[0, 0].tolist() == [255, 0, 0]


def test_what_heic_is_and_what_to_do():
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    with pytest.raises(ImageError, match="a HEIC picture; convert it to JPEG or PNG"):
        pictures.read(head + bytes(64))
    assert ".heic" in pictures.SUFFIXES  # so that a folder's are not passed over in silence


def test_kinds():
    assert pictures.kind(saved(PIL.Image.fromarray(IMAGE), "JPEG")) == "JPEG"
    assert pictures.kind(b"") is pictures.kind(b"nonsense") is None


@pytest.mark.parametrize("shape", [(5, 5), (5, 5, 4), (0, 5, 3), (1, 65536, 3)])
def test_arrays_of_other_shapes_are_refused(shape):
    with pytest.raises(ImageError):
        pictures.to_rgb(np.zeros(shape, np.uint8))


def test_other_types_are_refused():
    for other in (IMAGE.astype(np.float32), IMAGE.tolist(), "photo.jpg", None):
        with pytest.raises(ImageError):
            pictures.to_rgb(other)


def test_bad_files_say_why():
    with pytest.raises(ImageError, match="empty"):
        pictures.read(b"")
    with pytest.raises(ImageError, match="not a picture"):
        pictures.read(b"The quick brown fox")
    with pytest.raises(ImageError, match="more than the limit"):
        pictures.read(saved(PIL.Image.new("1", (20000, 20000))))
    with pytest.raises(ImageError, match="each side"):
        pictures.read(saved(PIL.Image.new("1", (65536, 1))))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF"])
def test_files_cut_short_are_refused(format):
    data = saved(PIL.Image.fromarray(street(64, 64)[0]), format)
    for cut in range(1, len(data) * 3 // 4, max(1, len(data) // 25)):
        with pytest.raises(ImageError):
            pictures.read(data[:cut])


@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), format=st.sampled_from(["PNG", "JPEG"]))
def test_damaged_files_are_read_or_refused(at, byte, format):
    data = bytearray(saved(PIL.Image.fromarray(IMAGE), format))
    data[at % len(data)] = byte
    with contextlib.suppress(ImageError):
        assert pictures.read(bytes(data)).dtype == np.uint8


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
@pytest.mark.parametrize("palette", [CAMVID, INDICES])
def test_coloured_label_maps_still_hold_their_ids(suffix, palette):
    data = pictures.encode_labels(LABELS, palette, suffix)
    assert np.array_equal(pictures.read_labels(data), LABELS)
    if palette is CAMVID:
        assert np.array_equal(pictures.read(data), CAMVID.paint(LABELS))


def test_label_maps_in_formats_without_a_palette():
    data = pictures.encode_labels(LABELS, CAMVID, ".webp")
    assert pictures.read(data).shape == (20, 30, 3)
    with pytest.raises(LabelMapError, match="mode RGB"):
        pictures.read_labels(data)


def test_label_maps_of_16_bits():
    wide = LABELS.astype(np.uint16)
    assert np.array_equal(pictures.read_labels(saved(PIL.Image.fromarray(wide))), LABELS)
    with pytest.raises(LabelMapError):
        pictures.read_labels(saved(PIL.Image.fromarray(wide + 250)))
    with pytest.raises(LabelMapError, match="empty"):
        pictures.read_labels(b"")


def test_shrink():
    image, labels = pictures.shrink(IMAGE, LABELS, 15)
    assert image.shape == (10, 15, 3)
    assert labels.shape == (10, 15)
    assert set(np.unique(labels)) <= set(np.unique(LABELS))
    for side in (30, 31):
        assert pictures.shrink(IMAGE, None, side)[0] is IMAGE
    assert pictures.shrink(np.zeros((5000, 3, 3), np.uint8), None, 100)[0].shape == (100, 1, 3)
    with pytest.raises(InputError):
        pictures.shrink(IMAGE, None, 0)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".webp", ".tif", ".ppm"])
def test_encode(suffix):
    assert pictures.read(pictures.encode(IMAGE, suffix)).shape == IMAGE.shape


@pytest.mark.parametrize("suffix", ["", ".txt", ".sempic"])
def test_encode_refuses_foreign_suffixes(suffix):
    with pytest.raises(OutputError, match="cannot write pictures"):
        pictures.encode(IMAGE, suffix)


def test_encode_refuses_what_the_format_cannot_hold():
    with pytest.raises(OutputError, match="WEBP"):
        pictures.encode(np.zeros((1, 20000, 3), np.uint8), ".webp")


def test_write_file(tmp_path):
    target = tmp_path / "a.bin"
    pictures.write_file(target, b"one")
    pictures.write_file(target, b"two")
    assert target.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.bin"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask


def test_write_file_goes_through_links(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real" / "a.bin")
    pictures.write_file(link, b"one")
    assert link.is_symlink()
    assert (tmp_path / "real" / "a.bin").read_bytes() == b"one"


def test_write_file_fails_whole(tmp_path, monkeypatch):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        pictures.write_file(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_write_file_says_why(tmp_path):
    with pytest.raises(OutputError, match="No such file"):
        pictures.write_file(tmp_path / "none" / "a.bin", b"x")
    with pytest.raises(OutputError, match="Is a directory"):
        pictures.write_file(tmp_path, b"x")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_devices_are_written_to_and_never_replaced():
    with pytest.raises(OutputError, match="No space left"):
        pictures.write_file("/dev/full", b"x")
    pictures.write_file("/dev/null", b"x")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
