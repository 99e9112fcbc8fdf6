"""make demo: decode a street, encode the result, decode that; or do it with a picture of yours.

    python examples/demo.py [PICTURE]

Writes pictures and a labelled side-by-side to demo/ and prints what everything costs.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

import sempic
from sempic import api, pictures

STREET = Path(__file__).parent / "street.sempic"
GAP, BAR = 8, 22


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("picture", nargs="?", type=Path, help="default: the bundled street")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"))
    args = parser.parse_args()
    try:
        run(args.picture, args.output)
    except (OSError, sempic.SempicError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    return 0


def run(picture: Path | None, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    panels: list[tuple[str, np.ndarray]] = []
    if picture is None:
        if not STREET.exists():
            raise sempic.ModelError(f"{STREET} is not here yet; name a picture: make demo IMAGE=…")
        stream = STREET.read_bytes()
        original = show("street.sempic", stream, panels, folder, "street")
    else:
        original = pictures.read(picture.read_bytes())
        panels.append(("original", original))
    start = time.perf_counter()
    stream = sempic.encode(original)
    print(f"encode {time.perf_counter() - start:5.2f} s")
    name = "street-again" if picture is None else picture.stem
    pictures.write_file(folder / f"{name}.sempic", stream)
    show(f"{name}.sempic", stream, panels, folder, name)
    pictures.write_file(folder / "side-by-side.png", pictures.encode(beside(panels), ".png"))
    print(f"pictures are in {folder}/, all of them beside each other in {folder}/side-by-side.png")


def show(
    title: str, stream: bytes, panels: list[tuple[str, np.ndarray]], folder: Path, name: str
) -> np.ndarray:
    """Decode a stream, in parts and whole; print, save and note the panels; the picture."""
    info = sempic.info(stream)
    print(
        f"{title}: {info['width']}×{info['height']}, {info['bytes']} bytes, "
        f"{info['bpp']:.4f} bpp: "
        + ", ".join(f"{name} {size}" for name, size in info["chunks"].items())
    )
    scene = sempic.unpack(stream)
    start = time.perf_counter()
    decoded = np.array(sempic.decode(stream))
    print(f"decode {time.perf_counter() - start:5.2f} s")
    if scene.labels is not None:
        size = f"{info['chunks']['labels']} bytes"
        panels.append((f"labels, {size}", sempic.PALETTES[scene.palette].paint(scene.labels)))
    if scene.coarse is not None:
        panels.append((f"coarse, {info['chunks']['coarse']} bytes", api.preview(scene)))
    panels.append((f"decoded, {info['bytes']} bytes", decoded))
    pictures.write_file(folder / f"{name}.png", pictures.encode(decoded, ".png"))
    return decoded


def beside(panels: list[tuple[str, np.ndarray]]) -> np.ndarray:
    """The panels in rows of at most four, each under its title."""
    height, width = panels[0][1].shape[:2]
    columns = min(4, len(panels)) if len(panels) % 3 else 3
    rows = -(-len(panels) // columns)
    size = (columns * (width + GAP) + GAP, rows * (height + BAR + GAP) + GAP)
    sheet = PIL.Image.new("RGB", size, "white")
    draw = PIL.ImageDraw.Draw(sheet)
    font = PIL.ImageFont.load_default(13)
    for i, (title, pixels) in enumerate(panels):
        x = GAP + i % columns * (width + GAP)
        y = GAP + i // columns * (height + BAR + GAP)
        draw.text((x, y + 2), title, "black", font)
        sheet.paste(PIL.Image.fromarray(pixels), (x, y + BAR))
    return np.array(sheet)


if __name__ == "__main__":
    sys.exit(main())
