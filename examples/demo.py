"""make demo: encode a photograph; show what is sent, the decoded picture, and AVIF beside it.

    python examples/demo.py [PICTURE]

Writes the file, the decoded picture and a sheet of all panels to demo/, and prints sizes and times.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

import sempic
from sempic import api, files, pictures, places
from sempic.server.coder import best_within

STREET = Path(__file__).parent / "street.jpg"
GAP, BAR, TEXT = 8, 30, 20

Panels = list[tuple[str, np.ndarray]]
"""Titles and pictures, uint8 (H, W, 3), of one size."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("picture", nargs="?", help=f"default: {STREET.name}, beside this script")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"))
    args = parser.parse_args()
    try:
        run(Path(args.picture or STREET), args.output)
    except (OSError, sempic.SempicError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    return 0


def run(picture: Path, folder: Path) -> None:
    original = places.read_picture(picture)
    for name in (f"{picture.stem}.png", "side-by-side.png"):
        places.apart([picture], folder / name)
    start = time.perf_counter()
    stream = sempic.encode(original)
    encoded = time.perf_counter()
    panels = parts(original, stream)
    decoded = time.perf_counter()
    info = sempic.info(stream)
    print(
        f"{picture.name}: {info['width']}×{info['height']}, {len(stream)} bytes, "
        f"{info['bpp']:.4f} bpp: "
        + ", ".join(f"{name} {size}" for name, size in info["chunks"].items())
    )
    print(f"encode {encoded - start:.2f} s, decode and AVIF {decoded - encoded:.2f} s")
    files.make_folder(folder)
    files.write(folder / f"{picture.stem}.sempic", stream)
    files.write(folder / f"{picture.stem}.png", pictures.encode(panels[3][1], ".png"))
    files.write(folder / "side-by-side.png", pictures.encode(beside(panels, 3), ".png"))
    print(f"look at {folder}/side-by-side.png")


def parts(original: np.ndarray, stream: bytes) -> Panels:
    """Original, labels, coarse picture, decoded picture, AVIF in as many bytes, and a legend."""
    scene, sizes = sempic.unpack(stream), sempic.info(stream)["chunks"]
    palette = sempic.PALETTES[scene.palette]
    labels, sent = scene.labels, "both"
    if labels is None:  # the segmenter knows too little of the picture
        labels, sent = np.full(original.shape[:2], palette.void, np.uint8), "coarse alone"
    return [
        ("original", original),
        (f"labels, {sizes.get('labels', 0)} bytes", palette.paint(labels)),
        (f"coarse, {sizes['coarse']} bytes", api.preview(scene)),
        (f"decoded from {sent}, {len(stream)} bytes", np.array(sempic.decode(stream))),
        avif(original, len(stream)),
        ("classes", legend(palette, labels)),
    ]


def avif(original: np.ndarray, budget: int) -> tuple[str, np.ndarray]:
    """Title and picture of the best AVIF of at most `budget` bytes; white if none fits."""
    try:
        data, shrunk = best_within(original, "avif", budget)
    except sempic.RateError:
        return f"AVIF does not fit into {budget} bytes", np.full_like(original, 255)
    with PIL.Image.open(io.BytesIO(data)) as picture:
        size = original.shape[1::-1]
        pixels = np.array(picture.convert("RGB").resize(size, PIL.Image.Resampling.BICUBIC))
    return f"AVIF, {len(data)} bytes" + f", at 1/{shrunk} of the size" * (shrunk > 1), pixels


def legend(palette: sempic.Palette, labels: np.ndarray) -> np.ndarray:
    """The colours of the classes in a label map, (H, W), as a picture of its size."""
    sheet = PIL.Image.new("RGB", labels.shape[::-1], "white")
    draw, font = PIL.ImageDraw.Draw(sheet), PIL.ImageFont.load_default(TEXT)
    rows = max(1, sheet.height // 28)
    for i, label in enumerate(np.unique(labels)):
        x, y = 6 + 200 * (i // rows), 4 + 28 * (i % rows)
        colour = tuple(int(c) for c in palette.colours[label])
        draw.rectangle((x, y, x + 22, y + 22), colour, "grey")
        draw.text((x + 30, y), palette.classes[label], "black", font)
    return np.array(sheet)


def beside(panels: Panels, columns: int) -> np.ndarray:
    """The panels in rows, each under its title and at most 1024 pixels large."""
    panels = [(title, pictures.shrink(pixels, None, 1024)[0]) for title, pixels in panels]
    height, width = panels[0][1].shape[:2]
    rows = -(-len(panels) // columns)
    size = (columns * (width + GAP) + GAP, rows * (height + BAR + GAP) + GAP)
    sheet = PIL.Image.new("RGB", size, "white")
    draw = PIL.ImageDraw.Draw(sheet)
    font = PIL.ImageFont.load_default(TEXT)
    for i, (title, pixels) in enumerate(panels):
        x = GAP + i % columns * (width + GAP)
        y = GAP + i // columns * (height + BAR + GAP)
        draw.text((x, y + 2), title, "black", font)
        sheet.paste(PIL.Image.fromarray(pixels), (x, y + BAR))
    return np.array(sheet)


if __name__ == "__main__":
    sys.exit(main())
