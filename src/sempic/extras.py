"""`--help` of commands whose packages are not installed."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

_TRAINING = ("accelerate", "diffusers", "efficientnet_lite_pytorch", "onnx", "safetensors", "torch")


@contextlib.contextmanager
def pretended(wanted: bool = True) -> Iterator[None]:
    """Within it, if that is wanted, modules of sempic that need the extra `train` can be imported
    without it.

    It is for `--help`: their arguments stand beside the code that PyTorch runs, and explaining them
    runs none of it. The process is of no use for anything else then, and should end.
    """
    if not wanted:
        yield
        return
    finder = _Finder()
    sys.meta_path.append(finder)  # last, so that what is installed is found first
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Kind(type):
    """Of `_Anything`: its attributes are itself."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything

    def __getitem__(cls, _: Any) -> Any:
        return cls


class _Anything(metaclass=_Kind):
    """A name of a package that is not there: a class to derive from, a decorator, a value."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(_Anything, name)

    def __call__(self, function: Any = None, *_: Any, **__: Any) -> Any:
        return function


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(_Anything, name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] not in _TRAINING:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass
