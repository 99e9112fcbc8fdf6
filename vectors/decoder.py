"""A second decoder of .sempic, written from docs/spec alone: the format by example.

Plain Python and NumPy, as short as it can be and as slow as it likes. It shares nothing with the
codec but the weights of its label models, which are part of the format, and `sempic.coarse.decode`,
which makes planes of BPG, AVIF, WebP and JPEG XL files, as other programs do. Sections are those of
docs/spec/format.md (F6 is its §6) and docs/spec/labels.md (L6 is its §6).

    python vectors/decoder.py vectors/street.sempic
"""

from __future__ import annotations

import hashlib
import math
import re
import sys
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from operator import add, mul
from pathlib import Path
from typing import Any

import numpy as np

from sempic import coarse

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Y, Cb and Cr, uint8, each (height, width) of its own."""


def require(condition: object, otherwise: str) -> None:
    """What a decoder must refuse."""
    if not condition:
        raise ValueError(otherwise)


def clamp(x: int, low: int, high: int) -> int:
    return max(low, min(x, high))


# ---- F1–F4: the stream -------------------------------------------------------------------------


LABELS, HALVED, DOUBLED = MAPS = 1, 6, 7
PALETTE, WINDOWS, RECEIPT, OWN_RECEIPT, TEXTURE = 9, 10, 11, 12, 13
COARSE = {2: "bpg", 3: "avif", 4: "webp", 5: "jxl"}
IDS = {0: 256, 1: 12, 2: 20, 3: 35}
"""F4: how many ids each palette has."""


def decode(stream: bytes, prior: Path | None = None) -> dict[str, Any]:
    """F1 to F4: what a stream says. The arrays have the names that vectors/README.md gives them;
    beside them are `own` and `receipt`, where there are such. prior: a file of the sender's own
    weights (L2)."""
    require(stream[:2] == b"\xe5\x53", "not sempic")
    require(stream[2:3] == b"\x01", "another version")
    body, crc = stream[:-4], stream[-4:]
    require(zlib.crc32(body) == int.from_bytes(crc, "little"), "wrong checksum")
    width, at = varint(body, 3)
    height, at = varint(body, at)
    require(0 < width < 65536 and 0 < height < 65536, "size out of bounds")
    require(width * height <= 1 << 26, "too large")
    require(at < len(body), "truncated")
    palette, model = body[at] & 15, body[at] >> 4
    require(palette in IDS and model < 15, "reserved profile")
    known = {*MAPS, WINDOWS, RECEIPT, OWN_RECEIPT, TEXTURE, *COARSE}
    known |= {PALETTE} if palette == 0 else set()
    chunks = split(body, at + 1, known)

    result: dict[str, Any] = {"size": np.array([width, height, palette, model])}
    planes = exact = None
    for kind in chunks.keys() & COARSE.keys():
        planes = coarse_planes(kind, chunks[kind])
        rows, columns = planes[0].shape
        require(rows <= height and columns <= width, "coarse picture too large")
        result |= dict(zip(("y", "cb", "cr"), planes, strict=True))
        exact = planes if COARSE[kind] == "bpg" else None
    if LABELS in chunks:
        result["labels"] = label_map(chunks[LABELS], height, width, exact, prior)
    for kind in chunks.keys() & {HALVED, DOUBLED}:  # F5
        small = label_map(chunks[kind], (height + 1) // 2, (width + 1) // 2, exact, prior)
        result["labels"] = small.repeat(2, 0).repeat(2, 1)[:height, :width]
    if "labels" in result:
        require(result["labels"].max() < IDS[palette], "id outside the palette")
    if PALETTE in chunks:
        result["own"] = chunks[PALETTE].decode()
        require(re.fullmatch(r"[\w-]{1,32}#[0-9a-f]{8}", result["own"]), "no palette")
    if WINDOWS in chunks:
        for number, (corner, picture) in enumerate(windows(chunks[WINDOWS], height, width, exact)):
            result[f"window{number}-at"], result[f"window{number}"] = corner, picture
    if RECEIPT in chunks:
        result["receipt"] = receipt(chunks[RECEIPT])
    if OWN_RECEIPT in chunks:
        result["receipt"] = receipt(chunks[OWN_RECEIPT], own=True)
    if TEXTURE in chunks:
        result["texture"] = np.array(texture(chunks[TEXTURE]))
    return result


def varint(data: bytes, at: int) -> tuple[int, int]:
    """F1: the value, and where the next byte is."""
    value = 0
    for i in range(5):
        require(at + i < len(data), "truncated")
        byte = data[at + i]
        value |= (byte & 127) << 7 * i
        if byte < 128:
            require(value < 1 << 32 and (byte or not i), "varint out of bounds")
            return value, at + i + 1
    raise ValueError("varint out of bounds")


def split(body: bytes, at: int, known: set[int]) -> dict[int, bytes]:
    """F3: payloads by type, of those that are known."""
    chunks: dict[int, bytes] = {}
    while at < len(body):
        head, at = varint(body, at)
        length, kind = head >> 4, head & 15
        require(at + length <= len(body), "truncated")
        payload, at = body[at : at + length], at + length
        if kind in known:
            families = (COARSE.keys(), {*MAPS}, {RECEIPT, OWN_RECEIPT})
            rivals = next((family for family in families if kind in family), {kind})
            require(not rivals & chunks.keys(), "two chunks of one kind")
            require(
                kind not in COARSE or not chunks.keys() & {*MAPS},
                "coarse picture after labels",
            )
            chunks[kind] = payload
        else:
            require(kind >= 8, f"unknown required chunk {kind}")
    require(chunks.keys() & {*MAPS, *COARSE}, "neither labels nor coarse picture")
    return chunks


# ---- F6: the coarse picture --------------------------------------------------------------------

BPG = bytes.fromhex("425047fb")
OPENINGS = [
    (bytes.fromhex(flags), bytes.fromhex(rest))
    for flags, rest in (
        ("2000", "00039247404401c1758112 0000012801"),
        ("6000", "00039247404401c174630112 0000012801"),
        ("2000", "0003b91d004401c1758112 0000012801"),
        ("6000", "0003b91d004401c174630112 0000012801"),
        ("6000", "00039247404401c17434681120 0000012801"),
        ("6000", "0003b91d004401c17434681120 0000012801"),
    )
]


def coarse_planes(kind: int, payload: bytes) -> Planes:
    """F6."""
    require(payload, "truncated")
    if COARSE[kind] != "bpg":
        return planes_of(payload, COARSE[kind])
    if payload[0] < 0xC0:
        return planes_of(BPG + payload)
    require(payload[0] < 0xC0 + len(OPENINGS), "unknown opening")
    flags, rest = OPENINGS[payload[0] - 0xC0]
    _, at = ue7(payload, 1)
    _, at = ue7(payload, at)
    return planes_of(BPG + flags + payload[1:at] + rest + payload[at:])


def planes_of(file: bytes, codec: str = "bpg") -> Planes:
    """Of a whole file. For BPG that is a HEVC decoder's work."""
    picture = coarse.decode(file, codec=codec)
    return picture.y, picture.cb, picture.cr


def ue7(data: bytes, at: int) -> tuple[int, int]:
    """BPG's numbers: seven bits a byte, the most significant first."""
    value = 0
    while True:
        require(at < len(data), "truncated")
        value, at = value << 7 | data[at] & 127, at + 1
        if data[at - 1] < 128:
            return value, at


def write_ue7(value: int) -> bytes:
    """The same for a value below 2^14."""
    return bytes([128 | value >> 7, value & 127]) if value > 127 else bytes([value])


def doubled(chroma: np.ndarray) -> np.ndarray:
    """F6: 4:2:0 chroma with twice the samples both ways."""
    taps = np.array([2, -6, 18, 57, -10, 4, -1])
    for _ in range(2):  # along one axis, then the other
        size = len(chroma)
        around = chroma[np.clip(np.arange(size)[:, None] + np.arange(-3, 4), 0, size - 1)]
        even, odd = (np.tensordot(around, t, (1, 0)) for t in (taps, taps[::-1]))
        chroma = np.stack((even, odd), 1).reshape(2 * size, -1).T
    return np.clip((chroma + (1 << 11)) >> 12, 0, 255)


def rgb(y: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> np.ndarray:
    """F6: BT.601, full range, in integers."""
    y, cb, cr = (y << 22) + (1 << 21), cb - 128, cr - 128
    colours = y + 5880414 * cr, y - 1443412 * cb - 2995305 * cr, y + 7432307 * cb
    return np.clip(np.stack(colours, -1) >> 22, 0, 255).astype(np.uint8)


def block(size: tuple[int, int], coarse_size: tuple[int, int]) -> int | None:
    """F6: f, or None where there is no such number."""
    fits = (
        f for f in range(1, max(size) + 1) if (-(-size[0] // f), -(-size[1] // f)) == coarse_size
    )
    return next(fits, None)


# ---- F7, F8, F9: windows, receipt, texture -----------------------------------------------------


class Bits:
    """Bits of bytes, the highest first."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int = 1) -> int:
        """The next bits, as a number."""
        require(self.at + count <= 8 * len(self.data), "truncated")
        value = 0
        for at in range(self.at, self.at + count):
            value = 2 * value + (self.data[at >> 3] >> (7 - at % 8) & 1)
        self.at += count
        return value

    def ue(self) -> int:
        """F7."""
        zeros = 0
        while not self.take():
            zeros += 1
        require(zeros < 16, "a number that is too large")
        return (1 << zeros) - 1 + self.take(zeros)

    def rest(self) -> bytes:
        """The bytes after this one, whose other bits are 0."""
        require(self.take(-self.at % 8) == 0, "bits other than 0 at the end")
        return self.data[self.at // 8 :]


def windows(
    payload: bytes, height: int, width: int, planes: Planes | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """F7: (left column, top row) of each window, and its RGB as far as it is in the picture."""
    columns, rows = -(-width // 8), -(-height // 8)
    bits, places = Bits(payload), []
    taken = np.zeros((rows, columns), bool)
    for _ in range(bits.ue() + 1):
        x, y = bits.take((columns - 1).bit_length()), bits.take((rows - 1).bit_length())
        w, h = (2 * bits.ue() + bits.take() + 1 for _ in range(2))
        require(x + w <= columns and y + h <= rows, "window outside the picture")
        require(not taken[y : y + h, x : x + w].any(), "windows overlap")
        taken[y : y + h, x : x + w] = True
        places.append((x, y, w, h))
    require(len(places) <= 255, "too many windows")
    spelt = bits.take()
    hevc = bits.rest()

    # The atlas, in cells: its width, the corner of each window, its height.
    area = sum(w * h for _, _, w, h in places)
    across = max(2, *(w for _, _, w, _ in places), math.isqrt(area - 1) + 1)
    left = top = bottom = 0
    corners = []
    for _, _, w, h in places:
        if left + w > across:
            left, top = 0, bottom
        corners.append((left, top))
        left, bottom = left + w, max(bottom, top + h)
    down = max(2, bottom)
    require(8 * max(across, down) <= 4096, "atlas too large")

    if not spelt:
        side = 8 * min(across, down)
        start = "0003924740" if side >= 64 else "0003b91d00" if side >= 32 else "0002ab74"
        size = write_ue7(8 * across) + write_ue7(8 * down)
        hevc = b"\x60\0" + size + bytes.fromhex(start + "4401c17581120000012801") + hevc
    atlas = planes_of(BPG + hevc)
    sizes = {plane.shape for plane in atlas}
    require(sizes == {(8 * down, 8 * across)}, "atlas of another size or not 4:4:4")
    differences = np.array(atlas).astype(int) - 128

    for (x, y, w, h), (left, top) in zip(places, corners, strict=True):
        ys = np.arange(8 * y, min(8 * (y + h), height))
        xs = np.arange(8 * x, min(8 * (x + w), width))
        sent = differences[:, 8 * top :, 8 * left :][:, : len(ys), : len(xs)]
        below = enlarged(planes, (height, width), ys, xs)
        yield np.array([8 * x, 8 * y]), rgb(*np.clip(below + sent, 0, 255))


def enlarged(
    planes: Planes | None, size: tuple[int, int], rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """F7: some rows and columns of the coarse picture at the picture's size, (3, rows, columns)."""
    if planes is None:
        return np.full((3, len(rows), len(columns)), 128)
    small, total = planes[0].shape, 1
    full = [p.astype(int) for p in planes]
    full = [p if p.shape == small else doubled(p)[: small[0], : small[1]] for p in full]
    picture, f = np.array(full), block(size, small)
    for wanted, s, side in ((rows, small[0], size[0]), (columns, small[1], size[1])):
        large = s * f if f else side
        j, r = np.divmod((2 * wanted + 1) * s - large, 2 * large)
        first, second = (picture[:, np.clip(i, 0, s - 1)] for i in (j, j + 1))
        picture = first * (2 * large - r)[:, None] + second * r[:, None]
        picture = picture.swapaxes(1, 2)  # the other axis next; twice gives the first order again
        total *= 2 * large
    return (picture + total // 2) // total


def receipt(payload: bytes, own: bool = False) -> dict[str, Any]:
    """F8: the verifier, and (seen, lost, invented) of each group; of the sender's own groups their
    table and names, too."""
    bits = Bits(payload)
    found: dict[str, Any] = {"verifier": bits.take(32).to_bytes(4, "big").hex()}
    count = 4
    if own:
        found["table"] = bits.take(32).to_bytes(4, "big").hex()
        names = bytes(bits.take(8) for _ in range(bits.take(8))).decode().split("\n")
        require(all(re.fullmatch(r"\w[\w -]{0,31}", name) for name in names), "no name of a group")
        require(len(set(names)) == len(names), "a name of two groups")
        found["names"], count = names, len(names)
    groups = []
    for _ in range(count):
        seen = bits.ue()
        lost = bits.ue() if seen else 0
        require(lost <= seen, "more lost than seen")
        groups.append((seen, lost, bits.ue()))
    require(bits.rest() == b"", "bytes after the receipt")
    return found | {"groups": groups}


def texture(payload: bytes) -> list[tuple[int, int, int]]:
    """F9: ids, each with its two levels."""
    bits = Bits(payload)
    found, number = [], -1
    for _ in range(bits.ue() + 1):
        number += bits.ue() + 1
        median = bits.take(5)
        high = median + bits.take(4)
        require(number < 256 and high < 32, "no level of texture")
        found.append((number, median, high))
    require(bits.rest() == b"", "bytes after the texture")
    return found


# ---- L2, L3: the labels' payload ---------------------------------------------------------------


WEIGHTS = Path(__file__).parents[1] / "src/sempic/labels/weights"
MODELS = {3: "camvid3.npz", 4: "cityscapes4.npz"}


def label_map(
    payload: bytes, height: int, width: int, planes: Planes | None, prior: Path | None = None
) -> np.ndarray:
    """L2: uint8 (height, width)."""
    require(payload, "truncated")
    head = payload[0]
    coder, size = head >> 6, (1, 2, 4, 32)[head >> 4 & 3]
    require(len(payload) > size, "truncated")
    mask = head & 15 | int.from_bytes(payload[1 : 1 + size], "little") << 4
    require(0 < mask < 1 << 256, "a set that cannot be")
    ids = [i for i in range(256) if mask >> i & 1]
    body = payload[1 + size :]
    if coder == 0:
        return stored(body, ids, height, width)
    if coder == 1:
        bits = RangeDecoder(body)
        places = adaptive(bits, height, width, len(ids))
        bits.finish()
        return np.array(ids, np.uint8)[places]
    require(body, "truncated")
    if body[0] == 0:
        require(len(body) > 4, "truncated")
        require(prior is not None, "it needs a prior of the sender's own")
        digest = hashlib.sha256(prior.read_bytes()).digest()
        require(body[1:5] == digest[:4], "it needs another prior")
        path, body = prior, body[5:]
    else:
        require(body[0] in MODELS, "unknown label model")
        path, body = WEIGHTS / MODELS[body[0]], body[1:]
    require(coder == 2 or planes is not None, "it needs the coarse picture")
    weights = dict(np.load(path))
    require(ids[-1] < weights["classes"], "ids that the model does not know")
    bits = RangeDecoder(body)
    labels = Primed(bits, height, width, ids, weights, planes if coder == 3 else None).decode()
    bits.finish()
    return labels.astype(np.uint8)


def stored(body: bytes, ids: list[int], height: int, width: int) -> np.ndarray:
    """L2.1."""
    depth = (len(ids) - 1).bit_length()
    require(len(body) == -(-height * width * depth // 8), "another length")
    bits = Bits(body)
    labels = np.empty(height * width, np.uint8)
    for pixel in range(height * width):
        place = sum(bits.take() << i for i in range(depth))
        require(place < len(ids), "a place that is not in the set")
        labels[pixel] = ids[place]
    require(bits.rest() == b"", "padding")
    return labels.reshape(height, width)


class RangeDecoder:
    """L3."""

    def __init__(self, body: bytes) -> None:
        self.body, self.at = body, 0  # `at`: how many bytes were shifted out
        self.low, self.high = 0, (1 << 48) - 1
        self.code = int.from_bytes(body[:6].ljust(6, b"\0"), "big")

    def bit(self, p: int) -> int:
        middle = self.low + ((self.high - self.low) >> 16) * p
        bit = self.code <= middle
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 40 == self.high >> 40:
            mask = (1 << 48) - 1
            following = self.body[self.at + 6] if self.at + 6 < len(self.body) else 0
            self.low, self.high = self.low << 8 & mask, (self.high << 8 & mask) + 255
            self.code = (self.code << 8 & mask) + following
            self.at += 1
        return int(bit)

    def one_of(self, weights: Sequence[int]) -> int:
        low, high = 0, len(weights)
        while high - low > 1:
            middle = (low + high) >> 1
            below, above = sum(weights[low:middle]), sum(weights[middle:high])
            if above == 0:
                first = 1
            elif below == 0:
                first = 0
            else:
                shifted = ((below << 16) + (1 << 63)) % (1 << 64) - (1 << 63)
                first = self.bit(clamp(shifted // (below + above), 1, 65535))
            low, high = (low, middle) if first else (middle, high)
        return low

    def finish(self) -> None:
        for fewest in range(7):
            kept = self.high >> 48 - 8 * fewest << 48 - 8 * fewest
            if kept >= self.low:
                require(len(self.body) == self.at + fewest, "another length")
                return


# ---- L4: questions -----------------------------------------------------------------------------


def squash(x: int) -> int:
    """L4.1."""
    return SQUASH[x + 3071]


SQUASH = [max(1, round(65536 / (1 + math.exp(x / 256)))) for x in range(3071, -1, -1)]
SQUASH += [65536 - p for p in SQUASH[-2::-1]]
STRETCH = [min(bisect_left(SQUASH, p), 6142) - 3071 for p in range(65537)]
EXP = [max(1, int(2**24 * math.exp(-d / 256))) for d in range(4096)]
EXPS = np.array(EXP)


def fold(h: int, *values: int) -> int:
    """L4.2."""
    for v in values:
        t = ((h ^ v) * 0x2545F491 + 0x1B873593) & 0x7FFFFFFF
        h = t ^ t >> 15
    return h


def count(most: int, test: Callable[[int], bool]) -> int:
    """How many of 0, 1, 2, … pass the test before the first that does not, at most `most`."""
    for i in range(most):
        if not test(i):
            return i
    return most


class Frame:
    """L1: a map that is being read, and `outside` around it."""

    def __init__(self, height: int, width: int, outside: int) -> None:
        self.height, self.width, self.outside = height, width, outside
        self.rows = [[outside] * width for _ in range(height)]

    def __call__(self, y: int, x: int) -> int:
        return self.rows[y][x] if 0 <= y < self.height and 0 <= x < self.width else self.outside


@cache
def offset(place: str) -> tuple[int, int]:
    """L1: of a place named as on a compass."""
    return place.count("S") - place.count("N"), place.count("E") - place.count("W")


FIRST = ["W", "N", "NE", "NW", "WW", "NN", "NNE", "NEE", "NNW", "NWW", "WWW", "NNN"]
OFFSETS = [offset(place) for place in FIRST]


def candidates(frame: Frame, y: int, x: int, *first: int) -> list[int]:
    """L4.3; `first` go before them."""
    labels = dict.fromkeys([*first, *[frame(y + dy, x + dx) for dy, dx in OFFSETS]])
    return [label for label in labels if label != frame.outside][:4]


class Around:
    """L4.3: the labels around a pixel, and their ranks among candidates."""

    def __init__(self, frame: Frame, y: int, x: int, candidates: list[int]) -> None:
        self.frame, self.y, self.x, self.candidates = frame, y, x, candidates
        self.known = {frame.outside: 5} | {label: i for i, label in enumerate(candidates)}

    def at(self, place: str) -> int:
        """The label of a place."""
        dy, dx = offset(place)
        return self.frame(self.y + dy, self.x + dx)

    def rank(self, place: str) -> int:
        return self.known.get(self.at(place), 4)

    def ranks(self, *places: str) -> int:
        """Ranks as the digits of a number, the first the lowest."""
        number = 0
        for place in reversed(places):
            number = 6 * number + self.rank(place)
        return number

    def asked(self, k: int) -> tuple[int, int]:
        """c(k) and c(k + 1)."""
        c, a = [*self.candidates, self.frame.outside][k : k + 2]
        return c, a


class Pixel(Around):
    """L4.3 and L4.4: candidates and outlines at a pixel."""

    def __init__(self, frame: Frame, y: int, x: int) -> None:
        super().__init__(frame, y, x, candidates(frame, y, x))
        self.near = self.ranks("N", "NW", "NE")
        self.six = self.ranks("N", "NW", "NE", "WW", "NN")
        far = self.ranks("NNE", "NNW", "NEE", "NWW", "WWW", "NNN")
        self.twelve = fold(self.six, far)
        farthest = self.ranks("NNEE", "NNWW", "NEEE", "NWWW", "NNNW", "NNNE")
        self.eighteen = fold(self.twelve, farthest)
        self.flat = int(self.six == 0)
        pairs = (("N", "W"), ("NE", "N"), ("NW", "W"), ("WW", "W"), ("NN", "N"))
        self.equal = 32 * self.flat
        self.equal += sum([(self.at(a) == self.at(b)) << i for i, (a, b) in enumerate(pairs)])

        west, north = self.at("W"), self.at("N")
        self.run_w = count(min(32, x + 1), lambda i: frame(y, x - 1 - i) == west)
        self.run_n = count(min(32, frame.width - x + 1), lambda i: frame(y - 1, x + i) == north)
        self.e1 = count(6, lambda i: frame(y - 1, x - 1 + i) == west)
        self.e2 = count(7, lambda i: frame(y - 2, x - 2 + i) == west)
        self.e3 = count(9, lambda i: frame(y - 3, x - 3 + i) == west)

    def contexts(self, k: int) -> list[int]:
        """L4.5, those that both coders have."""
        c, a = self.asked(k)
        pair = 257 * c + a
        w, n, ne, nw, ww, nn, _, nee = (self.at(place) for place in FIRST[:8])
        return [
            fold(self.six, c),
            fold(self.e1 + 16 * self.e2, self.e3, pair),
            self.eighteen,
            fold(257 * w + n, ne, nw),
            fold(257 * w + n, 257 * ne + nn, 257 * ww + nee),
            fold(8 * self.run_w.bit_length() + self.run_n.bit_length(), self.near),
            fold(pair, self.near),
            fold(self.twelve, pair),
        ]


class Mixer:
    """L4.5 and L4.6: slots, and the mixing of what they say."""

    def __init__(
        self,
        bits: RangeDecoder,
        weights: np.ndarray,
        uses: np.ndarray | None = None,
        prior: np.ndarray | None = None,
    ) -> None:
        """Weights (choice, set, input) and uses (choice, set); a prior has a byte for each slot."""
        self.bits, self.weights, self.prior = bits, weights.tolist(), prior
        self.uses = None if uses is None else uses.tolist()
        self.slots: dict[tuple[int, int], list[int]] = {}

    def slot(self, context: int, number: int) -> list[int]:
        """q and m; those of the prior (L8) if it is the first time."""
        key = context, number
        found = self.slots.get(key)
        if found is None:
            b = 0
            if self.prior is not None and number < self.prior.shape[1]:
                b = int(self.prior[key])
            q = squash(min(96 * (b >> 2) + 48, 6142) - 3071) << 6
            found = self.slots[key] = [q, (0, 4, 16, 60)[b & 3]] if b else [1 << 21, 0]
        return found

    def ask(self, numbers: list[int], others: list[int], sets: list[int]) -> int:
        """One bit. `numbers` are those of the slots, `others` the inputs that come after them."""
        slots = [self.slot(context, number) for context, number in enumerate(numbers)]
        inputs = [STRETCH[q >> 6] if m else 0 for q, m in slots] + others
        chosen = [self.weights[j][s] for j, s in enumerate(sets)]
        dots = [max(-3071, min(sum(map(mul, weights, inputs)) >> 16, 3071)) for weights in chosen]
        bit = self.bits.bit(squash(sum(dots) // len(dots)))

        for j, s in enumerate(sets):
            rate = 60  # of calm pixels, whose uses do not count
            if self.uses is not None:
                rate = max(30, 50000 // (100 + self.uses[j][s]))
                self.uses[j][s] += 1
            change = (65535 * bit - squash(dots[j])) * rate
            changes = [(x * change + 2097152) >> 22 for x in inputs]  # 2^21, as Python knows it
            chosen[j][:] = map(add, chosen[j], changes)
        goal = ((1 << 22) - 1) * bit
        for slot in slots:
            q, m = slot
            slot[0] = q + (goal - q) * 16 // (16 * m + 20)
            if m < 254:
                slot[1] = m + 1
        return bit

    def question(
        self, pixel: Pixel, k: int, contexts: list[int], others: list[int], sets: list[int]
    ) -> int:
        """Question k of a pixel: slots by hash, and the choices that both coders have."""
        c, a = pixel.asked(k)
        numbers = [fold(context + 7, k + 1) % 65536 for context in contexts]
        used = [self.slot(i, numbers[i])[1] > 0 for i in (7, 2, 0)]
        known = 3 - used.index(True) if any(used) else 0
        common = [
            64 * k + pixel.equal,
            2 * (4 * k + known) + pixel.flat,
            256 * k + 16 * (c % 16) + a % 16,
        ]
        return self.ask(numbers, others, common + sets)


# ---- L5: the adaptive coder --------------------------------------------------------------------


def adaptive(bits: RangeDecoder, height: int, width: int, n: int) -> np.ndarray:
    """L5: places in the set, (height, width)."""
    mixer = Mixer(bits, np.full((3, 1024, 12), [5500] * 11 + [0]), np.zeros((3, 1024), int))
    f = np.zeros((n + 1, n), int)
    f[n] = 1
    frame = Frame(height, width, n)

    def label(y: int, x: int) -> int:
        pixel = Pixel(frame, y, x)
        west, north = pixel.at("W"), pixel.at("N")
        run_up = count(5, lambda i: frame(y - 1 - i, x) == north)
        e4 = count(10, lambda i: frame(y - 4, x - 4 + i) == west)
        own = [
            fold(64 * run_up + pixel.run_w, pixel.near),
            fold(8 * pixel.run_n + run_up, pixel.near),
            fold(pixel.e1 + 16 * pixel.e2 + 256 * pixel.e3, e4),
        ]
        for k, c in enumerate(pixel.candidates):
            if k + 1 == n or mixer.question(pixel, k, pixel.contexts(k) + own, [256], []):
                return c
        first, *_ = [*pixel.candidates, n]
        weights = f[n] + 4 * f[first]
        weights[pixel.candidates] = 0
        label = bits.one_of(weights.tolist())
        f[n, label] += 1
        f[first, label] += 1
        return label

    for y in range(height):
        for x in range(width):
            frame.rows[y][x] = label(y, x)
    return np.array(frame.rows)


# ---- L6: the primed coder ----------------------------------------------------------------------

REACH = {-0: range(-8, 0), -1: range(-7, 9), -2: range(-6, 8), -3: range(-5, 7), -4: range(-4, 6)}
REACH |= {-5: range(-4, 5, 2), -7: range(-4, 5, 2)}
TEMPLATE = np.array([(dy, dx) for dy, columns in REACH.items() for dx in columns])
ROWS, COLUMNS = TEMPLATE.T
PLACES = np.arange(len(TEMPLATE))


class Primed:
    """L6 and, with planes, L7."""

    def __init__(
        self,
        bits: RangeDecoder,
        height: int,
        width: int,
        ids: list[int],
        weights: dict[str, np.ndarray],
        planes: Planes | None,
    ) -> None:
        self.bits, self.ids, self.n = bits, ids, int(weights["classes"])
        self.frame = Frame(height, width, self.n)
        self.map = np.full((7 + height, 8 + width + 8), self.n)  # the frame with its outside
        self.known = np.isin(np.arange(self.n), ids)
        names = ("template", "rows", "columns", "second", "second_bias", "last", "last_bias")
        self.network = [weights[f"causal.{name}"].astype(int) for name in names]
        self.coarse = Evidence(planes, self.frame, ids, weights) if planes is not None else None

        kind = "causal" if planes is None else "informed"
        first = np.array([4000] * 17 + [15000, 500, 500, 0])
        first = first + 16 * weights[f"primed.{kind}.weights"].astype(int)
        uses = weights[f"primed.{kind}.seen"].astype(int)
        self.outlines = Mixer(bits, first, uses, weights["primed.slots"])
        one_choice = weights[f"primed.{kind}.calm_weights"][None]
        self.calm = Mixer(bits, one_choice, prior=weights["primed.calm_slots"])

    def decode(self) -> np.ndarray:
        """All ids, (height, width)."""
        frame, height, width = self.frame, self.frame.height, self.frame.width
        high = [0] * width
        for y in range(height):
            if self.band(y, 0) != self.band(y - 1, 0):
                self.kept: dict[tuple[int, int], int] = {}
            above = [frame(y - 1, x) for x in range(width)]
            high = [high[x] + 1 if above[x] == frame(y - 2, x) else 1 for x in range(width)]
            near, wide = (spans(above, high, least) for least in (2, 8))
            run = 0
            for x in range(width):
                run = run + 1 if x > 1 and frame(y, x - 1) == frame(y, x - 2) else 1
                calm = x + 2 < width and near[x + 2] > 4 and above[x] == frame(y, x - 1)
                if calm and run >= 2 and len(self.ids) > 1:
                    reach = min(wide[x + 8] if x + 8 < width else 0, run + 8)
                    label = self.calm_pixel(y, x, high[x], run, reach)
                else:
                    label = self.other_pixel(y, x)
                frame.rows[y][x] = self.map[7 + y, 8 + x] = label
        return np.array(frame.rows)

    def band(self, y: int, x: int) -> tuple[int, int]:
        """L6: row and column."""
        return 32 * y // self.frame.height, 32 * x // self.frame.width

    def around(self, y: int, x: int) -> np.ndarray:
        """The labels of the template."""
        return self.map[7 + y + ROWS, 8 + x + COLUMNS]

    def chances(self, y: int, x: int) -> list[int]:
        """L6.1: of each label; 0 outside the set."""
        template, rows, columns, second, second_bias, last, last_bias = self.network
        row, column = self.band(y, x)
        first = template[PLACES, self.around(y, x)].sum(0)
        hidden = bounded(rows[row] + columns[column] + first)
        outputs = bounded((hidden @ second >> 8) + second_bias)
        score = (outputs @ last >> 8) + last_bias
        behind = np.minimum(score.max() - score, 4095)
        return (EXPS[behind[: self.n]] * self.known).tolist()

    def calm_pixel(self, y: int, x: int, high: int, run: int, reach: int) -> int:
        """L6.2."""
        west, (row, column) = self.frame(y, x - 1), self.band(y, x)
        ring, up = min(reach // 4, 4), min(high, 31).bit_length()
        slots = [
            8 * (32 * west + row) + ring,
            8 * (8 * (16 * west + min(run, 16383).bit_length()) + up) + ring,
        ]
        blank = [0] * 4  # the inputs of the contexts that coder 2 lacks
        ahead = steep = 0
        if self.coarse:
            across, down = self.coarse.across[y][x], self.coarse.down[y][x]
            top, sure = self.coarse.top[y][x], self.coarse.sure[y][x]
            ahead, steep = self.coarse.ahead(y, x, west), int(across + down > 6)
            tops = 16 if self.n <= 16 else 32
            slots += [
                6 * (10 * across + down) + ring,
                16 * (16 * west + across) + down,
                6 * (32 * west + clamp((ahead >> 2) + 16, 0, 31)) + (up >> 1),
                4 * (8 * (tops * west + top) + sure) + min(3, across >> 1),
            ]
            blank = []
        keep = reach > 16 and run >= 8
        chances = None
        expected = self.kept.get((west, column)) if keep else None
        if expected is None:
            chances = self.chances(y, x)
            expected = STRETCH[clamp((chances[west] << 16) // sum(chances), 1, 65535)]
            if keep:
                self.kept[west, column] = expected
        lead = clamp(32 * ahead, -3071, 3071)
        others = [*blank, expected, lead, lead * steep, 256]
        if self.calm.ask(slots, others, [2 * west + steep]):
            return west
        return self.escape(y, x, [west], chances or self.chances(y, x))

    def other_pixel(self, y: int, x: int) -> int:
        """L6.3."""
        pixel = Pixel(self.frame, y, x)
        chances = self.chances(y, x)
        mass = sum(chances)
        stairs = [fold(stair, pixel.near) for stair in (self.upright(pixel), self.level(pixel))]
        colours = self.coarse.colours(pixel, self.around(y, x)) if self.coarse else []
        for k, c in enumerate(pixel.candidates):
            if k + 1 == len(self.ids):
                return c
            contexts = pixel.contexts(k) + stairs
            blank = [0] * 7  # the inputs of the contexts that coder 2 lacks
            ahead = over = 0
            more_sets: list[int] = []
            if self.coarse:
                more, ahead, over, more_sets = self.coarse.question(pixel, k, colours)
                contexts, blank = contexts + more, []
            expected = STRETCH[clamp((chances[c] << 16) // mass, 1, 65535)]
            leads = [clamp(32 * lead, -3071, 3071) for lead in (ahead, over)]
            others = [*blank, expected, *leads, 256]
            sets = [64 * k + 32 + expected // 97, *more_sets]
            if self.outlines.question(pixel, k, contexts, others, sets):
                return c
            mass -= chances[c]
        return self.escape(y, x, pixel.candidates, chances)

    def escape(self, y: int, x: int, denied: list[int], chances: list[int]) -> int:
        """L6.4."""
        if self.coarse:
            best, scores = self.coarse.best[y][x], self.coarse.scores[y][x]
            chances = [
                chance * EXP[clamp(8 * (best - score), 0, 4095)] >> 6
                for chance, score in zip(chances, scores, strict=True)
            ]
        possible = [v in self.ids and v not in denied for v in range(self.n)]
        return self.bits.one_of([(chances[v] + 1) * possible[v] for v in range(self.n)])

    def upright(self, pixel: Pixel) -> int:
        """L6.3: the contour on the right of P, upward."""
        frame, e1 = self.frame, pixel.e1
        if not 0 < e1 < 6:
            return 0
        y, x = pixel.y - 1, pixel.x + e1 - 2  # P
        label = frame(y, x)

        def edge(y: int, x: int) -> bool:
            return frame(y, x) == label != frame(y, x + 1)

        length = 1 + count(14, lambda i: edge(y - 1 - i, x))
        if length == 15:
            return 1 + e1 + 8 * 1920
        q = y - length  # its row
        if frame(q, x) == label:
            step = count(3, lambda i: frame(q, x + 1 + i) == label)
        else:
            step = -count(3, lambda i: frame(q, x - i) not in (label, frame.outside))
        before = count(15 - length, lambda i: edge(q - i, x + step))
        return 1 + e1 + 8 * (16 * (8 * length + step + 4) + before)

    def level(self, pixel: Pixel) -> int:
        """L6.3: the contour above W, leftward."""
        frame, y, x = self.frame, pixel.y, pixel.x - 1
        west, north = pixel.at("W"), pixel.at("N")
        if north == west:
            return 0

        def edge(y: int, x: int) -> bool:
            return frame(y, x) == west and frame(y - 1, x) == north

        length = 1 + count(30, lambda i: edge(y, x - 1 - i))
        q = x - length  # its column
        if length == 31 or frame(y, q) != west:
            found = 64 * length + 16
        elif frame(y - 1, q) != west:
            found = 64 * length + 32
        else:
            found = 64 * length + 48 + count(15, lambda i: edge(y - 1, q - i))
        return 1 + min(pixel.run_n, 15) + 16 * found


def bounded(values: np.ndarray) -> np.ndarray:
    """L6.1: within 0 … 7936; np.clip takes four times as long for so few."""
    return np.minimum(np.maximum(values, 0), 7936)


def spans(above: list[int], high: list[int], least: int) -> list[int]:
    """L6.2: near and wide of each column."""
    spans: list[int] = []
    for x, run in enumerate(high):
        goes_on = x > 0 and above[x] == above[x - 1]
        spans.append(0 if run < least else spans[-1] + 1 if goes_on else 1)
    return spans


# ---- L7: what the coarse picture says ----------------------------------------------------------


class Evidence:
    """L7: planes and scores at each pixel of the map."""

    def __init__(
        self, planes: Planes, frame: Frame, ids: list[int], weights: dict[str, np.ndarray]
    ) -> None:
        self.frame = frame
        rows, columns = -(-frame.height // 4), -(-frame.width // 4)
        grid = np.array([sampled(plane.astype(int), rows, columns) for plane in planes])
        self.planes = bilinear(grid, frame.height, frame.width)
        around = np.pad(self.planes, ((0, 0), (4, 2), (4, 2)), mode="edge")
        self.across = bit_lengths(around[:, 4:-2, 6:] - around[:, 4:-2, :-6])
        self.down = bit_lengths(around[:, 6:, 4:-2] - around[:, :-6, 4:-2])

        scores = trunk(grid, weights).reshape(rows, columns, 4, 4, -1).swapaxes(1, 2)
        scores = scores.reshape(4 * rows, 4 * columns, -1)[: frame.height, : frame.width]
        scores = np.where(np.isin(np.arange(scores.shape[-1]), ids), scores, -1000)
        second, best = np.moveaxis(np.sort(scores)[..., -2:], -1, 0)
        self.scores, self.second, self.best = scores.tolist(), second.tolist(), best.tolist()
        self.top = scores.argmax(-1).tolist()
        self.sure = np.clip((best - second) >> 3, 0, 7).tolist()

    def at(self, y: int, x: int) -> np.ndarray:
        """The planes' values; outside the map the nearest pixel's."""
        return self.planes[:, clamp(y, 0, self.frame.height - 1), clamp(x, 0, self.frame.width - 1)]

    def ahead(self, y: int, x: int, v: int) -> int:
        """L7.2."""
        rival = self.second if v == self.top[y][x] else self.best
        return self.scores[y][x][v] - rival[y][x]

    def colours(self, pixel: Pixel, labels: np.ndarray) -> list[np.ndarray]:
        """L7.3: m of each candidate. labels: those of the template."""
        colours = []
        for c in pixel.candidates:
            ys, xs = TEMPLATE[labels == c].T
            colours.append(4 * self.planes[:, pixel.y + ys, pixel.x + xs].sum(1) // len(ys))
        return colours

    def question(
        self, pixel: Pixel, k: int, m: list[np.ndarray]
    ) -> tuple[list[int], int, int, list[int]]:
        """L7.3 and L6.3: contexts 10 …, ahead, over, and the sets s(4), s(5)."""
        y, x, (c, a) = pixel.y, pixel.x, pixel.asked(k)
        u, r, b = (4 * self.at(*place) - m[k] for place in ((y, x), (y, x + 4), (y + 4, x)))
        if len(m) > 1:
            d = m[(k + 1) % len(m)] - m[k]
            span = int(d @ d)
            here, right, below = (
                int(s * (v @ d) // max(span, 1)) for s, v in ((8, u), (4, r), (4, b))
            )
            here, right, below = clamp(here + 2, 0, 11), clamp(right, 0, 3), clamp(below, 0, 3)
            contrast = clamp((span.bit_length() - 4) >> 1, 0, 6)
        else:
            here, right, below = (int(np.abs(v).sum() >> 2).bit_length() for v in (u, r, b))
            here, right, below = min(here, 8), min(right >> 1, 3), min(below >> 1, 3)
            contrast = 7
        ways = 4 * right + below

        top, sure, scores = self.top[y][x], self.sure[y][x], self.scores[y][x]
        ahead = self.ahead(y, x, c)
        over = ahead if a == self.frame.outside else scores[c] - scores[a]
        luma, cb, cr = self.at(y, x).tolist()
        colour = 64 * (luma >> 4) + 8 * clamp((cb - 104) // 6, 0, 7) + clamp((cr - 104) // 6, 0, 7)
        pair = 257 * c + a
        contexts = [
            fold(8 * here + contrast, pixel.near),
            fold(16 * (here >> 1) + ways, 36 * contrast + 6 * pixel.rank("N") + pixel.rank("NE")),
            fold(colour, pair),
            fold(4 * (8 * here + contrast) + right, pixel.six),
            fold(8 * (256 * clamp((ahead >> 2) + 16, 0, 31) + top) + sure, pair),
            fold(13 * clamp((over >> 2) + 16, 0, 31) + here, pixel.near),
            fold(8 * (12 * ways + here) + contrast, pixel.e1 + 16 * pixel.e2),
        ]
        coarsely = [clamp((lead >> 3) + 8, 0, 15) for lead in (ahead, over)]
        sets = [12 * (8 * k + contrast) + here, 256 * k + 16 * coarsely[0] + coarsely[1]]
        return contexts, ahead, over, sets


def sampled(plane: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """L7.1: a plane on the grid."""
    height, width = plane.shape
    i = (2 * np.arange(rows) + 1) * height // (2 * rows)
    j = (2 * np.arange(columns) + 1) * width // (2 * columns)
    return plane[i][:, j]


def bilinear(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """L7.1: the grid at the map's size, (3, height, width)."""
    for size in (height, width):
        t = 2 * np.arange(size) - 3
        first, second = (grid[:, np.clip(i, 0, grid.shape[1] - 1)] for i in (t >> 3, (t >> 3) + 1))
        grid = first * (8 - t % 8)[:, None] + second * (t % 8)[:, None]
        grid = grid.swapaxes(1, 2)  # the other axis next; twice gives the first order again
    return (grid + 32) >> 6


def bit_lengths(differences: np.ndarray) -> list[list[int]]:
    """L7.2, across and down: of the sums over the planes, (3, height, width) → [y][x]."""
    sums = np.abs(differences).sum(0).tolist()
    return [[value.bit_length() for value in row] for row in sums]


def trunk(grid: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """L7.2: scores of 16 pixels each, (rows, columns, 16 n)."""

    def layer(x: np.ndarray, name: str, kernel: int = 3, stride: int = 1) -> np.ndarray:
        height, width = x.shape[:2]
        edge = kernel // 2
        x = np.pad(x, ((edge, edge), (edge, edge), (0, 0)))
        around = [
            x[i : i + height : stride, j : j + width : stride]
            for i in range(kernel)
            for j in range(kernel)
        ]
        # Sums of whole numbers below 2^24: exact in floats, and much faster than in integers.
        sums = np.concatenate(around, -1) @ weights[f"{name}.weight"].T.astype(float)
        scaled = sums.astype(int) * weights[f"{name}.multiplier"] + weights[f"{name}.bias"]
        return np.clip(scaled >> 24, 0, 255)

    def join(small: np.ndarray, large: np.ndarray) -> np.ndarray:
        doubled = small.repeat(2, 0).repeat(2, 1)[: large.shape[0], : large.shape[1]]
        return np.concatenate((doubled, large), -1)

    _, rows, columns = grid.shape
    i, j = np.mgrid[:rows, :columns]
    x = np.stack((*grid, i * 256 // rows, j * 256 // columns), -1) - 128
    full = layer(layer(x, "layer0"), "layer1")
    half = layer(layer(full, "layer2", stride=2), "layer3")
    quarter = layer(layer(layer(half, "layer4", stride=2), "layer5"), "layer6")
    x = layer(join(quarter, half), "layer7", kernel=1)
    x = layer(layer(join(x, full), "layer8", kernel=1), "layer9")
    return layer(x, "readout", kernel=1)


if __name__ == "__main__":
    for name, value in decode(Path(sys.argv[1]).read_bytes()).items():
        print(name, value.shape if getattr(value, "ndim", 1) > 1 else value)
