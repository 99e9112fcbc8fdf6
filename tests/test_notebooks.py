"""The notebooks run from top to bottom, and are stored with their outputs."""

import ast
import json
import shutil

import pytest
from conftest import ROOT, needs_models

import sempic

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NEEDS = {
    "encode-decode": ["matplotlib"],
    "train-on-your-own-data": ["matplotlib", "torch", "onnx"],
    "read-a-report": ["matplotlib", "torch", "torchmetrics", "bjontegaard"],
}


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == NEEDS.keys()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept_and_small(path):
    """Readers see the outputs of `make figures` without running anything."""
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert any({"image/png", "image/jpeg"} & {*output.get("data", {})} for output in outputs)
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert path.stat().st_size < 600_000


def test_the_figures_about_the_street_match_its_file():
    notebook = json.loads((ROOT / "notebooks/encode-decode.ipynb").read_text())
    (first, *_) = (cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    said = ast.literal_eval("".join(first[-1]["data"]["text/plain"]))
    assert said == sempic.info((ROOT / "examples/street.sempic").read_bytes())


def shorten(notebook):
    """Readers wait for 150 steps of training, which then shows; the tests need to see it run."""
    for cell in notebook.cells:
        cell.source = cell.source.replace("--steps 150 ", "--steps 2 ")


@needs_models
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")  # Jupyter's own
def test_every_notebook_runs(path, tmp_path, monkeypatch):
    for name in ("nbclient", "ipykernel", *NEEDS[path.stem]):
        pytest.importorskip(name, reason=f"{name} is not installed (extra `notebooks`)")
    import nbclient
    import nbformat

    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples/street.sempic", tmp_path / "examples")
    notebook = nbformat.read(path, as_version=4)
    shorten(notebook)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path / "notebooks")}}
    )
    client.execute()  # raises CellExecutionError with the traceback of the cell
    assert any(cell.get("outputs") for cell in notebook.cells)
