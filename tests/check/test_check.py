"""A check finds lost and invented objects, sends windows for them and writes a receipt."""

import dataclasses
import threading

import numpy as np
import pytest
from conftest import street

from sempic import check, coarse, container, critical, windows
from sempic.codec import Draft, unpack
from sempic.errors import InputError, ModelError
from sempic.palette import CAMVID
from sempic.windows import choice, layout

SIZE = (96, 128)
SIGNS = [(slice(20, 28), slice(16, 24)), (slice(48, 66), slice(80, 100))]
BAIT = (slice(70, 78), slice(20, 30))


def picture():
    """A street with two blue signs."""
    image = street(*SIZE)[0] // 2 + 40
    for rows, columns in SIGNS:
        image[rows, columns] = (20, 30, 250)
    return image


IMAGE = picture()


def see(image):
    """Signs are blue, pedestrians pure red."""
    r, g, b = (image[..., i].astype(int) for i in range(3))
    labels = np.zeros(image.shape[:2], np.uint8)
    labels[b - np.maximum(r, g) > 120] = 6
    labels[r - np.maximum(b, g) > 120] = 9
    return labels


class Painter:
    """Paints everything grey, and a pedestrian that the original lacks."""

    def __init__(self, ghost=True):
        self.scenes, self.ghost = [], ghost

    def __call__(self, scene):
        self.scenes.append(scene)
        painted = np.full((scene.height, scene.width, 3), 90, np.uint8)
        if self.ghost:
            painted[BAIT] = (250, 10, 10)
        return painted


VERIFIER = check.Verifier(
    predict=lambda image: (see(image), None), palette=CAMVID.id, digest="cafe0123"
)


@pytest.fixture(scope="module")
def draft():
    small = coarse.encode(coarse.downscale(IMAGE, 4), quality=36)
    labels = street(*SIZE)[1]
    return Draft(width=SIZE[1], height=SIZE[0], labels=labels, coarse=small)


def checked(draft, budget=critical.BUDGET, *, verifier=VERIFIER, paint=None, **more):
    columns, rows = layout.grid(draft.width, draft.height)
    none = np.zeros((rows, columns), bool)
    how = {"paint": paint or Painter(), "sent": none, "never": none} | more
    return check.run(IMAGE, draft, draft.pack(), verifier=verifier, budget=budget, **how)


def receipt(stream):
    return critical.read(container.read(stream).receipt)


def test_lost_and_invented_objects_have_boxes(draft):
    found = check.find(IMAGE, Painter()(unpack(draft.pack())), verifier=VERIFIER)
    assert {(one.group, one.verdict, one.box) for one in found} == {
        ("signs and lights", "lost", (16, 20, 8, 8)),
        ("signs and lights", "lost", (80, 48, 20, 18)),
        ("people", "invented", (20, 70, 10, 8)),
    }
    assert len(found) == 3


def test_lost_and_invented_objects_are_sent_as_windows(draft):
    stream = checked(draft, 9.0)
    found = receipt(stream)
    assert found.verifier == "cafe0123"
    assert found.groups["signs and lights"] == critical.Tally(2, 0, 0)
    assert found.total == critical.Tally(2, 0, 0)
    shown = windows.blend(Painter()(unpack(stream)), unpack(stream).windows)
    assert np.array_equal(see(shown) == 6, see(IMAGE) == 6)
    assert not (see(shown) == 9).any()


def test_without_a_budget_the_receipt_lists_the_losses(draft):
    stream = checked(draft, 0.0)
    found = receipt(stream)
    assert found.groups["signs and lights"] == critical.Tally(2, 2, 0)
    assert found.groups["people"] == critical.Tally(0, 0, 1)
    whole = container.read(stream)
    assert whole.windows is None
    assert container.write(dataclasses.replace(whole, receipt=None)) == draft.pack()


def test_the_budget_goes_to_the_cheapest_object_first(draft):
    least = next(
        b / 100 for b in range(5, 300, 5) if container.read(checked(draft, b / 100)).windows
    )
    stream = checked(draft, least)
    assert receipt(stream).groups["signs and lights"].lost == 1
    (window,) = unpack(stream).windows
    assert (window.x, window.y) == (8, 16)  # of the small sign
    plain = draft.pack()
    assert len(stream) - len(container.read(stream).receipt) - 1 <= (1 + least) * len(plain)


def test_imagined_classes_are_in_no_window(draft):
    never = check.imagined(IMAGE, VERIFIER, ["Sign"], CAMVID)
    assert np.array_equal(never, layout.touched(choice.grown(see(IMAGE) == 6, 4)))
    stream = checked(draft, 9.0, never=never)
    assert receipt(stream).groups["signs and lights"].lost == 2
    cells = layout.touched(see(IMAGE) == 6)
    for window in unpack(stream).windows:
        height, width = window.picture.shape[:2]
        rows = slice(window.y // 8, -(-(window.y + height) // 8))
        assert not cells[rows, window.x // 8 : -(-(window.x + width) // 8)].any()


def test_regions_that_no_window_may_show_hinder_no_others():
    """They were tried first, and failed, where the others seemed too large."""
    image = np.full((*SIZE, 3), 90, np.uint8)
    image[16:28, 16:28] = image[40:90, 40:120] = (20, 30, 250)  # flat: cheaper than RATE
    small = coarse.encode(coarse.downscale(image, 4), quality=36)
    draft = Draft(width=SIZE[1], height=SIZE[0], coarse=small)
    never = np.zeros(layout.grid(SIZE[1], SIZE[0])[::-1], bool)
    never[:5] = True
    how = {"verifier": VERIFIER, "paint": Painter(ghost=False), "never": never}
    plain, room = draft.pack(), 10_000
    for _ in range(2):
        budget = (room + check.CHUNK + 0.5) / len(plain)
        stream = check.run(image, draft, plain, sent=np.zeros_like(never), budget=budget, **how)
        (window,) = unpack(stream).windows
        assert (window.x, window.y) == (32, 40)
        room = len(container.read(stream).windows)


def test_smaller_regions_are_sent_where_the_first_does_not_fit(draft):
    large, small = np.s_[8:72, 8:72], np.s_[40:56, 100:116]

    def predict(image):
        probabilities = np.zeros((12, *SIZE), np.uint8)
        if np.array_equal(image, IMAGE):
            probabilities[6][large], probabilities[6][small] = 255, 120
        return np.zeros(SIZE, np.uint8), probabilities

    def shown(budget):
        stream = checked(draft, budget, verifier=verifier)
        sent = np.zeros(SIZE, bool)
        for window in unpack(stream).windows:
            height, width = window.picture.shape[:2]
            sent[window.y : window.y + height, window.x : window.x + width] = True
        return sent, len(container.read(stream).windows)

    verifier = dataclasses.replace(VERIFIER, predict=predict)
    everything, size = shown(99)
    assert everything[large].all()
    assert everything[small].all()
    sent, _ = shown(size / 2 / len(draft.pack()))
    assert sent[small].all()
    assert not sent[large].any()


def test_a_window_that_does_not_fit_is_coarser(draft):
    def predict(image):
        labels = np.zeros(SIZE, np.uint8)
        labels[40:60, 90:110] = 6 * np.array_equal(image, IMAGE)
        return labels, None

    verifier = dataclasses.replace(VERIFIER, predict=predict)

    def size(room, **options):
        budget = (room + check.CHUNK + 0.5) / len(draft.pack())
        stream = checked(draft, budget, verifier=verifier, **options)
        return len(container.read(stream).windows or b"")

    fine, coarser = size(9999), size(9999, qp=windows.QP + check.COARSER)
    assert size(fine) == fine > coarser
    assert size(fine - 1) == size(coarser) == coarser > 0
    assert size(coarser - 1) == 0


def test_windows_of_the_draft_stay(draft):
    sent = np.zeros(layout.grid(SIZE[1], SIZE[0])[::-1], bool)
    sent[0, 0] = True
    mine = windows.encode(IMAGE, layout.rectangles(sent), draft.planes())
    kept = dataclasses.replace(draft, windows=mine)
    assert container.read(checked(kept, 0.0, sent=sent)).windows == mine
    both = unpack(checked(kept, 9.0, sent=sent)).windows
    assert (0, 0) in {(window.x, window.y) for window in both}
    assert len(both) > 3


def test_a_perfect_receiver_gets_no_windows(draft):
    plain = draft.pack()
    stream = checked(draft, paint=lambda scene: IMAGE)
    assert receipt(stream).total == critical.Tally(2, 0, 0)
    assert len(stream) == len(plain) + 1 + 6


@pytest.mark.parametrize("ahead", [True, False])
def test_the_original_is_predicted_once(draft, ahead):
    seen = []

    def predict(image):
        seen.append((threading.get_ident(), np.array_equal(image, IMAGE)))
        return see(image), None

    verifier = check.once(dataclasses.replace(VERIFIER, predict=predict), IMAGE, ahead=ahead)
    assert checked(draft, verifier=verifier) == checked(draft, verifier=verifier) == checked(draft)
    here = threading.get_ident()
    assert [thread != here for thread, _ in seen] == [ahead, *[False] * (len(seen) - 1)]
    assert [original for _, original in seen] == [True, *[False] * (len(seen) - 1)]


def test_the_last_look_takes_the_map_alone(draft):
    """Probabilities take time and memory; they only tell what to send."""
    looks = []

    def predict(image):
        looks.append("predict")
        return see(image), None

    def label(image):
        looks.append("label")
        return see(image)

    verifier = dataclasses.replace(VERIFIER, predict=predict, label=label)
    assert checked(draft, 9.0, verifier=verifier) == checked(draft, 9.0)
    assert looks == ["predict", "predict", "label"]
    check.find(IMAGE, IMAGE, verifier=verifier)
    assert looks[3:] == ["label", "label"]


@pytest.mark.parametrize("ahead", [True, False])
def test_an_error_about_the_original_is_raised(draft, ahead):
    def predict(image):
        raise ModelError("blind")

    verifier = check.once(dataclasses.replace(VERIFIER, predict=predict), IMAGE, ahead=ahead)
    with pytest.raises(ModelError, match="blind"):
        checked(draft, verifier=verifier)


def test_the_check_paints_the_scene_of_the_stream(draft):
    painter = Painter()
    stream = checked(draft, paint=painter)
    (scene,) = painter.scenes
    there = unpack(stream)
    assert np.array_equal(scene.labels, there.labels)
    for name in ("y", "cb", "cr"):
        assert np.array_equal(getattr(scene.coarse, name), getattr(there.coarse, name))
    for name in ("width", "height", "palette", "own", "model"):
        assert getattr(scene, name) == getattr(there, name)


def test_a_verifier_must_predict_maps_of_its_palette(draft):
    whole = see(IMAGE)
    for answer in (
        None,
        whole,
        (whole[1:], None),
        (whole * 1.0, None),
        (whole, whole),
        (whole, []),
    ):
        verifier = dataclasses.replace(VERIFIER, predict=lambda image, answer=answer: answer)
        with pytest.raises(ModelError, match="verifier"):
            checked(draft, verifier=verifier)
    with pytest.raises(InputError, match="palette 99"):
        dataclasses.replace(VERIFIER, palette=99)


def test_uncertain_objects_are_sent_but_not_counted(draft):
    """The network is less sure of a sign where the sign is blurred."""

    def predict(image):
        there = see(image) == 6
        probabilities = np.zeros((12, *image.shape[:2]), np.uint8)
        probabilities[6] = np.where(there, 80, 10)
        return np.zeros_like(there, np.uint8), probabilities

    verifier = check.Verifier(predict=predict, palette=CAMVID.id, digest="cafe0123")
    more = {"verifier": verifier, "paint": Painter(ghost=False)}
    stream = checked(draft, 9.0, **more)
    assert len(unpack(stream).windows) == 2
    assert receipt(stream).total == critical.Tally(0, 0, 0)
    assert container.read(checked(draft, 0.0, **more)).windows is None
