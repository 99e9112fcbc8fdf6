"""Where compiled code is kept: it works wherever nothing can be kept, and with damaged files."""

import hashlib
import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import loaded_after

from sempic import compiling
from sempic.errors import OutputError, SempicWarning

SOURCE = """
from sempic.compiling import compiled

@compiled(error_model="numpy", _nrt=False)
def twice(x):
    return 2 * x
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    (tmp_path / "module.py").write_text(SOURCE)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(cache):
    """The function in a new module, as a new process would have it; how often it was kept."""
    spec = importlib.util.spec_from_file_location("module", cache.parent / "module.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    compilations = []
    with pytest.MonkeyPatch.context() as patch:
        real = compiling._compile
        patch.setattr(compiling, "_compile", lambda *a: compilations.append(a) or real(*a))
        assert module.twice(21) == 42
        assert module.twice(-4) == -8
    return 1 - len(compilations)


def test_what_was_compiled_is_kept(cache):
    assert load(cache) == 0
    assert load(cache) == 1
    (cache.parent / "module.py").write_text(SOURCE + "# changed\n")
    compiling._stamp.cache_clear()  # as in a new process
    assert load(cache) == 0


def test_kernels_are_known_by_all_modules_that_they_have_parts_of(tmp_path):
    from sempic.labels import adaptive, mixing

    sources = compiling._sources(adaptive.__name__, adaptive.__file__)
    assert {Path(compiling.__file__), Path(adaptive.__file__), Path(mixing.__file__)} <= {*sources}
    (tmp_path / "a.py").write_text("a = 1\n")
    before = compiling._stamp(tmp_path / "a.py")
    compiling._stamp.cache_clear()
    (tmp_path / "a.py").write_text("a = 2\n")
    assert compiling._stamp(tmp_path / "a.py") != before


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:20],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: bytes(len(data)),
        lambda data: data[: len(data) // 2] + bytes(64) + data[len(data) // 2 + 64 :],
        lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        lambda data: data[32:],
        lambda data: hashlib.sha256(b"{}\n").digest() + b"{}\n",
        lambda data: hashlib.sha256(b"[]\n").digest() + b"[]\n",
        lambda data: b"cos\nsystem\n(S'exit 1'\ntR.",
    ],
)
def test_damaged_files_are_compiled_again(cache, damage):
    load(cache)
    (path,) = cache.rglob("*.machine")
    path.write_bytes(damage(path.read_bytes()))
    assert load(cache) == 0
    assert load(cache) == 1


def test_files_that_cannot_be_read(cache):
    load(cache)
    (path,) = cache.rglob("*.machine")
    path.unlink()
    path.mkdir()
    with pytest.warns(SempicWarning, match="NUMBA_CACHE_DIR"):
        assert load(cache) == 0


def test_a_full_disk(cache, monkeypatch):
    def full(*_):
        raise OutputError("cannot write: No space left on device")

    monkeypatch.setattr(compiling.files, "write", full)
    for _ in range(2):
        with pytest.warns(SempicWarning, match="NUMBA_CACHE_DIR"):
            assert load(cache) == 0


def test_where_no_folder_can_be_written(cache, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "makedirs", refuse)
    with pytest.warns(SempicWarning, match="NUMBA_CACHE_DIR"):
        assert load(cache) == 0


def test_absurd_variables_of_numba_take_one_line():
    code = "from sempic import compiling; compiling._numba()"
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        env=os.environ | {"NUMBA_OPT": "most", "NUMBA_DEBUG": "perhaps"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in done.stderr
    for name in ("NUMBA_OPT", "NUMBA_DEBUG"):
        assert sum(name in line for line in done.stderr.splitlines()) == 1


class Pair(NamedTuple):
    numbers: np.ndarray
    inner: tuple


def test_arguments_of_every_kind(monkeypatch, cache):
    """As Python has them: named tuples of arrays of all types, numbers, truth values."""

    @compiling.kernel
    def part(values, i):
        return values[i] * 2

    @compiling.kernel
    def total(pair, flag, scale, out):
        found = np.int64(0)
        for i in range(pair.numbers.shape[0]):
            for j in range(pair.numbers.shape[1]):
                found += np.int64(pair.numbers[i, j])
        out[0] = scale * found
        return found + part(pair.inner[1], pair.inner[0]) if flag else -found

    doubled = np.arange(5)
    for dtype in (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float32, bool):
        out = np.zeros(1)
        pair = Pair((np.arange(6).reshape(2, 3) % 2).astype(dtype), (3, doubled))
        assert total(pair, True, 0.5, out) == 3 + 6
        assert total(pair, np.bool_(False), 0.5, out) == -3
        assert out[0] == 1.5
    assert len(total.forms) == 8
    with pytest.raises(TypeError, match="C order"):
        total(Pair(np.zeros((4, 4))[::2], (0, doubled)), True, 1.0, out)
    with pytest.raises(TypeError, match="take no str"):
        total("a", True, 1.0, out)
    assert compiling.compiled()(lambda x: x > 2)(3) is True
    assert compiling.compiled()(lambda x: x / 2)(3) == 1.5


def test_numba_is_loaded_by_nobody_who_finds_what_it_made():
    code = (
        "import numpy as np, sempic; "
        "labels = np.eye(24, 32, dtype=np.uint8) * 3; "
        "sempic.unpack(sempic.pack(width=32, height=24, labels=labels, palette=1))"
    )
    loaded_after(code)
    assert not {"numba", "scipy"} & loaded_after(code)


def test_the_order_of_places(tmp_path, monkeypatch):
    source = str(tmp_path / "package/module.py")
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(compiling.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    places = list(compiling.folders(source))
    assert places[0] == str(tmp_path / "package/__pycache__")
    assert places[1].startswith(str(tmp_path / "xdg/sempic/numba"))
    assert places[2].startswith(str(tmp_path / f"tmp/sempic-{os.getuid()}"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/proc/none")
    assert list(compiling.folders(source))[1:] == places
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "named"))
    (only,) = compiling.folders(source)
    assert only.startswith(str(tmp_path / "named"))
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert len(list(compiling.folders(source))) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # a user without a home
    assert len(list(compiling.folders(source))) == 2


def test_nobody_else_may_write_what_will_be_run(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling.tempfile, "gettempdir", lambda: str(tmp_path))
    place = Path(compiling._private())
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o777)
    with pytest.raises(PermissionError):
        compiling._private()
    place.rmdir()
    (tmp_path / "theirs").mkdir()
    place.symlink_to("theirs")
    with pytest.raises(PermissionError):
        compiling._private()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not [p for p in compiling.folders(str(tmp_path / "x.py")) if str(place) in p]
