import pytest

from sempic.evaluation.benchmark import Codec, Point
from sempic.evaluation.benchmark.results import bd_rates, matched


def test_matched_rates_and_bd_rates_follow_the_curves():
    def codec(scale):
        points = [(0.1, 20.0), (0.2, 24.0), (0.4, 27.0)]
        rows = [{"bpp": scale * r, "psnr": q, "lpips": 1 - q / 40} for r, q in points]
        timed = [Point(setting=i, row=row, encode_s=1, decode_s=1) for i, row in enumerate(rows)]
        return Codec(title="", peak_bytes=0, points=timed)

    found = {"a": codec(1.0), "b": codec(0.5)}
    table = {(r["bpp"], r["codec"]): r for r in matched(found, [0.1, 0.2])}
    assert table[0.1, "a"]["psnr"] == 20
    assert table[0.1, "b"]["psnr"] == pytest.approx(24)
    assert table[0.2, "b"]["lpips"] == pytest.approx(1 - 27 / 40)
    assert "fid" not in table[0.1, "a"]
    rates = bd_rates(found, "a")
    assert rates["psnr"] == {"b": pytest.approx(-50)}
    assert rates["lpips"] == {"b": pytest.approx(-50)}
