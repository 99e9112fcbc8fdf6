"""make kernels: updates the machine code that sempic ships, src/sempic/kernels.

Runs on Linux with any processor, and makes Windows' code, too. Only kernels with changed sources
are compiled, each in its own process, so that the same sources, numba, llvmlite and Python give the
same bytes. Unused files are deleted.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from typing import Any

import compile

from sempic import compiling, machine
from sempic.compiling import Kernel

SYSTEMS = {"linux": "unknown-linux-gnu", "win32": "pc-windows-msvc-elf"}
"""The systems in LLVM's triples. llvmlite links ELF objects on Windows, too."""


def used() -> list[tuple[Kernel, Any]]:
    """The kernels that the codec calls, each with its argument types."""
    compile.main()
    ours = {name: module for name, module in sys.modules.items() if name.startswith("sempic.")}
    return [
        (value, form)
        for name, module in sorted(ours.items())
        for value in vars(module).values()
        if isinstance(value, Kernel) and value.__module__ == name
        for form in value.forms
    ]


def main() -> None:
    if sys.platform != "linux":
        raise SystemExit("machine code is made on Linux")
    os.environ["PYTHONHASHSEED"] = "0"
    variants = [(*use, level) for use in used() for level in machine.LEVELS]
    stale = [
        (kernel.__module__, kernel.__name__, form, level)
        for kernel, form, level in variants
        if compiling.shipped(kernel, form, level) is None
    ]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        for done in pool.imap(make, stale):
            print(done, flush=True)
    kept = {compiling.shipped(*variant) for variant in variants}
    for path in machine.SHIPPED.rglob("*.machine"):
        if path not in kept:
            path.unlink()


def make(task: tuple[str, str, Any, str]) -> str:
    module, name, form, level = task
    assert "numba" not in sys.modules
    target = machine.LEVELS[level]
    os.environ |= {"NUMBA_CPU_NAME": target.cpu, "NUMBA_CPU_FEATURES": ""}
    import llvmlite.binding as llvm

    # numba compiles for the machine it runs on: pretend that this is the target. Python's system
    # stays Linux, but numba looks at it only for names of C's functions, and kernels call none.
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    there = f"{target.architecture}-{SYSTEMS[target.system]}"
    llvm.get_process_triple = lambda: there
    llvm.Target.from_default_triple = lambda: llvm.Target.from_triple(there)
    compiling.ship(vars(importlib.import_module(module))[name], form, level)
    return f"{level} {module}.{name}"


if __name__ == "__main__":
    main()
