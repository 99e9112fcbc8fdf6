"""Requests within and outside the OpenAPI description, and damaged bodies: never a 5xx."""

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from standin import LABELS, clip, live, png, stream

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
import httpx2 as httpx  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    response_schema_conformance,
    status_code_conformance,
)

from sempic.server.app import create_app  # noqa: E402

GENTLE = hypothesis_settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def url():
    with live() as url:
        yield url


SCHEMA = schemathesis.openapi.from_dict(create_app().openapi())
OPERATIONS = {o.label: o for o in (result.ok() for result in SCHEMA.get_all_operations())}
CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]


def test_every_endpoint_is_described():
    gets = "healthz", "metrics", "info"
    posts = "info", "encode", "film", "decode", "relabel", "compare", "objects"
    assert set(OPERATIONS) == {
        *(f"GET /{path}" for path in gets), *(f"POST /{path}" for path in posts)
    }  # fmt: skip


def test_only_statuses_that_can_occur_are_described():
    described = {label: set(o.definition.raw["responses"]) for label, o in OPERATIONS.items()}
    of_workers = {"200", "408", "413", "415", "422", "429", "500", "503", "504"}
    assert described == {
        **{key: {"200", "422"} for key in ("GET /metrics", "GET /info")},
        "GET /healthz": {"200", "422", "503"},
        **{f"POST /{path}": of_workers for path in ("encode", "film", "decode", "info", "compare")},
        **{f"POST /{path}": of_workers | {"400"} for path in ("relabel", "objects")},
    }


def test_the_headers_of_answers_are_described():
    described = {
        (label, status, header)
        for label, operation in OPERATIONS.items()
        for status, answer in operation.definition.raw["responses"].items()
        for header in answer.get("headers", ())
    }
    coders = [f"POST /{path}" for path in ("encode", "film", "decode", "relabel", "compare")]
    others = "POST /info", "POST /objects"
    assert described == {
        *((label, "200", header) for label in coders for header in ("Server-Timing", "X-Notes")),
        *((label, s, "Retry-After") for label in (*coders, *others) for s in ("429", "503")),
        ("GET /healthz", "503", "Retry-After"),
        ("POST /encode", "200", "X-Receipt"),
        ("POST /compare", "200", "X-Scaled-Down"),
    }


@pytest.mark.parametrize(
    ("path", "query", "body"),
    [
        *(("/encode", query, png()) for query in ({}, {"target_bytes": 9000}, {"labels": "none"})),
        *(("/film", query, clip()) for query in ({}, {"bitrate": "16k"})),
        *(("/decode", query, stream()) for query in ({}, {"only": "ids"}, {"only": "coarse"})),
        ("/compare", {"bytes": 900}, png()),
    ],
)
def test_defaults_may_be_sent(url, path, query, body):
    """A client that is generated from the description sends all of them."""
    parameters = SCHEMA.raw_schema["paths"][path]["post"]["parameters"]
    schemas = {p["name"]: p["schema"] for p in parameters}
    defaults = {name: s["default"] for name, s in schemas.items() if s.get("default") is not None}
    assert defaults
    answer = httpx.post(url + path, params=defaults | query, content=body, timeout=60)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("operation", OPERATIONS)
def test_described_requests_get_described_answers(url, operation):
    ask(url, operation, schemathesis.GenerationMode.POSITIVE)


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if OPERATIONS[o].query])
def test_undescribed_requests_are_refused_as_described(url, operation):
    ask(url, operation, schemathesis.GenerationMode.NEGATIVE)


def ask(url, operation, mode):
    @GENTLE
    @given(case=OPERATIONS[operation].as_strategy(generation_mode=mode))
    def run(case):
        case.call_and_validate(base_url=url, checks=CHECKS)

    run()


@GENTLE
@given(
    path=st.sampled_from(["/encode", "/decode", "/info", "/compare?bytes=600", "/decode?only=ids"]),
    whole=st.sampled_from([stream(), png()]),
    cuts=st.lists(st.tuples(st.integers(0, 4000), st.binary(max_size=6)), max_size=3),
)
def test_damaged_bodies_are_answered_or_refused(url, path, whole, cuts):
    body = bytearray(whole)
    for at, data in cuts:
        at %= len(body)
        body[at : at + len(data)] = data
    answer = httpx.post(url + path, content=bytes(body), timeout=60)
    assert answer.status_code in (200, 413, 422), answer.text


@GENTLE
@given(labels=st.binary(max_size=200) | st.just(png(LABELS)), junk=st.binary(max_size=60))
def test_damaged_parts_of_forms_are_answered_or_refused(url, labels, junk):
    files = {"sempic": stream(), "labels": labels + junk}
    answer = httpx.post(f"{url}/relabel", files=files, timeout=60)
    assert answer.status_code in (200, 422), answer.text
    files = {"sempic": stream(), "original": labels + junk}
    answer = httpx.post(f"{url}/objects", files=files, timeout=60)
    assert answer.status_code in (200, 422), answer.text
