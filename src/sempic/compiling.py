"""Compiling what numba makes fast: once on a machine, kept on disk, and said while it lasts.

What is kept is machine code behind a plain C function, which llvmlite alone loads: numba, which
takes a third of a second to load, is imported by whoever must compile and by nobody else.
"""

# numba and llvmlite have no types.
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
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sempic import files, processes, progress
from sempic.errors import OutputError, warn

TEXT = "compiling the label coder, once on this machine (about ten seconds)"


def _compiles() -> bool:
    """Whether NUMBA_DISABLE_JIT says nothing else."""
    try:
        return not int(os.environ.get("NUMBA_DISABLE_JIT") or 0)
    except ValueError:
        return True


class Kernel:
    """A function compiled for the types that it is called with.

    Its arguments are whole numbers, truth values, floats, arrays in C order, and named tuples of
    these; it returns one of the first three or nothing. Other kernels call it in machine code.
    """

    def __init__(
        self, function: Callable[..., Any], options: dict[str, Any], signature: str | None = None
    ) -> None:
        functools.update_wrapper(self, function)
        self._function, self._options, self._signature = function, options, signature
        self._entries: dict[Any, _Entry] = {}

    def __call__(self, *args: Any) -> Any:
        form = _form(args)
        entry = self._entries.get(form)
        if entry is None:
            with _lock():
                entry = self._entries.get(form) or _entry(self, form)
                self._entries[form] = entry
        flat: list[Any] = []
        _flatten(args, flat)
        return entry.call(*flat)

    @functools.cached_property
    def dispatcher(self) -> Any:
        """numba's view of it."""
        found = _numba().njit(**self._options)(self._function)
        if self._signature is not None:
            found.compile(self._signature)
            found.disable_compile()
        return found

    def __getattr__(self, name: str) -> Any:
        if name in ("py_func", "targetoptions"):  # numba asks for these where it merges functions
            return getattr(self.dispatcher, name)
        raise AttributeError(name)

    @property
    def forms(self) -> list[Any]:
        """For which types it is in machine code, in this process."""
        return list(self._entries)


def compiled(
    signature: str | None = None, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`numba.njit` with such options, kept on disk where that can be. With a signature, machine
    code has it for these types alone, and not again for each constant."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        return Kernel(function, options, signature) if _compiles() else function

    return wrap


# Kernels make no arrays: those that come to them are counted by who calls them, and counting each
# use again would take half of their time. numba has no public name for that.
_KERNEL: dict[str, Any] = {
    "error_model": "numpy",
    "_nrt": False,
    "no_cfunc_wrapper": True,
    "no_cpython_wrapper": True,
}

kernel = compiled(**_KERNEL)
"""For functions that are called for every pixel; arrays are given to them, none is made."""

merged = compiled(inline="always")
"""For parts of kernels: compiled with these, and with what is constant there."""

inlined = compiled(**_KERNEL, forceinline=True)
"""For parts that are compiled once and then copied into kernels."""


def integers(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`inlined`, for these types alone."""
    return compiled(signature, **_KERNEL, forceinline=True)


_lock = processes.ForkSafeLock()


@functools.cache
def _numba() -> Any:
    """numba, which knows kernels; its complaints about variables take one line each."""
    with warnings.catch_warnings(record=True) as told:
        import numba
        from numba.core import types
        from numba.extending import typeof_impl
    for warning in told:
        warn(str(warning.message).splitlines()[0])

    @typeof_impl.register(Kernel)
    def typeof(value: Kernel, _: Any) -> Any:
        return types.Dispatcher(value.dispatcher)

    return numba


# ── arguments ────────────────────────────────────────────────────────────────────────────────


def _form(value: Any) -> Any:
    """The types of arguments: "i", "b", "f", (dtype, dimensions), or a class and its fields'."""
    if isinstance(value, np.ndarray):
        if not value.flags.c_contiguous:
            raise TypeError("kernels take arrays in C order")
        return value.dtype.str, value.ndim
    if isinstance(value, tuple):
        return type(value), tuple(_form(part) for part in value)
    if isinstance(value, (bool, np.bool_)):
        return "b"
    if isinstance(value, (int, np.integer)):
        return "i"
    if isinstance(value, (float, np.floating)):
        return "f"
    raise TypeError(f"kernels take no {type(value).__name__}")


def _flatten(value: Any, out: list[Any]) -> None:
    """Arguments as those of the C function: arrays are a pointer and their sides."""
    if isinstance(value, np.ndarray):
        out.append(value.__array_interface__["data"][0])
        out.extend(value.shape)
    elif isinstance(value, tuple):
        for part in value:
            _flatten(part, out)
    else:
        out.append(float(value) if isinstance(value, (float, np.floating)) else int(value))


class _Source:
    """The C function of a kernel, in Python: takes what `_flatten` gives."""

    def __init__(self, form: Any) -> None:
        self.kinds: list[str] = []
        """Of its arguments: "i", "f", or a dtype of an array."""
        self.classes: dict[str, Any] = {}
        parts = [self._part(part) for part in form[1]]
        names = ", ".join(f"a{i}" for i in range(len(self.kinds)))
        self.text = f"def entry({names}):\n    return kernel({', '.join(parts)})\n"

    def _next(self, kind: str) -> str:
        self.kinds.append(kind)
        return f"a{len(self.kinds) - 1}"

    def _part(self, form: Any) -> str:
        if isinstance(form, str):
            return self._next(form if form == "f" else "i") + (" != 0" if form == "b" else "")
        kind, rest = form
        if isinstance(kind, str):
            pointer = self._next(kind)
            sides = "".join(self._next("i") + ", " for _ in range(rest))
            return f"carray({pointer}, ({sides}))"
        parts = ", ".join(self._part(part) for part in rest)
        if kind is tuple:
            return f"({parts},)"
        name = f"T{len(self.classes)}"
        self.classes[name] = kind
        return f"{name}({parts})"


# ── machine code ─────────────────────────────────────────────────────────────────────────────


class _Code(NamedTuple):
    """What is kept of a kernel for some types."""

    symbol: str
    returns: str
    """"i", "b", "f" or "" for nothing."""
    externals: list[str]
    """Symbols that are to be found elsewhere."""
    machine: bytes
    """An object file."""


class _Entry(NamedTuple):
    call: Any
    """The C function, as ctypes has it."""
    engine: Any
    """What holds its code."""


def _entry(kernel: Kernel, form: Any) -> _Entry:
    source = _Source(form)
    name, stamp = _name(kernel, source), _stamp(*_sources(kernel.__module__, _file(kernel)))
    code = _kept(kernel, name, stamp)
    if code is None:
        with progress.waiting(TEXT):
            code = _compile(kernel, source)
        _keep(kernel, name, stamp, code)
    return _loaded(code, source.kinds)


def _compile(kernel: Kernel, source: _Source) -> _Code:
    numba = _numba()
    from numba.core import compiler, registry, types
    from numba.core.ccallback import _CFuncCompiler
    from numba.core.compiler_lock import global_compiler_lock
    from numba.np.arrayobj import get_cfarray_intrinsic

    names: dict[str, Any] = {
        "kernel": kernel.dispatcher,
        "carray": get_cfarray_intrinsic("C", None),  # `numba.carray` without its own function
        **source.classes,
    }
    exec(compile(source.text, f"<{kernel.__qualname__}>", "exec"), names)
    numbers = {"i": types.int64, "f": types.float64}
    kinds = [
        numbers.get(kind) or types.CPointer(numba.from_dtype(np.dtype(kind)))
        for kind in source.kinds
    ]
    work = _CFuncCompiler(
        names["entry"],
        registry.cpu_target,
        {"error_model": "numpy", "_nrt": False},
        {},
        pipeline_class=compiler.Compiler,
    )
    with global_compiler_lock:
        found = work.compile(tuple(kinds), None)
        symbol = found.fndesc.llvm_cfunc_wrapper_name
        found.library.get_pointer_to_function(symbol)  # ends it
    returned = found.signature.return_type
    returns = {types.none: "", types.boolean: "b", types.float64: "f"}.get(returned, "i")
    module = found.library._final_module
    named = [
        part.name for part in (*module.functions, *module.global_variables) if part.is_declaration
    ]
    externals = [name for name in named if not name.startswith("llvm.")]
    return _Code(symbol, returns, externals, found.library._get_compiled_object())


_C: dict[str, Any] = {"i": ctypes.c_int64, "f": ctypes.c_double, "b": ctypes.c_bool, "": None}


def _loaded(code: _Code, kinds: list[str]) -> _Entry:
    llvm, target = _machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target())  # knows the process
    for name in code.externals:
        if not llvm.address_of_symbol(name):
            assert name.startswith(("numba_", "NRT_")), name
            llvm.add_symbol(name, _never)  # for exceptions; kernels raise none
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.machine))
    engine.finalize_object()
    types: list[Any] = [_C.get(kind, ctypes.c_void_p) for kind in kinds]
    function = ctypes.CFUNCTYPE(_C[code.returns], *types)
    return _Entry(function(engine.get_function_address(code.symbol)), engine)


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


# ── the cache ────────────────────────────────────────────────────────────────────────────────


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


def _file(kernel: Kernel) -> str:
    return kernel.__wrapped__.__code__.co_filename  # type: ignore[no-any-return]


def _name(kernel: Kernel, source: _Source) -> str:
    """Of the file: one for each kernel, its types, and the machine."""
    code = kernel.__wrapped__.__code__
    function = kernel.__module__, kernel.__qualname__, code.co_firstlineno
    parts = repr((function, source.text, source.kinds, _here()))
    return f"{kernel.__name__}.{hashlib.sha256(parts.encode()).hexdigest()[:16]}.machine"


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


def _kept(kernel: Kernel, name: str, stamp: str) -> _Code | None:
    for folder in folders(_file(kernel)):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            data = Path(folder, name).read_bytes()
            if hashlib.sha256(data[32:]).digest() != data[:32]:
                continue
            head, _, machine = data[32:].partition(b"\n")
            said = json.loads(head)
            if said.pop("stamp") == stamp:
                return _Code(**said, machine=machine)
    return None


def _keep(kernel: Kernel, name: str, stamp: str, code: _Code) -> None:
    """Never fails: what cannot be written is not kept."""
    said = {"stamp": stamp} | code._asdict()
    said.pop("machine")
    data = json.dumps(said).encode() + b"\n" + code.machine
    for folder in folders(_file(kernel)):
        with contextlib.suppress(OSError, OutputError):
            os.makedirs(folder, exist_ok=True)
            files.write(Path(folder, name), hashlib.sha256(data).digest() + data)
            return
    warn(
        "the label coder is compiled at each start, since no folder can be written to keep it "
        "in; NUMBA_CACHE_DIR names one"
    )


@functools.cache
def _sources(module: str, own: str) -> tuple[Path, ...]:
    """All that the machine code of functions of a module in the file `own` may be made of: a kernel
    has parts from other modules of its package, and this one says how they are compiled."""
    here, parts = Path(__file__), module.split(".")
    if parts[0] == "sempic" and (here.parent / parts[1]).is_dir():
        return (here, *sorted((here.parent / parts[1]).rglob("*.py")))
    return here, Path(own)


@functools.cache
def _stamp(*sources: Path) -> str:
    """SHA-256 of the files, whose times may be those of any release."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
