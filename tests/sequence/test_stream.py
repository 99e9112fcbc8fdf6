"""Packets: round trips, and the limits of damage."""

import tracemalloc
import zlib
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sempic.errors import InputError, NotSempic, UnsupportedVersion
from sempic.sequence import stream
from sempic.sequence.stream import Advice, Damage, Frame, Head, Reader

HEAD = Head(
    width=640,
    height=360,
    rate=Fraction(25, 2),
    factor=4,
    palette=1,
    classes=12,
    parameters=b"\0p\1",
)
FRAMES = [
    Frame(key=True, number=0, coarse=b"\0\0coarse", labels=b"map\0"),
    Frame(key=False, number=1, coarse=b"c" * 700, labels=None),
    Frame(key=False, number=2, coarse=None, labels=None),
    Frame(key=False, number=3, coarse=None, labels=b"l"),
    Frame(key=True, number=300, coarse=b"k", labels=None),
]
PIECES = [stream.begin(HEAD), *map(stream.write_frame, FRAMES)]
WHOLE = b"".join(PIECES)


def read(data, step=None):
    reader = Reader()
    step = step or max(1, len(data))
    return [
        found for at in range(0, len(data), step) for found in reader.feed(data[at : at + step])
    ]


def stuffed(content):
    """Byte stuffing of a content without a run of 254 bytes, and the zero at its end."""
    return b"".join(bytes((len(run) + 1,)) + run for run in content.split(b"\0")) + b"\0"


def packet(content, number=b"\0"):
    """A packet with its checksum; number: of a predicted frame, as a varint."""
    kind = content[0] >> 6
    checksum = zlib.crc32(number * (kind == 2) + content).to_bytes(4, "little")
    return stuffed(content + checksum[: 4 if kind < 2 else 2])


def contents(found):
    """The contents of frames, without sizes."""
    return [(f.key, f.number, f.coarse, f.labels) for f in found if isinstance(f, Frame)]


@pytest.mark.parametrize("step", [1, 7, 1000000])
def test_packets_survive_a_round_trip(step):
    found = read(WHOLE, step)
    assert found[0] == HEAD
    assert contents(found) == contents(FRAMES)
    assert [f.size for f in found[1:]] == [len(piece) for piece in PIECES[1:]]


def test_bits_of_tags_without_a_meaning_are_ignored():
    """The lower six of a head, and the number in the tag of a key frame."""
    start, head = PIECES[0][:3], b"\1\1\1\1\4\x0b\1\0"
    key = stream.content_of(FRAMES[0])[1:-4]
    plain, odd = (
        read(start + packet(a + head) + packet(b + key) + PIECES[2])
        for a, b in ((b"\0", b"\x70"), (b"\x3f", b"\x7e"))
    )
    assert isinstance(plain[0], Head)
    assert contents(plain) == contents(FRAMES[:2])
    assert odd[0] == plain[0]
    assert contents(odd) == contents(plain)
    assert [frame.halved for frame in odd[1:]] == [False, False]


def test_an_empty_frame_has_five_bytes():
    assert len(PIECES[3]) == 5


def stuffing_inverted(coarse):
    """Check that a key frame comes back, and return its packet without the zero at its end."""
    frame = Frame(key=True, number=0, coarse=coarse, labels=None)
    piece = stream.write_frame(frame)
    assert contents(read(PIECES[0] + piece)) == contents([frame])
    return piece[:-1]


@given(st.binary(max_size=600))
def test_unstuffing_inverts_stuffing(coarse):
    sent = stuffing_inverted(coarse)
    content = 1 + 1 + len(coarse) + 4
    assert 0 not in sent
    assert len(sent) <= content + 1 + content // 254


@pytest.mark.parametrize("size", [249, 250, 251, 253, 254, 255, 508, 509])
def test_stuffing_splits_long_runs(size):
    for coarse in (b"x" * size, b"x" * size + b"\0", b"\0" + b"x" * size):
        stuffing_inverted(coarse)


@pytest.mark.parametrize("sent", [b"\xff" + b"x" * 254, b"\5abc", b"\2a\4bc"])
def test_stuffing_ends_with_a_whole_piece(sent):
    assert read(PIECES[0] + sent + b"\0")[1] == Damage("a packet is cut short")


def test_every_prefix_gives_its_whole_frames():
    ends = [sum(map(len, PIECES[: i + 1])) for i in range(len(PIECES))]
    for cut in range(len(WHOLE)):
        found = read(WHOLE[:cut])
        assert not any(isinstance(packet, Damage) for packet in found)
        assert len(found) == sum(end <= cut for end in ends)


def test_damage_costs_a_packet():
    """A changed byte loses its packet, and at most the packet it gets joined with."""
    for at in range(len(PIECES[0]), len(WHOLE)):
        for change in (WHOLE[at] ^ 1, 0):
            if change == WHOLE[at]:
                continue
            damaged = WHOLE[:at] + bytes((change,)) + WHOLE[at + 1 :]
            found = read(damaged)
            assert any(isinstance(packet, Damage) for packet in found) or at == len(WHOLE) - 1
            good = contents(found)
            assert set(good) <= set(contents(FRAMES))
            no_key = at < len(PIECES[0]) + len(PIECES[1])  # predicted frames need the key frame
            assert len(good) >= (1 if no_key else len(FRAMES) - 2)


def test_an_endless_packet_is_not_kept():
    reader = Reader()
    list(reader.feed(PIECES[0]))
    piece = b"x" * (1 << 20)
    tracemalloc.start()
    for _ in range(40):
        assert list(reader.feed(piece)) == []
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2 * stream.LARGEST
    assert reader.left == 40 << 20
    found = list(reader.feed(b"\0" + PIECES[1]))
    assert isinstance(found[0], Damage)
    assert contents(found) == contents(FRAMES[:1])


def test_foreign_bytes_are_refused():
    for data in (b"\xe5S\1", b"\0", b"PK"):
        with pytest.raises(NotSempic):
            read(data)
    with pytest.raises(UnsupportedVersion, match="7"):
        read(b"\xe5V\7")


def test_checksums_are_shorter_between_key_frames_since_version_4():
    """Older versions have four bytes everywhere, without the frame number."""
    content = b"\x81"
    for version, number, sums in ((3, b"", 4), (4, b"\1", 2)):
        start = b"\xe5V" + bytes((version,)) + PIECES[1]
        for before in (b"", b"\1"):
            for count in (2, 4):
                end = zlib.crc32(before + content).to_bytes(4, "little")[:count]
                _, found = read(start + stuffed(content + end))
                assert isinstance(found, Frame) == (count == sums and before == number)


@pytest.mark.parametrize("lost", [15, 16, 17, 32])
def test_the_loss_of_a_whole_cycle_of_frame_numbers_is_noticed(lost):
    frames = [replace(FRAMES[0], number=0)]
    frames += [replace(FRAMES[2], number=number) for number in range(1, 50)]
    pieces = [stream.begin(HEAD), *map(stream.write_frame, frames)]
    found = read(b"".join([*pieces[:4], *pieces[4 + lost :]]))[4:]
    assert len(found) == 47 - lost
    if lost < 16:
        assert [f.number for f in found] == [*range(3 + lost, 50)]
    else:
        assert all(isinstance(packet, Damage) for packet in found)


def test_another_sequence_in_the_same_stream_is_not_mixed_in():
    again = [*PIECES[1:4], stream.write_frame(replace(FRAMES[4], number=301))]
    found = read(b"".join([*PIECES, *again]))[len(PIECES) :]
    assert isinstance(found[0], Damage)
    assert contents(found) == [(True, 301, b"k", None)]


def test_an_appended_sequence_is_reported():
    appended = read(WHOLE + WHOLE)[len(PIECES) :]
    assert isinstance(appended[0], Damage)
    assert "another sequence begins" in appended[0].why


def test_later_key_frames_of_an_appended_sequence_come_too_late():
    keys = [stream.write_frame(replace(FRAMES[0], number=number)) for number in (0, 20, 40)]
    begin = stream.begin(HEAD)
    found = read(b"".join([begin, *keys, *keys[:2], *keys]))
    assert [f.number for f in found if isinstance(f, stream.Frame)] == [0, 20, 40]


def test_a_repeated_key_frame_counts_once():
    assert read(b"".join([*PIECES[:2], *PIECES[1:]])) == read(WHOLE)


def test_advice_is_read():
    advice = Advice({0: (5, 19), 255: (0, 0)})
    piece = stream.write_advice(advice)
    assert len(piece) < 14
    assert read(PIECES[0] + piece + PIECES[1])[1] == advice
    (cut,) = read(PIECES[0] + packet(b"\xc3\0"))[1:]
    assert isinstance(cut, Damage)


def test_unknown_advice_is_skipped():
    assert read(PIECES[0] + packet(b"\xc0whatever") + PIECES[1]) == read(PIECES[0] + PIECES[1])


@pytest.mark.parametrize(
    "content",
    [
        b"\x40\0",  # a key frame without a coarse picture
        b"\x80x",  # bytes after a frame of nothing
        b"\xb0\5abc",  # a coarse picture that is longer than its frame
        b"\x70",  # a key frame without a number
        b"\0\1\1\1\1",  # heads that are cut short
        b"\0\1\1\0\1\4\x0b\1\0",  # no rate
        b"\0\1\1\1\1\0\x0b\1\0",  # no factor
        b"\0\1\1\1\1\4\x0b\1\5ab",
    ],
)
def test_invalid_contents_are_damage(content):
    found = read(PIECES[0] + PIECES[1] + packet(content, number=b"\x10") + PIECES[5])
    assert isinstance(found[2], Damage)
    assert "checksum" not in found[2].why
    assert contents(found) == contents([FRAMES[0], FRAMES[4]])


def test_versions_3_and_4_say_in_the_head_whether_pictures_are_halved():
    for version in (3, 4):
        start = b"\xe5V" + bytes((version,))
        for halved in (True, False):
            head = replace(HEAD, version=version, halved=halved)
            assert read(start + stream.write_head(head)) == [head]
        for content in (
            b"\0\1\1\1\1\4\x0b\2\1\0",  # neither halved nor not
            b"\0\1\1\1\1\5\x0b\1\1\0",  # halved, with a coarse factor of 5
        ):
            assert isinstance(read(start + packet(content))[0], Damage)
        key = packet(b"\x71" + stream.content_of(FRAMES[0])[1:-4])
        assert not read(start + key)[0].halved  # it is a part of the number there


def test_a_key_frame_says_whether_pictures_are_halved_since_version_5():
    for halved in (True, False):
        frame = replace(FRAMES[0], halved=halved)
        assert read(PIECES[0] + stream.write_frame(frame))[1].halved == halved


def test_a_key_frame_has_a_coarse_picture():
    (_, damage) = read(PIECES[0] + packet(b"\x50\0map"))
    assert "coarse" in damage.why


def test_a_frame_beyond_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(stream, "LARGEST", len(PIECES[2]))  # with its last byte, the zero
    assert stream.write_frame(FRAMES[1]) == PIECES[2]
    with pytest.raises(InputError, match=f"of {len(PIECES[2])} bytes is too large"):
        stream.write_frame(replace(FRAMES[1], coarse=b"c" * 701))
