"""Compiled kernels as files: shipped for common processors (`make kernels`) or cached on this
machine.

A kernel is a C function in an object file. llvmlite links it in 2 ms without other dependencies.
"""

# llvmlite has no types.
# mypy: disable-error-code="no-untyped-call,attr-defined,misc"

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import json
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sempic import files
from sempic.errors import OutputError, warn


class Origin(NamedTuple):
    """The source of machine code."""

    file: str
    """Path of the source file."""
    name: str
    """Readable name of the function."""
    function: str
    """Identifies the function in the file and its argument types."""
    stamp: str
    """Hash of all sources; code with another stamp is outdated."""


class Code(NamedTuple):
    symbol: str
    returns: str
    """Type of the result: "i", "b", "f", or "" for none."""
    externals: list[str]
    """Undefined symbols."""
    machine: bytes
    """The object file."""


class Entry(NamedTuple):
    call: Any
    """The C function (ctypes)."""
    engine: Any
    """Owner of the code's memory."""


def find(origin: Origin) -> Code | None:
    """Valid, current code: shipped for this machine, or cached on it. None: there is none."""
    for level in levels():
        if code := find_shipped(origin, level):
            return code
    name = _name(origin, _environment())
    cached = (_read(Path(folder, name), origin) for folder in folders(origin.file))
    return next(filter(None, cached), None)


def keep(origin: Origin, code: Code) -> None:
    """Cache code for this machine; warns if no folder is writable."""
    name = _name(origin, _environment())
    for folder in folders(origin.file):
        with contextlib.suppress(OSError, OutputError):
            _write(Path(folder, name), origin, code)
            return
    warn(
        "the label coder is compiled at each start, because no folder for its cache is writable; "
        "set NUMBA_CACHE_DIR to one"
    )


def _name(origin: Origin, target: Any) -> str:
    """Name of the code's file, by function, argument types and target machine."""
    digest = hashlib.sha256(repr((origin.function, target)).encode()).hexdigest()
    return f"{origin.name}.{digest[:16]}.machine"


def _read(path: Path, origin: Origin) -> Code | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        data = path.read_bytes()
        if hashlib.sha256(data[32:]).digest() == data[:32]:
            head, _, machine = data[32:].partition(b"\n")
            header = json.loads(head)
            if header.pop("stamp") == origin.stamp:
                return Code(**header, machine=machine)
    return None


def _write(path: Path, origin: Origin, code: Code) -> None:
    header = {"stamp": origin.stamp} | code._asdict()
    del header["machine"]
    data = json.dumps(header).encode() + b"\n" + code.machine
    os.makedirs(path.parent, exist_ok=True)
    files.write(path, hashlib.sha256(data).digest() + data)


# ── linking ──────────────────────────────────────────────────────────────────────────────────


_C: dict[str, Any] = {"i": ctypes.c_int64, "f": ctypes.c_double, "b": ctypes.c_bool, "": None}


def load(code: Code, kinds: list[str]) -> Entry:
    """Link code. kinds: types of the arguments, "i", "f", or other for a pointer."""
    llvm, new_target = _llvm()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), new_target())
    for name in code.externals:
        if not llvm.address_of_symbol(name):
            assert name.startswith(("numba_", "NRT_", "Py")), name
            llvm.add_symbol(name, _never)  # only exceptions need it, and kernels raise none
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.machine))
    engine.finalize_object()
    types: list[Any] = [_C.get(kind, ctypes.c_void_p) for kind in kinds]
    function = ctypes.CFUNCTYPE(_C[code.returns], *types)
    return Entry(function(engine.get_function_address(code.symbol)), engine)


_abort = ctypes.CFUNCTYPE(None)(os.abort)
_never = ctypes.cast(_abort, ctypes.c_void_p).value


@functools.cache
def _llvm() -> tuple[Any, Callable[[], Any]]:
    """The initialized llvmlite, and a function that makes target machines for its engines."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = llvm.Target.from_triple(llvm.get_process_triple())
    return llvm, lambda: triple.create_target_machine(reloc="static", codemodel="jitdefault")


# ── shipped code ─────────────────────────────────────────────────────────────────────────────

SHIPPED = Path(__file__).with_name("kernels")
"""Has a folder for each of LEVELS."""


class Level(NamedTuple):
    """A system and a class of its processors."""

    system: str
    """Python's `sys.platform`."""
    architecture: str
    cpu: str
    """LLVM's name."""
    needs: str
    """Features beyond the baseline of the architecture, by LLVM's names."""


_V3 = "avx2 bmi bmi2 cx16 f16c fma lzcnt movbe popcnt sahf sse4.2 xsave"
_V2 = "cx16 popcnt sahf sse4.2"

LEVELS = {
    "x86-64-v3": Level("linux", "x86_64", "x86-64-v3", _V3),
    "x86-64-v2": Level("linux", "x86_64", "x86-64-v2", _V2),
    "aarch64": Level("linux", "aarch64", "generic", ""),
    "windows-x86-64-v3": Level("win32", "x86_64", "x86-64-v3", _V3),
    "windows-x86-64-v2": Level("win32", "x86_64", "x86-64-v2", _V2),
}
"""The fastest first. Those of x86-64: psABI, §3.1.1."""


def shipped(origin: Origin, level: str) -> Path:
    """The path of shipped code for one of LEVELS."""
    return SHIPPED / level / _name(origin, level)


def find_shipped(origin: Origin, level: str) -> Code | None:
    return _read(shipped(origin, level), origin)


def ship(origin: Origin, level: str, code: Code) -> None:
    _write(shipped(origin, level), origin, code)


@functools.cache
def levels() -> list[str]:
    """The LEVELS that this machine supports."""
    llvm, _ = _llvm()
    architecture = llvm.get_process_triple().partition("-")[0]
    features = llvm.get_host_cpu_features()
    return [
        name
        for name, level in LEVELS.items()
        if (level.system, level.architecture) == (sys.platform, architecture)
        and all(map(features.get, level.needs.split()))
    ]


# ── the cache ────────────────────────────────────────────────────────────────────────────────


def folders(source: str) -> Iterator[str]:
    """Cache folders for the code of a source file, best first; only NUMBA_CACHE_DIR if writable."""
    folder = os.path.dirname(os.path.abspath(source))
    below = f"{os.path.basename(folder)}_{hashlib.sha1(os.fsencode(folder)).hexdigest()}"
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        yield os.path.join(named, below)
        with contextlib.suppress(OSError):
            os.makedirs(named, exist_ok=True)
        if os.access(named, os.W_OK):
            return
    yield os.path.join(os.path.dirname(source), "__pycache__")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(home):  # expanduser keeps "~" if there is no home
        yield os.path.join(home, "sempic", "numba", below)
    with contextlib.suppress(OSError, AttributeError):  # Windows has no users' numbers
        yield os.path.join(_private(), below)


def _private() -> str:
    """A temporary folder that only this user can write to, because its code will be executed."""
    path = os.path.join(tempfile.gettempdir(), f"sempic-{os.getuid()}")
    os.makedirs(path, mode=0o700, exist_ok=True)
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(path)
    return path


@functools.cache
def _environment() -> tuple[Any, ...]:
    """Everything besides its source that machine code depends on."""
    llvm, _ = _llvm()
    cpu = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = "" if cpu.lower() == "generic" else llvm.get_host_cpu_features().flatten()
    others = {k: v for k, v in os.environ.items() if k.startswith("NUMBA_")}
    for name in ("NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"):
        others.pop(name, None)
    import llvmlite

    numba = importlib.util.find_spec("numba")
    assert numba is not None
    assert numba.origin is not None
    version = Path(numba.origin).with_name("_version.py").read_text("utf-8")
    return (
        llvm.get_process_triple(), cpu, features, sorted(others.items()), llvmlite.__version__,
        version, np.__version__, sys.version,
    )  # fmt: skip
