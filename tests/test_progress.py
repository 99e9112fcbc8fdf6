"""Messages of long work: silent by default, one line on request, bars on terminals."""

import io
import sys
import time

import pytest
from conftest import ROOT, loaded_after, needs_models, street

import sempic
from sempic import api, compiling, progress
from sempic.receive import tiling


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)


def wait():
    with progress.waiting("a kettle"):
        time.sleep(0.05)


def test_silent_unless_asked(impatient, capsys):
    wait()
    with progress.bar(3, "part") as advance:
        advance()
    assert capsys.readouterr() == ("", "")


def test_the_message_is_one_line_once(impatient, capsys):
    with progress.shown():
        wait()
        wait()
    assert capsys.readouterr() == ("", "sempic: a kettle\n")


def test_bars_appear_on_terminals_only(impatient, monkeypatch, capsys):
    with progress.shown(), progress.waiting("a kettle", aloud=False):
        time.sleep(0.05)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys, "stderr", Terminal())
    image, labels = street(16, 16)
    with progress.shown():
        api.encode(image, labels=labels, label_quality=3)
    for what in ("simplifying labels", "coding at quality 5"):
        assert f"sempic: {what} … 00:00" in sys.stderr.getvalue()


def test_short_work_is_silent(capsys):
    with progress.shown():
        wait()
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_a_bar(impatient, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.shown():
        wait()
        with progress.bar(3, "tile") as advance:
            for _ in range(3):
                time.sleep(0.15)  # tqdm draws ten times a second at most
                advance()
    said = terminal.getvalue()
    assert "sempic: a kettle … 00:00" in said
    assert "3/3" in said
    assert "tile" in said
    assert said.splitlines()[-1].strip() == ""  # the line is cleared at the end


def test_compiling_is_announced_and_loading_from_cache_is_not(impatient, monkeypatch, tmp_path):
    said = []
    with progress.shown(said.append):
        function = compiling.compiled()(lambda x: x + 1)
        with monkeypatch.context() as patch:
            patch.setenv("NUMBA_CACHE_DIR", str(tmp_path))  # an empty cache
            assert function(1) == 2
        assert said == [compiling.TEXT]
        assert function(2) == 3
        said.clear()
        image, labels = street(16, 16)
        sempic.unpack(sempic.encode(image, labels=labels))  # fills the cache
    with progress.shown(said.append):
        sempic.unpack(sempic.encode(image, labels=labels))
    assert said == []


@needs_models
def test_tiles_and_steps_move_the_bar(monkeypatch):
    bars = []

    class Line:
        def __init__(self, total, unit, **_):
            self.total, self.unit, self.n = total, unit, 0
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self):
            self.n += 1

    monkeypatch.setattr(progress, "_tqdm", Line)
    monkeypatch.setattr(tiling, "AREA", 160 * 208)
    monkeypatch.setattr(sys, "stderr", Terminal())
    image, labels = street(160, 320)
    scene = sempic.unpack(sempic.encode(image, labels=labels))
    with progress.shown():
        api.Codec().synthesize(scene, steps=3, guidance=1.5)
    (line,) = bars
    assert (line.n, line.unit) == (line.total, "tile")
    assert line.total == 3 * 2 * 2


def compiled(code: str) -> set[str]:
    """The kernels with their types that a new process has in machine code after running `code`,
    compiled or loaded."""
    code += (
        "\nimport sys"
        "\nfrom sempic.compiling import Kernel"
        "\nours = ('sempic.labels', 'sempic.simplify')"
        "\nfor m in [m for n, m in sys.modules.items() if n.startswith(ours)]:"
        "\n    for n, f in vars(m).items():"
        "\n        if isinstance(f, Kernel) and f.__module__ == m.__name__:"
        "\n            for s in f.forms:"
        "\n                sys.modules[f'machine.{m.__name__}.{n}:{s}'.replace(' ', '')] = m"
    )
    return {name for name in loaded_after(code) if name.startswith("machine.")}


def test_decoding_compiles_only_what_it_needs(tmp_path):
    image, labels = street(24, 32)
    (tmp_path / "a.sempic").write_bytes(sempic.encode(image, labels=labels))
    decode = f"import sempic; s = open({str(tmp_path / 'a.sempic')!r}, 'rb').read(); "
    assert not compiled(decode + "sempic.info(s)")
    assert not compiled(decode + "sempic.unpack(s, only='coarse')")
    found = compiled(decode + "sempic.unpack(s)")
    names = {name.partition(":")[0] for name in found}
    assert "machine.sempic.labels.primed.coder._code_map" in names
    assert "machine.sempic.labels.adaptive._code_map" not in names
    assert not [name for name in found if ".simplify." in name]


@needs_models
def test_the_example_compiles_all_kernels_of_coding():
    script = (ROOT / "examples/compile.py").read_text()
    coding = (
        "import numpy as np, sempic\n"
        "picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)\n"
        "sempic.decode(sempic.encode(picture))\n"
        "labels = picture[..., 0] % 12\n"
        "for palette in (1, 2):\n"
        "    s = sempic.encode(picture, labels=labels, palette=palette, label_quality=1)\n"
        "    sempic.decode(s)\n"
        "    sempic.unpack(sempic.pack(width=64, height=48, labels=labels, palette=palette))"
    )
    assert compiled(script) >= compiled(coding)
