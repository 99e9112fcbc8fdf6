"""Receipts: counts of kept, lost and invented critical objects."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sempic import critical
from sempic.critical import GROUPS, Group, Receipt, Tally
from sempic.errors import BitstreamError, CorruptStream, InputError, TruncatedStream

counts = st.tuples(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
tallies = counts.map(lambda c: Tally(max(c[:2]), min(c[:2]), c[2]))


def receipt(*groups, verifier="01234567"):
    return Receipt(verifier=verifier, groups=dict(zip(GROUPS, groups, strict=True)))


NONE = Tally(0, 0, 0)


@given(st.lists(tallies, min_size=4, max_size=4), st.integers(0, 2**32 - 1))
def test_receipts_survive_a_round_trip(groups, verifier):
    one = receipt(*groups, verifier=f"{verifier:08x}")
    assert critical.read(critical.write(one)) == one


def test_a_usual_receipt_has_seven_bytes():
    one = receipt(Tally(2, 1, 0), NONE, Tally(4, 0, 0), Tally(1, 0, 1))
    assert len(critical.write(one)) == 7
    assert one.total == Tally(7, 1, 1)
    assert one.total.kept == 6
    assert len(critical.write(receipt(NONE, NONE, NONE, NONE))) == 5


def test_a_receipt_is_described_by_its_counts():
    described = receipt(Tally(2, 1, 0), NONE, Tally(4, 0, 0), Tally(1, 0, 1)).described()
    assert (described["verifier"], described["table"]) == ("01234567", None)
    assert list(described["groups"]) == list(GROUPS)
    assert described["groups"]["people"] == {"seen": 2, "kept": 1, "lost": 1, "invented": 0}
    assert described["all"] == {"seen": 7, "kept": 6, "lost": 1, "invented": 1}


def test_invalid_receipts_are_refused():
    payload = critical.write(receipt(Tally(2, 1, 0), NONE, NONE, Tally(1, 0, 1)))
    for cut in range(len(payload)):
        with pytest.raises(TruncatedStream):
            critical.read(payload[:cut])
    with pytest.raises(CorruptStream, match="longer"):
        critical.read(payload + b"\0")
    with pytest.raises(CorruptStream, match="longer"):
        critical.read(payload[:-1] + bytes([payload[-1] | 1]))
    lost = payload[:4] + bytes([0b01000111, 0b11111100])  # ue(1), ue(0) and then nothing
    assert critical.read(lost[:4] + bytes([0b01011111, 0b11100000])).total == Tally(1, 0, 0)
    most = receipt(Tally(65534, 65534, 65534), NONE, NONE, NONE)
    assert critical.read(critical.write(most)) == most
    with pytest.raises(CorruptStream, match="too large"):
        critical.read(payload[:4] + b"\0\0\xff\xff\xff\xff")
    with pytest.raises(CorruptStream, match="2 objects lost of 1"):
        critical.read(lost[:4] + bytes([0b01001111, 0b11111110]))


HEAD = bytes.fromhex("0123456789abcdef")
OWN = Receipt(
    verifier="01234567", table="89abcdef", groups={"Füchse": Tally(2, 1, 0), "signs 2": NONE}
)


@given(noise=st.binary(max_size=12), own=st.booleans())
def test_any_bytes_are_a_receipt_or_refused(noise, own):
    noise = HEAD + b"\3a\nb" + noise if own else noise
    try:
        found = critical.read(noise, own=own)
    except BitstreamError:
        return
    assert critical.write(found) == noise


def test_custom_groups_are_named_in_the_receipt():
    payload = critical.write(OWN)
    assert payload[:-2] == HEAD + bytes([15]) + "Füchse\nsigns 2".encode()
    assert critical.read(payload, own=True) == OWN
    for cut in range(len(payload)):
        with pytest.raises(TruncatedStream):
            critical.read(payload[:cut], own=True)


@pytest.mark.parametrize(
    "names", [b"", b"a\n", b"a\na", b" a", b"-", b"a\x1b", b"\xff", b"a" * 33, b"a\tb"]
)
def test_invalid_group_names_are_refused(names):
    with pytest.raises(CorruptStream, match="names no groups"):
        critical.read(HEAD + bytes([len(names)]) + names + b"\xff", own=True)


@pytest.mark.parametrize(
    "wrong",
    [
        receipt(NONE, NONE, NONE, NONE, verifier="0123456"),
        Receipt(verifier="01234567", groups={"people": NONE}),
        receipt(NONE, NONE, NONE, Tally(1, 2, 0)),
        receipt(NONE, NONE, NONE, Tally(1, 0, -1)),
        receipt(NONE, NONE, NONE, Tally(65535, 0, 0)),
        Receipt(verifier="01234567", table="89", groups={"a": NONE}),
        Receipt(verifier="01234567", table="01234567", groups={}),
        Receipt(verifier="01234567", table="01234567", groups={"a\nb": NONE}),
        Receipt(
            verifier="01234567", table="01234567", groups={30 * str(i): NONE for i in range(9)}
        ),
    ],
)
def test_unrepresentable_receipts_are_refused(wrong):
    with pytest.raises(InputError):
        critical.write(wrong)


def test_the_counts_of_a_receipt_saturate():
    assert Tally(70000, 66000, 3).capped == Tally(65534, 65534, 3)
    assert Tally(5, 2, 1).capped == Tally(5, 2, 1)


@pytest.mark.parametrize("count", [0, 1000, 65534])
def test_no_receipt_exceeds_its_maximum_size(count):
    groups = {"Füchse": ["fox"]} | {f"signs {number}": ["sign"] for number in range(20)}
    table = critical.table("critical", groups)
    one = Receipt(
        verifier="01234567",
        table=table.digest,
        groups=dict.fromkeys(table.groups, Tally(count, count, count)),
    )
    assert len(critical.write(one)) + 3 <= critical.overhead(table)
    least = receipt(*[Tally(250, 250, 250)] * 4)  # objects of a thousandth of the picture each
    assert len(critical.write(least)) + 3 <= critical.overhead(None)


# ── tables ───────────────────────────────────────────────────────────────────────────────────


TABLE = """{"who walks": ["person"], "who rides": {"classes": ["rider", "bicycle"], "pixels": 40},
"signs": {"classes": ["sign"], "share": 0.5},
"cars": {"classes": ["car"], "pixels": 9, "share": 0.01}}
"""


def test_a_table_is_read_from_a_file_or_given(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(TABLE)
    found = critical.table("critical", str(path))
    assert found.source == str(path)
    assert found.groups == {
        "who walks": Group(("person",), 1, 0.001),
        "who rides": Group(("rider", "bicycle"), 40, 0),
        "signs": Group(("sign",), 1, 0.5),
        "cars": Group(("car",), 9, 0.01),
    }
    given = critical.table("critical", json.loads(TABLE))
    assert given == found._replace(source="critical")
    assert given.digest == found.digest
    assert critical.table("critical", path) == critical.table("critical", found) == found
    path.write_text(TABLE, "utf-8-sig")  # of Windows' editors
    assert critical.table("critical", path) == found
    other = critical.table("critical", {"who walks": {"classes": ["person"], "pixels": 2}})
    assert other.digest != critical.table("critical", {"who walks": ["person"]}).digest


def test_the_minimum_size_of_an_object():
    sizes = {"classes": ["car"], "pixels": 9, "share": 0.01}
    (group,) = critical.table("critical", {"cars": sizes}).groups.values()
    assert [group.least(size) for size in (100, 900, 5000)] == [9, 9, 50]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no table of groups (Expecting value"),
        ("[1]", "no table of groups: it maps"),
        ("{}", "no table of groups: it maps"),
        ('{"a": ["car"], "a": ["bus"]}', "'a' stands in it twice"),
        ('{"a\\u001b": ["car"]}', "group name 'a\\x1b' is not"),
        ('{"a": []}', "a: classes are a list of names"),
        ('{"a": "car"}', "a: classes are a list of names"),
        ('{"a": [3]}', "a: classes are a list of names"),
        ('{"a": {"pixels": 3}}', "a: classes are a list of names"),
        (
            '{"a": {"classes": ["car"], "least": 3}}',
            "a: 'least' is not one of classes, pixels, share",
        ),
        ('{"a": {"classes": ["car"], "pixels": 0}}', "a: pixels must be 1 or more, not 0"),
        (
            '{"a": {"classes": ["car"], "pixels": 1%s}}' % ("0" * 400),
            "a: pixels is a finite number",
        ),
        ('{"a": {"classes": ["car"], "pixels": 1.5}}', "a: pixels is a whole number, not 1.5"),
        ('{"a": {"classes": ["car"], "share": 2}}', "a: share is 0…1, not 2"),
        ('{"a": {"classes": ["car"], "share": NaN}}', "a: share is a finite number, not nan"),
        (json.dumps({32 * str(i): ["car"] for i in range(8)}), "take more than 255 bytes"),
    ],
)
def test_invalid_tables_are_refused_with_their_file(tmp_path, text, said):
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        critical.table("critical", path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_other_types_are_no_tables(tmp_path):
    with pytest.raises(InputError, match=r"none.json: no table of groups \(No such file"):
        critical.table("critical", tmp_path / "none.json")
    with pytest.raises(InputError, match="critical is a table of groups or its file, not int"):
        critical.table("critical", 5)
    with pytest.raises(InputError, match="critical: a: classes"):
        critical.table("critical", {"a": None})
