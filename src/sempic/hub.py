"""Folders of models with a manifest: the two networks, optionally a verifier and a prior of the
label coder, a model card, and the hash of each file.

    sempic.json      {"version": 1, "segmenter": FILE, "receiver": FILE, ["verifier": FILE,]
                     ["prior": FILE,] "files": {FILE: {"bytes": …, "sha256": …}, …}}
    FILE.onnx …     the networks
    FILE.npz        the prior
    FILE.md         the card of each network, if it has one
    README.md       a model card, with these cards

`read` rejects files that differ from sempic.json, which detects damage and mix-ups. Against an
attacker who can change sempic.json, pass its SHA-256, which `write` returns, to `read`.
Only `download` and `upload` use the network (extra `hub`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from sempic import files, models
from sempic.errors import ModelError, install_hint, refused
from sempic.places import need_folder

MANIFEST = "sempic.json"
CARD = "README.md"
PREFIX = "hf:"
"""Prefix of repositories on the Hugging Face hub."""
PRIOR = "prior"
_ROLES = {
    models.SEGMENTER: "segmenter.onnx",
    models.RECEIVER: "receiver.onnx",
    models.VERIFIER: "verifier.onnx",
    PRIOR: "prior.npz",
}
"""Role → name of the file that `write` makes."""
_REQUIRED = (models.SEGMENTER, models.RECEIVER)
_MAX_MANIFEST = 1 << 16
_FILE_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
"""A name of a file in the folder, not a path out of the folder."""


def read(folder: Path, *, sha256: str | None = None) -> dict[str, Path]:
    """The verified models in a folder: {"segmenter": path, "receiver": path}, and "verifier" and
    "prior" if they are there.

    Args:
        sha256: expected hash of sempic.json, in hexadecimal; None: any.

    Raises:
        ModelError: no such folder, a missing or wrong manifest, or a file that differs from it.
    """
    if not folder.is_dir():
        raise ModelError(
            f"{folder}: no such folder; the name of a repository on the Hugging Face hub is "
            f"{PREFIX}OWNER/NAME"
        )
    manifest = _manifest(folder / MANIFEST, sha256)
    for name, expected in manifest["files"].items():
        if _measure(_contents(folder / name)) != expected:
            raise ModelError(f"{folder / name}: not the file that {MANIFEST} describes")
    return {role: folder / manifest[role] for role in _ROLES if role in manifest}


def write(folder: Path, paths: dict[str, Path]) -> str:
    """Copy models, by role as from `read`, into a folder with a card and a manifest.

    Returns the SHA-256 of sempic.json. Raises ModelError (a file cannot be read) or OutputError.
    """
    contents = {_ROLES[role]: _contents(path) for role, path in paths.items()}
    listed = {name: _measure(data) for name, data in contents.items()}
    cards = {Path(_ROLES[role]).stem: path.with_suffix(".md") for role, path in paths.items()}
    texts = {f"{name}.md": _contents(card) for name, card in cards.items() if card.is_file()}
    contents[CARD] = _card(listed, [data.decode("utf-8", "replace") for data in texts.values()])
    contents |= texts  # the next `write` of this folder's models finds them
    listed = {name: _measure(data) for name, data in contents.items()}
    manifest = {"version": 1} | {role: _ROLES[role] for role in paths} | {"files": listed}
    contents[MANIFEST] = (json.dumps(manifest, indent=1) + "\n").encode()
    need_folder(folder)
    files.make_folder(folder)
    with contextlib.ExitStack() as stack:  # old files stay until all new files are on disk
        # What is entered first, the manifest, is placed last: `read` rejects a half-written folder.
        for name, data in reversed(contents.items()):
            stack.enter_context(files.replacing(folder / name, data))
    return hashlib.sha256(contents[MANIFEST]).hexdigest()


def download(name: str, *, revision: str | None = None) -> Path:
    """Download the files of a repository OWNER/NAME; returns the folder, for `read` to verify.

    Raises ModelError: huggingface_hub is missing, or a file cannot be downloaded.
    """
    hub = _hub()

    def fetch(file: str) -> Path:
        # The hub's errors have no common base class.
        with refused(ModelError, f"{PREFIX}{name}: cannot fetch {file}", Exception):
            return Path(hub.hf_hub_download(name, file, revision=revision, library_name="sempic"))

    path = fetch(MANIFEST)
    for file in _manifest(path, None)["files"]:
        fetch(file)
    return path.parent


def upload(folder: Path, name: str, *, private: bool) -> str:
    """Upload a folder of `write` to the repository OWNER/NAME; returns the URL of the commit.

    Raises ModelError: huggingface_hub is missing, or the hub refuses.
    """
    api = _hub().HfApi(library_name="sempic")
    with refused(ModelError, f"{PREFIX}{name}: cannot upload", Exception):
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name, folder_path=folder, commit_message="Models of sempic"
        )
    return str(commit.commit_url)


def _hub() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        hint = install_hint("hub")
        raise ModelError(f"the Hugging Face hub needs huggingface_hub; {hint}") from error
    return huggingface_hub


def _manifest(path: Path, sha256: str | None) -> dict[str, Any]:
    with refused(ModelError, f"{path}: cannot read the manifest"):
        if path.stat().st_size > _MAX_MANIFEST:
            raise ModelError(f"{path}: too large to be a manifest")
        data = path.read_bytes()
    if sha256 is not None and hashlib.sha256(data).hexdigest() != str(sha256).lower():
        raise ModelError(f"{path}: its SHA-256 is not the expected {sha256}")
    try:
        manifest = json.loads(data)
        files, version = manifest["files"], manifest["version"]
        roles = {*_REQUIRED, *(_ROLES.keys() & manifest.keys())}
        sound = (
            isinstance(files, dict)
            and all(_FILE_NAME.fullmatch(name) for name in files)
            and all(manifest[role] in files for role in roles)
        )
    except (ValueError, KeyError, TypeError, RecursionError) as cause:
        raise ModelError(f"{path}: not a manifest of sempic") from cause
    if version != 1 or not sound:
        raise ModelError(f"{path}: a manifest that this version of sempic does not know")
    return dict(manifest)


def _contents(path: Path) -> bytes:
    with refused(ModelError, f"{path}: cannot read"):
        return path.read_bytes()


def _measure(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _card(files: dict[str, dict[str, Any]], cards: list[str]) -> bytes:
    rows = "\n".join(f"| {n} | {f['bytes']} | `{f['sha256']}` |" for n, f in files.items())
    parts = [_CARD.format(rows=rows), *cards]
    return ("\n\n".join(part.strip() for part in parts) + "\n").encode()


_CARD = """
---
library_name: sempic
license: other
tags: [image-compression, image-segmentation, diffusion, onnx]
---

# Models of sempic, a semantic image codec

The segmenter makes a label map of a picture. The receiver paints a picture from the label map and
a coarse copy of a quarter of the size.

```python
import sempic

codec = sempic.Codec.from_pretrained("hf:OWNER/NAME")
stream = codec.encode(image)
picture = codec.decode(stream)
```

| file | bytes | SHA-256 |
|---|---|---|
{rows}

The receiver invents detail, which is likely but not observed: a decoded picture is no evidence. The
terms of use follow from the training data of each network; the cards below state them.
"""
