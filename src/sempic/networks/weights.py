"""Weights in files: safetensors with the configuration of the network in the metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sempic.errors import InputError, ModelError, OutputError
from sempic.networks.compact import CompactConfig, CompactNet
from sempic.networks.segmenter import SegmentationNet, SegmenterConfig
from sempic.palette import Palette, described, from_description

Network = TypeVar("Network", bound=nn.Module)


def save_tensors(state: Mapping[str, Tensor], kind: str, said: Any, path: Path) -> None:
    """Write tensors, whole or not at all, with what can be said in JSON under `sempic.KIND`.

    Raises OutputError.
    """
    part = path.with_name(path.name + ".part")
    try:
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in state.items()},
            part,
            {f"sempic.{kind}": json.dumps(said)},
        )
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error})") from error


def load_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], Any]:
    """What `save_tensors` wrote; of a first shard, `…-1-of-N.safetensors`, all shards together.

    Raises:
        ModelError: not safetensors, or of another kind.
    """
    try:
        with safe_open(path, "pt") as file:
            said = (file.metadata() or {}).get(f"sempic.{kind}")
        if said is None:
            raise ModelError(f"{path}: not the weights of a {kind}")
        state = {k: v for shard in _shards(path) for k, v in load_file(shard).items()}
        return state, json.loads(said)
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{path}: not safetensors ({error})") from error


def _shards(path: Path) -> list[Path]:
    stem, _, count = path.stem.rpartition("-of-")
    if not stem.endswith("-1") or not count.isdecimal():
        return [path]
    return [
        path.with_name(f"{stem[:-1]}{number}-of-{count}{path.suffix}")
        for number in range(1, int(count) + 1)
    ]


def save_shards(
    state: Mapping[str, Tensor], kind: str, said: Any, path: Path, limit: int
) -> list[Path]:
    """Write tensors as float16 into as few files as hold at most `limit` bytes each; the first is
    what `load_tensors` takes. Raises OutputError."""
    shards: list[dict[str, Tensor]] = [{}]
    room = limit - (1 << 16)  # for the header
    for key, value in state.items():
        small = value.detach().half() if value.is_floating_point() else value
        size = small.numel() * small.element_size()
        if size > room and shards[-1]:
            shards.append({})
            room = limit - (1 << 16)
        shards[-1][key] = small
        room -= size
    names = [path]
    if len(shards) > 1:
        count = len(shards)
        names = [
            path.with_name(f"{path.stem}-{n + 1}-of-{count}{path.suffix}") for n in range(count)
        ]
    for name, shard in zip(names, shards, strict=True):
        save_tensors(shard, kind, said, name)
    return names


def _filled(network: Network, state: Mapping[str, Tensor], palette: Any, path: Path) -> Network:
    try:
        network.load_state_dict({key: value.float() for key, value in state.items()})
        if palette is not None:
            network.palette = from_description(palette)  # type: ignore[assignment]
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise ModelError(f"{path} does not fit its configuration: {reason}") from error
    except InputError as error:
        raise ModelError(f"{path}: {error}") from error
    return network


def about(config: Any, palette: Palette | None = None) -> dict[str, Any]:
    """What the metadata of a network says: its configuration, and its palette if that is one of
    somebody's own."""
    own = palette is not None and palette.identity is not None
    return asdict(config) | ({"palette": described(palette)} if own and palette else {})


def save_receiver(
    state: Mapping[str, Tensor], config: CompactConfig, path: Path, palette: Palette | None = None
) -> None:
    """Write the weights of a compact receiver. Raises OutputError."""
    save_tensors(state, "compact", about(config, palette), path)


def load_receiver(path: Path) -> CompactNet:
    """A compact receiver that `save_receiver` wrote; raises ModelError if `path` holds none."""
    state, fields = load_tensors(path, "compact")
    palette = fields.pop("palette", None)
    config = CompactConfig(**{**fields, "widths": tuple(fields["widths"])})
    return _filled(CompactNet(config), state, palette, path)


def save_segmenter(
    state: Mapping[str, Tensor],
    config: SegmenterConfig,
    path: Path,
    palette: Palette | None = None,
) -> None:
    """Write the weights of a segmenter. Raises OutputError."""
    save_tensors(state, "segmenter", about(config, palette), path)


def load_segmenter(path: Path) -> SegmentationNet:
    """A segmenter that `save_segmenter` wrote, not training; raises ModelError if there is none."""
    state, fields = load_tensors(path, "segmenter")
    palette = fields.pop("palette", None)
    return _filled(SegmentationNet(SegmenterConfig(**fields)), state, palette, path).eval()
