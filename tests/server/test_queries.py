"""What may be asked for."""

import pytest
from fastapi.testclient import TestClient
from standin import png, pool, refused, settings, stream

from sempic.server import app, queries


@pytest.fixture(scope="module")
def client():
    with TestClient(app.create_app(settings(max_bytes=50_000), pool())) as client:
        yield client


def test_guidance_ends_where_it_stops_helping():
    assert queries.Decoding.model_json_schema()["properties"]["guidance"]["maximum"] == 2


def test_options_are_checked(client):
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
    refused(client.post("/encode", params={"quality": 0}, content=png()), 422, "InputError")
    refused(client.post("/encode", params={"target_bpp": "nan"}, content=png()), 422, "InputError")
