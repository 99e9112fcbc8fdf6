"""Machine code in files: shipped code matches the sources; the cache copes with full disks,
read-only folders and damaged files."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, loaded_after, module_at, needs_models
from llvmlite.binding import ObjectFileRef

from sempic import compiling, machine
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


def twice(cache):
    """The kernel of SOURCE, loaded as in a new process."""
    return module_at(cache.parent / "module.py").twice


def load(cache):
    """1 if a new process finds its machine code, 0 if it compiles."""
    function = twice(cache)
    compilations = []
    with pytest.MonkeyPatch.context() as patch:
        real = compiling._compile
        patch.setattr(compiling, "_compile", lambda *a: compilations.append(a) or real(*a))
        assert function(21) == 42
        assert function(-4) == -8
    return 1 - len(compilations)


def test_compiled_kernels_are_cached(cache):
    assert load(cache) == 0
    assert load(cache) == 1
    (cache.parent / "module.py").write_text(SOURCE + "# changed\n")
    compiling._digest.cache_clear()  # as in a new process
    assert load(cache) == 0


USED = """
import PIL.Image
import sempic
from kernels import used
from sempic import compiling, machine

first = used()
found = {compiling.shipped(*use, level) for use in first for level in machine.LEVELS}
assert found == {*machine.SHIPPED.rglob("*.*")}, "make kernels"
sempic.decode(sempic.encode(PIL.Image.open("street.jpg").resize((128, 72))))
assert len(used()) == len(first)
"""


@needs_models
def test_shipped_machine_code_matches_the_sources():
    """It holds exactly the kernels that coding calls, for every level. If not: make kernels."""
    subprocess.run([sys.executable, "-c", USED], cwd=ROOT / "examples", check=True)


def undefined(elf):
    """The names of the symbols that linking an object file of 64 bits must find elsewhere."""
    sections = ObjectFileRef.from_data(elf).sections()
    parts = {section.name(): section.data() for section in sections}
    kinds = {"names": ["name", "section"], "formats": ["<u4", "<u2"], "offsets": [0, 6]}
    symbols = np.frombuffer(parts[b".symtab"], kinds | {"itemsize": 24})
    starts = symbols["name"][(symbols["section"] == 0) & (symbols["name"] > 0)]
    return {parts[b".strtab"][start:].partition(b"\0")[0].decode() for start in starts}


@pytest.mark.parametrize("level", machine.LEVELS)
def test_shipped_machine_code_calls_no_function_that_a_system_may_lack(level):
    """Of C's functions only memset: others may be missing, or give other numbers elsewhere."""
    for path in (machine.SHIPPED / level).iterdir():
        header, _, elf = path.read_bytes()[32:].partition(b"\n")
        externals = json.loads(header)["externals"]
        assert undefined(elf) - {"memset"} == set(externals), path.name
        assert all(name.startswith(("numba_", "NRT_", "Py")) for name in externals), path.name


@needs_models
@pytest.mark.skipif(not machine.levels(), reason="no machine code comes along for this processor")
def test_the_first_command_neither_compiles_nor_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    street = str(ROOT / "examples/street.jpg")
    code = (
        f"import PIL.Image, sempic; p = PIL.Image.open({street!r}).resize((128, 72)); "
        "sempic.decode(sempic.encode(p), steps=1)"
    )
    assert not {"numba", "scipy"} & loaded_after(code)
    assert not (tmp_path / "cache").exists()


def test_shipped_machine_code_comes_first_unless_damaged_or_outdated(cache, monkeypatch):
    monkeypatch.setattr(machine, "SHIPPED", cache.parent / "kernels")
    monkeypatch.setattr(machine, "levels", lambda: ["fine", "plain"])
    kernel = twice(cache)
    origin = compiling._origin(kernel, compiling._Source(compiling._form((1,))))
    assert load(cache) == 0
    code = machine.find(origin)
    for level in machine.levels():
        machine.ship(origin, level, code)
    shutil.rmtree(cache)
    assert load(cache) == 1
    assert not cache.exists()
    machine.shipped(origin, "fine").write_bytes(b"")
    assert load(cache) == 1
    machine.ship(origin._replace(stamp="0"), "plain", code)
    assert load(cache) == 0


@pytest.mark.parametrize(
    ("platform", "triple", "lacks", "levels"),
    [
        ("linux", "x86_64-unknown-linux-gnu", "", ["x86-64-v3", "x86-64-v2"]),
        ("linux", "x86_64-unknown-linux-gnu", "avx2 f16c", ["x86-64-v2"]),
        ("linux", "x86_64-unknown-linux-gnu", "avx2 sse4.2", []),
        ("linux", "aarch64-unknown-linux-gnu", "avx2 sse4.2", ["aarch64"]),
        ("linux", "aarch64_be-unknown-linux-gnu", "", []),
        ("linux", "i686-unknown-linux-gnu", "", []),
        ("darwin", "aarch64-apple-darwin24", "", []),
        ("win32", "x86_64-pc-windows-msvc", "", ["windows-x86-64-v3", "windows-x86-64-v2"]),
        ("win32", "x86_64-pc-windows-msvc", "bmi2", ["windows-x86-64-v2"]),
        ("win32", "aarch64-pc-windows-msvc", "", []),
    ],
)
def test_the_processor_determines_the_levels_of_machine_code(
    monkeypatch, platform, triple, lacks, levels
):
    every = " ".join(level.needs for level in machine.LEVELS.values()).split()
    llvm = SimpleNamespace(
        get_process_triple=lambda: triple,
        get_host_cpu_features=lambda: {name: name not in lacks.split() for name in every},
    )
    monkeypatch.setattr(machine, "_llvm", lambda: (llvm, None))
    monkeypatch.setattr(sys, "platform", platform)
    assert machine.levels.__wrapped__() == levels


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


def test_unreadable_files_are_compiled_again(cache):
    load(cache)
    (path,) = cache.rglob("*.machine")
    path.unlink()
    path.mkdir()
    with pytest.warns(SempicWarning, match="NUMBA_CACHE_DIR"):
        assert load(cache) == 0


def test_a_full_disk_does_not_prevent_compiling(cache, monkeypatch):
    def full(*_):
        raise OutputError("cannot write: No space left on device")

    monkeypatch.setattr(machine.files, "write", full)
    for _ in range(2):
        with pytest.warns(SempicWarning, match="NUMBA_CACHE_DIR"):
            assert load(cache) == 0


def test_read_only_folders_do_not_prevent_compiling(cache, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "makedirs", refuse)
    with pytest.warns(SempicWarning, match="NUMBA_CACHE_DIR"):
        assert load(cache) == 0


def test_the_order_of_cache_folders(tmp_path, monkeypatch):
    source = str(tmp_path / "package/module.py")
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    places = list(machine.folders(source))
    assert places[0] == str(tmp_path / "package/__pycache__")
    assert places[1].startswith(str(tmp_path / "xdg/sempic/numba"))
    assert places[2].startswith(str(tmp_path / f"tmp/sempic-{os.getuid()}"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/proc/none")
    assert list(machine.folders(source))[1:] == places
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "named"))
    (only,) = machine.folders(source)
    assert only.startswith(str(tmp_path / "named"))
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert len(list(machine.folders(source))) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # a user without a home
    assert len(list(machine.folders(source))) == 2
    monkeypatch.delattr(os, "getuid", raising=False)  # as on Windows
    assert len(list(machine.folders(source))) == 1


def test_cache_folders_writable_by_others_are_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: str(tmp_path))
    place = Path(machine._private())
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o777)
    with pytest.raises(PermissionError):
        machine._private()
    place.rmdir()
    (tmp_path / "theirs").mkdir()
    place.symlink_to("theirs")
    with pytest.raises(PermissionError):
        machine._private()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not [p for p in machine.folders(str(tmp_path / "x.py")) if str(place) in p]
