"""Makes the vectors: python vectors/make.py NAME… (README.md beside this file).

A file that exists is never written over: old bytes stay decodable.
"""

from __future__ import annotations

import sys
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np

import sempic
from sempic import coarse, windows
from sempic.critical import GROUPS, Receipt, Tally
from sempic.scene import Image, LabelMap
from sempic.sequence import Packer, Unpacker
from sempic.windows.layout import Place

HERE = Path(__file__).parent
PLACES = [Place(5, 4, 2, 3), Place(9, 0, 2, 2), Place(0, 7, 2, 1)]


def street(height: int, width: int) -> tuple[Image, LabelMap]:
    """A drawing of a street in integers, and its label map."""
    y, x = np.mgrid[0:height, 0:width]
    u, v = 200 * x // width - 100, 200 * y // height - 100
    labels = np.zeros((height, width), np.uint8)  # sky
    labels[abs(u) > 30 + v // 2] = 1  # building
    labels[(u + 40) ** 2 + (v + 10) ** 2 < 700] = 5  # tree
    labels[v > 20] = 4  # pavement
    labels[(v > 20) & (v > abs(u) - 20)] = 3  # road
    labels[(abs(u - 20) < 16) & (abs(v - 26) < 14)] = 8  # car
    labels[(abs(u - 70) < 3) & (abs(v) < 60)] = 2  # pole
    colours = np.array(sempic.PALETTES[1].colours)
    shade = (x * 7 + y * 13) % 29 + v[:, :] // 8
    return np.clip(colours[labels] + shade[..., None], 0, 255).astype(np.uint8), labels


def bpg(picture: Image, quality: int, chroma: str) -> bytes:
    return coarse.encode(coarse.downscale(picture, 4), quality=quality, chroma=chroma)


def make(name: str) -> bytes:
    if name in ("street", "fine-chroma"):  # usual files: CamVid, BPG 4:4:4, its opening in one byte
        picture, labels = street(256, 341)
        return sempic.pack(width=341, height=256, labels=labels, coarse=bpg(picture, 35, "444"))
    picture, labels = street(48, 64)
    if name == "small":  # BPG with an opening that is spelt out
        return sempic.pack(width=64, height=48, labels=labels, coarse=bpg(picture, 35, "444"))
    if name == "subsampled":  # odd sizes, BPG 4:2:0, a model id, Cityscapes
        picture, labels = street(45, 61)
        payload = bpg(picture, 28, "420")
        return sempic.pack(width=61, height=45, labels=labels, coarse=payload, palette=2, model=14)
    if name == "noise":  # nothing to gain: 256 ids, no coarse picture
        noise = (np.arange(17 * 9, dtype=np.uint64) * 2654435761 >> 11).astype(np.uint8)
        return sempic.pack(width=17, height=9, labels=noise.reshape(9, 17), palette=0)
    if name == "stored":  # a few ids that no coder makes smaller
        few = np.array([0, 9, 200], np.uint8)[np.arange(15) ** 2 // 3 % 3]
        return sempic.pack(width=5, height=3, labels=few.reshape(3, 5), palette=0)
    if name == "dot":  # the smallest picture
        one = np.full((1, 1), 34, np.uint8)
        return sempic.pack(width=1, height=1, labels=one, palette=3)
    if name == "primed3":  # a label model with the coarse picture
        return sempic.pack(width=64, height=48, labels=labels, coarse=bpg(picture, 32, "444"))
    if name == "primed3-alone":  # without
        picture, labels = street(128, 171)
        return sempic.pack(width=171, height=128, labels=labels)
    if name == "primed4":  # the same of Cityscapes' palette
        payload = bpg(picture, 32, "444")
        return sempic.pack(width=64, height=48, labels=labels, coarse=payload, palette=2)
    if name == "primed4-alone":
        picture, labels = street(128, 171)
        return sempic.pack(width=171, height=128, labels=labels, palette=2)
    if name in ("halved", "doubled"):  # one id in each 2×2 pixels; odd sizes
        picture, labels = street(45, 61)
        labels = labels[::2, ::2].repeat(2, 0).repeat(2, 1)[:45, :61]
        payload = bpg(picture, 32, "444")
        return sempic.pack(width=61, height=45, labels=labels, coarse=payload, **{name: True})
    if name == "coarse-only":
        return sempic.pack(width=64, height=48, coarse=bpg(picture, 35, "444"))
    if name == "optional":  # chunks of types 8 and 15 around the labels, to be skipped
        plain = sempic.pack(width=64, height=48, labels=labels)
        body = plain[:6] + b"\x58hello" + plain[6:-4] + b"\x0f"
        return body + zlib.crc32(body).to_bytes(4, "little")
    if name == "windows":  # three windows, two of them standing out of the picture, and a receipt
        picture, labels = street(61, 83)
        payload = bpg(picture, 36, "444")
        sent = windows.encode(picture, PLACES, coarse.decode(payload))
        groups = dict.fromkeys(GROUPS, Tally(0, 0, 0)) | {"vehicles": Tally(1, 0, 0)}
        receipt = Receipt(verifier="0badcafe", groups=groups)
        return sempic.pack(
            width=83, height=61, labels=labels, coarse=payload, windows=sent, receipt=receipt
        )
    if name == "texture":  # of three classes
        picture, labels = street(61, 83)
        said = {2: (0, 9), 3: (7, 22), 11: (31, 31)}
        return sempic.pack(
            width=83, height=61, labels=labels, coarse=bpg(picture, 36, "444"), texture=said
        )
    if name == "windows-alone":  # without a coarse picture
        picture, labels = street(61, 83)
        sent = windows.encode(picture, PLACES[:1], None)
        return sempic.pack(width=83, height=61, labels=labels, windows=sent)
    if name == "windows-subsampled":  # on a coarse picture whose chroma is doubled first
        picture, _ = street(61, 83)
        payload = bpg(picture, 30, "420")
        sent = windows.encode(picture, PLACES[1:], coarse.decode(payload))
        return sempic.pack(width=83, height=61, coarse=payload, windows=sent)
    if name == "groups":  # a receipt of the sender's own groups
        groups = {"Füchse": Tally(3, 1, 0), "all that rolls": Tally(0, 0, 2)}
        receipt = Receipt(verifier="0badcafe", table="00c0ffee", groups=groups)
        return sempic.pack(width=64, height=48, labels=labels, receipt=receipt)
    raise SystemExit(f"no vector is called {name}")


def make_sequence() -> bytes:
    """A drive of three pixels a frame; the third frame is as the second, the last a key frame."""
    picture, labels = street(96, 140)
    packer = Packer(width=125, height=96, rate=Fraction(25, 2), palette=1, model=3)
    pieces = []
    for number, left in enumerate((0, 3, 3, 6, 9, 12)):
        part = np.s_[:, left : left + 125]
        planes = None if number == 2 else coarse.from_rgb(coarse.downscale(picture[part]))
        found = np.ascontiguousarray(labels[part])
        pieces.append(packer.pack(planes, lambda _, f=found: f, qp=30 + number, key=number == 5))
    return b"".join(pieces)


def make_exposure() -> bytes:
    """A street that gets darker while something passes. The file has advice of a kind, too, that
    was given up since."""
    picture, labels = street(64, 90)
    passing, _ = street(24, 30)
    packer = Packer(width=90, height=64, rate=Fraction(10), palette=1)
    pieces = []
    for number in range(5):
        frame, found = (picture * (1 - 0.06 * number)).astype(np.uint8), labels.copy()
        at = np.s_[30:54, 6 * number : 6 * number + 30]
        frame[at], found[at] = passing, 8
        planes = coarse.from_rgb(coarse.downscale(frame))
        pieces.append(packer.pack(planes, lambda _, f=found: f, qp=28))
    return b"".join(pieces)


def make_halved() -> bytes:
    """A drive whose pictures are painted at half their size, with advice of texture."""
    picture, labels = street(72, 120)
    packer = Packer(width=101, height=71, rate=Fraction(10), palette=1)
    pieces = []
    for number, left in enumerate(range(0, 16, 4)):
        part = np.s_[:71, left : left + 101]
        found = np.ascontiguousarray(labels[part][::2, ::2])
        said = {0: {1: (4, 19), 3: (7, 9)}, 2: {3: (9, 9), 11: (0, 15)}}.get(number, {})
        pieces.append(
            packer.pack(
                coarse.from_rgb(coarse.downscale(picture[part])),
                lambda _, f=found: f,
                advice=lambda _, s=said: s,
                qp=28,
                halved=True,
            )
        )
    return b"".join(pieces)


def make_focus() -> bytes:
    """A drive in which key frames change the size at which pictures are painted."""
    picture, labels = street(56, 96)
    packer = Packer(width=77, height=55, rate=Fraction(5), palette=1)
    pieces = []
    for number, halved in enumerate((True, True, False, False, True, True)):
        part = np.s_[:55, 3 * number : 3 * number + 77]
        planes = coarse.from_rgb(coarse.downscale(picture[part]))
        found = np.ascontiguousarray(labels[part][::2, ::2] if halved else labels[part])
        pieces.append(
            packer.pack(planes, lambda _, f=found: f, qp=30, key=number % 2 == 0, halved=halved)
        )
    return b"".join(pieces)


def make_short() -> bytes:
    """A drive into the dark, so that slices have weights, and once nothing changes."""
    picture, labels = street(64, 96)
    packer = Packer(width=80, height=64, rate=Fraction(10), palette=1)
    pieces = []
    for number, left in enumerate((0, 2, 2, 4, 6, 8)):
        part = np.s_[:, left : left + 80]
        frame = (picture[part] * (1 - 0.04 * left)).astype(np.uint8)
        planes = None if number == 2 else coarse.from_rgb(coarse.downscale(frame))
        found = np.ascontiguousarray(labels[part])
        said = {0: {1: (4, 19)}, 3: {2: (9, 9)}}.get(number, {})
        pieces.append(
            packer.pack(planes, lambda _, f=found: f, advice=lambda _, s=said: s, qp=26 + number)
        )
    return b"".join(pieces)


def make_references() -> bytes:
    """A drive through a flickering light, in which pictures are predicted from up to six others."""
    picture, labels = street(64, 110)
    packer = Packer(width=80, height=64, rate=Fraction(10), palette=1)
    pieces = []
    for number in range(10):
        part = np.s_[:, 3 * number : 3 * number + 80]
        frame = (picture[part] * (1 - 0.3 * (number in (4, 8)))).astype(np.uint8)
        planes = None if number == 5 else coarse.from_rgb(coarse.downscale(frame))
        found = np.ascontiguousarray(labels[part])
        pieces.append(packer.pack(planes, lambda _, f=found: f, qp=25 + number % 2))
    return b"".join(pieces)


def make_parity() -> bytes:
    """Two groups of six and three frames, with parity; of each two frames are lost."""
    picture, labels = street(48, 80)
    packer = Packer(width=60, height=48, rate=Fraction(3, 2), palette=1, parity=0.9)
    pieces = []
    for left in range(0, 18, 2):
        part = np.s_[:, left : left + 60]
        found = np.ascontiguousarray(labels[part])
        planes = coarse.from_rgb(coarse.downscale(picture[part]))
        pieces.append(packer.pack(planes, lambda _, f=found: f, qp=30, key=left == 12))
    left = [piece for number, piece in enumerate(pieces) if number not in (2, 5, 6, 8)]
    return b"".join((*left, *packer.close()))


def patches(number: int) -> tuple[Image, LabelMap]:
    """A frame of small patches of many labels that move, and its map with some noise."""
    y, x = np.mgrid[0:36, 0:48]
    rows, columns = np.mgrid[0:72, 0:96] // 3
    labels = ((rows * 7919 + columns * 104729 + rows * columns * 31) >> 3).astype(np.uint8) % 12
    found = labels[y + 3 * number, x + 5 * number]
    found[10:20, 20 - 4 * number : 30 - 4 * number] = 8
    picture = np.array(sempic.PALETTES[1].colours).astype(np.uint8)[found]
    found[y * y % 7 + x % 11 == number] = 3
    return picture, found


def make_small() -> bytes:
    """Coarse pictures below HEVC's least size, and maps of small patches."""
    packer = Packer(width=48, height=36, rate=Fraction(10), palette=1, chroma="420")
    pieces = []
    for number in range(3):
        picture, found = patches(number)
        planes = coarse.from_rgb(coarse.downscale(picture), "420")
        pieces.append(packer.pack(planes, lambda _, f=found: f, qp=24))
    return b"".join(pieces)


def frames_of(stream: bytes) -> dict[str, np.ndarray]:
    """What a decoder gets of a sequence."""
    unpacker = Unpacker()
    moments = list(unpacker.moments([stream]))
    scenes = [moment.scene for moment in moments]
    head = unpacker.head
    rate = head.rate
    size = [head.width, head.height, head.palette, head.model, rate.numerator, rate.denominator]
    planes = {n: np.stack([getattr(s.coarse, n) for s in scenes]) for n in ("y", "cb", "cr")}
    if said := moments[-1].scene.texture:
        planes["texture"] = np.array([(number, *levels) for number, levels in said.items()])
    return {"size": np.array(size), "labels": np.stack([s.labels for s in scenes]), **planes}


NAMES = (
    "street",
    "fine-chroma",
    "small",
    "subsampled",
    "noise",
    "stored",
    "dot",
    "coarse-only",
    "optional",
    "primed3",
    "primed3-alone",
    "primed4",
    "primed4-alone",
    "halved",
    "windows",
    "windows-alone",
    "windows-subsampled",
    "groups",
    "texture",
)
SEQUENCES = {
    "sequences/street": make_sequence,
    "sequences/exposure": make_exposure,
    "sequences/parity": make_parity,
    "sequences/halved": make_halved,
    "sequences/short": make_short,
    "sequences/small": make_small,
    "sequences/focus": make_focus,
    "sequences/references": make_references,
}


def main() -> None:
    for name in sys.argv[1:] or (*NAMES, *SEQUENCES):
        path = HERE / f"{name}.sempic"
        if path.exists():
            print(f"{path.name} exists, left as it is")
            continue
        if name in SEQUENCES:
            stream = SEQUENCES[name]()
            path.write_bytes(stream)
            np.savez_compressed(path.with_suffix(".npz"), **frames_of(stream))
            print(f"{name}: {len(stream)} bytes")
            continue
        stream = make(name)
        scene = sempic.unpack(stream)
        arrays = {"size": np.array([scene.width, scene.height, scene.palette, scene.model])}
        if scene.labels is not None:
            arrays["labels"] = scene.labels
        if scene.coarse is not None:
            arrays |= {"y": scene.coarse.y, "cb": scene.coarse.cb, "cr": scene.coarse.cr}
        for number, window in enumerate(scene.windows):
            arrays |= {
                f"window{number}": window.picture,
                f"window{number}-at": np.array([window.x, window.y]),
            }
        if scene.texture:
            arrays["texture"] = np.array([(n, *said) for n, said in scene.texture.items()])
        path.write_bytes(stream)
        np.savez_compressed(path.with_suffix(".npz"), **arrays)
        print(f"{path.name}: {len(stream)} bytes")


if __name__ == "__main__":
    main()
