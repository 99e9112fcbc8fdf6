"""Has numba compile all that coding needs, so that the first use does not wait for it.

For images and installations: `python examples/compile.py`. The machine code is kept in
NUMBA_CACHE_DIR, or beside the sources, and taken from there if the processor is the same (or
NUMBA_CPU_NAME is `generic` both times).
"""

import numpy as np

import sempic
from sempic import progress

with progress.shown():
    picture, labels = np.zeros((64, 64, 3), np.uint8), np.eye(64, dtype=np.uint8)
    sempic.encode(picture)  # simplifies by what the segmenter is sure of
    for palette in ("camvid", "cityscapes"):  # with a trained prior, and without
        sempic.unpack(sempic.encode(picture, labels=labels, palette=palette, label_quality=3))
