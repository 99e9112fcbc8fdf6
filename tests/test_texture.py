"""Texture: the strength of the finest detail, measured by the encoder, applied by the decoder."""

import tracemalloc

import numpy as np
import PIL.Image
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

import sempic
from sempic import api, coarse, codec, container, texture
from sempic.errors import BitstreamError, CorruptStream, InputError, TruncatedStream
from sempic.palette import CAMVID, CITYSCAPES, INDICES

ROAD, CAR = CITYSCAPES.classes.index("road"), CITYSCAPES.classes.index("car")
levels = st.tuples(st.integers(0, 31), st.integers(0, 15)).map(lambda p: (p[0], min(31, sum(p))))
textures = st.dictionaries(st.integers(0, 255), levels, min_size=1)


def grain(sigma, shape=(96, 128)):
    """A grey picture with noise in it."""
    noise = np.random.default_rng(7).normal(0, sigma, shape)
    return np.clip(128 + noise[..., None] + np.zeros(3), 0, 255).astype(np.uint8)


def halves():
    """A map: a road on the left, a car on the right."""
    labels = np.full((96, 128), ROAD, np.uint8)
    labels[:, 64:] = CAR
    return labels


def strength(picture):
    """The root mean square of differences between neighbouring pixels."""
    grey = picture[..., 1].astype(float)
    return float(np.sqrt((np.diff(grey, axis=1) ** 2).mean()))


@given(textures)
def test_texture_survives_a_round_trip(said):
    assert texture.read(texture.write(said)) == said


def test_a_class_takes_ten_bits_and_its_number():
    assert len(texture.write({0: (5, 19)})) == 2
    assert len(texture.write({0: (5, 19), 4: (15, 24), 10: (3, 8)})) == 6


def test_invalid_texture_is_refused():
    payload = texture.write({0: (5, 19), 10: (3, 8)})
    for cut in range(len(payload)):
        with pytest.raises(TruncatedStream):
            texture.read(payload[:cut])
    with pytest.raises(CorruptStream, match="longer"):
        texture.read(payload + b"\0")
    with pytest.raises(CorruptStream, match="longer"):
        texture.read(payload[:-1] + bytes([payload[-1] | 1]))
    with pytest.raises(CorruptStream, match="of id 0"):
        texture.read(bytes([0b11111111, 0b11110000]))  # far beyond the last level
    with pytest.raises(InputError, match="at least one class"):
        texture.write({})
    for wrong in ({256: (0, 0)}, {-1: (0, 0)}, {0: (5, 4)}, {0: (0, 16)}, {0: (31, 32)}):
        with pytest.raises(InputError, match="is no valid texture"):
            texture.write(wrong)


@given(st.binary(max_size=12))
def test_any_bytes_are_a_texture_or_refused(noise):
    try:
        found = texture.read(noise)
    except BitstreamError:
        return
    assert texture.write(found) == noise


def test_a_long_payload_takes_no_memory():
    payload = texture.write({0: (5, 19)}) + bytes(1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptStream, match="longer"):
            texture.read(payload)
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def test_texture_of_the_usual_strength_is_not_sent():
    assert texture.choose(grain(25), halves(), CITYSCAPES) == {}


def test_classes_with_weak_texture_are_sent():
    picture = grain(25)
    picture[:, :64] = grain(1)[:, :64]
    assert list(texture.choose(picture, halves(), CITYSCAPES)) == [ROAD]
    assert texture.choose(np.full_like(picture, 90), halves(), CITYSCAPES).keys() == {ROAD, CAR}
    assert texture.choose(np.full_like(picture, 90), None, CITYSCAPES) == {0: (0, 0)}


@pytest.mark.parametrize("palette", [CAMVID, INDICES])
def test_texture_of_other_palettes_is_sent(palette):
    labels = np.zeros((96, 128), np.uint8)
    assert texture.choose(grain(0), labels, palette) == {0: (0, 0)}


def test_small_classes_are_left_out():
    labels = np.full((96, 128), ROAD, np.uint8)
    labels[:4, :4] = CAR
    assert list(texture.choose(grain(0), labels, CITYSCAPES)) == [ROAD]


def test_only_changed_texture_is_sent_again():
    said = texture.choose(grain(1), halves(), CITYSCAPES)
    assert texture.choose(grain(1.1), halves(), CITYSCAPES, said) == {}
    rough = grain(1)
    rough[:, :64] = grain(25)[:, :64]
    assert list(texture.choose(rough, halves(), CITYSCAPES, said)) == [
        ROAD
    ]  # though it is strong now


def test_texture_beyond_the_sent_strength_is_reduced():
    painted = grain(20)
    wanted = grain(4)
    said = texture.choose(wanted, None, INDICES)
    found = texture.weaken(painted, None, said)
    assert found.dtype == np.uint8
    assert 0.3 * strength(wanted) < strength(found) < strength(wanted)
    assert abs(found.mean() - painted.mean()) < 0.1
    unfiltered = texture.weaken(painted, None, said, patterns=False)
    assert strength(unfiltered) == pytest.approx(0.8 * strength(wanted), rel=0.25)


@pytest.mark.parametrize("labels", [None, halves()])
def test_patterns_far_beyond_the_sent_strength_are_filtered_and_edges_stay(labels):
    street = np.full((96, 128, 3), 60, np.uint8)
    street[:, 64:] = 180
    painted = street.copy()
    painted[1::4, 1::4] += 12  # dots of a grid
    painted[::2, ::2] += 4
    said = dict.fromkeys((0, ROAD, CAR), (2, 17))

    def left(patterns):
        found = texture.weaken(painted, labels, said, patterns=patterns).astype(int)
        assert np.abs(found - street)[:, 62:66].max() < 15  # the edge between the halves
        return np.abs(found - street)[5:90:4, 5:120:4].mean()

    assert left(patterns=True) < 0.8 * left(patterns=False)


def test_even_grain_is_not_filtered_without_a_map():
    painted = grain(12)
    for said, filtered in (((2, 9), False), ((2, 14), False), ((2, 15), True)):
        found, unfiltered = (
            texture.weaken(painted, None, {0: said}, patterns=patterns)
            for patterns in (True, False)
        )
        assert filtered == (not np.array_equal(found, unfiltered))


def test_weak_detail_between_strong_details_is_not_filtered_without_a_map():
    stars = grain(3)
    stars[::7, ::7] = 250
    median, high, _ = texture.measure(stars, None, INDICES)[0]
    found = [
        texture.weaken(stars, None, {0: (median - 2, said)}, patterns=patterns)
        for said in (high + 4, high - 4)
        for patterns in (True, False)
    ]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[2], found[3])


def test_the_largest_difference_of_levels_does_not_limit_strong_edges():
    picture = np.full((96, 128, 3), 60, np.uint8)
    picture[:, ::16] = 250  # strong lines on a smooth ground
    said = texture.choose(picture, None, INDICES)
    assert said[0][1] - said[0][0] == 15
    assert np.abs(texture.weaken(picture, None, said).astype(int) - picture).max() <= 1


def test_only_sent_classes_are_changed():
    painted, labels = grain(20), halves()
    found = texture.weaken(painted, labels, {ROAD: (0, 0)})
    assert strength(found[:, :60]) < 0.35 * strength(painted[:, :60])
    assert np.array_equal(found[:, 64:], painted[:, 64:])


def test_texture_is_never_made_stronger():
    painted = grain(3)
    assert texture.weaken(painted, halves(), {ROAD: (31, 31), CAR: (31, 31)}) is painted


def noise(said, palette):
    return texture.noise_strength(texture.condition(said), texture.default_noise(palette))


def test_weak_texture_takes_little_noise():
    """The strength rises by a tenth per level sent. For classes without a level, half of that, and
    at most the usual one."""
    found = noise({CAR: (10, 20), ROAD: (2, 9), 8: (25, 31)}, CITYSCAPES)
    assert found.dtype == np.float32
    assert found.shape == (256,)
    np.testing.assert_allclose(found[[CAR, ROAD, 8]], [0.7, 0.4, 1.6], rtol=1e-6)
    usual = noise({}, CITYSCAPES)
    np.testing.assert_allclose(usual[[CAR, ROAD, 10]], [1, 0.85, 0.7], rtol=1e-6)
    assert noise({}, CAMVID)[CAMVID.classes.index("pavement")] == usual[1]


def test_classes_without_a_usual_strength_take_full_noise():
    assert (noise({}, INDICES) == 1).all()
    assert noise({3: (18, 20)}, INDICES)[3] == 1.5
    # Without a map, id 0 stands for the whole picture.
    without = noise({0: (10, 20)}, None), noise({}, None)
    np.testing.assert_allclose([t[0] for t in without], [0.7, 1], rtol=1e-6)
    assert all((t[1:] == 1).all() for t in without)


def test_strips_have_no_seams():
    """For any number of rows processed at a time."""
    painted = grain(20, (200, 60))
    whole = texture.weaken(painted, None, {0: (4, 9)})
    part = texture.weaken(painted[:128], None, {0: (4, 9)})
    assert np.abs(whole[:120].astype(int) - part[:120]).max() <= 2
    flat = np.full((200, 60, 3), 77, np.uint8)
    flat[::2] += 2
    assert len(np.unique(texture.weaken(flat, None, {0: (0, 0)})[2:-2:2])) == 1


def test_large_pictures_are_measured_by_sampled_rows():
    large = np.tile(grain(6, (64, 64)), (40, 32, 1))
    assert large[..., 0].size > 2 * texture._MOST_MEASURED
    one, other = (texture.choose(p, None, CITYSCAPES)[0] for p in (large, large[:256, :256]))
    assert np.abs(np.subtract(one, other)).max() <= 1


def test_tiny_pictures_are_measured_and_painted():
    for shape in ((1, 1), (1, 7), (2, 3)):
        picture = grain(30, shape)
        said = texture.choose(np.full_like(picture, 9), None, INDICES)
        assert said == {0: (0, 0)}
        assert texture.weaken(picture, None, said).shape == picture.shape


@pytest.fixture
def coder():
    """A codec whose receiver paints noise."""
    return api.Codec(
        segmenter=lambda pixels: np.zeros(pixels.shape[:2], np.uint8),
        receiver=lambda scene: grain(20, (scene.height, scene.width)),
    )


def test_a_stream_carries_texture_to_its_receiver(coder):
    stream = coder.encode(grain(2), labels=halves(), palette="cityscapes")
    scene = codec.unpack(stream)
    assert scene.texture.keys() == {ROAD, CAR}
    size = api.info(stream)["chunks"]["texture"]
    assert size == len(texture.write(scene.texture)) <= 4
    shown = np.asarray(coder.decode(stream))
    assert strength(shown) < 0.3 * strength(grain(20))


def test_invalid_texture_is_refused_even_when_not_needed():
    stream = (ROOT / "vectors/texture.sempic").read_bytes()
    parts = container.read(stream)
    broken = container.write(container.Container(
        width=parts.width, height=parts.height, palette=parts.palette, coarse=parts.coarse,
        texture=b"\xff\xff\xff",
    ))  # fmt: skip
    for only in (None, "labels", "coarse"):
        with pytest.raises(CorruptStream):
            sempic.unpack(broken, only=only)


def test_halved_pictures_have_the_texture_of_half_their_size(coder):
    """The half-size picture is painted; enlarged, it has no texture."""
    small = grain(3, (210, 260))
    large = PIL.Image.fromarray(small).resize((520, 420), PIL.Image.Resampling.BICUBIC)
    stream = coder.encode(large)
    scene = codec.unpack(stream)
    assert scene.halved
    half = coarse.downscale(np.asarray(large), 2)
    assert scene.texture == texture.choose(half, scene.labels[::2, ::2], CAMVID)
    shown = coarse.downscale(np.asarray(coder.decode(stream)), 2)
    assert strength(shown) < 0.4 * strength(grain(20))
