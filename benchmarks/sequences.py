"""A clip as a sequence, beside its frames as single pictures, and AV1 and HEVC at low delay.

    python benchmarks/sequences.py CLIP [--frames 40] [--start SECONDS] [--fps 10] [--size 640x360]
        [--quality 5 | --bitrate 16k] [--key-interval 2] [--segment-every N] [--every 2]
        [--drop 0.05] [--json OUT] [--show OUT]
        [--rows ours,single,av1,av1x2,hevc,hevcx2] [--segmenter SPEC] [--receiver SPEC]

av1 is SVT's (else libaom's), hevc x265, both without frames that wait for others, at the CRF whose
stream is nearest in bytes to ours, x2 to twice the bytes; at half the width and height, enlarged
again, where there is none so small. LPIPS, and the objects that the judge finds in the originals
and again, are those of every N-th frame. Flicker is the mean difference of successive frames along
the original's motion, over the original's own, where the original differs by less than 8 levels.
--drop leaves out frames of ours at random, and prints what that does to the labels of those that
arrive. --show writes a video of all rows.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from common import Size, parse_size

from sempic import api, coarse, segment, sequence
from sempic.evaluation import metrics
from sempic.evaluation.measure import Measure, Settings, row
from sempic.scene import Image, LabelMap
from sempic.sequence import motion, video

STATIC = 8
"""Levels of grey."""
RIVALS = {"av1": ("av1", 1), "av1x2": ("av1", 2), "hevc": ("hevc", 1), "hevcx2": ("hevc", 2)}
ROWS = ("ours", "single", *RIVALS)
FACTOR = 4


class Seen:
    """A segmenter that looks at each frame once."""

    def __init__(self, spec: str | None) -> None:
        self._inner = segment.load(spec)
        self.palette, self.voids = self._inner.palette, self._inner.voids
        self._found: dict[bytes, Any] = {}

    def __call__(self, image: Image) -> LabelMap:
        return self.look(image)[0]

    def look(self, image: Image) -> tuple[LabelMap, Any]:
        key = image.tobytes()
        if key not in self._found:
            self._found[key] = self._inner.look(image)
        return self._found[key]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frames", type=int, default=40, metavar="N")
    parser.add_argument("--start", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--fps", type=int, default=10, metavar="N")
    parser.add_argument("--size", type=parse_size, default=(640, 360), metavar="WxH")
    parser.add_argument("--quality", type=int, default=5)
    parser.add_argument("--bitrate", metavar="BITS")
    parser.add_argument("--segment-every", type=int, metavar="N")
    parser.add_argument("--key-interval", type=float, default=2.0, metavar="SECONDS")
    parser.add_argument("--every", type=int, default=2, metavar="N")
    parser.add_argument("--drop", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("--metrics", default="lpips,objects", metavar="A,B")
    parser.add_argument("--rows", default=",".join(ROWS), metavar="A,B")
    parser.add_argument("--segmenter", metavar="SPEC")
    parser.add_argument("--receiver", metavar="SPEC")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--show", type=Path, metavar="OUT", help="an .mp4 of all rows")
    args = parser.parse_args()
    frames = load(args.clip, args.size, args.fps, args.start, args.frames)
    coder = api.Codec(segmenter=Seen(args.segmenter), receiver=args.receiver)
    lines, shown = measured(frames, coder, args)
    print(f"{args.clip.name}: {len(frames)} frames of {args.size[0]}×{args.size[1]}, {args.fps}/s")
    print(describe(lines))
    if args.drop:
        print(dropped(lines["ours"]["stream"], args.drop))
    if args.json:
        kept = {n: {k: v for k, v in line.items() if k != "stream"} for n, line in lines.items()}
        args.json.write_text(json.dumps(kept, indent=1) + "\n")
    if args.show:
        show(args.show, frames, shown, args.fps)


def load(clip: Path, size: Size, fps: int, start: float, count: int) -> list[Image]:
    """Frames of a clip."""
    source = video.Source(str(clip), rate=Fraction(fps))
    frames: list[Image] = []
    for number, frame in enumerate(source):
        if number >= start * fps:
            picture = PIL.Image.fromarray(frame).resize(size, PIL.Image.Resampling.LANCZOS)
            frames.append(np.asarray(picture))
        if len(frames) == count:
            break
    return frames


def measured(
    frames: list[Image], coder: api.Codec, args: argparse.Namespace
) -> tuple[dict[str, dict[str, Any]], dict[str, list[Image]]]:
    """The figures of each row, and its pictures."""
    wanted = args.rows.split(",")
    if unknown := set(wanted) - set(ROWS):
        raise SystemExit(f"--rows: {', '.join(unknown)} is not one of {', '.join(ROWS)}")
    coded: dict[str, tuple[dict[str, Any], list[Image]]] = {"ours": ours(frames, coder, args)}
    size = coded["ours"][0]["bytes"]
    for name in wanted:
        if name == "single":
            coded[name] = single(frames, coder, args.quality)
        elif name in RIVALS:
            kind, times = RIVALS[name]
            coded[name] = nearest(CODECS[kind], frames, times * size, args.fps)
    seconds = len(frames) / args.fps
    measure = Measure(Settings(metrics=tuple(args.metrics.split(","))))
    references = [measure.reference(frame) for frame in frames[:: args.every]]
    places = [None, *map(moved, frames, frames[1:])]
    lines = {}
    for name, (told, pictures) in coded.items():
        records = [measure(r, p) for r, p in zip(references, pictures[:: args.every], strict=True)]
        found = row(records, [], None)
        lines[name] = told | {
            "kbps": 8 * told["bytes"] / seconds / 1000,
            "lpips": found.get("lpips", float("nan")),
            "objects": [found["objects"]["all"][k] for k in ("there", "kept", "invented")],
            "flicker": flicker(frames, pictures, places),
        }
        print(name, {k: v for k, v in lines[name].items() if k != "stream"}, flush=True)
    return lines, {name: pictures for name, (_, pictures) in coded.items()}


def ours(
    frames: list[Image], coder: api.Codec, args: argparse.Namespace
) -> tuple[dict[str, Any], list[Image]]:
    options: dict[str, Any] = (
        {"bitrate": args.bitrate} if args.bitrate else {"quality": args.quality}
    )
    options |= {"segment_every": args.segment_every, "key_interval": args.key_interval}
    for frame in frames:
        coder.segmenter(frame)  # so that the time is that of all else
    start = time.perf_counter()
    pieces = list(sequence.encode(frames, rate=args.fps, codec=coder, **options))
    encoded = time.perf_counter()
    pictures = [np.asarray(p) for p in sequence.decode(pieces, codec=coder)]
    decoded = time.perf_counter()
    data = b"".join(pieces)
    told = sequence.info(data)
    return {
        "bytes": len(data),
        **told["chunks"],
        "overhead": told["overhead"],
        "encode_s": (encoded - start) / len(frames),
        "decode_s": (decoded - encoded) / len(frames),
        "stream": pieces,
    }, pictures


def single(
    frames: list[Image], coder: api.Codec, quality: int
) -> tuple[dict[str, Any], list[Image]]:
    streams = [coder.encode(frame, quality=quality) for frame in frames]
    parts = [api.info(s)["chunks"] for s in streams]
    told: dict[str, Any] = {"bytes": sum(map(len, streams))}
    told |= {n: sum(part.get(n, 0) for part in parts) for n in ("coarse", "labels")}
    told["overhead"] = told["bytes"] - told["coarse"] - told["labels"]
    return told, [np.asarray(coder.decode(s)) for s in streams]


# ── rivals ───────────────────────────────────────────────────────────────────────────────────


def _av1(crf: int) -> tuple[str, str, dict[str, str]]:
    import av

    if "libsvtav1" in av.codecs_available:
        params = "pred-struct=1:lp=1:keyint=-1:scd=0:enable-tf=0"
        return "libsvtav1", "libdav1d", {"crf": str(crf), "preset": "4", "svtav1-params": params}
    how = {"crf": str(crf), "cpu-used": "4", "lag-in-frames": "0", "usage": "realtime"}
    return "libaom-av1", "libdav1d", how


def _hevc(crf: int) -> tuple[str, str, dict[str, str]]:
    params = "log-level=none:pools=none:frame-threads=1:info=0:keyint=-1:scenecut=0"
    how = {"crf": str(crf), "preset": "slow", "tune": "zerolatency", "x265-params": params}
    return "libx265", "hevc", how


CODECS: dict[str, tuple[range, Callable[[int], tuple[str, str, dict[str, str]]]]] = {
    "av1": (range(20, 64), _av1),
    "hevc": (range(20, 52), _hevc),
}


def nearest(
    rival: tuple[range, Callable[[int], tuple[str, str, dict[str, str]]]],
    frames: list[Image],
    size: int,
    fps: int,
) -> tuple[dict[str, Any], list[Image]]:
    """A rival's stream that is nearest in size, by bisection over its CRF; at half the width and
    height if it has none that is as small."""
    crfs, how = rival

    @functools.cache
    def coded(crf: int) -> list[bytes]:
        return code(frames, fps, *how(crf)[::2])

    low, high = crfs.start, crfs.stop - 1
    while low < high:  # the least CRF whose stream is no larger
        middle = (low + high) // 2
        if sum(map(len, coded(middle))) <= size:
            high = middle
        else:
            low = middle + 1
    if sum(map(len, coded(crfs[-1]))) > 1.1 * size and frames[0].shape[1] >= 320:
        half = frames[0].shape[1] // 4 * 2, frames[0].shape[0] // 4 * 2
        small = [scaled(frame, half, PIL.Image.Resampling.BOX) for frame in frames]
        told, pictures = nearest(rival, small, size, fps)
        whole = frames[0].shape[1::-1]
        return told | {"width": told.get("width", half[0])}, [
            scaled(picture, whole, PIL.Image.Resampling.BICUBIC) for picture in pictures
        ]
    tried = [crf for crf in (low - 1, low) if crf in crfs]
    best = min(tried, key=lambda crf: abs(sum(map(len, coded(crf))) - size))
    packets = coded(best)
    told = {"bytes": sum(map(len, packets)), "crf": best}
    return told, decoded(packets, how(best)[1], frames[0].shape)


def scaled(picture: Image, size: Size, how: PIL.Image.Resampling) -> Image:
    return np.asarray(PIL.Image.fromarray(picture).resize(size, how))


def code(frames: list[Image], fps: int, encoder: str, options: dict[str, str]) -> list[bytes]:
    import os

    import av

    from sempic.coarse import hevc

    os.environ.setdefault("SVT_LOG", "1")
    height, width = frames[0].shape[:2]
    context: Any = av.CodecContext.create(encoder, "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.color_range, context.time_base = 2, Fraction(1, fps)
    context.framerate = Fraction(fps)
    context.thread_count, context.options = 1, options
    packets = []
    for number, frame in enumerate(frames):
        picture = hevc.frame(coarse.from_rgb(frame, "420"), width, height)
        picture.pts = number
        packets += context.encode(picture)
    return [bytes(packet) for packet in (*packets, *context.encode(None))]


def decoded(packets: list[bytes], decoder: str, shape: tuple[int, ...]) -> list[Image]:
    import av

    from sempic.coarse import hevc

    context: Any = av.CodecContext.create(decoder, "r")
    context.thread_count = 1
    frames = [f for packet in packets for f in context.decode(av.Packet(packet))]
    frames += context.decode(None)
    return [coarse.to_rgb(hevc.planes(frame, shape[1], shape[0])) for frame in frames]


# ── measures ─────────────────────────────────────────────────────────────────────────────────


def moved(last: Image, now: Image) -> np.ndarray:
    """Where each pixel of a frame was in the one before."""
    luma = [coarse.from_rgb(coarse.downscale(frame, FACTOR)).y for frame in (last, now)]
    return motion.enlarge(motion.estimate(*luma, version=1), FACTOR, *now.shape[:2])


def flicker(frames: list[Image], pictures: list[Image], places: list[Any]) -> float:
    """As the text above has it."""
    ours = own = 0.0
    for t in range(1, len(frames)):
        before, after = change(frames, t, places[t]), change(pictures, t, places[t])
        static = before < STATIC
        own += float(before[static].sum())
        ours += float(after[static].sum())
    return ours / max(own, 1e-9)


def change(frames: list[Image], t: int, places: np.ndarray) -> np.ndarray:
    last = motion.move(np.moveaxis(frames[t - 1], 2, 0), places)
    difference = np.abs(np.moveaxis(frames[t], 2, 0).astype(np.int16) - last)
    return difference.mean(0)


def dropped(pieces: list[bytes], share: float) -> str:
    """What the loss of frames does, over seeds, to the maps of frames that arrive: mIoU over all of
    them, and the mean of each one's, in which a class of ten pixels counts as much as the road."""
    whole = [m.scene.labels for m in unpacked(pieces)]
    over, each = [], []
    for seed in range(5):
        lost = np.random.default_rng(seed).random(len(pieces)) < share
        lost[0] = False
        moments = unpacked([p for p, gone in zip(pieces, lost, strict=True) if not gone])
        pairs = [(whole[m.number], m.scene.labels) for m in moments if not lost[m.number]]
        over.append(agreement(pairs))
        each.append(float(np.mean([agreement([pair]) for pair in pairs])))
    return "\n".join(
        f"{share:.0%} dropped, {what}, five seeds: " + ", ".join(f"{v:.3f}" for v in values)
        for what, values in (("mIoU of frames that arrive", over), ("mean of each frame's", each))
    )


def unpacked(pieces: list[bytes]) -> list[sequence.Moment]:
    unpacker = sequence.Unpacker()
    return [moment for piece in pieces for moment in unpacker.feed(piece)]


def agreement(pairs: list[tuple[LabelMap | None, LabelMap | None]]) -> float:
    """Mean intersection over union of the classes that the first maps have; no map is one id."""
    matrix = np.zeros((257, 258), np.int64)
    for pair in pairs:
        a, b = (np.full(1, 256) if m is None else m.ravel().astype(np.int64) for m in pair)
        matrix += metrics.confusion(*np.broadcast_arrays(a, b), 257)
    return float(metrics.iou(matrix)[matrix.any(1)].mean())


def describe(lines: dict[str, dict[str, Any]]) -> str:
    heads = ("", "kbit/s", "coarse", "labels", "rest", "LPIPS", "objects kept", "invented",
             "flicker", "encode, s", "decode, s")  # fmt: skip
    table = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, line in lines.items():
        size = line["bytes"]
        shares = [f"{line[k] / size:.0%}" if k in line else ""
                  for k in ("coarse", "labels", "overhead")]  # fmt: skip
        there, kept, invented = line["objects"]
        times = [f"{line[k]:.2f}" if k in line else "" for k in ("encode_s", "decode_s")]
        title = name if "width" not in line else f"{name}, coded {line['width']} wide"
        cells = [title, f"{line['kbps']:.1f}", *shares, f"{line['lpips']:.4f}",
                 f"{kept} of {there}", str(invented), f"{line['flicker']:.2f}", *times]  # fmt: skip
        table.append("| " + " | ".join(cells) + " |")
    if "single" in lines:
        a, b = lines["ours"], lines["single"]
        table.append(
            f"\nagainst single pictures: {a['bytes'] / b['bytes']:.3f} of the bits, map "
            f"{a['labels'] / max(b['labels'], 1):.3f}, LPIPS {a['lpips'] - b['lpips']:+.4f}"
        )
    return "\n".join(table)


def show(path: Path, frames: list[Image], shown: dict[str, list[Image]], fps: int) -> None:
    """All rows beside each other, the original first."""
    out = video.Video(path, Fraction(fps))
    for t, frame in enumerate(frames):
        tiles = [frame, *(pictures[t] for pictures in shown.values())]
        tiles += [np.zeros_like(frame)] * (len(tiles) % 2)
        rows = [np.concatenate(tiles[i : i + 2], 1) for i in range(0, len(tiles), 2)]
        out.add(np.concatenate(rows, 0))
    out.close(keep=True)


if __name__ == "__main__":
    main()
