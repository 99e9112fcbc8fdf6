"""How many bytes does the label coder need, compared with PNG, WebP, JPEG XL and FLIF?

    python benchmarks/labels.py MAPS [--size 341x256] [--flif SIZES.json] [--model camvid]
        [--images PICTURES] [--only-ours] [--json OUT]

The input is a folder of index maps. --model adds the trained prior; --images (pictures of the same
names) adds the prior with the coarse picture at QP 35. Every map is decoded and compared. Ratios
are of total bytes. JPEG XL needs pillow-jxl-plugin (extra jxl); the sizes of FLIF come from a JSON
file, since no Python package has a FLIF encoder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import in_one_line, load_labels, load_picture, new_parser, parse_size, save
from PIL import Image

from sempic import coarse, labels
from sempic.errors import JSON_FAULTS, InputError, refused
from sempic.evaluation.folders import find_pictures
from sempic.formats import has_jxl
from sempic.labels.payload import MODELS
from sempic.pictures import saved
from sempic.scene import LabelMap


def png(a: LabelMap) -> int:
    """At zlib's strongest compression and the least bit depth."""
    n = int(a.max()) + 1
    bits = next(b for b in (1, 2, 4, 8) if n <= 1 << b)
    image = Image.fromarray(a, "P")
    image.putpalette([v for i in range(n) for v in (i, i, i)])
    return len(saved(image, "PNG", optimize=True, bits=bits))


def webp(a: LabelMap) -> int:
    picture = Image.fromarray(np.stack([a] * 3, -1))
    return len(saved(picture, "WEBP", lossless=True, quality=100, method=6))


def jpeg_xl(a: LabelMap) -> int:
    return len(saved(Image.fromarray(a), "JXL", lossless=True, effort=9))


def flif_sizes(path: Path, setting: str) -> dict[str, int]:
    """name → bytes, of all parts of the data set: {PART: {NAME: {SETTING: bytes}}}."""
    causes = *JSON_FAULTS, KeyError, TypeError
    with refused(InputError, f"{path}: no bytes of FLIF at {setting!r}", *causes, unfit=True):
        parts = [part for part in json.loads(path.read_text()).values() if isinstance(part, dict)]
        return {name: sizes[setting] for part in parts for name, sizes in part.items()}


def stages(
    name: str, a: LabelMap, model: str | None, images: Path | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Our settings, each with the options of `labels.encode`."""
    yield "sempic", {}
    if model is None:
        return
    yield "+ prior", {"model": model}
    if images is None:
        return
    path = next(images.glob(f"{name}.*"), None)
    if path is None:
        raise SystemExit(f"{images} has no picture called {name}")
    picture = load_picture(path, (a.shape[1], a.shape[0]))
    payload = coarse.encode(coarse.downscale(picture, 4), quality=35, chroma="420")
    yield "+ coarse", {"model": model, "coarse": coarse.decode(payload)}


@in_one_line()
def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("folder", type=Path, help="index maps, *.png")
    parser.add_argument("--size", type=parse_size, metavar="WxH", help="resize (nearest) first")
    parser.add_argument("--flif", type=Path, help="JSON with FLIF's bytes by file name")
    parser.add_argument("--flif-setting", default="default")
    parser.add_argument("--only-ours", action="store_true", help="skip the other codecs")
    parser.add_argument("--model", choices=MODELS, help="also with this trained prior")
    parser.add_argument("--images", type=Path, help="also with the coarse picture of these")
    args = parser.parse_args()
    if args.images and not args.model:
        parser.error("--images is for --model")
    paths = find_pictures(args.folder, {".png"}, deep=False)
    flif = flif_sizes(args.flif, args.flif_setting) if args.flif else {}
    others: dict[str, Callable[[LabelMap], int]] = {}
    if not args.only_ours:
        others = {"PNG": png, "WebP": webp}
        if has_jxl():
            others["JPEG XL"] = jpeg_xl

    start = time.perf_counter()
    labels.decode(labels.encode(np.eye(8, dtype=np.uint8)), 8, 8)
    first = time.perf_counter() - start

    maps: list[dict[str, Any]] = []
    for path in paths:
        a = load_labels(path, args.size)
        row: dict[str, Any] = {"name": path.stem, "pixels": a.size}
        for stage, options in stages(path.stem, a, args.model, args.images):
            start = time.perf_counter()
            payload = labels.encode(a, **options)
            encoded = time.perf_counter()
            decoded = labels.decode(payload, *a.shape, coarse=options.get("coarse"))
            end = time.perf_counter()
            if not np.array_equal(decoded, a):
                raise SystemExit(f"{path}: the round trip of {stage} changed the map")
            row |= {stage: len(payload), f"{stage} s": (encoded - start, end - encoded)}
        row |= {name: other(a) for name, other in others.items()}
        if path.stem in flif:
            row["FLIF"] = flif[path.stem]
        maps.append(row)

    pixels = sum(m["pixels"] for m in maps)
    table = {}
    for name in ("sempic", "+ prior", "+ coarse", *others, "FLIF"):
        if all(name in m for m in maps):
            total = sum(m[name] for m in maps)
            table[name] = {"bytes": total, "mean": total / len(maps), "bpp": 8 * total / pixels}
    print(f"{len(maps)} maps, {pixels} pixels, all round trips exact; first call {first:.2f} s")
    seconds = {}
    reference = "FLIF" if "FLIF" in table else "PNG"
    against = f"/ {reference}" if reference in table else ""
    print(f"{'':10}{'bytes/map':>11}{'bpp':>9}{against:>9}{'encode':>9}{'decode':>9}")
    for name, row in table.items():
        ratio = f"{row['bytes'] / table[reference]['bytes']:9.3f}" if against else ""
        times = ""
        if all(f"{name} s" in m for m in maps):
            pair = np.median([m[f"{name} s"] for m in maps], 0)
            seconds[name] = {"encode": float(pair[0]), "decode": float(pair[1])}
            times = f"{pair[0]:7.3f} s{pair[1]:7.3f} s"
        print(f"{name:10}{row['mean']:11.1f}{row['bpp']:9.4f}{ratio:9}{times}")
    save(args, {"table": table, "seconds": seconds, "first_call": first, "maps": maps})


if __name__ == "__main__":
    main()
