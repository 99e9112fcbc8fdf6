"""A second decoder of .sempic, written from docs/spec alone: the format by example.

Plain Python and NumPy, as short as it can be and as slow as it likes. It shares nothing with
src/sempic but the planes of an HEVC picture, for which any decoder would do. Section numbers are
those of docs/spec/format.md (F) and docs/spec/labels.md (L).

    python vectors/decoder.py vectors/street.sempic
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from sempic import coarse

WEIGHTS = Path(__file__).parents[1] / "src/sempic/labels/weights"
MODELS = {3: "camvid3.npz", 4: "cityscapes4.npz"}
IDS = {0: 256, 1: 12, 2: 20, 3: 35}  # F4: palettes and how many ids they have
MOST_PIXELS = 1 << 26


def require(condition: object, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def clamp(x: int, low: int, high: int) -> int:
    return max(low, min(x, high))


# ---- F1–F4: the stream -------------------------------------------------------------------------


def decode(stream: bytes) -> dict[str, Any]:
    """A stream → what it says, under the names of vectors/README.md, and `receipt`."""
    require(stream[:2] == b"\xe5\x53", "not sempic")
    require(stream[2:3] == b"\x01", "another version")
    require(zlib.crc32(stream[:-4]).to_bytes(4, "little") == stream[-4:], "wrong checksum")
    body, at = stream[:-4], 3
    width, at = varint(body, at)
    height, at = varint(body, at)
    require(0 < width < 65536 and 0 < height < 65536, "size out of bounds")
    require(width * height <= MOST_PIXELS, "too large")
    palette, model = body[at] & 15, body[at] >> 4
    require(palette in IDS and model != 15, "reserved profile")
    chunks = split(body, at + 1)

    result: dict[str, Any] = {"size": np.array([width, height, palette, model])}
    planes = None
    if kinds := [kind for kind in chunks if 2 <= kind <= 5]:
        planes = coarse_planes(kinds[0], chunks[kinds[0]])
        require(planes[0].shape <= (height, width), "coarse picture too large")
        result |= dict(zip(("y", "cb", "cr"), planes, strict=True))
    exact = planes if 2 in chunks else None  # only BPG's planes are the same everywhere
    if 1 in chunks:
        labels = label_map(chunks[1], height, width, exact)
        require(labels.max() < IDS[palette], "id outside the palette")
        result["labels"] = labels
    if 10 in chunks:
        for number, (x, y, picture) in enumerate(windows(chunks[10], height, width, exact)):
            result |= {f"window{number}": picture, f"window{number}-at": np.array([x, y])}
    if 11 in chunks:
        result["receipt"] = receipt(chunks[11])
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


def split(body: bytes, at: int) -> dict[int, bytes]:
    """F3: payloads by type; of optional chunks that we do not know the last."""
    chunks: dict[int, bytes] = {}
    while at < len(body):
        head, at = varint(body, at)
        length, kind = head >> 4, head & 15
        require(at + length <= len(body), "truncated")
        require(1 <= kind <= 5 or kind >= 8, f"unknown chunk {kind}")
        family = {2, 3, 4, 5} if 2 <= kind <= 5 else {kind}
        require(kind in (8, 12, 13, 14, 15) or not family & chunks.keys(), "chunk twice")
        require(kind not in (2, 3, 4, 5) or 1 not in chunks, "coarse after labels")
        chunks[kind] = body[at : at + length]
        at += length
    require(chunks.keys() & {1, 2, 3, 4, 5}, "neither labels nor coarse picture")
    return chunks


# ---- F6: the coarse picture --------------------------------------------------------------------

BPG = bytes.fromhex("425047fb")
PPS = "4401c1 758112 00000128 01"  # what ends the usual openings
OPENINGS = (
    ("2000", "0003924740 4401c1758112 0000012801"),
    ("6000", "0003924740 4401c174630112 0000012801"),
    ("2000", "0003b91d00 4401c1758112 0000012801"),
    ("6000", "0003b91d00 4401c174630112 0000012801"),
    ("6000", "0003924740 4401c174346811200000012801"),
    ("6000", "0003b91d00 4401c174346811200000012801"),
)

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]


def coarse_planes(kind: int, payload: bytes) -> Planes:
    """Y, Cb and Cr, uint8."""
    if kind == 2:
        file = BPG + payload
        if payload[0] >= 0xC0:
            flags, rest = (bytes.fromhex(part) for part in OPENINGS[payload[0] - 0xC0])
            _, at = ue7(payload, 1)
            _, at = ue7(payload, at)
            file = BPG + flags + payload[1:at] + rest + payload[at:]
        return planes_of(coarse.decode(file))
    return planes_of(coarse.decode(payload, codec={3: "avif", 4: "webp", 5: "jxl"}[kind]))


def planes_of(picture: coarse.Coarse) -> Planes:
    return picture.y, picture.cb, picture.cr


def ue7(data: bytes, at: int) -> tuple[int, int]:
    """BPG's numbers: seven bits a byte, the most significant first."""
    value = 0
    while True:
        value, at = value << 7 | data[at] & 127, at + 1
        if data[at - 1] < 128:
            return value, at


def write_ue7(value: int) -> bytes:
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


def block(side: tuple[int, int], small: tuple[int, int]) -> int | None:
    """F6: f, or None."""
    for f in range(1, max(side) + 1):
        if all(-(-s // f) == t for s, t in zip(side, small, strict=True)):
            return f
    return None


# ---- F7, F8: windows and receipt ---------------------------------------------------------------


class Bits:
    """Bits of bytes, the highest first."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int = 1) -> int:
        value = 0
        for _ in range(count):
            require(self.at < 8 * len(self.data), "truncated")
            value = 2 * value + (self.data[self.at >> 3] >> 7 - (self.at & 7) & 1)
            self.at += 1
        return value

    def ue(self) -> int:
        zeros = 0
        while not self.take():
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def rest(self) -> bytes:
        """The bytes after this one, whose other bits are 0."""
        require(self.take(-self.at % 8) == 0, "padding other than 0")
        return self.data[self.at // 8 :]


def windows(
    payload: bytes, height: int, width: int, planes: Planes | None
) -> Iterator[tuple[int, int, np.ndarray]]:
    """F7: left column, top row and RGB of each window, as far as it is in the picture."""
    columns, rows = -(-width // 8), -(-height // 8)
    bits = Bits(payload)
    places, taken = [], np.zeros((rows, columns), bool)
    count = bits.ue() + 1
    require(count <= 255, "too many windows")
    for _ in range(count):
        x, y = bits.take((columns - 1).bit_length()), bits.take((rows - 1).bit_length())
        w, h = (2 * bits.ue() + bits.take() + 1 for _ in range(2))
        require(x + w <= columns and y + h <= rows, "window outside the picture")
        require(not taken[y : y + h, x : x + w].any(), "windows overlap")
        taken[y : y + h, x : x + w] = True
        places.append((x, y, w, h))
    spelt = bits.take()
    hevc = bits.rest()

    # The atlas, in cells.
    area = sum(w * h for _, _, w, h in places)
    across = 2
    while across < max(w for _, _, w, _ in places) or across * across < area:
        across += 1
    left = top = down = 0
    corners = []
    for _, _, w, h in places:
        if left + w > across:
            left, top = 0, down
        corners.append((left, top))
        left, down = left + w, max(down, top + h)
    down = max(down, 2)
    require(max(across, down) <= 512, "atlas too large")

    if spelt:
        file = BPG + hevc
    else:
        short = 8 * min(across, down)
        start = "0003924740" if short >= 64 else "0003b91d00" if short >= 32 else "0002ab74"
        opening = bytes.fromhex(start + "4401c17581120000012801")
        size = write_ue7(8 * across) + write_ue7(8 * down)
        file = BPG + bytes.fromhex("6000") + size + opening + hevc
    atlas = np.array(planes_of(coarse.decode(file))).astype(int)
    require(atlas.shape == (3, 8 * down, 8 * across), "atlas of another size")

    for (x, y, w, h), (left, top) in zip(places, corners, strict=True):
        ys, xs = np.arange(8 * y, min(8 * (y + h), height)), np.arange(8 * x, min(8 * (x + w), width))
        difference = atlas[:, 8 * top :, 8 * left :][:, : len(ys), : len(xs)] - 128
        shown = np.clip(enlarged(planes, (height, width), ys, xs) + difference, 0, 255)
        yield 8 * x, 8 * y, rgb(*shown)


def enlarged(
    planes: Planes | None, size: tuple[int, int], rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """F7: some rows and columns of the coarse picture at the picture's size, (3, rows, columns)."""
    if planes is None:
        return np.full((3, len(rows), len(columns)), 128)
    small = planes[0].shape
    full = [p.astype(int) for p in planes]
    full = [p if p.shape == small else doubled(p)[: small[0], : small[1]] for p in full]
    picture, f = np.array(full), block(size, small)
    total = 1
    for wanted, s, side in ((rows, small[0], size[0]), (columns, small[1], size[1])):
        large = s * f if f else side
        j, r = np.divmod((2 * wanted + 1) * s - large, 2 * large)
        first, second = (picture[:, np.clip(i, 0, s - 1)] for i in (j, j + 1))
        picture = first * (2 * large - r)[:, None] + second * r[:, None]
        picture = picture.swapaxes(1, 2)  # the other axis next; twice makes the order as it was
        total *= 2 * large
    return (picture + total // 2) // total


def receipt(payload: bytes) -> dict[str, Any]:
    """F8: the verifier, and (seen, lost, invented) of each group."""
    bits = Bits(payload)
    verifier = bits.take(32).to_bytes(4, "big").hex()
    groups = []
    for _ in range(4):
        seen = bits.ue()
        lost = bits.ue() if seen else 0
        require(lost <= seen, "more lost than seen")
        groups.append((seen, lost, bits.ue()))
    require(bits.rest() == b"", "bytes after the receipt")
    return {"verifier": verifier, "groups": groups}


# ---- L2, L3: the labels' payload ---------------------------------------------------------------


def label_map(payload: bytes, height: int, width: int, planes: Planes | None) -> np.ndarray:
    """L2: uint8 (height, width)."""
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
    require(body and body[0] in MODELS, "unknown label model")
    require(coder == 2 or planes is not None, "it needs the coarse picture")
    weights = dict(np.load(WEIGHTS / MODELS[body[0]]))
    require(ids[-1] < weights["classes"], "ids that the model does not know")
    bits = RangeDecoder(body[1:])
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
        self.window = int.from_bytes(body[:6].ljust(6, b"\0"), "big")

    def bit(self, p: int) -> int:
        middle = self.low + ((self.high - self.low) >> 16) * p
        bit = self.window <= middle
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 40 == self.high >> 40:
            mask = (1 << 48) - 1
            following = self.body[self.at + 6] if self.at + 6 < len(self.body) else 0
            self.low, self.high = self.low << 8 & mask, (self.high << 8 & mask) + 255
            self.window = (self.window << 8 & mask) + following
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
                first = self.bit(clamp((below << 16) // (below + above), 1, 65535))
            low, high = (low, middle) if first else (middle, high)
        return low

    def finish(self) -> None:
        for fewest in range(7):
            kept = self.high >> 48 - 8 * fewest << 48 - 8 * fewest
            if kept >= self.low:
                require(len(self.body) == self.at + fewest, "another length")
                return


# ---- L4: questions -----------------------------------------------------------------------------

SQUASH = np.clip(np.rint(65536 / (1 + np.exp(np.arange(3071, -1, -1) / 256))), 1, 65535).astype(int)
SQUASH = np.concatenate((SQUASH, 65536 - SQUASH[-2::-1]))  # of −3071 … 3071
STRETCH = np.minimum(np.searchsorted(SQUASH, np.arange(65537)), 6142) - 3071
EXP = np.maximum(1, (2**24 * np.exp(-np.arange(4096) / 256)).astype(int)).tolist()


def fold(h: int, *values: int) -> int:
    """L4.2."""
    for v in values:
        t = ((h ^ v) * 0x2545F491 + 0x1B873593) & 0x7FFFFFFF
        h = t ^ t >> 15
    return h


class Frame:
    """L1: a map that is being read, and `outside` around it."""

    def __init__(self, height: int, width: int, outside: int) -> None:
        self.height, self.width, self.outside = height, width, outside
        self.rows = [[outside] * width for _ in range(height)]

    def __call__(self, y: int, x: int) -> int:
        return self.rows[y][x] if y >= 0 and 0 <= x < self.width else self.outside

    def count(self, y: int, x: int, dy: int, dx: int, most: int, test: Callable[[int, int], bool]) -> int:
        """In how many places from (y, x) in a direction the test holds, without a gap."""
        for i in range(most):
            if not test(y + i * dy, x + i * dx):
                return i
        return most

    def run(self, y: int, x: int, dy: int, dx: int, most: int, label: int | None = None) -> int:
        """How many labels from (y, x) in a direction are equal: to the first, or to `label`."""
        wanted = self(y, x) if label is None else label
        return self.count(y, x, dy, dx, most, lambda i, j: self(i, j) == wanted)


def neighbourhood(frame: Frame, y: int, x: int) -> SimpleNamespace:
    """L4.3 and L4.4."""

    def at(name: str) -> int:
        return frame(y - name.count("N"), x + name.count("E") - name.count("W"))

    def digits(names: str) -> int:
        return sum(rank(at(name)) * 6**i for i, name in enumerate(names.split()))

    def rank(label: int) -> int:
        if label == frame.outside:
            return 5
        return candidates.index(label) if label in candidates else 4

    around = [at(name) for name in "W N NE NW WW NN NNE NEE NNW NWW WWW NNN".split()]
    candidates = [c for c in dict.fromkeys(around) if c != frame.outside][:4]
    west, north = around[:2]
    p = SimpleNamespace(at=at, candidates=candidates, rank=rank)
    p.near = digits("N NW NE")
    p.six = digits("N NW NE WW NN")
    p.twelve = fold(p.six, digits("NNE NNW NEE NWW WWW NNN"))
    p.eighteen = fold(p.twelve, digits("NNEE NNWW NEEE NWWW NNNW NNNE"))
    p.flat = int(p.six == 0)
    p.equal = 32 * p.flat + 16 * (at("NN") == north) + 8 * (at("WW") == west)
    p.equal += 4 * (at("NW") == west) + 2 * (at("NE") == north) + (north == west)
    p.run_w = frame.run(y, x - 1, 0, -1, min(32, x + 1))
    p.run_n = frame.run(y - 1, x, 0, 1, min(32, frame.width - x + 1))
    p.e1 = frame.run(y - 1, x - 1, 0, 1, 6) if at("NW") == west else 0
    p.e2 = frame.run(y - 2, x - 2, 0, 1, 7, west)
    p.e3 = frame.run(y - 3, x - 3, 0, 1, 9, west)
    return p


def common_contexts(p: SimpleNamespace, pair: int, c: int) -> list[int]:
    """L4.5."""
    at = p.at
    return [
        fold(p.six, c),
        fold(p.e1 + 16 * p.e2, p.e3, pair),
        p.eighteen,
        fold(257 * at("W") + at("N"), at("NE"), at("NW")),
        fold(257 * at("W") + at("N"), 257 * at("NE") + at("NN"), 257 * at("WW") + at("NEE")),
        fold(8 * p.run_w.bit_length() + p.run_n.bit_length(), p.near),
        fold(pair, p.near),
        fold(p.twelve, pair),
    ]


class Questions:
    """L4.5 and L4.6: slots, and the mixing of what they say."""

    def __init__(
        self, bits: RangeDecoder, q: np.ndarray, m: np.ndarray, weights: np.ndarray, uses: np.ndarray | None
    ) -> None:
        self.bits, self.q, self.m, self.weights, self.uses = bits, q, m, weights, uses

    def ask(self, slots: list[int], others: list[int], sets: list[int]) -> int:
        """One bit. `others` are the inputs after those of the slots; no uses: the rate is 60."""
        here = np.arange(len(slots)), slots
        q, m = self.q[here], self.m[here]
        x = np.concatenate((np.where(m > 0, STRETCH[q >> 6], 0), others))
        chosen = np.arange(len(sets)), sets
        weights = self.weights[chosen]
        dots = np.clip(weights @ x >> 16, -3071, 3071)
        bit = self.bits.bit(int(SQUASH[dots.sum() // len(sets) + 3071]))

        rate: Any = 60
        if self.uses is not None:
            rate = np.maximum(30, 50000 // (100 + self.uses[chosen]))[:, None]
            self.uses[chosen] += 1
        error = (65535 * bit - SQUASH[dots + 3071])[:, None]
        self.weights[chosen] += (x * error * rate + (1 << 21)) >> 22
        self.q[here] += (((1 << 22) - 1) * bit - q) * 16 // (16 * m + 20)
        self.m[here] = np.minimum(m + 1, 254)
        return bit

    def outline(
        self, p: SimpleNamespace, k: int, contexts: list[int], others: list[int], sets: list[int]
    ) -> int:
        """Question k of a pixel: slots by hash, and the three choices that both coders have."""
        slots = [fold(a + 7, k + 1) & 65535 for a in contexts]
        known = next((3 - i for i, s in enumerate((7, 2, 0)) if self.m[s, slots[s]]), 0)
        c, a = (p.candidates + [p.outside])[k : k + 2]
        first = [64 * k + p.equal, 2 * (4 * k + known) + p.flat, 256 * k + 16 * (c % 16) + a % 16]
        return self.ask(slots, others, first + sets)


def adaptive(bits: RangeDecoder, height: int, width: int, n: int) -> np.ndarray:
    """L5: places in the set, (height, width)."""
    q, m = np.full((11, 1 << 16), 1 << 21), np.zeros((11, 1 << 16), int)
    weights = np.full((3, 1024, 12), 5500)
    weights[..., -1] = 0
    questions = Questions(bits, q, m, weights, np.zeros((3, 1024), int))
    f = np.zeros((n + 1, n), int)
    f[n] = 1
    frame = Frame(height, width, n)
    for y in range(height):
        for x in range(width):
            p = neighbourhood(frame, y, x)
            p.outside = n
            run_up = frame.run(y - 1, x, -1, 0, 5)
            e4 = frame.run(y - 4, x - 4, 0, 1, 10, p.at("W"))
            own = [
                fold(64 * run_up + p.run_w, p.near),
                fold(8 * p.run_n + run_up, p.near),
                fold(p.e1 + 16 * p.e2 + 256 * p.e3, e4),
            ]
            for k, c in enumerate(p.candidates):
                a = (p.candidates + [n])[k + 1]
                contexts = common_contexts(p, 257 * c + a, c) + own
                if k + 1 == n or questions.outline(p, k, contexts, [256], []):
                    label = c
                    break
            else:
                first = (p.candidates + [n])[0]
                chances = f[n] + 4 * f[first]
                chances[p.candidates] = 0
                label = bits.one_of(chances.tolist())
                f[n, label] += 1
                f[first, label] += 1
            frame.rows[y][x] = label
    return np.array(frame.rows)


# ---- L6: the primed coder ----------------------------------------------------------------------

TEMPLATE = [
    (dy, dx)
    for dy, columns in (
        (0, range(-8, 0)),
        (-1, range(-7, 9)),
        (-2, range(-6, 8)),
        (-3, range(-5, 7)),
        (-4, range(-4, 6)),
        (-5, range(-4, 5, 2)),
        (-7, range(-4, 5, 2)),
    )
    for dx in columns
]


def unpacked(b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L8: q and m of slots that are a byte each."""
    b = b.astype(int)
    q = SQUASH[np.minimum(96 * (b >> 2) + 48, 6142)] << 6
    return np.where(b == 0, 1 << 21, q), np.where(b == 0, 0, np.array([0, 4, 16, 60])[b & 3])


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
        self.net = SimpleNamespace(
            **{k.split(".")[1]: v.astype(int) for k, v in weights.items() if k.startswith("causal.")}
        )
        informed = planes is not None
        self.evidence = Evidence(planes, self.frame, ids, weights) if planes is not None else None
        part = {k: weights[f"primed.{'informed' if informed else 'causal'}.{k}"].astype(int)
                for k in ("weights", "seen", "calm_weights")}  # fmt: skip
        q, m = unpacked(weights["primed.slots"][: 17 if informed else 10])
        first = np.array([4000] * 17 + [15000, 500, 500, 0])
        self.questions = Questions(bits, q, m, first + 16 * part["weights"], part["seen"])
        calm = weights["primed.calm_slots"][: 6 if informed else 2]
        calm = np.pad(calm, ((0, 0), (0, (1 << 15) - calm.shape[1])))
        # All calm sets are those of a single choice.
        self.calm = Questions(bits, *unpacked(calm), part["calm_weights"][None], None)

    def decode(self) -> np.ndarray:
        frame, height, width = self.frame, self.frame.height, self.frame.width
        high = [0] * width
        band = -1
        for y in range(height):
            if 32 * y // height != band:
                band, self.kept = 32 * y // height, {}
            above = [frame(y - 1, x) for x in range(width)]
            high = [high[x] + 1 if above[x] == frame(y - 2, x) else 1 for x in range(width)]
            near, wide = (columns(above, high, least) for least in (2, 8))
            run = 0
            for x in range(width):
                run = run + 1 if x > 1 and frame(y, x - 1) == frame(y, x - 2) else 1
                calm = x + 2 < width and near[x + 2] > 4 and above[x] == frame(y, x - 1)
                if calm and run >= 2 and len(self.ids) > 1:
                    reach = min(wide[x + 8] if x + 8 < width else 0, run + 8)
                    label = self.calm_pixel(y, x, high[x], run, reach)
                else:
                    label = self.other_pixel(y, x)
                frame.rows[y][x] = label
        return np.array(frame.rows)

    def chances(self, y: int, x: int) -> list[int]:
        """L6.1: of each label; 0 outside the set."""
        frame, net = self.frame, self.net
        labels = [frame(y + dy, x + dx) for dy, dx in TEMPLATE]
        hidden = net.rows[32 * y // frame.height] + net.columns[32 * x // frame.width]
        hidden = np.clip(hidden + net.template[np.arange(70), labels].sum(0), 0, 7936)
        outputs = np.clip((hidden @ net.second >> 8) + net.second_bias, 0, 7936)
        score = (outputs @ net.last >> 8) + net.last_bias
        distance = np.minimum(score.max() - score, 4095).tolist()
        return [EXP[distance[v]] if v in self.ids else 0 for v in range(self.n)]

    def calm_pixel(self, y: int, x: int, high: int, run: int, reach: int) -> int:
        """L6.2."""
        west = self.frame(y, x - 1)
        across = down = ahead = top = sure = 0
        if self.evidence:
            across, down = self.evidence.slopes(y, x)
            top, sure = self.evidence.top(y, x)
            ahead = self.evidence.ahead(y, x, west)
        ring, up = min(reach // 4, 4), min(high, 31).bit_length()
        band = 32 * y // self.frame.height
        tops = 16 if self.n <= 16 else 32
        slots = [
            8 * (32 * west + band) + ring,
            8 * (8 * (16 * west + min(run, 16383).bit_length()) + up) + ring,
        ]
        others = [0] * 4
        if self.evidence:
            slots += [
                6 * (10 * across + down) + ring,
                16 * (16 * west + across) + down,
                6 * (32 * west + clamp((ahead >> 2) + 16, 0, 31)) + (up >> 1),
                4 * (8 * (tops * west + top) + sure) + min(3, across >> 1),
            ]
            others = []
        chances = None
        key = west, 32 * x // self.frame.width
        keep = reach > 16 and run >= 8
        if keep and key in self.kept:
            expected = self.kept[key]
        else:
            chances = self.chances(y, x)
            expected = int(STRETCH[clamp((chances[west] << 16) // sum(chances), 1, 65535)])
            if keep:
                self.kept[key] = expected
        steep = int(across + down > 6)
        lead = clamp(32 * ahead, -3071, 3071)
        others += [expected, lead, lead * steep, 256]
        if self.calm.ask(slots, others, [2 * west + steep]):
            return west
        return self.escape(y, x, [west], chances or self.chances(y, x))

    def other_pixel(self, y: int, x: int) -> int:
        """L6.3."""
        p = neighbourhood(self.frame, y, x)
        p.outside = self.n
        chances = self.chances(y, x)
        mass = sum(chances)
        stairs = [fold(self.upright(y, x, p.e1), p.near), fold(self.level(y, x, p.run_n), p.near)]
        seen = self.evidence.candidates(y, x, p) if self.evidence else None
        for k, c in enumerate(p.candidates):
            if k + 1 == len(self.ids):
                return c
            a = (p.candidates + [self.n])[k + 1]
            contexts = common_contexts(p, 257 * c + a, c) + stairs
            expected = int(STRETCH[clamp((chances[c] << 16) // mass, 1, 65535)])
            sets = [64 * k + 32 + expected // 97]
            if seen:
                more, ahead, over, more_sets = seen(k)
                others = [expected, clamp(32 * ahead, -3071, 3071), clamp(32 * over, -3071, 3071), 256]
                answer = self.questions.outline(p, k, contexts + more, others, sets + more_sets)
            else:
                answer = self.questions.outline(p, k, contexts, [0] * 7 + [expected, 0, 0, 256], sets)
            if answer:
                return c
            mass -= chances[c]
        return self.escape(y, x, p.candidates, chances)

    def escape(self, y: int, x: int, denied: list[int], chances: list[int]) -> int:
        """L6.4."""
        if self.evidence:
            scores = self.evidence.scores[y, x].tolist()
            best = max(scores)
            chances = [
                chance * EXP[clamp(8 * (best - score), 0, 4095)] >> 6
                for chance, score in zip(chances, scores, strict=True)
            ]
        weights = [
            chances[v] + 1 if v in self.ids and v not in denied else 0 for v in range(self.n)
        ]
        return self.bits.one_of(weights)

    def upright(self, y: int, x: int, e1: int) -> int:
        """L6.3: the contour on the right of P, upward."""
        if not 0 < e1 < 6:
            return 0
        frame = self.frame
        i, j = y - 1, x + e1 - 2  # P
        label = frame(i, j)

        def contour(i: int, j: int) -> bool:
            return frame(i, j) == label != frame(i, j + 1)

        length = 1 + frame.count(i - 1, j, -1, 0, 14, contour)
        if length == 15:
            return 1 + e1 + 8 * 1920
        i -= length  # Q
        if frame(i, j) == label:
            step = frame.run(i, j + 1, 0, 1, 3, label)
        else:
            step = -frame.count(i, j, 0, -1, 3, lambda i, j: frame(i, j) not in (label, self.n))
        before = frame.count(i, j + step, -1, 0, 15 - length, contour)
        return 1 + e1 + 8 * (16 * (8 * length + step + 4) + before)

    def level(self, y: int, x: int, run_n: int) -> int:
        """L6.3: the contour above W, leftward."""
        frame = self.frame
        west, north = frame(y, x - 1), frame(y - 1, x)
        if north == west:
            return 0

        def contour(i: int, j: int) -> bool:
            return frame(i, j) == west and frame(i - 1, j) == north

        length = 1 + frame.count(y, x - 2, 0, -1, 30, contour)
        q = x - 1 - length
        if length == 31 or frame(y, q) != west:
            found = 64 * length + 16
        elif frame(y - 1, q) != west:
            found = 64 * length + 32
        else:
            found = 64 * length + 48 + frame.count(y - 1, q, 0, -1, 15, contour)
        return 1 + min(run_n, 15) + 16 * found


def columns(above: list[int], high: list[int], least: int) -> list[int]:
    """L6.2, near and wide: equal labels in the row above up to each column, `least` high or more."""
    counts: list[int] = []
    for x, tall in enumerate(high):
        going = x > 0 and above[x] == above[x - 1]
        counts.append((counts[-1] if going else 0) + 1 if tall >= least else 0)
    return counts


# ---- L7: what the coarse picture says ----------------------------------------------------------


class Evidence:
    """L7: planes and scores at each pixel of the map."""

    def __init__(
        self, planes: Planes, frame: Frame, ids: list[int], weights: dict[str, np.ndarray]
    ) -> None:
        self.frame = frame
        h, w = frame.height, frame.width
        rows, cols = -(-h // 4), -(-w // 4)
        grid = np.array([sampled(p.astype(int), rows, cols) for p in planes])
        self.planes = bilinear(grid, h, w)
        scores = trunk(grid, weights).reshape(rows, cols, 4, 4, -1)
        scores = scores.swapaxes(1, 2).reshape(4 * rows, 4 * cols, -1)[:h, :w]
        within = np.isin(np.arange(scores.shape[-1]), ids)
        self.scores = np.where(within, scores, -1000)

    def at(self, y: int, x: int) -> np.ndarray:
        return self.planes[:, clamp(y, 0, self.frame.height - 1), clamp(x, 0, self.frame.width - 1)]

    def slopes(self, y: int, x: int) -> tuple[int, int]:
        """L7.2: across and down."""
        across = np.abs(self.at(y, x + 2) - self.at(y, x - 4)).sum()
        down = np.abs(self.at(y + 2, x) - self.at(y - 4, x)).sum()
        return int(across).bit_length(), int(down).bit_length()

    def top(self, y: int, x: int) -> tuple[int, int]:
        """L7.2: top and sure."""
        scores = self.scores[y, x]
        second, best = np.sort(scores)[-2:].tolist()
        return int(scores.argmax()), clamp((best - second) >> 3, 0, 7)

    def ahead(self, y: int, x: int, v: int) -> int:
        """L7.2."""
        scores = self.scores[y, x]
        second, best = np.sort(scores)[-2:].tolist()
        return int(scores[v]) - (second if v == int(scores.argmax()) else best)

    def candidates(
        self, y: int, x: int, p: SimpleNamespace
    ) -> Callable[[int], tuple[list[int], int, int, list[int]]]:
        """L7.3: what question k of a pixel has more: contexts, ahead, over and sets."""
        places = [(y + dy, x + dx) for dy, dx in TEMPLATE]
        means = []
        for c in p.candidates:
            own = [self.at(*place) for place in places if self.frame(*place) == c]
            means.append(4 * sum(own) // len(own))
        luma, cb, cr = self.at(y, x).tolist()
        colour = 64 * (luma >> 4) + 8 * clamp((cb - 104) // 6, 0, 7) + clamp((cr - 104) // 6, 0, 7)
        top, sure = self.top(y, x)
        scores = self.scores[y, x]

        def question(k: int) -> tuple[list[int], int, int, list[int]]:
            c, a = (p.candidates + [self.frame.outside])[k : k + 2]
            u, r, b = (4 * self.at(y + dy, x + dx) - means[k] for dy, dx in ((0, 0), (0, 4), (4, 0)))
            if len(means) > 1:
                d = means[(k + 1) % len(means)] - means[k]
                span = int(d @ d)
                most = max(span, 1)
                here = clamp(int(8 * (u @ d) // most) + 2, 0, 11)
                right, below = (clamp(int(4 * (v @ d) // most), 0, 3) for v in (r, b))
                contrast = clamp((span.bit_length() - 4) >> 1, 0, 6)
            else:
                far = [(int(np.abs(v).sum()) >> 2).bit_length() for v in (u, r, b)]
                here, right, below = clamp(far[0], 0, 8), clamp(far[1] >> 1, 0, 3), clamp(far[2] >> 1, 0, 3)
                contrast = 7
            ways = 4 * right + below
            ahead = self.ahead(y, x, c)
            over = int(scores[c] - scores[a]) if a != self.frame.outside else ahead
            pair = 257 * c + a
            north, north_east = p.rank(p.at("N")), p.rank(p.at("NE"))
            contexts = [
                fold(8 * here + contrast, p.near),
                fold(16 * (here >> 1) + ways, 36 * contrast + 6 * north + north_east),
                fold(colour, pair),
                fold(4 * (8 * here + contrast) + right, p.six),
                fold(8 * (256 * clamp((ahead >> 2) + 16, 0, 31) + top) + sure, pair),
                fold(13 * clamp((over >> 2) + 16, 0, 31) + here, p.near),
                fold(8 * (12 * ways + here) + contrast, p.e1 + 16 * p.e2),
            ]
            ahead_set, over_set = (clamp((v >> 3) + 8, 0, 15) for v in (ahead, over))
            sets = [12 * (8 * k + contrast) + here, 256 * k + 16 * ahead_set + over_set]
            return contexts, ahead, over, sets

        return question


def sampled(plane: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """L7.1: the nearest samples."""
    a, b = plane.shape
    i, j = (2 * np.arange(rows) + 1) * a // (2 * rows), (2 * np.arange(cols) + 1) * b // (2 * cols)
    return plane[i][:, j]


def bilinear(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """L7.1: the grid at the map's size, (3, height, width)."""
    for size in (height, width):
        t = 2 * np.arange(size) - 3
        first, second = (grid[:, np.clip(i, 0, grid.shape[1] - 1)] for i in (t >> 3, (t >> 3) + 1))
        grid = first * (8 - t % 8)[:, None] + second * (t % 8)[:, None]
        grid = grid.swapaxes(1, 2)
    return (grid + 32) >> 6


def trunk(grid: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """L7.2: scores of each cell, (rows, columns, 16 n)."""

    def layer(x: np.ndarray, name: str | int, kernel: int = 3, stride: int = 1) -> np.ndarray:
        name = f"layer{name}" if isinstance(name, int) else name
        h, w = x.shape[:2]
        if kernel == 3:
            x = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        seen = [x[i : i + h : stride, j : j + w : stride] for i in range(kernel) for j in range(kernel)]
        total = np.concatenate(seen, -1).astype(float) @ weights[f"{name}.weight"].T.astype(float)
        total = total.astype(int) * weights[f"{name}.multiplier"] + weights[f"{name}.bias"]
        return np.clip(total >> 24, 0, 255)

    def join(small: np.ndarray, large: np.ndarray) -> np.ndarray:
        twice = small.repeat(2, 0).repeat(2, 1)[: large.shape[0], : large.shape[1]]
        return np.concatenate((twice, large), -1)

    _, h, w = grid.shape
    i, j = np.mgrid[:h, :w]
    x = np.stack((*grid, i * 256 // h, j * 256 // w), -1) - 128
    full = layer(layer(x, 0), 1)
    half = layer(layer(full, 2, stride=2), 3)
    quarter = layer(layer(layer(half, 4, stride=2), 5), 6)
    x = layer(join(quarter, half), 7, kernel=1)
    x = layer(layer(join(x, full), 8, kernel=1), 9)
    return layer(x, "readout", kernel=1)


if __name__ == "__main__":
    for name, value in decode(Path(sys.argv[1]).read_bytes()).items():
        print(name, value.shape if getattr(value, "ndim", 1) > 1 else value)
