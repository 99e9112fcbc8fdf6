"""make figures: remakes every picture in README and docs that depends on the models.

    python examples/figures.py [--only street,windows,curves,gallery,page,notebooks]

Run it after a change of a model. It writes

    street     examples/street.sempic, the server page's first scenes, docs/images/street.jpg
    windows    docs/images/windows.jpg
    curves     docs/images/rd.svg, from README's table of codecs
    gallery    docs/images/gallery/*.jpg and docs/gallery.md
    page       docs/images/page.jpg (needs the extra `serve`, playwright, and a Chromium)
    notebooks  the outputs of notebooks/*.ipynb (needs the extra `notebooks`)

The gallery's other photographs come with scikit-image (pip install scikit-image). README's table
has the figures of `sempic benchmark`: see docs/guides/evaluate.md.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import demo
import numpy as np
import PIL.Image

import sempic
from sempic import files, pictures
from sempic.evaluation import charts

ROOT = Path(__file__).resolve().parent.parent
SCENES = "src/sempic/server/scenes"


@dataclass(frozen=True)
class Shown:
    """A picture of the gallery."""

    name: str
    """A file beside this script, or a photograph of `skimage.data`."""
    title: str
    credit: str
    notice: str
    """Where to look. It must hold for any version of the models."""


_SKIMAGE = "from scikit-image"
GALLERY = (
    Shown(
        "street.jpg",
        "A street by day",
        "Kathmandu; Shah et al., CC BY 4.0 ([credits](license.md#pictures))",
        "The file has the places of the fence and the railing, but not their bars. Riders in the "
        "distance are a few pixels of a class.",
    ),
    Shown(
        "night.jpg",
        "A street by night",
        "Austin; Shah et al., CC BY 4.0 ([credits](license.md#pictures))",
        "Look at the lamps, the places that they light, and the labels of dark areas. See what the "
        "map takes the bicycles at the right for: this is painted.",
    ),
    Shown(
        "brick",
        "A wall and nothing else",
        f"CC0Textures, CC0, {_SKIMAGE}",
        "One texture, no street. The joints in the coarse picture keep their places; the texture "
        "between them is invented.",
    ),
    Shown(
        "coffee",
        "A cup of coffee",
        f"Rachel Michetti, CC0, {_SKIMAGE}",
        "No class fits wood, glaze and steel, because streets have none; their grain is not sent.",
    ),
    Shown(
        "chelsea",
        "A cat",
        f"Stefan van der Walt, CC0, {_SKIMAGE}",
        "Fur, whiskers and eyes are important detail, and nothing in the file describes them.",
    ),
    Shown(
        "rocket",
        "A rocket",
        f"SpaceX, public domain, {_SKIMAGE}",
        "The lattices of the towers are finer than what is sent. See which classes of streets the "
        "map finds here.",
    ),
)
INTRODUCTION = """\
<!-- Made by `python examples/figures.py`; edit that. -->
# Gallery, failures included

The README's figures are of other pictures: CamVid, nuScenes and two clips. Of these here only the
first two are streets. Each is encoded by `sempic encode` at its default quality 5, and decoded in
one step. AVIF (libaom through Pillow, speed 6) has at most as many bytes, at the size and the
quality with the highest PSNR.

Both streets are frames of drives that may have been used in training: the model cards in
`src/sempic/models/` list the data. The two pictures are examples, not measurements.

The codec is made for streets; the other pictures show where it fails. If the segmenter knows too
little of a picture, `sempic encode` warns and sends no label map ("labels, 0 bytes"). **If the
segmenter mistakes a picture for a street, there is no warning**. "Decoded from both" means from
labels and coarse picture; of the colours of labels, red is people, blue vehicles, yellow traffic
signs and black void ("unknown").
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    makers: list[Callable[[Path], None]] = [street, windows, curves, gallery, page, notebooks]
    parts = {maker.__name__: maker for maker in makers}
    parser.add_argument("--only", default=",".join(parts), metavar="A,B")
    parser.add_argument("--root", type=Path, default=ROOT, help="root of the checkout to write to")
    args = parser.parse_args()
    wanted = args.only.split(",")
    if unknown := set(wanted) - set(parts):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(parts)}")
    try:
        for name in wanted:
            parts[name](args.root)
    except (OSError, ImportError, sempic.SempicError) as error:
        print(f"figures: {error}", file=sys.stderr)
        return 2
    return 0


def street(root: Path) -> None:
    """The street of README, demo, page and notebooks."""
    picture = root / "examples/street.jpg"
    original = pictures.read(picture.read_bytes())
    stream = sempic.encode(original)
    files.write(root / "examples/street.sempic", stream)
    (root / SCENES).mkdir(parents=True, exist_ok=True)
    for name in ("street.jpg", "street.sempic"):
        shutil.copyfile(root / "examples" / name, root / SCENES / name)
    _save(root / "docs/images/street.jpg", demo.beside(demo.parts(original, stream), 3))


BOX = (328, 102, 28, 14)
"""The direction sign in examples/street.jpg."""


def windows(root: Path) -> None:
    """A sign: the original, and decoded without and with a window."""
    original = _load(root, "street.jpg")
    left, top, width, height = BOX
    around = slice(top - 14, top + height + 14), slice(left - 14, left + width + 14)
    kept = sempic.encode(original, keep_boxes=[BOX], window_qp=33)
    streams = [sempic.encode(original), kept]
    shown = [original, *(np.array(sempic.decode(stream)) for stream in streams)]
    row = PIL.Image.fromarray(np.concatenate([picture[around] for picture in shown], 1))
    large = row.resize((5 * row.width, 5 * row.height), PIL.Image.Resampling.BICUBIC)
    _save(root / "docs/images/windows.jpg", np.asarray(large))
    extra = len(streams[1]) - len(streams[0])
    print(f"the window takes {extra} bytes, {8 * extra / original[..., 0].size:.4f} bpp")


_CODECS = {
    "sempic": "sempic", "BPG": "bpg", "BPG, 4:4:4": "bpg444", "AVIF": "avif", "JPEG XL": "jxl",
    "WebP": "webp", "JPEG 2000": "jpeg2000", "JPEG, progressive": "jpeg",
    "coarse picture alone, bicubic": "coarse", "coarse picture alone, ESRGAN": "coarse+esrgan",
}  # fmt: skip
"""Rows of README's table."""
_PANELS = {"mIoU": False, "FID": True, "LPIPS": True, "PSNR": False}
"""Whether lower is better."""


def curves(root: Path) -> None:
    """Curves of README's table of codecs."""
    table = re.search(r"^\| \| bpp \| mIoU .*\n\|-.*\n((?:\|.*\n)+)", _readme(root), re.M)
    assert table is not None, "README has no such table"
    columns = ("bpp", "mIoU", "FID", "LPIPS", "PSNR", "MS-SSIM")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in _CODECS}
    ceiling = None
    for line in table[1].splitlines():
        title, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if title.startswith("originals"):
            ceiling = float(cells[columns.index("mIoU")])
        elif "steps" not in title:
            name = re.sub(r"\*|, level.*| \(libaom\)", "", title)
            found[name].append(dict(zip(columns, map(float, cells), strict=True)))
    panels = [
        charts.Panel(
            title=figure,
            lower=lower,
            ceiling=ceiling if figure == "mIoU" else None,
            curves=[
                charts.Curve(
                    codec=_CODECS[name],
                    title=name,
                    points=[(row["bpp"], row[figure]) for row in rows],
                )
                for name, rows in found.items()
            ],
        )
        for figure, lower in _PANELS.items()
    ]
    files.write(root / "docs/images/rd.svg", charts.figure(panels).encode())


def _readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


def gallery(root: Path) -> None:
    """The page of pictures from other sources than CamVid."""
    folder = root / "docs/images/gallery"
    rows, text = ["| | pixels | bytes | bpp | AVIF |", "|---|---|---|---|---|"], []
    for shown in GALLERY:
        original = _load(root, shown.name)
        with warnings.catch_warnings():  # a sheet shows whether there is a map
            warnings.simplefilter("ignore", sempic.SempicWarning)
            stream = sempic.encode(original)
        panels = {
            title.split()[0].strip(","): (title, p) for title, p in demo.parts(original, stream)
        }
        name = shown.name.partition(".")[0]
        chosen = [panels[key] for key in ("original", "decoded", "labels", "AVIF")]
        _save(folder / f"{name}.jpg", demo.beside(chosen, 2))
        size = f"{original.shape[1]}×{original.shape[0]}"
        avif = panels["AVIF"][0].removeprefix("AVIF, ").replace(" bytes", "")
        bpp = sempic.info(stream)["bpp"]
        rows.append(f"| {shown.title} | {size} | {len(stream)} | {bpp:.3f} | {avif} |")
        text += [
            f"\n## {shown.title}\n",
            f"![{shown.title}: original, decoded, labels, AVIF](images/gallery/{name}.jpg)\n",
            f"{shown.notice}\n",
            f"*{shown.credit}.*",
        ]
    page = "\n".join([INTRODUCTION, *rows, *text]) + "\n"
    files.write(root / "docs/gallery.md", page.encode())


def page(root: Path) -> None:
    """The page of `sempic serve`: its first scene, checked."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        [sys.executable, "-m", "sempic", "serve", "--port", str(port)], stderr=subprocess.DEVNULL
    ) as server:
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"),
                    args=["--no-sandbox"],
                )
                view = browser.new_page(viewport={"width": 1280, "height": 950})
                view.goto(_waited_for(address))
                view.wait_for_selector("#check-line:visible")
                view.check("#option-check")
                view.wait_for_selector("#legend:visible", timeout=120_000)
                view.wait_for_load_state("networkidle")
                view.evaluate("scrollTo(0, 0)")
                shot = view.screenshot()
                browser.close()
        finally:
            server.terminate()
    _save(root / "docs/images/page.jpg", pictures.read(shot))


def _waited_for(address: str) -> str:
    """An address, as soon as a server answers there."""
    for _ in range(120):
        try:
            urllib.request.urlopen(address).close()
        except OSError:
            time.sleep(0.5)
        else:
            return address
    raise OSError(f"{address}: no answer")


_TEMPORARY = re.compile(r"/[\w./-]*/tmp\w{8}\b")
"""A temporary folder in the output of a notebook; its name changes with each run."""


def notebooks(root: Path) -> None:
    """Runs each notebook in its folder and keeps its outputs."""
    import nbclient
    import nbformat

    for path in sorted((root / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        where = {"metadata": {"path": str(path.parent)}}
        nbclient.NotebookClient(
            notebook, timeout=900, resources=where, record_timing=False
        ).execute()
        for cell in notebook.cells:  # progress bars and log lines are not worth keeping
            if cell.cell_type == "code":
                cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
                for output in cell.outputs:
                    _lighten(output.get("data", {}))
        text = _TEMPORARY.sub("WORK", nbformat.writes(notebook))
        files.write(path, f"{text}\n".encode())
        print(path)


def _lighten(data: dict[str, str]) -> None:
    """Replaces a large PNG, that of a drawing with photographs, by a JPEG."""
    png = base64.b64decode(data.get("image/png", ""))
    if len(png) < 60_000:
        return
    out = io.BytesIO()
    with PIL.Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").save(out, "JPEG", quality=85, optimize=True)
    del data["image/png"]
    data["image/jpeg"] = base64.b64encode(out.getvalue()).decode()


def _load(root: Path, name: str) -> np.ndarray:
    """uint8 (H, W, 3) of a picture of `GALLERY`, at most 512 pixels large."""
    if (path := root / "examples" / name).is_file():
        return pictures.read(path.read_bytes())
    import skimage.data

    picture = PIL.Image.fromarray(getattr(skimage.data, name)())
    found, _ = pictures.shrink(pictures.to_rgb(picture), None, 512)
    return found


def _save(path: Path, sheet: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    out = io.BytesIO()
    PIL.Image.fromarray(sheet).save(out, "JPEG", quality=88, optimize=True, progressive=True)
    files.write(path, out.getvalue())
    print(path)


if __name__ == "__main__":
    sys.exit(main())
