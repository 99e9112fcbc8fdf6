"""The second decoders, written from docs/spec alone, agree with ours."""

import itertools
import re
import sys
from fractions import Fraction

import numpy as np
import pytest
from conftest import ROOT
from priors import COARSE, arrays_for, write_prior
from scenes import drive, planes

import sempic
from sempic import critical, labels, palette
from sempic.labels import own
from sempic.sequence import Packer, Unpacker

sys.path.insert(0, str(ROOT / "vectors"))

import decoder
import sequence_decoder

VECTORS = sorted((ROOT / "vectors").glob("*.sempic"))
SEQUENCES = sorted((ROOT / "vectors/sequences").glob("*.sempic"))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda path: path.stem)
def test_every_vector(vector):
    found = decoder.decode(vector.read_bytes())
    found.pop("receipt", None)
    with np.load(vector.with_suffix(".npz")) as expected:
        assert found.keys() == set(expected.files)
        for name in expected.files:
            assert np.array_equal(found[name], expected[name]), name


def test_labels_beyond_the_vectors():
    """Stored maps of several ids, one row, one column, few ids of a model."""
    rng = np.random.default_rng(20)
    for shape, ids, model in (
        ((3, 5), [0, 9, 200], None),
        ((1, 40), [3, 4, 5], "camvid"),
        ((40, 1), [3, 4, 5], "cityscapes"),
        ((9, 30), [0, 11], "camvid"),
    ):
        chosen = np.array(ids, np.uint8)[rng.integers(0, len(ids), shape)]
        payload = labels.encode(chosen, model=model)
        assert np.array_equal(decoder.label_map(payload, *shape, None), chosen)


@pytest.mark.parametrize("coarse", [None, COARSE], ids=["alone", "informed"])
@pytest.mark.parametrize("classes", [6, 40])
def test_a_custom_prior_of_the_sender(tmp_path, classes, coarse):
    toys = palette.own("toys", [(f"toy {i}", (i, i, i)) for i in range(classes - 1)])
    places = np.random.default_rng(1).integers(0, 4, (4, 5)) * (classes - 1) // 3
    chosen = np.kron(places, np.ones((5, 6), np.int64)).astype(np.uint8)
    path = write_prior(tmp_path / "mine.npz", toys, chosen)
    payload = labels.encode(chosen, coarse=coarse, model=toys.full_name, own=own.load(path))
    assert payload[0] >> 6 == (2 if coarse is None else 3)
    planes = None if coarse is None else (coarse.y, coarse.cb, coarse.cr)
    found = decoder.label_map(payload, *chosen.shape, planes, path)
    assert np.array_equal(found, chosen)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ValueError, match="another prior"):
        decoder.label_map(payload, *chosen.shape, planes, path)


def test_many_labels_without_a_preference(tmp_path):
    """Weights of an escape may exceed 63 bits (labels.md §3)."""
    toys = palette.own("toys", [(f"toy {i}", (i, i, i)) for i in range(126)])
    seeds = np.random.default_rng(1).uniform(0, 36, (2, 100))
    places = np.indices((36, 36))[:, None] - seeds[:, :, None, None]
    chosen = (127 * (places**2).sum(0).argmin(0) // 100).astype(np.uint8)
    arrays = arrays_for(toys, chosen)
    for name in ("causal.last", "causal.last_bias", "readout.multiplier", "readout.bias"):
        arrays[name] = np.zeros_like(arrays[name])
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    payload = labels.encode(chosen, coarse=COARSE, model=toys.full_name, own=own.load(path))
    assert payload[0] >> 6 == 3
    planes = (COARSE.y, COARSE.cb, COARSE.cr)
    assert np.array_equal(decoder.label_map(payload, *chosen.shape, planes, path), chosen)


def test_checkpoints(monkeypatch):
    """The values of labels.md §9 are those of the vectors."""
    text = (ROOT / "docs/spec/labels.md").read_text().split("## 9. Checkpoints", 1)[1]
    rows = re.findall(r"^\| (.+) \| ([-0-9, ]+) \|$", text.replace("−", "-"), re.MULTILINE)
    expected = {name: [int(number) for number in numbers.split(",")] for name, numbers in rows}
    found = {
        "`fold(0, 0)`, `fold(1, 2)`, `fold(5, 6, 7)`": [
            decoder.fold(0, 0), decoder.fold(1, 2), decoder.fold(5, 6, 7)
        ],
        "`squash(-256)`, `stretch(16384)`, `exp(256)`": [
            decoder.squash(-256), decoder.STRETCH[16384], decoder.EXP[256]
        ],
    }  # fmt: skip
    for name in ("noise", "subsampled", "primed3-alone", "primed3"):
        made: dict[str, list[list[int]]] = {"p": [], "chance": [], "scores": []}

        def asked(self, p, made=made, bit=decoder.RangeDecoder.bit):
            made["p"].append(p)
            if len(made["p"]) == 10:
                raise StopIteration
            return bit(self, p)

        def chances(self, y, x, made=made, chances=decoder.Primed.chances):
            made["chance"].append(chances(self, y, x))
            return made["chance"][-1]

        def trunk(grid, weights, made=made, trunk=decoder.trunk):
            made["scores"].append(trunk(grid, weights)[0, 0, : weights["classes"]].tolist())
            return trunk(grid, weights)

        with monkeypatch.context() as patch:
            patch.setattr(decoder.RangeDecoder, "bit", asked)
            patch.setattr(decoder.Primed, "chances", chances)
            patch.setattr(decoder, "trunk", trunk)
            with pytest.raises(StopIteration):
                decoder.decode((ROOT / f"vectors/{name}.sempic").read_bytes())
        found[f"p of the first ten bits of {name}"] = made["p"]
        if made["chance"]:
            found[f"chance of each label at the first pixel of {name}"] = made["chance"][0]
        if made["scores"]:
            found[f"score′ of each label at the first pixel of {name}"] = made["scores"][0]
    assert found == expected


def test_receipts():
    tallies = [
        critical.Tally(*numbers) for numbers in ((0, 0, 2), (3, 1, 0), (65534, 7, 1), (0, 0, 0))
    ]
    receipt = critical.Receipt(
        verifier="00c0ffee", groups=dict(zip(critical.GROUPS, tallies, strict=True))
    )
    found = decoder.receipt(critical.write(receipt))
    assert found["verifier"] == receipt.verifier
    assert found["groups"] == [(one.seen, one.lost, one.invented) for one in tallies]
    groups = {"Füchse": tallies[1], "all that rolls": tallies[0]}
    receipt = critical.Receipt(verifier="00c0ffee", table="0badcafe", groups=groups)
    found = decoder.receipt(critical.write(receipt), own=True)
    assert (found["verifier"], found["table"]) == ("00c0ffee", "0badcafe")
    assert found["names"] == list(groups)
    assert found["groups"] == [(3, 1, 0), (0, 0, 2)]


def test_damage_is_refused_by_both_or_by_neither():
    """Each byte of the structure changed, with a valid checksum."""
    stream = (ROOT / "vectors/dot.sempic").read_bytes()
    outcomes = set()
    for at in range(len(stream) - 4):
        for value in (0, 1, 3, 0x31, 0x80, 0xFF):
            body = stream[:at] + bytes([value]) + stream[at + 1 : -4]
            changed = body + decoder.zlib.crc32(body).to_bytes(4, "little")
            answers = []
            for decode in (sempic.unpack, decoder.decode):
                try:
                    decode(changed)
                    answers.append(True)
                except (ValueError, sempic.BitstreamError):
                    answers.append(False)
            assert answers[0] == answers[1], (at, value)
            outcomes.add(answers[0])
    assert outcomes == {True, False}


@pytest.mark.parametrize("vector", SEQUENCES, ids=lambda path: path.stem)
def test_every_vector_of_sequences(vector):
    found = sequence_decoder.decode(vector.read_bytes())
    with np.load(vector.with_suffix(".npz")) as expected:
        names = set(expected.files) - {"strengths"}  # an earlier kind of advice
        assert found.keys() == names
        for name in names:
            assert np.array_equal(found[name], expected[name]), name


def packed(count, **how):
    """Pieces of a drive with key frames 0 and 5, texture with frames 0, 1, 2 and 6, and parity."""
    packer = Packer(width=40, height=28, rate=Fraction(1), palette=1, parity=0.5)
    said = {0: {1: (4, 19)}, 1: {2: (9, 9)}, 2: {1: (0, 0)}, 6: {3: (7, 8)}}
    pieces = [
        packer.pack(
            planes(picture),
            lambda _, found=labels: found,
            advice=lambda _, number=number: said.get(number, {}),
            qp=30,
            key=number == 5,
        )
        for number, (picture, labels) in enumerate(drive(count, 28, 40))
    ]
    return [*pieces, *packer.close()]


PIECES = packed(9)


def arrived(stream):
    """The frames that ours gives as they were sent."""
    return [moment for moment in Unpacker().moments([stream]) if moment.arrived]


@pytest.mark.parametrize(
    ("lost", "numbers"),
    [
        ({2, 5}, range(9)),  # restored, a key frame too
        ({1, 2, 3}, [0, *range(5, 9)]),  # too many of a group
        ({0, 7}, range(5, 9)),  # no packet before a key frame counts
    ],
)
def test_lost_packets_of_a_sequence_are_restored(lost, numbers):
    left = [piece for number, piece in enumerate(PIECES) if number not in lost]
    stream = b"".join(left if 0 not in lost else [PIECES[0][:3], *left])
    expected = arrived(stream)
    found = list(sequence_decoder.pictures(sequence_decoder.Stream(stream)))
    assert [number for number, *_ in found] == [m.number for m in expected] == list(numbers)
    for (_, found_planes, found_labels), moment in zip(found, expected, strict=True):
        coarse = moment.scene.coarse
        for plane, name in zip(found_planes, ("y", "cb", "cr"), strict=True):
            assert np.array_equal(plane, getattr(coarse, name))
        assert np.array_equal(found_labels, moment.scene.labels)


def test_a_key_frame_ends_texture():
    """Where nothing was said between it and the frame before."""
    textures = {}
    for count in range(1, 10):
        stream = b"".join(PIECES[:count])
        textures[count - 1] = sequence_decoder.Stream(stream).texture
        assert textures[count - 1] == (arrived(stream)[-1].scene.texture or {})
    assert textures[4] == {1: (0, 0), 2: (9, 9)}
    assert textures[5] == {}
    assert textures[6] == {3: (7, 8)}


def test_damage_to_a_sequence_costs_both_decoders_the_same_frames():
    """Bytes cut out, of one packet or several; parity restores some."""
    stream = b"".join(PIECES)
    outcomes = set()
    for at, size in itertools.product(range(3, len(stream), 47), (1, 120, 300)):
        cut = stream[:at] + stream[at + size :]
        frames = arrived(cut), itertools.chain(*sequence_decoder.Stream(cut).runs())
        ours, second = (tuple(frame.number for frame in found) for found in frames)
        assert ours == second, (at, size)
        outcomes.add(ours)
    assert tuple(range(9)) in outcomes
    assert len(outcomes) > 4


def test_packets_that_come_twice_or_in_another_order():
    start, packets = PIECES[0][:3], b"".join(PIECES)[3:].split(b"\0")[:-1]
    places = (0, 3, 5, 10, 13)
    assert [packets[at][1] >> 6 for at in places] == [0, 1, 2, 3, 1]
    for at in places:
        one, next_one = packets[at], packets[at + 1 : at + 2]
        for changed in ([one, one, *next_one], [*next_one, one]):
            came = [*packets[:at], *changed, *packets[at + 2 :]]
            stream = start + b"".join(packet + b"\0" for packet in came)
            numbers = [moment.number for moment in arrived(stream)]
            second = itertools.chain(*sequence_decoder.Stream(stream).runs())
            assert numbers == [frame.number for frame in second] == list(range(9)), at
