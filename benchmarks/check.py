"""What does a check (`sempic encode --check`) cost, and is its receipt right?

    python benchmarks/check.py PICTURES [--glob 'nuscenes-*'] [--size 341x256] [--limit N]
        [--budget 0.25] [--judge ONNX] [--json OUT]

Counts the pictures in which the receipt and the evaluation's judge, which encoding does not use,
agree, or do not, that an object was lost or invented. Prints the bits per pixel, and the median
processor time and elapsed time without and with the check, measured in turn on each picture.

How many objects a check keeps is a row of `benchmarks/roads.py`:

    python benchmarks/roads.py PICTURES --rows ours,checked,avif,avif2,jpeg
        --metrics objects,confirmed [--labels MAPS] [--palette camvid] [--short-side 256]
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import add_folder, in_one_line, load_pictures, new_parser, now, save
from tqdm import tqdm

import sempic
from sempic import api
from sempic.critical import BUDGET
from sempic.evaluation.measure import Measure, Settings
from sempic.evaluation.measures.objects import count
from sempic.palette import PALETTES
from sempic.scene import Image


@in_one_line()
def main() -> None:
    parser = new_parser(__doc__)
    add_folder(parser)
    parser.add_argument("--budget", type=float, default=BUDGET, help="as --check-budget")
    parser.add_argument("--judge", metavar="SPEC", help="an ONNX file; default: the bundled judge")
    args = parser.parse_args()
    found = [picture for _, picture in load_pictures(args)]
    judge = Measure(Settings(judge=args.judge)).finder
    result = measure(found, judge, args.budget)
    print(f"{len(found)} pictures of {args.folder} {args.glob}, the first {found[0].shape[1::-1]}")
    print(describe(result))
    save(args, result)


def measure(pictures: list[Image], judge: Any, budget: float) -> dict[str, Any]:
    """The figures by name."""
    codec, palette = api.Codec(), PALETTES[judge.palette]
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "checked": {"check": True, "check_budget": budget},
    }
    bits: dict[str, list[float]] = {way: [] for way in ways}
    seconds: dict[str, list[np.ndarray]] = {way: [] for way in ways}
    agreement = {what: np.zeros((2, 2), np.int64) for what in ("lost", "invented", "either")}
    for options in ways.values():  # networks are loaded, kernels compiled
        codec.decode(codec.encode(pictures[0], **options))
    for picture in tqdm(pictures, unit="picture", disable=None):
        for way, options in ways.items():
            start = now()
            stream = codec.encode(picture, **options)
            seconds[way].append(now() - start)
            bits[way].append(8 * len(stream) / picture[..., 0].size)
        shown = np.asarray(codec.decode(stream))
        there, kept, invented = count(judge(picture), judge(shown), palette).sum(0)
        receipt = sempic.info(stream)["receipt"]["groups"].values()
        said = {what: any(tally[what] for tally in receipt) for what in ("lost", "invented")}
        judged = {"lost": kept < there, "invented": invented > 0}
        for found in (said, judged):
            found["either"] = any(found.values())
        for what, table in agreement.items():
            table[int(said[what]), int(judged[what])] += 1
    return {
        "pictures": len(pictures),
        "bpp": {way: float(np.mean(each)) for way, each in bits.items()},
        "agreement": {what: table.tolist() for what, table in agreement.items()},
        "seconds": {way: np.median(taken, 0)[::-1].tolist() for way, taken in seconds.items()},
    }


def describe(result: dict[str, Any]) -> str:
    """The results of `measure` as lines."""
    lines = ["bpp {plain:.4f}, with the check {checked:.4f}".format(**result["bpp"])]
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


if __name__ == "__main__":
    main()
