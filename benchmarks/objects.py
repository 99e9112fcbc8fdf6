"""At which input size does a segmenter find most of the objects in human maps?

    python benchmarks/objects.py PICTURES --labels MAPS [--size 341x256] [--limit N]
        [--segmenter ONNX] [--sides 256,384,512,640,768,896]

MAPS are index maps of the same names, with the segmenter's palette. The default segmenter is the
bundled judge. "Found" are objects of the human map that the segmenter keeps, and "seen where the
human map has none" are invented objects, both as in `sempic.check.objects`. Choose the size on
other pictures than those of a reported figure.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import (
    add_folder,
    in_one_line,
    listed,
    load_labels,
    load_pictures,
    new_parser,
    positive,
    save,
)

from sempic import models, segment
from sempic.critical import GROUPS
from sempic.evaluation.measures.objects import count
from sempic.palette import PALETTES


@in_one_line()
def main() -> None:
    parser = new_parser(__doc__)
    add_folder(parser)
    parser.add_argument("--labels", type=Path, required=True, help="folder of human index maps")
    parser.add_argument("--segmenter", help="an ONNX file")
    parser.add_argument(
        "--sides", type=listed(positive), default=[256, 384, 512, 640, 768, 896], metavar="N,…"
    )
    args = parser.parse_args()
    found = load_pictures(args)
    truth = [load_labels(args.labels / f"{path.stem}.png", args.size) for path, _ in found]
    spec = args.segmenter or str(models.find(models.JUDGE))
    lines = []
    print(
        f"{len(found)} pictures\n{'side':>5}  found / seen besides, of {', '.join(GROUPS)}; of all"
    )
    for side in args.sides:
        network = segment.load(spec, side=side)
        palette = PALETTES[network.palette]
        counts = sum(
            count(labels, network(picture), palette)
            for labels, (_, picture) in zip(truth, found, strict=True)
        )
        there, kept, more = np.vstack([counts, counts.sum(0)]).T.tolist()
        lines.append({"side": side, "there": there, "found": kept, "besides": more})
        cells = (f"{k} of {t} / {m}" for t, k, m in zip(there, kept, more, strict=True))
        print(f"{side:5}  " + "; ".join(cells), flush=True)
    save(args, {"pictures": len(found), "sides": lines})


if __name__ == "__main__":
    main()
