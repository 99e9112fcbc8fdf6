"""How do several receivers compare in time and LPIPS, and how similar are their pictures?

    python benchmarks/receivers.py PICTURES A.onnx B.onnx … [--size 341x256] [--limit N] [--steps 1]

Each picture is encoded once and decoded by every receiver in turn, so that load on the machine
affects all alike. Time is the median of the receiver alone, without decoding of the labels, and its
ratio to the first receiver's. PSNR, a median of at most 99 dB, compares with the picture of the
first receiver; LPIPS, a mean (if its weights are installed), with the original.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from common import add_folder, in_one_line, load_pictures, new_parser, positive, save

from sempic import api, codec
from sempic.errors import ModelError
from sempic.evaluation.metrics import psnr
from sempic.evaluation.networks import Lpips
from sempic.receive import Receiver


@in_one_line()
def main() -> None:
    parser = new_parser(__doc__)
    add_folder(parser)
    parser.add_argument("receivers", type=Path, nargs="+")
    parser.add_argument("--steps", type=positive, default=1)
    args = parser.parse_args()
    images = [picture for _, picture in load_pictures(args)]
    receivers = [Receiver(path) for path in args.receivers]
    try:
        measure = Lpips()
    except ModelError:
        measure = None
    coder = api.Codec()
    scenes = [codec.unpack(coder.encode(image)) for image in images]
    for receiver in receivers:  # loads and compiles
        receiver(scenes[0], steps=args.steps)
    seconds, near, distance = ([[] for _ in receivers] for _ in range(3))
    for image, scene in zip(images, scenes, strict=True):
        pictures = []
        for receiver, taken in zip(receivers, seconds, strict=True):
            start = time.perf_counter()
            pictures.append(receiver(scene, steps=args.steps))
            taken.append(time.perf_counter() - start)
        for picture, decibels, distances in zip(pictures, near, distance, strict=True):
            decibels.append(min(99.0, psnr(pictures[0], picture)))
            if measure is not None:
                features = map(measure.features, (image, picture))
                distances.append(measure.distance(*features))
    print(f"{len(images)} pictures, {args.steps} steps")
    print(f"{'MB':>6}{'ms':>8}{'ratio':>7}{'PSNR':>7}{'LPIPS':>8}")
    result = [
        {
            "receiver": str(path),
            "bytes": path.stat().st_size,
            "seconds": statistics.median(seconds[n]),
            "psnr": statistics.median(near[n]),
            "lpips": statistics.mean(distance[n]) if measure is not None else None,
        }
        for n, path in enumerate(args.receivers)
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
