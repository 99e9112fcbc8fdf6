"""Ranges and names of the query parameters."""

from standin import png, refused, stream

import sempic
from sempic.server import queries


def test_guidance_ends_where_it_stops_helping():
    assert queries.Decoding.model_json_schema()["properties"]["guidance"]["maximum"] == 2


def test_wrong_query_parameters_are_named(client):
    for query, part in (
        ({"steps": 0}, "steps: "),
        ({"steps": 1000}, "steps: "),
        ({"seed": -1}, "seed: "),
        ({"only": "all"}, "only: "),
        ({"format": "exe"}, "format: "),
        ({"step": 1}, "step: "),
        ({"guidance": 9}, "guidance: "),
        ({"fidelity": 0.5}, "no fidelity"),  # this receiver lacks it
    ):
        answer = client.post("/decode", params=query, content=stream())
        refused(answer, 422, "InputError", part)
    for query, message in (
        ({"quality": 0}, "quality: "),
        ({"label_quality": 9}, "label_quality: Input should be less than or equal to 5, or Input"),
        ({"label_quality": 9}, "should be 'lossless'"),
        ({"keep": "ghost"}, "keep: class 'ghost' is not one of palette camvid: sky, "),
        ({"imagine": "ghost"}, "imagine: class 'ghost' is not one of palette camvid: sky, "),
        ({"importance": "ghost=2"}, "importance: class 'ghost' is not one of palette camvid: "),
        ({"importance": "car:2"}, "importance: 'car:2' is not NAME=NUMBER"),
        ({"check_budget": 0.1}, "check_budget needs check, which is off"),
        ({"window_qp": 30}, "window_qp needs windows, by keep, keep_boxes or check"),
    ):
        refused(client.post("/encode", params=query, content=png()), 422, "InputError", message)
    refused(client.post("/encode", params={"target_bpp": "nan"}, content=png()), 422, "InputError")


def test_every_palette_that_is_offered_is_taken(client):
    offered = queries.Encoding.model_json_schema()["properties"]["palette"]["anyOf"][0]["enum"]
    assert offered == ["camvid", "cityscapes"]
    for name in offered:
        stream = client.post("/encode", params={"palette": name}, content=png()).content
        assert sempic.info(stream)["palette"] == name
    for name in ("indices", "cityscapes-full", "own.json"):
        answer = client.post("/encode", params={"palette": name}, content=png())
        refused(answer, 422, "InputError", "palette: Input should be 'camvid' or 'cityscapes'")


def test_contradictions_are_refused_as_on_the_command_line(client):
    both = "exclude each other"
    for path, query, body, part in (
        ("/encode", "quality=6&target_bpp=3", png(), f"quality and target_bpp {both}"),
        ("/encode", "target_bytes=900&quality=6", png(), f"quality and target_bytes {both}"),
        ("/film", "quality=6&bitrate=16k", b"", f"quality and bitrate {both}"),
        ("/decode", "only=labels&steps=2", stream(), "steps: for the receiver, which only=labels"),
        ("/decode", "only=ids&format=webp", stream(), "format: ids are a png, not webp"),
    ):
        refused(client.post(f"{path}?{query}", content=body), 422, "InputError", part)


def test_descriptions_name_no_flag_of_the_command_line():
    for kind in (queries.Encoding, queries.Decoding, queries.Filming, queries.Comparison):
        assert "--" not in str(kind.model_json_schema())


def test_an_option_given_twice_is_refused_unless_it_is_a_list(client):
    twice = client.post("/decode?steps=1&steps=2", content=stream())
    refused(twice, 422, "InputError", "steps: given 2 times")
    lists = "keep=car&keep=tree&importance=car=2&importance=tree=3&imagine=sky&imagine=road"
    assert client.post(f"/encode?{lists}", content=png()).status_code == 200
    files = [(name, png()) for name in ("sempic", "labels", "labels")]
    refused(client.post("/relabel", files=files), 422, "InputError", "one sempic and one labels")
