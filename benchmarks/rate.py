"""How many bits per pixel does each quality level take, in total and by chunk?

    python benchmarks/rate.py PICTURES [--size 341x256] [--labels MAPS] [--quality 3,5] [--json OUT]

Files are encoded as by `sempic encode`, with the segmenter's maps, simplified by default. --labels
names a folder of index maps of the same names instead; these are coded losslessly by default, and
compared with the decoded maps.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import add_folder, in_one_line, listed, load_labels, load_pictures, new_parser, save
from tqdm import tqdm

import sempic
from sempic import api, fields
from sempic.options import EncodeOptions

OPTIONS = ("palette", "label_quality", "coarse_codec")
"""Of `sempic encode`."""
MEANS = ("labels_bpp", "coarse_bpp", "other_bpp", "bpp", "bytes")


@in_one_line()
def main() -> None:
    parser = new_parser(__doc__)
    add_folder(parser)
    parser.add_argument("--labels", type=Path, help="folder of index maps; default: the segmenter")
    parser.add_argument("--segmenter", help="as in sempic encode")
    fields.add(parser, EncodeOptions, only=OPTIONS)
    parser.add_argument("--quality", type=listed(int), default=list(sempic.QUALITY), metavar="N,…")
    args = parser.parse_args()

    codec = api.Codec(segmenter=args.segmenter)
    options = {name: value for name, value in vars(args).items() if name in OPTIONS}
    found: dict[int, list[list[float]]] = {quality: [] for quality in args.quality}
    pictures = load_pictures(args)
    for path, picture in tqdm(pictures, unit="picture", disable=None):
        labels = None
        if args.labels:
            labels = load_labels(args.labels / f"{path.stem}.png", args.size)
        for quality in args.quality:
            stream = codec.encode(picture, labels=labels, quality=quality, **options)
            sent = sempic.unpack(stream, only="labels").labels
            if labels is not None and "label_quality" not in options and (sent != labels).any():
                raise SystemExit(f"{path}: the label map came back changed")
            info = sempic.info(stream)
            sizes = [info["chunks"].get("labels", 0), info["chunks"]["coarse"]]
            sizes += [info["bytes"] - sum(sizes), info["bytes"]]
            pixels = info["width"] * info["height"]
            found[quality].append([*(8 * size / pixels for size in sizes), info["bytes"]])

    source = str(args.labels) if args.labels else args.segmenter or "bundled segmenter"
    coarse = options.get("coarse_codec", "bpg")
    print(f"{len(pictures)} pictures of {args.folder}, labels: {source}, coarse: {coarse}")
    print("quality   coarse          labels   coarse   other    whole   bytes   (means, bpp)")
    rows = []
    for quality in args.quality:
        level = sempic.QUALITY[quality]
        means = np.mean(found[quality], 0).tolist()
        name = f"1/{level.factor}, QP {level.qp}"
        texts = "{:>7.4f}  {:>7.4f} {:>7.4f}  {:>7.4f} {:>7.0f}".format(*means)
        print(f"{quality:>7}   {name:<15}{texts}")
        setting = {"quality": quality, "factor": level.factor, "qp": level.qp}
        rows.append(setting | dict(zip(MEANS, means, strict=True)))
    figures = {
        "folder": str(args.folder),
        "pictures": len(pictures),
        "size": args.size,
        "labels": source,
        "coarse_codec": coarse,
        "levels": rows,
    }
    save(args, figures)


if __name__ == "__main__":
    main()
