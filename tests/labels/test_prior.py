"""The trained prior: exact integers, lossless with and without the coarse picture."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_labels import MAPS, noise, scene

from sempic import labels
from sempic.errors import (
    BitstreamError,
    CorruptStream,
    ModelError,
    TruncatedStream,
    UnsupportedChunk,
)
from sempic.labels import prior
from sempic.scene import Coarse, LabelMap

CAMVID = {name: a for name, a in MAPS.items() if a.max() < 12}
PATH = Path(labels.__file__).parent / "camvid1.npz"


def coarse_for(a: LabelMap, *, subsampled: bool = True, factor: int = 4) -> Coarse:
    rng = np.random.default_rng(a.size)
    h, w = -(-a.shape[0] // factor), -(-a.shape[1] // factor)
    ch, cw = (-(-h // 2), -(-w // 2)) if subsampled else (h, w)
    y, cb, cr = (rng.integers(0, 256, s, np.uint8) for s in ((h, w), (ch, cw), (ch, cw)))
    return Coarse(y=y, cb=cb, cr=cr)


@pytest.mark.parametrize("informed", [False, True])
@pytest.mark.parametrize("name", CAMVID)
def test_adversarial_maps_survive(name: str, informed: bool) -> None:
    original = CAMVID[name]
    coarse = coarse_for(original) if informed else None
    payload = labels.encode(original, coarse=coarse, model="camvid")
    decoded = labels.decode(payload, *original.shape, coarse=coarse)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, original)
    n = len(np.unique(original))
    assert len(payload) <= 2 + (original.size * (n - 1).bit_length() + 7) // 8


@pytest.mark.parametrize("subsampled", [False, True])
@pytest.mark.parametrize("factor", [2, 4, 8, 100])
def test_any_coarse_size_serves(factor: int, subsampled: bool) -> None:
    original = scene(37, 51)
    coarse = coarse_for(original, subsampled=subsampled, factor=factor)
    payload = labels.encode(original, coarse=coarse, model="camvid")
    assert payload[0] >> 6 == labels.INFORMED
    assert np.array_equal(labels.decode(payload, 37, 51, coarse=coarse), original)


def test_the_payload_names_its_coder() -> None:
    original = scene()
    coarse = coarse_for(original)
    assert labels.encode(original)[0] >> 6 == labels.ADAPTIVE
    assert labels.encode(original, coarse=coarse)[0] >> 6 == labels.ADAPTIVE
    assert labels.encode(original, model="camvid")[0] >> 6 == labels.CAUSAL
    assert labels.encode(original, coarse=coarse, model="camvid")[0] >> 6 == labels.INFORMED
    assert labels.encode(original, model="another")[0] >> 6 == labels.ADAPTIVE


def test_foreign_ids_fall_back_to_the_adaptive_coder() -> None:
    original = scene(classes=15)
    payload = labels.encode(original, coarse=coarse_for(original), model="camvid")
    assert payload == labels.encode(original)


def test_a_street_costs_less_with_the_prior(shared: Path) -> None:
    from PIL import Image

    path = sorted((shared / "data/camvid/valannot").glob("*.png"))[7]
    with Image.open(path) as file:
        street = np.asarray(file.resize((170, 128), Image.Resampling.NEAREST))
    assert len(labels.encode(street, model="camvid")) < 0.95 * len(labels.encode(street))


def test_what_is_missing_is_named() -> None:
    original = scene()
    payload = labels.encode(original, coarse=coarse_for(original), model="camvid")
    with pytest.raises(CorruptStream, match="coarse"):
        labels.decode(payload, *original.shape)
    with pytest.raises(UnsupportedChunk, match="200"):
        labels.decode(payload[:2] + b"\xc8" + payload[3:], *original.shape)
    with pytest.raises(TruncatedStream):
        labels.decode(payload[:2], *original.shape)
    with pytest.raises(CorruptStream, match="12"):
        labels.decode(b"\x90\x00\x01\x01abcdef", *original.shape)


@given(st.integers(2, 3), st.binary(max_size=200), st.integers(1, 20), st.integers(1, 20))
def test_garbage_raises_our_errors_or_decodes_to_allowed_labels(
    coder: int, body: bytes, height: int, width: int
) -> None:
    coarse = coarse_for(np.zeros((height, width), np.uint8))
    try:
        decoded = labels.decode(
            bytes([coder << 6 | 0b1010, 0b1, 1]) + body, height, width, coarse=coarse
        )
    except BitstreamError:
        return
    assert set(np.unique(decoded)) <= {1, 3, 4}


def features_by_integers(known: prior.Prior, planes: npt.NDArray[np.uint8]) -> LabelMap:
    """`prior.features`, written as its specification reads: plain integer convolutions."""

    def conv(i: int, x: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        inputs, outputs, kernel, stride = prior.LAYERS[i]
        weights, multiplier, bias = known.layers[i]
        w = weights.astype(np.int64).reshape(outputs, kernel, kernel, inputs)
        padded = np.pad(x, ((0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (1, 2))
        sums = np.einsum("ihwkl,okli->ohw", windows[:, ::stride, ::stride], w)
        return (sums * multiplier[:, None, None] + bias[:, None, None] >> 24).clip(0, 255)

    def join(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.concatenate([a.repeat(2, 1).repeat(2, 2)[:, : b.shape[1], : b.shape[2]], b])

    x = prior.trunk(prior.signed(planes).astype(np.int64), conv, join)
    _, h, w = x.shape
    cells = x.reshape(4, 4, prior.FEATURES, h, w).transpose(3, 4, 0, 1, 2)
    return cells.astype(np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (16, 21)])
def test_float32_sums_are_exact(size: tuple[int, int]) -> None:
    known = prior.load(PATH)
    planes = np.random.default_rng(3).integers(0, 256, (3, *size), np.uint8)
    assert np.array_equal(prior.features(known, planes), features_by_integers(known, planes))


@pytest.mark.parametrize("tables", ["camvid2.npz", "camvid3.npz"])
def test_no_sum_can_leave_what_is_exact(tables: str) -> None:
    known = prior.load(PATH, PATH.with_name(tables))
    assert known.readout is not None
    for weights, multiplier, _ in (*known.layers, known.readout):
        worst = 255 * np.abs(weights).sum(1).max()
        assert worst < 1 << 24
        assert worst * int(multiplier.max()) < 1 << 62
    for network in (known.causal, known.informed):
        assert network is not None
        for field in (network.template, network.mix, network.second, network.last):
            assert np.abs(field).max() < 1 << 11


PROGRAM = """
import sys, numpy as np
from sempic import labels
from sempic.scene import Coarse
a = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(12, 17)
p = np.arange(15, dtype=np.uint8).reshape(3, 5) * 16
c = Coarse(y=p, cb=p[::-1], cr=p[:, ::-1])
for coarse in (None, c):
    b = labels.encode(a, coarse=coarse, model="camvid")
    assert np.array_equal(labels.decode(b, 12, 17, coarse=coarse), a)
    print(b.hex())
"""


@pytest.mark.parametrize(
    "setting",
    [{"NUMBA_DISABLE_JIT": "1"}, {"OPENBLAS_NUM_THREADS": "1"}, {"OPENBLAS_NUM_THREADS": "2"}],
    ids=lambda s: "=".join(*s.items()),
)
def test_the_bytes_depend_neither_on_compiler_nor_on_threads(setting: dict[str, str]) -> None:
    original = scene(12, 17)
    planes = np.arange(15, dtype=np.uint8).reshape(3, 5) * np.uint8(16)
    coarse = Coarse(y=planes, cb=planes[::-1], cr=planes[:, ::-1])
    expected = [labels.encode(original, coarse=c, model="camvid").hex() for c in (None, coarse)]
    other = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", PROGRAM],
        input=original.tobytes(),
        env={**os.environ, **setting},
        capture_output=True,
        check=True,
    )
    assert other.stdout.decode().split() == expected


def test_threads_do_not_change_the_features() -> None:
    program = (
        "import hashlib, numpy as np; from sempic.labels import prior; from pathlib import Path\n"
        f"known = prior.load(Path({str(PATH)!r}))\n"
        "planes = np.random.default_rng(0).integers(0, 256, (3, 64, 86), np.uint8)\n"
        "print(hashlib.sha256(prior.features(known, planes).tobytes()).hexdigest())\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "OPENBLAS_NUM_THREADS": str(n), "OMP_NUM_THREADS": str(n)},
            capture_output=True,
            check=True,
        ).stdout
        for n in (1, 2)
    }
    assert len(found) == 1


def test_a_damaged_prior_is_named(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.npz"
    wrong.write_bytes(b"PK nonsense")
    with pytest.raises(ModelError, match=r"wrong\.npz"):
        prior.load(wrong)
    np.savez(wrong, classes=np.array(3))
    with pytest.raises(ModelError):
        prior.load(wrong)
    with pytest.raises(ModelError):
        prior.load(tmp_path / "absent.npz")


def test_noise_is_stored_when_that_is_shorter() -> None:
    payload = labels.encode(noise(60, 60, 8), model="camvid")
    assert payload[0] >> 6 == labels.RAW
