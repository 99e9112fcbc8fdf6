"""How many bits does each `--label-quality` save, and what does it change in the label maps?

    python benchmarks/label_quality.py PICTURES --labels MAPS [--size 341x256] [--limit 13]

The segmenter's maps are simplified at each level and coded with the coarse picture of the default
quality. Figures: bits per pixel, share of changed pixels, and mIoU in CamVid's classes against the
human maps, which have these classes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import add_folder, in_one_line, load_labels, load_pictures, new_parser, save
from tqdm import tqdm

from sempic import coarse, labels, segment
from sempic.evaluation.metrics import confusion, miou
from sempic.options import DEFAULT_LABEL_QUALITY, DEFAULT_QUALITY, QUALITY
from sempic.palette import CAMVID, PALETTES, translate
from sempic.simplify import LEVELS, simplify


@in_one_line()
def main() -> None:
    parser = new_parser(__doc__)
    add_folder(parser)
    parser.add_argument(
        "--labels", type=Path, required=True, help="folder of human maps, CamVid's ids"
    )
    parser.add_argument("--segmenter", metavar="ONNX", help="default: the bundled one")
    args = parser.parse_args()

    network, dial = segment.load(args.segmenter), QUALITY[DEFAULT_QUALITY]
    palette = PALETTES[network.palette]
    classes = CAMVID.known
    levels = (None, *sorted(LEVELS, reverse=True))
    sizes = dict.fromkeys(levels, 0)
    changed = dict.fromkeys(levels, 0)
    matrices = {level: np.zeros((classes, classes + 1), np.int64) for level in levels}
    pixels = 0
    found = load_pictures(args)
    for path, picture in tqdm(found, unit="picture", disable=None):
        truth = load_labels(args.labels / f"{path.stem}.png", args.size)
        map_, probabilities = network.predict(picture)
        small = coarse.downscale(picture, dial.factor)
        planes = coarse.decode(coarse.encode(small, quality=dial.qp))
        pixels += map_.size
        for level in levels:
            sent = map_
            if level is not None:
                sent = simplify(map_, level, palette=palette.id, probabilities=probabilities)
            sizes[level] += len(labels.encode(sent, coarse=planes, model=palette.full_name))
            changed[level] += int((sent != map_).sum())
            matrices[level] += confusion(truth, translate(sent, palette.id, CAMVID.id), classes)

    rows = [
        {
            "level": "lossless" if level is None else level,
            "bits_for_a_pixel": None if level is None else LEVELS[level],
            "bytes": sizes[level] / len(found),
            "bpp": 8 * sizes[level] / pixels,
            "changed": changed[level] / pixels,
            "miou": miou(matrices[level]),
        }
        for level in levels
    ]
    print("level     bits   bytes     bpp  changed    mIoU")
    for row in rows:
        mark = " *" if row["level"] == DEFAULT_LABEL_QUALITY else ""
        bits = "" if row["bits_for_a_pixel"] is None else f"{row['bits_for_a_pixel']:g}"
        print(
            f"{row['level']!s:8}{bits:>6}{row['bytes']:8.1f}{row['bpp']:8.4f}"
            f"{row['changed']:9.2%}{row['miou']:8.4f}{mark}"
        )
    print(f"* the default; {len(found)} pictures")
    save(args, {"pictures": len(found), "levels": rows})


if __name__ == "__main__":
    main()
