"""Files of weights: safetensors with the network's configuration in the metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sempic import files
from sempic.errors import JSON_FAULTS, ModelError, OutputError, naming, refused
from sempic.networks.compact import CompactConfig, CompactNet
from sempic.networks.segmenter import SegmentationNet, SegmenterConfig
from sempic.palette import described, from_description

Network = TypeVar("Network", bound=nn.Module)
_Ours = TypeVar("_Ours", CompactNet, SegmentationNet)
Config = TypeVar("Config")


def save_tensors(
    state: Mapping[str, Tensor], kind: str, metadata: Mapping[str, Any], path: Path
) -> None:
    """Write tensors, whole or not at all, with the JSON values `metadata` as `sempic.KIND`.

    Raises OutputError, also unless `path` ends in `.safetensors`.
    """
    files.need_suffix(path, ".safetensors", "weights")
    with (
        refused(OutputError, f"{path}: cannot be written", SafetensorError, unfit=True),
        files.making(path) as part,
    ):
        mode = part.stat().st_mode  # as of other files; safetensors' are for their owner alone
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in state.items()},
            part,
            {f"sempic.{kind}": json.dumps(metadata)},
        )
        with suppress(PermissionError):  # on file systems without permissions
            part.chmod(mode)


def load_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of `save_tensors`; for the first shard, `…-1-of-N.safetensors`, of all
    shards. Raises ModelError if the file is not safetensors or of another kind."""
    with _reading(path):
        described = _read_metadata(path)
        metadata = described.get(f"sempic.{kind}")
        if metadata is None:
            kinds = [k.removeprefix("sempic.") for k in described if k.startswith("sempic.")]
            other = f", but of a {kinds[0]}" if kinds else ""
            if (kind, kinds) == ("unet", [CompactNet.kind]):
                other += ": `sempic train export` makes the ONNX file that decodes"
            raise ModelError(f"{path}: not the weights of a {kind}{other}")
        state = {k: v for shard in _shards(path) for k, v in load_file(shard).items()}
        return state, dict(json.loads(metadata))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    with refused(ModelError, f"{path}: cannot read"):  # safetensors' error names the file again
        path.open("rb").close()
    if path.suffix.lower() == ".onnx":
        raise ModelError(f"{path}: not safetensors: `sempic train restore` makes them of it")
    causes = *JSON_FAULTS, SafetensorError, TypeError
    with refused(ModelError, f"{path}: not safetensors of ours", *causes, unfit=True):
        yield


def _read_metadata(path: Path) -> dict[str, str]:
    with _reading(path), safe_open(path, "pt") as file:
        return file.metadata() or {}


def _shards(path: Path) -> list[Path]:
    stem, _, count = path.stem.rpartition("-of-")
    if not stem.endswith("-1") or not count.isdecimal():
        return [path]
    return [
        path.with_name(f"{stem[:-1]}{number}-of-{count}{path.suffix}")
        for number in range(1, int(count) + 1)
    ]


def save_shards(
    state: Mapping[str, Tensor], kind: str, metadata: Mapping[str, Any], path: Path, limit: int
) -> None:
    """Write tensors as float16 into files of at most `limit` bytes; `load_tensors` takes the first
    file. Raises OutputError."""
    shards: list[dict[str, Tensor]] = [{}]
    room = limit = limit - (1 << 16)  # for the header
    for key, value in state.items():
        small = value.detach().half() if value.is_floating_point() else value
        if small.nbytes > room and shards[-1]:
            shards.append({})
            room = limit
        shards[-1][key] = small
        room -= small.nbytes
    if len(shards) > 1:
        path = path.with_name(f"{path.stem}-1-of-{len(shards)}{path.suffix}")
    for name, shard in zip(_shards(path), shards, strict=True):
        save_tensors(shard, kind, metadata, name)


def filled(build: Callable[[], Network], state: Mapping[str, Tensor], name: object) -> Network:
    """The network of `build` with the weights `state`, of any float type, as float32.

    Raises ModelError with the tensors of `name` that do not fit.
    """
    with (  # a damaged configuration may raise anything
        refused(ModelError, f"{name}: its configuration cannot be", Exception, unfit=True),
        torch.device("meta"),  # no initial weights: `state` replaces them
    ):
        network = build()
    expected = network.state_dict()
    problems = [f"{key} is missing" for key in expected if key not in state]
    problems += [f"{key} is unknown" for key in state if key not in expected]
    problems += [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    problems += [
        f"{key} holds what is no number"
        for key, value in state.items()
        if value.is_floating_point() and not value.isfinite().all()
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ModelError(f"{name} does not fit its configuration: {'; '.join(problems[:3])}{more}")
    # Copies, because safetensors maps the file into memory, and the file may be overwritten.
    fitting = {k: state[k].detach().to(t.dtype, copy=True) for k, t in expected.items()}
    network.load_state_dict(fitting, assign=True)
    return network


def configured(kind: type[Config], metadata: Any, path: Path) -> Config:
    """The configuration in a file's metadata. Raises ModelError."""
    causes = ValueError, TypeError, AttributeError
    with refused(ModelError, f"{path}: its {kind.__name__} cannot be read", *causes, unfit=True):
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in metadata.items()})


def about(network: CompactNet | SegmentationNet) -> dict[str, Any]:
    """Metadata of a network's weights: its configuration, and its palette if that is custom."""
    found, palette = asdict(network.config), network.palette
    if palette is not None and palette.identity is not None:
        found["palette"] = described(palette)
    return found


def save_network(network: CompactNet | SegmentationNet, path: Path) -> None:
    """Write the weights of a receiver or a segmenter. Raises OutputError."""
    save_tensors(network.state_dict(), network.kind, about(network), path)


def load_receiver(path: Path) -> CompactNet:
    """A compact receiver of `save_network`. Raises ModelError."""
    return _load(CompactNet, CompactConfig, path)


def load_segmenter(path: Path) -> SegmentationNet:
    """A segmenter of `save_network`, in evaluation mode. Raises ModelError."""
    return _load(SegmentationNet, SegmenterConfig, path).eval()


def load_network(path: Path) -> CompactNet | SegmentationNet:
    """A receiver or a segmenter of `save_network`. Raises ModelError."""
    is_segmenter = f"sempic.{SegmentationNet.kind}" in _read_metadata(path)
    return load_segmenter(path) if is_segmenter else load_receiver(path)


def _load(network: type[_Ours], config: type[Any], path: Path) -> _Ours:
    state, metadata = load_tensors(path, network.kind)
    palette = metadata.pop("palette", None)
    shape = configured(config, metadata, path)
    found = filled(lambda: network(shape), state, path)
    if palette is not None:
        with naming(path, ModelError):
            found.palette = from_description(palette)
        if why := found.palette.unlike(found.config.classes, None):
            raise ModelError(f"{path}: {why} as in its palette {found.palette.name}")
    return found
