"""The codecs of a benchmark: others and ours."""

import os
import sys

import numpy as np
import pytest
from conftest import FakeSegmenter, needs_models, street
from priors import write_prior

import sempic
from sempic import api
from sempic.errors import InputError, SempicError
from sempic.evaluation import codecs, metrics, weights
from sempic.options import Models
from sempic.palette import CITYSCAPES, PALETTES

OTHERS = [n for n in codecs.NAMES if not n.startswith(("sempic", "coarse"))]


def load_or_skip(name):
    try:
        return codecs.load(name, effort="fast")
    except SempicError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", OTHERS)
def test_finer_settings_cost_more_and_show_more(name):
    codec = load_or_skip(name)
    picture = street(71, 85)[0]
    at = len(codec.settings) // 4, 3 * len(codec.settings) // 4
    low, high = (codec.encode(picture, codec.settings[i]) for i in at)
    decoded = [codec.decode(stream, 85, 71) for stream in (low, high)]
    assert len(low) < len(high)
    assert all(d.shape == picture.shape and d.dtype == np.uint8 for d in decoded)
    assert 18 < metrics.psnr(picture, decoded[0]) < metrics.psnr(picture, decoded[1])
    assert metrics.psnr(picture, decoded[1]) > 26
    assert codec.version
    if hasattr(os, "sched_getscheduler"):  # SVT-AV1 can make its process real-time
        threads = [int(t) for t in os.listdir("/proc/self/task")] if sys.platform == "linux" else []
        assert {os.sched_getscheduler(t) for t in [0, *threads]} <= {os.SCHED_OTHER, os.SCHED_BATCH}


def test_an_encoder_that_refuses_a_size_is_named():
    with pytest.raises(InputError, match=r"HEVC \(x265\), bare stream cannot encode 16×10 pixels"):
        codecs.load("hevc").encode(street(9, 15)[0], 30)


def test_an_encoder_that_pyav_lacks_is_named_before_the_work():
    lacking = codecs.Video("AV1", range(9), "libnone", "libdav1d", {})
    with pytest.raises(InputError, match="no libnone, the encoder of AV1"):
        codecs.encodable(lacking)
    assert codecs.encodable(lacking, hevc := codecs.OF_CLIPS["hevc"][0]) is hevc


@pytest.mark.parametrize("name", codecs.NAMES)
def test_effort_is_part_of_the_version(name):
    load_or_skip(name)
    versions = [codecs.load(name, effort=effort).version for effort in codecs.EFFORTS]
    same = name in ("jpeg", "jpeg2000", "bpg", "bpg444", "sempic", "coarse", "coarse+esrgan")
    assert (versions[0] == versions[1]) == same


@pytest.mark.parametrize("name", ["bpg", "coarse", "hevc", "sempic"])
def test_our_sources_are_part_of_the_version(name, monkeypatch):
    codec, digest = load_or_skip(name), weights.digest
    before = codec.version
    monkeypatch.setattr(
        weights, "digest", lambda path: digest(path) + "x" * (path.name == "planes.py")
    )
    assert codec.version != before


@needs_models
@pytest.mark.parametrize("library", ["av", "onnxruntime"])
def test_our_libraries_are_part_of_the_version(library, monkeypatch):
    before = codecs.load("sempic").version
    monkeypatch.setattr(sys.modules[library], "__version__", "0")
    assert codecs.load("sempic").version != before


@needs_models
def test_a_segmenter_of_transformers_is_part_of_the_version():
    versions = {
        codecs.load("sempic", models=Models(segmenter=name)).version for name in ("hf:a", "hf:b")
    }
    assert len(versions) == 2


def test_the_code_of_a_codec_is_part_of_its_version():
    class Other(codecs.Bpg):
        def encode(self, picture, setting, labels=None):
            return super().encode(picture, setting + 1)

    assert codecs.load("bpg").version != Other(**vars(codecs.load("bpg"))).version


def test_weights_of_esrgan_are_part_of_the_version(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "sempic").mkdir()
    versions = set()
    for time in (1, 2):
        (tmp_path / "sempic/esrgan.safetensors").write_bytes(bytes([time]))
        os.utime(tmp_path / "sempic/esrgan.safetensors", (time, time))
        versions.add(codecs.load("coarse+esrgan").version)
    assert len(versions) == 2


def test_coarse_is_enlarged_without_a_shift():
    codec = codecs.load("coarse")
    ramp = np.tile(np.linspace(30, 220, 84).astype(np.uint8)[:, None], (60, 1, 3))
    decoded = codec.decode(codec.encode(ramp.reshape(60, 84, 3), 20), 84, 60)
    assert metrics.psnr(ramp.reshape(60, 84, 3), decoded) > 36


@pytest.mark.parametrize("name", ["vvc", "sempic@", "sempic@0", "sempic+labels", ""])
def test_unknown_codecs_are_refused(name):
    with pytest.raises(InputError, match="is not one of"):
        codecs.load(name)


@needs_models
def test_variants_of_ours_send_less_of_the_map():
    picture, labels = street(64, 96)
    sent = {}
    for name in ("sempic", "sempic+void", "sempic+none", "sempic@2+human"):
        codec = codecs.load(name)
        assert codec.needs_labels == name.endswith("human")
        stream = codec.encode(picture, 5, labels if codec.needs_labels else None)
        sent[name] = sempic.unpack(stream)
        assert codec.decode(stream, 96, 64).shape == picture.shape
    void = sent["sempic+void"]
    assert (void.labels == PALETTES[void.palette].void).all()
    assert sent["sempic+none"].labels is None
    assert (sent["sempic@2+human"].labels == labels).all()
    for name, scene in sent.items():  # finer without a map, and with one of half the size
        alike = (scene.coarse.y == void.coarse.y).all()
        assert alike == (name in ("sempic+void", "sempic@2+human"))


def test_human_labels_are_sent_in_their_own_palette(monkeypatch):
    monkeypatch.setattr(api.Codec, "segmenter", FakeSegmenter())
    picture, labels = street(64, 96)
    codec = codecs.load("sempic+human", palette=CITYSCAPES)
    scene = sempic.unpack(codec.encode(picture, 5, labels + 7))
    assert scene.palette == CITYSCAPES.id
    assert (scene.labels == labels + 7).all()
    assert codec.version != codecs.load("sempic+human").version


def test_a_prior_is_used_and_part_of_the_version(tmp_path, monkeypatch):
    monkeypatch.setattr(api.Codec, "segmenter", FakeSegmenter())
    picture, labels = street(64, 96)
    path = str(write_prior(tmp_path / "mine.npz", PALETTES[1], labels))
    plain = codecs.load("sempic+human")
    mine = codecs.load("sempic+human", models=Models(prior=path))
    assert plain.version != mine.version
    sizes = [sempic.info(c.encode(picture, 5, labels))["chunks"]["labels"] for c in (plain, mine)]
    assert sizes[0] > sizes[1]


def test_void_needs_a_palette_with_void(monkeypatch):
    monkeypatch.setattr(FakeSegmenter, "palette", 0)
    monkeypatch.setattr(api.Codec, "segmenter", FakeSegmenter())
    with pytest.raises(InputError, match="indices has no void"):
        codecs.load("sempic+void").encode(street()[0], 5)


def test_a_new_competitor_needs_only_an_entry(monkeypatch):
    style = codecs.Style("#123456", marker="plus")
    mine = codecs.Competitor(codecs.COMPETITORS["jpeg"].make, style, default=False)
    monkeypatch.setitem(codecs.COMPETITORS, "mine", mine)
    assert codecs.load("mine").title == "JPEG, progressive"
    assert codecs.style("mine") == style
