"""Answers to requests that fail."""

import logging
import socket
import time

import httpx2 as httpx
from fastapi.testclient import TestClient
from standin import LABELS, live, png, pool, refused, settings, stream

from sempic.server import app, routes


def test_unknown_paths_and_methods_are_refused(client):
    refused(client.get("/nothing"), 404, "HTTPError")
    refused(client.get("/decode"), 405, "HTTPError")
    refused(client.post("/encode/", content=stream()), 404, "HTTPError")  # no redirection
    gets = ("/", "/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css")
    for path, allowed in (
        ("/info", "GET, HEAD, POST"),
        ("/decode", "POST"),
        *((path, "GET, HEAD") for path in gets),
    ):
        assert client.options(path).headers.get_list("Allow") == [allowed]


def test_unknown_options_are_named(client):
    files = {"sempic": stream(), "labels": png(LABELS)}
    for path, body in (
        ("/decode", {"content": stream()}),
        ("/info", {"content": stream()}),
        ("/relabel", {"files": files}),
    ):
        assert client.post(path, **body).status_code == 200
        answer = client.post(path, params={"stepps": 3}, **body)
        refused(answer, 422, "InputError", "stepps: there is no such option")
    for path in ("/info", "/healthz", "/metrics"):
        answer = client.get(path, params={"stepps": 3})
        refused(answer, 422, "InputError", "stepps: there is no such option")
    assert client.get("/?ref=elsewhere").status_code == 200  # links to the page get such additions


def test_a_bug_in_the_server_is_answered_with_the_request_id(monkeypatch):
    monkeypatch.setattr(routes.api, "info", lambda data: 1 / 0)
    with TestClient(app.create_app(settings(), pool()), raise_server_exceptions=False) as client:
        refused(client.post("/info", content=stream()), 500, "InternalError", "an internal error")


def test_a_full_queue_gives_429_and_a_slow_body_408():
    quick = pool(queue=1)
    with TestClient(app.create_app(settings(), quick)) as client:
        quick.accepted = 2
        answer = client.post("/decode", content=stream())
        refused(answer, 429, "QueueFull", "2 requests")
        assert int(answer.headers["Retry-After"]) >= 1
        assert client.post("/info", content=stream()).status_code == 200  # needs no worker
        long = client.post("/info", content=stream() + bytes(routes.SHORT))
        refused(long, 429, "QueueFull")  # might take long
        quick.accepted = 0
        assert client.post("/decode", content=stream()).status_code == 200

        def trickle():
            yield b"x"
            time.sleep(1.5)
            yield b"y"

    with live(seconds=1.0) as url:
        refused(httpx.post(f"{url}/decode", content=trickle(), timeout=60), 408, "HTTPError", "1 s")


def test_a_server_without_a_living_worker_is_not_healthy(monkeypatch):
    workers = pool()
    with TestClient(app.create_app(settings(), workers)) as client:
        assert client.get("/healthz").status_code == 200
        monkeypatch.setattr(workers, "is_alive", lambda: False)
        answer = client.get("/healthz")
        refused(answer, 503, "Busy", "no worker is alive")
        assert answer.headers["Retry-After"] == "1"


def test_broken_off_bodies_give_499_without_an_error_in_the_log(caplog):
    head = "POST {} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    sized, chunked = "Content-Length: 1000\r\n\r\n--x", "Transfer-Encoding: chunked\r\n\r\nno\r\n"
    caplog.set_level(logging.INFO)
    paths = ("/encode", "/info", "/relabel")
    with live() as url:
        for path in paths:
            for body in (sized, chunked):
                with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
                    client.sendall((head.format(path) + body).encode())
        end = time.monotonic() + 60
        while (text := httpx.get(f"{url}/metrics", timeout=60).text).count('status="499"') < 3:
            assert time.monotonic() < end, text
            time.sleep(0.05)
    statuses = [r.fields["status"] for r in caplog.records if r.msg == "request"]
    assert statuses.count(499) == 2 * len(paths)
    assert 500 not in statuses
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


def test_failures_of_workers_are_answered_and_the_server_goes_on(monkeypatch):
    jobs = pool(seconds=1.0)
    with TestClient(app.create_app(settings(), jobs), raise_server_exceptions=False) as client:
        run = jobs.run
        for verb, arguments, status, error in (
            ("echo", (0, 9), 504, "TooSlow"),
            ("fail", (), 500, "InternalError"),
            ("die", (), 500, "InternalError"),
        ):
            jobs.seconds = 1.0 if verb == "echo" else 30

            def instead(_verb, *_, verb=verb, arguments=arguments, disconnected=None, **__):
                return run(verb, *arguments, disconnected=disconnected)

            monkeypatch.setattr(jobs, "run", instead)
            refused(client.post("/decode", content=stream()), status, error)
        jobs.seconds = 30
        monkeypatch.undo()
        assert client.post("/decode", content=stream()).status_code == 200
