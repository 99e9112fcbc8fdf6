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
    kept = sorted(tmp_path.glob("prior-*.npz"))
    assert len(kept) == 2  # of both runs: one to learn from, one to be judged by
    built = [dict(np.load(path)) for path in kept]
    assert sorted(len(part["labels"]) for part in built) == [1, 2]
    assert all(part["labels"].shape == part["predicted"].shape for part in built)
    assert built[0]["labels"].shape[1:] == (256, 341)
    (data / "val/0.png").write_bytes((data / "train/1.png").read_bytes())
    again = ["label-prior", "network", *options, "--out", str(tmp_path / "again")]
    assert cli.main(["train", *again]) == 0
    assert len(list(tmp_path.glob("prior-*.npz"))) == 3  # other files, other pictures
    runs = ["--causal", str(tmp_path / "causal"), "--informed", str(tmp_path / "informed")]
    assert (
        cli.main(["train", "label-prior", "export", *runs, "--out", str(tmp_path / "p.npz")]) == 0
    )
    assert prior.load(tmp_path / "p.npz").classes == 12
    assert (
        cli.main(["train", "label-prior", "export", *runs[:2], "--informed", "no", "--out", "x"])
        == 2
    )
