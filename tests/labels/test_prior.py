"""The primed coder is lossless with and without the coarse picture; its files are checked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from maps import MAPS, noise, scene

from sempic import labels
from sempic.errors import (
    BitstreamError,
    CorruptStream,
    ModelError,
    TruncatedStream,
    UnsupportedChunk,
)
from sempic.labels import payload, prior
from sempic.scene import Coarse, LabelMap

CAMVID = {name: a for name, a in MAPS.items() if a.max() < 12}
PATH = payload.WEIGHTS[3]


def coarse_for(a: LabelMap, *, subsampled: bool = True, factor: int = 4) -> Coarse:
    rng = np.random.default_rng(a.size)
    h, w = -(-a.shape[0] // factor), -(-a.shape[1] // factor)
    ch, cw = (-(-h // 2), -(-w // 2)) if subsampled else (h, w)
    y, cb, cr = (rng.integers(0, 256, s, np.uint8) for s in ((h, w), (ch, cw), (ch, cw)))
    return Coarse(y=y, cb=cb, cr=cr)


@pytest.mark.parametrize("informed", [False, True])
@pytest.mark.parametrize("name", CAMVID)
def test_adversarial_maps_are_lossless(name: str, informed: bool) -> None:
    original = CAMVID[name]
    coarse = coarse_for(original) if informed else None
    stream = labels.encode(original, coarse=coarse, model="camvid")
    decoded = labels.decode(stream, *original.shape, coarse=coarse)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, original)
    n = len(np.unique(original))
    assert len(stream) <= 2 + (original.size * (n - 1).bit_length() + 7) // 8


@pytest.mark.parametrize("subsampled", [False, True])
@pytest.mark.parametrize("factor", [2, 4, 8, 100])
def test_any_coarse_size_works(factor: int, subsampled: bool) -> None:
    original = scene(37, 51)
    coarse = coarse_for(original, subsampled=subsampled, factor=factor)
    stream = labels.encode(original, coarse=coarse, model="camvid")
    assert stream[0] >> 6 == payload.INFORMED
    assert np.array_equal(labels.decode(stream, 37, 51, coarse=coarse), original)


def test_the_payload_names_its_coder() -> None:
    original = scene()
    coarse = coarse_for(original)
    assert labels.encode(original)[0] >> 6 == payload.ADAPTIVE
    assert labels.encode(original, coarse=coarse)[0] >> 6 == payload.ADAPTIVE
    assert labels.encode(original, model="camvid")[0] >> 6 == payload.CAUSAL
    assert labels.encode(original, coarse=coarse, model="camvid")[0] >> 6 == payload.INFORMED
    assert labels.encode(original, model="another")[0] >> 6 == payload.ADAPTIVE


def test_ids_beyond_the_palette_use_the_adaptive_coder() -> None:
    original = scene(classes=15)
    stream = labels.encode(original, coarse=coarse_for(original), model="camvid")
    assert stream == labels.encode(original)


def test_a_street_takes_fewer_bytes_with_the_prior(shared: Path) -> None:
    from PIL import Image

    path = sorted((shared / "data/camvid/valannot").glob("*.png"))[7]
    with Image.open(path) as file:
        street = np.asarray(file.resize((170, 128), Image.Resampling.NEAREST))
    assert len(labels.encode(street, model="camvid")) < 0.95 * len(labels.encode(street))


def test_a_missing_model_or_coarse_picture_is_named() -> None:
    original = scene()
    stream = labels.encode(original, coarse=coarse_for(original), model="camvid")
    with pytest.raises(CorruptStream, match="coarse"):
        labels.decode(stream, *original.shape)
    with pytest.raises(UnsupportedChunk, match="200"):
        labels.decode(stream[:2] + b"\xc8" + stream[3:], *original.shape)
    with pytest.raises(TruncatedStream):
        labels.decode(stream[:2], *original.shape)
    with pytest.raises(CorruptStream, match="12"):
        labels.decode(b"\x90\x00\x01\x03abcdef", *original.shape)


@given(st.integers(2, 3), st.binary(max_size=200), st.integers(1, 20), st.integers(1, 20))
def test_garbage_raises_a_sempic_error_or_decodes_to_allowed_labels(
    coder: int, body: bytes, height: int, width: int
) -> None:
    coarse = coarse_for(np.zeros((height, width), np.uint8))
    try:
        decoded = labels.decode(
            bytes([coder << 6 | 0b1010, 0b1, 3]) + body, height, width, coarse=coarse
        )
    except BitstreamError:
        return
    assert set(np.unique(decoded)) <= {1, 3, 4}


PROGRAM = """
import sys, numpy as np
from sempic import labels
from sempic.scene import Coarse
a = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(8, 12)
p = np.arange(6, dtype=np.uint8).reshape(2, 3) * 16
c = Coarse(y=p, cb=p[::-1], cr=p[:, ::-1])
for coarse in (None, c):
    b = labels.encode(a, coarse=coarse, model="camvid")
    assert np.array_equal(labels.decode(b, 8, 12, coarse=coarse), a)
    print(b.hex())
"""


def test_the_bytes_do_not_depend_on_the_compiler() -> None:
    original = np.kron(scene(3, 4), np.ones((3, 3), np.uint8))[:8]  # more is slow without numba
    planes = np.arange(6, dtype=np.uint8).reshape(2, 3) * np.uint8(16)
    coarse = Coarse(y=planes, cb=planes[::-1], cr=planes[:, ::-1])
    expected = [labels.encode(original, coarse=c, model="camvid") for c in (None, coarse)]
    assert [stream[0] >> 6 for stream in expected] == [payload.CAUSAL, payload.INFORMED]
    other = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", PROGRAM],
        input=original.tobytes(),
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        check=True,
    )
    assert [*map(bytes.fromhex, other.stdout.decode().split())] == expected


def test_a_damaged_prior_is_a_clear_error(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.npz"
    wrong.write_bytes(b"PK nonsense")
    with pytest.raises(ModelError, match=r"wrong\.npz"):
        prior.load(wrong)
    np.savez(wrong, classes=np.array(3))
    with pytest.raises(ModelError, match=r"wrong\.npz"):
        prior.load(wrong)
    with pytest.raises(ModelError, match=r"absent\.npz"):
        prior.load(tmp_path / "absent.npz")


def test_noise_is_stored_when_that_is_shorter() -> None:
    stream = labels.encode(noise(60, 60, 8), model="camvid")
    assert stream[0] >> 6 == payload.RAW


def test_priors_without_readout_or_with_extra_arrays_load(tmp_path: Path) -> None:
    """Files of `export` have no readout yet; older ones had an additional layer."""
    with np.load(PATH) as file:
        arrays = {k: v for k, v in file.items() if not k.startswith(("readout", "primed"))}
    np.savez(tmp_path / "networks.npz", **arrays, **{"layer10.weight": np.zeros(3)})
    known = prior.load(tmp_path / "networks.npz")
    assert known.readout is None
    assert known.primed == {}
    assert len(known.layers) == 10
