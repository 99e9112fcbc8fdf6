"""Custom priors: coding with them, naming them in the payload, refusing invalid files."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import street
from hypothesis import given
from hypothesis import strategies as st
from maps import noise, scene
from priors import COARSE, arrays_for, write_prior

from sempic import labels
from sempic.errors import BitstreamError, InputError, ModelError, TruncatedStream, UnsupportedChunk
from sempic.labels import own, payload, prior
from sempic.palette import CAMVID, Palette
from sempic.palette import own as own_palette
from sempic.scene import Coarse, LabelMap

MAP = scene(48, 64)
ARRAYS = arrays_for(CAMVID, MAP)
MINE = prior.parsed(ARRAYS, "0badcafe")
CODED = labels.encode(MAP, coarse=COARSE, model="camvid", own=MINE)


def toys(classes: int) -> Palette:
    titles = [(f"toy {i}", (i, i, i)) for i in range(min(classes, 127) - 1)]
    known = own_palette(f"toys{classes}", titles)
    return known if classes < 128 else dataclasses.replace(known, classes=("toy",) * classes)


def spread(original: LabelMap, classes: int) -> LabelMap:
    """The map with its ids scaled to 0 … `classes` - 1."""
    return (original.astype(np.int64) * (classes - 1) // int(original.max())).astype(np.uint8)


@pytest.mark.parametrize("coarse", [None, COARSE], ids=["alone", "informed"])
@pytest.mark.parametrize("classes", [2, 6, 33, 127, 255])
def test_any_number_of_classes_is_lossless(
    tmp_path: Path, classes: int, coarse: Coarse | None
) -> None:
    known, first = toys(classes), spread(MAP, classes)
    mine = own.load(write_prior(tmp_path / "mine.npz", known, first))
    assert (mine.classes, mine.palette) == (classes, known.full_name)
    for original in (first, first[::-1], first[:, ::-1], spread(noise(9, 40, 12), classes)):
        coded = labels.encode(original, coarse=coarse, model=known.full_name, own=mine)
        decoded = labels.decode(coded, *original.shape, coarse=coarse, own=mine)
        assert np.array_equal(decoded, original)
        assert len(coded) <= len(labels.encode(original))
        if original is first:
            assert coded[0] >> 6 == (payload.CAUSAL if coarse is None else payload.INFORMED)
            assert len(coded) < 0.9 * len(labels.encode(original))


def test_the_payload_names_the_prior_by_the_digest_of_its_file(tmp_path: Path) -> None:
    path = write_prior(tmp_path / "mine.npz", CAMVID, MAP)
    coded = labels.encode(MAP, model="camvid", own=own.load(path))
    digest = hashlib.sha256(path.read_bytes()).digest()[:4]
    assert coded[:7] == labels.encode(MAP, model="camvid")[:2] + b"\0" + digest


def test_maps_of_another_palette_ignore_the_prior() -> None:
    for model in (None, "toys#12345678", "cityscapes"):
        assert labels.encode(MAP, model=model, own=MINE) == labels.encode(MAP, model=model)


def test_a_prior_without_all_ids_of_the_map_is_not_used() -> None:
    original = scene(classes=15)
    assert labels.encode(original, model="camvid", own=MINE) == labels.encode(original)


def test_a_prior_that_costs_bytes_is_not_used() -> None:
    strange, toy = spread(noise(48, 64, 12), 4), dataclasses.replace(MINE, palette="toys#12345678")
    coded = labels.encode(strange, model=toy.palette, own=toy)
    assert coded == labels.encode(strange)
    assert coded[0] >> 6 == payload.ADAPTIVE
    one = np.full_like(MAP, 3)
    assert labels.encode(one, model="camvid", own=MINE) == b"\x08\x00"


def test_a_missing_or_different_prior_is_named() -> None:
    coded = labels.encode(MAP, model="camvid", own=MINE)
    with pytest.raises(UnsupportedChunk, match=r"SHA-256 begins with 0badcafe; none is given$"):
        labels.decode(coded, *MAP.shape)
    other = dataclasses.replace(MINE, digest="12345678")
    with pytest.raises(UnsupportedChunk, match=r"0badcafe; that of the given one with 12345678$"):
        labels.decode(coded, *MAP.shape, own=other)
    with pytest.raises(InputError, match="not str"):
        labels.decode(coded, *MAP.shape, own="mine.npz")  # type: ignore[arg-type]
    bundled = labels.encode(MAP, model="camvid")
    assert np.array_equal(labels.decode(bundled, *MAP.shape, own=other), MAP)


def test_the_bundled_prior_is_used_where_it_takes_fewer_bytes() -> None:
    unlike = street(48, 64)[1]
    coded = labels.encode(unlike, model="camvid")
    assert coded[0] >> 6 == payload.CAUSAL
    assert labels.encode(unlike, model="camvid", own=MINE) == coded


@pytest.mark.parametrize("coarse", [None, COARSE], ids=["alone", "informed"])
def test_a_prefix_is_refused_or_is_another_map(coarse: Coarse | None) -> None:
    coded = labels.encode(MAP, coarse=coarse, model="camvid", own=MINE)
    for cut in range(len(coded)):
        try:
            decoded = labels.decode(coded[:cut], *MAP.shape, coarse=coarse, own=MINE)
        except TruncatedStream:
            continue
        assert cut >= 7  # head, set, and the name of the prior
        assert not np.array_equal(decoded, MAP)


@given(st.data())
def test_damage_raises_a_sempic_error_or_decodes_to_known_labels(data: st.DataObject) -> None:
    coded = bytearray(CODED)
    for _ in range(data.draw(st.integers(1, 4))):
        coded[data.draw(st.integers(0, len(coded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        decoded = labels.decode(bytes(coded), *MAP.shape, coarse=COARSE, own=MINE)
    except BitstreamError:
        return
    assert decoded.shape == MAP.shape


def test_each_bit_of_the_name_counts() -> None:
    coded = labels.encode(MAP, model="camvid", own=MINE)
    assert coded[2:7] == bytes.fromhex("000badcafe")
    for bit in range(16, 56):
        flipped = bytearray(coded)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError):
            labels.decode(bytes(flipped), *MAP.shape, own=MINE)


# ── files ────────────────────────────────────────────────────────────────────────────────────

FAULTS: dict[str, Any] = {
    "palette": [None, 3, "camvid\nno", "toys", ["camvid"]],
    "classes": [None, 1, 256, -1, 12.0, [12]],
    "causal.template": [None, ARRAYS["causal.template"][1:], ARRAYS["causal.template"] * 1.0],
    "causal.second": [np.full((64, 32), 2048), np.full((64, 32), 1 << 63, np.uint64)],
    "causal.last_bias": [np.full(11, 1)],
    "layer3.weight": [np.full((48, 432), -128)],
    "layer4.weight": [ARRAYS["layer4.weight"].T],
    "layer6.weight": [np.full((64, 576), 127)],
    "layer9.multiplier": [np.full(40, -1), np.full(40, 1 << 31)],
    "readout.bias": [None, np.full(192, 1 << 61)],
    "primed.slots": [ARRAYS["primed.slots"][:, 1:], ARRAYS["primed.slots"] + np.int16(256)],
    "primed.calm_slots": [None, np.zeros((6, 32769), np.uint8), np.zeros((5, 9), np.uint8)],
    "primed.causal.seen": [np.full((4, 1024), -1)],
    "primed.informed.weights": [None, np.full((6, 1024, 21), 1 << 15)],
    "primed.informed.calm_weights": [np.zeros((22, 10), np.int32)],
}


@pytest.mark.parametrize("name", FAULTS)
def test_unsafe_prior_files_are_refused(tmp_path: Path, name: str) -> None:
    for fault in FAULTS[name]:
        arrays = {k: v for k, v in ARRAYS.items() if k != name}
        if fault is not None:
            arrays[name] = np.asarray(fault)
        np.savez(tmp_path / "mine.npz", **arrays)  # type: ignore[arg-type]
        with pytest.raises(ModelError, match=rf"mine\.npz is no prior .*{name.split('.')[0]}"):
            own.load(tmp_path / "mine.npz")


def test_bundled_models_and_unfinished_runs_are_no_custom_priors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="names no palette"):
        own.load(payload.WEIGHTS[3])
    networks = {k: v for k, v in ARRAYS.items() if not k.startswith(("readout", "primed"))}
    np.savez(tmp_path / "networks.npz", **networks)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"readout\.weight is missing"):
        own.load(tmp_path / "networks.npz")


def test_a_replaced_file_is_read_again(tmp_path: Path) -> None:
    first = own.load(write_prior(tmp_path / "mine.npz", CAMVID, MAP))
    second = own.load(write_prior(tmp_path / "mine.npz", toys(6), MAP // 2))
    assert first.digest != second.digest
    assert second.classes == 6


def test_damaged_files_are_refused_or_load_unchanged(tmp_path: Path) -> None:
    """Checksums of the zip file cover the arrays; other damage does not matter."""
    out = io.BytesIO()
    np.savez_compressed(out, **ARRAYS)  # type: ignore[arg-type]
    whole = out.getvalue()
    path = tmp_path / "mine.npz"
    rng = np.random.default_rng(0)
    ends = [*range(0, 400, 23), *range(len(whole) - 4000, len(whole), 97)]
    for at in [*ends, *rng.integers(0, len(whole), 20).tolist()]:
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :]):
            path.write_bytes(data)
            try:
                found = own.load(path)
            except ModelError:
                continue
            assert len(data) == len(whole)
            assert np.array_equal(found.causal.template, MINE.causal.template)
    with pytest.raises(ModelError, match="absent"):
        own.load(tmp_path / "absent.npz")


def test_a_file_of_something_else_is_refused_without_advice_to_unpickle(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", classes=np.array([{}]))
    (tmp_path / "other.npz").write_bytes(b"nonsense")
    for name in ("objects", "other"):
        with pytest.raises(ModelError, match=r"is no prior .*: not arrays of np\.savez$"):
            own.load(tmp_path / f"{name}.npz")
