import numpy as np
import pytest
from conftest import needs_models

torch = pytest.importorskip("torch")

from streets import write_camvid  # noqa: E402

from sempic import cli  # noqa: E402
from sempic.labels import prior  # noqa: E402


@needs_models
def test_a_prior_trains_and_is_exported(tmp_path, capsys):
    data = write_camvid(tmp_path / "camvid", train=2, val=1)
    options = f"--data {data} --steps 1 --batch 1 --busy 20 --calm 10".split()
    for name, more in (("causal", []), ("informed", ["--coarse"])):
        argv = ["label-prior", "network", *options, "--out", str(tmp_path / name), *more]
        assert cli.main(["train", *argv]) == 0, capsys.readouterr().err
    with np.load(tmp_path / "prior-train.npz") as built:
        assert built["labels"].shape == built["predicted"].shape == (2, 256, 341)
    runs = ["--causal", str(tmp_path / "causal"), "--informed", str(tmp_path / "informed")]
    assert (
        cli.main(["train", "label-prior", "export", *runs, "--out", str(tmp_path / "p.npz")]) == 0
    )
    assert prior.load(tmp_path / "p.npz").classes == 12
    assert (
        cli.main(["train", "label-prior", "export", *runs[:2], "--informed", "no", "--out", "x"])
        == 2
    )
