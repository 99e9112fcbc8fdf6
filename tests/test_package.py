"""The package as a whole: its names, its files and what importing it loads."""

import ast
import email
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, loaded_after, needs_models

import sempic

PUBLIC = """
BitstreamError Coarse Codec CorruptStream ImageError InputError LabelMapError LimitExceeded
ModelError NotSempic OutputError PALETTES Palette QUALITY Quality RateError Scene SempicError
SempicWarning TruncatedStream UnsupportedChunk UnsupportedProfile UnsupportedVersion __version__
decode encode info objects pack unpack
"""
PUBLIC_NAMES = set(PUBLIC.split())


def test_the_public_names_are_these():
    assert len(sempic.__all__) == len(set(sempic.__all__))
    assert set(sempic.__all__) == PUBLIC_NAMES
    assert all(hasattr(sempic, name) for name in PUBLIC_NAMES)


def test_every_error_is_a_sempic_error():
    errors = [getattr(sempic, n) for n in PUBLIC_NAMES if isinstance(getattr(sempic, n), type)]
    errors = [e for e in errors if issubclass(e, Exception) and not issubclass(e, Warning)]
    assert len(errors) == 15
    assert all(issubclass(e, sempic.SempicError) for e in errors)


def test_no_function_is_longer_than_80_lines():
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    lengths = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, functions)
    }
    assert len(lengths) > 1000
    assert {name: length for name, length in lengths.items() if length > 80} == {}


def test_the_old_name_is_gone():
    """The old name is another package on PyPI and a slur. SPIC is the paper's method."""
    allowed = (":!CHANGELOG.md", ":!LICENSE", ":!tests/test_package.py")
    command = ["git", "grep", "-Iin", "spic", "--", *allowed]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode > 1:
        pytest.skip("not a git checkout")
    paper = re.compile(  # or base64 of a notebook's picture, which may have any four letters
        r"SPIC paper|Pezone.*SPIC|SPIC[^a-z]*\(Pezone|\"image/(png|jpeg)\": "
    )
    assert not [line for line in done.stdout.splitlines() if not paper.search(line)]


def test_every_checkout_has_the_same_bytes():
    """With other line ends, as Git for Windows makes them, shipped machine code is not found."""
    command = ["git", "check-attr", "text", "--", "src/sempic/simplify.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    assert done.stdout.endswith("text: unset\n")


def test_the_package_is_typed():
    assert (Path(sempic.__file__).parent / "py.typed").exists()


def built(kind: str, folder: Path) -> Path:
    """The "wheel" or "sdist", built into a folder."""
    for name in ("hatchling", "hatch_fancy_pypi_readme"):
        pytest.importorskip(name, reason=f"{name} is not installed (extra `test`)")
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (archive,) = folder.iterdir()
    return archive


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    with zipfile.ZipFile(built("wheel", tmp_path_factory.mktemp("wheel"))) as archive:
        yield archive


def test_the_wheel_has_the_files_for_coding_but_no_judge(wheel):
    files = {
        Path(name).relative_to("sempic") for name in wheel.namelist() if "dist-info" not in name
    }
    assert Path("models/judge.onnx") not in files  # ten megabytes, for evaluation only
    for name in ("segmenter", "receiver", "verifier"):
        assert {Path(f"models/{name}.onnx"), Path(f"models/{name}.md")} <= files
    assert [file for file in files if file.suffix == ".machine"]
    assert {Path("labels/weights/camvid3.npz"), Path("server/page.html"), Path("py.typed")} <= files
    assert {Path("server/scenes/street.jpg"), Path("server/scenes/CREDITS.md")} <= files


def test_the_wheel_names_its_licences(wheel):
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
    assert metadata["License-Expression"].startswith("Apache-2.0 AND")
    assert "weights-research-only" in metadata["License-Expression"]
    assert {"LICENSE", "LICENSE-WEIGHTS"} <= set(metadata.get_all("License-File"))
    assert "Programming Language :: Python :: 3.12" in metadata.get_all("Classifier")
    readme = metadata.get_payload()
    assert readme.startswith("# sempic")
    assert "LICENSE-WEIGHTS" in readme.split("\n## ")[0]  # the first screen
    assert not re.findall(r"\]\((?!https?:)[^)]*\)", readme)  # no relative links


def test_the_terms_of_the_weights_name_all_weights():
    terms = (ROOT / "LICENSE-WEIGHTS").read_text()
    listed = re.findall(r"^    (\S+/\*\.\w+) +(.+)$", terms, re.MULTILINE)
    covered = {path for pattern, _ in listed for path in ROOT.glob(pattern)}
    assert all(list(ROOT.glob(pattern)) for pattern, _ in listed)
    kinds = ("src/**/*.onnx", "src/**/*.npz", "weights/**/*.onnx", "weights/**/*.npz")
    assert covered == {path for kind in kinds for path in ROOT.glob(kind)}
    for path in (ROOT / "src/sempic/models").glob("*.onnx"):
        assert path.stem in listed[0][1]
        assert f"`{path.stem}.md`" in (ROOT / "docs/license.md").read_text()


def test_the_source_distribution_has_what_its_documents_link_to(tmp_path):
    archive = built("sdist", tmp_path)
    with tarfile.open(archive) as tar:
        root = archive.name.removesuffix(".tar.gz")
        files = {Path(name).relative_to(root).as_posix() for name in tar.getnames()}
    for document in ("README.md", "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text()):
            assert any(f"{file}/".startswith(f"{link}/") for file in files), link


def test_import_loads_no_network_and_no_codec():
    loaded = loaded_after("import sempic, sempic.cli")
    assert not loaded & {"torch", "onnxruntime", "numba", "av", "PIL", "tqdm", "transformers"}


def test_info_loads_no_codec():
    loaded = loaded_after(
        "import sempic\nfrom sempic.container import *\n"
        "sempic.info(write(Container(width=9, height=9, palette=1, labels=b'x')))"
    )
    assert not loaded & {"torch", "onnxruntime", "numba", "av", "PIL"}


def test_unpack_loads_no_network():
    loaded = loaded_after(
        "import sempic, numpy as np\n"
        "sempic.unpack(sempic.pack(width=9, height=9, labels=np.zeros((9, 9), np.uint8)))"
    )
    assert not loaded & {"torch", "onnxruntime", "transformers"}


@needs_models
def test_the_bundled_models_run_without_torch():
    loaded = loaded_after(
        "import sempic, PIL.Image\n"
        "sempic.decode(sempic.encode(PIL.Image.new('RGB', (40, 30), 'grey')), steps=1)"
    )
    assert "onnxruntime" in loaded
    assert not loaded & {"torch", "transformers", "onnx"}
