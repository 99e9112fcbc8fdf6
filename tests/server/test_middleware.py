"""Limits, request ids, logs and metrics of every request."""

import contextlib
import gzip
import http.client
import io
import json
import logging
import re
import select
import socket
import time

import httpx2 as httpx
import numpy as np
import PIL.Image
from standin import live, png, refused, stream

import sempic
from sempic.server import app, middleware


def test_head_answers_as_get_without_the_body(client):
    for path in ("/", "/healthz", "/info", "/scenes/street.sempic"):
        head, get = client.head(path), client.get(path)
        assert head.status_code == get.status_code == 200
        assert head.headers["Content-Length"] == get.headers["Content-Length"]
        assert (head.content, len(get.content) > 0) == (b"", True)
    assert client.head("/encode").status_code == 405
    assert client.head("/none").status_code == 404


def test_large_bodies_and_pictures_are_refused(client):
    refused(client.post("/encode", content=bytes(50_001)), 413, "LimitExceeded", "50000 bytes")
    chunks = (bytes(10_000) for _ in range(6))  # of no announced length
    refused(client.post("/decode", content=chunks), 413, "LimitExceeded", "50000 bytes")
    files = {"sempic": bytes(40_000), "labels": bytes(40_000)}
    refused(client.post("/relabel", files=files), 413, "LimitExceeded")
    wide = png(np.zeros((300, 300, 3), np.uint8))
    refused(client.post("/encode", content=wide), 413, "LimitExceeded", "max_side takes larger")
    assert client.post("/encode", params={"max_side": 64}, content=wide).status_code == 200
    big = sempic.pack(width=300, height=300, labels=np.zeros((300, 300), np.uint8))
    refused(client.post("/decode", content=big), 413, "LimitExceeded", "300×300")
    out = io.BytesIO()
    PIL.Image.new("1", (8192, 8193)).save(out, "PNG")  # more pixels than any stream has
    for path in ("/encode", "/encode?max_side=64", "/compare?bytes=99"):
        answer = client.post(path, content=out.getvalue())
        refused(answer, 413, "SizeError", "8192×8193", "which max_side does not lift")
    files = {"sempic": stream(), "labels": out.getvalue()}
    refused(client.post("/relabel", files=files), 413, "SizeError", "8192×8193")


def test_compressed_bodies_are_refused(client):
    squeezed = {"Content-Encoding": "gzip"}
    refused(
        client.post("/encode", content=gzip.compress(png()), headers=squeezed),
        415,
        "HTTPError",
        "gzip",
    )
    assert client.get("/healthz", headers=squeezed).status_code == 200  # has no body


def test_an_answer_before_the_end_of_the_body_arrives_although_the_client_sends_on():
    """The client sends all of its body before it reads."""
    body = bytes(4_000_000)
    sized = f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    cases = [
        ("POST /encode", sized, "413"),
        ("POST /decode", chunked, "413"),
        ("POST /encode?qualty=5", sized, "422"),
        ("POST /nothing", chunked, "404"),
        ("HEAD /healthz", sized, "200"),
    ]
    with live(max_bytes=50_000) as url:
        address = "127.0.0.1", int(url.rpartition(":")[2])
        for request, rest, status in cases:
            with socket.create_connection(address, timeout=60) as client:
                client.sendall(f"{request} HTTP/1.1\r\nHost: x\r\n".encode() + rest)
                time.sleep(0.1)
                with client.makefile("rb") as answer:
                    head, _, content = answer.read().partition(b"\r\n\r\n")
            assert head.startswith(f"HTTP/1.1 {status}".encode())
            assert b"\r\nconnection: close" in head
            assert b"100 Continue" not in head
            assert content.count(b'"request"') == (not request.startswith("HEAD"))


def test_an_endless_body_is_read_for_a_limited_time_after_the_answer(monkeypatch):
    monkeypatch.setattr(middleware, "LINGER", 0.5)
    with live() as url:
        address = "127.0.0.1", int(url.rpartition(":")[2])
        with socket.create_connection(address, timeout=60) as client:
            client.sendall(
                b"POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 404")
            ended = False
            for _ in range(100):
                try:
                    client.sendall(b"1\r\nx\r\n")
                except OSError:
                    ended = True
                    break
                time.sleep(0.1)
            assert ended


def test_the_bodies_of_all_requests_together_are_limited():
    """Places in the queue are taken after a body has arrived, so many bodies can arrive at once."""
    head = b"POST /decode HTTP/1.1\r\nHost: x\r\nContent-Length: 40000\r\n\r\n"
    with live(max_bytes=50_000) as url, contextlib.ExitStack() as stack:
        address = "127.0.0.1", int(url.rpartition(":")[2])
        slow = [stack.enter_context(socket.create_connection(address)) for _ in range(42)]
        for client in slow:
            client.sendall(head + bytes(39_999))
        (late,) = select.select(slow, [], [], 60)[0]  # 41 bodies fit
        answer = http.client.HTTPResponse(late)
        answer.begin()
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        problem = json.loads(answer.read())
        assert problem["error"] == "QueueFull"
        assert "larger bodies wait" in problem["message"]
        for client in slow:
            client.close()
        end = time.monotonic() + 60
        while (post := httpx.post(f"{url}/info", timeout=60, content=stream())).status_code == 429:
            assert time.monotonic() < end
        assert post.status_code == 200


def test_a_connection_is_kept_after_a_refusal_of_a_whole_body(client):
    long = iter([bytes(50_001)])  # of no announced length: refused at its end
    for path, content in (
        ("/decode", b"x"),
        ("/encode?qualty=5", b""),
        ("/nothing", b""),
        ("/decode", long),
    ):
        assert "connection" not in client.post(path, content=content).headers


def test_the_request_id_is_in_the_answer_and_in_the_log(client, caplog):
    caplog.set_level(logging.INFO, "sempic.server")
    given = client.post("/info", content=stream(), headers={"X-Request-ID": "abc-1"})
    assert given.headers["X-Request-ID"] == "abc-1"
    made = client.get("/healthz", headers={"X-Request-ID": 'x"{}'})
    assert re.fullmatch(r"[0-9a-f]{16}", made.headers["X-Request-ID"])
    lines = [json.loads(app.JsonLines().format(r)) for r in caplog.records if r.msg == "request"]
    assert lines[0] | {"time": "", "seconds": 0} == {
        "time": "", "level": "info", "message": "request", "id": "abc-1", "method": "POST",
        "path": "/info", "status": 200, "seconds": 0, "bytes_in": len(stream()),
        "bytes_out": int(given.headers["Content-Length"]), "client": "testclient",
    }  # fmt: skip
    assert lines[1]["id"] == made.headers["X-Request-ID"]


def test_a_long_path_does_not_fill_the_log(client, caplog):
    caplog.set_level(logging.INFO, "sempic.server")
    assert client.request("A" * 5000, f"/{'b' * 50_000}").status_code == 404
    (record,) = (r for r in caplog.records if r.msg == "request")
    assert len(app.JsonLines().format(record)) < 700


def test_metrics_count_requests_by_route_and_status(client):
    client.post("/decode", content=stream())
    client.post("/decode", content=b"")
    text = client.get("/metrics").text
    for status in (200, 422):
        labels = rf'method="POST",route="/decode",status="{status}"'
        assert re.search(rf"sempic_requests_total\{{{labels}\}} \d", text)
    assert 'sempic_work_seconds_count{verb="decode"}' in text
    assert "sempic_jobs_running 0.0" in text
    for i in range(3):  # unknown paths and methods make no new time series
        client.get(f"/invented/{i}")
        client.get(f"/scenes/{i}")
        client.request(f"INVENTED{i}", "/info")
    text = client.get("/metrics").text
    assert "invented" not in text.lower()
    assert 'method="other",route="/info",status="405"' in text
    assert 'route="/scenes/{name}"' in client.get("/metrics").text
