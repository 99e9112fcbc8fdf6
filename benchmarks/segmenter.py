"""How good are a segmenter's maps: IoU of each class against human maps of a folder?

    python benchmarks/segmenter.py PICTURES --labels MAPS [--size 341x256] [--segmenter ONNX]

Maps with Cityscapes' label ids (--palette cityscapes-labelids) are compared in CamVid's classes, or
with --fine in Cityscapes' nineteen. The pixel accuracy of the worst picture shows whether the
segmenter fails on some picture. --reliability FILE.svg draws a reliability diagram: accuracy
against confidence (extra notebooks).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from common import (
    add_folder,
    in_one_line,
    load_labels,
    load_pictures,
    new_file,
    new_parser,
    save,
)
from tqdm import tqdm

from sempic import files, segment
from sempic.evaluation.metrics import confusion, iou, miou
from sempic.palette import BY_NAME, CAMVID, CITYSCAPES, CITYSCAPES_FULL, Palette, translate

BINS = 20
"""Number of bins of confidence."""


@in_one_line()
def main() -> None:
    parser = new_parser(__doc__)
    add_folder(parser)
    parser.add_argument("--labels", type=Path, required=True, help="folder of human index maps")
    parser.add_argument("--segmenter", help="as in sempic encode; default: the bundled one")
    parser.add_argument(
        "--palette",
        choices=[p.name for p in (CAMVID, CITYSCAPES, CITYSCAPES_FULL)],
        default=CAMVID.name,
        help="of the human maps",
    )
    parser.add_argument("--fine", action="store_true", help="compare as Cityscapes' 19 classes")
    parser.add_argument(
        "--reliability", type=new_file, metavar="SVG", help="draw the confidence (matplotlib)"
    )
    args = parser.parse_args()
    if args.reliability:
        files.need_suffix(args.reliability, ".svg", "the diagram")

    network = segment.load(args.segmenter)
    palette = CITYSCAPES if args.fine else CAMVID
    classes = palette.classes[: palette.void]
    matrix = np.zeros((len(classes), len(classes) + 1), np.int64)
    right: list[float] = []
    # By bins of confidence: pixels, sum of their confidence, right pixels.
    confident = np.zeros((3, BINS))
    loaded = load_pictures(args)
    for path, picture in tqdm(loaded, unit="picture", disable=None):
        labels = load_labels(_map_of(path, args), args.size)
        truth = translate(labels, BY_NAME[args.palette].id, palette.id)
        guess, probabilities = network.predict(picture)
        guess = translate(guess, network.palette, palette.id)
        matrix += confusion(truth, guess, len(classes))
        known = truth < len(classes)
        if known.any():
            right.append(float((guess == truth)[known].mean()))
        if args.reliability:
            if probabilities is None:
                raise SystemExit(f"{args.segmenter} gives no probabilities for --reliability")
            confident += _by_confidence(probabilities, network.palette, truth, palette)
    if not right:
        raise SystemExit(f"{args.labels}: the maps are all void")
    scores = dict(zip(classes, iou(matrix).round(4).tolist(), strict=True))
    mean = miou(matrix)
    for name, score in scores.items():
        print(f"{name:14}{score:8.4f}")
    print(f"{'mean':14}{mean:8.4f}   {len(loaded)} pictures")
    print(f"pixels right: {np.mean(right):.3f} on average, {min(right):.3f} in the worst picture")
    if args.reliability:
        count, confidence, correct = confident[:, confident[0] > 0]
        bins = np.stack([confidence / count, correct / count, count / count.sum()], 1)
        error = float((np.abs(bins[:, 0] - bins[:, 1]) * bins[:, 2]).sum())
        print(f"expected calibration error: {error:.4f}")
        _draw(bins, args.reliability)
    figures = {"pictures": len(loaded), "miou": mean, "iou": scores, "pixels_right": right}
    save(args, figures)


def _draw(bins: np.ndarray, path: Path) -> None:
    """Draws bins, (N, 3): confidence (x), share of right pixels (y), share of all pixels (area)."""
    import matplotlib.figure

    axes = matplotlib.figure.Figure((4, 4)).add_subplot(aspect="equal")
    axes.plot((0, 1), (0, 1), "--", color="grey")
    axes.scatter(*bins[:, :2].T, s=3000 * bins[:, 2], alpha=0.5)
    axes.set(xlabel="confidence", ylabel="share of pixels that are right")
    axes.figure.savefig(path)


def _by_confidence(
    probabilities: np.ndarray, known: int, truth: np.ndarray, palette: Palette
) -> np.ndarray:
    """(3, BINS): pixels, sum of their confidences, right pixels."""
    ids = translate(np.arange(len(probabilities), dtype=np.uint8), known, palette.id)
    count = palette.void
    merged = np.zeros((count, *truth.shape))
    for number, plane in zip(ids, probabilities, strict=True):
        if number < count:
            merged[number] += plane / 255
    labelled = truth < count
    confidence = np.minimum(merged.max(0), 1)[labelled]
    correct = (merged.argmax(0) == truth)[labelled]
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    weights = (None, confidence, correct)
    return np.stack([np.bincount(bins, w, minlength=BINS) for w in weights])


def _map_of(picture: Path, args: argparse.Namespace) -> Path:
    """The path of a human map: --labels/STEM.png, or in the layout of Cityscapes."""
    name = picture.stem.replace("leftImg8bit", "gtFine_labelIds") + ".png"
    folder = args.labels if args.palette == CAMVID.name else args.labels / picture.parent.name
    return Path(folder) / name


if __name__ == "__main__":
    main()
