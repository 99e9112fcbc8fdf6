"""How many bytes does each coarse codec need, at which PSNR, and in what time?

    python benchmarks/coarse.py ../shared/data/camvid/val --size 341x256 --json coarse.json

Every picture is scaled down by --factor, coded and decoded. Bytes are those of the payload of a
.sempic file; bpp counts the pixels of the picture before scaling. All figures are means over the
pictures; times leave out a first call, which loads and compiles. PSNR compares the decoded planes
with the planes before coding, for luma and for both chroma planes at full resolution. "loud" is the
chroma PSNR of the 3 % most colourful pixels. "Y at 1/2" and "Y at 1/4" compare luma with that of
the picture before scaling, at these resolutions.
"""

from __future__ import annotations

import time

import numpy as np
from common import add_folder, in_one_line, listed, load_pictures, new_parser, save

from sempic import coarse
from sempic.errors import InputError
from sempic.pictures import resized
from sempic.scene import Coarse, Image


def full(planes: Coarse) -> np.ndarray:
    """Y, Cb, Cr of the picture that the planes show, float (3, h, w)."""
    if planes.cb.shape != planes.y.shape:
        shown = coarse.from_rgb(coarse.to_rgb(planes), "444")
        return np.stack((planes.y, shown.cb, shown.cr)).astype(float)
    return np.stack((planes.y, planes.cb, planes.cr)).astype(float)


def psnr(squares: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(squares.mean(), 1e-3)))


def luma_psnr(picture: Image, shown: Image, factor: int, at: int) -> float:
    """Of a picture scaled down by `factor`, at 1/`at` of the large picture's resolution."""
    if factor < at:
        shown = coarse.downscale(shown, at // factor)
    elif factor > at:
        size = shown.shape[1] * factor // at, shown.shape[0] * factor // at
        shown = resized(shown, size)
    wanted = coarse.from_rgb(coarse.downscale(picture, at), "444").y.astype(float)
    made = coarse.from_rgb(shown, "444").y[: wanted.shape[0], : wanted.shape[1]]
    return psnr((made - wanted) ** 2)


def measure(
    picture: Image, small: Image, codec: str, chroma: str, quality: int, factor: int
) -> list[float]:
    start = time.perf_counter()
    payload = coarse.encode(small, codec=codec, quality=quality, chroma=chroma)
    encoded = time.perf_counter()
    planes = coarse.decode(payload, codec=codec)
    end = time.perf_counter()
    source = full(coarse.from_rgb(small, "444"))
    squares = (full(planes) - source) ** 2
    colour = np.hypot(source[1] - 128, source[2] - 128)
    loud = colour >= np.quantile(colour, 0.97)
    return [
        len(payload),
        8 * len(payload) / (picture.shape[0] * picture.shape[1]),
        psnr(squares[0]),
        psnr(squares[1:]),
        psnr(squares[1:, loud]),
        *(luma_psnr(picture, coarse.to_rgb(planes), factor, at) for at in (2, 4)),
        1000 * (encoded - start),
        1000 * (end - encoded),
    ]


COLUMNS = ("bytes", "bpp", "PSNR Y", "PSNR C", "loud C", "Y at 1/2", "Y at 1/4", "enc ms", "dec ms")


@in_one_line()
def main() -> None:
    parser = new_parser(__doc__)
    add_folder(parser)
    parser.add_argument("--factor", type=int, choices=(1, 2, 4, 8), default=4, help="default 4")
    parser.add_argument(
        "--qualities", type=listed(int), default=[29, 32, 35, 38, 41], metavar="N,…",
        help="0 (best) … 51; default 29,32,35,38,41",
    )  # fmt: skip
    parser.add_argument("--codecs", type=listed(str), default=list(coarse.CODECS), metavar="A,B")
    args = parser.parse_args()
    if unknown := [name for name in args.codecs if name not in coarse.CODECS]:
        parser.error(f"--codecs: {', '.join(unknown)} is not one of {', '.join(coarse.CODECS)}")
    pictures = [picture for _, picture in load_pictures(args)]
    pairs = [(picture, coarse.downscale(picture, args.factor)) for picture in pictures]

    print(f"{len(pairs)} pictures")
    print(f"{'codec':6}{'chroma':>7}{'quality':>8}" + "".join(f"{c:>9}" for c in COLUMNS))
    report = []
    for codec in args.codecs:
        for chroma in ("420", "444") if codec in ("bpg", "avif") else ("444",):
            for quality in args.qualities:
                try:
                    measure(*pairs[0], codec, chroma, quality, args.factor)  # loads and compiles
                    rows = [measure(*pair, codec, chroma, quality, args.factor) for pair in pairs]
                except InputError as error:
                    print(f"{codec:6} {error}")
                    break
                mean = np.mean(rows, axis=0).tolist()
                shown = (
                    f"{v:9.4f}" if c == "bpp" else f"{v:9.2f}"
                    for c, v in zip(COLUMNS, mean, strict=True)
                )
                print(f"{codec:6}{chroma:>7}{quality:>8}" + "".join(shown), flush=True)
                report.append(
                    {"codec": codec, "chroma": chroma, "quality": quality}
                    | dict(zip(COLUMNS, mean, strict=True))
                )
    save(args, report)


if __name__ == "__main__":
    main()
