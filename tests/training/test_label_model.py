import os

import numpy as np
import pytest
from streets import train

from sempic import palette
from sempic.errors import ModelError
from sempic.labels import payload, prior
from sempic.networks.label_prior import LabelPriorNet
from sempic.networks.weights import save_tensors
from sempic.training import label_model
from sempic.training.recipes import label_prior

BUNDLED = payload.WEIGHTS[4]


def test_the_class_file_is_not_overwritten(tmp_path, capsys):
    classes = tmp_path / "toys.json"
    classes.write_text('{"name": "prior-toys", "classes": [{"name": "ball"}]}')
    os.link(classes, tmp_path / "toys.npz")
    out = tmp_path / "toys.npz"
    words = ("--data", tmp_path, "--networks", BUNDLED, "--out", out, "--classes", classes)
    assert train("label-prior", "tables", *words) == 2
    assert "toys.json: would be replaced" in capsys.readouterr().err


def things(folder, name):
    """A file of twenty classes, with void: as many as Cityscapes'."""
    listed = ", ".join(f'{{"name": "{name} {i}"}}' for i in range(palette.CITYSCAPES.known))
    path = folder / f"{name}.json"
    path.write_text(f'{{"name": "{name}", "classes": [{listed}]}}')
    return path


def run_of(folder, name):
    coarse = folder.name == "informed"
    net = LabelPriorNet(20, coarse)
    about = {"classes": 20, "palette": name, "coarse": coarse}
    save_tensors(net.state_dict(), net.kind, about, folder / "label-prior.safetensors")
    return folder


def test_as_many_other_classes_are_refused(tmp_path, capsys):
    here, others = (palette.find(str(things(tmp_path, name))).full_name for name in ("a", "b"))
    for name in ("causal", "informed"):
        (tmp_path / name).mkdir()
    runs = ("--causal", run_of(tmp_path / "causal", here), "--informed", tmp_path / "informed")
    networks = tmp_path / "networks.npz"
    run_of(tmp_path / "informed", others)
    assert train("label-prior", "export", *runs, "--out", networks) == 2
    assert "informed are for different classes" in capsys.readouterr().err
    run_of(tmp_path / "informed", here)
    assert train("label-prior", "export", *runs, "--out", networks) == 0
    assert prior.load(networks).palette == here
    words = ("--data", tmp_path, "--out", tmp_path / "x.npz", "--classes", tmp_path / "b.json")
    weights = tmp_path / "causal/label-prior.safetensors"
    for known, path in ((here, networks), ("cityscapes", BUNDLED)):
        assert train("label-prior", "tables", *words, "--networks", path) == 2
        assert f"{path} is for the classes of {known}, not of {others}" in capsys.readouterr().err
    for known, path in ((here, weights), ("cityscapes", BUNDLED)):
        with pytest.raises(ModelError, match=f"is for the classes of {known}, not of {others}"):
            label_prior._begin(LabelPriorNet(20, False), path, palette.named("b"))
    label_prior._begin(LabelPriorNet(20, False), weights, palette.named("a"))


def test_weights_restored_from_a_label_model_export_to_the_same_integers(tmp_path):
    found = label_model.restored(prior.load(BUNDLED))
    net = LabelPriorNet(20, True)
    missing = net.load_state_dict(found, strict=False)
    assert not missing.unexpected_keys
    assert {key.split(".")[0] for key in missing.missing_keys} == {"trunk", "mix", "aux"}
    state = net.state_dict()
    label_model.export(state, state, None, tmp_path / "again.npz")
    with np.load(tmp_path / "again.npz") as written, np.load(BUNDLED) as file:
        for name, array in written.items():
            if name.startswith(("causal.", "layer")) and name in file:
                np.testing.assert_allclose(array, file[name], atol=1, rtol=1e-6, err_msg=name)
