"""IoU of a segmenter against human maps, over all pictures of a folder together.

python benchmarks/segmenter.py PICTURES --labels MAPS [--size 341x256] [--segmenter ONNX]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from common import add_folder, load_labels, load_pictures
from tqdm import tqdm

from spic import segment
from spic.evaluation.metrics import confusion, iou
from spic.palette import CAMVID


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_folder(parser)
    parser.add_argument("--labels", type=Path, required=True, help="folder of human index maps")
    parser.add_argument("--segmenter", help="as in spic encode; default: the bundled one")
    args = parser.parse_args()

    network = segment.load(args.segmenter)
    classes = CAMVID.classes[: CAMVID.void]
    matrix = np.zeros((len(classes), len(classes) + 1), np.int64)
    found = load_pictures(args)
    if not found:
        raise SystemExit(f"{args.folder}: no pictures")
    for path, picture in tqdm(found, unit="picture", disable=None):
        truth = load_labels(args.labels / f"{path.stem}.png", args.size)
        matrix += confusion(truth, network(picture), len(classes))
    scores = dict(zip(classes, iou(matrix).round(4).tolist(), strict=True))
    mean = float(np.nanmean(list(scores.values())))
    for name, score in scores.items():
        print(f"{name:12}{score:8.4f}")
    print(f"{'mean':12}{mean:8.4f}   {len(found)} pictures")
    if args.json:
        args.json.write_text(json.dumps({"pictures": len(found), "miou": mean, "iou": scores}))


if __name__ == "__main__":
    main()
