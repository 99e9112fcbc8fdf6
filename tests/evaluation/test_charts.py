from xml.etree import ElementTree

import pytest

from sempic.evaluation import charts, codecs


def test_charts_draw_curves_points_ticks_and_bars():
    curve = charts.Curve(codec="sempic", title="<ours>", points=[(0.1, 0.5), (0.2, 0.55)])
    panel = charts.Panel(title="mIoU", curves=[curve], ceiling=0.6)
    svg = charts.figure([panel, panel, panel])
    assert svg.count("<polyline") == 3
    assert "originals 0.600" in svg
    assert "&lt;ours&gt;" in svg
    assert "<ours>" not in svg
    assert svg.count("<") == svg.count(">")
    one = charts.Curve(codec="jpeg", title="JPEG", points=[(0.1, 20.0)])
    assert "<circle" in charts.figure([charts.Panel(title="PSNR", curves=[one])])
    assert charts.ticks(0.35, 0.6) == [0.35, 0.4, 0.45, 0.5, 0.55, 0.6]
    assert "0.250" in charts.bars(["sky"], [("jpeg", "JPEG", [0.25])])


@pytest.mark.parametrize(
    ("rates", "marked"),
    [
        ((0.09, 0.21), ["0.1", "0.15", "0.2"]),
        ((0.22, 0.27), ["0.22", "0.27"]),
        ((0.25, 0.25), ["0.25"]),
        ((7, 20), ["7", "20"]),
    ],
)
def test_the_axis_of_rates_has_numbers(rates, marked):
    curve = charts.Curve(codec="jpeg", title="JPEG", points=[(rate, 9 + rate) for rate in rates])
    svg = ElementTree.fromstring(charts.figure([charts.Panel(title="PSNR", curves=[curve])]))
    axis = [text for text in svg.iter() if text.attrib.get("y") == str(320 - 44 + 16)]
    assert [text.text for text in axis] == marked


@pytest.mark.parametrize("classes", [1, 11])
def test_the_legend_of_bars_is_inside_the_picture(classes):
    series = [("jpeg", f"a title of some length, {i}", [0.25] * classes) for i in range(8)]
    svg = ElementTree.fromstring(charts.bars(["c"] * classes, series))
    width, height = map(float, svg.attrib["viewBox"].split()[2:])
    texts = [text for text in svg.iter() if (text.text or "").startswith("a title of")]
    places = {(float(text.attrib["x"]), float(text.attrib["y"])) for text in texts}
    assert len(places) == 8
    assert all(x + 6.2 * len(texts[0].text) <= width and y < height for x, y in places)


def test_all_curves_look_different_without_colours():
    ours = [f"sempic{at}+{v}".strip("+") for at in ("", "@2", "@4", "@12") for v in codecs.VARIANTS]
    styles = [codecs.style(name) for name in (*ours, *codecs.COMPETITORS)]
    assert len({(style.dashes, style.marker) for style in styles}) == len(styles)
    assert {*charts.MARKERS} <= {style.marker for style in styles}
    assert codecs.style("originals").colour not in {style.colour for style in styles}
    curves = [charts.Curve(codec=n, title=n, points=[(0.1, 0.5)]) for n in codecs.COMPETITORS]
    svg = charts.figure([charts.Panel(title="mIoU", curves=curves)])
    assert svg.count("<polygon") == 2 * (len(curves) - 1)  # with the legend; all but JPEG
    assert 'stroke="none">4n<' in charts.bars(["sky"], [("sempic@4+none", "ours", [0.25])])
