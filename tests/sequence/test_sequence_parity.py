"""Parity restores lost frames."""

import itertools
import tracemalloc
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import drive, packer_of, planes

from sempic import cli, sequence
from sempic.errors import InputError
from sempic.sequence import parity, stream
from sempic.sequence.stream import Damage, Frame, Parity

RATE = Fraction(5, 2)
"""A group has ten frames at this rate."""


def frames(count, keys=(0,), seed=0):
    rng = np.random.default_rng(seed)
    return [
        Frame(key=n in keys, number=n, coarse=rng.bytes(int(rng.integers(1, 90))), labels=None)
        for n in range(count)
    ]


def reader():
    found = stream.Reader()
    list(found.feed(stream.MAGIC + bytes((stream.VERSION,))))
    return found


def sent(given, share):
    """The packets of each frame, then those of the parity at the end, as a receiver reads them."""
    guard, read = parity.Guard(share, RATE), reader()
    pieces = [
        (guard.announce() if frame.key else b"")
        + stream.write_frame(frame)
        + guard.add(stream.content_of(frame))
        for frame in given
    ]
    return [list(read.feed(piece)) for piece in (*pieces, *guard.close())]


def received(pieces):
    mender = parity.Mender()
    out = [p for piece in pieces for packet in piece for p in mender.take(packet)]
    return [p.content for p in (*out, *mender.close()) if isinstance(p, Frame)]


def contents(given):
    return [stream.content_of(frame) for frame in given]


def dropped(pieces, lost):
    return [piece for number, piece in enumerate(pieces) if number not in lost]


def has_parity(packet):
    return isinstance(packet, Parity) and bool(packet.sums)


def test_any_frame_of_a_group_is_restored():
    """Even the largest and the last one, with the least parity."""
    whole = frames(20)
    pieces = sent(whole, 0.01)
    for lost in range(1, 20):
        assert received(dropped(pieces, {lost})) == contents(whole)


def test_as_many_symbols_are_restored_as_there_are_parity_symbols():
    whole = frames(10)
    pieces = sent(whole, 0.5)
    sums = [p for piece in pieces[10:] for p in piece]
    assert all(map(has_parity, sums))
    there = sum(len(p.sums) // p.symbol for p in sums)
    restored = 0
    for lost in itertools.combinations(range(1, 10), 4):
        enough = sum(sums[0].counts[n] for n in lost) <= there
        expected = [c for n, c in enumerate(contents(whole)) if enough or n not in lost]
        assert received(dropped(pieces, lost)) == expected
        restored += enough
    assert 10 < restored < 116  # of 126


def test_parity_symbols_follow_the_specification():
    """Sums of symbols times 1 / (number + place), multiplied independently of src."""

    def times(a, b):
        total = 0
        for bit in range(8):
            total ^= (a << bit) * (b >> bit & 1)
        for bit in range(14, 7, -1):
            total ^= (0x11D << bit - 8) * (total >> bit & 1)
        return total

    whole = frames(10)
    found = [p for piece in sent(whole, 0.3) for p in piece if has_parity(p)]
    size, counts = found[0].symbol, found[0].counts
    data = b""
    for content, count in zip(contents(whole), counts, strict=True):
        assert count == -(-(len(content) + 1) // size)
        data += (content + b"\1").ljust(count * size, b"\0")
    assert found[0].first == sum(counts)
    sums = b"".join(p.sums for p in found)
    for index in range(len(sums) // size):
        for i in range(size):
            total = 0
            for place in range(sum(counts)):
                by = (sum(counts) + index) ^ place
                inverse = next(b for b in range(256) if times(by, b) == 1)
                total ^= times(inverse, data[place * size + i])
            assert total == sums[index * size + i]
            break  # the other bytes are alike


def test_a_key_frame_is_restored():
    whole = frames(30, keys=(0, 14))
    assert received(dropped(sent(whole, 0.2), {14})) == contents(whole)


def test_without_loss_no_frame_waits():
    for share in (0.0, 0.2):
        mender = parity.Mender()
        for number, piece in enumerate(sent(frames(25), share) if share else plain(25)):
            out = [p for packet in piece for p in mender.take(packet)]
            assert [p.number for p in out if isinstance(p, Frame)] == [number][: number < 25]


def plain(count):
    read = reader()
    return [list(read.feed(stream.write_frame(frame))) for frame in frames(count)]


def test_without_parity_nothing_waits_for_a_lost_frame():
    mender = parity.Mender()
    for number, (packet,) in enumerate(plain(40)):
        if number not in (4, 5, 17):
            assert [p.number for p in mender.take(packet)] == [number]


def test_a_lost_frame_is_awaited_until_the_last_parity_packet():
    """Too many frames are lost here: the decoder gives up when no more parity can come."""
    mender = parity.Mender()
    shown = {}
    for number, piece in enumerate(sent(frames(25), 0.01)):
        if number not in (3, 4, 5, 6):
            for packet in piece:
                for out in mender.take(packet):
                    if isinstance(out, Frame):
                        shown[out.number] = number
    assert {n: at for n, at in shown.items() if n != at} == dict.fromkeys((7, 8, 9, 10, 11), 12)


@given(st.sets(st.integers(1, 65), max_size=30), st.floats(0.01, 1), st.integers(0, 9))
@settings(max_examples=50)
def test_frames_arrive_in_order_and_unchanged(lost, share, seed):
    """For any losses of fewer than 16 frames in a row."""
    whole = frames(60, keys=(0, 23, 41), seed=seed)
    if any({*range(n, n + 15)} <= lost for n in range(60)):
        return
    found = received(dropped(sent(whole, share), lost))
    places = [contents(whole).index(content) for content in found]
    assert places == sorted(set(places))
    assert set(range(60)) - lost <= set(places)


def test_damage_is_reported_after_the_frames_before_it():
    mender = parity.Mender()
    pieces = sent(frames(12), 0.2)
    pieces[4] = [Damage("torn")]
    out = [p for piece in pieces for packet in piece for p in mender.take(packet)]
    kinds = [p.number if isinstance(p, Frame) else "torn" for p in out]
    assert kinds == [0, 1, 2, 3, 4, "torn", *range(5, 12)]


def test_false_parity_restores_no_frame():
    """Parity with a valid checksum but false contents."""
    whole = frames(12)
    pieces = dropped(sent(whole, 0.2), {4})
    left = [c for n, c in enumerate(contents(whole)) if n != 4]
    for change in (
        lambda p: replace(p, sums=bytes(len(p.sums))),
        lambda p: replace(p, counts=p.counts[::-1]),
        lambda p: replace(p, group=1 << 40),
        lambda p: replace(p, span=7, counts=p.counts[:7]),
    ):
        lie = [[change(p) if has_parity(p) else p for p in piece] for piece in pieces]
        assert received(lie) == left


def test_parity_of_other_frames_restores_no_frame():
    """A restored frame must have the number of its place."""
    whole = frames(10)
    moved = [replace(frame, number=frame.number + 10) for frame in whole]
    moved[0] = replace(moved[0], key=False)
    (*_, first, second) = sent([*whole, *moved], 0.2)
    theirs = [[replace(p, group=0) for p in piece] for piece in (first, second)]
    lost = 4
    pieces = [*dropped(sent(whole, 0.2)[:10], {lost}), *theirs]
    assert received(pieces) == [c for n, c in enumerate(contents(whole)) if n != lost]


@pytest.mark.parametrize(
    "change",
    [
        {"span": 0, "counts": b""},
        {"span": 129, "counts": b"\1" * 129},
        {"wait": 129},
        {"symbol": 0},
        {"symbol": 3},
        {"first": 9},
        {"first": 255},
        {"counts": b"\1\1"},
    ],
)
def test_invalid_parity_is_damage(change):
    good = Parity(span=10, wait=2, symbol=2, first=10, counts=b"\1" * 10, sums=b"sums")
    assert list(reader().feed(stream.write_parity(good))) == [replace(good, size=24)]
    (damage,) = reader().feed(stream.write_parity(replace(good, **change)))
    assert "impossible values" in damage.why or "cut short" in damage.why


def test_the_queue_of_waiting_frames_is_bounded(monkeypatch):
    """Frames beyond the limit neither wait nor are remembered."""
    monkeypatch.setattr(parity, "LARGEST", 400)
    mender = parity.Mender()
    pieces = sent(frames(10), 0.2)
    assert not any(map(has_parity, itertools.chain(*pieces)))  # a group of that size has no parity
    for number, piece in enumerate(pieces):
        if number != 1:
            for packet in piece:
                list(mender.take(packet))
        held = itertools.chain(*mender._held.values())
        assert sum(p.size for p in held if isinstance(p, Frame)) <= 400
        assert sum(map(len, mender._contents.values())) <= 800


def test_noise_without_any_frame_takes_no_more_and_more_memory():
    mender = parity.Mender()
    tracemalloc.start()
    try:
        assert not any(list(mender.take(Damage("noise"))) for _ in range(50_000))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1 << 17
    assert set(mender.close()) == {Damage("noise")}


def test_parity_costs_no_more_than_its_bytes():
    """Symbols far larger than the frames make neither the frames nor their restoration costly."""
    read, mender = reader(), parity.Mender()
    small = [Frame(key=not n, number=n, coarse=b"frame", labels=None) for n in range(128)]
    symbol = 1 << 18
    false = Parity(
        span=128, wait=2, symbol=symbol, first=128, counts=b"\1" * 128, sums=bytes(symbol)
    )
    tracemalloc.start()
    for packet in (stream.write_parity(false), *map(stream.write_frame, small[:-1])):
        for found in read.feed(packet):
            list(mender.take(found))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not mender._groups  # it was used
    assert most < 16 * symbol


# ── sequences ────────────────────────────────────────────────────────────────────────────────


def guarded(scenes, **how):
    packer = packer_of(scenes[0][1], parity=0.2)
    pieces = [
        packer.pack(planes(picture), lambda _, found=labels: found, qp=30, key=n in (0, 43))
        for n, (picture, labels) in enumerate(scenes)
    ]
    return [*pieces, *packer.close()]


SCENES = drive(frames=48)
GUARDED = guarded(SCENES)


def test_decoders_without_parity_skip_it():
    """They skip parity as unknown advice; the rest equals a stream without parity."""
    packets = b"".join(GUARDED)[3:].split(b"\0")
    theirs = [p for p in packets if p[1:2] != b"\xc2"]
    assert len(packets) - len(theirs) == 2 + 2 + 2  # two key frames announce it, two groups have it
    left = GUARDED[0][:3] + b"\0".join(theirs)
    found = list(stream.Reader().feed(left))
    numbers = [p.number % 16 if isinstance(p, Frame) else "head" for p in found]
    assert numbers == [
        "head",
        *(n % 16 for n in range(43)),
        "head",
        *(n % 16 for n in range(43, 48)),
    ]
    moments = list(sequence.Unpacker().moments([left]))
    for moment, (_, labels) in zip(moments, SCENES, strict=True):
        assert moment.arrived
        assert np.array_equal(moment.scene.labels, labels)


def test_no_parity_is_sent_unless_requested():
    packer = packer_of(SCENES[0][1])
    pieces = [packer.pack(planes(p), lambda _, found=labels: found) for p, labels in SCENES[:3]]
    found = list(stream.Reader().feed(b"".join(pieces)))
    assert [type(packet) for packet in found] == [stream.Head, Frame, Frame, Frame]
    assert [len(piece) for piece in pieces[1:]] == [frame.size for frame in found[2:]]
    assert packer.close() == []


@pytest.mark.parametrize("lost", [{4, 20}, {43}, {40, 47}, {39, 40}])
def test_all_maps_arrive_when_lost_frames_are_restored(lost):
    unpacker = sequence.Unpacker()
    moments = list(unpacker.moments(dropped(GUARDED, lost)))
    assert [moment.number for moment in moments] == list(range(48))
    assert all(moment.arrived for moment in moments)
    for moment, (_, labels) in zip(moments, SCENES, strict=True):
        assert np.array_equal(moment.scene.labels, labels)
    assert not unpacker.damage


@pytest.mark.parametrize(("number", "at"), [(7, 20), (0, -20)])
def test_a_damaged_frame_is_restored(number, at):
    """Also the first key frame: the frames after it wait."""
    pieces = [bytearray(piece) for piece in GUARDED]
    pieces[number][at] ^= 4
    unpacker = sequence.Unpacker()
    moments = list(unpacker.moments(map(bytes, pieces)))
    assert len(moments) == 48
    assert all(moment.arrived for moment in moments)
    assert "checksum" in unpacker.damage[0]


def test_unrestored_frames_are_concealed():
    lost = set(range(5, 15))
    moments = list(sequence.Unpacker().moments(dropped(GUARDED, lost)))
    assert [m.number for m in moments] == list(range(48))
    assert [m.number for m in moments if m.arrived] == [*range(5), *range(43, 48)]


def test_waiting_frames_come_at_the_end_of_the_stream():
    """The stream ends before its parity."""
    unpacker = sequence.Unpacker()
    moments = [m for piece in dropped(GUARDED[:12], {5}) for m in unpacker.feed(piece)]
    assert [m.number for m in moments] == list(range(5))
    assert [m.number for m in unpacker.close()] == list(range(5, 12))


def test_a_receiver_begins_at_a_key_frame():
    start = stream.MAGIC + bytes((stream.VERSION,))
    moments = list(sequence.Unpacker().moments([start, *dropped(GUARDED, range(44, 45))[30:]]))
    assert [m.number for m in moments] == list(range(43, 48))


def test_info_reports_parity():
    found = sequence.info(b"".join(GUARDED))
    assert found["bytes"] == sum(found["chunks"].values()) + found["overhead"]
    packets = stream.Reader().feed(b"".join(GUARDED))
    assert found["chunks"]["parity"] == sum(p.size for p in packets if isinstance(p, Parity)) > 0


def test_parity_is_a_percentage(capsys):
    for value in ("101", "-1", "much"):
        with pytest.raises(SystemExit):
            cli.main(["encode", "drive.mp4", "--parity", value])
        assert "--parity" in capsys.readouterr().err
    with pytest.raises(InputError, match="parity"):
        sequence.SequenceOptions(parity=101)
