"""Compiling: types of arguments, and what machine code depends on."""

import os
import subprocess
import sys
from collections import namedtuple
from typing import NamedTuple

import numpy as np
import pytest
from conftest import loaded_after

from sempic import compiling
from sempic.labels import mixing, payload, trunk
from sempic.labels.primed import calm, coder, evidence


def test_invalid_numba_variables_take_one_line():
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


def test_kernels_take_arguments_of_every_type(monkeypatch, tmp_path):
    """Named tuples of arrays of all types, numbers, booleans."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))

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


def test_numba_is_not_imported_when_machine_code_is_found():
    code = (
        "import numpy as np, sempic; "
        "labels = np.eye(24, 32, dtype=np.uint8) * 3; "
        "sempic.unpack(sempic.pack(width=32, height=24, labels=labels, palette=1))"
    )
    loaded_after(code)
    assert not {"numba", "scipy"} & loaded_after(code)


def test_machine_code_depends_only_on_its_functions_and_the_names_they_use(monkeypatch):
    """Other modules of the package may change."""
    kernel = coder._code_map
    before = compiling._stamp(kernel)
    monkeypatch.setattr(mixing, "_RATE", mixing._RATE)
    monkeypatch.setattr(payload, "MODELS", {})
    assert compiling._stamp(kernel) == before
    for module, name in (
        (calm, "BANDS"),  # from another module
        (mixing, "_RATE"),  # used by a function that a function uses
        (evidence, "CELL"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, getattr(module, name) + 1)
            assert compiling._stamp(kernel) != before
    real = compiling._digest
    for name, matters in (("calm.py", True), ("compiling.py", True), ("payload.py", False)):
        with monkeypatch.context() as patch:
            patch.setattr(compiling, "_digest", lambda f, n=name: "" if f.name == n else real(f))
            assert (compiling._stamp(kernel) != before) == matters


def test_machine_code_depends_on_constants_arrays_and_closures():
    def function(values, scale=Pair):
        @compiling.compiled()
        def kernel(x):
            return trunk.CELL * x + values[0] + scale(x, ()).numbers

        return compiling._stamp(kernel)

    found = [
        function(np.arange(3)),
        function(np.arange(4)),
        function(np.arange(3, dtype=np.int32)),
        function((0, 1)),
        function((0, np.int16(1))),
        function(np.arange(3), NamedTuple("Pair", [("inner", tuple), ("numbers", tuple)])),
    ]
    assert len(set(found)) == len(found)
    assert function(np.arange(3)) == found[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trunk, "CELL", 5)
        assert function(np.arange(3)) != found[0]


def test_machine_code_depends_on_the_order_of_fields():
    numbers = np.arange(3)
    for one, other in (("a b", "b a"), ("a b", "a c")):
        origins = {
            compiling._origin(coder._code_map, compiling._Source(compiling._form((pair,))))
            for pair in (namedtuple("Pair", names)(numbers, numbers) for names in (one, other))
        }
        assert len(origins) == 2
