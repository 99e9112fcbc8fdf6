"""Receipts: a few bytes that say what became of critical objects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sempic import critical
from sempic.critical import GROUPS, Receipt, Tally
from sempic.errors import BitstreamError, CorruptStream, InputError, TruncatedStream

counts = st.tuples(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
tallies = counts.map(lambda c: Tally(max(c[:2]), min(c[:2]), c[2]))


def receipt(*groups, verifier="01234567"):
    return Receipt(verifier=verifier, groups=dict(zip(GROUPS, groups, strict=True)))


NONE = Tally(0, 0, 0)


@given(st.lists(tallies, min_size=4, max_size=4), st.integers(0, 2**32 - 1))
def test_receipts_are_read_as_they_were_written(groups, verifier):
    one = receipt(*groups, verifier=f"{verifier:08x}")
    assert critical.read(critical.write(one)) == one


def test_a_usual_receipt_has_seven_bytes():
    one = receipt(Tally(2, 1, 0), NONE, Tally(4, 0, 0), Tally(1, 0, 1))
    assert len(critical.write(one)) == 7
    assert one.total == Tally(7, 1, 1)
    assert one.total.kept == 6
    assert len(critical.write(receipt(NONE, NONE, NONE, NONE))) == 5


def test_what_is_no_receipt_is_refused():
    payload = critical.write(receipt(Tally(2, 1, 0), NONE, NONE, Tally(1, 0, 1)))
    for cut in range(len(payload)):
        with pytest.raises(TruncatedStream):
            critical.read(payload[:cut])
    with pytest.raises(CorruptStream, match="longer"):
        critical.read(payload + b"\0")
    with pytest.raises(CorruptStream, match="longer"):
        critical.read(payload[:-1] + bytes([payload[-1] | 1]))
    lost = payload[:4] + bytes([0b01000111, 0b11111100])  # ue(1), ue(0): fine; then nothing
    assert critical.read(lost[:4] + bytes([0b01011111, 0b11100000])).total == Tally(1, 0, 0)
    most = receipt(Tally(65534, 65534, 65534), NONE, NONE, NONE)
    assert critical.read(critical.write(most)) == most
    with pytest.raises(CorruptStream, match="too large"):
        critical.read(payload[:4] + b"\0\0\xff\xff\xff\xff")
    with pytest.raises(CorruptStream, match="2 objects lost of 1"):
        critical.read(lost[:4] + bytes([0b01001111, 0b11111110]))


@given(st.binary(max_size=12))
def test_any_bytes_are_a_receipt_or_refused(noise):
    try:
        found = critical.read(noise)
    except BitstreamError:
        return
    assert critical.write(found) == noise


@pytest.mark.parametrize(
    "wrong",
    [
        receipt(NONE, NONE, NONE, NONE, verifier="0123456"),
        Receipt(verifier="01234567", groups={"people": NONE}),
        receipt(NONE, NONE, NONE, Tally(1, 2, 0)),
        receipt(NONE, NONE, NONE, Tally(1, 0, -1)),
        receipt(NONE, NONE, NONE, Tally(65535, 0, 0)),
    ],
)
def test_what_a_receipt_cannot_say(wrong):
    with pytest.raises(InputError):
        critical.write(wrong)
