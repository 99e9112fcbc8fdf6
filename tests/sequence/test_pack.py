"""Packing and unpacking of scenes, with and without losses."""

import functools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from conftest import same_planes
from scenes import drive, packed, packer_of, planes

import sempic
from sempic import coarse, errors
from sempic import palette as palettes
from sempic.coarse import sets
from sempic.sequence import Packer, Unpacker, info, stream

SCENES = drive(8)
PIECES = packed(SCENES, keys=(0, 5))


def unpack(pieces):
    unpacker = Unpacker()
    return [moment for piece in pieces for moment in unpacker.feed(piece)], unpacker


def check_maps(pieces, maps):
    """Check that each frame arrives with its map."""
    moments, _ = unpack(pieces)
    for moment, labels in zip(moments, maps, strict=True):
        assert np.array_equal(moment.scene.labels, labels)


def test_maps_are_lossless_and_planes_match_the_sender():
    packer = packer_of(SCENES[0][1])
    unpacker = Unpacker()
    for number, (picture, labels) in enumerate(SCENES):
        piece = packer.pack(planes(picture), lambda _, found=labels: found, key=number == 5)
        (moment,) = unpacker.feed(piece)  # without delay
        assert moment.number == number
        assert moment.arrived
        assert np.array_equal(moment.scene.labels, labels)
        assert same_planes(moment.scene.coarse, packer.last)
    unpacker.close()
    assert not unpacker.damage
    assert unpacker.head.rate == 10


def test_moving_maps_cost_less_than_single_maps():
    maps = [len(f.labels or b"") for f in frames_of(PIECES)]
    assert sum(maps[1:5]) < 0.4 * 4 * maps[0]


def frames_of(pieces):
    return [f for f in stream.Reader().feed(b"".join(pieces)) if isinstance(f, stream.Frame)]


def test_a_still_frame_takes_five_bytes():
    """Both sides keep the same adaptive state meanwhile."""
    packer = packer_of(SCENES[0][1])
    pieces, sent = [], []
    for number in (0, 0, 1, 1, 1, 2):
        picture, labels = SCENES[number]
        again = bool(sent) and sent[-1] is labels
        pieces.append(packer.pack(None if again else planes(picture), lambda _, f=labels: f))
        sent.append(labels)
    assert [len(p) for p in pieces[1::3]] == [5, 5]
    check_maps(pieces, sent)


def test_an_expected_map_is_not_sent():
    packer = packer_of(SCENES[0][1])
    seen = []

    def follow(expected):
        seen.append(SCENES[0][1] if expected.labels is None else expected.labels)
        return seen[-1]

    pieces = [packer.pack(planes(picture), follow) for picture, _ in SCENES]
    assert all(frame.labels is None for frame in frames_of(pieces)[1:])
    check_maps(pieces, seen)


def test_a_sequence_may_have_no_maps():
    packer = packer_of(SCENES[0][1])
    pieces = [packer.pack(planes(picture), lambda _: None) for picture, _ in SCENES[:3]]
    moments, _ = unpack(pieces)
    assert [m.scene.labels for m in moments] == [None] * 3


def test_a_map_between_key_frames_needs_one_before_it():
    packer = packer_of(SCENES[0][1])
    piece = packer.pack(planes(SCENES[0][0]), lambda _: None)
    moments, unpacker = unpack(
        [piece, stream.write_frame(stream.Frame(key=False, number=1, coarse=None, labels=b"x"))]
    )
    assert [m.arrived for m in moments] == [True, False]
    assert "without a last one" in unpacker.damage[0]


@pytest.mark.parametrize("lost", [{2}, {1, 2}, {5}, {2, 6}])
def test_a_lost_frame_is_concealed_until_the_next_key(lost):
    moments, _ = unpack([p for i, p in enumerate(PIECES) if i not in lost])
    assert [m.number for m in moments] == list(range(8))
    whole = False
    for moment in moments:
        whole = moment.number not in lost and (moment.number in (0, 5) or whole)
        assert moment.arrived == whole
        if whole:
            assert np.array_equal(moment.scene.labels, SCENES[moment.number][1])
        else:  # the last map, as it is or moved with the coarse picture
            last = moments[moment.number - 1].scene.labels
            assert any(
                np.array_equal(moment.scene.labels, m) for m in (last, moment.expected.labels)
            )


def test_frames_after_a_loss_are_closer_than_the_last_frame_before():
    scenes = drive(14, 96, 128)
    pieces = packed(scenes)
    moments, unpacker = unpack(pieces[:3] + pieces[4:])
    assert "frame that is lost" in unpacker.damage[0]

    def wrong(moment, number):
        sent = planes(scenes[number][0])
        return np.abs(moment.scene.coarse.y.astype(int) - sent.y).mean()

    assert wrong(moments[13], 13) < 0.75 * wrong(moments[2], 13)
    labels = scenes[13][1]
    assert (moments[13].scene.labels == labels).mean() > (moments[2].scene.labels == labels).mean()


def test_a_damaged_frame_is_lost():
    piece = bytearray(PIECES[2])
    piece[10] ^= 4
    moments, unpacker = unpack([*PIECES[:2], bytes(piece), *PIECES[3:]])
    assert [m.number for m in moments if m.arrived] == [0, 1, 5, 6, 7]
    assert "checksum" in unpacker.damage[0]


def test_decoding_may_begin_at_any_key_frame():
    moments, _ = unpack([stream.MAGIC + bytes([stream.VERSION]), *PIECES[3:]])
    assert [m.number for m in moments] == [5, 6, 7]
    assert np.array_equal(moments[0].scene.labels, SCENES[5][1])


def test_a_stream_cut_within_a_frame_decodes_up_to_it():
    data = b"".join(PIECES)
    moments, unpacker = unpack([data[:-3]])
    unpacker.close()
    assert len(moments) == 7
    assert "no whole frame" in unpacker.damage[0]
    _, empty = unpack([data[:20]])
    with pytest.raises(errors.CorruptStream, match="no frame"):
        empty.close()


def test_pictures_are_halved_only_with_an_even_factor():
    packer = Packer(width=60, height=45, rate=Fraction(10), palette=1, factor=3)
    small = coarse.from_rgb(coarse.downscale(SCENES[0][0][:45, :60], 3))
    with pytest.raises(ValueError, match="even"):
        packer.pack(small, lambda _: None, halved=True)
    head, frame = stream.Reader().feed(packer.pack(small, lambda _: None))
    forged = stream.begin(head) + stream.write_frame(replace(frame, halved=True))
    _, unpacker = unpack([forged])
    assert "factor of 3" in unpacker.damage[0]


def test_a_different_second_head_is_refused():
    _, unpacker = unpack(PIECES)
    other = Packer(width=32, height=32, rate=Fraction(10), palette=1)
    piece = other.pack(planes(SCENES[0][0][:32, :32]), lambda _: None)
    with pytest.raises(errors.CorruptStream, match="keep each in a file of its own"):
        list(unpacker.feed(piece[3:]))


def test_a_head_of_huge_frames_is_refused():
    (head, *_) = stream.Reader().feed(b"".join(PIECES))
    whole = sets.WHOLE + sets.restore(head.parameters, 16, 12)
    for change, error in (
        ({"width": 65536}, errors.LimitExceeded),
        ({"width": 60000, "height": 60000}, errors.LimitExceeded),
        ({"palette": 9}, errors.UnsupportedProfile),
        ({"factor": 256}, errors.UnsupportedProfile),
        ({"own": "no palette"}, errors.CorruptStream),
        ({"parameters": b"xy"}, errors.CorruptStream),
        (
            {"width": 4000, "parameters": whole},
            errors.CorruptStream,
        ),  # more than the parameter sets say
    ):
        fields = {n: getattr(head, n) for n in stream.Head.__slots__} | change
        with pytest.raises(error):
            list(Unpacker().feed(stream.begin(stream.Head(**fields))))


def test_a_map_with_ids_beyond_the_head_is_refused():
    """Compiled code would write beyond the ends of tables for fewer ids."""
    (head, *_) = stream.Reader().feed(b"".join(PIECES))
    most = int(max(labels.max() for _, labels in SCENES[:3]))
    for last, good in ((most, True), (most - 1, False), (0, False)):
        begin = stream.begin(replace(head, classes=last + 1))
        unpacker = Unpacker()
        rest = b"".join(PIECES[:3])
        moments = list(unpacker.feed(begin + rest[rest.index(b"\0") + 1 :]))
        assert len(moments) == 3 * good
        assert all(f"id {most}" in why for why in unpacker.damage[:1])


def test_a_picture_decoder_names_a_sequence():
    for read in (sempic.unpack, sempic.decode, sempic.info):
        with pytest.raises(errors.NotSempic, match="sequence"):
            read(b"".join(PIECES))


def test_info_adds_up():
    data = b"".join(PIECES)
    found = info(data)
    assert (found["width"], found["height"], found["frames"], found["keys"]) == (64, 48, 8, 2)
    assert found["bytes"] == len(data) == sum(found["chunks"].values()) + found["overhead"]
    assert found["kbps"] == pytest.approx(8 * len(data) / 0.8 / 1000)
    assert found["bpp"] == pytest.approx(8 * len(data) / (8 * 64 * 48))
    frames = frames_of(PIECES)
    assert found["sizes"] == [frame.size for frame in frames]
    assert found["chunks"] == {
        "coarse": sum(len(frame.coarse) for frame in frames),
        "labels": sum(len(frame.labels or b"") for frame in frames),
    }
    with pytest.raises(errors.CorruptStream, match="head"):
        info(data[:9])


def test_info_counts_the_frames_that_are_decoded():
    """Of joined sequences, too: the numbers of the second one's frames come again."""
    data = b"".join(PIECES)
    moments, _ = unpack([data + data])
    assert info(data + data)["frames"] == len(moments) == 8


def test_info_counts_damaged_and_lost_frames():
    pieces = [bytearray(piece) for piece in PIECES]
    for number in (2, 6):
        pieces[number][-3] ^= 1
    found = info(b"".join(pieces))
    assert (found["damaged"], found["frames"], found["lost"]) == (2, 8, len({2, 3, 4, 6, 7}))
    assert info(b"".join(PIECES)[:-2])["damaged"] == 1  # cut short


HALF_CHROMA = coarse.from_rgb(coarse.downscale(SCENES[0][0], 4), "420")


def fail(_):
    raise RuntimeError


def test_maps_end_only_at_a_key_frame():
    packer = packer_of(SCENES[0][1])
    pack = functools.partial(packer.pack, planes(SCENES[0][0]))
    pack(lambda _: SCENES[0][1])
    with pytest.raises(errors.LabelMapError, match="only at a key frame"):
        pack(lambda _: None)


@pytest.mark.parametrize("data", ["text", None, 5])
def test_only_bytes_are_unpacked(data):
    with pytest.raises(errors.BitstreamError, match="a stream is bytes"):
        list(Unpacker().feed(data))


@pytest.mark.parametrize("parity", [0, 0.5])
def test_moments_may_be_left_out(parity):
    """A caller that takes only the first of each piece has the same frames afterwards."""
    pieces = [packed(SCENES, keys=(0, 4), parity=parity)[n] for n in (0, 1, 4, 5, 6)]
    unpacker = Unpacker()
    taken = [next(unpacker.feed(piece), None) for piece in pieces]
    found = [moment for moment in taken if moment is not None] + [*unpacker.feed(b"")]
    found += unpacker.close()
    assert found[-1].number == 6
    assert found[-1].arrived
    assert np.array_equal(found[-1].scene.labels, SCENES[6][1])


@pytest.mark.parametrize("failing", [0, 2])
@pytest.mark.parametrize(
    "fault",
    [
        {"labels": lambda _: SCENES[0][1][1:]},
        {"labels": fail},
        {"labels": lambda _: SCENES[0][1], "advice": fail},
        {"labels": lambda _: SCENES[0][1], "qp": 52},
        {"labels": lambda _: SCENES[0][1], "coarse": np.zeros((24, 16), np.uint8)},
        {"labels": lambda _: SCENES[0][1], "coarse": planes(SCENES[0][0], 8)},
        {"labels": lambda _: SCENES[0][1], "coarse": planes(SCENES[0][0], 2)},
        {"labels": lambda _: SCENES[0][1], "coarse": HALF_CHROMA},
        {"labels": lambda _: SCENES[0][1], "coarse": replace(HALF_CHROMA, cb=None)},
    ],
)
def test_after_an_error_the_next_frame_is_a_key_frame(failing, fault):
    packer = packer_of(SCENES[0][1])
    unpacker = Unpacker()
    for number, (picture, labels) in enumerate(SCENES):
        if number == failing:
            with pytest.raises((errors.SempicError, RuntimeError)):
                packer.pack(**{"coarse": planes(picture)} | fault)
        (moment,) = unpacker.feed(packer.pack(planes(picture), lambda _, found=labels: found))
        assert moment.number == number
        assert np.array_equal(moment.scene.labels, labels)
        assert same_planes(moment.scene.coarse, packer.last)
    unpacker.close()
    assert not unpacker.damage


@pytest.mark.parametrize(
    "change",
    [
        {"palette": 99},
        {"palette": "camvid"},
        {"chroma": "422"},
        {"rate": 0.5},
        {"rate": Fraction(0)},
        {"rate": Fraction(-1)},
        {"rate": Fraction(1, 1 << 32)},
        {"parity": 2},
        {"width": 65535, "factor": 1},
    ],
)
def test_impossible_sequences_are_refused(change):
    good = {"width": 64, "height": 48, "rate": Fraction(10), "palette": 1}
    with pytest.raises(errors.SempicError):
        Packer(**good | change)


def test_odd_sizes_and_custom_palettes():
    palette = palettes.own("mine", [("a", (0, 0, 0)), ("b", (9, 9, 9))])
    packer = Packer(
        width=37, height=21, rate=Fraction(30000, 1001), palette=palette.id, factor=8, chroma="420"
    )
    rng = np.random.default_rng(0)
    maps = [rng.integers(0, 3, (21, 37), np.uint8) for _ in range(3)]
    picture = rng.integers(0, 255, (21, 37, 3), np.uint8)
    small = coarse.from_rgb(coarse.downscale(picture, 8), "420")
    pieces = [packer.pack(small, lambda _, found=m: found) for m in maps]
    moments, unpacker = unpack(pieces)
    assert unpacker.head.own == palette.identity
    for moment, labels in zip(moments, maps, strict=True):
        assert np.array_equal(moment.scene.labels, labels)
        assert moment.scene.own == palette.identity


def test_any_damage_gives_frames_or_a_sempic_error():
    data = b"".join(PIECES)
    rng = np.random.default_rng(1)
    for _ in range(30):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            changed[at] = rng.integers(0, 256)
        unpacker = Unpacker()
        try:
            for moment in unpacker.feed(bytes(changed)):
                if moment.arrived:
                    assert np.array_equal(moment.scene.labels, SCENES[moment.number][1])
            unpacker.close()
        except errors.BitstreamError:
            pass
