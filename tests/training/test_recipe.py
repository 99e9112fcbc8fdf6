"""What the loop does for every recipe, beside `test_trainer`."""

import math

import pytest
import torch
from test_trainer import Line, options, trained

from sempic import files
from sempic.errors import ModelError, OutputError
from sempic.training.recipe import OwnRecipe
from sempic.training.trainer import train


def test_a_loss_of_nan_keeps_the_last_weights(tmp_path):
    """Also if a validation is due before the next line of the log."""

    class Explodes(Line):
        def step(self, number):
            figures = super().step(number)
            return {"loss": torch.tensor(math.nan)} if number == 2 else figures

    with pytest.raises(ModelError, match="step 3: loss is nan"):
        trained(tmp_path, Explodes, steps=9, log_every=9, check_every=3, save_minutes=5.0)
    assert not (tmp_path / "line.safetensors").exists()


class Unread(OwnRecipe):
    def __init__(self, *_):
        raise AssertionError("the data are read")


def test_a_folder_that_cannot_be_written_is_named_before_the_first_step(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda *_: False)
        with pytest.raises(OutputError, match="not a writable folder"):
            Unread.run(options(tmp_path, steps=1))
    (tmp_path / "file").write_text("dear")
    with pytest.raises(OutputError, match="file: not a writable folder"):
        Unread.run(options(tmp_path / "run", steps=1, export_dir=tmp_path / "file"))
    with pytest.raises(OutputError, match="float16 would replace its weights"):
        Unread.run(options(tmp_path, steps=1, export_dir=tmp_path / "x/.."))
    for folders in ({"out": tmp_path / "x.png"}, {"export_dir": tmp_path / "x.png"}):
        with pytest.raises(OutputError, match=r"x\.png: a folder under the name of a file"):
            Unread.run(options(**{"out": tmp_path, "steps": 1, **folders}))
    pytest.importorskip("fcntl")
    recipe = Line(options(tmp_path, steps=1))
    with files.locked(tmp_path), pytest.raises(OutputError, match="another run writes it now"):
        train(recipe, recipe.options)
    assert not recipe.rates


@pytest.mark.parametrize("place", ["out", "export_dir"])
@pytest.mark.parametrize("name", ["line", "other", "line-1-of-2"])
def test_a_run_does_not_replace_the_weights_that_it_begins_with(tmp_path, place, name):
    """Or the same command could not go on with it: its --init would have another content."""
    folders = {"out": tmp_path / "a", "export_dir": tmp_path / "b"}
    begin = folders[place] / f"{name}.safetensors"
    begin.parent.mkdir()
    begin.write_bytes(b"weights")
    recipe = Line(options(**folders, init=begin, steps=1))
    with pytest.raises(OutputError, match=f"{name}.safetensors: would be replaced, and it is read"):
        train(recipe, recipe.options)
    assert begin.read_bytes() == b"weights"
    begin = begin.rename(begin.with_name("mine.safetensors"))
    trained(**folders, init=begin, steps=1)
    assert begin.read_bytes() == b"weights"
