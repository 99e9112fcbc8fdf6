"""Windows show the original without seams; damaged ones are refused."""

import dataclasses

import numpy as np
import pytest
from conftest import damaged, refuses_prefixes_and_flips, street
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sempic import coarse, container, windows
from sempic.coarse import bpg
from sempic.codec import pack, unpack
from sempic.errors import BitstreamError, CorruptStream, InputError, LimitExceeded, TruncatedStream
from sempic.evaluation.metrics import psnr
from sempic.windows import layout
from sempic.windows.layout import Place

IMAGE, LABELS = street(61, 83)
SMALL = coarse.encode(coarse.downscale(IMAGE, 4), quality=36)
PLANES = coarse.decode(SMALL)
PLACES = [Place(2, 3, 3, 2), Place(8, 0, 3, 2), Place(0, 7, 2, 1)]
"""One inside, one beyond the right edge, one beyond the lower edge."""
PAYLOAD = windows.encode(IMAGE, PLACES, PLANES, qp=34)
STREAM = pack(width=83, height=61, labels=LABELS, coarse=SMALL, windows=PAYLOAD)


def part(picture, window):
    height, width = window.picture.shape[:2]
    return picture[window.y : window.y + height, window.x : window.x + width]


# ── what is sent ──────────────────────────────────────────────────────────────────────────────


def test_windows_show_the_original():
    scene = unpack(STREAM)
    assert [(w.x, w.y, w.picture.shape) for w in scene.windows] == [
        (16, 24, (16, 24, 3)),
        (64, 0, (16, 19, 3)),
        (0, 56, (5, 16, 3)),
    ]
    for window in scene.windows:
        assert psnr(window.picture, part(IMAGE, window)) > 25
    fine = windows.decode(windows.encode(IMAGE, PLACES, PLANES, qp=4), 83, 61, PLANES)
    assert all(psnr(window.picture, part(IMAGE, window)) > 44 for window in fine)


def test_info_lists_the_windows():
    assert windows.where(PAYLOAD, 83, 61) == [[16, 24, 24, 16], [64, 0, 19, 16], [0, 56, 16, 5]]
    with pytest.raises(CorruptStream):
        windows.where(PAYLOAD, 20, 20)


def test_the_coarse_picture_saves_bytes():
    alone = windows.encode(IMAGE, PLACES, None)
    assert len(PAYLOAD) < len(alone)
    for window in windows.decode(alone, 83, 61, None):
        assert psnr(window.picture, part(IMAGE, window)) > 25


def test_windows_are_coded_alone_without_an_exact_coarse_picture():
    inexact = coarse.encode(coarse.downscale(IMAGE, 4), codec="webp")
    alone = windows.encode(IMAGE, PLACES, None)
    expected = windows.decode(alone, 83, 61, None)
    for more in (
        {"labels": LABELS},
        {"coarse": inexact, "coarse_codec": "webp"},
    ):
        found = unpack(pack(width=83, height=61, windows=alone, **more)).windows
        for one, other in zip(found, expected, strict=True):
            assert np.array_equal(one.picture, other.picture)


def test_windows_leave_the_rest_of_the_stream_unchanged():
    """Decoders without windows skip the chunk and show the rest."""
    plain = pack(width=83, height=61, labels=LABELS, coarse=SMALL)
    without = container.write(dataclasses.replace(container.read(STREAM), windows=None))
    assert without == plain
    scene = unpack(STREAM, only="coarse")
    assert scene.windows == ()
    assert np.array_equal(unpack(STREAM).labels, LABELS)


def test_one_atlas_takes_fewer_bytes_than_a_picture_for_each_window():
    alone = sum(len(windows.encode(IMAGE, [place], PLANES, qp=40)) for place in PLACES)
    assert len(windows.encode(IMAGE, PLACES, PLANES, qp=40)) < alone


@pytest.mark.parametrize("sizes", [[(1, 1)], [(3, 3), (2, 2), (2, 2)], [(8, 8)], [(40, 1)]])
def test_the_usual_opening_is_left_out(sizes):
    """For every size of coding trees; a failure means that x265 changed: see `bpg.opening`."""
    places, y = [], 0
    for width, height in sizes:
        places.append(Place(0, y, width, height))
        y += height
    picture = street(8 * y, 8 * max(width for width, _ in sizes))[0]
    payload = windows.encode(picture, places, None, qp=16)
    columns, rows = layout.grid(picture.shape[1], picture.shape[0])
    assert layout.read(payload, columns, rows)[1] is False
    found = windows.decode(payload, picture.shape[1], picture.shape[0], None)
    assert all(psnr(window.picture, part(picture, window)) > 25 for window in found)


def test_other_openings_are_sent_whole(monkeypatch):
    monkeypatch.setattr(bpg, "opening", lambda *size: b"none")
    payload = windows.encode(IMAGE, PLACES, PLANES, qp=34)
    assert len(payload) == len(PAYLOAD) + 20
    monkeypatch.undo()
    for one, other in zip(
        windows.decode(payload, 83, 61, PLANES), unpack(STREAM).windows, strict=True
    ):
        assert np.array_equal(one.picture, other.picture)


# ── where they are ────────────────────────────────────────────────────────────────────────────


@given(npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_rectangles_cover_the_cells_exactly_once(cells):
    places = layout.rectangles(cells)
    count = np.zeros(cells.shape, int)
    for place in places:
        count[place.inside] += 1
    assert np.array_equal(count, cells)


def test_the_largest_rectangle_is_taken_first():
    cells = np.zeros((5, 4), bool)
    cells[0, :3] = cells[:, 0] = True
    assert layout.rectangles(cells) == [Place(0, 0, 1, 5), Place(1, 0, 2, 1)]
    assert layout.rectangles(cells.T) == [Place(0, 1, 1, 2), Place(0, 0, 5, 1)]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=30))
def test_nothing_overlaps_in_an_atlas(sizes):
    places, width, height = layout.atlas(sizes)
    assert [(place.width, place.height) for place in places] == sizes
    assert min(width, height) >= 2
    assert not width or max(place.x + place.width for place in places) <= width
    count = np.zeros((height, width), int)
    for place in places:
        count[place.inside] += 1
    assert count.max() == 1
    assert count.sum() == sum(w * h for w, h in sizes)


@given(npst.arrays(bool, (7, 12)), st.booleans())
def test_places_survive_a_round_trip(cells, flag):
    places = layout.rectangles(cells)
    if places:
        header = layout.write(places, 12, 7, flag)
        assert layout.read(header + b"more", 12, 7) == (places, flag, len(header))


def test_a_mask_selects_the_cells_it_touches():
    mask = np.zeros((17, 20), bool)
    mask[16, 7] = mask[0, 16] = True
    assert np.argwhere(layout.touched(mask)).tolist() == [[0, 2], [2, 0]]
    part = mask[12:17, 5:8]
    assert np.argwhere(layout.touched(part, (12, 5), mask.shape)).tolist() == [[2, 0]]


# ── what is shown ─────────────────────────────────────────────────────────────────────────────


def test_borders_fade_and_pixels_outside_stay():
    painted = np.full((61, 83, 3), 100, np.uint8)
    white = [
        dataclasses.replace(window, picture=np.full_like(window.picture, 200))
        for window in unpack(STREAM).windows
    ]
    shown = windows.blend(painted, white)
    assert (painted == 100).all()  # a copy
    assert shown[30, 14:22, 0].tolist() == [100, 100, 125, 150, 175, 200, 200, 200]
    assert shown[24:28, 28, 1].tolist() == [125, 150, 175, 200]
    assert shown[0, 72:83, 2].tolist() == 11 * [200]  # at the picture's edge nothing fades
    inside = np.zeros((61, 83), bool)
    for window in white:
        part(inside, window)[:] = True
    assert (shown[~inside] == 100).all()
    assert np.array_equal(windows.blend(painted, ()), painted)


def test_touching_windows_have_no_border_between():
    painted = np.zeros((48, 48, 3), np.uint8)
    windows_ = [
        windows.Window(x=x, y=16, picture=np.full((16, 16, 3), 200, np.uint8)) for x in (8, 24)
    ]
    shown = windows.blend(painted, windows_)
    assert (shown[20:28, 12:36] == 200).all()


# ── bad payloads ──────────────────────────────────────────────────────────────────────────────


def decode(payload):
    return windows.decode(payload, 83, 61, PLANES)


def with_header(places, columns=11, rows=8):
    return layout.write(places, columns, rows, False) + PAYLOAD[layout.read(PAYLOAD, 11, 8)[2] :]


@pytest.mark.parametrize("place", [Place(9, 3, 3, 2), Place(2, 7, 1, 2), Place(15, 0, 1, 1)])
def test_windows_outside_the_picture_are_refused(place):
    with pytest.raises(CorruptStream, match="window 1 reaches beyond"):
        decode(with_header([place]))


def test_windows_that_overlap_are_refused():
    with pytest.raises(CorruptStream, match="window 2 overlaps"):
        decode(with_header([Place(2, 3, 3, 2), Place(4, 4, 1, 1)]))


def test_too_many_windows_are_refused():
    places = [Place(x, y, 1, 1) for y in range(16) for x in range(16)]
    picture = np.zeros((128, 128, 3), np.uint8)
    with pytest.raises(InputError, match="1…255 windows, not 256"):
        windows.encode(picture, places, None)
    with pytest.raises(InputError, match="not 0"):
        windows.encode(picture, [], None)
    payload = layout.write(places, 16, 16, False)
    with pytest.raises(LimitExceeded, match="256 windows"):
        windows.decode(payload, 128, 128, None)
    windows.decode(windows.encode(picture, places[:255], None), 128, 128, None)


def test_an_atlas_that_is_too_large_is_refused_before_anything_is_allocated():
    place = [Place(0, 0, 513, 1)]
    with pytest.raises(LimitExceeded, match="4104"):
        windows.decode(layout.write(place, 600, 1, False) + b"\0" * 20, 4800, 8, None)
    with pytest.raises(InputError, match="too large"):
        windows.encode(np.zeros((8, 4800, 3), np.uint8), place, None)


def test_an_atlas_of_another_size_or_format_is_refused():
    header = layout.write([Place(0, 0, 3, 3)], 11, 8, True)
    for chroma, size in (("444", 32), ("420", 24)):
        other = bpg.encode(coarse.from_rgb(street(size, size)[0], chroma), chroma_qp=0)
        with pytest.raises(CorruptStream, match="atlas is not"):
            decode(header + other[4:])


def test_a_header_is_whole_and_has_one_spelling():
    header = layout.write([Place(0, 0, 1, 1)], 11, 8, False)
    assert len(header) == 2  # 13 bits
    with pytest.raises(TruncatedStream, match="header of the windows"):
        decode(header[:1])
    with pytest.raises(CorruptStream, match="longer than need be"):
        decode(header[:1] + bytes([header[1] | 1]) + PAYLOAD[-50:])


def test_every_prefix_and_every_single_bit_flip_is_refused():
    refuses_prefixes_and_flips(STREAM)


def test_damaged_payloads_decode_or_are_refused():
    refused = 0
    for payload in damaged(PAYLOAD, 80, 0):
        try:
            found = decode(payload)
        except BitstreamError:
            refused += 1
            continue
        windows.blend(IMAGE, found)
    assert refused > 20
