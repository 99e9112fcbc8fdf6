"""Which pixels are calm."""

import numpy as np

from sempic.labels import neighbourhood
from sempic.labels.neighbourhood import PAD
from sempic.labels.primed import calm

measure, is_calm = (getattr(f, "py_func", f) for f in (calm.measure, calm.is_calm))


def calm_pixels(labels):
    """Calm pixels as the coder finds them (by runs in columns), and by their definition."""
    frame = neighbourhood.frame(labels, 9)
    columns = calm.columns(frame.stride)
    height, width = labels.shape
    found, expected = set(), set()
    for y in range(height):
        measure(columns, frame.image, y, frame.stride, width)
        for x in range(width):
            o = (y + PAD) * frame.stride + x + PAD
            run = 0
            while run < x and labels[y, x - 1 - run] == labels[y, x - 1]:
                run += 1
            if frame.image[o - frame.stride] == frame.image[o - 1] and is_calm(
                columns, x, width, run
            ):
                found.add((y, x))
            around = labels[max(y - 2, 0) : y, max(x - 2, 0) : x + 3]
            if around.shape == (2, 5) and len({*around.flat, *labels[y, x - 2 : x]}) == 1:
                expected.add((y, x))
    return found, expected


def test_calm_pixels_have_one_label_all_around():
    rng = np.random.default_rng(1)
    labels = np.kron(rng.integers(0, 2, (5, 6)), np.ones((5, 5), np.int64)).astype(np.int64)
    labels[11, 14] ^= 1
    found, expected = calm_pixels(labels)
    assert found == expected
    assert 50 < len(found) < labels.size


def test_calm_contexts_have_slots_of_their_own():
    """For every number of classes, the largest address is below the number of slots."""
    from sempic.labels.primed.evidence import Trunk
    from sempic.labels.primed.state import CALM_CONTEXTS, calm_slots

    addresses = getattr(calm.addresses, "py_func", calm.addresses)
    address = np.zeros(CALM_CONTEXTS, np.int64)
    for classes in (2, 12, 16, 17, 20, 31, 32, 33, 127, 255):
        last = classes - 1
        trunk = Trunk(at=0, best=255, second=0, top=last, sure=7)
        addresses(address, last, 31, 10**6, 10**6, 10**6, 10, 10, 10**3, trunk, classes)
        assert (address < calm_slots(classes)).all()
