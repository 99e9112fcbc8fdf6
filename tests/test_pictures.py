import contextlib
import io
import os
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib

import numpy as np
import PIL.Image
import PIL.ImageFilter
import pytest
from conftest import street
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageCms

from sempic import container, formats, pictures
from sempic.errors import ImageError, InputError, LabelMapError, OutputError, SempicWarning, warn
from sempic.palette import CAMVID, CITYSCAPES, CITYSCAPES_FULL, INDICES

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


def test_grey_becomes_rgb():
    grey = IMAGE[..., 0]
    assert np.array_equal(pictures.to_rgb(PIL.Image.fromarray(grey)), np.dstack([grey] * 3))


def test_16_bit_grey_keeps_its_range():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    rgb = pictures.read(saved(PIL.Image.fromarray(ramp)))
    assert np.array_equal(rgb[..., 0], np.arange(256).reshape(16, 16))


def test_pixels_of_undefined_range_are_refused():
    with pytest.raises(ImageError, match="floating-point"):
        pictures.to_rgb(PIL.Image.fromarray(np.zeros((2, 2), np.float32)))
    for sample in (70000, 200):
        with pytest.raises(ImageError, match="32-bit"):
            pictures.to_rgb(PIL.Image.fromarray(np.full((2, 2), sample, np.int32)))


def tiff(pixels, bits, *tags):
    """A TIFF of (H, W) or (H, W, bands) samples, with more tags."""
    height, width, bands = (*pixels.shape, 1)[:3]
    data = pixels.tobytes()
    usual = {256: width, 257: height, 258: bits, 259: 1, 262: 1 if bands == 1 else 2, 273: 8}
    entries = usual | {277: bands, 278: height, 279: len(data)} | dict(tags)
    ifd = b"".join(struct.pack("<HHII", tag, 4, 1, entries[tag]) for tag in sorted(entries))
    head = b"II*\0" + struct.pack("<I", 8 + len(data))
    return head + data + struct.pack("<H", len(entries)) + ifd + bytes(4)


@pytest.mark.parametrize(
    ("kind", "tags", "cause"),
    [
        ("<u4", (), "32-bit"),
        ("<i4", ((339, 2),), "signed"),
        ("<i2", ((339, 2),), "signed"),
        ("i1", ((339, 2),), "signed"),
        ("<f4", ((339, 3),), "floating-point"),
        ("<f8", ((339, 3),), "a kind that is not supported"),
        ("<u2", ((277, 3), (262, 2), (284, 2)), "planes"),
        ("u1", ((254, 1),), "preview"),
        ("u1", ((50706, 0x10401),), "preview"),
    ],
)
def test_tiffs_whose_samples_would_be_misread_are_refused(kind, tags, cause):
    data = tiff(np.arange(12, dtype=kind).reshape(3, 4), 8 * np.dtype(kind).itemsize, *tags)
    with pytest.raises(ImageError, match=cause):
        pictures.read(data)


def test_tiffs_of_12_and_16_bits_keep_their_range():
    deep = np.array([[0, 0x8080, 0xFFFF]], "<u2")
    assert pictures.read(tiff(deep, 16))[0, :, 0].tolist() == [0, 128, 255]
    assert pictures.read(tiff(deep, 16, (262, 0)))[0, :, 0].tolist() == [255, 127, 0]
    packed = np.frombuffer(bytes.fromhex("000808fff000"), np.uint8)[None]  # 0, 0x808, 0xfff, 0
    grey = pictures.read(tiff(packed, 12, (256, 4)))
    assert grey[0, :, 0].tolist() == [0, 128, 255, 0]


def test_transparency_lies_over_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = 0, 255, 128
    with pytest.warns(SempicWarning, match="transparency is laid over white"):
        pixels = pictures.to_rgb(PIL.Image.fromarray(rgba))
    assert pixels[0, :, 0].tolist() == [255, 0, 127]
    rgba[..., 3] = 255  # opaque in any mode: no warning
    assert not pictures.to_rgb(PIL.Image.fromarray(rgba)).any()
    palette = PIL.Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    data = saved(palette, transparency=0)
    with pytest.warns(SempicWarning, match="transparency"):
        assert pictures.read(data)[0, 0].tolist() == [255, 255, 255]


def png(depth, kind, rows, *chunks):
    """A PNG of packed rows of colour type `kind`, with more chunks before the pixels."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    width = len(rows[0]) * 8 // (depth * {0: 1, 2: 3, 3: 1}[kind])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    extra = b"".join(chunk(*c) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + head + extra + body + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::sempic.SempicWarning")
@pytest.mark.parametrize(
    ("depth", "kind", "row", "clear"),
    [
        (1, 0, b"\x7f", b"\0\0"),
        (2, 0, b"\x1b", b"\0\0"),
        (2, 0, b"\xb1", b"\0\2"),
        (4, 0, b"\x57", b"\0\5"),
        (8, 0, b"\x80\x81", b"\0\x80"),
        (16, 0, b"\x80\x80\x80\x81", b"\x80\x80"),
        (8, 2, b"\1\2\3\1\2\4", b"\0\1\0\2\0\3"),
        (16, 2, b"\1\0\2\0\3\0\7\0\2\0\3\0", b"\1\0\2\0\3\0"),
    ],
)
def test_a_transparent_colour_of_any_depth_becomes_white(depth, kind, row, clear):
    opaque = pictures.read(png(depth, kind, [row]))
    shown = pictures.read(png(depth, kind, [row], (b"tRNS", clear)))
    assert shown[0, 0].tolist() == [255, 255, 255] != opaque[0, 0].tolist()
    assert np.array_equal(shown[0, 1:], opaque[0, 1:])


@pytest.mark.filterwarnings("ignore::sempic.SempicWarning")
@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_transparency_of_any_mode_becomes_white(mode):
    rgba = PIL.Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    rgba.putpixel((0, 0), (0, 0, 0, 0))
    steps = {"La": ("LA", "La"), "PA": ("PA",), "RGBa": ("RGBa",)}.get(mode, (mode,))
    for step in steps:
        rgba = rgba.convert(step)
    assert pictures.to_rgb(rgba).tolist() == [[[255] * 3, [0] * 3]]


def test_an_indexed_picture_without_palette_or_transparency_is_opaque():
    bare, marked = (PIL.Image.linear_gradient("L").convert("P") for _ in range(2))
    shown = pictures.to_rgb(bare)
    bare.palette = None  # Pillow's own type allows that
    marked.info["transparency"] = None
    assert np.array_equal(pictures.to_rgb(marked), shown)
    assert pictures.to_rgb(bare).shape == shown.shape


def exif(*entries):
    """An EXIF block of (tag, type, count, four bytes)."""
    body = b"".join(struct.pack("<HHI", *e[:3]) + e[3] for e in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


TURNED = (0x112, 3, 1, struct.pack("<HH", 6, 0))


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize(
    ("block", "turned"),
    [
        (b"Exif\0\0zzzz", False),
        (b"Exif\0\0", False),
        (b"Exif\0\0II*\0\xff\xff\xff\xff", False),
        (exif(TURNED, (0x11A, 2, 4, b"abc\0")), True),  # a resolution that is text
        (exif(TURNED, (0x100, 2, 4, b"abc\0")), True),  # a width that is text
        (exif(TURNED, (0x8769, 4, 1, b"\xff" * 4)), True),  # a sub-directory beyond the end
        (exif(TURNED)[:20], False),
        (exif((0x112, 2, 4, b"up!\0")), False),  # an orientation that is text
        (exif((0x112, 3, 1, b"\x63\0\0\0")), False),  # orientation 99
    ],
)
def test_damaged_exif_is_ignored(format, block, turned):
    data = saved(PIL.Image.fromarray(IMAGE), format, exif=block)
    assert pictures.read(data).shape == ((30, 20, 3) if turned else (20, 30, 3))
    assert pictures.peek(data) == (30, 20)


@pytest.mark.parametrize(
    "chunk",
    [
        (b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03"),
        (b"iCCP", b"name"),
        (b"iCCP", b"name\0\0no zlib"),
        (b"zTXt", b"key\0\0" + zlib.compress(bytes(1 << 26))),  # more text than Pillow allows
        (b"pHYs", b"\0"),
        (b"gAMA", b""),
        (b"cHRM", b"\1\2"),
        (b"tIME", b""),
        (b"acTL", b"\0"),
        (b"iTXt", b"\xff\0"),
        (b"sRGB", b""),
        (b"tRNS", b""),
    ],
)
def test_damaged_png_metadata_is_ignored(chunk):
    data = png(8, 2, [IMAGE[0].tobytes()], chunk)
    assert np.array_equal(pictures.read(data), IMAGE[:1])
    broken = bytearray(data)
    broken[data.index(chunk[0]) + 4 + len(chunk[1])] ^= 1  # its checksum
    assert np.array_equal(pictures.read(bytes(broken)), IMAGE[:1])


@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xE5])
@pytest.mark.parametrize(
    "body", [b"", b"MPF\0junk", b"Photoshop 3.0\0" + b"8BIM" * 3, b"ICC_PROFILE\0", b"Adobe"]
)
def test_damaged_jpeg_metadata_is_ignored(marker, body):
    data = saved(PIL.Image.fromarray(IMAGE), "JPEG")
    bad = data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + data[2:]
    assert np.array_equal(pictures.read(bad), pictures.read(data))


def test_other_formats_of_pillow_are_not_opened(tmp_path, monkeypatch):
    """Pillow would pass EPS to Ghostscript, and try every registered plugin."""
    tool = tmp_path / "gs"
    tool.write_text(f"#!/bin/sh\necho started >> {tmp_path}/log\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for format in ("EPS", "PDF", "ICO", "PCX", "SGI", "ICNS", "DDS"):
        data = saved(PIL.Image.new("RGB", (32, 32)), format)
        for take in (pictures.read, pictures.peek, pictures.read_labels):
            with pytest.raises(InputError, match="not a picture"):
                take(data)
    assert pictures.is_map(data) is None
    assert not (tmp_path / "log").exists()


def test_imported_plugins_do_not_change_what_is_read():
    code = (
        "import sys; from sempic import pictures; data = sys.stdin.buffer.read()\n"
        "for _ in range(2):\n"
        "    try: print(pictures.read(data).shape)\n"
        "    except Exception as e: print(type(e).__name__, e)\n"
        "    import sempic.pillow; import pillow_jxl\n"
    )
    pytest.importorskip("pillow_jxl", reason="pillow-jxl-plugin is not installed")
    import sempic

    labels = np.zeros((8, 8), np.uint8)
    for data in (pictures.encode(IMAGE, ".jxl"), sempic.pack(width=8, height=8, labels=labels)):
        run = [sys.executable, "-c", code]
        done = subprocess.run(run, input=data, capture_output=True, check=True, timeout=60)
        first, second = done.stdout.splitlines()
        assert first == second
    assert b"not a picture" in first
    assert {".jxl", ".pbm", ".mpo", ".jpx", ".j2k"} <= pictures.SUFFIXES


def test_jpeg_xl_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    assert ".jxl" not in formats.by_suffix()
    with pytest.raises(ImageError, match=r"\[jxl\]"):
        pictures.read(b"\xff\x0a" + bytes(20))
    with pytest.raises(OutputError, match=r"\[jxl\]"):
        pictures.encode(IMAGE, ".jxl")


@pytest.fixture
def heic() -> bytes:
    """A file as of a phone: upright by HEIF's own orientation, and an EXIF tag says the same."""
    plugin = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    plugin.from_pillow(PIL.Image.fromarray(IMAGE)).save(out, quality=90, exif=exif.tobytes())
    return out.getvalue()


def test_heic_is_read_and_turned_once(heic):
    shown = pictures.read(heic)
    assert np.abs(shown.astype(int) - np.rot90(IMAGE, -1)).mean() < 8
    assert {".heic", ".heif", ".hif"} <= pictures.SUFFIXES
    with pytest.raises(OutputError, match=r"cannot write pictures of type \.heic"):
        pictures.encode(IMAGE, ".heic")


@pytest.mark.parametrize("end", [40, 200, -200])
def test_damaged_heic_is_refused(heic, end):
    with pytest.raises(ImageError, match="damaged"):
        pictures.read(heic[:end])


def test_heic_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert not formats.has_heif()
    with pytest.raises(ImageError, match=r"a HEIC picture; convert it .*\[heic\]"):
        pictures.read(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


def test_avif_under_a_brand_of_heif_is_read():
    data = pictures.encode(IMAGE, ".avif")
    assert data[8:12] == b"avif"
    assert np.array_equal(pictures.read(data[:8] + b"mif1" + data[12:]), pictures.read(data))


def test_a_warning_is_not_lost_while_another_thread_reads_a_picture():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with formats.quiet():
            warn("a loss")
    assert [str(warning.message) for warning in seen] == ["a loss"]


def test_threads_do_not_change_warning_filters():
    before = list(warnings.filters)
    data = saved(PIL.Image.fromarray(IMAGE))
    work = [
        threading.Thread(target=lambda: [pictures.read(data) for _ in range(50)]) for _ in "abcd"
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert list(warnings.filters) == before


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


def exchanged_profile():
    """An sRGB profile with red and blue exchanged, so that its effect shows."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {bytes(data[at : at + 4]): at for at in range(132, 132 + 12 * data[131], 12)}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


@pytest.mark.parametrize("mode", ["P", "RGB", "RGBA", "RGBa", "RGBX", "PA", "L", "LA", "1"])
def test_profiles_apply_to_every_mode(mode):
    picture = PIL.Image.new("RGB", (4, 4), (200, 40, 10))
    if mode == "RGBa":
        picture = picture.convert("RGBA")
    picture = picture.convert("P") if mode == "PA" else picture.convert(mode)
    picture = picture.convert("PA") if mode == "PA" else picture
    plain = pictures.to_rgb(picture)[0, 0].astype(int)
    picture.info["icc_profile"] = exchanged_profile()
    red, green, blue = pictures.to_rgb(picture)[0, 0].astype(int)
    assert abs(red - plain[2]) <= 2
    assert abs(blue - plain[0]) <= 2
    assert abs(green - plain[1]) <= 2


def grey_profile(gamma):
    """A grey profile (ICC.1, 8.3.4) with the gamma."""
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(256 * gamma))
    white = b"XYZ " + struct.pack(">Iiii", 0, 63190, 65536, 54061)
    tags = struct.pack(">I4sII4sII", 2, b"kTRC", 156, 14, b"wtpt", 172, 20)
    head = struct.pack(">I4sI4s4s4s", 192, b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    head = (head + bytes(12) + b"acsp").ljust(68, b"\0") + struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + tags + curve.ljust(16, b"\0") + white


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_profiles_apply_to_grey_of_every_depth(mode):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = PIL.Image.fromarray(ramp if mode != "I;16" else ramp.astype(np.uint16) * 257)
    picture = picture.convert(mode) if mode == "LA" else picture
    light = []
    for gamma in (1.0, 2.2):
        out = io.BytesIO()
        picture.save(out, "PNG", icc_profile=grey_profile(gamma))
        light.append(int(pictures.read(out.getvalue())[8, 0, 0]))
    assert light[0] == pytest.approx(188, abs=2)  # 128 in linear light
    assert light[1] == pytest.approx(128, abs=4)


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_an_animation_at_an_impossible_rate_is_refused(format):
    """A sequence may name any."""
    frames = [np.full((8, 8, 3), shade, np.uint8) for shade in (0, 99)]
    with pytest.raises(OutputError, match="animation"):
        pictures.animation(frames, 1 / 2**32, format)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff\xdb\0\2" * 400_000,
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0ABCD\0\0\0\0" * 400_000,
    ],
    ids=["JPEG", "PNG"],
)
def test_the_time_for_a_damaged_file_grows_with_its_length(data):
    start = time.process_time()
    with pytest.raises(ImageError):
        pictures.read(data)
    assert time.process_time() - start < 8  # copied anew for each segment, it took a minute


def test_the_first_frame_of_an_animation_is_read():
    frames = [PIL.Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    for format in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = saved(frames[0], format, save_all=True, append_images=frames[1:], **options)
        with pytest.warns(SempicWarning, match="the first is taken"):
            assert pictures.read(data)[0, 0].tolist() == [255, 0, 0]
        picture = PIL.Image.open(io.BytesIO(data))
        picture.seek(1)
        with pytest.warns(SempicWarning, match="number 2 is taken"):
            assert pictures.to_rgb(picture)[0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("magic", [container.MAGIC, container.SEQUENCE_MAGIC])
def test_a_stream_is_refused_with_a_remedy(magic):
    with pytest.raises(
        ImageError, match=r"a \.sempic file, not a picture; sempic decode makes one"
    ):
        pictures.read(magic + bytes(64))


def test_the_kind_of_a_picture_is_known():
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


def test_bad_files_are_refused_with_the_cause():
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


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif"])
@pytest.mark.parametrize("palette", [CAMVID, CITYSCAPES_FULL, INDICES])
def test_coloured_label_maps_keep_their_ids(suffix, palette):
    data = pictures.encode_labels(LABELS, palette, suffix)
    assert np.array_equal(pictures.read_labels(data), LABELS)
    if palette is CAMVID:
        assert np.array_equal(pictures.read(data), CAMVID.paint(LABELS))


def test_label_maps_in_lossy_formats_are_refused():
    data = pictures.encode_labels(LABELS, CAMVID, ".webp")
    assert pictures.read(data).shape == (20, 30, 3)
    with pytest.raises(LabelMapError, match="mode RGB"):
        pictures.read_labels(data)
    for format, options in (
        ("JPEG", {}),
        ("WEBP", {}),
        ("AVIF", {}),
        ("JPEG2000", {}),
        ("TIFF", {"compression": "jpeg"}),
    ):
        with pytest.raises(LabelMapError, match="exactly"):
            pictures.read_labels(saved(PIL.Image.fromarray(LABELS), format, **options))


@pytest.mark.parametrize(  # PNG has no palettes of 16 bits
    ("depth", "kind"),
    [*((depth, 0) for depth in (1, 2, 4, 8, 16)), *((depth, 3) for depth in (1, 2, 4, 8))],
)
def test_ids_are_the_samples_as_stored(depth, kind):
    ids = np.arange(256).reshape(16, 16) % (1 << min(depth, 8))
    if depth == 16:
        packed = [row.astype(">u2").tobytes() for row in ids]
    else:
        bits = np.unpackbits(ids.astype(np.uint8)[..., None], axis=2)[..., 8 - depth :]
        packed = [np.packbits(row).tobytes() for row in bits]
    colours = bytes(i % 256 for i in range(0, 768 * 7, 7))  # unrelated to our palettes
    if kind == 0:
        data = png(depth, kind, packed)
    else:
        data = png(depth, kind, packed, (b"PLTE", colours[: 3 << depth]))
    assert np.array_equal(pictures.read_labels(data), ids)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("white", [False, True])
def test_ids_of_tiffs_are_the_samples_as_stored(bits, white):
    ids = (np.arange(256).reshape(16, 16) % (1 << bits)).astype(np.uint8)
    planes = np.unpackbits(ids[..., None], axis=2)[..., 8 - bits :]
    packed = np.packbits(planes.reshape(16, -1), axis=1)
    data = tiff(packed, bits, (256, 16), (262, 0 if white else 1))
    assert np.array_equal(pictures.read_labels(data), ids)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_label_maps_are_turned_as_pictures(format, orientation):
    turned = PIL.Image.Exif()
    turned[0x112] = orientation
    data = saved(PIL.Image.fromarray(LABELS), format, exif=turned)
    assert np.array_equal(pictures.read_labels(data, INDICES), pictures.read(data)[..., 0])


@pytest.mark.parametrize("most", [1, 11, 19, 100, 254, 255, 1000, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_ids_of_pgms_are_the_samples_as_stored(most, plain):
    ids = np.arange(256).reshape(16, 16) % (min(most, 255) + 1)
    if plain:
        data = f"P2 16 16 {most}\n{' '.join(map(str, ids.ravel()))}\n".encode()
    else:
        kind = ">u2" if most > 255 else np.uint8
        data = f"P5 16 16 {most}\n".encode() + ids.astype(kind).tobytes()
    assert np.array_equal(pictures.read_labels(data), ids)


def test_ids_of_pbms_gifs_and_tgas():
    bits = LABELS % 2
    packed = b"".join(np.packbits(row).tobytes() for row in bits)
    assert np.array_equal(pictures.read_labels(b"P4 30 20\n" + packed), bits)
    for format in ("GIF", "TGA", "BMP"):
        data = saved(PIL.Image.fromarray(LABELS), format)
        assert np.array_equal(pictures.read_labels(data), LABELS)


@pytest.mark.parametrize("palette", [CAMVID, CITYSCAPES])
def test_reordered_palettes_are_recognised(palette):
    """As oxipng, pngquant and Pillow's quantize do."""
    for first, count in ((10, 1), (9, 2), (0, len(palette.classes))):
        ids = (first + np.arange(600).reshape(20, 30) % count).astype(np.uint8)
        data = saved(PIL.Image.fromarray(palette.paint(ids)).quantize(count))
        assert np.array_equal(pictures.read_labels(data, palette), ids)
        assert (
            pictures.read_labels(data, INDICES).max() == count - 1
        )  # colours have no meaning in this palette


def test_grey_ids_in_a_palette_are_recognised():
    """As optimisers of PNGs store a grey map of few ids; 255 is void."""
    for greys in ((0, 3, 5), (9, 255, 4), (255, 11), (0, 1, 255)):
        picture = PIL.Image.fromarray(LABELS % len(greys))
        picture.putpalette(np.repeat(np.array(greys, np.uint8), 3).tobytes())
        found = pictures.read_labels(saved(picture))
        assert np.array_equal(found, np.array(greys, np.uint8)[LABELS % len(greys)])
    for mask in ((0, 255), (255, 0)):  # for display, as of a picture of one bit
        picture = PIL.Image.fromarray(LABELS % 2)
        picture.putpalette(np.repeat(np.array(mask, np.uint8), 3).tobytes())
        assert np.array_equal(pictures.read_labels(saved(picture)), LABELS % 2)


@pytest.mark.parametrize("palette", [CAMVID, CITYSCAPES, CITYSCAPES_FULL, INDICES])
def test_ordered_and_unrelated_palettes_are_read_by_index(palette):
    rng = np.random.default_rng(0)
    for table in (
        palette.table(),
        np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(-1, 3),  # a grey ramp
        rng.integers(1, 256, (256, 3)).astype(np.uint8),
        np.zeros((256, 3), np.uint8),
    ):
        for ids in (LABELS, np.zeros_like(LABELS), LABELS % 2):
            picture = PIL.Image.fromarray(ids)
            picture.putpalette(table.tobytes())
            assert np.array_equal(pictures.read_labels(saved(picture), palette), ids)


@pytest.mark.parametrize("palette", [CAMVID, CITYSCAPES, CITYSCAPES_FULL, INDICES])
def test_the_palette_of_a_map_is_that_of_its_colours(palette):
    for ids in (LABELS, np.zeros_like(LABELS)):
        for suffix in (".png", ".bmp"):
            data = pictures.encode_labels(ids, palette, suffix)
            assert pictures.palette_of(data) is palette
            assert np.array_equal(pictures.read_labels(data, palette), ids)
    if palette in (CAMVID, CITYSCAPES):
        ids = (np.arange(600).reshape(20, 30) % len(palette.classes)).astype(np.uint8)
        sorted_colours = saved(PIL.Image.fromarray(palette.paint(ids)).quantize(256))
        assert pictures.palette_of(sorted_colours) is palette


def test_maps_without_colours_of_a_palette_have_camvids_ids():
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes()
    for table in (None, ramp, bytes(768)):
        picture = PIL.Image.fromarray(LABELS)
        if table is not None:
            picture.putpalette(table)
        assert pictures.palette_of(saved(picture)) is CAMVID
    picture.putpalette(bytes(range(9)))
    with pytest.warns(SempicWarning, match="no palette: its ids are read as those of camvid"):
        assert pictures.palette_of(saved(picture)) is CAMVID
    with pytest.raises(LabelMapError, match="empty"):
        pictures.palette_of(b"")


def test_colours_that_contradict_the_indices_are_refused():
    """The first colours of VOC are two of CamVid's in another order; the others are foreign."""
    picture = PIL.Image.fromarray(LABELS % 2)
    voc = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
    picture.putpalette(np.array(voc, np.uint8).tobytes())
    data = png(8, 3, [row.tobytes() for row in LABELS % 2], (b"PLTE", bytes(sum(voc, ()))))
    with pytest.raises(LabelMapError, match="grey PNG"):
        pictures.read_labels(data)
    assert np.array_equal(pictures.read_labels(data, CITYSCAPES_FULL), LABELS % 2)


def test_photographs_and_label_maps_are_told_apart():
    assert pictures.is_map(saved(PIL.Image.fromarray(LABELS)))
    assert pictures.is_map(saved(PIL.Image.fromarray(CAMVID.paint(LABELS))))
    assert pictures.is_map(saved(PIL.Image.fromarray(LABELS.astype(np.uint16))))
    assert pictures.is_map(saved(PIL.Image.fromarray(IMAGE))) is False
    assert pictures.is_map(saved(PIL.Image.fromarray(LABELS), "JPEG")) is False
    assert pictures.is_map(b"nonsense") is None


def test_label_maps_of_16_bits():
    wide = LABELS.astype(np.uint16)
    assert np.array_equal(pictures.read_labels(saved(PIL.Image.fromarray(wide))), LABELS)
    with pytest.raises(LabelMapError):
        pictures.read_labels(saved(PIL.Image.fromarray(wide + 250)))
    with pytest.raises(LabelMapError, match="empty"):
        pictures.read_labels(b"")


def test_shrink_limits_the_longer_side():
    image, labels = pictures.shrink(IMAGE, LABELS, 15)
    assert image.shape == (10, 15, 3)
    assert labels.shape == (10, 15)
    assert set(np.unique(labels)) <= set(np.unique(LABELS))
    for side in (30, 31):
        assert pictures.shrink(IMAGE, None, side)[0] is IMAGE
    assert pictures.shrink(np.zeros((5000, 3, 3), np.uint8), None, 100)[0].shape == (100, 1, 3)
    with pytest.raises(InputError):
        pictures.shrink(IMAGE, None, 0)


@pytest.mark.parametrize(
    ("suffix", "colour", "grey"),
    [
        (".ppm", b"P6", b"P6"),
        (".pgm", None, b"P5"),
        (".PBM", None, None),
        (".pnm", b"P6", b"P5"),
        (".jp2", b"\0\0\0\x0cjP", b"\0\0\0\x0cjP"),
        (".j2k", b"\xff\x4f", b"\xff\x4f"),
    ],
)
def test_files_are_of_the_format_of_their_name(suffix, colour, grey):
    for picture, magic in ((IMAGE, colour), (IMAGE[..., 0], grey)):
        if magic is None:
            with pytest.raises(OutputError, match=f"{suffix.lower()} file cannot hold"):
                pictures.encode(picture, suffix)
        else:
            assert pictures.encode(picture, suffix).startswith(magic)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".webp", ".tif", ".ppm"])
def test_encode_writes_every_format(suffix):
    assert pictures.read(pictures.encode(IMAGE, suffix)).shape == IMAGE.shape


@pytest.mark.parametrize("suffix", ["", ".txt", ".sempic"])
def test_encode_refuses_foreign_suffixes(suffix):
    with pytest.raises(OutputError, match="cannot write pictures"):
        pictures.encode(IMAGE, suffix)


def test_encode_refuses_what_the_format_cannot_hold():
    with pytest.raises(OutputError, match="WEBP"):
        pictures.encode(np.zeros((1, 20000, 3), np.uint8), ".webp")
