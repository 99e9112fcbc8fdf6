"""Machine code in files: shipped for common processors, or kept on this machine; and loaded.

It is a plain C function in an object file. llvmlite alone links it, in 2 ms, and it depends on
nothing else that is installed. What is shipped is made by `make kernels`.
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
    """What machine code is of."""

    file: str
    """That has the function's source."""
    name: str
    """Of the function, for eyes."""
    function: str
    """Which function of the file, for which types."""
    stamp: str
    """Of all that it is made of: code of another stamp is out of date."""


class Code(NamedTuple):
    symbol: str
    returns: str
    """"i", "b", "f" or "" for nothing."""
    externals: list[str]
    """Symbols that are to be found elsewhere."""
    machine: bytes
    """An object file."""


class Entry(NamedTuple):
    call: Any
    """The C function, as ctypes has it."""
    engine: Any
    """What holds its code."""


def find(origin: Origin) -> Code | None:
    """What is shipped for this machine, or kept on it; nothing that is damaged or out of date."""
    for level in levels():
        if code := find_shipped(origin, level):
            return code
    name = _name(origin, _here())
    kept = (_read(Path(folder, name), origin) for folder in folders(origin.file))
    return next(filter(None, kept), None)


def keep(origin: Origin, code: Code) -> None:
    """For this machine. Never fails: what cannot be written is not kept."""
    name = _name(origin, _here())
    for folder in folders(origin.file):
        with contextlib.suppress(OSError, OutputError):
            _write(Path(folder, name), origin, code)
            return
    warn(
        "the label coder is compiled at each start, since no folder can be written to keep it "
        "in; NUMBA_CACHE_DIR names one"
    )


def _name(origin: Origin, where: Any) -> str:
    """Of its file: one for each function, its types, and kind of machine."""
    digest = hashlib.sha256(repr((origin.function, where)).encode()).hexdigest()
    return f"{origin.name}.{digest[:16]}.machine"


def _read(path: Path, origin: Origin) -> Code | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        data = path.read_bytes()
        if hashlib.sha256(data[32:]).digest() == data[:32]:
            head, _, machine = data[32:].partition(b"\n")
            said = json.loads(head)
            if said.pop("stamp") == origin.stamp:
                return Code(**said, machine=machine)
    return None


def _write(path: Path, origin: Origin, code: Code) -> None:
    said = {"stamp": origin.stamp} | code._asdict()
    del said["machine"]
    data = json.dumps(said).encode() + b"\n" + code.machine
    os.makedirs(path.parent, exist_ok=True)
    files.write(path, hashlib.sha256(data).digest() + data)


# ── linking ──────────────────────────────────────────────────────────────────────────────────


_C: dict[str, Any] = {"i": ctypes.c_int64, "f": ctypes.c_double, "b": ctypes.c_bool, "": None}


def load(code: Code, kinds: list[str]) -> Entry:
    """kinds: of the arguments, as compiling has them: "i", "f", else a pointer."""
    llvm, target = _machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target())  # knows the process
    for name in code.externals:
        if not llvm.address_of_symbol(name):
            assert name.startswith(("numba_", "NRT_", "Py")), name
            llvm.add_symbol(name, _never)  # for exceptions; kernels raise none
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.machine))
    engine.finalize_object()
    types: list[Any] = [_C.get(kind, ctypes.c_void_p) for kind in kinds]
    function = ctypes.CFUNCTYPE(_C[code.returns], *types)
    return Entry(function(engine.get_function_address(code.symbol)), engine)


_abort = ctypes.CFUNCTYPE(None)(os.abort)
_never = ctypes.cast(_abort, ctypes.c_void_p).value


@functools.cache
def _machine() -> tuple[Any, Callable[[], Any]]:
    """llvmlite, and what makes machines for its engines."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = llvm.Target.from_triple(llvm.get_process_triple())
    return llvm, lambda: triple.create_target_machine(reloc="static", codemodel="jitdefault")


# ── what is shipped ──────────────────────────────────────────────────────────────────────────

SHIPPED = Path(__file__).with_name("kernels")
"""A folder for each of LEVELS."""


class Level(NamedTuple):
    """A kind of processor with Linux."""

    architecture: str
    cpu: str
    """LLVM's name."""
    needs: str
    """What such processors have and not all of the architecture, by LLVM's names."""


LEVELS = {
    "x86-64-v3": Level(
        "x86_64", "x86-64-v3", "avx2 bmi bmi2 cx16 f16c fma lzcnt movbe popcnt sahf sse4.2 xsave"
    ),
    "x86-64-v2": Level("x86_64", "x86-64-v2", "cx16 popcnt sahf sse4.2"),
    "aarch64": Level("aarch64", "generic", ""),
}
"""The best first. Of x86-64: psABI, §3.1.1."""


def shipped(origin: Origin, level: str) -> Path:
    """Where machine code for one of LEVELS is, or belongs."""
    return SHIPPED / level / _name(origin, level)


def find_shipped(origin: Origin, level: str) -> Code | None:
    return _read(shipped(origin, level), origin)


def ship(origin: Origin, level: str, code: Code) -> None:
    _write(shipped(origin, level), origin, code)


@functools.cache
def levels() -> list[str]:
    """Those of LEVELS that this machine is of."""
    llvm, _ = _machine()
    if sys.platform != "linux":
        return []
    architecture = llvm.get_process_triple().partition("-")[0]
    has = llvm.get_host_cpu_features()
    return [
        name
        for name, level in LEVELS.items()
        if level.architecture == architecture and all(map(has.get, level.needs.split()))
    ]


# ── what is kept ─────────────────────────────────────────────────────────────────────────────


def folders(source: str) -> Iterator[str]:
    """Where what is compiled of a source file may be kept, the best place first: NUMBA_CACHE_DIR
    and no other, if that can be written."""
    folder = os.path.dirname(os.path.abspath(source))
    below = f"{os.path.basename(folder)}_{hashlib.sha1(folder.encode()).hexdigest()}"
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        yield os.path.join(named, below)
        with contextlib.suppress(OSError):
            os.makedirs(named, exist_ok=True)
        if os.access(named, os.W_OK):
            return
    yield os.path.join(os.path.dirname(source), "__pycache__")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(home):  # "~" stays where there is no home
        yield os.path.join(home, "sempic", "numba", below)
    with contextlib.suppress(OSError):
        yield os.path.join(_private(), below)


def _private() -> str:
    """A folder for temporary files that nobody else can write to: what is there will be run."""
    path = os.path.join(tempfile.gettempdir(), f"sempic-{os.getuid()}")
    os.makedirs(path, mode=0o700, exist_ok=True)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(path)
    return path


@functools.cache
def _here() -> tuple[Any, ...]:
    """What machine code depends on beside its source."""
    llvm, _ = _machine()
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
