import errno
import os

import pytest
import torch
from safetensors.torch import save_file
from streets import TINY, trained

from sempic import files
from sempic.errors import ModelError, OutputError
from sempic.networks import weights


def test_weights_keep_their_configuration_and_other_files_are_named(tmp_path):
    network = trained()
    weights.save_network(network, tmp_path / "a.safetensors")
    loaded = weights.load_receiver(tmp_path / "a.safetensors")
    assert loaded.config == TINY
    (tmp_path / "other").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
    for a, b in zip(network.parameters(), loaded.parameters(), strict=True):
        assert (a == b).all()
    with pytest.raises(ModelError, match="not the weights of a segmenter, but of a compact"):
        weights.load_segmenter(tmp_path / "a.safetensors")
    with pytest.raises(
        ModelError, match="of a unet, but of a compact: `sempic train export` makes"
    ):
        weights.load_tensors(tmp_path / "a.safetensors", "unet")
    save_file({"x": torch.ones(1)}, tmp_path / "b.safetensors")
    with pytest.raises(ModelError, match=r"b\.safetensors: not the weights of a compact"):
        weights.load_receiver(tmp_path / "b.safetensors")
    weights.save_tensors(network.state_dict(), "compact", {"width": 3}, tmp_path / "b.safetensors")
    with pytest.raises(ModelError, match=r"b\.safetensors: its CompactConfig cannot be read"):
        weights.load_receiver(tmp_path / "b.safetensors")
    (tmp_path / "c.onnx").touch()
    with pytest.raises(ModelError, match=r"c\.onnx: not safetensors: `sempic train restore` makes"):
        weights.load_network(tmp_path / "c.onnx")
    (tmp_path / "c.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"c\.safetensors: not safetensors"):
        weights.load_receiver(tmp_path / "c.safetensors")
    for absent, why in (
        ("absent.safetensors", "No such file or directory"),
        ("", "Is a directory"),
    ):
        with pytest.raises(ModelError) as failed:
            weights.load_receiver(tmp_path / absent)
        assert str(failed.value) == f"{tmp_path / absent}: cannot read: {why}"
    with pytest.raises(OutputError, match=r"photo\.png: the name of weights"):
        weights.save_network(network, tmp_path / "photo.png")
    with pytest.raises(OutputError, match="cannot be written"):
        weights.save_network(network, tmp_path / "none/a.safetensors")


def test_a_mounted_file_is_overwritten(tmp_path, monkeypatch):
    weights.save_network(trained(), path := tmp_path / "a.safetensors")

    def busy(*_):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(files, "_mounted", lambda path: True)
    weights.save_tensors({"x": torch.ones(1)}, "compact", {"a": 1}, path)
    assert weights.load_tensors(path, "compact")[1] == {"a": 1}
    assert os.listdir(tmp_path) == [path.name]


def test_shards_stay_below_the_limit_and_load_as_one(tmp_path):
    state = {f"w{i}": torch.randn(100, 100) for i in range(12)}  # 20 kB each in float16
    limit = (1 << 16) + 70_000
    weights.save_shards(state, "compact", {"a": 1}, tmp_path / "x.safetensors", limit)
    names = sorted(tmp_path.iterdir())
    assert [n.name for n in names] == [f"x-{i}-of-4.safetensors" for i in (1, 2, 3, 4)]
    assert all(n.stat().st_size <= limit for n in names)
    found, about = weights.load_tensors(names[0], "compact")
    assert about == {"a": 1}
    for key, value in state.items():
        torch.testing.assert_close(found[key].float(), value, rtol=1e-3, atol=1e-4)
    names[2].unlink()
    with pytest.raises(ModelError, match="x-3-of-4"):
        weights.load_tensors(names[0], "compact")


@pytest.mark.parametrize(
    "changes",
    [{"classes": "a"}, {"classes": 3.5}, {"classes": None}, {"classes": -9}, {"widths": []},
     {"widths": 5}, {"palette": "cityscapes"}],
)  # fmt: skip
def test_an_impossible_configuration_is_named(tmp_path, changes):
    network = trained()
    about = weights.about(network) | changes
    weights.save_tensors(network.state_dict(), "compact", about, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match=r"a\.safetensors"):
        weights.load_receiver(tmp_path / "a.safetensors")


def test_weights_of_nan_are_refused(tmp_path):
    state = trained().state_dict()
    state["stem.weight"][0] = float("nan")
    about = weights.about(trained())
    weights.save_tensors(state, "compact", about, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match=r"a\.safetensors .*stem\.weight holds what is no number"):
        weights.load_receiver(tmp_path / "a.safetensors")


def test_a_damaged_segmenter_is_named(tmp_path):
    weights.save_tensors({}, "segmenter", {"depth": 3}, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match=r"a\.safetensors: its SegmenterConfig cannot be read"):
        weights.load_network(tmp_path / "a.safetensors")
