import numpy as np
import pytest
import torch
from conftest import street
from PIL import Image

from sempic.training.data import taxonomy, views
from sempic.training.data.taxonomy import UNKNOWN
from sempic.training.data.views import Pictures, Views


def views_of(image, labels, **options):
    pictures = [Pictures("a", 1.0, [image], [labels])]
    return Views(pictures, taxonomy.load("camvid"), device=torch.device("cpu"), **options)


def column(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


@pytest.mark.parametrize(("box", "size"), [((3.2, 40.9), 20), ((10.0, 22.5), 32), ((0, 60), 60)])
def test_resampling_agrees_with_pillow(box, size):
    picture = street(60, 80)[0][..., 0].astype(np.float32)
    a, b = box
    expected = np.asarray(
        Image.fromarray(picture).resize((80, size), Image.Resampling.BICUBIC, box=(0, a, 80, b))
    )
    matrix = views.resampling(
        size, 60, first=column(0), start=column(a), step=column((b - a) / size),
        count=column(size), length=column(60),
    )  # fmt: skip
    found = (matrix[0] @ torch.from_numpy(picture)).numpy()
    assert np.abs(found - expected).max() < 0.05


def test_the_border_is_mirrored():
    matrix = views.resampling(
        8, 5, first=column(0), start=column(0), step=column(1.0), count=column(5), length=column(5)
    )
    assert torch.allclose(matrix[0].argmax(1), torch.tensor([0, 1, 2, 3, 4, 4, 3, 2]))


def test_blurring_and_coarsening_keep_the_mean():
    for matrix in (views.blurring(32, column(1.2))[0], views.coarsening(32, column(19))[0]):
        flat = matrix @ torch.full((32, 1), 0.7)
        assert torch.allclose(flat, torch.full((32, 1), 0.7), atol=1e-3)
        noise = torch.randn(32, 50, generator=torch.Generator().manual_seed(0))
        assert (matrix @ noise).std() < 0.9 * noise.std()


@pytest.mark.parametrize("heights", [(40, 50), (60, 60), (150, 200)])
def test_views_move_pictures_and_labels_alike(heights, monkeypatch):
    monkeypatch.setattr(views, "degrade", lambda image, rng: image)
    monkeypatch.setattr(Views, "_soften", lambda self, matrices, rng: matrices)
    labels = street(60, 80)[1]
    image = np.repeat(labels[..., None] * 20, 3, 2)
    source = views_of(image, labels, size=(64, 64), heights=heights)
    for step in range(4):
        x, known = source.draw(0, step, 6)
        inside = known != UNKNOWN
        near = (x[:, 0] * 255 - known.float() * 20).abs() <= 10
        assert near[inside].float().mean() > 0.7
        if heights[0] >= 150:
            assert inside.all()
        again = source.draw(0, step, 6)
        assert (again[0] == x).all()
        assert (again[1] == known).all()


def test_views_are_degraded_within_range():
    torch.manual_seed(0)
    image, labels = street(60, 80)
    source = views_of(image, labels, size=(32, 64), heights=(60, 90))
    x, _ = source.draw(0, 0, 32)
    assert x.shape == (32, 3, 32, 64)
    assert x.min() >= 0
    assert x.max() <= 1
    assert torch.isfinite(x).all()
    assert x.mean((1, 2, 3)).std() > 0.03  # other light
