"""The documents say what is true: their examples run, their references exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from conftest import HAVE_MODELS, ROOT, FakeReceiver, FakeSegmenter, street

from spic import api, cli

README = (ROOT / "README.md").read_text()
FORMAT = (ROOT / "docs/FORMAT.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the files that the examples name; stand-ins where there are no models yet."""
    monkeypatch.chdir(tmp_path)
    if not HAVE_MODELS:
        monkeypatch.setattr(api.Codec, "segmenter", FakeSegmenter())
        monkeypatch.setattr(api.Codec, "receiver", FakeReceiver())
    image, labels = street(96, 128)
    photo = PIL.Image.fromarray(image)
    (tmp_path / "shots").mkdir()
    for name in ("photo.jpg", "photo.png", "shots/a.jpg", "shots/b.png"):
        photo.save(name)
    PIL.Image.fromarray(labels).save("map.png")
    return tmp_path


def test_python_in_the_readme(place):
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})


def test_command_lines_in_the_readme(place, capsys):
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("spic ")]
    assert len(commands) >= 10
    for line in commands:
        assert cli.main(shlex.split(line, comments=True)[1:]) == 0, (line, capsys.readouterr().err)
    written = {str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()}
    assert {"photo.spic", "out/a.spic", "pictures/b.png", "photo.labels.png"} <= written
    assert np.array(PIL.Image.open("photo.coarse.png")).ndim == 3


@pytest.mark.skipif(not HAVE_MODELS, reason="a pipe is a process of its own and needs the models")
def test_pipes_in_the_readme(place):
    pipes = [line for b in blocks("sh") for line in b.splitlines() if line.startswith("cat ")]
    assert pipes
    for line in pipes:
        line = re.sub(r"\bspic\b", f"{shlex.quote(sys.executable)} -m spic.cli", line)
        subprocess.run(["bash", "-o", "pipefail", "-c", line], check=True, timeout=120)
    assert Path("decoded.png").stat().st_size > 0


def test_make_targets_in_the_readme():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make (\w+)", README, re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_links_lead_somewhere():
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("vectors/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_quality_levels_in_the_readme_are_those_of_the_code():
    rows = re.findall(r"^\| \**(\d)\** \| 1/(\d), QP (\d+) \|", README, re.MULTILINE)
    said = {int(level): api.Quality(int(factor), int(qp)) for level, factor, qp in rows}
    assert said == api.QUALITY


def test_every_must_in_the_format_names_its_proof():
    text = re.sub(r"```.*?```", "", FORMAT, flags=re.DOTALL)
    text = text.split("## 1. Layout", 1)[1]
    sentences = re.split(r"(?<=[\].])\s+(?=[A-Z*-])", text)
    musts = [s for s in sentences if "MUST" in s]
    assert len(musts) >= 12
    for sentence in musts:
        assert re.search(r"\[(\w+/)?(test_|vectors )", sentence), sentence


def test_every_proof_that_the_format_names_exists():
    proofs = re.findall(r"(?:(?:tests/)?((?:\w+/)?test_\w+\.py)(?:::)?)?(test_\w+)?", FORMAT)
    proofs = [(file or "test_container.py", name) for file, name in proofs if file or name]
    assert len(proofs) >= 15
    for file, name in proofs:
        path = ROOT / "tests" / file
        assert path.exists(), file
        assert not name or f"def {name}(" in path.read_text(), (file, name)
    for names in re.findall(r"vectors ([^\[\]]+)\]", FORMAT):
        for name in re.split(r",\s+", names):
            assert (ROOT / "vectors" / f"{name}.spic").exists(), name
