"""The documents say what is true: their examples run, their references exist."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from conftest import HAVE_MODELS, ROOT, FakeReceiver, FakeSegmenter, street

import sempic
from sempic import api, cli, commands
from sempic import errors as errors_module
from sempic.commands import train
from sempic.sequence.video import Video

README = (ROOT / "README.md").read_text()
SPECIFICATIONS = {
    "format": "test_container.py",
    "labels": "labels/test_labels.py",
    "sequence": "sequence/test_stream.py",
}
"""In docs/spec, and the file of the tests that they name without one."""
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"python", "sh", "text", "json", "yaml", ""}
"""Of blocks. The first two are run; "bash" or "pycon" would slip past the tests."""


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int
    why_not: str | None
    """Why it is not run: `<!-- not run: REASON -->` stands on the line before it."""


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a document."""
    found, lines = [], path.read_text().splitlines()
    numbers = iter(range(len(lines)))
    for number in numbers:
        if not lines[number].startswith("```"):
            continue
        end = next(i for i in range(number + 1, len(lines)) if lines[i].startswith("```"))
        reason = re.fullmatch(r"<!-- not run: (.{10,}) -->", lines[number - 1]) if number else None
        code = "\n".join(lines[number + 1 : end])
        found.append(
            Block(lines[number][3:].strip(), code, number + 1, reason[1] if reason else None)
        )
        while next(numbers) < end:
            pass
    return found


def commands_in(block: Block) -> list[str]:
    """The commands of a shell block, continued lines joined and comments dropped."""
    lines = block.code.replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.split("#")[0].strip()]


def is_run(document: Path) -> bool:
    return any(b.language in ("python", "sh") and not b.why_not for b in blocks(document))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the files that the examples name; stand-ins where there are no models yet."""
    monkeypatch.chdir(tmp_path)
    if not HAVE_MODELS:
        monkeypatch.setattr(api.Codec, "segmenter", FakeSegmenter())
        monkeypatch.setattr(api.Codec, "receiver", FakeReceiver())
    labels = street(96, 128)[1]
    # A photograph: of what is drawn, a segmenter of streets may know too little to send a map.
    photo = PIL.Image.open(ROOT / "examples/street.jpg").crop((0, 0, 384, 288)).resize((128, 96))
    image = np.asarray(photo)
    map_ = PIL.Image.fromarray(labels)
    (tmp_path / "shots").mkdir()
    for name in ("photo.jpg", "photo.png", "shots/a.jpg", "shots/b.png"):
        photo.save(name)
    map_.save("map.png")
    drive = Video(tmp_path / "drive.mp4", Fraction(10))
    for left in (0, 2, 4):
        drive.add(image[:, left : left + 60])
    drive.close(keep=True)
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
    """Run one command: ours within this process, which is faster, all else by bash."""
    if re.fullmatch(r"sempic [^|<>&;$`]*", command):
        try:
            code = cli.main(shlex.split(command)[1:])
        except SystemExit as exit:  # argparse after --version or --help, or wrong usage
            code = exit.code or 0
        assert code == 0
    else:
        if not HAVE_MODELS:
            pytest.skip("a process of its own needs the models")
        subprocess.run(["bash", "-eo", "pipefail", "-c", command], check=True, timeout=120)


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if is_run(d)], ids=named)
@pytest.mark.filterwarnings("ignore")  # a reader sees warnings, too; other tests refuse them
def test_every_block_runs(document, place):
    """In order, in one folder, with the names that earlier Python of the document defined."""
    names: dict[str, object] = {"__name__": document.stem}
    for block in blocks(document):
        where = f"{named(document)}:{block.line}"
        if block.why_not:
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


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_what_is_not_run_is_at_least_there(document):
    makefile = (ROOT / "Makefile").read_text()
    for block in blocks(document):
        where = f"{named(document)}:{block.line}"
        assert block.language in LANGUAGES, where
        for command in commands_in(block) if block.language == "sh" else ():
            words = shlex.split(command)
            if words[0] == "sempic":
                assert words[1] in commands.COMMANDS or words[1].startswith("-"), where
            elif words[0] == "make":
                assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), where
            elif words[0] == "python" and words[1].endswith(".py"):
                script = (ROOT / words[1]).read_text() + (ROOT / "benchmarks/common.py").read_text()
                for option in (w for w in words if w.startswith("--")):
                    assert f'"{option}"' in script, f"{where}: {option}"
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


def test_a_broken_page_is_seen(tmp_path):
    config = (ROOT / "mkdocs.yml").read_text().split("\nnav:")[0]
    (tmp_path / "mkdocs.yml").write_text(config)
    for name in ("docs/hooks.py", "docs/stylesheets/extra.css"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "docs/index.md").write_text("# Whole\n")
    done = build_site(tmp_path, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    (tmp_path / "docs/index.md").write_text("# Broken\n\n[a page](that-is-not-there.md)\n")
    done = build_site(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "that-is-not-there.md" in done.stderr


def test_hints_work_for_who_has_the_source_only():
    """No release is on an index: `pip install sempic` would fetch whoever takes the name."""
    command = ["git", "grep", "-InE", "pip install (-[^ ]+ )*['\"]?sempic\\b", "--", ":!tests"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode > 1:
        pytest.skip("not a git checkout")
    # The FAQ's title is the command that does not work.
    assert [x for x in done.stdout.splitlines() if not x.startswith("docs/faq.md")] == []


def test_links_lead_somewhere():
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("vectors/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_a_decision_has_at_most_five_lines():
    """What was measured, and what was tried and not taken, is in docs/experiments."""
    groups = (ROOT / "docs/decisions.md").read_text().split("\n## ")[1:]
    decisions = [each for group in groups for each in group.split("\n### ")[1:]]
    assert len(decisions) > 50
    for decision in decisions:
        heading, *lines = decision.strip().splitlines()
        assert 1 <= len([line for line in lines if line]) <= 5, heading


def test_the_reference_says_what_sempic_itself_has():
    reference = (ROOT / "docs/reference/python.md").read_text()
    said = re.search(r"`sempic` itself has (.+?) and all errors\.", reference, re.DOTALL)[1]
    errors = {name for name, value in vars(errors_module).items() if isinstance(value, type)}
    assert set(re.findall(r"`(\w+)`", said)) == {*sempic.__all__} - errors - {"__version__"}


def test_quality_levels_in_the_readme_are_those_of_the_code():
    rows = re.findall(r"^\| \**(\d)\** \| 1/(\d), QP (\d+) \|", README, re.MULTILINE)
    said = {int(level): sempic.Quality(int(factor), int(qp)) for level, factor, qp in rows}
    assert said == sempic.QUALITY


def test_the_glossary_has_each_term_once_and_names_what_the_code_has():
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
def test_every_proof_that_is_named_exists(name):
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
