from sempic.evaluation import charts


def test_charts_draw_curves_points_ticks_and_bars():
    curve = charts.Curve(codec="sempic", title="<ours>", points=[(0.1, 0.5), (0.2, 0.55)])
    panel = charts.Panel(title="mIoU", better="up", curves=[curve], ceiling=0.6)
    svg = charts.figure([panel, panel, panel])
    assert svg.count("<polyline") == 3
    assert "originals 0.600" in svg
    assert "&lt;ours&gt;" in svg
    assert "<ours>" not in svg
    assert svg.count("<") == svg.count(">")
    one = charts.Curve(codec="jpeg", title="JPEG", points=[(0.1, 20.0)])
    assert "<circle" in charts.figure([charts.Panel(title="PSNR", better="up", curves=[one])])
    assert charts.ticks(0.35, 0.6) == [0.35, 0.4, 0.45, 0.5, 0.55, 0.6]
    assert "0.250" in charts.bars(["sky"], [("jpeg", "JPEG", [0.25])])
