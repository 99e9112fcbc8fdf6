"""Does `sempic serve` answer correctly and steadily under load?

    python benchmarks/serve_load.py --minutes 5
    python benchmarks/serve_load.py --minutes 5 --junk 0.2 --kill-every 30

Starts a server on a free port of the loopback interface, and clients that send one request after
another: encode, decode, label map, info, JPEG at equal bytes, and invalid data. Every answer is
compared byte for byte with the library's result in this process. After a 429 a client waits as long
as the answer says, and asks again. --kill-every kills a worker process at this interval, which may
cost only the request in progress. Figures: lost and wrong answers, latency and resident memory.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import numpy as np
from common import above_zero, in_one_line, new_parser, positive, save
from tqdm import tqdm

from sempic import processes
from sempic.server.settings import Settings

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Query:
    """A request and its right answer."""

    name: str
    path: str
    body: bytes
    status: int
    answer: bytes | None
    """None: only the status counts."""


@dataclass
class Tally:
    """What happened, filled by all clients."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    sent: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    died: int = 0
    """Answers that the worker died."""
    asked_to_wait: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def queries() -> list[Query]:
    """Some of every kind, with answers from the library."""
    import sempic
    from sempic import pictures
    from sempic.server.coder import best_within

    street = (ROOT / "examples/street.sempic").read_bytes()
    first = np.array(sempic.decode(street, steps=1))
    made = []
    for picture in (first, np.ascontiguousarray(first[:, ::-1])):
        file = pictures.encode(picture, ".png")
        for quality in (2, 5, 8):
            stream = sempic.encode(picture, quality=quality)
            made.append(Query("encode", f"/encode?quality={quality}", file, 200, stream))
        for steps, seed in ((1, 0), (1, 1), (2, 0)):
            decoded = np.asarray(sempic.decode(stream, steps=steps, seed=seed))
            query = urlencode({"steps": steps, "seed": seed})
            right = pictures.encode(decoded, ".png")
            made.append(Query("decode", f"/decode?{query}", stream, 200, right))
        scene = sempic.unpack(stream)
        assert scene.labels is not None
        right = pictures.encode_labels(scene.labels, sempic.PALETTES[scene.palette], ".png")
        made.append(Query("labels", "/decode?only=labels", stream, 200, right))
        right = json.dumps(sempic.info(stream), separators=(",", ":")).encode()
        made.append(Query("info", "/info", stream, 200, right))
        path = "/compare?codec=jpeg&bytes=1500"
        made.append(Query("compare", path, file, 200, best_within(picture, "jpeg", 1500)[0]))
        made.append(Query("junk", "/decode", stream[:-1], 422, None))
        made.append(Query("junk", "/encode", stream, 422, None))
    return made


def client(
    address: str, asked: list[Query], junk: float | None, tally: Tally, until: float, seed: int
) -> None:
    """Asks one after another; `junk` is the share of junk, None: as many as of the others."""
    chance = random.Random(seed)
    kinds = [[q for q in asked if (q.name == "junk") is bad] for bad in (False, True)]
    server = urlsplit(address)
    connection = http.client.HTTPConnection(server.hostname or "", server.port, timeout=120)
    while time.monotonic() < until:
        query = chance.choice(asked if junk is None else kinds[chance.random() < junk])
        with tally.lock:
            tally.sent += 1
        start = time.monotonic()
        try:
            status, body, wait = send(connection, query)
            while status == 429:
                with tally.lock:
                    tally.asked_to_wait += 1
                time.sleep(wait)
                status, body, wait = send(connection, query)
        except (OSError, http.client.HTTPException) as error:
            with tally.lock:
                tally.lost[f"{query.name}: {type(error).__name__}"] += 1
            connection.close()
            continue
        with tally.lock:
            tally.seconds[query.name].append(time.monotonic() - start)
            if status == 500 and b"worker process died" in body:
                tally.died += 1
            elif status != query.status:
                tally.lost[f"{query.name}: {status} {body[:100]!r}"] += 1
            elif query.answer is not None and body != query.answer:
                tally.wrong[query.name] += 1
    connection.close()


def send(connection: http.client.HTTPConnection, query: Query) -> tuple[int, bytes, float]:
    connection.request("POST", query.path, query.body)
    answer = connection.getresponse()
    return answer.status, answer.read(), float(answer.headers.get("Retry-After", 0))


def memory(root: int) -> float:
    """Resident memory of a process and all below it, in MiB (Linux)."""
    return sum(family(root).values()) * os.sysconf("SC_PAGE_SIZE") / 2**20


def family(root: int) -> dict[int, int]:
    """A process and all below it, each with its resident pages (Linux)."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(after_name[1]), int(after_name[21])
            except OSError:  # it has just ended
                continue
    found = {root}
    while more := {pid for pid, (parent, _) in parents.items() if parent in found} - found:
        found |= more
    return {pid: parents[pid][1] for pid in found if pid in parents}


def kill_a_worker(root: int, chance: random.Random) -> int:
    """Kills one of a server's worker processes; how many it killed."""
    workers = []
    for pid in family(root).keys() - {root}:
        with contextlib.suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                workers.append(pid)
    for pid in chance.sample(workers, min(1, len(workers))):
        os.kill(pid, signal.SIGKILL)
    return min(1, len(workers))


@in_one_line()
def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--clients", type=positive, default=16)
    parser.add_argument("--minutes", type=above_zero, default=5)
    parser.add_argument("--workers", type=positive, default=2)
    parser.add_argument("--queue", type=positive, default=16)
    parser.add_argument("--seconds", type=above_zero, default=60, help="the server's time limit")
    parser.add_argument("--junk", type=float, help="share of the requests that cannot be answered")
    parser.add_argument("--kill-every", type=above_zero, default=math.inf, metavar="SECONDS")
    args = parser.parse_args()

    cores = processes.cores()
    os.environ["SEMPIC_THREADS"] = str(max(1, cores // args.workers))  # as the server
    options = ("workers", "queue", "seconds")
    Settings(**{name: getattr(args, name) for name in options})  # refuses what the server would
    asked = queries()
    command = [sys.executable, "-m", "sempic.cli", "serve", "--port", "0"]
    command += [part for name in options for part in (f"--{name}", str(getattr(args, name)))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        log = map(json.loads, iter(server.stderr.readline, ""))
        address = next((line["url"] for line in log if line["message"] == "serving"), None)
        if address is None:
            raise SystemExit("the server did not start")
        drain = threading.Thread(target=lambda: [None for _ in log], daemon=True)
        drain.start()
        tally, sizes = Tally(), [memory(server.pid)]
        start = time.monotonic()
        until = start + 60 * args.minutes
        threads = [
            threading.Thread(target=client, args=(address, asked, args.junk, tally, until, seed))
            for seed in range(args.clients)
        ]
        for thread in threads:
            thread.start()
        chance, kills, next_kill = random.Random(0), 0, start + args.kill_every
        with tqdm(total=round(60 * args.minutes), unit="s", disable=None) as bar:
            while time.monotonic() < until:
                time.sleep(1)
                bar.update(1)
                sizes.append(memory(server.pid))
                if time.monotonic() >= next_kill:
                    next_kill += args.kill_every
                    kills += kill_a_worker(server.pid, chance)
        for thread in threads:
            thread.join()
        elapsed = time.monotonic() - start
        server.terminate()
        code = server.wait(60)

    answered = sum(map(len, tally.seconds.values()))
    lost, wrong = sum(tally.lost.values()), sum(tally.wrong.values())
    print(f"{args.clients} clients, {args.workers} workers, {elapsed:.0f} s on loopback")
    print(f"requests {tally.sent}, answered {answered} ({answered / elapsed:.2f}/s)")
    if kills:
        print(f"workers killed {kills}, requests that this cost {tally.died}")
    lost += max(0, tally.died - kills)
    print(f"lost {lost}, wrong {wrong}, asked to wait {tally.asked_to_wait}, exit code {code}")
    for what, number in (tally.lost + tally.wrong).items():
        print(f"  {number} × {what}")
    everything = [s for times in tally.seconds.values() for s in times]
    if not everything:
        raise SystemExit("no request was answered")
    rows = [*sorted(tally.seconds.items()), ("all", everything)]
    p50, p99 = map(float, np.percentile(everything, (50, 99)))
    print(f"{'':<10}{'requests':>9}{'p50, s':>9}{'p99, s':>9}{'max, s':>9}")
    for name, times in rows:
        low, high = np.percentile(times, (50, 99))
        print(f"{name:<10}{len(times):>9}{low:>9.3f}{high:>9.3f}{max(times):>9.3f}")
    idle, *later = sizes
    trace = [round(float(np.mean(part))) for part in np.array_split(later, 10) if len(part)]
    print(f"resident memory, MiB: idle {idle:.0f}, then by tenths {trace}")
    result = {
        "requests": tally.sent, "answered": answered, "lost": lost, "wrong": wrong,
        "asked_to_wait": tally.asked_to_wait, "seconds": elapsed, "memory": trace,
        "p50": p50, "p99": p99,
    }  # fmt: skip
    save(args, result)
    return 1 if lost or wrong or code else 0


if __name__ == "__main__":
    sys.exit(main())
