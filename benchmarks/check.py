"""What do checks (`sempic encode --check`) gain and cost, and are their receipts right?

    python benchmarks/check.py PICTURES [--glob 'nuscenes-*'] [--size 341x256] [--limit N]
        [--labels MAPS] [--palette camvid] [--budget 0.25] [--avif 1 2] [--effort slowest]
        [--json OUT]

The evaluation's judge, which encoding does not use, counts the objects kept and invented:

- in pictures decoded without and with the check,
- with --avif in AVIF files nearest in size to once and twice our file without the check (the
  smallest AVIF file may be larger),
- in the originals as JPEG.

With --labels, index maps of the same names, objects that the map confirms are counted, too. A
second table has the pictures in which receipt and judge agree, or do not, that an object was lost
or invented. A third has the median processor time and elapsed time without and with the check,
measured in turn on each picture.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import add_folder, load_labels, load_pictures, new_parser, save
from tqdm import tqdm

import sempic
from sempic import api, models, segment
from sempic.critical import BUDGET, GROUPS
from sempic.evaluation import codecs
from sempic.evaluation.benchmark import dial
from sempic.evaluation.measure import SIDE
from sempic.evaluation.measures.objects import REFERENCE_QUALITY, as_jpeg, confirmed, count
from sempic.palette import BY_NAME, PALETTES, translate
from sempic.scene import Image, LabelMap


def main() -> None:
    parser = new_parser(__doc__)
    add_folder(parser)
    parser.add_argument("--labels", type=Path, metavar="MAPS", help="what is really there")
    parser.add_argument("--palette", choices=BY_NAME, default="camvid", help="of --labels")
    parser.add_argument("--budget", type=float, default=BUDGET, help="as --check-budget")
    parser.add_argument(
        "--avif", type=int, nargs="*", default=[1, 2], metavar="N", help="at N times our bytes"
    )
    parser.add_argument("--effort", choices=codecs.EFFORTS, default=codecs.EFFORTS[0], help="its")
    parser.add_argument("--judge", metavar="SPEC", help="an ONNX file; default: the bundled judge")
    args = parser.parse_args()
    paths = load_pictures(args)
    found = [picture for _, picture in paths]
    judge = segment.load(args.judge or str(models.find(models.JUDGE)), side=SIDE)
    maps, palette = [], BY_NAME[args.palette]
    for path, _ in paths if args.labels else ():
        labels = load_labels(args.labels / f"{path.stem}.png", args.size)
        maps.append(translate(palette.settle(labels), palette.id, judge.palette))
    result = measure(found, maps, judge, args.budget, args.avif, args.effort)
    print(f"{len(found)} pictures of {args.folder} {args.glob}, the first {found[0].shape[1::-1]}")
    print(describe(result))
    save(args, result)


def measure(
    pictures: list[Image],
    maps: list[LabelMap],
    judge: Any,
    budget: float,
    avif: list[int],
    effort: str,
) -> dict[str, Any]:
    """The figures by name; what has objects in it has one list for each of GROUPS. maps: one for
    each picture, or none at all. avif: how many times our bytes it may take."""
    codec, palette = api.Codec(), PALETTES[judge.palette]
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "checked": {"check": True, "check_budget": budget},
    }
    rivals = {f"avif{times}": times for times in avif}
    rival = codecs.load("avif", effort=effort) if avif else None
    objects = {way: np.zeros((len(GROUPS), 3), np.int64) for way in (*ways, *rivals, "jpeg")}
    true = {way: np.zeros((len(GROUPS), 2), np.int64) for way in objects}
    bits: dict[str, list[float]] = {way: [] for way in (*ways, *rivals)}
    seconds: dict[str, list[list[float]]] = {way: [] for way in ways}
    agreement = {what: np.zeros((2, 2), np.int64) for what in ("lost", "invented", "either")}
    for options in ways.values():  # networks are loaded, kernels compiled
        codec.decode(codec.encode(pictures[0], **options))

    def add(way: str, before: LabelMap, shown: Image, truth: LabelMap | None) -> Any:
        after = judge(shown)
        counts = count(before, after, palette)
        objects[way] += counts
        if truth is not None:
            tallies = (c.tally for c in confirmed(before, after, truth, palette).values())
            true[way] += np.array([(tally.seen, tally.kept) for tally in tallies])
        return counts

    rows = zip(pictures, maps or [None] * len(pictures), strict=True)
    for picture, truth in tqdm(rows, total=len(pictures), unit="picture", disable=None):
        before = judge(picture)
        add("jpeg", before, as_jpeg(picture), truth)
        for way, options in ways.items():
            stream, *taken = _timed(functools.partial(codec.encode, picture, **options))
            seconds[way].append(taken)
            bits[way].append(8 * len(stream) / picture[..., 0].size)
            counts = add(way, before, np.asarray(codec.decode(stream)), truth)
        targets = [times * bits["plain"][-1] for times in avif]
        for way, (bpp, shown) in zip(rivals, _nearest(rival, picture, targets), strict=True):
            bits[way].append(bpp)
            add(way, before, shown, truth)
        receipt = sempic.info(stream)["receipt"]["groups"].values()
        there, kept, invented = counts.sum(0)
        said = {what: any(tally[what] for tally in receipt) for what in ("lost", "invented")}
        judged = {"lost": kept < there, "invented": invented > 0}
        for what, table in agreement.items():
            by = (
                any(found.values()) if what == "either" else found[what] for found in (said, judged)
            )
            table[tuple(map(int, by))] += 1
    return {
        "pictures": len(pictures),
        "bpp": {way: float(np.mean(each)) for way, each in bits.items()},
        "objects": {way: each.tolist() for way, each in objects.items()},
        "confirmed": {way: each.tolist() for way, each in true.items()} if maps else None,
        "agreement": {what: table.tolist() for what, table in agreement.items()},
        "seconds": {
            way: [statistics.median(each) for each in zip(*taken, strict=True)]
            for way, taken in seconds.items()
        },
    }


def describe(result: dict[str, Any]) -> str:
    """The results of `measure` as tables."""
    titles = {"plain": "without", "checked": "with"}
    rivals = [way for way in result["bpp"] if way not in titles]
    titles |= {way: f"AVIF, {way.removeprefix('avif')} × bytes" for way in rivals}
    titles["jpeg"] = f"JPEG {REFERENCE_QUALITY}"
    names = (*GROUPS, "all")
    lines = ["kept / invented   bpp     " + "".join(f"{name:<18}" for name in names)]
    for way, title in titles.items():
        groups = [*result["objects"][way], np.sum(result["objects"][way], 0)]
        cells = "".join(f"{f'{k} of {n} / {i}':<18}" for n, k, i in groups)
        bpp = f"{result['bpp'][way]:.4f}" if way in result["bpp"] else ""
        lines.append(f"{title:<18}{bpp:<8}{cells}")
    if result["confirmed"]:
        lines.append("confirmed, kept")
        for way, title in titles.items():
            groups = [*result["confirmed"][way], np.sum(result["confirmed"][way], 0)]
            cells = "".join(f"{f'{k} of {n}':<18}" for n, k in groups)
            lines.append(f"{title:<26}{cells}")
    for what, table in result["agreement"].items():
        right = (table[0][0] + table[1][1]) / result["pictures"]
        lines.append(
            f"\n{what} by receipt and judge: neither {table[0][0]}, receipt alone {table[1][0]}, "
            f"judge alone {table[0][1]}, both {table[1][1]}; they agree on {right:.0%}"
        )
    plain, checked = result["seconds"].values()
    lines.append("\nseconds                 processor  clock")
    for title, taken in (("encode", plain), ("encode --check", checked)):
        lines.append(f"{title:<24}{taken[0]:<11.3f}{taken[1]:.3f}")
    shares = [(c - p) / p for c, p in zip(checked, plain, strict=True)]
    lines.append(f"{'the check, of encode':<24}{shares[0]:<11.2f}{shares[1]:.2f}")
    return "\n".join(lines)


def _nearest(
    rival: codecs.PictureCodec | None, picture: Image, targets: list[float]
) -> Iterator[tuple[float, Image]]:
    """(bpp, decoded picture) of the file nearest to each target, in bits per pixel."""
    if rival is None:
        return
    height, width = picture.shape[:2]
    coded = functools.cache(lambda at: rival.encode(picture, rival.settings[at]))

    def rate(at: int) -> float:
        return 8 * len(coded(at)) / (height * width)

    for target in targets:
        at = dial.nearest_from_below(rate, len(rival.settings), target)
        yield rate(at), rival.decode(coded(at), width, height)


def _timed(work: Callable[[], bytes]) -> tuple[bytes, float, float]:
    """The result, processor seconds and elapsed seconds."""
    processor, clock = time.process_time(), time.perf_counter()
    stream = work()
    return stream, time.process_time() - processor, time.perf_counter() - clock


if __name__ == "__main__":
    main()
