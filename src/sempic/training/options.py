"""Options of `sempic train`, from which `sempic.fields` makes the command lines.

No torch here, so that `--help` needs no extra. `flags` has the paper's options.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sempic import fields, processes
from sempic.errors import InputError
from sempic.fields import another, option

LARGEST_SEED = (1 << 32) - 1
LARGEST_CROP = 4096
"""Largest side of a crop in pixels, so that a typing error does not exhaust memory."""
LEAST_OF_EFFICIENTNET = 64
"""Least side of a crop where EfficientNet sees it: norms and losses need several of its last
features, which have stride 32."""
MAY_CHANGE = {
    "steps", "minutes", "threads", "device", "reproducible", "log_every", "check_every",
    "save_minutes", "sheet", "judged", "out", "export_dir", "data", "corpus", "classes", "features",
}  # fmt: skip
"""Options that a resumed run does not compare with its checkpoint's: duration, hardware, logging,
folders."""
_FILES = ("init", "discriminator", "segmenter", "teacher")
"""Options of files, which may have moved: their contents are compared."""
_CLASSES = "a palette, cityscapes or camvid, or a JSON file of one's own"


def _minutes(name: str, value: Any) -> float:
    """0 to infinity; `fields` alone would refuse infinity."""
    if not float(value) >= 0:
        raise InputError(f"{name} must be 0 or more, not {value}")
    return float(value)


def _check_crop(crop: tuple[int, int], multiple: int, least: int) -> None:
    if any(side % multiple or not least <= side <= LARGEST_CROP for side in crop):
        raise ValueError(f"--crop takes multiples of {multiple} from {least} to {LARGEST_CROP}")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of every training run."""

    out: Path = option("folder of the run; resumed if it has begun", flags=("-o",))
    steps: int = option("end after this many steps", 0, low=0)
    minutes: float = option(
        "end after this time, checkpoints and exports included; the learning rate follows the "
        "elapsed share",
        0.0,
        check=_minutes,
    )
    batch: int = option("crops in a step", 8, low=1, high=4096)
    lr: float = option("highest learning rate", 1e-3, above=0)
    init: Path | None = option("initial weights, .safetensors", None)
    seed: int = option("seed of all random draws", 0, low=0, high=LARGEST_SEED)
    threads: int = option("CPU threads", 2, low=1, high=processes.most(), metavar="N")
    device: str = option("device of PyTorch; auto: the GPU if there is one", "auto")
    reproducible: bool = option(
        "draw noise on the CPU and use deterministic algorithms: the same run on every device",
        False,
    )
    log_every: int = option("steps between lines of the log", 50, low=1)
    check_every: int = option(
        "steps between validations, which write a sheet and weights", 500, low=1
    )
    save_minutes: float = option("minutes between checkpoints", 3.0, low=0, high=5)
    export_dir: Path | None = option("folder for the results, in files of at most 16 MiB", None)

    def __post_init__(self) -> None:
        fields.check(self)
        if (self.steps > 0) == (self.minutes > 0):
            raise ValueError("give either --steps or --minutes")

    def inputs(self) -> list[Path]:
        """The files that it begins with or learns from."""
        given = [vars(self).get(name) or () for name in _FILES]
        return [path for part in given for path in (part if isinstance(part, tuple) else (part,))]

    def fixed(self) -> dict[str, Any]:
        """`fixed` options of this run."""
        return fixed(vars(self), MAY_CHANGE, _FILES)


def fixed(
    given: Mapping[str, Any], may_change: Collection[str], files: Collection[str]
) -> dict[str, Any]:
    """Options that a resumed run must share with its checkpoint, as JSON values; of the options
    `files` the contents."""
    found = {k: v for k, v in given.items() if k not in {*may_change, *files}}
    contents = {f"content of --{k} (SHA-256)": _content(given[k]) for k in files if k in given}
    return found | contents


def _content(value: Any) -> Any:
    """The first digits of the SHA-256 of a file, or of each of several; None for no file."""
    if isinstance(value, tuple):
        return [_content(part) for part in value]
    if not value or not Path(value).is_file():
        return None
    return hashlib.sha256(Path(value).read_bytes()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """Make a training corpus for receivers from folders of pictures (see docs/guides/train.md)."""

    data: tuple[str, ...] = option(
        "folders, FOLDER or FOLDER=WEIGHT", positional=True, metavar="DATA"
    )
    out: Path = option("folder of the corpus", flags=("-o",))
    classes: str = option(_CLASSES, "cityscapes")
    segmenter: Path | None = option(
        "ONNX file whose maps, simplified as encode sends them, are added to the corpus", None
    )
    renditions: int = option(
        "renditions of each picture, of different size, light and coarse pictures", 3, low=1
    )
    coarse: int = option("coarse pictures of each rendition, of different factor and QP", 2, low=1)
    side: int = option(
        "short side of 60 % of the renditions; others have 200 to 480", 256, low=128, high=4096
    )
    limit: int = option("pictures of each source at most, spread evenly; 0 for all", 0, low=0)
    seed: int = option("seed of all random draws", 0, low=0, high=LARGEST_SEED)
    workers: int = option(
        "worker processes", processes.cores(), low=1, high=processes.most(), metavar="N"
    )

    def __post_init__(self) -> None:
        fields.check(self)


@dataclass(frozen=True, kw_only=True)
class SegmenterOptions(RunOptions):
    """Fine-tune an ImageNet backbone, or a segmenter, on folders. Run it again to go on."""

    data: tuple[str, ...] = option("folders, FOLDER or FOLDER=WEIGHT")
    classes: str = option(_CLASSES, "cityscapes")
    backbone: int = option("version of EfficientNet-Lite", 0, low=0, high=2)
    crop: tuple[int, int] = option(
        "size of crops, multiples of 32 from 64 on", (256, 320), metavar=("H", "W")
    )
    heights: tuple[int, int] = option(
        "range of heights, in pixels, to which pictures are scaled before cropping",
        (230, 640),
        metavar=("MIN", "MAX"),
    )
    enlarge: float = option(
        "factor by which small pictures are enlarged before segmentation", 1.5, low=1
    )
    judged: int = option("validation pictures of each source; 0 for all", 20, low=0)
    teacher: tuple[Path, ...] = option(
        "segmenter.safetensors of the same classes, whose class probabilities are training "
        "targets, too; of several, their mean",
        (),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_crop(self.crop, 32, LEAST_OF_EFFICIENTNET)
        if not 1 <= self.heights[0] <= self.heights[1]:
            raise ValueError("--heights takes pixels, the least first")


@dataclass(frozen=True, kw_only=True)
class ReceiverOptions(RunOptions):
    """Options of both stages of the compact receiver."""

    corpus: tuple[Path, ...] = option("folders of `sempic train corpus`")
    crop: tuple[int, int] = option(
        "size of crops, multiples of 16; multiples of 32 are fastest",
        (128, 176),
        metavar=("H", "W"),
    )
    label_drop: float = option("share of the maps that are wholly void", 0.1, low=0, high=1)
    region_drop: float = option(
        "share of the maps in which a part of a region is void", 0.0, low=0, high=1
    )
    region_wrong: float = option(
        "share of the maps in which a part of a region is wrong", 0.0, low=0, high=1
    )
    sheet: int = option("scenes on a sheet", 4, low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_crop(self.crop, 16, 16)


@dataclass(frozen=True, kw_only=True)
class DenoiseOptions(ReceiverOptions):
    """Train the compact receiver to denoise, at all noise levels. Run it again to go on."""

    lr: float = another(RunOptions, "lr", 4e-3)


@dataclass(frozen=True, kw_only=True)
class DistillOptions(ReceiverOptions):
    """Fine-tune a trained compact receiver for 1 to 4 steps. Run it again to go on."""

    init: Path = option("compact.safetensors of `sempic train denoise`, restore, grow or distill")
    discriminator: Path | None = option("initial discriminator.safetensors", None)
    segmenter: tuple[Path, ...] = option(
        "segmenter.safetensors for semantic consistency; of several, one is drawn for each step",
        (),
    )
    features: Path | None = option(
        "folder of `sempic train features`; default: the ImageNet package and the cache", None
    )
    batch: int = option(
        "crops in a step; the variance of pooled features needs two", 4, low=2, high=4096
    )
    lr: float = another(RunOptions, "lr", 3e-3)
    crop: tuple[int, int] = another(ReceiverOptions, "crop", (192, 256))
    label_drop: float = another(ReceiverOptions, "label_drop", 0.15)
    region_drop: float = another(ReceiverOptions, "region_drop", 0.25)
    region_wrong: float = another(ReceiverOptions, "region_wrong", 0.06)
    critical: float = option("pixels weigh 1 + this × (importance of their class - 1)", 16.0)
    pixel: float = option("weight of L1", 2.0)
    coarse: float = option("weight of L1 between the coarse pictures", 2.0)
    feature: float = option("weight of the feature distance", 1.5)
    texture: float = option(
        "weight of the distance between the features' means and deviations over a crop", 1.0
    )
    pooled: float = option(
        "weight of the squared distance between the last features' means, divided by their "
        "variance",
        0.3,
    )
    energy: float = option(
        "weight of the distance between energies of detail at each position in a patch", 1.0
    )
    vgg: float = option(
        "weight of the distance between VGG-16's features (`python -m sempic.evaluation.weights`), "
        "which the discriminator sees, too; 0 leaves VGG-16 out",
        1.0,
    )
    adversarial: float = option("weight of the discriminator's score", 0.4)
    semantic: float = option(
        "weight of the divergence between a segmenter's outputs for both pictures", 0.25
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_crop(self.crop, 16, LEAST_OF_EFFICIENTNET)


@dataclass(frozen=True, kw_only=True)
class PriorData:
    """Training data of the label coder's prior."""

    out: Path = option("the result; rendered maps are cached beside it", flags=("-o",))
    data: tuple[str, ...] = option("folders, FOLDER or FOLDER=WEIGHT")
    classes: str = option(_CLASSES, "cityscapes")
    segmenter: Path | None = option(
        "ONNX file whose maps, as encode sends them, are training data, too; default: the bundled "
        "one for Cityscapes' classes",
        None,
    )
    limit: int = option("pictures of each source at most, spread evenly; 0 for all", 0, low=0)


@dataclass(frozen=True, kw_only=True)
class LabelPriorOptions(RunOptions, PriorData):
    """Train one of the two networks of the label coder's prior. Run it again to go on."""

    batch: int = option("maps in a step", 4, low=1, high=4096)
    coarse: bool = option("train the network that sees the coarse picture", False)
    busy: int = option("pixels at outlines drawn from each map", 3000, low=1)
    calm: int = option("other pixels drawn from each map", 700, low=1)
    lr: float = another(RunOptions, "lr", 3e-3)
    init: Path | None = option("initial weights, .safetensors, or a label model, .npz", None)
    threads: int = another(RunOptions, "threads", 1)


@dataclass(frozen=True, kw_only=True)
class PriorExportOptions:
    """Write the causal network of one run and the trunk of another as integers."""

    causal: Path = option("folder of a run without --coarse")
    informed: Path = option("folder of a run with --coarse")
    out: Path = option("the file, .npz", flags=("-o",))


@dataclass(frozen=True, kw_only=True)
class PriorTablesOptions(PriorData):
    """Fit the readout and the tables of a label model."""

    networks: Path = option("file of `label-prior export`, or another label model, .npz")
    out: Path = option("the file, .npz", flags=("-o",))


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write trained weights (safetensors) as ONNX."""

    weights: Path = option("compact.safetensors or segmenter.safetensors", positional=True)
    output: Path = option("the .onnx file", positional=True)
    model_id: int = option("model id of the receiver in streams", 1, low=0, high=14)
    int8: Path | None = option(
        "compute convolutions in 8-bit integers, with ranges from this corpus",
        None,
        metavar="CORPUS",
    )
    int8_backbone: bool = option("of a segmenter those of its backbone, too", False)


@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """Turn an ONNX file of `sempic train export` into weights (safetensors) for training."""

    model: Path = option("receiver.onnx or segmenter.onnx", positional=True)
    output: Path = option("the .safetensors file", positional=True)
    images: Path | None = option("for a segmenter: folder of pictures that set its norms", None)


@dataclass(frozen=True, kw_only=True)
class GrowOptions:
    """Turn a receiver of CamVid's 11 classes into one of Cityscapes' 19 with the same function."""

    weights: Path = option("compact.safetensors", positional=True)
    output: Path = option("the .safetensors file", positional=True)


@dataclass(frozen=True, kw_only=True)
class AverageOptions:
    """Write the mean of two trainings' weights: of receivers alike, or of segmenters alike."""

    first: Path = option("compact.safetensors or segmenter.safetensors", positional=True)
    second: Path = option("weights of another training of the same network", positional=True)
    weight: float = option("weight of the second file; the first has the rest", 0.5, low=0, high=1)
    out: Path = option("the .safetensors file", flags=("-o",))


@dataclass(frozen=True, kw_only=True)
class FeaturesOptions:
    """Write the frozen ImageNet features that `distill` compares with into a folder."""

    folder: Path = option(
        "gets efficientnet-lite0.safetensors and vgg16.safetensors", positional=True
    )
