import io

import numpy as np
import pytest
import torch
from conftest import street
from PIL import Image

from sempic.training.data.degrade import jpeg


def test_jpeg_is_close_to_pillows():
    image = street(64, 96)[0]
    for quality in (30, 80):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        expected = np.asarray(Image.open(buffer)).astype(float)
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        found = jpeg(x, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy() * 255
        lost = np.abs(expected - image).mean()
        assert np.abs(found - expected).mean() < 0.4 * lost
        assert np.abs(found - image).mean() == pytest.approx(lost, rel=0.2)
