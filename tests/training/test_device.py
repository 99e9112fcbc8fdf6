import pytest

from sempic.errors import ModelError
from sempic.training.device import set_up
from sempic.training.options import RunOptions


def test_an_unknown_device_is_named(tmp_path):
    with pytest.raises(ModelError, match="--device abacus: PyTorch knows no such device"):
        set_up(RunOptions(out=tmp_path, steps=1, device="abacus"))


@pytest.mark.parametrize("device", ["meta", "mps:99", "xla"])
def test_an_unusable_device_is_named(tmp_path, device):
    with pytest.raises(ModelError, match=f"--device {device}: "):
        set_up(RunOptions(out=tmp_path, steps=1, device=device))
