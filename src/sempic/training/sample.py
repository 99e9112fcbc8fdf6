"""Pictures of the paper's network, under the original's flags. `python -m sempic.training.sample`

Every picture is coded into a `.sempic` file, and it is from that file that it is rebuilt: so the
file's size is the rate of the sample beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sempic import coarse as coarse_codec
from sempic import codec, pictures
from sempic.diffusion.checkpoints import open_model
from sempic.diffusion.flags import DEFAULTS
from sempic.diffusion.gaussian import DiffusionConfig
from sempic.diffusion.receiver import SamplingConfig, ready, reconstruct
from sempic.diffusion.unet import SemanticUNet
from sempic.errors import ModelError, OutputError
from sempic.palette import INDICES, PALETTES
from sempic.scene import LabelMap
from sempic.training.data import TrainingScene
from sempic.training.paper import PRESETS, TrainConfig, geometry, open_scenes, typed


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """What is sampled and where to; names are the original's flags."""

    model_path: str
    """Weights: ours, or a `.pt` of the original (with the flags that it was trained with)."""
    results_path: str
    """Gets images, labels, samples, compressed and sempic, a file of each per picture.

    labels are the human maps; where others are sent (generated_semantic), those lie in predicted.
    """
    num_samples: int = 60
    """Pictures, from the first; 0 for all."""
    split: str = "val"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_samples < 0:
            raise ModelError("num_samples cannot be negative")


@dataclass(frozen=True, slots=True)
class Sampled:
    """One rebuilt picture; bpp is 0 where a ready-made coarse picture has no file of ours."""

    name: str
    bpp: float
    seconds: float


def sample_scene(
    model: SemanticUNet,
    process: DiffusionConfig,
    scene: TrainingScene,
    folder: Path,
    *,
    palette: int,
    factor: int,
    quality: int,
    ready: bool,
    human: LabelMap | None,
    sampling: SamplingConfig,
    seed: int,
) -> Sampled:
    """Codes, rebuilds and writes one scene.

    `ready`: its coarse picture was not made by us. `human`: its human label map, if the scene's
    own is another.
    """
    height, width = scene.labels.shape
    stream, labels, coarse = b"", scene.labels, scene.coarse
    if not ready:
        small = coarse_codec.downscale(scene.image, factor)
        stream = codec.pack(
            width=width,
            height=height,
            labels=scene.labels,
            coarse=coarse_codec.encode(small, quality=quality),
            palette=palette,
        )
        received = codec.unpack(stream)
        assert received.labels is not None
        assert received.coarse is not None
        labels, coarse = received.labels, coarse_codec.to_rgb(received.coarse)
    began = time.perf_counter()
    picture = reconstruct(
        model, process, labels, coarse, edges=scene.edges, sampling=sampling, seed=seed
    )
    seconds = time.perf_counter() - began
    colours = PALETTES[palette]
    files = {
        f"images/{scene.name}.png": pictures.encode(scene.image, ".png"),
        f"labels/{scene.name}.png": pictures.encode_labels(
            labels if human is None else human, colours, ".png"
        ),
        f"samples/{scene.name}.png": pictures.encode(picture, ".png"),
        f"compressed/{scene.name}.png": pictures.encode(coarse, ".png"),
    }
    if human is not None:
        files[f"predicted/{scene.name}.png"] = pictures.encode_labels(labels, colours, ".png")
    if stream:
        files[f"sempic/{scene.name}.sempic"] = stream
    for name, data in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path.parent}: cannot be made ({error.strerror})") from error
        pictures.write_file(path, data)
    return Sampled(scene.name, 8 * len(stream) / (width * height), seconds)


def parse(
    argv: Sequence[str],
) -> tuple[SampleConfig, SamplingConfig, TrainConfig, dict[str, Any]]:
    """Flags → what is sampled, how, from which data; the last are the network's, for a `.pt`."""
    parser = argparse.ArgumentParser(
        prog="sempic sample",
        description="Rebuild a dataset's pictures with the paper's network.",
        allow_abbrev=False,
    )
    kinds = (SampleConfig, SamplingConfig, TrainConfig)
    names = {f.name: f for kind in kinds for f in dataclasses.fields(kind)}
    parser.add_argument("--preset", choices=sorted(PRESETS), help="flags in one word")
    for name in [*names, *DEFAULTS, "large_size", "is_train", "use_ddim"]:
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS)
    given = vars(parser.parse_args(list(argv)))
    preset = given.pop("preset", None)
    if preset:
        given = {**vars(parser.parse_args(PRESETS[preset].split())), **given}
    if given.get("use_ddim", "False").lower() in ("true", "1"):
        given.setdefault("solver", "ddim")
    for name in ("model_path", "results_path", "data_dir", "dataset_mode"):
        if name not in given:
            raise ModelError(f"--{name} is missing")
    given.setdefault("out", given["results_path"])

    def pick(kind: Any) -> Any:
        fields = {f.name: f for f in dataclasses.fields(kind)}
        return kind(
            **{k: typed(k, v, str(fields[k].type)) for k, v in given.items() if k in fields}
        )

    return pick(SampleConfig), pick(SamplingConfig), pick(TrainConfig), given


def main(argv: Sequence[str]) -> None:
    """`sempic sample` with the original's flags."""
    config, sampling, data, flags = parse(argv)
    model, process = open_model(Path(config.model_path), flags)
    model = ready(model)
    factor, _ = geometry(data, model.config)
    scenes = open_scenes(data, model.config, factor, config.split)
    if model.config.instance_edges:
        print(
            "this network sees instance edges, which a .sempic file does not carry: rates lack them"
        )
    source = scenes.source
    palette = (source.palette or INDICES).id
    count = min(config.num_samples or len(scenes), len(scenes))
    done = []
    for index in range(count):
        sampled = sample_scene(
            model,
            process,
            scenes[index],
            Path(config.results_path),
            palette=palette,
            factor=factor,
            quality=data.quality,
            ready=source.entries[index].coarse is not None,
            human=scenes.human_labels(index) if source.entries[index].predicted else None,
            sampling=sampling,
            seed=config.seed + index,
        )
        done.append(sampled)
        print(
            f"{index + 1}/{count}  {sampled.name}  {sampled.bpp:.4f} bpp  {sampled.seconds:.1f} s",
            flush=True,
        )
    bpp = np.mean([s.bpp for s in done])
    print(f"{count} pictures, {bpp:.4f} bpp, {np.mean([s.seconds for s in done]):.2f} s each")


if __name__ == "__main__":
    main(sys.argv[1:])
