"""Does coding at half the size help pictures without fine detail?

    python benchmarks/scale.py FOLDER [--glob '*-near*'] [--size 1280x720] [--limit N]
        [--patches] [--json OUT]

Takes the pictures that the encoder would code at half their size, and codes each twice at the
default quality: at half and at full size, which takes more bytes. Figures: LPIPS of both, the mean
difference, and its 95 % interval by bootstrap over pictures. --patches adds the same for patch FID,
at about 0.15 s a patch on one core.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
from common import add_folder, in_one_line, load_pictures, new_parser, save
from tqdm import tqdm

from sempic import api, halving
from sempic.evaluation import metrics
from sempic.evaluation.benchmark.tables import markdown
from sempic.evaluation.measure import Measure, Settings
from sempic.evaluation.measures import Record
from sempic.scene import Image

WAYS = ("at its size", "at half")
ROUNDS = 100
"""Of the bootstrap of patch FIDs."""


@in_one_line()
def main() -> None:
    parser = new_parser(__doc__)
    add_folder(parser)
    parser.add_argument("--patches", action="store_true", help="patch FID, too")
    args = parser.parse_args()
    soft = [picture for _, picture in load_pictures(args) if halving.is_soft(picture)]
    if len(soft) < 2:
        raise SystemExit(f"{args.folder}: no two pictures without fine detail")
    result = measure(soft, ["lpips", "patch_fid"] if args.patches else ["lpips"])
    print(f"{len(soft)} pictures of {args.folder} {args.glob}, the first {soft[0].shape[1::-1]}")
    print(describe(result))
    save(args, result)


def measure(shown: list[Image], wanted: list[str]) -> dict[str, Any]:
    """By metric: the figure of each of WAYS, "change" and its interval; and "bpp" of each."""
    codec = api.Codec()
    measured = Measure(Settings(metrics=tuple(wanted)))
    originals: list[Record] = []
    records: list[list[Record]] = [[], []]
    bits: list[list[float]] = [[], []]
    for picture in tqdm(shown, unit="picture", disable=None):
        reference = measured.reference(picture)
        originals.append(measured.original(reference))
        for way, soft in enumerate((False, True)):
            with mock.patch.object(halving, "is_soft", return_value=soft):
                stream = codec.encode(picture)
            bits[way].append(8 * len(stream) / picture[..., 0].size)
            records[way].append(measured(reference, np.asarray(codec.decode(stream))))
    result: dict[str, Any] = {"pictures": len(shown), "bpp": np.mean(bits, 1).tolist()}
    each = np.array([[record["lpips"] for record in way] for way in records])
    result["lpips"] = {
        "figures": each.mean(1).tolist(),
        "change": float((each[1] - each[0]).mean()),
        "interval": metrics.bootstrap(each[1] - each[0]),
        "better": int((each[1] < each[0]).sum()),
    }
    if "patch_fid" in wanted:
        there, *here = (
            [record["patch_fid"].astype(np.float64) for record in some]
            for some in (originals, *records)
        )
        result["patch FID"] = _patches(there, here)
    return result


def _patches(there: list[Any], here: list[list[Any]]) -> dict[str, Any]:
    """The patch FID of each of WAYS, of features (patches, D) of each picture."""

    def both(drawn: Any) -> list[float]:
        original = np.concatenate([there[i] for i in drawn])
        return [metrics.frechet(original, np.concatenate([way[i] for i in drawn])) for way in here]

    rng, count = np.random.default_rng(0), len(there)
    rounds = [both(rng.integers(0, count, count)) for _ in range(ROUNDS)]
    low, high = np.percentile([after - before for before, after in rounds], [2.5, 97.5])
    before, after = both(range(count))
    return {
        "figures": [before, after],
        "change": after - before,
        "interval": (float(low), float(high)),
        "patches": sum(map(len, there)),
    }


def describe(result: dict[str, Any]) -> str:
    """The table in Markdown."""
    rows = [["", *WAYS, "change", "95 %"], ["bpp", *(f"{x:.4f}" for x in result["bpp"]), "", ""]]
    lpips, patches = result["lpips"], result.get("patch FID")
    titled = [(f"LPIPS (lower in {lpips['better']} of {result['pictures']})", lpips, 4)]
    if patches is not None:
        titled.append((f"patch FID (N = {patches['patches']})", patches, 1))
    for title, line, digits in titled:
        low, high = (f"{end:+.{digits}f}" for end in line["interval"])
        figures = (f"{figure:.{digits}f}" for figure in line["figures"])
        rows.append([title, *figures, f"{line['change']:+.{digits}f}", f"{low} … {high}"])
    return "\n".join(markdown(rows))


if __name__ == "__main__":
    main()
