"""Compiling of kernels by numba: once per machine, and only if their machine code is not shipped.

The machine code is a plain C function, which `sempic.machine` stores and loads without numba. numba
takes a third of a second to import, so only compiling imports it.
"""

# numba has no types.
# mypy: disable-error-code="no-untyped-call,attr-defined,misc"

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from sempic import machine, processes, progress
from sempic.errors import warn

TEXT = "compiling the label coder, once on this machine (ten seconds or more)"


def _compiles() -> bool:
    """False if NUMBA_DISABLE_JIT is a number other than 0."""
    try:
        return not int(os.environ.get("NUMBA_DISABLE_JIT") or 0)
    except ValueError:
        return True


class Kernel:
    """A function that is compiled for the types of its arguments.

    Arguments: int, bool, float, arrays in C order, and (named) tuples of these. Result: int, bool,
    float or None. Other kernels call the function directly in machine code.
    """

    def __init__(
        self, function: Callable[..., Any], options: dict[str, Any], signature: str | None = None
    ) -> None:
        functools.update_wrapper(self, function)
        self._function, self._options, self._signature = function, options, signature
        self._entries: dict[Any, machine.Entry] = {}

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
        """numba's dispatcher of the function."""
        dispatcher = _numba().njit(**self._options)(self._function)
        if self._signature is not None:
            dispatcher.compile(self._signature)
            dispatcher.disable_compile()
        return dispatcher

    def __getattr__(self, name: str) -> Any:
        if name in ("py_func", "targetoptions"):  # numba reads these when it merges functions
            return getattr(self.dispatcher, name)
        raise AttributeError(name)

    @property
    def forms(self) -> list[Any]:
        """Forms of arguments (`_form`) for which this process has machine code."""
        return list(self._entries)


def compiled(
    signature: str | None = None, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`numba.njit` with these options; stores machine code on disk if possible.

    signature: compiles the function for these types only, instead of again for each constant.
    """

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        return Kernel(function, options, signature) if _compiles() else function

    return wrap


# Kernels allocate no arrays, and their callers hold references to all arguments. Without `_nrt`
# numba counts no references, which would take half of the time. It has no public option for this.
_KERNEL: dict[str, Any] = {
    "error_model": "numpy",
    "_nrt": False,
    "no_cfunc_wrapper": True,
    "no_cpython_wrapper": True,
}

kernel = compiled(**_KERNEL)
"""For functions that run for every pixel; they must not allocate arrays."""

merged = compiled(inline="always")
"""For parts of kernels: compiled into each caller, with the caller's constants."""

inlined = compiled(**_KERNEL, forceinline=True)
"""For parts of kernels: compiled once, then copied into each caller."""


def integers(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`inlined`, compiled for these types only."""
    return compiled(signature, **_KERNEL, forceinline=True)


_lock = processes.ForkSafeLock()


@functools.cache
def _numba() -> Any:
    """numba with the type `Kernel` registered; each of its import warnings becomes one line."""
    with warnings.catch_warnings(record=True) as caught:
        import numba
        from numba.core import types
        from numba.extending import typeof_impl
    for warning in caught:
        warn(str(warning.message).splitlines()[0])

    @typeof_impl.register(Kernel)
    def typeof(value: Kernel, _: Any) -> Any:
        return types.Dispatcher(value.dispatcher)

    return numba


# ── arguments ────────────────────────────────────────────────────────────────────────────────


def _form(value: Any) -> Any:
    """The type of an argument: "i", "b", "f", (dtype, dimensions), or (class, forms of fields)."""
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
    """Appends the arguments of the C function; an array becomes a pointer and its shape."""
    if isinstance(value, np.ndarray):
        out.append(value.__array_interface__["data"][0])
        out.extend(value.shape)
    elif isinstance(value, tuple):
        for part in value:
            _flatten(part, out)
    else:
        out.append(float(value) if isinstance(value, (float, np.floating)) else int(value))


class _Source:
    """Python source of a kernel's C function, whose arguments are those of `_flatten`."""

    def __init__(self, form: Any) -> None:
        self.kinds: list[str] = []
        """Of the arguments: "i", "f", or the dtype of an array."""
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


def _entry(kernel: Kernel, form: Any) -> machine.Entry:
    source = _Source(form)
    origin = _origin(kernel, source)
    code = machine.find(origin)
    if code is None:
        with progress.waiting(TEXT):
            code = _compile(kernel, source)
        machine.keep(origin, code)
    return machine.load(code, source.kinds)


def ship(kernel: Kernel, form: Any, level: str) -> None:
    """Compiles and ships a kernel for one of `machine.LEVELS`, which numba must be set to."""
    source = _Source(form)
    machine.ship(_origin(kernel, source), level, _compile(kernel, source))


def shipped(kernel: Kernel, form: Any, level: str) -> Path | None:
    """The file of a shipped kernel; None if the file is missing or of other sources."""
    origin = _origin(kernel, _Source(form))
    return machine.shipped(origin, level) if machine.find_shipped(origin, level) else None


def _compile(kernel: Kernel, source: _Source) -> machine.Code:
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
        found.library.get_pointer_to_function(symbol)  # completes the library
    returned = found.signature.return_type
    returns = {types.none: "", types.boolean: "b", types.float64: "f"}.get(returned, "i")
    module = found.library._final_module
    named = [
        part.name for part in (*module.functions, *module.global_variables) if part.is_declaration
    ]
    externals = [name for name in named if not name.startswith("llvm.")]
    return machine.Code(symbol, returns, externals, found.library._get_compiled_object())


# ── the sources of machine code ─────────────────────────────────────────────────────────────


def _origin(kernel: Kernel, source: _Source) -> machine.Origin:
    code = kernel.__wrapped__.__code__
    function = kernel.__module__, kernel.__qualname__, code.co_firstlineno
    types = source.text, source.kinds, [_described(kind) for kind in source.classes.values()]
    return machine.Origin(
        code.co_filename, kernel.__name__, repr((function, types)), _stamp(kernel)
    )


def _stamp(kernel: Kernel) -> str:
    """SHA-256 of the files of the kernel's functions, and of all values that these functions use.

    Not of file times, because installed files may have any.
    """
    kernels, files, values = [kernel], {Path(__file__)}, set()
    for part in kernels:  # grows meanwhile
        files.add(Path(part.__wrapped__.__code__.co_filename))
        for name, value in _named(part.__wrapped__):
            if not isinstance(value, Kernel):
                values.add(f"{name} = {_described(value)}")
            elif value not in kernels:
                kernels.append(value)
    parts = (*sorted(map(_digest, files)), *sorted(values))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@functools.cache
def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _named(function: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of the globals and free variables of a function and its inner functions."""
    codes = [function.__code__]
    for code in codes:  # grows meanwhile
        codes += [part for part in code.co_consts if isinstance(part, CodeType)]
    yield from _values(function.__globals__, {name for code in codes for name in code.co_names})
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield name, cell.cell_contents


def _values(scope: dict[str, Any], names: set[str]) -> Iterator[tuple[str, Any]]:
    for name in names & scope.keys():
        value = scope[name]
        if isinstance(value, ModuleType) and value.__name__.startswith("sempic."):
            yield from _values(vars(value), names)  # for `module.constant`, `names` has both names
        else:
            yield name, value


def _described(value: Any) -> Any:
    """A description of a constant that is the same on every machine."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).hexdigest()
    if isinstance(value, np.generic):
        return value.dtype.str, value.item()
    if isinstance(value, tuple):
        return type(value).__qualname__, [_described(part) for part in value]
    if isinstance(value, type):
        return value.__module__, value.__qualname__, getattr(value, "_fields", None)
    plain = value is None or isinstance(value, (bool, int, float, str))
    return repr(value) if plain else type(value).__qualname__
