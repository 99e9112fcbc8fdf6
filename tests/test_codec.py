"""pack and unpack; tests of the payloads are beside their coders."""

import dataclasses
import zlib

import numpy as np
import pytest
from conftest import damaged, refuses_prefixes_and_flips, same_planes, street
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from priors import write_prior

from sempic import coarse, container
from sempic.coarse import CODECS
from sempic.codec import pack, unpack
from sempic.errors import (
    BitstreamError,
    CorruptStream,
    InputError,
    LabelMapError,
    LimitExceeded,
    UnsupportedChunk,
)
from sempic.labels import own
from sempic.palette import CAMVID, CITYSCAPES, PALETTES

IMAGE, LABELS = street(24, 32)
COARSE = coarse.encode(coarse.downscale(IMAGE, 4), codec="bpg", quality=35, chroma="420")
STREAM = pack(width=32, height=24, labels=LABELS, coarse=COARSE)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_payloads_of_any_byte_type_are_packed_alike(kind):
    assert pack(width=32, height=24, labels=LABELS, coarse=kind(COARSE)) == STREAM


@pytest.mark.parametrize("part", ["coarse", "windows"])
def test_decoded_parts_are_no_payloads(part):
    with pytest.raises(InputError, match=f"^{part} is bytes of sempic.{part}.encode, not Coarse$"):
        pack(width=32, height=24, labels=LABELS, **{part: unpack(STREAM).coarse})


@pytest.mark.parametrize(("name", "kind"), [("halved", 6), ("doubled", 7)])
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (23, 32), (24, 31)])
def test_labels_of_half_the_size_survive_a_round_trip(size, name, kind):
    height, width = size
    small = street(24, 32)[1][: -(-height // 2), : -(-width // 2)]
    labels = small.repeat(2, 0).repeat(2, 1)[:height, :width]
    stream = pack(width=width, height=height, labels=labels, **{name: True})
    assert stream[6] & 15 == kind  # after magic, version, size, and palette with model
    scene = unpack(stream)
    assert (scene.doubled, scene.halved) == (True, name == "halved")
    assert np.array_equal(scene.labels, labels)
    scene = unpack(pack(width=width, height=height, labels=labels))
    assert (scene.doubled, scene.halved) == (False, False)
    with pytest.raises(LabelMapError, match="no labels"):
        pack(width=width, height=height, coarse=COARSE, **{name: True})


@pytest.mark.parametrize("place", [(1, 2), (2, 1), (23, 30), (10, 31)])
@pytest.mark.parametrize("name", ["doubled", "halved"])
def test_only_labels_equal_in_2x2_blocks_are_sent_at_half_the_size(place, name):
    labels = np.zeros((24, 32), np.uint8)
    labels[place] = 1
    with pytest.raises(LabelMapError, match="equal within each 2×2 pixels"):
        pack(width=32, height=24, labels=labels, **{name: True})


def test_unpack_inverts_pack():
    scene = unpack(STREAM)
    assert (scene.width, scene.height, scene.palette, scene.model) == (32, 24, 1, 0)
    assert scene.labels.dtype == np.uint8
    assert np.array_equal(scene.labels, LABELS)
    assert same_planes(scene.coarse, coarse.decode(COARSE, codec="bpg"))


@given(
    npst.arrays(np.uint8, npst.array_shapes(min_dims=2, max_dims=2, max_side=12)),
    st.integers(0, 14),
)
def test_any_label_map_is_lossless(labels, model):
    height, width = labels.shape
    scene = unpack(pack(width=width, height=height, labels=labels, palette=0, model=model))
    assert np.array_equal(scene.labels, labels)
    assert (scene.width, scene.height, scene.model, scene.coarse) == (width, height, model, None)


def test_unpack_may_read_one_part():
    assert unpack(STREAM, only="labels").coarse is None
    assert np.array_equal(unpack(STREAM, only="labels").labels, LABELS)
    assert unpack(STREAM, only="coarse").labels is None
    assert unpack(STREAM, only="coarse").coarse.y.shape == (6, 8)


def test_a_stream_may_have_one_part():
    assert unpack(pack(width=32, height=24, coarse=COARSE)).labels is None
    assert unpack(pack(width=32, height=24, labels=LABELS)).coarse is None
    with pytest.raises(InputError):
        pack(width=32, height=24)


@pytest.mark.parametrize("codec", CODECS)
def test_every_coarse_codec(codec):
    try:
        payload = coarse.encode(coarse.downscale(IMAGE, 4), codec=codec, quality=35, chroma="420")
    except InputError as error:
        pytest.skip(str(error))
    scene = unpack(pack(width=32, height=24, coarse=payload, coarse_codec=codec))
    assert scene.coarse.y.shape == (6, 8)


def test_unknown_coarse_codecs_are_refused():
    with pytest.raises(InputError, match="jpeg"):
        pack(width=32, height=24, coarse=COARSE, coarse_codec="jpeg")


@pytest.mark.parametrize(
    "labels",
    [
        LABELS.astype(np.int64),
        LABELS[None],
        LABELS[:-1],
        LABELS.T,
        np.full_like(LABELS, 12),
        LABELS.tolist(),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises(LabelMapError):
        pack(width=32, height=24, labels=labels)


def test_an_empty_map_is_refused():
    with pytest.raises(LabelMapError):
        pack(width=0, height=4, labels=np.zeros((4, 0), np.uint8))


@pytest.mark.parametrize("palette", PALETTES.values(), ids=lambda p: p.name)
def test_ids_outside_the_palette_are_refused(palette):
    """Both pack and unpack refuse them."""
    last = len(palette.classes) - 1
    labels = np.full((2, 3), last, np.uint8)
    assert np.array_equal(
        unpack(pack(width=3, height=2, labels=labels, palette=palette.id)).labels, labels
    )
    if last == 255:
        return
    with pytest.raises(LabelMapError, match=rf"id {last + 1};.*; palette \(--palette\) names"):
        pack(width=3, height=2, labels=labels + np.uint8(1), palette=palette.id)
    stream = bytearray(pack(width=3, height=2, labels=labels + np.uint8(1), palette=0))
    stream[5] = palette.id
    stream[-4:] = zlib.crc32(stream[:-4]).to_bytes(4, "little")
    with pytest.raises(CorruptStream, match=f"id {last + 1}"):
        unpack(bytes(stream))


def test_the_coarse_picture_helps_the_labels():
    """Label bytes depend on the coarse picture only where its codec is exact."""
    picture, labels = street(256, 341)
    small = coarse.downscale(picture, 4)

    def size(codec):
        payload = None if codec is None else coarse.encode(small, codec=codec)
        stream = pack(
            width=341, height=256, labels=labels, coarse=payload, coarse_codec=codec or "bpg"
        )
        assert np.array_equal(unpack(stream).labels, labels)
        assert np.array_equal(unpack(stream, only="labels").labels, labels)
        return len(container.read(stream).labels)

    assert size("webp") == size(None) != size("bpg")


def test_labels_coded_with_the_coarse_picture_need_it():
    c = container.read(STREAM)
    other = coarse.encode(coarse.downscale(IMAGE, 4), codec="webp")
    for without in (
        dataclasses.replace(c, coarse=None),
        dataclasses.replace(c, coarse=other, coarse_type=CODECS["webp"].chunk),
    ):
        with pytest.raises(CorruptStream, match="coarse"):
            unpack(container.write(without))


def test_a_coarse_picture_larger_than_the_picture_is_refused():
    for width, height in ((7, 6), (8, 5), (1, 1)):
        with pytest.raises(CorruptStream, match="8×6"):
            unpack(pack(width=width, height=height, coarse=COARSE))
    unpack(pack(width=8, height=6, coarse=COARSE))


def test_the_pixel_limit_can_be_set():
    with pytest.raises(LimitExceeded):
        unpack(STREAM, max_pixels=32 * 24 - 1)


def test_a_custom_prior(tmp_path):
    """Maps of its palette use it and then need it; all else is unchanged."""
    mine = own.load(write_prior(tmp_path / "mine.npz", CAMVID, LABELS))
    stream = pack(width=32, height=24, labels=LABELS, coarse=COARSE, prior=mine)
    assert len(stream) < len(STREAM)
    for only in (None, "labels"):
        assert np.array_equal(unpack(stream, only=only, prior=mine).labels, LABELS)
        with pytest.raises(UnsupportedChunk, match=f"begins with {mine.digest}; none is given"):
            unpack(stream, only=only)
    assert unpack(stream, only="coarse").labels is None
    assert np.array_equal(unpack(STREAM, prior=mine).labels, LABELS)
    refuses_prefixes_and_flips(stream)
    other = {"width": 32, "height": 24, "labels": LABELS, "palette": CITYSCAPES.id}
    assert pack(**other, prior=mine) == pack(**other)
    with pytest.raises(InputError, match="own must be a prior"):
        unpack(stream, prior=tmp_path / "mine.npz")


def test_every_prefix_and_every_single_bit_flip_is_refused():
    refuses_prefixes_and_flips(STREAM)


@pytest.mark.parametrize("part", ["labels", "coarse"])
def test_damage_with_a_valid_checksum_decodes_or_is_refused(part):
    """Malicious contents give a picture or a BitstreamError, never a crash."""
    whole = container.read(STREAM)
    refused = 0
    for payload in damaged(getattr(whole, part), 60, part):
        stream = container.write(dataclasses.replace(whole, **{part: payload}))
        try:
            scene = unpack(stream)
        except BitstreamError:
            refused += 1
            continue
        if part == "labels":
            assert scene.labels.shape == (24, 32)
        else:
            assert scene.coarse.y.shape[0] <= 24
    assert refused >= 1
