"""The jobs of a worker: bytes in, bytes out."""

import dataclasses
import io

import numpy as np
import PIL.Image
import pytest
from conftest import street
from fakecoder import FakeCoder
from priors import write_prior
from standin import LABELS, png, stream

import sempic
from sempic import container
from sempic.server import coder as server_coder


@pytest.mark.parametrize(("codec", "format"), [("avif", "AVIF"), ("jpeg", "JPEG")])
@pytest.mark.parametrize("budget", [900, 4000])
def test_another_codec_stays_within_the_budget(codec, format, budget):
    picture = street(128, 160)[0]
    data, factor = server_coder.best_within(picture, codec, budget)
    assert len(data) <= budget
    decoded = PIL.Image.open(io.BytesIO(data))
    assert decoded.format == format
    assert decoded.size == (160 // factor, 128 // factor)
    with pytest.raises(sempic.RateError, match="10 bytes"):
        server_coder.best_within(picture, codec, 10)


def test_a_larger_budget_gives_a_smaller_error():
    picture = street(128, 160)[0]

    def error(budget):
        data, _ = server_coder.best_within(picture, "jpeg", budget)
        back = PIL.Image.open(io.BytesIO(data)).resize((160, 128), PIL.Image.Resampling.BICUBIC)
        return np.mean((np.array(back, float) - picture) ** 2)

    assert error(6000) < error(1500) < error(700)


def test_relabel_keeps_the_coarse_picture():
    changed = LABELS.copy()
    changed[LABELS == 5] = 1
    before = stream()
    after = FakeCoder().relabel(before, png(changed))
    assert np.array_equal(sempic.unpack(after).labels, changed)
    assert sempic.info(after)["chunks"]["coarse"] == sempic.info(before)["chunks"]["coarse"]
    assert np.array_equal(sempic.unpack(after).coarse.y, sempic.unpack(before).coarse.y)
    assert FakeCoder().relabel(before, png(LABELS)) == before
    with pytest.raises(sempic.LabelMapError, match="32×48"):
        FakeCoder().relabel(before, png(changed[:, :32]))


def test_relabel_keeps_windows_and_drops_the_receipt():
    """A receipt describes the picture painted from the earlier map."""
    before = FakeCoder().encode(png(), keep_boxes=[(8, 8, 16, 8)], check=True)
    after = sempic.info(FakeCoder().relabel(before, png(np.full_like(LABELS, 3))))
    assert after["windows"] == sempic.info(before)["windows"] != []
    assert sempic.info(before)["receipt"]
    assert after["receipt"] is None


def test_relabel_keeps_a_custom_palette_that_the_server_does_not_know():
    parts = container.read(sempic.pack(width=64, height=48, labels=LABELS, palette=0, model=3))
    before = container.write(dataclasses.replace(parts, own="theirs#0badcafe"))
    after = FakeCoder().relabel(before, png(np.full_like(LABELS, 3)))
    scene = sempic.unpack(after)
    assert (scene.own, scene.model) == ("theirs#0badcafe", 3)
    assert (scene.labels == 3).all()


def test_a_servers_prior_codes_and_decodes_maps(tmp_path):
    path = write_prior(tmp_path / "mine.npz", sempic.PALETTES[1], LABELS)
    coder = FakeCoder(prior=str(path))
    mine = coder.relabel(stream(), png(LABELS))
    assert len(mine) < len(stream())
    for only, channel in (("ids", ...), (None, (..., 0))):
        data = coder.decode(mine, only=only, format="png", synthesis={})
        assert np.array_equal(np.array(PIL.Image.open(io.BytesIO(data)))[channel], LABELS)
    with pytest.raises(sempic.UnsupportedChunk, match="none is given"):
        FakeCoder().decode(mine, only="ids", format="png", synthesis={})


@pytest.mark.parametrize("name", ["doubled", "halved"])
def test_relabel_keeps_the_size_of_the_map(name):
    labels = LABELS[::2, ::2].repeat(2, 0).repeat(2, 1)
    before = sempic.pack(width=64, height=48, labels=labels, **{name: True})
    scene = sempic.unpack(FakeCoder().relabel(before, png(LABELS)))
    assert (scene.doubled, scene.halved) == (True, name == "halved")
    assert np.array_equal(scene.labels, labels)


def test_pixel_limits_count_the_coded_picture():
    coder = FakeCoder(max_pixels=48 * 64 - 1)
    with pytest.raises(sempic.LimitExceeded, match="max_side takes larger"):
        coder.encode(png(), max_side=None)
    with pytest.raises(sempic.LimitExceeded, match=r"limit of 383 pixels$"):  # for max_side, too
        FakeCoder(max_pixels=48 * 64 // 8 - 1).encode(png(), max_side=None)
    with pytest.raises(sempic.LimitExceeded, match="with max_side 64"):
        coder.encode(png(), max_side=64)
    assert sempic.info(coder.encode(png(), max_side=32))["width"] == 32
    with pytest.raises(sempic.LimitExceeded):
        coder.decode(stream(), only=None, format="png", synthesis={})
