"""Motion: equal to a direct version of docs/spec/sequence.md §5, and right on moving scenes."""

import numpy as np
import pytest

from sempic.sequence import motion


def scene(height=60, width=80, seed=0):
    """Smooth blobs."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(height, width))
    for _ in range(3):
        noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1) + np.roll(noise, -1, 0)
                 + np.roll(noise, -1, 1)) / 5  # fmt: skip
    return np.clip(128 + 300 * noise, 0, 255).astype(np.uint8)


def levelled(plane):
    h, w = plane.shape
    found = np.zeros_like(plane)
    for y in range(h):
        for x in range(w):
            around = [
                int(plane[min(max(i, 0), h - 1), min(max(j, 0), w - 1)])
                for i in range(y - 8, y + 9)
                for j in range(x - 8, x + 9)
            ]
            found[y, x] = min(max(int(plane[y, x]) - sum(around) // 289 + 128, 0), 255)
    return found


def motion_by_specification(last, now, version):
    h, w = now.shape
    same, still, smoothly = {1: (96, 8, 3), 2: (192, 12, 3)}[version]
    if version == 2:
        last, now = levelled(last), levelled(now)
    rows, columns = -(-h // 4), -(-w // 4)

    def at(plane, y, x):
        return int(plane[min(max(y, 0), h - 1), min(max(x, 0), w - 1)])

    def difference(y, x, s, v, u):
        total = 0
        for i in range(y, y + s):
            for j in range(x, x + s):
                fy, fx, gy, gx = v & 3, u & 3, i + (v >> 2), j + (u >> 2)
                p = ((4 - fy) * (4 - fx) * at(last, gy, gx) + (4 - fy) * fx * at(last, gy, gx + 1)
                     + fy * (4 - fx) * at(last, gy + 1, gx)
                     + fy * fx * at(last, gy + 1, gx + 1) + 8) >> 4  # fmt: skip
                total += abs(at(now, i, j) - p)
        return total

    def block(r, c, v, u):
        return difference(4 * r - 2, 4 * c - 2, 8, v, u)

    def beside(field, r, c):
        places = ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1))
        return [field[min(max(a, 0), rows - 1)][min(max(b, 0), columns - 1)] for a, b in places]

    field = [[(0, 0)] * columns for _ in range(rows)]
    for r in range(rows):
        for c in range(columns):
            best = block(r, c, 0, 0)
            if best < same:
                continue
            for a in range(-10, 11):
                for b in range(-10, 11):
                    cost = block(r, c, 4 * a, 4 * b) + still * (abs(a) + abs(b))
                    if cost < best:
                        best, field[r][c] = cost, (4 * a, 4 * b)
    for t in (4, 2, 1):
        for r in range(rows):
            for c in range(columns):
                o = field[r][c]
                around = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
                tries = [o, *beside(field, r, c), (0, 0)]
                tries += [
                    tuple(min(max(k + t * d, -40), 40) for k, d in zip(o, way, strict=True))
                    for way in around
                ]
                best = None
                for v, u in tries:
                    smooth = sum(abs(v - y) + abs(u - x) for y, x in beside(field, r, c))
                    cost = block(r, c, v, u) + still * (abs(v) + abs(u)) // 4 + smoothly * smooth
                    if best is None or cost < best[0]:
                        best = cost, (v, u)
                field[r][c] = best[1]
    vectors = np.zeros((2, h, w), np.int16)
    for y in range(h):
        for x in range(w):
            own = field[y // 4][x // 4]
            best, found = difference(y - 1, x - 1, 3, *own) - 12, own
            for other in beside(field, y // 4, x // 4):
                cost = difference(y - 1, x - 1, 3, *other)
                if other != own and cost < best:
                    best, found = cost, other
            vectors[:, y, x] = found
    return vectors


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("size", [(11, 14), (4, 3)])
def test_motion_follows_its_specification(size, version):
    large = scene(40, 40)
    last = large[10 : 10 + size[0], 10 : 10 + size[1]]
    now = large[11 : 11 + size[0], 13 : 13 + size[1]].copy()
    now[2:, 5:9] = 255 - now[2:, 5:9]
    assert np.array_equal(
        motion.estimate(last, now, version), motion_by_specification(last, now, version)
    )


def test_still_scenes_have_no_motion():
    plane = scene()
    assert not motion.estimate(plane, plane.copy()).any()
    noisy = plane ^ (np.random.default_rng(0).random(plane.shape) < 0.5).astype(np.uint8)
    assert not motion.estimate(plane, noisy).any()


def test_a_global_shift_is_found():
    large = scene(90, 120)
    now, last = large[20:80, 20:100], large[17:77, 25:105]
    vectors = motion.estimate(last, now)[:, 8:-8, 8:-8]
    assert (vectors[0] == 4 * 3).mean() > 0.95
    assert (vectors[1] == 4 * -5).mean() > 0.95


def test_quarter_pixels_are_pixels_of_a_picture_four_times_as_large():
    large = scene(60, 80).repeat(4, 0).repeat(4, 1)
    for _ in range(6):
        large = ((large.astype(int) + np.roll(large, 1, 0) + np.roll(large, 1, 1)) // 3).astype(
            np.uint8
        )

    def shown(shift):
        part = large[40:200, 40 + shift : 280 + shift]
        return part, part.reshape(40, 4, 60, 4).mean((1, 3)).astype(np.uint8)

    (first, last), (second, now) = shown(0), shown(6)
    places = motion.enlarge(motion.estimate(last, now), 4, 160, 240)
    before = np.abs(second.astype(int) - first).mean()
    after = np.abs(second.astype(int) - motion.move(first, places)).mean()
    assert after < 0.35 * before


def test_reference_positions_stay_in_the_picture():
    vectors = np.full((2, 3, 4), -40, np.int16)
    places = motion.enlarge(vectors, 4, 11, 15)
    assert places.min() == 0
    assert places.shape == (11, 15)
    assert motion.enlarge(-vectors, 4, 11, 15).max() == 11 * 15 - 1


def test_exposure_changes_are_no_motion():
    plane = scene() // 2 + 60
    darker = (plane * 0.9).astype(np.uint8)
    assert (motion.estimate(plane, darker) != 0).mean() < 0.02
    assert (motion.estimate(plane, darker, version=1) != 0).mean() > 0.2
