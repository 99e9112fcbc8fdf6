"""Do damaged files always give a result or one of our errors?

    pip install atheris     # optional: mutations guided by coverage instead of blind ones
    python benchmarks/fuzz.py labels --minutes 30 --corpus corpus/labels
    python benchmarks/fuzz.py --minutes 1           # all targets, one after another

The seeds are the vectors and some files made here. An input that raises another exception is
printed and saved as crash-TARGET-HASH in the folder of --crashes, and the exit code is 1. Add such
inputs to tests/test_fuzz.py.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import io
import random
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image

try:
    import atheris
except ModuleNotFoundError:
    atheris = None
ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
# Numba cannot compile functions that are instrumented; NumPy and Pillow would take minutes.
compiled = [
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in SOURCE.rglob("*.py")
    if "compiling" in path.read_text(encoding="utf-8")
]
guided = (
    atheris.instrument_imports(include=["sempic"], exclude=compiled)
    if atheris
    else contextlib.nullcontext()
)
with guided:
    import sempic
    from sempic import batch, coarse, labels, pictures
    from sempic.batch import tar
    from sempic.errors import SempicError, SempicWarning
    from sempic.formats import has_jxl
    from sempic.labels import payload, prior
    from sempic.pictures import saved

SIZE = 24, 32
"""Height and width of the label maps whose payloads are damaged."""
OWN = dataclasses.replace(
    prior.load(payload.WEIGHTS[3]), palette="camvid", digest=hashlib.sha256(b"own").hexdigest()[:8]
)
"""A bundled prior as if it were one's own."""


def signed(data: bytes) -> bytes:
    """A stream whose checksum is right again, so that what lies behind it is reached."""
    return data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little")


def stream(data: bytes) -> None:
    sempic.unpack(signed(data), max_pixels=1 << 16)


def bpg(data: bytes) -> None:
    width, height = coarse.open(data).size
    if width * height <= 1 << 14:
        coarse.to_rgb(coarse.decode(data))


def label_payload(data: bytes) -> None:
    labels.decode(data, *SIZE, own=OWN)


def small(read: Callable[[bytes], object]) -> Callable[[bytes], object]:
    def bounded(data: bytes) -> None:
        width, height = pictures.peek(data)
        if width * height <= 1 << 16:
            read(data)

    return bounded


def manifest(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.write(data)
        file.flush()
        with contextlib.ExitStack() as held:
            batch.Manifest(Path(file.name), {"quality": 5}, held).remaining([])


def shard(data: bytes) -> None:
    if len(data) < 1 << 20:
        tar.change(data, lambda member: member.data[:1], tar.pictures, ".sempic")


TARGETS: dict[str, Callable[[bytes], object]] = {
    "container": lambda data: sempic.info(data),
    "stream": stream,
    "bpg": bpg,
    "labels": label_payload,
    "label-png": small(pictures.read_labels),
    "picture": small(pictures.read),
    "manifest": manifest,
    "tar": shard,
}


def seeds(target: str) -> list[bytes]:
    """Whole files that a target takes."""
    rng = np.random.default_rng(0)
    map_ = np.kron(rng.integers(0, 12, (3, 4)), np.ones((8, 8))).astype(np.uint8)
    image = PIL.Image.fromarray(rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8))

    if target in ("container", "stream"):
        files = sorted((ROOT / "vectors").rglob("*.sempic"))
        return [f.read_bytes() for f in files if f.stat().st_size < 4096]
    if target == "bpg":
        return [coarse.encode(np.asarray(image), quality=q) for q in (20, 45)]
    if target == "labels":
        named = labels.encode(map_, model="camvid")
        mine = named[:2] + b"\0" + bytes.fromhex(OWN.digest) + named[3:]
        return [labels.encode(map_), named, mine, labels.encode(map_ * 0)]
    if target == "label-png":
        painted = PIL.Image.fromarray(map_)
        painted.putpalette(sempic.PALETTES[1].table().tobytes())
        return [saved(p, "PNG", bits=8) for p in (PIL.Image.fromarray(map_), painted)]
    if target == "picture":
        exif = PIL.Image.Exif()
        exif[0x0112] = 6
        formats = ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "TGA", "JPEG2000"]
        formats += ["JXL"] * has_jxl()
        return [
            saved(image, f, **({"exif": exif} if f in ("PNG", "JPEG") else {})) for f in formats
        ]
    if target == "manifest":
        head = b'{"settings": {"quality": 5}}\n'
        return [
            head + b'{"file": "a", "output": "b", "error": null}\n',
            head + b"[" * 3000 + b"\n",  # deeper than Python's parser goes
            b"[" * 3000 + b"\n",
        ]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in (("a.png", saved(image, "PNG")), ("a.cls", b"7"), ("a.seg.png", b"?")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return [out.getvalue()]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Bits flipped, bytes set, inserted, cut out or repeated, at one to four places."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, size = rng.randrange(len(out) + 1), rng.choice((1, 1, 2, 4, 16))
        how = rng.randrange(6)
        if how == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            out[at : at + size] = rng.randbytes(size)
        elif how == 2:
            out[at : at + size] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * size
        elif how == 3:
            out[at:at] = rng.randbytes(size)
        elif how == 4:
            del out[at : at + size * 4]
        else:
            out[at:at] = out[at : at + size * 4]
    return bytes(out)


def attempt(target: str, data: bytes) -> None:
    """Raises what is neither a result nor an error of ours."""
    with warnings.catch_warnings(), contextlib.suppress(SempicError):
        warnings.simplefilter("ignore", SempicWarning)
        TARGETS[target](data)


def blind(target: str, seconds: float, seed: int = 0) -> tuple[int, bytes | None]:
    """How many damaged files were tried in so many seconds, and the one that crashed, if any."""
    rng, found = random.Random(seed), seeds(target)
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = mutate(rng.choice(found), rng)
        count += 1
        try:
            attempt(target, data)
        except Exception:
            traceback.print_exc()
            return count, data
    return count, None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=30, help="for each; default 30")
    parser.add_argument("--corpus", type=Path, help="of atheris; kept and gone on with")
    parser.add_argument("--crashes", type=Path, default=Path(), help="where crashes are kept")
    args = parser.parse_args()
    targets = args.targets or list(TARGETS)
    if wrong := set(targets) - set(TARGETS):
        parser.error(f"{', '.join(wrong)}: not among {', '.join(TARGETS)}")
    args.crashes.mkdir(parents=True, exist_ok=True)
    if atheris is not None and len(targets) == 1:
        corpus = args.corpus or Path(tempfile.mkdtemp())
        corpus.mkdir(parents=True, exist_ok=True)
        for data in seeds(targets[0]):
            (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)
        prefix = f"{args.crashes}/crash-{targets[0]}-"
        options = [f"-max_total_time={60 * args.minutes:.0f}", f"-artifact_prefix={prefix}"]
        atheris.Setup([sys.argv[0], *options, str(corpus)], lambda d: attempt(targets[0], d))
        atheris.Fuzz()  # ends the process
    failed = False
    for target in targets:
        count, crash = blind(target, 60 * args.minutes, seed=time.time_ns())
        print(f"{target:<12}{count:>9} files, {'a crash' if crash else 'no crash'}")
        if crash is not None:
            failed = True
            name = f"crash-{target}-{hashlib.sha1(crash).hexdigest()}"
            (args.crashes / name).write_bytes(crash)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
