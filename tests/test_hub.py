import errno
import json
import os
from pathlib import Path
from unittest.mock import create_autospec

import numpy as np
import pytest
from conftest import FakeReceiver, FakeSegmenter, needs_models, street
from priors import write_prior

import sempic
from sempic import check, hub
from sempic.labels import own
from sempic.palette import CAMVID

IMAGE, LABELS = street(48, 64)


@pytest.fixture
def networks(tmp_path):
    """A codec with two files in place of networks."""
    for name in ("mine", "yours"):
        (tmp_path / f"{name}.onnx").write_bytes(name.encode() * 100)
    (tmp_path / "mine.md").write_text("# Card of mine\n")
    return sempic.Codec(tmp_path / "mine.onnx", str(tmp_path / "yours.onnx"))


@pytest.fixture
def saved(networks, tmp_path):
    networks.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_saved_networks_are_found_again(networks, saved, tmp_path):
    found = hub.read(saved)
    assert found["segmenter"].read_bytes() == b"mine" * 100
    assert found["receiver"].read_bytes() == b"yours" * 100
    again = sempic.Codec.from_pretrained(saved).save_pretrained(tmp_path / "again")
    assert again == networks.save_pretrained(saved)  # with the cards
    card = (saved / "README.md").read_text()
    assert card.startswith("---\n")
    assert "Card of mine" in card
    assert (
        json.loads((saved / "sempic.json").read_text())["files"]["segmenter.onnx"]["bytes"] == 400
    )


def test_a_card_in_another_encoding_is_kept(networks, tmp_path):
    (tmp_path / "mine.md").write_bytes(b"Caf\xe9")
    networks.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "segmenter.md").read_bytes() == b"Caf\xe9"
    assert "Caf\ufffd" in (tmp_path / "saved" / "README.md").read_text()


def test_existing_models_stay_until_all_new_ones_are_on_disk(
    networks, saved, tmp_path, monkeypatch
):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    (tmp_path / "mine.onnx").write_bytes(b"other")
    left = iter(range(2))

    def full(_):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(sempic.OutputError, match=r"README.md: cannot write: No space left"):
        networks.save_pretrained(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


@pytest.mark.parametrize("name", ["segmenter.onnx", "receiver.onnx", "README.md"])
def test_a_tampered_file_is_refused(saved, name):
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(sempic.ModelError, match=f"{name}: not the file"):
        sempic.Codec.from_pretrained(saved)
    (saved / name).unlink()
    with pytest.raises(sempic.ModelError, match=f"{name}: cannot read"):
        sempic.Codec.from_pretrained(saved)


def test_a_rewritten_manifest_needs_the_pinned_hash(networks, tmp_path):
    digest = networks.save_pretrained(tmp_path / "a")
    sempic.Codec.from_pretrained(tmp_path / "a", sha256=digest.upper())
    (tmp_path / "mine.onnx").write_bytes(b"other")
    networks.save_pretrained(tmp_path / "a")
    sempic.Codec.from_pretrained(tmp_path / "a")
    with pytest.raises(sempic.ModelError, match="SHA-256"):
        sempic.Codec.from_pretrained(tmp_path / "a", sha256=digest)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(version=2),
        lambda m: m.pop("receiver"),
        lambda m: m.update(segmenter="elsewhere.onnx"),
        lambda m: m["files"].update({"../mine.onnx": {}}),
        lambda m: m["files"].update({"/etc/passwd": {}}),
        lambda m: m.update(files=3),
        lambda m: m.update(segmenter=[]),
    ],
)
def test_invalid_manifests_are_refused(saved, change):
    manifest = json.loads((saved / "sempic.json").read_text())
    change(manifest)
    (saved / "sempic.json").write_text(json.dumps(manifest))
    with pytest.raises(sempic.ModelError, match="manifest"):
        sempic.Codec.from_pretrained(saved)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 60000, " " * 70000])
def test_files_that_are_no_manifests_are_refused(saved, text):
    (saved / "sempic.json").write_text(text)
    with pytest.raises(sempic.ModelError, match="manifest"):
        sempic.Codec.from_pretrained(saved)


def test_invalid_sources_of_networks_are_refused(tmp_path):
    with pytest.raises(sempic.ModelError, match="hf:OWNER/NAME"):  # without any request
        sempic.Codec.from_pretrained("some/name")
    with pytest.raises(sempic.ModelError, match="manifest"):
        sempic.Codec.from_pretrained(tmp_path)
    with pytest.raises(sempic.InputError, match="revision"):
        sempic.Codec.from_pretrained(tmp_path, revision="v1")


def test_models_are_not_saved_into_a_folder_with_the_name_of_a_file(networks, tmp_path):
    with pytest.raises(sempic.OutputError, match=r"a\.onnx: a folder under the name of a file"):
        networks.save_pretrained(tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.parametrize("segmenter", [FakeSegmenter(), "hf:some/model"])
def test_only_networks_from_files_are_saved(segmenter, tmp_path):
    with pytest.raises(sempic.ModelError, match="segmenter"):
        sempic.Codec(segmenter, FakeReceiver()).save_pretrained(tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_checkpoints_are_not_saved_as_onnx(suffix, tmp_path):
    checkpoint = tmp_path / f"paper{suffix}"
    checkpoint.write_bytes(b"weights")
    with pytest.raises(sempic.ModelError, match=f"the receiver is .*{suffix}"):
        sempic.Codec(receiver=checkpoint).save_pretrained(tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.fixture
def cloud(monkeypatch, tmp_path):
    """A folder behind the signatures of huggingface_hub; nothing leaves the machine."""
    huggingface_hub = pytest.importorskip("huggingface_hub", reason="extra `hub` is missing")
    folder = tmp_path / "cloud"
    folder.mkdir()
    asked = []

    def fetch(repo, file, **_):
        asked.append((repo, file))
        if not (folder / file).exists():
            raise OSError("404 not found\nand more")
        return str(folder / file)

    def take(*, repo_id, folder_path, **_):
        for path in Path(folder_path).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        return type("Commit", (), {"commit_url": f"https://hub/{repo_id}"})

    api = create_autospec(huggingface_hub.HfApi)
    api.return_value.upload_folder.side_effect = take
    download = create_autospec(huggingface_hub.hf_hub_download, side_effect=fetch)
    monkeypatch.setattr(huggingface_hub, "HfApi", api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return type("Cloud", (), {"folder": folder, "asked": asked, "api": api.return_value})


def test_networks_survive_a_round_trip_through_the_hub(networks, cloud):
    assert networks.push_to_hub("me/mine") == "https://hub/me/mine"
    cloud.api.create_repo.assert_called_once_with("me/mine", private=True, exist_ok=True)
    (cloud.folder / "unlisted.bin").write_bytes(b"?")
    codec = sempic.Codec.from_pretrained("hf:me/mine", revision="v1")
    assert isinstance(codec, sempic.Codec)
    files = ["sempic.json", "segmenter.onnx", "receiver.onnx", "README.md", "segmenter.md"]
    assert cloud.asked == [("me/mine", file) for file in files]
    (cloud.folder / "receiver.onnx").write_bytes(b"worse")
    with pytest.raises(sempic.ModelError, match=r"receiver\.onnx: not the file"):
        sempic.Codec.from_pretrained("hf:me/mine")


def test_errors_of_the_hub_are_model_errors(networks, cloud):
    with pytest.raises(
        sempic.ModelError, match=r"hf:me/mine: cannot fetch sempic\.json: 404 not found$"
    ):
        sempic.Codec.from_pretrained("hf:me/mine")
    cloud.api.create_repo.side_effect = OSError("401")
    with pytest.raises(sempic.ModelError, match="cannot upload: 401"):
        networks.push_to_hub("me/mine")


def test_without_huggingface_hub_the_extra_is_named(networks, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(sempic.ModelError, match=r"needs huggingface_hub; .*\.\[hub\]"):
        sempic.Codec.from_pretrained("hf:me/mine")


@needs_models
def test_the_bundled_models_saved_and_read(tmp_path):
    sempic.Codec().save_pretrained(tmp_path)
    codec = sempic.Codec.from_pretrained(tmp_path)
    stream = codec.encode(IMAGE)
    assert stream == sempic.encode(IMAGE)
    assert np.array_equal(codec.decode(stream, steps=1), sempic.decode(stream, steps=1))


@pytest.fixture
def prior(tmp_path):
    return write_prior(tmp_path / "learned.npz", CAMVID, LABELS)


def test_a_prior_is_saved_and_read_with_the_networks(networks, prior, tmp_path):
    networks.save_pretrained(tmp_path / "a")
    found = hub.read(tmp_path / "a")
    assert found.keys() == {"segmenter", "receiver"}
    digest = sempic.Codec(**found, prior=prior).save_pretrained(tmp_path / "b")
    assert hub.read(tmp_path / "b")["prior"].read_bytes() == prior.read_bytes()
    codec = sempic.Codec.from_pretrained(tmp_path / "b", sha256=digest)
    assert codec.prior.digest == own.load(prior).digest
    assert codec.save_pretrained(tmp_path / "c") == digest
    sempic.Codec(**found).save_pretrained(tmp_path / "b")  # the file stays, unlisted
    assert sempic.Codec.from_pretrained(tmp_path / "b").prior is None


def test_a_verifier_is_saved_and_read_with_the_networks(networks, tmp_path):
    (tmp_path / "eyes.onnx").write_bytes(b"eyes")
    networks.save_pretrained(tmp_path / "a")
    found = hub.read(tmp_path / "a")
    assert "verifier" not in found
    sempic.Codec(**found, verifier=tmp_path / "eyes.onnx").save_pretrained(tmp_path / "b")
    assert hub.read(tmp_path / "b")["verifier"].read_bytes() == b"eyes"
    again = sempic.Codec.from_pretrained(tmp_path / "b").save_pretrained(tmp_path / "c")
    assert again == sempic.Codec.from_pretrained(tmp_path / "c").save_pretrained(tmp_path / "d")
    seen = check.Verifier(predict=lambda image: (LABELS, None), palette=CAMVID.id, digest="0" * 8)
    with pytest.raises(sempic.ModelError, match="the verifier is not a file"):
        sempic.Codec(**found, verifier=seen).save_pretrained(tmp_path / "e")


def test_invalid_priors_in_a_manifest_are_refused(networks, prior, tmp_path):
    found = {"segmenter": tmp_path / "mine.onnx", "receiver": tmp_path / "yours.onnx"}
    with pytest.raises(sempic.ModelError, match="the prior is not a file"):
        sempic.Codec(**found, prior=own.load(prior)).save_pretrained(tmp_path / "a")
    sempic.Codec(**found, prior=prior).save_pretrained(tmp_path / "a")
    manifest = json.loads((tmp_path / "a/sempic.json").read_text())
    (tmp_path / "a/prior.npz").write_bytes(b"another")
    with pytest.raises(sempic.ModelError, match=r"prior\.npz: not the file"):
        sempic.Codec.from_pretrained(tmp_path / "a")
    for name in ("elsewhere.npz", [], None):
        (tmp_path / "a/sempic.json").write_text(json.dumps(manifest | {"prior": name}))
        with pytest.raises(sempic.ModelError, match="manifest"):
            sempic.Codec.from_pretrained(tmp_path / "a")
