import pytest
import torch

from sempic.errors import ModelError
from sempic.training.device import autocast, set_up
from sempic.training.options import RunOptions


def test_an_unknown_device_is_named(tmp_path):
    with pytest.raises(ModelError, match="--device abacus: PyTorch knows no such device"):
        set_up(RunOptions(out=tmp_path, steps=1, device="abacus"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_named(tmp_path):
    with pytest.raises(ModelError, match="--device cuda: there is no GPU that PyTorch can use"):
        set_up(RunOptions(out=tmp_path, steps=1, device="cuda"))


@pytest.mark.parametrize("device", ["meta", "mps:99", "xla"])
def test_an_unusable_device_is_named(tmp_path, device):
    with pytest.raises(ModelError, match=f"--device {device}: ") as refused:
        set_up(RunOptions(out=tmp_path, steps=1, device=device))
    assert len(str(refused.value)) < 80


@pytest.mark.parametrize("has", [True, False])
def test_a_processor_without_bfloat16_computes_in_float32(has, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has)
    layer = torch.nn.Linear(2, 2)
    with autocast(torch.device("cpu")):
        assert layer(torch.zeros(1, 2)).dtype == (torch.bfloat16 if has else torch.float32)
