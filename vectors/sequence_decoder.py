"""A second decoder of sequences, written from docs/spec alone, as decoder.py is of single pictures.

Plain Python and NumPy, on parts of decoder.py; PyAV decodes HEVC. It reads a whole stream and gives
the frames that are exactly what was sent: those received, and those that parity restores, but none
between a lost frame and the next key frame. Sections are those of docs/spec/sequence.md (S6 is its
§6); F and L are those of decoder.py.

    python vectors/sequence_decoder.py vectors/sequences/street.sempic
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from decoder import (
    FIRST,
    IDS,
    Around,
    Bits,
    Frame,
    Mixer,
    Planes,
    RangeDecoder,
    candidates,
    clamp,
    count,
    fold,
    label_map,
    require,
    texture,
    varint,
)
from numpy.lib.stride_tricks import sliding_window_view

HEAD, KEY, PREDICTED, ADVICE = range(4)
"""S1: kinds of packets."""
PARITY, TEXTURE = 2, 3
"""S7, S3: kinds of advice."""


def decode(stream: bytes, prior: Path | None = None) -> dict[str, Any]:
    """What a stream says, as vectors/README.md names it; `labels` only if every frame has a map.
    prior: a file of the sender's own weights (L2)."""
    received = Stream(stream)
    _, planes, labels = zip(*pictures(received, prior), strict=True)
    result = {"size": np.array(received.head.size)}
    result |= {name: np.array([p[i] for p in planes]) for i, name in enumerate(("y", "cb", "cr"))}
    if all(one is not None for one in labels):
        result["labels"] = np.array(labels)
    if levels := received.texture:
        result["texture"] = np.array([(number, *levels[number]) for number in sorted(levels)])
    return result


def pictures(
    received: Stream, prior: Path | None = None
) -> Iterator[tuple[int, Planes, np.ndarray | None]]:
    """S3: number, coarse picture and map of each frame, up to one that does not decode, which
    raises ValueError."""
    head = received.head
    for run in received.runs():
        height, width, factor = head.height, head.width, head.factor
        halved = head.halved or run[0].halved
        if halved:
            require(factor % 2 == 0, "an odd factor at half the size")
            height, width, factor = -(-height // 2), -(-width // 2), factor // 2
        labels: np.ndarray | None = None
        coarse = coarse_pictures(head, run)
        for frame, planes, last in zip(run, coarse, coarse[:1] + coarse[:-1], strict=True):
            if frame.key:
                memory = Memory(head.last_id + 1)
                if frame.labels is not None:
                    labels = label_map(frame.labels, height, width, planes, prior)
            elif labels is None:
                require(frame.labels is None, "a map where none is expected")
            else:
                vectors = Motion(last[0], planes[0], head.version).of_pixels()
                labels = moved(labels, vectors, factor)
                if frame.labels is not None:
                    hint = hints(last[0], planes[0], vectors, head.version)
                    hint = hint.repeat(factor, 0).repeat(factor, 1)[:height, :width]
                    labels = memory.map(frame.labels, labels, hint)
            shown = labels
            if labels is not None:
                require(labels.max() <= head.last_id, "id beyond the head's")
                if halved:
                    shown = labels.repeat(2, 0).repeat(2, 1)[: head.height, : head.width]
            yield frame.number, planes, shown


# ---- S1, S2, S3: packets -----------------------------------------------------------------------


Levels = dict[int, tuple[int, int]]
"""F9: the two levels of each id."""


class Head(NamedTuple):
    """S2, and the stream's version."""

    version: int
    width: int
    height: int
    rate: tuple[int, int]
    factor: int
    last_id: int
    halved: int
    profile: int
    own: str
    parameters: bytes

    @property
    def size(self) -> tuple[int, ...]:
        """Size, palette, label model and rate."""
        return self.width, self.height, self.profile & 15, self.profile >> 4, *self.rate


class Sent(NamedTuple):
    """S3: a frame, and its content (S1)."""

    number: int
    key: bool
    coarse: bytes | None
    labels: bytes | None
    content: bytes
    halved: bool


class Group(NamedTuple):
    """S7: what all parity packets of a group say; `size` is that of a symbol."""

    span: int
    number: int
    size: int
    counts: bytes


class Stream:
    """S1 to S3: what came, and what parity restores of the rest (S7)."""

    def __init__(self, data: bytes) -> None:
        require(data[:2] == b"\xe5\x56", "no sequence")
        require(data[2:3] and 1 <= data[2] <= 6, "another version")
        self.version = data[2]
        self.frames: dict[int, Sent] = {}
        self.last = -1  # the number of the last frame received
        self.last_key = b""  # its content
        self.lost = True  # until a key frame: there is none yet, or it is of another sequence
        self.advice: dict[int, Levels] = {}  # that after each frame, by number
        self.parity: dict[Group, dict[int, bytes]] = {}  # sums by number
        heads = set()
        for packet in filter(None, data[3:].split(b"\0")[:-1]):
            with suppress(ValueError):  # damage costs a packet
                content = unstuffed(packet)
                kind, which = content[0] >> 6, content[0] & 63
                number = self.last + 1 + (which - self.last - 1) % 16
                body = checked(content, number, self.version)
                if kind == HEAD:
                    heads.add(read_head(self.version, body))
                elif not heads:
                    continue
                elif kind in (KEY, PREDICTED):
                    self.take(read_frame(content, body, number, self.version))
                elif which == TEXTURE:
                    levels = {i: (median, high) for i, median, high in texture(body)}
                    self.advice[self.last] = self.advice.get(self.last, {}) | levels
                elif which == PARITY:
                    self.take_parity(body)
        require(len(heads) == 1, "no head, or two")
        (self.head,) = heads
        for group, sums in self.parity.items():
            for frame in restored(group, sums, self.frames, self.version):
                self.frames[frame.number] = frame

    @property
    def texture(self) -> Levels:
        """S3: that of the last frame."""
        texture: Levels = {}
        last = -1
        for number, frame in sorted(self.frames.items()):
            texture = ({} if frame.key else texture) | self.advice.get(last, {})
            last = number
        return texture

    def take(self, frame: Sent) -> None:
        """S3: its number tells whether it belongs here."""
        if frame.key and frame.content == self.last_key:
            return
        if frame.key:
            self.last_key, self.lost = frame.content, frame.number <= self.last
        if not self.lost:
            self.frames[frame.number], self.last = frame, frame.number

    def take_parity(self, body: bytes) -> None:
        """S7."""
        span, at = varint(body, 0)
        wait, at = varint(body, at)
        require(1 <= span <= 128 and wait <= 128, "span or wait out of bounds")
        if self.last < 0 and self.version > 3:
            self.lost = False  # a first key frame that did not come may be restored
        if at == len(body):
            return
        group, at = varint(body, at)
        size, at = varint(body, at)
        require(size and len(body) > at + 1 + span, "truncated")
        first, counts, sums = body[at], body[at + 1 : at + 1 + span], body[at + 1 + span :]
        number = len(sums) // size
        require(len(sums) % size == 0 and sum(counts) <= first, "sums that cannot be")
        require(first + number <= 256, "too many sums")
        found = self.parity.setdefault(Group(span, group, size, counts), {})
        found |= {first + i: sums[i * size :][:size] for i in range(number)}

    def runs(self) -> list[list[Sent]]:
        """Key frames, each with the predicted frames up to the next one or to a loss."""
        runs: list[list[Sent]] = []
        for _, frame in sorted(self.frames.items()):
            if frame.key:
                runs.append([frame])
            elif runs and frame.number == runs[-1][-1].number + 1:
                runs[-1].append(frame)
        return runs


def unstuffed(packet: bytes) -> bytes:
    """S1: the content of a packet without its zero."""
    require(len(packet) + 1 < 1 << 24, "an endless packet")
    content, at, size = b"", 0, 255
    while at < len(packet):
        size = packet[at]
        require(at + size <= len(packet), "stuffing ends within a piece")
        content += packet[at + 1 : at + size] + b"\0" * (size < 255)
        at += size
    require(size < 255 and len(content) > 1, "stuffing ends with a whole piece")
    return content[:-1]


def checked(content: bytes, number: int, version: int) -> bytes:
    """S1: the body, if the checksum is right. number: the frame's, if it is a predicted one."""
    kind = content[0] >> 6
    size = 2 if version > 3 and kind in (PREDICTED, ADVICE) else 4
    require(len(content) > size, "truncated")
    covered = content[:-size]
    if version > 3 and kind == PREDICTED:
        covered = as_varint(number) + covered
    crc = int.from_bytes(content[-size:], "little")
    require(zlib.crc32(covered) % (1 << 8 * size) == crc, "wrong checksum")
    return content[1:-size]


def as_varint(value: int) -> bytes:
    """F1."""
    return bytes([value & 127 | 128, *as_varint(value >> 7)] if value > 127 else [value])


def read_head(version: int, body: bytes) -> Head:
    """S2."""
    values, at = [], 0
    for _ in range(7 if version in (3, 4) else 6):
        value, at = varint(body, at)
        values.append(value)
    width, height, *rate, factor, last_id, halved = [*values, 0][:7]
    require(0 < width < 65536 and 0 < height < 65536, "size out of bounds")
    require(width * height <= 1 << 26, "too large")
    require(all(rate) and last_id < 256 and halved < 2, "no rate, id or flag")
    require(0 < factor < 256, "no factor")
    require(not halved or factor % 2 == 0, "an odd factor at half the size")
    require(at < len(body), "truncated")
    profile = body[at]
    require(profile & 15 in IDS and profile >> 4 < 15, "reserved profile")
    size, at = varint(body, at + 1)
    require(at + size <= len(body), "truncated")
    own, parameters = body[at : at + size].decode(), body[at + size :]
    require(re.fullmatch(r"([\w-]{1,32}#[0-9a-f]{8})?", own), "no palette")
    ratio = rate[0], rate[1]
    return Head(version, width, height, ratio, factor, last_id, halved, profile, own, parameters)


def read_frame(content: bytes, body: bytes, number: int, version: int) -> Sent:
    """S3. number: the frame's, if it is a predicted one."""
    key, has_coarse, has_labels = content[0] >> 6 == KEY, content[0] & 32, content[0] & 16
    require(has_coarse or not key, "a key frame without a coarse picture")
    at = 0
    if key:
        number, at = varint(body, at)
    size = len(body) - at if has_coarse else 0
    if has_coarse and has_labels:
        size, at = varint(body, at)
    coarse, labels = body[at : at + size], body[at + size :]
    require(at + size <= len(body), "truncated")
    require(has_labels or not labels, "bytes after the frame")
    halved = key and version > 4 and content[0] & 1 == 1
    return Sent(
        number, key, coarse if has_coarse else None, labels if has_labels else None, content, halved
    )


# ---- S4: coarse pictures -----------------------------------------------------------------------


def coarse_pictures(head: Head, run: list[Sent]) -> list[Planes]:
    """The coarse picture of each frame from a key frame on."""
    rows, columns = -(-head.height // head.factor), -(-head.width // head.factor)
    sets = parameter_sets(head, rows, columns)
    require(len(sets) == 3, "not three parameter sets")
    context = av.CodecContext.create("hevc", "r")
    context.thread_count = 1
    decoded, number = [], 0
    for frame in run:
        if frame.coarse is None:
            continue
        if head.version < 4 or frame.key:
            units = frame.coarse.split(b"\0\0\1")
        elif frame.coarse[:1] == b"\0":
            units = frame.coarse[1:].split(b"\0\0\1")
        else:
            units = [whole_slice(frame.coarse, number, sets[1], references(head))]
        types = {unit[0] >> 1 & 63 for unit in units if unit}
        require(types and types <= ({19, 20} if frame.key else {0, 1}), "another NAL unit")
        if frame.key:
            units = sets + units
        decoded += context.decode(av.Packet(b"".join(b"\0\0\0\1" + unit for unit in units)))
        number += 1
    decoded += context.decode(None)
    require(len(decoded) == number, "not one picture for each coarse part")

    found: list[Planes] = []
    following = iter(decoded)
    for frame in run:
        found.append(found[-1] if frame.coarse is None else cropped(next(following), rows, columns))
    return found


def cropped(picture: av.VideoFrame, rows: int, columns: int) -> Planes:
    """The left upper part."""
    require(picture.height >= rows and picture.width >= columns, "smaller than announced")
    planes = []
    for plane in picture.planes:
        by = 1 if plane.width == picture.width else 2
        samples = np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)
        planes.append(samples[: -(-rows // by), : -(-columns // by)].copy())
    y, cb, cr = planes
    return y, cb, cr


def parameter_sets(head: Head, rows: int, columns: int) -> list[bytes]:
    """VPS, SPS and PPS."""
    if head.version < 4:
        return head.parameters.split(b"\0\0\1")
    if head.parameters[:1] == b"\0":
        return head.parameters[1:].split(b"\0\0\1")
    require(len(head.parameters) == 2 and 1 <= head.parameters[0] <= 12, "unknown form")
    form, level = head.parameters
    full, tree = (form - 1) % 6 < 3, (form - 1) % 3
    buffers = ue(2 if references(head) == 1 else 6)
    profile = bytes.fromhex("04080000009e0800000000" if full else "0160000000900000000000")
    profile += bytes([level])
    width, height = (max(24, -(-side // 8) * 8) for side in (columns, rows))
    bits = "1" + ("001000" if full else "010") + ue(width) + ue(height) + "011001011"
    bits += buffers + "10101"
    bits += ("00100100100101", "011100100101", "0101011101")[tree]
    bits += "1000010011001101" + "00000001" + "0" * 31 + "1" + "0" * 31 + "100001"
    vps = bytes.fromhex("40010c01ffff") + profile + packed("1" + buffers + "10100000001001")
    sps = bytes.fromhex("420101") + profile + packed(bits)
    pps = bytes.fromhex("4401c1731a350890" if full else "4401c173d089")
    return [protected(unit) for unit in (vps, sps, pps)]


def references(head: Head) -> int:
    """The most pictures from which a short slice is predicted."""
    return 6 if len(head.parameters) == 2 and head.parameters[0] > 6 else 1


def whole_slice(short: bytes, number: int, sps: bytes, most: int) -> bytes:
    """The NAL unit of a short slice. number: of coarse pictures since the key frame."""
    require(short, "truncated")
    weighted, fewer, qp, data = short[0] >> 7, most > 1 and short[0] & 64, short[0] & 127, short[1:]
    count = most
    if fewer:
        require(data and 0 < data[0] < most, "no number of references")
        qp, count, data = qp - 64, data[0], data[1:]
    require(1 <= qp <= 51, "no quality")
    size, chroma = order_bits(sps)
    scales, flags, values = "11", "00", ""
    if weighted:
        bits = Bits(data)
        text = "".join(f"{byte:08b}" for byte in data)
        bits.ue()
        if chroma:
            bits.ue()
        scales, start = text[: bits.at], bits.at + 2
        flags = text[bits.at : start]
        bits.take(2)
        for _ in range(2 * int(flags[0]) + 4 * int(flags[1])):
            bits.ue()
        values, data = text[start : bits.at], bits.rest()
    left, none = min(number, count), "0" * (count - 1)
    opening = f"11010{number % (1 << size):0{size}b}0" + ue(left) + "1" + "11" * left
    opening += "0" if count == 1 else "1" + ue(count - 1)
    opening += scales + flags[0] + none + flags[1] + none + values
    opening += ue(2) + ue(2 * abs(qp - 26) - (qp > 26)) + "11"
    return protected(b"\x02\x01" + packed(opening) + data)


def order_bits(sps: bytes) -> tuple[int, int]:
    """H.265 7.3.2.2: the size of slice_pic_order_cnt_lsb, and chroma_format_idc."""
    bits = Bits(sps.replace(b"\0\0\3", b"\0\0"))
    bits.take(16 + 4)
    require(bits.take(3) == 0, "sublayers")
    bits.take(1 + 96)
    bits.ue()
    chroma = bits.ue()
    bits.take(chroma == 3)
    for _ in range(2):
        bits.ue()
    for _ in range(4 * bits.take() + 2):
        bits.ue()
    return bits.ue() + 4, chroma


def ue(value: int) -> str:
    """H.265 9.2."""
    return f"{value + 1:0{2 * (value + 1).bit_length() - 1}b}"


def packed(bits: str) -> bytes:
    """Bits, and zeros up to the next byte."""
    size = -(-len(bits) // 8)
    return int(bits.ljust(8 * size, "0"), 2).to_bytes(size, "big")


def protected(unit: bytes) -> bytes:
    """H.265 7.4.2: emulation prevention."""
    return re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", unit)


# ---- S5: motion and the expected map -----------------------------------------------------------

Vector = tuple[int, int]
MARGIN = 16
"""Pixels beyond the edges, as many as vectors reach."""


def luma(plane: np.ndarray, version: int) -> np.ndarray:
    """What motion is estimated from."""
    plane = plane.astype(int)
    if version == 1:
        return plane
    around = sliding_window_view(np.pad(plane, 8, mode="edge"), (17, 17))
    return np.clip(plane - around.sum((2, 3)) // 289 + 128, 0, 255)


class Motion:
    """Vectors (v, u) between the lumas of the last frame and of this one."""

    def __init__(self, last: np.ndarray, now: np.ndarray, version: int) -> None:
        self.height, self.width = now.shape
        now, fine = (np.pad(luma(p, version), MARGIN, mode="edge") for p in (now, last))
        equal, self.now = np.array_equal(now, fine), now
        for _ in range(2):  # along one axis, then the other
            steps = [(4 - f) * fine[:-1] + f * fine[1:] for f in range(4)]
            fine = np.stack(steps, 1).reshape(-1, fine.shape[1]).T
        self.fine = (fine + 8) >> 4  # P′ at each quarter of a pixel
        self.e, self.g, self.k = (96, 8, 3) if version == 1 else (192, 12, 3)
        blocks = product(range(-(-self.height // 4)), range(-(-self.width // 4)))
        self.vectors: dict[tuple[int, int], Vector] = dict.fromkeys(blocks, (0, 0))
        if not equal:
            for i, j in self.vectors:
                self.vectors[i, j] = self.searched(4 * i - 2, 4 * j - 2)
            for t, (i, j) in product((4, 2, 1), self.vectors):
                self.vectors[i, j] = self.refined(i, j, t)

    def difference(self, y: int, x: int, s: int, vector: Vector) -> int:
        """D."""
        (v, u), y, x = vector, y + MARGIN, x + MARGIN
        there = self.fine[4 * y + v : 4 * (y + s) + v : 4, 4 * x + u : 4 * (x + s) + u : 4]
        return int(np.abs(self.now[y : y + s, x : x + s] - there).sum())

    def searched(self, y: int, x: int) -> Vector:
        """Step 1, of a block whose difference begins at (y, x)."""
        if self.difference(y, x, 8, (0, 0)) < self.e:
            return 0, 0
        y, x = y + MARGIN, x + MARGIN
        there = self.fine[4 * (y - 10) : 4 * (y + 18) : 4, 4 * (x - 10) : 4 * (x + 18) : 4]
        costs = np.abs(self.now[y : y + 8, x : x + 8] - sliding_window_view(there, (8, 8)))
        costs = costs.sum((2, 3)) + self.g * np.abs(np.mgrid[-10:11, -10:11]).sum(0)
        if costs[10, 10] == costs.min():
            return 0, 0
        a, b = divmod(int(costs.argmin()), 21)
        return 4 * (a - 10), 4 * (b - 10)

    def neighbours(self, i: int, j: int) -> list[Vector | None]:
        """Those of the blocks below, above, on the right, on the left."""
        return [self.vectors.get(at) for at in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1))]

    def refined(self, i: int, j: int, t: int) -> Vector:
        """Step 2, of a block."""
        own = self.vectors[i, j]
        near = [vector or own for vector in self.neighbours(i, j)]
        steps = product((own[0] - t, own[0], own[0] + t), (own[1] - t, own[1], own[1] + t))
        further = [(clamp(v, -40, 40), clamp(u, -40, 40)) for v, u in steps if (v, u) != own]

        def cost(vector: Vector) -> int:
            v, u = vector
            apart = sum(abs(v - v2) + abs(u - u2) for v2, u2 in near)
            far = self.g * (abs(v) + abs(u)) // 4
            return self.difference(4 * i - 2, 4 * j - 2, 8, vector) + far + self.k * apart

        return min(dict.fromkeys([own, *near, (0, 0), *further]), key=cost)

    def of_pixels(self) -> np.ndarray:
        """Step 3: v and u of each coarse pixel, (2, height, width)."""
        found = np.empty((2, self.height, self.width), int)
        for y, x in product(range(self.height), range(self.width)):
            best = own = self.vectors[y // 4, x // 4]
            others = [one for one in self.neighbours(y // 4, x // 4) if one and one != own]
            if others:
                costs = [self.difference(y - 1, x - 1, 3, vector) for vector in (own, *others)]
                if min(costs[1:]) < costs[0] - 12:
                    best = others[costs.index(min(costs)) - 1]
            found[:, y, x] = best
        return found


def moved(picture: np.ndarray, vectors: np.ndarray, factor: int) -> np.ndarray:
    """The expected map; with factor 1, the last luma at the places that vectors point to."""
    height, width = picture.shape
    ways = vectors.repeat(factor, 1).repeat(factor, 2)[:, :height, :width]
    y, x = np.mgrid[:height, :width] + ((ways * factor + 2) >> 2)
    return picture[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]


def hints(last: np.ndarray, now: np.ndarray, vectors: np.ndarray, version: int) -> np.ndarray:
    """Of each coarse pixel."""
    change = now.astype(int) - moved(last, vectors, 1)
    if version > 1:
        change -= np.sort(change, None)[change.size // 2]
    return sum((np.abs(change) >= step).astype(int) for step in (3, 6, 12, 24, 48))


# ---- S6: maps of predicted frames --------------------------------------------------------------


class Memory:
    """What is learnt from map to map, from a key frame on."""

    def __init__(self, n: int) -> None:
        nothing, self.n = RangeDecoder(b""), n
        one, three = np.zeros((1, 1024), int), np.zeros((3, 1024), int)
        self.blocks = Mixer(nothing, np.full((1, 1024, 7), [14000] * 6 + [0]), one)
        self.pixels = Mixer(nothing, np.full((3, 1024, 13), [7000] * 12 + [0]), three)
        self.flags: np.ndarray | None = None
        self.f = [1] * n

    def map(self, body: bytes, expected: np.ndarray, hint: np.ndarray) -> np.ndarray:
        """uint8, as `expected` and `hint` (of each pixel) (height, width)."""
        bits = self.blocks.bits = self.pixels.bits = RangeDecoder(body)
        self.flags = self.changed(expected, hint)
        height, width = expected.shape
        m, frame = (Frame(height, width, self.n) for _ in range(2))
        m.rows, frame.rows = expected.tolist(), expected.tolist()
        levels = hint.tolist()
        for y, x in product(range(height), range(width)):
            if self.flags[y // 8 + 1, x // 8 + 1]:
                following = levels[y][x + 4] if x + 4 < width else 0
                frame.rows[y][x] = self.label(m, frame, y, x, levels[y][x], following)
        bits.finish()
        return np.array(frame.rows, np.uint8)

    def changed(self, expected: np.ndarray, hint: np.ndarray) -> np.ndarray:
        """S6.1: the flag of each block, and zeros around them."""
        differs = np.zeros(expected.shape, bool)
        differs[:, :-1] = expected[:, 1:] != expected[:, :-1]
        differs[:-1] |= expected[1:] != expected[:-1]
        pixels, levels = in_blocks(differs).sum((1, 3)), in_blocks(hint).max((1, 3))
        rows, columns = levels.shape
        edges = np.zeros((rows + 1, columns + 1), int)
        edges[:-1, :-1] = [[int(value).bit_length() for value in row] for row in pixels]
        flags = np.zeros((rows + 2, columns + 2), int)
        last = flags.copy() if self.flags is None else self.flags
        for i, j in product(range(rows), range(columns)):
            edge, level = int(edges[i, j]), int(levels[i, j])
            ahead = min(int(edges[i, j + 1] + edges[i + 1, j]).bit_length(), 3)
            (nw, n, ne), (w, *_) = flags[i : i + 2, j : j + 3].tolist()
            near = w + 2 * n + 4 * nw + 8 * ne
            (_, n, _), (w, was, e), (_, s, _) = last[i : i + 3, j : j + 3].tolist()
            before = was + 2 * min(n + w + e + s, 3)
            contexts = [
                64 * near + 8 * edge + level,
                8 * (8 * before + edge) + level,
                8 * near + before,
                4 * (8 * edge + level) + ahead,
                fold(8 * near + before, 4 * (8 * edge + level) + ahead),
                fold(1024 * i + j, edge),
            ]
            chosen = 64 * (near > 0) + 8 * edge + level
            flags[i + 1, j + 1] = self.blocks.ask(slots(contexts, 0), [256], [chosen])
        return flags

    def label(self, m: Frame, frame: Frame, y: int, x: int, hint: int, following: int) -> int:
        """S6.2."""
        choice = candidates(frame, y, x, m(y, x))
        here, there = Around(frame, y, x, choice), Around(m, y, x, choice)
        west, north, label = here.at("W"), here.at("N"), m(y, x)
        four = here.ranks("W", "N", "NW", "NE")
        six = here.ranks("W", "N", "NW", "NE", "WW", "NN")
        cross = there.ranks("W", "E", "N", "S")
        ring = there.ranks("W", "E", "N", "S", "NW", "NE", "SW", "SE")
        kept = sum((here.at(place) == there.at(place)) << i for i, place in enumerate(FIRST))
        few, edge = 4 * (kept % 16) + (kept >> 4) % 4, int(cross > 0)

        def run(dy: int, dx: int) -> int:
            return count(8, lambda i: m(y + i * dy, x + i * dx) == label)

        right, left, down, up = run(0, 1), run(0, -1), run(1, 0), run(-1, 0)
        lengths = [min(length.bit_length(), 3) for length in (right, left, down, up)]
        away = sum(length * 4**i for i, length in enumerate(lengths))
        was = count(8, lambda i: m(y - 1, x + i) == m(y - 1, x))
        shift = count(8, lambda i: m(y - 1, x - 3 + i) == west)
        ends = 8 * count(8, lambda i: frame(y - 1, x + i) == north)
        ends += count(8, lambda i: frame(y - 1, x - 3 + i) == west)
        two = here.ranks("N", "W")
        for k, c in enumerate(choice):
            if k + 1 == self.n:
                return c
            _, d = here.asked(k)
            pair = 257 * c + d
            contexts = [
                fold(six, k),
                fold(six, cross),
                fold(four, ring),
                fold(kept, edge),
                fold(few, away),
                fold(pair, fold(two, cross)),
                fold(257 * west + north, 257 * there.at("E") + c),
                fold(8 * hint + following, 2 * few + edge),
                fold(six, ring),
                fold(4096 * right + 256 * was + ends, two),
                fold(fold(64 * shift + ends, left), four),
                fold(pair, 64 * hint + few),
            ]
            sets = [
                128 * k + 8 * (kept % 16) + 4 * edge + (hint >> 1),
                256 * k + 16 * (c % 16) + d % 16,
                256 * k + away,
            ]
            if self.pixels.ask(slots(contexts, k), [256], sets):
                return c
        weights = [0 if v in choice else f for v, f in enumerate(self.f)]
        label = self.pixels.bits.one_of(weights)
        self.f[label] += 8
        return label


def slots(contexts: list[int], k: int) -> list[int]:
    """L4.5: their numbers."""
    return [fold(context + 7, k + 1) % 65536 for context in contexts]


def in_blocks(pixels: np.ndarray) -> np.ndarray:
    """Of 8 × 8 pixels; zeros beyond the edges: (block row, 8, block column, 8)."""
    height, width = pixels.shape
    pixels = np.pad(pixels, ((0, -height % 8), (0, -width % 8)))
    return pixels.reshape(-(-height // 8), 8, -1, 8)


# ---- S7: parity --------------------------------------------------------------------------------


def times() -> np.ndarray:
    """The products of GF(2⁸), uint8 (256, 256)."""
    b, found = np.arange(256), np.zeros((256, 256), int)
    for bit in range(8):
        found ^= (np.arange(256) >> bit & 1)[:, None] * b  # here b is b times x^bit
        b = b << 1 ^ (b >> 7) * 0x11D
    return found.astype(np.uint8)


TIMES = times()
INVERSE = (TIMES == 1).argmax(1)


def restored(
    group: Group, sums: dict[int, bytes], frames: dict[int, Sent], version: int
) -> Iterator[Sent]:
    """The lost frames of a group."""
    size = group.size
    known: dict[int, np.ndarray] = {}
    missing: list[tuple[int, range]] = []  # frames and their symbols
    place = 0
    for number, symbols in enumerate(group.counts, group.span * group.number):
        places = range(place, place + symbols)
        place += symbols
        if number not in frames:
            missing += [(number, places)] if symbols else []
            continue
        data = frames[number].content + b"\1"
        if -(-len(data) // size) != symbols:
            return  # parity of other frames
        data = data.ljust(symbols * size, b"\0")
        known |= zip(places, np.frombuffer(data, np.uint8).reshape(symbols, size), strict=True)
    unknown = np.array([p for _, places in missing for p in places], int)
    if not missing or len(unknown) > len(sums):
        return
    numbers = np.array(sorted(sums)[: len(unknown)])
    right = np.array([np.frombuffer(sums[s], np.uint8) for s in numbers])
    for p, symbol in known.items():
        right ^= TIMES[INVERSE[numbers ^ p][:, None], symbol]
    solved = solve(INVERSE[numbers[:, None] ^ unknown].astype(np.uint8), right)
    for number, places in missing:
        content = b"".join(solved[unknown == p].tobytes() for p in places).rstrip(b"\0")
        with suppress(ValueError):
            yield mended(content, number, version)


def mended(content: bytes, number: int, version: int) -> Sent:
    """A restored frame, if it is that of its place."""
    require(content[-1:] == b"\1" and len(content) > 1, "no content")
    content = content[:-1]
    body, kind = checked(content, number, version), content[0] >> 6
    require(kind == KEY or (kind == PREDICTED and content[0] % 16 == number % 16), "no frame")
    frame = read_frame(content, body, number, version)
    require(frame.number == number, "another frame")
    return frame


def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Gauss and Jordan's way; no pivot of a Cauchy matrix is 0."""
    rows = np.concatenate((matrix, right), 1)
    for i in range(len(rows)):
        rows[i] = TIMES[INVERSE[rows[i, i]], rows[i]]
        factors = np.where(np.arange(len(rows)) == i, 0, rows[:, i])
        rows ^= TIMES[factors[:, None], rows[i]]
    return rows[:, len(matrix) :]


if __name__ == "__main__":
    for name, value in decode(Path(sys.argv[1]).read_bytes()).items():
        print(name, value.shape if value.ndim > 1 else value)
