"""Shared by the tests: synthetic pictures, stand-ins for the networks, paths of the data."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import settings

from sempic import palette, progress, roles, unpack
from sempic.errors import BitstreamError
from sempic.scene import Coarse, Image, LabelMap, Scene

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("SEMPIC_SHARED", ROOT.parent / "shared"))
HAVE_MODELS = all(
    (ROOT / f"src/sempic/models/{m}.onnx").exists() for m in ("segmenter", "receiver")
)

if not importlib.util.find_spec("torch"):
    collect_ignore_glob = [
        *("diffusion/*", "networks/*", "training/data/*", "training/recipes/*"),
        *("training/test_[!r]*", "evaluation/test_networks.py"),  # test_run_options.py stays
    ]

settings.register_profile("gate", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("gate")

# Processes started in the background or by nohup ignore these signals, and so would their children:
# tests that send a signal to a command would wait in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

progress.PATIENCE = 3600.0
"""No messages about compiling: stderr must not depend on what numba has cached."""


@pytest.fixture(autouse=True)
def _registered():
    """Forget the custom palettes and the log handlers that a test registers."""
    known = dict(palette.PALETTES), dict(palette.BY_NAME)
    log = logging.getLogger()
    handlers, level = [*log.handlers], log.level
    yield
    for table, before in zip((palette.PALETTES, palette.BY_NAME), known, strict=True):
        table.clear()
        table.update(before)
    log.handlers[:] = handlers
    log.setLevel(level)


needs_models = pytest.mark.skipif(
    not HAVE_MODELS, reason="the bundled segmenter and receiver are not both trained yet"
)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with CamVid and the reference vectors; without it, the test is skipped."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no data at {SHARED}; set SEMPIC_SHARED")
    return SHARED


def loaded_after(code: str) -> set[str]:
    """The modules that a new interpreter has loaded after running `code`."""
    code += "\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return set(done.stdout.split())


def street(height: int = 48, width: int = 64, seed: int = 0) -> tuple[Image, LabelMap]:
    """A drawing of a street in perspective and its CamVid label map."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    u, v = (x + 0.5) / width - 0.5, (y + 0.5) / height - 0.5
    labels = np.zeros((height, width), np.uint8)  # sky
    labels[np.abs(u) * 0.9 > 0.12 + v] = 1  # building
    labels[(np.abs(u + 0.2) < 0.06) & (np.abs(v + 0.05) < 0.12)] = 5  # tree
    labels[v > 0.1] = 4  # pavement
    labels[v - 0.1 > np.abs(u) - 0.12] = np.where(v > 0.1, 3, labels)[v - 0.1 > np.abs(u) - 0.12]
    labels[(np.abs(u - 0.1) < 0.08) & (np.abs(v - 0.12) < 0.06)] = 8  # car
    labels[(np.abs(u - 0.33) < 0.015) & (np.abs(v) < 0.3)] = 2  # pole
    colours = rng.integers(40, 216, (12, 3))
    shade = 20 * np.sin(x / 3 + seed)[..., None] + 30 * v[..., None]
    image = np.clip(colours[labels] + shade + rng.normal(0, 4, (height, width, 3)), 0, 255)
    return image.astype(np.uint8), labels


def module_at(path: Path) -> ModuleType:
    """A new module from the file, whatever was imported before."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def give_stdin(monkeypatch, data: bytes) -> None:
    """Put data on standard input."""
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(data)))
    monkeypatch.setattr(sys, "stdin", stdin)


def same_planes(a: Coarse, b: Coarse) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("y", "cb", "cr"))


def damaged(payload: bytes, count: int, seed: int | str) -> Iterator[bytes]:
    """Broken payloads: cut, extended, foreign, and `count` with one to eight bytes changed."""
    yield from (b"", payload[:1], payload[: len(payload) // 2], payload + b"\0")
    yield from (b"\xff" * 50, b"\0" * 50)
    rng = random.Random(seed)
    for _ in range(count):
        changed = bytearray(payload)
        for _ in range(rng.choice((1, 1, 2, 8))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        yield bytes(changed)


def refuses_prefixes_and_flips(stream: bytes, read: Callable[[bytes], object] = unpack) -> None:
    """Check that `read` refuses every prefix of the stream and every change of a single bit."""
    for cut in range(len(stream)):
        with pytest.raises(BitstreamError):
            read(stream[:cut])
    for bit in range(8 * len(stream)):
        flipped = bytearray(stream)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError):
            read(bytes(flipped))


class FakeSegmenter:
    """Labels the upper half sky and the lower half road; counts its calls."""

    palette = 1
    voids = False

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: Image) -> LabelMap:
        self.calls += 1
        labels = np.zeros(image.shape[:2], np.uint8)
        labels[labels.shape[0] // 2 :] = 3
        return labels

    def predict(self, image: Image) -> tuple[LabelMap, None]:
        return self(image), None


class FakeReceiver:
    """Paints labels into the red channel, steps and seed into the others; records its calls."""

    controls = frozenset(roles.CONTROLS)
    model_id: int | None = None

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.wishes: dict[str, float] = {}

    def __call__(self, scene: Scene, *, seed: int, steps: int = 4, **wishes: float) -> Image:
        self.sizes.append((scene.height, scene.width))
        self.wishes = wishes
        picture = np.zeros((scene.height, scene.width, 3), np.uint8)
        if scene.labels is not None:
            picture[..., 0] = scene.labels
        picture[..., 1], picture[..., 2] = steps, seed
        return picture


@pytest.fixture
def stand_ins(monkeypatch) -> None:
    """Stand-ins for the networks of all codecs, also of those that are kept."""
    from sempic import api, batch

    monkeypatch.setattr(api.Codec, "segmenter", FakeSegmenter())
    monkeypatch.setattr(api.Codec, "receiver", FakeReceiver())
    for kept in (api.shared, batch.coder_with):
        kept.cache_clear()


@pytest.fixture
def place(tmp_path, monkeypatch, stand_ins) -> Path:
    """An empty folder to work in, with stand-ins for the networks."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def client():
    """A client of a server that takes 50 kB at most, with stand-ins for the networks."""
    from fastapi.testclient import TestClient
    from standin import pool, settings

    from sempic.server import app

    with TestClient(app.create_app(settings(max_bytes=50_000), pool())) as client:
        yield client


@pytest.fixture
def clip(place) -> Path:
    """A folder to work in with drive.mp4, six frames."""
    from videos import FRAMES, write_video

    write_video(place / "drive.mp4", FRAMES)
    return place
