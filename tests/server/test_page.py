"""The page in a browser."""

import dataclasses
import functools
import io
import json
import os
import re
import shutil
from urllib.parse import parse_qs, urlsplit

import fakecoder
import numpy as np
import PIL.Image
import PIL.ImageSequence
import pytest
from conftest import street
from standin import clip as clip_of
from standin import live, pixels
from standin import png as png_of
from standin import stream as stream_of

import sempic
from sempic import container, critical, palette, sequence

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
if not CHROMIUM:
    pytest.skip("no chromium on this machine", allow_module_level=True)
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
IMAGE, LABELS = street(192, 256)
DESKTOP = {"width": 1280, "height": 1300}  # nothing needs to be scrolled to
PHONE = {"width": 390, "height": 844}
# What moves is drawn sixty times a second, which is half of the work of the browser.
STILL = """
const still = new CSSStyleSheet()
still.replaceSync("*, ::before, ::after {animation: none !important; transition: none !important}")
document.adoptedStyleSheets = [still]
"""


@pytest.fixture(scope="module")
def url():
    with live(fakecoder.Remembering, max_pixels=1 << 20) as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def tab_of(browser, **options):
    """A new tab; `faults` are the errors that its pages log."""
    context = browser.new_context(**{"viewport": DESKTOP, **options})
    context.set_default_timeout(60_000)
    tab = context.new_page()
    tab.faults = []
    tab.on("pageerror", lambda error: tab.faults.append(str(error)))
    tab.on("console", lambda m: m.type == "error" and tab.faults.append(m.text))  # CSP, too
    return tab


@pytest.fixture(scope="module")
def desktop(browser):
    """The tab of most tests: a new one costs a process."""
    tab = tab_of(browser)
    tab.add_init_script(STILL)
    return tab


@pytest.fixture
def visit(browser, desktop, url):
    """Opens the page and waits until it is idle; fails if the page logged an error."""
    tabs = [desktop]

    def go(fragment="", **options):
        if options:
            tabs.append(tab_of(browser, **options))
        page = tabs[-1]
        page.goto("about:blank")  # otherwise another fragment is no new page
        page.goto(f"{url}/{fragment}")
        wait_until_idle(page)
        return page

    yield go
    for tab in tabs[1:]:
        tab.context.close()
    faults = [fault for tab in tabs for fault in tab.faults]
    desktop.faults.clear()
    # A refusal by the server (4xx) is shown on the page; the browser notes it, too.
    assert not [fault for fault in faults if "Failed to load resource" not in fault]


def wait_until_idle(page):
    """Every action is busy from within the event that starts it."""
    page.wait_for_selector("body[aria-busy=false]")


@functools.cache
def png():
    return png_of(IMAGE)


@functools.cache
def stream():
    return stream_of(LABELS, IMAGE)


def with_signs():
    image = IMAGE.copy()
    image[52:60, 60:68] = image[80:130, 160:230] = (20, 30, 250)
    return image


def choose(page, name, data):
    file = {"name": name, "mimeType": "application/octet-stream", "buffer": data}
    page.set_input_files("#file", file)


def opened(page, name, data):
    choose(page, name, data)
    wait_until_idle(page)


def wait_until(page, condition):
    """As `wait_for_function`, which the page's policy does not allow."""
    for _ in range(500):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    raise TimeoutError(condition)


def hold_next_picture(page):
    """The next picture that the page makes of bytes waits for `release()`."""
    page.evaluate("""() => {
        const real = imageOf
        imageOf = async (...given) => {
            imageOf = real
            await new Promise(go => { window.release = go })
            return real(...given)
        }
    }""")


def downloads(page, button):
    return page.get_attribute(button, "href") is not None


def downloaded(page, button):
    with page.expect_download() as download:
        page.click(button)
    return download.value.path().read_bytes()


def downloaded_labels(page):
    return sempic.unpack(downloaded(page, "#get-sempic")).labels


def views(page):
    return page.locator("#strip .shot b").all_text_contents()


def test_the_first_scene_shows_its_original(visit):
    page = visit(viewport=DESKTOP)  # a tab in which things move
    assert page.input_value("#scene") == "street.jpg"
    assert "CC BY 4.0" in page.locator("#scene option:checked").text_content()
    assert re.fullmatch(r"A street in [\d,]+ bytes", page.text_content("h1"))
    assert views(page) == ["Original", "Labels", "Coarse", "Decoded", "AVIF", "JPEG"]
    assert "code the original" in page.text_content("#others")
    assert page.is_visible("#encoder")
    bar = "getComputedStyle(document.querySelector('.busy'), '::after').animationPlayState"
    assert page.evaluate(bar) == "paused"  # an idle page draws nothing


def test_a_scene_of_a_sempic_file_has_no_original(visit):
    page = visit("#scene=street.sempic")
    street = page.request.get(f"{page.url.split('#')[0]}scenes/street.sempic").body()
    assert page.text_content("h1") == f"A street in {len(street):,} bytes"
    assert views(page) == ["Labels", "Coarse", "Decoded", "AVIF", "JPEG"]
    assert page.locator("#strip .shot:disabled").count() == 0
    assert page.input_value("#left") == "labels"
    assert page.input_value("#right") == "decoded"
    label = page.get_attribute("#bar", "aria-label")
    chunks = sempic.info(street)["chunks"]
    assert f"Labels {chunks['labels']} bytes" in label
    assert f"Coarse picture (BPG) {chunks['coarse']} bytes" in label
    assert downloaded(page, "#get-sempic") == street
    assert pixels(downloaded(page, "#get-png")).shape == (288, 512, 3)
    assert page.is_hidden("#encoder")  # a .sempic has its quality
    assert "for lack of the original" in page.text_content("#others")


def test_a_clip_becomes_a_sequence_that_plays(visit):
    page = visit()
    opened(page, "drive.mp4", clip_of(step=4))
    assert views(page) == ["Original", "Labels", "Coarse", "Decoded"]
    assert "first ten seconds" in page.text_content("#others")
    assert "10 frames in 1.0 s" in page.text_content("#lead")
    assert page.locator("#strip .shot:disabled").count() == 0
    assert page.is_disabled("#edit")
    data = downloaded(page, "#get-sempic")
    assert sequence.info(data)["frames"] == 10
    with PIL.Image.open(io.BytesIO(downloaded(page, "#get-png"))) as picture:
        assert picture.format == "WEBP"
        shown = [f.convert("RGB").info["duration"] for f in PIL.ImageSequence.Iterator(picture)]
        assert sum(shown) == 1000  # ms; equal frames in a row are one longer frame
        assert len(shown) > 5

    opened(page, "again.sempic", data)
    assert views(page) == ["Labels", "Coarse", "Decoded"]
    assert page.is_hidden("#encoder")
    assert "again.sempic in" in page.text_content("h1")
    assert not page.text_content("#others").strip()  # already coded


def test_windows_are_outlined_and_the_receipt_is_shown(visit):
    codec = sempic.Codec(fakecoder.segment, fakecoder.receive)
    whole = container.read(codec.encode(IMAGE, keep_boxes=[(40, 32, 24, 16), (100, 100, 8, 8)]))
    groups = dict.fromkeys(critical.GROUPS, critical.Tally(2, 1, 3))
    receipt = critical.write(critical.Receipt(verifier="0badcafe", groups=groups))
    data = container.write(dataclasses.replace(whole, receipt=receipt))
    page = visit()
    opened(page, "a.sempic", data)
    rects = page.locator("#outlines rect")
    got = [[int(r.get_attribute(k)) for k in ("x", "y", "width", "height")] for r in rects.all()]
    assert got == sempic.info(data)["windows"]
    assert len(got) >= 2
    assert page.locator("#outlines").is_visible()
    assert "Windows of the original" in page.get_attribute("#bar", "aria-label")
    assert "of 8 people" in page.text_content("#verdict")
    assert "4 are kept, 4 lost; 12 invented" in page.text_content("#verdict")
    page.uncheck("#outline")
    assert page.locator("#outlines").is_hidden()
    own = critical.Receipt(verifier="0badcafe", table="cafe0123", groups={"dogs": groups["people"]})
    data = dataclasses.replace(whole, receipt=critical.write(own), own_groups=True)
    opened(page, "own.sempic", container.write(data))
    assert "of 2 dogs 1 are kept" in page.text_content("#verdict")
    opened(page, "b.sempic", stream())
    assert page.is_hidden("#outline-line")
    assert page.is_hidden("#verdict")


def test_objects_of_a_check_are_framed(visit):
    image = with_signs()
    asked = []
    page = visit()
    page.on("request", lambda r: r.url.endswith("/objects") and asked.append(r))
    opened(page, "signs.png", png_of(image))
    assert page.is_hidden("#legend")
    assert not asked  # a check is made only on demand
    page.focus("#option-check")
    page.keyboard.press("Space")
    wait_until_idle(page)
    data = downloaded(page, "#get-sempic")
    found = fakecoder.FakeCoder().objects(data, png_of(image))
    assert {one.verdict for one in found} == {"kept", "lost", "invented"}

    def framed():
        sides = "x", "y", "width", "height"
        return [
            (r.get_attribute("class"), tuple(int(r.get_attribute(side)) for side in sides))
            for r in page.locator("#objects rect").all()
        ]

    assert framed() == [(one.verdict, one.box) for one in found]
    assert page.locator("#outlines rect").count() == len(sempic.info(data)["windows"]) > 0
    assert "of 2 people" in page.text_content("#verdict")
    assert "1 are kept, 1 lost; 1 invented" in page.text_content("#verdict")
    assert page.locator("#legend span").all_text_contents() == ["kept", "lost", "invented"]
    look = "all => all.map(e => [getComputedStyle(e).color, getComputedStyle(e).strokeDasharray])"
    looks = page.locator("#objects rect").evaluate_all(look)
    for each in zip(*looks, strict=True):  # neither needs the other
        assert len(set(each)) == 3
    named = page.get_by_role("img", name="signs and lights, lost: 70 × 50 at 160, 80")
    assert named.count() == 1
    assert page.get_by_role("img", name="1 windows of the original").count() == 1

    page.focus("#framed")
    for hidden in (True, False):
        page.keyboard.press("Space")
        wait_until_idle(page)
        assert page.locator("#objects").is_hidden() == hidden
        assert page.locator("#outlines").is_visible()
    page.evaluate("ids.fill(3); attempt(sendLabels)")
    wait_until_idle(page)
    for gone in ("#objects", "#legend", "#verdict"):
        assert page.locator(gone).is_hidden()  # the check was of the map before
    opened(page, "checked.sempic", data)
    assert page.is_visible("#verdict")
    assert page.is_hidden("#legend")  # the places of objects are not in the file
    assert page.locator("#objects").is_hidden()
    opened(page, "drive.mp4", clip_of(step=4))
    assert page.is_hidden("#check-line")
    assert page.is_hidden("#toast")
    assert len(asked) == 1  # for a checked stream once


def test_frames_of_the_stream_before_are_never_shown(visit):
    page = visit("#scene=street.jpg&check=1")
    assert page.is_checked("#option-check")
    opened(page, "signs.png", png_of(with_signs()))
    assert page.locator("#objects rect").count() > 0
    held = []
    page.route("**/objects", lambda r: held.append(r))
    page.focus("#option-quality")
    page.keyboard.press("End")
    wait_until(page, "applied.quality === 9 && $('objects').hidden")
    page.focus("#option-check")
    page.keyboard.press("Space")
    wait_until_idle(page)
    page.unroute("**/objects")
    assert page.is_hidden("#toast")
    assert page.locator("#objects").is_hidden()
    assert held
    page.keyboard.press("Space")
    wait_until_idle(page)
    assert page.locator("#objects").is_visible()


def test_settings_change_stream_and_picture(visit):
    page = visit()
    opened(page, "photo.png", png())
    assert re.fullmatch(r"photo\.png in [\d,]+ bytes", page.text_content("h1"))
    assert views(page)[0] == "Original"
    page.focus("#option-quality")
    page.keyboard.press("End")
    wait_until_idle(page)
    assert page.locator("#strip .shot:disabled").count() == 0  # AVIF and JPEG fit, too
    fine = downloaded(page, "#get-sempic")
    page.focus("#option-quality")
    page.keyboard.press("Home")
    wait_until_idle(page)
    low = downloaded(page, "#get-sempic")
    assert len(low) < len(fine)
    assert np.array_equal(sempic.unpack(low).labels, sempic.unpack(fine).labels)

    def decoded():
        return pixels(downloaded(page, "#get-png"))[0, 0, 1:].tolist()

    assert decoded() == [1, 0]
    page.focus("#option-steps")
    page.keyboard.press("ArrowRight")
    page.fill("#option-seed", "9")
    wait_until_idle(page)
    assert decoded() == [2, 9]
    assert page.locator("#option-fidelity").count() == 0  # this receiver has none
    assert "decode" in page.text_content("#times")


def test_edited_labels_are_sent_and_decoded_again(visit):
    page = visit()
    opened(page, "drawing.sempic", stream())
    page.click("#edit")
    page.click("#classes label:has-text('tree')")
    stage = page.locator("#stage").bounding_box()
    labels = sempic.unpack(stream()).labels
    row, column = np.argwhere(labels == 8).mean(0)  # the car
    height, width = labels.shape
    at = stage["x"] + stage["width"] * (column + 0.5) / width
    page.mouse.click(at, stage["y"] + stage["height"] * (row + 0.5) / height)
    wait_until_idle(page)
    changed = downloaded_labels(page)
    assert np.array_equal(changed, np.where(LABELS == 8, 5, LABELS))
    assert np.array_equal(pixels(downloaded(page, "#get-png"))[..., 0], changed)  # decoded anew
    sent = bytes(
        page.evaluate("pngOf(ids, facts.width, facts.height).then(bytesOf).then(Array.from)")
    )
    assert np.array_equal(pixels(sent), changed)
    assert len(sent) < changed.size / 10

    page.click("#brush")
    stage = page.locator("#stage").bounding_box()
    page.click("#classes label:has-text('sky')")
    page.mouse.move(stage["x"] + 0.2 * stage["width"], stage["y"] + 0.9 * stage["height"])
    page.mouse.down()
    page.mouse.move(stage["x"] + 0.8 * stage["width"], stage["y"] + 0.9 * stage["height"], steps=5)
    page.mouse.up()
    wait_until_idle(page)
    painted = downloaded_labels(page)
    line = painted[int(0.9 * height)]
    assert (line[int(0.25 * width) : int(0.75 * width)] == 0).all()
    page.keyboard.press("Control+z")
    wait_until_idle(page)
    assert np.array_equal(downloaded_labels(page), changed)
    page.click("#reset")
    wait_until_idle(page)
    assert downloaded(page, "#get-sempic") == stream()

    page.click("#fill")
    page.click("#classes label:has-text('fence')")
    page.focus("#stage")
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+ArrowLeft")  # from the centre, by keyboard alone
    page.keyboard.press("Enter")
    wait_until_idle(page)
    by_keys = downloaded_labels(page)
    at = height // 2, width // 2 - 1
    assert LABELS[at] != 7
    assert by_keys[at] == 7


def test_reset_restores_the_map_of_the_stream(visit):
    """Even after more strokes than the thirty that the page can undo."""
    page = visit()
    opened(page, "drawing.sempic", stream())
    page.click("#edit")
    page.click("#classes label:has-text('tree')")
    for place in (0.1, 0.9):
        page.evaluate(f"startStroke({{x: 0.5, y: {place}}}); endStroke()")
        wait_until_idle(page)
    page.evaluate("undone.shift()")
    page.click("#reset")
    wait_until_idle(page)
    assert page.evaluate("Array.from(ids)") == LABELS.ravel().tolist()
    assert page.is_disabled("#undo")
    page.evaluate("startStroke({x: 0.5, y: 0.1}); endStroke()")
    wait_until_idle(page)
    assert page.is_enabled("#undo")
    opened(page, "another.sempic", stream())
    assert page.is_disabled("#undo")  # the new picture has no strokes


def test_the_lead_names_only_the_parts_that_are_sent(visit):
    page = visit()
    for labels, image, sent in (
        (LABELS, IMAGE, "which class each pixel has and a coarse picture"),
        (LABELS, None, "which class each pixel has"),
        (None, IMAGE, "a coarse picture"),
    ):
        opened(page, "a.sempic", stream_of(labels, image))
        assert f"Sent: {sent}. The receiver" in page.text_content("#lead")
        assert page.locator(".empty").count() == 0  # no placeholder waits for a missing part


def test_an_unknown_palette_shows_labels_only(visit):
    page = visit()
    shapes = palette.own("page-shapes", [("ground", (0, 0, 0)), ("disc", (200, 180, 40))])
    data = sempic.pack(width=256, height=192, labels=LABELS // 8, palette=shapes.id)
    opened(page, "shapes.sempic", data)
    assert page.locator("#strip .shot:enabled b").all_text_contents() == ["Labels"]
    assert page.is_hidden("#toast")
    assert page.is_disabled("#edit")
    assert downloaded(page, "#get-sempic") == data


def test_slider_and_zoom_work_by_keyboard(visit):
    page = visit()
    page.focus("#handle")
    page.keyboard.press("Home")
    assert page.get_attribute("#handle", "aria-valuenow") == "0"
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    assert page.get_attribute("#handle", "aria-valuetext") == "30 % Labels, the rest Decoded"
    clip = page.locator("#layer-b").evaluate("e => e.style.clipPath")
    assert clip == "inset(0px 0px 0px 30%)"
    page.keyboard.press("+")
    frames = page.locator(".frame").evaluate_all("all => all.map(e => e.style.transform)")
    assert frames[0] == frames[1]  # both sides alike
    assert frames[0].startswith("scale(1.6)")
    page.keyboard.press("0")
    assert page.text_content("#zoom-fit") == "1×"


def test_the_link_reproduces_the_view(visit):
    page = visit(
        "#scene=street.sempic&steps=2&seed=5&left=coarse&right=decoded&split=25&zoom=2,0.1,0.2"
    )
    assert page.input_value("#option-steps") == "2"
    assert page.input_value("#option-seed") == "5"
    assert page.input_value("#left") == "coarse"
    assert page.get_attribute("#handle", "aria-valuenow") == "25"
    assert "scale(2) translate(-10%, -20%)" in page.locator(".frame").first.get_attribute("style")
    opened(page, "mine.sempic", stream())
    page.wait_for_url(re.compile("#sempic="))
    fragment = urlsplit(page.url).fragment
    assert "sempic" in parse_qs(fragment)
    title = page.text_content("h1")
    again = visit(f"#{fragment}")
    assert downloaded(again, "#get-sempic") == stream()
    assert again.text_content("h1") == title
    assert urlsplit(again.url).fragment == fragment


def test_a_link_with_impossible_options_opens_with_possible_ones(visit):
    page = visit("#scene=street.jpg&quality=99&steps=2.6&seed=-3&max_side=700&split=x&zoom=a,b,c")
    assert page.is_hidden("#toast")
    values = {name: page.input_value(f"#option-{name}") for name in ("quality", "steps", "seed")}
    assert values == {"quality": "9", "steps": "3", "seed": "0"}
    assert page.input_value("#option-max_side") == "512"
    assert page.locator("#strip .shot:disabled").count() == 0


def test_a_change_of_quality_that_comes_after_a_sempic_is_ignored(visit):
    page = visit()
    opened(page, "photo.png", png())
    change = "$('option-quality').value = 9; $('option-quality').oninput();"
    data = list(stream())
    opens = f"openStream(Uint8Array.from({data}), {{name: 'late.sempic', title: 'late.sempic'}})"
    page.evaluate(f"{change} source.picture = null; attempt(() => {opens})")
    wait_until_idle(page)
    assert page.is_hidden("#toast")
    assert downloaded(page, "#get-sempic") == stream()


def test_a_damaged_link_says_what_to_do(visit):
    for link, error in (("%%%", "The link is damaged"), ("AAAA", "not a .sempic stream")):
        page = visit(f"#sempic={link}")
        assert error in page.text_content("#toast span")
        assert page.text_content("#lead").startswith("Nothing is shown yet")
        page.select_option("#scene", "street.sempic")
        wait_until_idle(page)
        assert page.text_content("h1").startswith("A street in")


def test_only_files_are_asked_to_be_dropped(visit):
    page = visit()
    enter = """file => {
        const dataTransfer = new DataTransfer()
        if (file) dataTransfer.items.add(new File(["x"], "x.png"))
        else dataTransfer.setData("text/plain", "x")
        dispatchEvent(new DragEvent("dragenter", {dataTransfer, cancelable: true}))
        const shown = !$("drop").hidden
        dispatchEvent(new DragEvent("dragleave", {dataTransfer}))
        return shown && $("drop").hidden
    }"""
    assert page.evaluate(enter, True)
    assert not page.evaluate(enter, False)


def test_the_skip_link_keeps_the_picture(visit):
    page = visit()
    opened(page, "mine.sempic", stream())
    page.wait_for_url(re.compile("#sempic="))
    page.focus(".skip")
    before = page.url
    page.keyboard.press("Enter")
    wait_until_idle(page)
    assert page.evaluate("document.activeElement.id") == "stage"
    assert (page.url, page.text_content("h1").split()[0]) == (before, "mine.sempic")


def test_what_happens_during_a_stroke_does_not_break_the_page(visit):
    page = visit()
    opened(page, "drawing.sempic", stream())
    page.click("#edit")
    page.click("#brush")
    page.click("#classes label:has-text('sky')")
    stage = page.locator("#stage").bounding_box()
    x, y = stage["x"] + 0.3 * stage["width"], stage["y"] + 0.9 * stage["height"]

    def during_a_stroke(action):
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 50, y, steps=3)
        action()
        page.mouse.move(x + 90, y, steps=3)
        page.mouse.up()
        wait_until_idle(page)

    during_a_stroke(lambda: page.keyboard.press("Control+z"))  # no stroke is finished yet
    assert not np.array_equal(downloaded_labels(page), LABELS)
    page.keyboard.press("Control+z")
    wait_until_idle(page)
    assert np.array_equal(downloaded_labels(page), LABELS)
    during_a_stroke(lambda: opened(page, "another.sempic", stream()))
    assert np.array_equal(downloaded_labels(page), LABELS)
    assert page.is_disabled("#undo")
    during_a_stroke(lambda: page.evaluate("cancelStroke()"))  # as by a second finger
    assert np.array_equal(downloaded_labels(page), LABELS)


def test_a_change_of_quality_does_not_stop_what_is_being_opened(visit):
    page = visit()
    opened(page, "shown.png", png())
    new, held = png_of(IMAGE[::-1]), []
    page.route("**/encode?*", lambda r: r.continue_() if held else held.append(r))
    choose(page, "new.png", new)
    page.focus("#option-quality")
    page.keyboard.press("End")
    wait_until(page, "applied.quality === 9")
    held[0].continue_()
    wait_until_idle(page)
    page.unroute("**/encode?*")
    assert page.text_content("h1").startswith("new.png")
    assert page.input_value("#option-quality") == "9"
    finest = downloaded(page, "#get-sempic")
    opened(page, "again.png", new)
    assert downloaded(page, "#get-sempic") == finest


def test_what_is_opened_last_is_shown(visit):
    page = visit()
    held = []
    hold_next_picture(page)
    choose(page, "slow.png", png())
    wait_until(page, "Boolean(window.release)")
    page.wait_for_timeout(300)  # for its answer
    page.route("**/info", lambda r: r.continue_() if held else held.append(r))
    with page.expect_request("**/info"):
        choose(page, "last.sempic", stream())
    page.evaluate("release()")
    page.wait_for_timeout(300)
    held[0].continue_()
    wait_until_idle(page)
    page.unroute("**/info")
    assert page.text_content("h1").startswith("last.sempic")
    assert downloaded(page, "#get-sempic") == stream()


def test_a_late_picture_of_the_file_before_is_dropped(visit):
    page = visit()
    opened(page, "before.sempic", stream())
    assert downloads(page, "#get-png")
    hold_next_picture(page)
    page.evaluate("void attempt(decode)")
    wait_until(page, "Boolean(window.release)")
    choose(page, "bare.sempic", sempic.pack(width=256, height=192, labels=LABELS))
    wait_until(page, "document.title.startsWith('bare')")
    page.evaluate("release()")
    wait_until_idle(page)
    assert page.is_disabled("#strip [data-view=decoded]")
    assert not downloads(page, "#get-png")  # that of the file before is gone


def test_a_file_that_the_browser_cannot_read_is_named(visit):
    page = visit()
    page.evaluate("""() => {
        const folder = new File([""], "folder")
        folder.slice = () => { throw new DOMException("it is no file", "NotReadableError") }
        return openFile(folder)
    }""")
    assert page.text_content("#toast span") == "folder: it is no file"


def test_waiting_for_the_server_is_shown_until_it_is_over(visit):
    page = visit()
    refused = []

    def busy_once(route):
        if refused:
            return route.continue_()
        refused.append(route)
        route.fulfill(status=429, headers={"Retry-After": "1"}, body="{}")

    page.evaluate("""() => {
        window.said = []
        new MutationObserver(() => said.push($("times").textContent))
            .observe($("times"), {childList: true})
    }""")
    page.route("**/compare?*", busy_once)
    opened(page, "photo.png", png())
    page.unroute("**/compare?*")
    said = page.evaluate("said")
    assert any("busy" in text for text in said)
    assert said[-1].startswith("On the server: ")


def test_the_page_recovers_from_a_server_that_did_not_answer(visit):
    page = visit()
    page.route("**/info", lambda route: route.abort())
    page.reload()
    wait_until_idle(page)
    page.unroute("**/info")
    assert page.text_content("#toast span") == "The server does not answer."
    assert page.is_disabled("#link")
    assert page.is_disabled("#edit")
    opened(page, "photo.png", png())
    assert page.text_content("h1").startswith("photo.png")
    assert page.is_hidden("#toast")


def test_an_error_is_shown_and_the_last_picture_stays(visit, url):
    page = visit()
    opened(page, "drawing.png", png())
    title, before = page.text_content("h1"), downloaded(page, "#get-sempic")
    empty = page.locator("#strip .shot:disabled b").all_text_contents()  # no AVIF is as small
    for name, data, error in (
        ("broken.sempic", stream()[:-1], None),
        ("large.sempic", stream_of(np.zeros((1024, 2048), np.uint8), None), "more than the limit"),
        ("broken.png", png()[:500], "damaged"),
        ("notes.txt", b"nonsense", "not a picture"),
        ("phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
    ):
        opened(page, name, data)
        assert page.is_visible("#toast")
        if error is None:
            with pytest.raises(sempic.SempicError) as refused:
                sempic.unpack(data)
            error = str(refused.value)
        assert page.text_content("#toast span").startswith(f"{name}: ")
        assert error in page.text_content("#toast span")
        assert page.text_content("h1") == title
        assert downloaded(page, "#get-sempic") == before
        assert page.locator("#strip .shot:disabled b").all_text_contents() == empty
        assert page.locator(".layer .frame:empty").count() == 0
    opened(page, "bare.sempic", sempic.pack(width=256, height=192, labels=LABELS))
    assert page.locator("#strip .shot:disabled b").all_text_contents()[:2] == ["Coarse", "Decoded"]
    opened(page, "good.png", png())  # and it goes on
    assert page.text_content("h1").startswith("good.png")


def test_a_part_that_is_missing_is_shown_on_neither_side(visit):
    page = visit()
    assert (page.input_value("#left"), page.input_value("#right")) == ("labels", "decoded")
    opened(page, "bare.sempic", stream_of(None, IMAGE))
    assert (page.input_value("#left"), page.input_value("#right")) == ("coarse", "decoded")
    assert "labels" not in page.locator("#left option").evaluate_all("all => all.map(o => o.value)")
    assert page.locator(".layer .frame:empty").count() == 0


def test_after_an_error_the_controls_say_what_is_shown(visit):
    page = visit()
    opened(page, "photo.png", png())

    def change(which, key, verb, body):
        page.route(f"**/{verb}?*", lambda route: route.fulfill(status=502, body=body))
        page.focus(which)
        page.keyboard.press(key)
        wait_until_idle(page)
        page.unroute(f"**/{verb}?*")
        assert "answered with status 502" in page.text_content("#toast span")

    change("#option-quality", "End", "encode", "<html>")
    assert page.input_value("#option-quality") == "5"
    change("#option-steps", "End", "decode", '{"detail": "of a proxy"}')
    assert page.input_value("#option-steps") == "1"
    page.focus("#option-quality")
    page.keyboard.press("End")
    wait_until_idle(page)
    assert page.input_value("#option-quality") == "9"
    before = downloaded(page, "#get-sempic")
    change("#option-quality", "Home", "encode", "null")
    assert page.input_value("#option-quality") == "9"
    assert downloaded(page, "#get-sempic") == before


def test_scaling_and_lost_transparency_are_shown(visit):
    page = visit()
    opened(page, "small.png", png())
    assert "256 × 192 pixels at" in page.text_content("#lead")
    large = PIL.Image.fromarray(IMAGE).resize((600, 450)).convert("RGBA")
    large.putalpha(99)
    out = io.BytesIO()
    large.save(out, "PNG")
    opened(page, "large.png", out.getvalue())
    lead = page.text_content("#lead")
    assert "512 × 384 pixels (scaled down from 600 × 450; see “Longest side”) at" in lead
    assert "large.png: transparency is laid over white" in page.text_content("#toast span")
    out = io.BytesIO()
    PIL.Image.fromarray(IMAGE).save(out, "TIFF")
    opened(page, "a.tif", out.getvalue())
    original = page.locator("#strip [data-view=original]")
    assert original.is_disabled()
    assert "which this browser cannot show" in original.text_content()
    assert page.is_hidden("#toast")  # of the picture before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone(visit, scheme):
    page = visit(viewport=PHONE, has_touch=True, is_mobile=True, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    rows = {round(page.locator(s).bounding_box()["y"]) for s in ("#scene", "#open")}
    assert len(rows) == 1  # the header takes one row
    small = page.locator("button:visible, select:visible, a.button:visible").evaluate_all(
        "all => all.filter(e => e.getBoundingClientRect().height < 30).map(e => e.outerHTML)"
    )
    assert small == []
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", paper))) > 380
    assert light == (scheme == "light")


def test_every_control_has_a_name(visit):
    page = visit()
    page.click("#edit")
    client = page.context.new_cdp_session(page)
    nodes = client.send("Accessibility.getFullAXTree")["nodes"]
    roles = {
        "button", "slider", "combobox", "textbox", "spinbutton", "radio", "link", "application",
    }  # fmt: skip
    controls = [n for n in nodes if n.get("role", {}).get("value") in roles and not n["ignored"]]
    assert len(controls) > 25
    nameless = [n for n in controls if not n.get("name", {}).get("value", "").strip()]
    assert not nameless, json.dumps(nameless)[:500]
