"""How fast do worker processes and Ray Data encode a folder, and do both write the same bytes?

    python benchmarks/batch.py TRAIN VAL --max-side 341 [--jobs 2] [--engines pool,ray] [--limit N]

Each time includes the start of the engine; beside it stands the rate from the first result on.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from common import in_one_line, listed, new_parser, positive, save
from tqdm import tqdm

from sempic import batch, pictures
from sempic.jobs import find
from sempic.options import EncodeOptions

ENGINES = {"pool": batch.in_processes, "ray": batch.in_ray}


@in_one_line()
def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("folders", nargs="+", help="pictures, searched at any depth")
    parser.add_argument("--jobs", type=positive, default=2, metavar="N", help="workers; default 2")
    parser.add_argument("--engines", type=listed(str), default=list(ENGINES), metavar="A,B")
    parser.add_argument("--max-side", type=int, metavar="PIXELS", help="as of sempic encode")
    parser.add_argument("--limit", type=positive, metavar="N", help="take the first N pictures")
    args = parser.parse_args()
    if unknown := [name for name in args.engines if name not in ENGINES]:
        parser.error(f"--engines: {', '.join(unknown)} is not one of {', '.join(ENGINES)}")

    work = batch.Encode(options=EncodeOptions(max_side=args.max_side))
    files: dict[str, dict[str, bytes]] = {}
    rows = {}
    print("engine  pictures     bytes  seconds  first result  pictures/s  after the first")
    for engine in args.engines:
        with tempfile.TemporaryDirectory() as folder:
            jobs = find(args.folders, f"{folder}/", accepted=pictures.SUFFIXES, suffix=".sempic")[
                : args.limit
            ]
            start, times = time.perf_counter(), []
            for _, (record,) in tqdm(
                ENGINES[engine](work, jobs, args.jobs), total=len(jobs), desc=engine, disable=None
            ):
                times.append(time.perf_counter() - start)
                if "error" in record:
                    raise SystemExit(f"{record['path']}: {record['error']}")
            whole = time.perf_counter() - start
            made = sorted(Path(folder).rglob("*.sempic"))
            files[engine] = {p.relative_to(folder).as_posix(): p.read_bytes() for p in made}
        row = rows[engine] = {
            "pictures": len(jobs),
            "bytes": sum(map(len, files[engine].values())),
            "seconds": whole,
            "first_result": times[0],
            "per_second": len(jobs) / whole,
            "per_second_after_first": (len(jobs) - 1) / max(times[-1] - times[0], 1e-9),
        }
        print(
            f"{engine:<8}{row['pictures']:>8}{row['bytes']:>10}{row['seconds']:>9.1f}"
            f"{row['first_result']:>14.1f}{row['per_second']:>12.2f}"
            f"{row['per_second_after_first']:>17.2f}",
            flush=True,
        )
    same = all(made == files[args.engines[0]] for made in files.values())
    print(f"{args.jobs} workers each; the files are {'the same' if same else 'NOT THE SAME'}")
    save(args, {"engines": rows, "same": same})
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
