"""How long do encoding and decoding take on this machine, and how much memory?

    python benchmarks/speed.py PICTURES [--size 341x256] [--limit 20] [--json OUT]

Warm: in one process with models loaded, the median over the pictures. Cold: a whole command, from
the start of the interpreter to its end, the median of three. Memory: peak of such a command.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from timeit import timeit
from typing import Any

from common import add_folder, in_one_line, load_pictures, machine, new_parser, save

from sempic import api, codec, pictures

STEPS = (1, 4)


@in_one_line()
def main() -> None:
    parser = new_parser(__doc__)
    add_folder(parser)
    args = parser.parse_args()
    found = load_pictures(args)
    height, width = found[0][1].shape[:2]

    warm = measure_warm([picture for _, picture in found])
    with tempfile.TemporaryDirectory() as folder:
        cold = measure_cold(pictures.encode(found[0][1], ".png"), Path(folder))
    print(f"{machine()}, Python {platform.python_version()}")
    print(f"{len(found)} pictures of {args.folder}, the first of {width}×{height}")
    print("\nwarm, median                seconds")
    for name, seconds in warm.items():
        print(f"  {name:<24}{seconds:>9.3f}")
    print("\ncold command line           seconds   peak MB")
    for name, (seconds, peak) in cold.items():
        print(f"  {name:<24}{seconds:>9.2f}{peak:>10.0f}")
    figures = {
        "machine": machine(),
        "folder": str(args.folder),
        "pictures": len(found),
        "width": width,
        "height": height,
        "warm_seconds": warm,
        "cold": {n: {"seconds": s, "peak_mb": p} for n, (s, p) in cold.items()},
    }
    save(args, figures)


def measure_warm(images: list[Any]) -> dict[str, float]:
    coder = api.Codec()
    streams = [coder.encode(images[0])]  # loads and compiles all that there is
    coder.decode(streams[0], steps=1)
    times = {"encode": timed(coder.encode, images)}
    times["  segmenter alone"] = timed(coder.segmenter, images)
    streams = [coder.encode(image) for image in images]
    times["unpack"] = timed(codec.unpack, streams)
    for steps in STEPS:
        decode = partial(coder.decode, steps=steps)
        times[f"decode, {steps} step{'s' * (steps > 1)}"] = timed(decode, streams)
    return times


def timed(call: Callable[[Any], Any], items: list[Any]) -> float:
    """Median seconds of a call."""
    return statistics.median(timeit(partial(call, item), number=1) for item in items)


def measure_cold(photo: bytes, folder: Path) -> dict[str, tuple[float, float]]:
    """Median seconds and peak MB of whole command lines."""
    (folder / "photo.png").write_bytes(photo)
    commands = {"sempic encode": "photo.png", "sempic info": "photo.sempic"}
    for steps in STEPS:
        commands[f"sempic decode --steps {steps}"] = "photo.sempic -o out.png"
    figures = {}
    for name, files in commands.items():
        arguments = [*name.split()[1:], *files.split()]
        runs = [command(arguments, folder) for _ in range(3)]
        figures[name] = (statistics.median(r[0] for r in runs), max(r[1] for r in runs))
    return figures


def command(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Seconds and peak resident MB of one `sempic …` in a process of its own."""
    probe = (
        "import resource, subprocess, sys\n"
        "code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    )
    sempic = [sys.executable, "-m", "sempic.cli", *arguments]
    run = partial(subprocess.run, sempic, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    seconds = timeit(run, number=1)
    done = subprocess.run(
        [sys.executable, "-c", probe, *sempic],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, int(done.stdout) * unit / 1e6


if __name__ == "__main__":
    main()
