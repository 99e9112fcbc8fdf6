"""Compiles all kernels of the codec, so that the first use does not wait for numba.

Run `python examples/compile.py` in images for processors or systems for which sempic ships no
machine code (docs/guides/edge.md). numba keeps the code in NUMBA_CACHE_DIR, or beside the sources.
It is used again on the same processor (or if NUMBA_CPU_NAME is `generic` both times).
"""

import numpy as np

import sempic
from sempic import halving, progress, sequence
from sempic.segment import fit

SIDE = 64


def main() -> None:
    picture, labels = np.zeros((SIDE, SIDE, 3), np.uint8), np.eye(SIDE, dtype=np.uint8)
    for palette in ("camvid", "indices"):  # with a trained prior, and without
        sempic.unpack(sempic.encode(picture, labels=labels, palette=palette, label_quality=3))
    planes = np.zeros((2, 4, 4), np.float32)
    fit.best(planes, (1, 1), (8, 8))
    fit.enlarge(planes.astype(np.uint8), (1, 1), (8, 8))
    halving.enlarged(picture)
    drive = (
        np.random.default_rng(0).integers(0, 255, (4, 8, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    )
    frames = [drive[:, i : i + SIDE] for i in range(0, 24, 4)]
    codec = sempic.Codec(segmenter=lambda frame: np.array(frame[..., 0] < 128, np.uint8))
    list(sequence.encode(frames, codec=codec, segment_every=2))


if __name__ == "__main__":
    with progress.shown():
        main()
