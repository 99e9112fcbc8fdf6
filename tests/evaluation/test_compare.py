import json
import os
import shutil
import warnings

import numpy as np
import PIL.Image
import pytest
from conftest import FakeSegmenter, street
from priors import write_prior

import sempic
from sempic import cli, coarse, pictures, segment
from sempic.evaluation import weights
from sempic.palette import CAMVID, CITYSCAPES, CITYSCAPES_FULL


@pytest.fixture
def versions(place, monkeypatch):
    """A folder with an original, its label map and three versions of the picture."""
    monkeypatch.setattr(segment, "load", lambda spec, **_: FakeSegmenter())
    picture, labels = street(48, 64)
    PIL.Image.fromarray(picture).save("original.png")
    PIL.Image.fromarray(labels).save("labels.png")
    PIL.Image.fromarray(picture).save("a.webp", quality=50)
    PIL.Image.fromarray(255 - picture).save("<b>.png")
    (place / "c.sempic").write_bytes(sempic.encode(picture, labels=labels))
    return place


def compare(*words, metrics="psnr"):
    return cli.main(["compare", "original.png", *words, "--metrics", metrics])


def test_figures_and_page_have_every_version(versions, capsys):
    small = street(48, 64)[0]
    (versions / "d.bpg").write_bytes(coarse.bpg.encode(coarse.from_rgb(small)))
    names = ["a.webp", "<b>.png", "c.sempic", "d.bpg"]
    words = [*names, "--labels", "labels.png"]
    assert compare(*words, "--json", metrics="psnr,miou") == 0
    found = {line["path"]: line for line in json.loads(capsys.readouterr().out)}
    assert list(found) == names
    size = (versions / "a.webp").stat().st_size
    assert found["a.webp"]["bpp"] == pytest.approx(8 * size / (48 * 64))
    assert found["<b>.png"]["bytes"] is None
    assert found["d.bpg"]["psnr"] > found["<b>.png"]["psnr"]
    assert 0 <= found["c.sempic"]["miou"] <= 1
    page = (versions / "compare.html").read_text()
    assert page.count("<option") == 10
    assert page.count("data:image/webp;base64,") == 5
    assert "&lt;b&gt;.png" in page
    assert "<b>.png" not in page
    assert "<th>mIoU ↑</th>" in page
    assert page.count("<select aria-label=") == 2
    assert compare(*words, metrics="psnr,miou") == 0
    assert f"{found['a.webp']['psnr']:.2f}" in capsys.readouterr().out


def test_the_page_works_without_a_mouse_and_in_print(versions):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("no chromium on this machine")
    assert compare("a.webp", "c.sempic", metrics="psnr,lpips_vgg,ms_ssim") == 0
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 300, "height": 900})
        faults = []
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.goto((versions / "compare.html").as_uri())
        tab.get_by_label("right", exact=True).select_option("c.sempic")
        slider = tab.get_by_role("slider")
        slider.press("ArrowRight")
        assert slider.get_attribute("aria-valuenow") == "52"
        slider.press("+")
        assert slider.evaluate("stage => stage.style.getPropertyValue('--zoom')") == "1.25"
        cut = "Math.max(...[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth))"
        assert tab.evaluate(cut) > 300
        tab.emulate_media(media="print")
        assert tab.evaluate(cut) <= 300
        assert not faults
        browser.close()


def test_metrics_of_several_pictures_and_of_human_maps_are_reported(versions, monkeypatch, capsys):
    monkeypatch.setattr(weights, "inception", lambda path: path)
    noted = "sempic: no fid: it needs several pictures\nsempic: no confirmed: it needs human maps\n"
    assert compare("a.webp", metrics="psnr,kid,confirmed") == 0
    assert capsys.readouterr().err == noted
    assert compare("a.webp", metrics="kid,confirmed") == 2
    assert capsys.readouterr().err == noted + "sempic: no metric is left that can be measured\n"


def test_a_label_map_that_does_not_fit_is_named(versions, capsys):
    PIL.Image.new("L", (9, 9)).save("small.png")
    PIL.Image.new("L", (64, 48), 200).save("high.png")
    for name in ("small.png", "high.png"):
        assert compare("a.webp", "--labels", name, metrics="miou") == 2
        assert capsys.readouterr().err.startswith(f"sempic: {name}: ")


def test_label_maps_of_colours_are_recognised(versions, monkeypatch, capsys):
    labels = np.array(PIL.Image.open("labels.png"))
    PIL.Image.fromarray(CAMVID.paint(labels)).save("rgb.png")
    PIL.Image.fromarray(CITYSCAPES.paint(labels)).save("of others.png")
    (versions / "other ids.png").write_bytes(pictures.encode_labels(labels, CITYSCAPES, ".png"))

    def miou(name):
        assert compare("a.webp", "--labels", name, "--json", metrics="miou") == 0
        return json.loads(capsys.readouterr().out)[0]["miou"]

    assert miou("rgb.png") == miou("labels.png")
    for name in ("of others.png", "other ids.png"):
        assert compare("a.webp", "--labels", name, metrics="miou") == 2
        assert capsys.readouterr().err == (
            f"sempic: {name}: it has the colours of palette cityscapes, and the judge knows "
            "camvid; name another --judge\n"
        )
        assert compare("a.webp", "--labels", name) == 0
    capsys.readouterr()
    judge = FakeSegmenter()
    judge.palette = CITYSCAPES.id
    monkeypatch.setattr(segment, "load", lambda spec, **_: judge)
    assert miou("of others.png") == miou("other ids.png") == miou("labels.png")
    names = [CITYSCAPES_FULL.classes.index(name) for name in CITYSCAPES.classes[:12]]
    full = np.array(names, np.uint8)[labels]
    PIL.Image.fromarray(CITYSCAPES_FULL.paint(full)).convert("RGBA").save("full.png")
    assert miou("full.png") == miou("labels.png")
    full[labels == 3] = CITYSCAPES_FULL.classes.index("parking")  # no train id: void
    PIL.Image.fromarray(CITYSCAPES_FULL.paint(full)).save("full.png")
    labels[labels == 3] = 19
    PIL.Image.fromarray(labels).save("void.png")
    assert miou("full.png") == miou("void.png")


def test_a_map_that_is_all_void_is_said_to_give_no_miou(versions, capsys):
    PIL.Image.new("L", (64, 48), 255).save("void.png")
    assert compare("a.webp", "--labels", "void.png", metrics="miou,psnr") == 0
    assert capsys.readouterr().err == "sempic: no mIoU: the human maps are all void\n"


def test_a_figure_that_no_version_has_is_said_to_be_missing(versions, capsys):
    assert compare("original.png", metrics="psnr,ms_ssim") == 0
    why = "samples are the same as their originals, or too small for it"
    assert capsys.readouterr().err == f"sempic: no MS-SSIM: {why}\n"
    assert compare("original.png", "a.webp", metrics="psnr") == 0
    assert capsys.readouterr().err == ""


def test_an_infinite_psnr_is_shown_as_such(versions, capsys):
    assert compare("original.png", "a.webp") == 0
    first, other = capsys.readouterr().out.splitlines()[1:]
    assert first.split() == ["original.png", "–", "∞"]
    assert "∞" not in other
    page = (versions / "compare.html").read_text()
    assert "<td><b>∞</b></td>" in page
    assert compare("original.png", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["psnr"] == "inf"


def test_versions_of_one_name_are_told_apart(versions, capsys):
    (versions / "of another").mkdir()
    (versions / "of another/a.webp").write_bytes((versions / "a.webp").read_bytes())
    assert compare("a.webp", "of another/a.webp", "original.png") == 0
    page = (versions / "compare.html").read_text()
    assert page.count("<td>a.webp</td>") == page.count("<td>of another/a.webp</td>") == 1
    assert page.count(">original.png</option>") == 4
    assert page.count("data:image/webp;base64,") == 4


def test_names_that_are_not_utf8_are_escaped(versions, capsys):
    (versions / "<b>.png").rename("caf\udce9.png")
    assert compare("caf\udce9.png", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["path"] == r"caf\udce9.png"
    assert r"caf\udce9.png" in (versions / "compare.html").read_text()


def test_a_name_of_two_lines_stays_in_its_row(versions, capsys):
    (versions / "a.webp").rename("two\nlines.webp")
    assert compare("two\nlines.webp") == 0
    assert r"two\nlines.webp  " in capsys.readouterr().out


def test_a_page_that_cannot_be_written_is_refused_before_the_work(versions, monkeypatch, capsys):
    assert compare("a.webp", "-o", "new/page.html") == 0
    monkeypatch.setattr("sempic.evaluation.compare.compare", None)
    assert compare("a.webp", "-o", "a.webp/page.html") == 2
    assert "a.webp/page.html: cannot write: Not a directory" in capsys.readouterr().err
    assert compare("a.webp", "-o", "page.png") == 2
    assert "page.png: a .html file under the name of a .png file" in capsys.readouterr().err


def test_streams_are_decoded_in_as_many_steps_as_wanted(versions, capsys):
    found = []
    for steps in ("1", "90"):
        assert compare("c.sempic", "--steps", steps, "--json") == 0
        found.append(json.loads(capsys.readouterr().out)[0]["psnr"])
    assert found[0] != found[1]


def test_a_stream_of_a_prior_needs_this_prior(versions, capsys):
    picture, labels = street(48, 64)
    prior = write_prior(versions / "mine.npz", sempic.PALETTES[1], labels)
    stream = sempic.Codec(prior=prior).encode(picture, labels=labels)
    (versions / "c.sempic").write_bytes(stream)
    assert compare("c.sempic", "--prior", "mine.npz") == 0
    assert compare("c.sempic") == 2
    assert "c.sempic: the label map needs a prior" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["original.png", "a.webp", "labels.png", "link"])
def test_the_page_replaces_no_input(versions, capsys, name):
    (versions / "link").symlink_to("a.webp")
    before = (versions / name).read_bytes()
    assert compare("a.webp", "--labels", "labels.png", "-o", name) == 2
    assert "would be replaced" in capsys.readouterr().err
    assert (versions / name).read_bytes() == before


def test_a_warning_is_printed_in_one_line(versions, capsys):
    PIL.Image.new("RGBA", (64, 48)).save("clear.png")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert compare("clear.png") == 0
    note = "sempic: transparency is laid over white; a .sempic file has none\n"
    assert capsys.readouterr().err == note


def test_a_file_that_does_not_fit_is_named(versions, capsys):
    PIL.Image.new("RGB", (9, 9)).save("small.png")
    assert compare("small.png") == 2
    assert "small.png: a picture of 9×9 against one of 64×48" in capsys.readouterr().err
    (versions / "c.sempic").write_bytes(b"nothing")
    assert compare("c.sempic") == 2
    assert "c.sempic" in capsys.readouterr().err
    assert not (versions / "compare.html").exists()


def test_a_page_that_cannot_be_written_is_named(versions, capsys):
    (versions / "page").mkdir()
    assert compare("a.webp", "-o", "page") == 2
    assert capsys.readouterr().err == "sempic: page: cannot write: Is a directory\n"
