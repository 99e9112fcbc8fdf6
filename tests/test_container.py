import tracemalloc
import zlib

import pytest
from conftest import refuses_prefixes_and_flips
from hypothesis import example, given
from hypothesis import strategies as st

from sempic import palette
from sempic.coarse import BY_CHUNK, CODECS
from sempic.container import MAX_PIXELS, Chunk, Container, read, varint, write
from sempic.errors import (
    BitstreamError,
    CorruptStream,
    InputError,
    LimitExceeded,
    NotSempic,
    TruncatedStream,
    UnsupportedChunk,
    UnsupportedProfile,
    UnsupportedVersion,
)

HEADER = bytes.fromhex("e553 01 d502 8002 01")  # 341×256, CamVid, any model
STREET = write(Container(width=341, height=256, palette=1, labels=b"l" * 700, coarse=b"c" * 500))


def sealed(body: bytes) -> bytes:
    """The body with its checksum."""
    return body + zlib.crc32(body).to_bytes(4, "little")


def chunk(kind: int, payload: bytes = b"x") -> bytes:
    assert len(payload) < 8
    return bytes([len(payload) << 4 | kind]) + payload


sides = st.integers(1, 8191)
containers = st.builds(
    Container,
    width=sides,
    height=sides,
    palette=st.integers(0, 3),
    model=st.integers(0, 14),
    labels=st.binary(max_size=200),
    coarse=st.none() | st.binary(max_size=2000),
    coarse_type=st.just(CODECS["bpg"].chunk),
) | st.builds(
    Container,
    width=sides,
    height=sides,
    palette=st.integers(0, 3),
    coarse=st.binary(max_size=200),
    coarse_type=st.sampled_from(list(BY_CHUNK)),
)


@given(containers)
def test_read_inverts_write(container):
    assert read(write(container)) == container


def test_the_bytes_follow_the_specification():
    stream = write(
        Container(width=341, height=256, palette=1, model=2, labels=b"ab", coarse=b"xyz")
    )
    assert stream == sealed(bytes.fromhex("e553 01 d502 8002 21") + b"\x32xyz" + b"\x21ab")
    assert STREET.startswith(HEADER)


def test_overhead_is_16_bytes():
    assert len(STREET) == 1200 + 16


@given(st.binary(max_size=60).filter(lambda b: b and not b.startswith(b"\xe5")))
@example(b"\x89PNG\r\n\x1a\n" + bytes(32))
@example(b"\xe5T\x01")
def test_foreign_bytes_are_not_sempic(data):
    with pytest.raises(NotSempic):
        read(data)


def test_empty_input_is_refused():
    with pytest.raises(TruncatedStream, match="no bytes"):
        read(b"")


@pytest.mark.parametrize("version", [0, 2, 255])
def test_other_versions_are_refused_by_number(version):
    with pytest.raises(UnsupportedVersion, match=f"version {version} "):
        read(HEADER[:2] + bytes([version]) + b"whatever comes then")


def test_every_prefix_and_every_single_bit_flip_is_refused():
    refuses_prefixes_and_flips(STREET, read)


def test_a_file_cut_short_is_called_truncated():
    for cut in (0, 1, 2, 3, 5, 7, 300, len(STREET) - 5, len(STREET) - 1):
        with pytest.raises(TruncatedStream):
            read(STREET[:cut])


@given(st.binary(min_size=1, max_size=20))
def test_trailing_bytes_are_refused(tail):
    with pytest.raises(BitstreamError):
        read(STREET + tail)


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(noise):
    """The valid checksum lets the noise reach the later checks."""
    stream = sealed(b"\xe5S\x01" + noise)
    try:
        container = read(stream)
    except BitstreamError:
        return
    assert container.width * container.height <= MAX_PIXELS
    assert container.labels is not None or container.coarse is not None


@pytest.mark.parametrize("spelling", ["8100", "808000", "ffffffff7f", "808080808001", "8080808010"])
def test_varints_are_minimal(spelling):
    """They are also below 2^32."""
    assert (varint(127), varint(128)) == (b"\x7f", b"\x80\x01")
    body = b"\xe5S\x01" + bytes.fromhex(spelling) + b"\x01\x01" + chunk(1)
    with pytest.raises(CorruptStream, match="number"):
        read(sealed(body))


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (65536, 1), (1, 65536)])
def test_sizes_outside_the_limits_are_refused(width, height):
    with pytest.raises(InputError):
        write(Container(width=width, height=height, palette=1, labels=b""))
    size = {0: "00", 5: "05", 1: "01", 65536: "808004"}
    body = b"\xe5S\x01" + bytes.fromhex(size[width] + size[height]) + b"\x01" + chunk(1)
    with pytest.raises(LimitExceeded):
        read(sealed(body))


def test_a_tiny_file_cannot_claim_a_huge_picture():
    stream = write(Container(width=65535, height=65535, palette=1, labels=bytes(20)))
    assert len(stream) <= 40
    with pytest.raises(LimitExceeded):
        read(stream)
    assert read(stream, max_pixels=65535 * 65535).width == 65535
    with pytest.raises(LimitExceeded):
        read(STREET, max_pixels=341 * 256 - 1)
    assert read(STREET, max_pixels=341 * 256) == read(STREET)
    square, taller = (
        write(Container(width=8192, height=height, palette=1, labels=b""))
        for height in (8192, 8193)
    )
    assert read(square).height == 8192
    with pytest.raises(LimitExceeded, match="limit of 67108864 pixels"):
        read(taller)


def test_a_chunk_longer_than_the_file_is_refused():
    body = HEADER + bytes.fromhex("f1ffffff0f") + b"12345678"  # type 1, 268 million bytes
    with pytest.raises(
        TruncatedStream,
        match="ends early: chunk type 1 claims 268435455 bytes at byte 13, 8 are left",
    ):
        read(sealed(body))


def test_unknown_required_chunks_are_refused_by_number():
    with pytest.raises(UnsupportedChunk, match="type 0 "):
        read(sealed(HEADER + chunk(1) + chunk(0)))


def test_unknown_optional_chunks_are_skipped():
    optional = b"".join(chunk(kind, b"skip me") for kind in (8, 14, 15))
    known = read(sealed(HEADER + chunk(2, b"c") + chunk(1, b"l")))
    mixed = HEADER + optional + chunk(2, b"c") + optional + chunk(1, b"l") + optional
    assert read(sealed(mixed)) == known


@pytest.mark.parametrize(
    "kinds", [(1, 1), (1, 6), (6, 7), (2, 2), (2, 3), (4, 5), (11, 12), (13, 13)]
)
def test_duplicate_chunks_are_refused(kinds):
    with pytest.raises(CorruptStream, match="two"):
        read(sealed(HEADER + b"".join(map(chunk, kinds))))


@pytest.mark.parametrize("kind", [Chunk.LABELS, 15])
def test_many_tiny_chunks_take_no_memory(kind):
    stream = sealed(HEADER + chunk(Chunk.LABELS) + chunk(kind, b"") * 20_000)
    tracemalloc.start()
    try:
        if kind == Chunk.LABELS:
            with pytest.raises(CorruptStream, match="two labels chunks"):
                read(stream)
        else:
            assert read(stream).labels == b"x"
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_coarse_precedes_labels():
    with pytest.raises(CorruptStream, match="precede"):
        read(sealed(HEADER + chunk(1) + chunk(2)))


def test_a_stream_without_contents_is_refused():
    with pytest.raises(InputError):
        write(Container(width=1, height=1, palette=1))
    for body in (HEADER, HEADER + chunk(9)):
        with pytest.raises(CorruptStream, match="neither"):
            read(sealed(body))


@pytest.mark.parametrize("profile", [*range(4, 16), 0xF1])
def test_reserved_profiles_are_refused_by_number(profile):
    name = f"palette {profile}" if profile < 16 else "model 15"
    with pytest.raises(UnsupportedProfile, match=name):
        read(sealed(HEADER[:-1] + bytes([profile]) + chunk(1)))
    with pytest.raises(InputError, match="not defined"):
        write(Container(width=1, height=1, palette=profile % 16, model=profile // 16, labels=b""))


def test_a_custom_palette_is_named():
    toys = palette.own("toys", [("ball", (1, 2, 3)), ("table", (4, 5, 6))])
    stream = write(Container(width=3, height=2, palette=toys.id, labels=b"l"))
    found = read(stream)
    assert (found.palette, found.own) == (toys.id, toys.identity)
    assert write(found) == stream
    del palette.PALETTES[toys.id], palette.BY_NAME["toys"]
    strange = read(stream)  # as in a process without this palette
    assert (strange.palette, strange.own) == (0, toys.identity)
    assert write(strange) == stream

    def names(payload):
        return varint(len(payload) << 4 | Chunk.PALETTE) + payload

    name = names(toys.identity.encode())
    plain = HEADER[:-1] + bytes([0])
    assert read(sealed(plain + name + chunk(1, b"l"))).own == toys.identity
    for wrong in (names(b"toys"), names(b"\xff#01234567"), 2 * name):
        with pytest.raises(CorruptStream, match="palette"):
            read(sealed(plain + wrong + chunk(1, b"l")))
    assert read(sealed(HEADER + name + chunk(1, b"l"))).own is None
