"""`sempic sample`: rebuild a dataset's pictures with the paper's network, under its flags.

Each picture is coded into a `.sempic` file. The network gets the labels and the coarse picture that
this file decodes to, so that the file's size is the rate of the sample.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sempic import codec, files, pictures
from sempic.diffusion.checkpoints import open_model
from sempic.diffusion.flags import DEFAULTS, SamplingConfig
from sempic.diffusion.receiver import Condition, ready, reconstruct
from sempic.errors import InputError, OutputError, refused
from sempic.palette import Palette
from sempic.places import need_folder
from sempic.scene import Image, LabelMap
from sempic.training.data.readers import Item
from sempic.training.data.scenes import TrainingScene, open_scenes
from sempic.training.flags import PaperOptions, SampleConfig, filled_in

_PARTS = ("images", "labels", "samples", "compressed", "predicted")
"""Folders of results that hold pictures."""


def coded(scene: TrainingScene, palette: int) -> bytes:
    """The `.sempic` file of a scene; empty if the scene's coarse picture was not coded by us."""
    if scene.payload is None:
        return b""
    height, width = scene.labels.shape
    return codec.pack(
        width=width, height=height, labels=scene.labels, coarse=scene.payload, palette=palette
    )


def write(
    folder: Path,
    scene: TrainingScene,
    stream: bytes,
    picture: Image,
    palette: Palette,
    human: LabelMap | None,
) -> None:
    """Write the files of a picture, and remove those of an earlier run that it has no longer.
    `human` is its human label map, if another map was sent."""
    shown = {"images": scene.image, "samples": picture, "compressed": scene.coarse}
    parts = {part: pictures.encode(image, ".png") for part, image in shown.items()}
    maps = {"labels": scene.labels}
    if human is not None:
        maps = {"labels": human, "predicted": scene.labels}
    parts |= {part: pictures.encode_labels(m, palette, ".png") for part, m in maps.items()}
    if stream:
        parts["sempic"] = stream
    for part in (*_PARTS, "sempic"):
        path = folder / part / f"{scene.name}{'.sempic' if part == 'sempic' else '.png'}"
        if part in parts:
            files.make_folder(path.parent)
            files.write(path, parts[part])
        else:
            with refused(OutputError, f"{path}: cannot be removed"):
                path.unlink(missing_ok=True)


def _refuse_replacing(items: Sequence[Item], data: PaperOptions, folder: Path) -> None:
    """Raises OutputError if a result would replace a file of the dataset, or lie among them, where
    a later run would read it."""
    paths = [path for i in items for path in (i.image, i.labels, i.predicted, i.coarse) if path]
    inputs = {os.path.realpath(path) for path in paths}
    for part in _PARTS:
        for item in items:
            target = folder / part / f"{item.name}.png"
            if os.path.realpath(target) in inputs:
                raise OutputError(
                    f"{target}: would be replaced, and it is read; name another --results_path"
                )
    read_from = data.data_dir, data.generated_semantic, data.coarse_path, data.image_path
    for read in filter(None, read_from):
        if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(read)):
            raise OutputError(
                f"{folder}: lies in {read}, which is read; name another --results_path"
            )


def run(flags: Mapping[str, Any]) -> None:
    """`sempic sample` with the original's flags."""
    config, data = filled_in(SampleConfig, flags), filled_in(PaperOptions, flags)
    solver = {"solver": "ddim"} if config.use_ddim else {}
    sampling = filled_in(SamplingConfig, {**solver, **flags})
    if config.use_ddim and sampling.solver != "ddim":
        raise InputError(f"use_ddim is solver ddim, not {sampling.solver}")
    network = {name: value for name, value in flags.items() if name in DEFAULTS}
    model, process = open_model(Path(config.model_path), network or None)
    model = ready(model)
    scenes = open_scenes(data, model.config, config.split, config.num_samples)
    if model.config.instance_edges:
        print(
            "this network sees instance edges, which a .sempic file does not carry: rates lack them"
        )
    items = scenes.dataset.items
    need_folder(Path(config.results_path))
    _refuse_replacing(items, data, Path(config.results_path))
    palette = scenes.dataset.palette
    count = len(scenes)
    rates, began = [], time.perf_counter()
    for first in range(0, count, data.batch_size):
        batch = [(i, scenes[i]) for i in range(first, min(first + data.batch_size, count))]
        started = time.perf_counter()
        given = [
            Condition(labels=s.labels, coarse=s.coarse, edges=s.edges, seed=config.seed + i)
            for i, s in batch
        ]
        rebuilt = reconstruct(model, process, given, sampling=sampling)
        seconds = (time.perf_counter() - started) / len(batch)
        for (index, scene), picture in zip(batch, rebuilt, strict=True):
            predicted = items[index].predicted is not None
            human = scenes.human_labels(index, scene.labels.shape) if predicted else None
            stream, rate = coded(scene, palette.id), ""
            write(Path(config.results_path), scene, stream, picture, palette, human)
            if stream:
                rates.append(8 * len(stream) / scene.labels.size)
                rate = f"  {rates[-1]:.4f} bpp"
            print(f"{index + 1}/{count}  {scene.name}{rate}  {seconds:.1f} s", flush=True)
    mean = f", {np.mean(rates):.4f} bpp" if rates else ""
    print(
        f"{count} pictures{mean}, {(time.perf_counter() - began) / count:.2f} s each, all included"
    )
