"""How many frames a second does this machine encode and decode, and does memory stay constant?

    python benchmarks/stream.py CLIP [--minutes 10] [--fps 10] [--size 341x256] [--bitrate 16k]

Encodes a tenth of the time frame by frame, decodes it, and so on, without pauses. The clip is
played forwards and backwards in turn, so that there are no scene cuts. After a second of warm-up
there is a line for each tenth: frames encoded and decoded in a second of elapsed time and in a
second of processor time (which other work on the machine does not change), bytes, and the memory of
the process.
"""

from __future__ import annotations

import itertools
import os
from fractions import Fraction
from pathlib import Path

from common import above_zero, in_one_line, new_parser, now, parse_size, positive

from sempic import api, sequence
from sempic.evaluation import clips
from sempic.sequence.painter import Painter


@in_one_line()
def main() -> None:
    parser = new_parser(__doc__, figures=False)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--minutes", type=above_zero, default=10, metavar="N", help="of video")
    parser.add_argument("--fps", type=positive, default=10, metavar="N")
    parser.add_argument("--size", type=parse_size, default=(341, 256), metavar="WxH")
    parser.add_argument("--bitrate", metavar="BITS")
    args = parser.parse_args()
    total = round(60 * args.minutes * args.fps)
    if total < 10:
        parser.error("--minutes: ten frames at least")
    rate = Fraction(args.fps)
    frames = clips.read(args.clip, size=args.size, rate=rate, count=100).frames
    coder = api.Codec()
    there_and_back = itertools.cycle([*frames, *frames[-2:0:-1]])
    options = {"bitrate": args.bitrate} if args.bitrate else {}
    pieces = sequence.encode(there_and_back, rate=args.fps, codec=coder, **options)
    unpacker, painter = sequence.Unpacker(), Painter(coder)
    print("{} frames of {}×{}, {}/s".format(total, *args.size, args.fps))
    print("  frame  encode/s  (CPU)  decode/s  (CPU)     bytes  memory, MB")
    part, done = total // 10, 0
    for count, warm in ((args.fps, False), *((part, True) for _ in range(10))):
        start = now()
        coded = list(itertools.islice(pieces, count))
        middle = now()
        moments = itertools.chain.from_iterable(map(unpacker.feed, coded))
        for _ in painter.paint_all(moments):
            pass
        end = now()
        done += count
        if warm:
            (a, b), (c, d) = count / (middle - start), count / (end - middle)
            speeds = f"{a:>10.1f}{b:>7.1f}{c:>10.1f}{d:>7.1f}"
            taken = sum(map(len, coded))
            print(f"{done:>7}{speeds}{taken:>10}{memory():>12.0f}", flush=True)


def memory() -> float:
    """Of this process now, in MB (Linux)."""
    text = Path("/proc/self/statm").read_text()
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
