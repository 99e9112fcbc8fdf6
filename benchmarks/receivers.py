"""How do several receivers compare in time and LPIPS, and how similar are their pictures?

    python benchmarks/receivers.py PICTURES A.onnx B.onnx … [--size 341x256] [--limit N] [--steps 1]

Each picture is encoded once and decoded by every receiver in turn, so that load on the machine
affects all alike. Time is the median of the receiver alone, without decoding of the labels, and its
ratio to the first receiver's. PSNR compares with the picture of the first receiver, LPIPS (if its
weights are installed) with the original.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from common import add_folder, load_pictures, new_parser, save

from sempic import api, codec
from sempic.errors import ModelError
from sempic.evaluation.metrics import psnr
from sempic.evaluation.networks import Lpips
from sempic.receive import Receiver


def main() -> None:
    parser = new_parser(__doc__)
    add_folder(parser)
    parser.add_argument("receivers", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=1)
    args = parser.parse_args()
    images = [picture for _, picture in load_pictures(args)]
    receivers = [Receiver(path) for path in args.receivers]
    try:
        measure = Lpips()
    except ModelError:
        measure = None
    coder = api.Codec()
    count = len(receivers)
    seconds: list[list[float]] = [[] for _ in receivers]
    near: list[list[float]] = [[] for _ in receivers]
    distance: list[list[float]] = [[] for _ in receivers]
    for index, image in enumerate([images[0], *images]):
        scene = codec.unpack(coder.encode(image))
        pictures = []
        for number, receiver in enumerate(receivers):
            start = time.perf_counter()
            pictures.append(receiver(scene, steps=args.steps))
            seconds[number].append(time.perf_counter() - start)
        if index == 0:  # warm now
            seconds = [[] for _ in receivers]
            continue
        for number, picture in enumerate(pictures):
            near[number].append(min(99.0, psnr(pictures[0], picture)))
            if measure is not None:
                features = measure.features(image)
                distance[number].append(measure.distance(features, measure.features(picture)))
    print(f"{len(images)} pictures, {args.steps} steps")
    print(f"{'MB':>6}{'ms':>8}{'ratio':>7}{'PSNR':>7}{'LPIPS':>8}")
    result = [
        {
            "receiver": str(args.receivers[n]),
            "bytes": args.receivers[n].stat().st_size,
            "seconds": statistics.median(seconds[n]),
            "psnr": statistics.median(near[n]),
            "lpips": statistics.mean(distance[n]) if measure is not None else None,
        }
        for n in range(count)
    ]
    for entry in result:
        lpips = "-" if entry["lpips"] is None else f"{entry['lpips']:.3f}"
        print(
            f"{entry['bytes'] / 1e6:6.1f}{1000 * entry['seconds']:8.1f}"
            f"{entry['seconds'] / result[0]['seconds']:7.2f}{entry['psnr']:7.1f}{lpips:>8}"
            f"  {entry['receiver']}"
        )
    save(args, result)


if __name__ == "__main__":
    main()
