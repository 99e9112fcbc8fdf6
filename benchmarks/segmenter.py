"""IoU of a segmenter against human maps, over all pictures of a folder together.

python benchmarks/segmenter.py PICTURES --labels MAPS [--size 341x256] [--segmenter ONNX]

Maps of Cityscapes' layout (… --palette cityscapes-labelids) are compared as CamVid's classes. The
least share of right pixels of any picture shows whether a segmenter fails outright somewhere.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from common import add_folder, load_labels, load_pictures
from tqdm import tqdm

from sempic import segment
from sempic.evaluation.metrics import confusion, iou
from sempic.palette import BY_NAME, CAMVID, CITYSCAPES, CITYSCAPES_FULL, to_camvid


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_folder(parser)
    parser.add_argument("--labels", type=Path, required=True, help="folder of human index maps")
    parser.add_argument("--segmenter", help="as in sempic encode; default: the bundled one")
    parser.add_argument(
        "--palette",
        choices=[p.name for p in (CAMVID, CITYSCAPES, CITYSCAPES_FULL)],
        default=CAMVID.name,
        help="of the human maps",
    )
    args = parser.parse_args()

    network = segment.load(args.segmenter)
    classes = CAMVID.classes[: CAMVID.void]
    matrix = np.zeros((len(classes), len(classes) + 1), np.int64)
    right: list[float] = []
    found = load_pictures(args)
    if not found:
        raise SystemExit(f"{args.folder}: no pictures")
    for path, picture in tqdm(found, unit="picture", disable=None):
        truth = to_camvid(load_labels(_map_of(path, args), args.size), BY_NAME[args.palette].id)
        guess = network(picture)
        matrix += confusion(truth, guess, len(classes))
        known = truth < len(classes)
        right.append(float((guess == truth)[known].mean()))
    scores = dict(zip(classes, iou(matrix).round(4).tolist(), strict=True))
    mean = float(np.nanmean(list(scores.values())))
    for name, score in scores.items():
        print(f"{name:12}{score:8.4f}")
    print(f"{'mean':12}{mean:8.4f}   {len(found)} pictures")
    print(f"pixels right: {np.mean(right):.3f} on average, {min(right):.3f} in the worst picture")
    if args.json:
        figures = {"pictures": len(found), "miou": mean, "iou": scores, "pixels_right": right}
        args.json.write_text(json.dumps(figures))


def _map_of(picture: Path, args: argparse.Namespace) -> Path:
    """Where the human map lies: beside its stem, or as Cityscapes lays it out."""
    name = picture.stem.replace("leftImg8bit", "gtFine_labelIds") + ".png"
    folder = args.labels if args.palette == CAMVID.name else args.labels / picture.parent.name
    return Path(folder) / name


if __name__ == "__main__":
    main()
