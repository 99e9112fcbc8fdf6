"""The documents are true: their examples run, and what they name exists."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from conftest import HAVE_MODELS, ROOT, FakeReceiver, FakeSegmenter, street
from videos import write_video

import sempic
from sempic import api, cli, commands, fields
from sempic import errors as errors_module
from sempic.commands import train
from sempic.options import Models

README = (ROOT / "README.md").read_text()
SPECIFICATIONS = {
    "format": "test_container.py",
    "labels": "labels/test_labels.py",
    "sequence": "sequence/test_stream.py",
}
"""Pages in docs/spec, and the test file of proofs that name no file."""
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"python", "sh", "text", "json", "yaml", ""}
"""Languages of blocks. The first two are run; others, as "bash" or "pycon", are refused."""


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int
    skip_reason: str | None
    """From `<!-- not run: REASON -->` on the line before the block."""


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a document."""
    lines = path.read_text().splitlines()
    fences = [number for number, line in enumerate(lines) if line.startswith("```")]
    found = []
    for start, end in zip(fences[::2], fences[1::2], strict=True):
        reason = re.fullmatch(r"<!-- not run: (.{10,}) -->", lines[start - 1]) if start else None
        code = "\n".join(lines[start + 1 : end])
        found.append(Block(lines[start][3:].strip(), code, start + 1, reason and reason[1]))
    return found


def commands_in(block: Block) -> list[str]:
    """The commands of a shell block, continued lines joined and comments dropped."""
    lines = block.code.replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.split("#")[0].strip()]


def is_run(document: Path) -> bool:
    return any(b.language in ("python", "sh") and not b.skip_reason for b in blocks(document))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the files that the examples name; stand-ins if the models are missing."""
    monkeypatch.chdir(tmp_path)
    if not HAVE_MODELS:
        monkeypatch.setattr(api.Codec, "segmenter", FakeSegmenter())
        monkeypatch.setattr(api.Codec, "receiver", FakeReceiver())
    labels = street(96, 128)[1]
    # A photograph: the segmenter may be too unsure of a drawing to send a map.
    photo = PIL.Image.open(ROOT / "examples/street.jpg").crop((0, 0, 384, 288)).resize((128, 96))
    image = np.asarray(photo)
    map_ = PIL.Image.fromarray(labels)
    (tmp_path / "shots").mkdir()
    for name in ("photo.jpg", "photo.png", "shots/a.jpg", "shots/b.png"):
        photo.save(name)
    map_.save("map.png")
    write_video(tmp_path / "drive.mp4", [image[:, left : left + 60] for left in (0, 2, 4)])
    for split in ("train", "val"):
        for folder in (tmp_path / "mydata/images" / split, tmp_path / "mydata/labels" / split):
            folder.mkdir(parents=True)
        for name in range(2):
            photo.save(f"mydata/images/{split}/{name}.png")
            map_.save(f"mydata/labels/{split}/{name}.png")
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    (tmp_path / "bin").mkdir()
    for name, module in (("sempic", "-m sempic.cli"), ("python", "")):
        shim = tmp_path / "bin" / name
        shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module} "$@"\n')
        shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def run(command: str) -> None:
    """Runs `sempic` within this process, which is faster, and other commands in bash."""
    if re.fullmatch(r"sempic [^|<>&;$`]*", command):
        try:
            code = cli.main(shlex.split(command)[1:])
        except SystemExit as exit:  # argparse, after --version, --help or wrong usage
            code = exit.code or 0
        assert code == 0
    else:
        if not HAVE_MODELS:
            pytest.skip("a process of its own needs the models")
        subprocess.run(["bash", "-eo", "pipefail", "-c", command], check=True, timeout=120)


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if is_run(d)], ids=relative)
@pytest.mark.filterwarnings("ignore")  # other tests refuse warnings
def test_every_block_runs(document, place):
    """The blocks of a document share one folder and their Python names."""
    names: dict[str, object] = {"__name__": document.stem}
    for block in blocks(document):
        where = f"{relative(document)}:{block.line}"
        if block.skip_reason:
            continue
        if block.language == "python":
            exec(compile("\n" * block.line + block.code, where, "exec"), names)
        for command in commands_in(block) if block.language == "sh" else ():
            try:
                run(command)
            except (AssertionError, subprocess.SubprocessError) as error:
                raise AssertionError(f"{where}: {command}") from error
    if document.name == "README.md":
        written = {str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()}
        assert {"photo.sempic", "out/a.sempic", "pictures/b.png", "photo.labels.png"} <= written


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_commands_and_options_of_every_block_exist(document):
    makefile = (ROOT / "Makefile").read_text()
    for block in blocks(document):
        where = f"{relative(document)}:{block.line}"
        assert block.language in LANGUAGES, where
        for command in commands_in(block) if block.language == "sh" else ():
            words = shlex.split(command)
            if words[0] == "sempic":
                assert words[1] in commands.COMMANDS or words[1].startswith("-"), where
            elif words[0] == "make":
                assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), where
            elif words[0] == "python" and words[1].endswith(".py"):
                script = (ROOT / words[1]).read_text()
                code = script + (ROOT / "benchmarks/common.py").read_text()
                networks = (
                    {f"--{name}" for name in fields.of(Models)} if "Models)" in script else ()
                )
                for option in (w for w in words if w.startswith("--")):
                    assert f'"{option}"' in code or option in networks, f"{where}: {option}"
        if block.language == "python":
            compile(block.code, where, "exec")


def test_examples_in_the_help_run(place, capsys):
    with tarfile.open("shots.tar", "w") as tar:
        tar.add("shots/a.jpg", "a.jpg")
    parser, ours = commands.parsers()
    lines = [line for p in (parser, *ours.values()) for line in (p.epilog or "").splitlines()]
    examples = [line.split(" #")[0].strip() for line in lines if line.startswith("  sempic ")]
    assert len(examples) >= 15
    for example in examples:
        run(example)


def build_site(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """`mkdocs build --strict`; with --quiet it would not count the warnings."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (extra `docs`)")
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(site)],
        cwd=root, capture_output=True, text=True, timeout=300,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip


def test_the_site_builds(tmp_path):
    done = build_site(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "reference/cli/index.html").read_text()
    for option in ("--target-bpp", "--only", "--port", "--quick", "--judge"):
        assert option in reference
    trainings = (f"train {name}" for name in train.TRAININGS)
    for command in (*commands.COMMANDS, *trainings):
        assert command == "distill" or f">sempic {command}<" in reference  # distill is an alias
    if importlib.util.find_spec("torch"):
        assert "built without" not in reference
        assert "usage: sempic sample" in reference
    assert "from_pretrained" in (tmp_path / "reference/python/index.html").read_text()
    for notebook in ROOT.glob("notebooks/*.ipynb"):
        page = (tmp_path / f"notebooks/{notebook.stem}/index.html").read_text()
        assert re.search("data:image/(png|jpeg);base64,", page)


def test_a_broken_link_fails_the_build(tmp_path):
    config = (ROOT / "mkdocs.yml").read_text().split("\nnav:")[0]
    (tmp_path / "mkdocs.yml").write_text(config)
    for name in ("docs/hooks.py", "docs/stylesheets/extra.css"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "docs/index.md").write_text("# Broken\n\n[a page](that-is-not-there.md)\n")
    done = build_site(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "that-is-not-there.md" in done.stderr
    assert done.stderr.count("WARNING") == 1  # nothing else fails it


def test_no_hint_installs_sempic_from_an_index():
    """No release is on an index: `pip install sempic` could fetch a foreign package."""
    command = ["git", "grep", "-InE", "pip install (-[^ ]+ )*['\"]?sempic\\b", "--", ":!tests"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode > 1:
        pytest.skip("not a git checkout")
    # The FAQ explains why this command does not work.
    assert [line for line in done.stdout.splitlines() if not line.startswith("docs/faq.md")] == []


def test_links_lead_to_files():
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("vectors/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_a_decision_has_at_most_five_lines():
    """Measurements and rejected attempts are in docs/experiments."""
    groups = (ROOT / "docs/decisions.md").read_text().split("\n## ")[1:]
    decisions = [decision for group in groups for decision in group.split("\n### ")[1:]]
    assert len(decisions) > 50
    for decision in decisions:
        heading, *lines = decision.strip().splitlines()
        assert 1 <= len([line for line in lines if line]) <= 5, heading


def test_the_reference_lists_the_names_of_sempic():
    reference = (ROOT / "docs/reference/python.md").read_text()
    names = re.search(r"`sempic` itself has (.+?) and all errors\.", reference, re.DOTALL)[1]
    errors = {name for name, value in vars(errors_module).items() if isinstance(value, type)}
    assert set(re.findall(r"`(\w+)`", names)) == {*sempic.__all__} - errors - {"__version__"}


def test_the_readme_has_the_quality_levels_of_the_code():
    rows = re.findall(r"^\| \**(\d)\** \| 1/(\d), QP (\d+) \|", README, re.MULTILINE)
    levels = {int(level): sempic.Quality(int(factor), int(qp)) for level, factor, qp in rows}
    assert levels == sempic.QUALITY


def test_the_glossary_has_each_term_once_and_names_code_that_exists():
    rows = re.findall(
        r"^\| \*\*(.+?)\*\* \| (.+) \| (.*)\|$",
        (ROOT / "docs/glossary.md").read_text(),
        re.MULTILINE,
    )
    terms = [term for row in rows for term in row[0].split(", ")]
    assert len(terms) > 50
    assert len(terms) == len(set(terms))
    code = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    for name in re.findall(r"`([^`]+)`", " ".join(row[2] for row in rows)):
        last = re.split(r"[./]", name.strip("/"))[-1].lstrip("-")
        assert re.search(rf"\b{last}\b", code), name


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_every_must_names_its_proof(name):
    text = (ROOT / f"docs/spec/{name}.md").read_text()
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = text.split("## 1. ", 1)[1]
    sentences = re.split(r"(?<=[\].])\s+(?=[A-Z*-])", text)
    musts = [s for s in sentences if "MUST" in s]
    assert len(musts) >= {"format": 12, "labels": 5, "sequence": 10}[name]
    for sentence in musts:
        assert re.search(r"\[(\w+/)?(test_|vectors )", sentence), sentence


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_every_named_proof_exists(name):
    text, default = (ROOT / f"docs/spec/{name}.md").read_text(), SPECIFICATIONS[name]
    proofs = re.findall(r"(?:(?:tests/)?((?:\w+/)?test_\w+\.py)(?:::)?)?(test_\w+)?", text)
    proofs = [(file or default, test) for file, test in proofs if file or test]
    assert len(proofs) >= 12
    for file, test in proofs:
        path = ROOT / "tests" / file
        if not path.exists():
            path = ROOT / "tests" / Path(default).parent / file
        assert path.exists(), file
        assert not test or f"def {test}(" in path.read_text(), (file, test)
    for vectors in re.findall(r"vectors ([^\[\]]+)\]", text):
        for vector in re.split(r",\s+", vectors):
            assert (ROOT / "vectors" / f"{vector}.sempic").exists(), vector
