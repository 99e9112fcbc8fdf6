"""Which differences between decoded pictures and originals contribute most to FID?

    python benchmarks/missing.py PICTURES --labels MAPS [--size 341x256] [--limit N] [--receiver R]

Each line of the first table replaces one component of every decoded picture by the original's: the
pixels of some classes of MAPS, all detail coarser or finer than a number of pixels, luma, or
chroma. The lower the FID then is, the more this component contributes. "means" is the share of FID
that is the distance of the two mean feature vectors: errors that all pictures have in common.

The next lines are a reference: FID of slightly changed originals. "moved" displaces pixels by a
smooth random field; the line says its standard deviation and its smoothing, in pixels.

The last table has the mean absolute differences of pixels one and two apart, relative to the
original's, for luma and chroma. "grid" shows periodic artefacts: the mean difference at each of the
16 positions in a cell of 4×4 pixels, largest over smallest.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import scipy.ndimage
from common import add_folder, in_one_line, load_labels, load_pictures, new_parser, save
from tqdm import tqdm

from sempic import api, codec
from sempic.evaluation.metrics import frechet
from sempic.evaluation.networks import Inception
from sempic.palette import CAMVID
from sempic.pictures import read, resized, saved
from sempic.receive import Receiver
from sempic.scene import Image

GROUPS = (
    ("sky",),
    ("building",),
    ("road", "pavement"),
    ("tree",),
    ("car",),
    ("pedestrian", "bicyclist"),
    ("pole", "sign", "fence"),
)


def low(picture: Image, factor: int) -> np.ndarray:
    """The detail coarser than `factor` pixels, float (h, w, 3)."""
    height, width = picture.shape[:2]
    small = resized(picture, (-(-width // factor), -(-height // factor)), "BOX")
    return resized(small, (width, height)).astype(float)


def rounded(picture: np.ndarray) -> Image:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def swap(original: Image, made: Image, factor: int, *, fine: bool) -> Image:
    """`made` with the original's detail coarser (`fine`: finer) than `factor` pixels."""
    change = low(original, factor) - low(made, factor)
    return rounded(original - change if fine else made + change)


def repaint(luma: Image, chroma: Image) -> Image:
    """The luma of one picture with the chroma of another."""
    y, _, _ = PIL.Image.fromarray(luma).convert("YCbCr").split()
    _, cb, cr = PIL.Image.fromarray(chroma).convert("YCbCr").split()
    return np.asarray(PIL.Image.merge("YCbCr", (y, cb, cr)).convert("RGB"))


def changed(picture: Image, rng: np.random.Generator) -> Iterator[tuple[str, Image]]:
    """The picture with small changes, by name."""
    values = picture.astype(float)
    for quality in (80, 40):
        file = saved(PIL.Image.fromarray(picture), "JPEG", quality=quality, subsampling=0)
        yield f"JPEG {quality}, 4:4:4", read(file)
    yield "noise of 5 levels", rounded(values + rng.normal(0, 5, picture.shape))
    yield "blur of 0.8 pixels", rounded(scipy.ndimage.gaussian_filter(values, (0.8, 0.8, 0)))
    for size, reach in ((1.0, 8), (0.7, 3)):
        shifts = [
            scipy.ndimage.gaussian_filter(rng.standard_normal(picture.shape[:2]), reach)
            for _ in range(2)
        ]
        places = np.indices(picture.shape[:2]) + [x * (size / x.std()) for x in shifts]
        moved = [
            scipy.ndimage.map_coordinates(values[..., c], places, order=3, mode="nearest")
            for c in range(3)
        ]
        yield f"moved by {size:g} over {reach}", rounded(np.stack(moved, -1))


def steps(picture: Image) -> np.ndarray:
    """Mean differences of neighbours, in both directions: (luma, chroma) × (distance 1,
    distance 2, and distance 1 at each of the 16 positions)."""
    luma = picture @ np.array([0.299, 0.587, 0.114])
    planes = luma[None], np.stack([picture[..., 0] - luma, picture[..., 2] - luma])
    rows, columns = (side // 4 * 4 - 4 for side in luma.shape)
    found = []
    for plane in planes:
        here = plane[:, :rows, :columns]
        one, two = (
            np.abs(plane[:, n : rows + n, :columns] - here)
            + np.abs(plane[:, :rows, n : columns + n] - here)
            for n in (1, 2)
        )
        places = one.mean(0).reshape(rows // 4, 4, columns // 4, 4).mean((0, 2))
        found.append(np.concatenate([[one.mean(), two.mean()], places.ravel()]))
    return np.stack(found)


@in_one_line()
def main() -> None:
    parser = new_parser(__doc__)
    add_folder(parser)
    parser.add_argument("--labels", type=Path, required=True, help="folder of maps, CamVid's ids")
    parser.add_argument("--receiver", type=Path, help="an .onnx file; default: the bundled one")
    args = parser.parse_args()
    given = load_pictures(args)
    if len(given) < 2:
        raise SystemExit(f"{args.folder}: FID needs two pictures or more")
    coder, receiver, inception = api.Codec(), Receiver(args.receiver), Inception()
    names = CAMVID.classes
    features: dict[str, list[np.ndarray]] = {}
    shares: dict[str, list[float]] = {}
    detail: dict[str, list[np.ndarray]] = {"original": [], "made": []}
    for path, original in tqdm(given, mininterval=5):
        labels = load_labels(args.labels / path.with_suffix(".png").name, args.size)
        made = receiver(codec.unpack(coder.encode(original)))
        shown = {"original": original, "nothing": made}
        for group in GROUPS:
            inside = np.isin(labels, [names.index(name) for name in group])
            shares.setdefault(", ".join(group), []).append(float(inside.mean()))
            shown[", ".join(group)] = np.where(inside[..., None], original, made)
        for factor in (4, 2):
            shown[f"coarser than {factor}"] = swap(original, made, factor, fine=False)
            shown[f"finer than {factor}"] = swap(original, made, factor, fine=True)
        shown |= {"luma": repaint(original, made), "chroma": repaint(made, original)}
        shown |= changed(original, np.random.default_rng(0))
        for name, picture in shown.items():
            features.setdefault(name, []).append(inception.features(picture))
        detail["original"].append(steps(original))
        detail["made"].append(steps(made))
    reference = np.stack(features.pop("original")).astype(float)
    print(f"{len(given)} pictures\n{'replaced':24}{'pixels':>8}{'FID':>8}{'means':>8}")
    report: dict[str, object] = {"pictures": len(given)}
    for name, found in features.items():
        painted = np.stack(found).astype(float)
        fid = frechet(painted, reference)
        means = float(np.square(painted.mean(0) - reference.mean(0)).sum())
        share = f"{np.mean(shares[name]):.3f}" if name in shares else ""
        print(f"{name:24}{share:>8}{fid:8.1f}{means:8.1f}")
        report[name] = {"fid": fid, "means": means}
    mean = {name: np.mean(found, 0) for name, found in detail.items()}
    print(f"\n{'':24}{'luma':>8}{'chroma':>8}")
    for place, name in enumerate(("steps of 1", "steps of 2")):
        ratio = mean["made"][:, place] / mean["original"][:, place]
        print(f"{name:24}" + "".join(f"{r:8.2f}" for r in ratio))
        report[name] = ratio.tolist()
    for name, found in mean.items():
        places = found[:, 2:].max(1) / found[:, 2:].min(1)
        print(f"{'grid, ' + name:24}" + "".join(f"{p:8.2f}" for p in places))
        report[f"grid, {name}"] = places.tolist()
    save(args, report)


if __name__ == "__main__":
    main()
