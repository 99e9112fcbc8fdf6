import os

import numpy as np
from streets import train

from sempic.labels import payload, prior
from sempic.networks.label_prior import LabelPriorNet
from sempic.training import label_model

BUNDLED = payload.WEIGHTS[4]


def test_the_class_file_is_not_overwritten(tmp_path, capsys):
    classes = tmp_path / "toys.json"
    classes.write_text('{"name": "prior-toys", "classes": [{"name": "ball"}]}')
    os.link(classes, tmp_path / "toys.npz")
    out = tmp_path / "toys.npz"
    words = ("--data", tmp_path, "--networks", BUNDLED, "--out", out, "--classes", classes)
    assert train("label-prior", "tables", *words) == 2
    assert "toys.json: would be replaced" in capsys.readouterr().err


def test_weights_restored_from_a_label_model_export_to_the_same_integers(tmp_path):
    found = label_model.restored(prior.load(BUNDLED))
    net = LabelPriorNet(20, True)
    missing = net.load_state_dict(found, strict=False)
    assert not missing.unexpected_keys
    assert {key.split(".")[0] for key in missing.missing_keys} == {"trunk", "mix", "aux"}
    state = net.state_dict()
    label_model.export(state, state, tmp_path / "again.npz")
    with np.load(tmp_path / "again.npz") as written, np.load(BUNDLED) as file:
        for name, array in written.items():
            if name.startswith(("causal.", "layer")) and name in file:
                np.testing.assert_allclose(array, file[name], atol=1, rtol=1e-6, err_msg=name)
