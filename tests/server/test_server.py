"""The HTTP interface: every endpoint, every limit, every refusal."""

import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2 as httpx
import numpy as np
import PIL.Image
import pytest
from conftest import ROOT
from fakecoder import FakeCoder
from fastapi.testclient import TestClient
from standin import LABELS, clip, live, pixels, png, pool, settings, stream

import sempic
from sempic import api, cli, pictures, sequence
from sempic.errors import LimitExceeded, install_hint
from sempic.palette import CAMVID
from sempic.server import app


@pytest.fixture(scope="module")
def client():
    with TestClient(app.create_app(settings(max_bytes=50_000), pool())) as client:
        yield client


def refused(answer, status, error, *parts):
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert problem["error"] == error
    assert problem["request"] == answer.headers["X-Request-ID"]
    for part in parts:
        assert part in problem["message"]
    return problem


def test_encode_info_decode(client):
    answer = client.post("/encode", params={"quality": 3}, content=png())
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "image/x-sempic"
    assert re.fullmatch(r"queue;dur=[\d.]+, work;dur=[\d.]+", answer.headers["Server-Timing"])
    assert "X-Notes" not in answer.headers
    assert (answer.content, []) == FakeCoder().encode(png(), quality=3, max_side=None)
    assert client.post("/info", content=answer.content).json() == sempic.info(answer.content)
    for format in ("png", "webp", "jpeg"):
        query = {"steps": 3, "seed": 7, "format": format}
        decoded = client.post("/decode", params=query, content=answer.content)
        assert decoded.headers["Content-Type"] == f"image/{format}"
        assert pixels(decoded.content).shape == (48, 64, 3)
    plain = client.post("/decode", params={"steps": 3, "seed": 7}, content=answer.content)
    assert pixels(plain.content)[0, 0].tolist() == [0, 3, 7]


def test_a_checked_answer_has_its_receipt_in_a_header(client):
    answer = client.post("/encode", params={"check": True}, content=png())
    receipt = json.loads(answer.headers["X-Receipt"])
    assert receipt == sempic.info(answer.content)["receipt"]
    assert receipt["verifier"] == "0badcafe"
    assert "X-Receipt" not in client.post("/encode", content=png()).headers


def test_a_table_of_groups_comes_as_json(client, tmp_path):
    """And never as a path."""
    table = {"who walks": ["pedestrian"], "wheels": {"classes": ["car"], "pixels": 9}}
    query = {"check": True, "critical": json.dumps(table)}
    answer = client.post("/encode", params=query, content=png())
    assert answer.status_code == 200, answer.text
    assert list(json.loads(answer.headers["X-Receipt"])["groups"]) == list(table)
    path = tmp_path / "table.json"
    path.write_text(json.dumps(table))
    for wrong in (str(path), json.dumps(str(path)), "[]", '{"a": ["ghost"]}', '{"a": 5}'):
        answer = client.post("/encode", params=query | {"critical": wrong}, content=png())
        refused(answer, 422, "InputError")
        assert "critical: " in answer.json()["message"]


def test_encode_options(client):
    small = client.post("/encode", params={"max_side": 32}, content=png()).content
    assert (sempic.info(small)["width"], sempic.info(small)["height"]) == (32, 24)
    within = client.post("/encode", params={"target_bpp": 3}, content=png()).content
    assert sempic.info(within)["bpp"] <= 3
    refused(client.post("/encode", params={"target_bpp": 1e-3}, content=png()), 422, "RateError")
    jxl = client.post("/encode", params={"coarse_codec": "webp"}, content=png()).content
    assert sempic.info(jxl)["coarse_codec"] == "webp"


def test_what_a_picture_loses_is_said(client):
    rgba = np.dstack([np.zeros((32, 32, 3), np.uint8), np.full((32, 32), 9, np.uint8)])
    answer = client.post("/encode", params={"target_bpp": 900}, content=png(rgba))
    assert answer.status_code == 200
    first, second = answer.headers["X-Notes"].split("; quality")
    assert first == "transparency is laid over white; a .sempic file has none"
    assert second.startswith(" 9, the finest, takes")


def test_head(client):
    """What a monitor asks: as GET, without the body."""
    for path in ("/", "/healthz", "/info", "/scenes/street.sempic"):
        head, get = client.head(path), client.get(path)
        assert head.status_code == get.status_code == 200
        assert head.headers["Content-Length"] == get.headers["Content-Length"]
        assert (head.content, len(get.content) > 0) == (b"", True)
    assert client.head("/encode").status_code == 405
    assert client.head("/none").status_code == 404


def test_guidance_ends_where_it_stops_helping():
    assert app.Synthesis.model_json_schema()["properties"]["guidance"]["maximum"] == 2


def test_decode_parts(client):
    def part(only):
        return pixels(client.post("/decode", params={"only": only}, content=stream()).content)

    assert np.array_equal(part("ids"), LABELS)
    assert np.array_equal(part("labels"), LABELS)  # a palette picture: indices
    assert np.array_equal(part("coarse"), api.preview(sempic.unpack(stream())))
    bare = stream(labels=None)
    for only in ("labels", "ids"):
        answer = client.post("/decode", params={"only": only}, content=bare)
        refused(answer, 422, "BitstreamError", "no label map")


def test_a_clip_and_its_sequence(client):
    answer = client.post("/film", params={"fps": 5, "seconds": 0.8, "quality": 3}, content=clip())
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/x-sempic")
    told = client.post("/info", content=answer.content).json()
    assert told == sequence.info(answer.content)
    assert (told["frames"], told["rate"], told["width"], told["height"]) == (4, 5, 64, 48)
    small = client.post("/film", params={"max_side": 32}, content=clip()).content
    assert (sequence.info(small)["width"], sequence.info(small)["frames"]) == (32, 10)

    query = {"format": "webp", "steps": 3, "seed": 7}
    decoded = client.post("/decode", params=query, content=answer.content)
    shown = PIL.Image.open(io.BytesIO(decoded.content))
    assert (shown.format, shown.size, shown.n_frames) == ("WEBP", (64, 48), 4)
    labels = client.post("/decode", params={"only": "labels"}, content=answer.content)
    shown = PIL.Image.open(io.BytesIO(labels.content))
    assert shown.format == "PNG"
    lasting = [shown.seek(i) or shown.info["duration"] for i in range(shown.n_frames)]
    assert sum(lasting) == 800  # frames that are equal are one
    assert shown.convert("RGB").getpixel((5, 5)) == CAMVID.colours[0]  # sky above

    for only, format in (("ids", "png"), (None, "jpeg")):
        query = {"format": format} | ({"only": only} if only else {})
        answer_ = client.post("/decode", params=query, content=answer.content)
        refused(answer_, 422, "InputError", "decoded to png or webp")
    broken = client.post("/decode", content=answer.content[:40])
    refused(broken, 422, "CorruptStream", "no frame that can be decoded")


def test_clips_are_limited(client):
    for junk in (png(), b"#EXTM3U\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile x.mp4\n"):
        refused(client.post("/film", content=junk), 422, "InputError", "the clip: not a video")
    refused(client.post("/film", content=clip()[:200]), 422, "InputError", "the clip")
    large = clip(264, 256, 2)
    refused(client.post("/film", content=large), 413, "LimitExceeded", "264×256")
    shrunk = client.post("/film", params={"max_side": 66, "seconds": 0.2}, content=large)
    assert sequence.info(shrunk.content)["width"] == 66
    coder = FakeCoder(max_pixels=64 * 48)
    assert coder.film(clip(), fps=16, seconds=1)  # sixteen frames
    with pytest.raises(LimitExceeded, match="fewer seconds"):
        coder.film(clip(), fps=20, seconds=1)


def test_relabel(client):
    flat = np.full_like(LABELS, 3)
    files = {"sempic": stream(), "labels": png(flat)}
    answer = client.post("/relabel", files=files)
    assert np.array_equal(sempic.unpack(answer.content).labels, flat)
    files["labels"] = png(np.full_like(LABELS, 99))
    refused(client.post("/relabel", files=files), 422, "LabelMapError", "id 99")
    refused(client.post("/relabel", files={"sempic": stream()}), 422, "InputError", "labels")


def test_compare(client):
    for codec in ("avif", "jpeg"):
        query = {"codec": codec, "bytes": 800, "max_side": 40}
        answer = client.post("/compare", params=query, content=png())
        assert answer.headers["Content-Type"] == f"image/{codec}"
        assert len(answer.content) <= 800
        factor = int(answer.headers["X-Scaled-Down"])
        assert pixels(answer.content).shape[:2] == (30 // factor, 40 // factor)
    query = {"codec": "jpeg", "bytes": 3}
    refused(client.post("/compare", params=query, content=png()), 422, "RateError", "3 bytes")


def test_about(client):
    about = client.get("/info").json()
    assert about["version"] == sempic.__version__
    assert about["limits"]["bytes"] == 50_000
    assert set(about["decode"]) == {"steps", "seed"}  # what the receiver heeds
    assert about["palettes"]["camvid"]["classes"][0] == "sky"
    assert next(iter(about["scenes"])) == "street.jpg"
    assert client.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize("name", ["street.jpg", "street.sempic"])
def test_the_bundled_scenes_are_the_examples(client, name):
    answer = client.get(f"/scenes/{name}")
    assert answer.content == (ROOT / "examples" / name).read_bytes()
    if name.endswith(".sempic"):
        assert answer.headers["content-type"] == "image/x-sempic"
        assert sempic.info(answer.content)["bytes"] == len(answer.content)
    else:
        assert answer.headers["content-type"] == "image/jpeg"
        assert pixels(answer.content).shape == (288, 512, 3)


@pytest.mark.parametrize("name", ["nothing.sempic", "..%2f__init__.py", "%2fetc%2fpasswd"])
def test_no_path_of_a_client_is_opened(client, name):
    answer = client.get(f"/scenes/{name}")
    assert answer.status_code == 404
    assert "import" not in answer.text


@pytest.mark.parametrize("cut", [0, 1, 2, 10, 40])
def test_broken_streams(client, cut):
    with pytest.raises(sempic.BitstreamError) as error:
        sempic.info(stream()[:cut])
    for path in ("/decode", "/info"):
        answer = client.post(path, content=stream()[:cut])
        refused(answer, 422, type(error.value).__name__, str(error.value))


def test_junk(client):
    refused(client.post("/decode", content=png()), 422, "NotSempic")
    pickled = b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94."
    for path in ("/encode", "/compare?bytes=99"):
        refused(client.post(path, content=b""), 422, "ImageError", "empty")
        refused(client.post(path, content=pickled), 422, "ImageError", "not a picture")
        refused(client.post(path, content=png()[:60]), 422, "ImageError")


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


def test_sizes_are_limited(client):
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


def test_unknown_addresses(client):
    refused(client.get("/nothing"), 404, "HTTPError")
    refused(client.get("/decode"), 405, "HTTPError")


def test_request_ids(client, caplog):
    caplog.set_level(logging.INFO, "sempic.server")
    given = client.post("/info", content=stream(), headers={"X-Request-ID": "abc-1"})
    assert given.headers["X-Request-ID"] == "abc-1"
    made = client.get("/healthz", headers={"X-Request-ID": 'x"\n{}'.replace("\n", "")})
    assert re.fullmatch(r"[0-9a-f]{16}", made.headers["X-Request-ID"])
    lines = [json.loads(app.JsonLines().format(r)) for r in caplog.records if r.msg == "request"]
    assert lines[0] | {"time": "", "seconds": 0} == {
        "time": "", "level": "info", "message": "request", "id": "abc-1", "method": "POST",
        "path": "/info", "status": 200, "seconds": 0, "bytes_in": len(stream()),
        "bytes_out": int(given.headers["Content-Length"]), "client": "testclient",
    }  # fmt: skip
    assert lines[1]["id"] == made.headers["X-Request-ID"]


def test_metrics(client):
    client.post("/decode", content=stream())
    client.post("/decode", content=b"")
    text = client.get("/metrics").text
    assert re.search(
        r'sempic_requests_total\{method="POST",route="/decode",status="200"\} \d', text
    )
    assert re.search(
        r'sempic_requests_total\{method="POST",route="/decode",status="422"\} \d', text
    )
    assert 'sempic_work_seconds_count{verb="decode"}' in text
    assert "sempic_jobs_running 0.0" in text
    for i in range(3):  # what clients invent makes no new series
        client.get(f"/invented/{i}")
        client.get(f"/scenes/{i}")
    assert "invented" not in client.get("/metrics").text
    assert 'route="/scenes/{name}"' in client.get("/metrics").text


def test_the_page_may_load_nothing_foreign(client):
    answer = client.get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2
    assert not re.search(r"(src|href)=\"(https?:)?//", answer.text)
    assert not re.search(r"<[^>]+ (style|on\w+)=", answer.text)  # the policy forbids these


def test_the_reference_loads_nothing_foreign(client):
    page = client.get("/docs").text
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(sources) >= 3
    for source in sources:
        assert source.startswith("/")
        assert client.get(source).status_code == 200


def test_a_full_queue_and_slow_bodies():
    quick = pool(queue=1)
    with TestClient(app.create_app(settings(), quick)) as client:
        quick.accepted = 2
        answer = client.post("/decode", content=stream())
        refused(answer, 429, "QueueFull", "2 places")
        assert int(answer.headers["Retry-After"]) >= 1
        assert client.post("/info", content=stream()).status_code == 200  # needs no worker
        quick.accepted = 0
        assert client.post("/decode", content=stream()).status_code == 200

        def trickle():
            yield b"x"
            time.sleep(1.5)
            yield b"y"

    with live(seconds=1.0) as url:
        refused(httpx.post(f"{url}/decode", content=trickle(), timeout=60), 408, "HTTPError", "1 s")


def test_failures_of_workers(monkeypatch):
    jobs = pool(seconds=1.0)
    with TestClient(app.create_app(settings(), jobs), raise_server_exceptions=False) as client:
        run = jobs.run
        for verb, arguments, status, error in (
            ("echo", (0, 9), 504, "TooSlow"),
            ("fail", (), 500, "Broken"),
            ("die", (), 500, "Broken"),
        ):
            jobs._seconds = 1.0 if verb == "echo" else 30

            def instead(_verb, *_, verb=verb, arguments=arguments, gone=None, **__):
                return run(verb, *arguments, gone=gone)

            monkeypatch.setattr(jobs, "run", instead)
            refused(client.post("/decode", content=stream()), status, error)
        jobs._seconds = 30
        monkeypatch.undo()
        assert client.post("/decode", content=stream()).status_code == 200


# ── the process ──────────────────────────────────────────────────────────────────────────────

PROCESS = """
import functools, sys
from fakecoder import FakeCoder
from standin import pool, settings
from sempic.server import app
app._pool = lambda s: pool(functools.partial(FakeCoder, delay=1.5))
app.serve(settings(), port=0)
"""


def test_accepted_work_is_finished():
    """SIGTERM to the whole group, as service managers do: what was accepted is answered."""
    path = os.pathsep.join([str(Path(__file__).parent), str(ROOT / "tests"), str(ROOT / "src")])
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    ) as process:
        stop = threading.Timer(100, process.kill)
        stop.start()
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        url = next(line["url"] for line in map(json.loads, lines) if line["message"] == "serving")
        answers = {}

        def decode(i):
            answers[i] = httpx.post(
                f"{url}/decode", params={"seed": i}, content=stream(), timeout=60
            )

        threads = [threading.Thread(target=decode, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        while "sempic_jobs_accepted 2.0" not in httpx.get(f"{url}/metrics").text:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        for thread in threads:
            thread.join(30)
        assert [answers[i].status_code for i in range(2)] == [200, 200]
        assert [pixels(answers[i].content)[0, 0, 2] for i in range(2)] == [0, 1]
        rest = [json.loads(line) for line in process.stderr]
        assert process.wait(30) == 0
        assert [line["status"] for line in rest if line.get("path") == "/decode"] == [200, 200]
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz")
        stop.cancel()


def test_command_line(monkeypatch, capsys):
    got = {}
    monkeypatch.setattr(app, "serve", lambda s, **where: got.update(settings=s, **where))
    assert cli.main(["serve", "--port", "81", "--workers", "3", "--seconds", "5"]) == 0
    assert got["settings"] == app.Settings(workers=3, seconds=5)
    assert (got["host"], got["port"]) == ("127.0.0.1", 81)


def test_defaults_are_those_of_the_settings(monkeypatch):
    got = {}
    monkeypatch.setattr(app, "serve", lambda s, **_: got.update(settings=s))
    assert cli.main(["serve"]) == 0
    assert got["settings"] == app.Settings()


def test_an_address_in_use(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main(["serve", "--port", str(port)]) == 2
    assert re.fullmatch(
        rf"sempic: cannot listen on 127.0.0.1:{port}: .+\n", capsys.readouterr().err
    )


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_ports_that_do_not_exist(port, capsys):
    assert cli.main(["serve", "--port", str(port)]) == 2
    assert capsys.readouterr().err == f"sempic: a port is 0…65535, not {port}\n"


def test_without_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "sempic.server.app")
    monkeypatch.delattr(sempic.server, "app")
    assert cli.main(["serve"]) == 2
    assert install_hint("serve") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (["--segmenter", "gone.onnx"], "gone.onnx: no such model"),
        (["--receiver", "gone.onnx"], "gone.onnx: no such model"),
        (["--port", "99999"], "99999"),
        (["--port", "-1"], "-1"),
        (["--host", "no.such.host.invalid"], "cannot listen"),
        (["--host", "a" * 70 + ".example"], "cannot listen"),
        (["--host", ""], "an empty value"),
    ],
)
def test_a_start_that_cannot_work_is_one_line(options, cause, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sempic", "serve", "--port", "0", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert cause in done.stderr


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="this system has no /proc")
def test_workers_end_with_a_server_that_is_killed(tmp_path):
    code = (
        "import functools; from fakecoder import FakeCoder; from sempic.server import app, work\n"
        "if __name__ == '__main__':\n"
        "    app._pool = lambda s: work.Pool(FakeCoder, workers=2, queue=1, seconds=60)\n"
        "    app.serve(app.Settings(), port=0)\n"
    )
    (tmp_path / "main.py").write_text(code)
    paths = os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
    with subprocess.Popen(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert any(b"serving" in line for line in process.stderr)
        process.kill()
        process.communicate(timeout=30)  # workers hold the pipe as long as they live


def test_sides_that_another_codec_does_not_have_are_no_fault_of_the_server(client):
    wide = pictures.encode(np.zeros((1, 65535, 3), np.uint8), ".png")
    for codec in ("jpeg", "avif"):
        answer = client.post("/compare", params={"codec": codec, "bytes": 5000}, content=wide)
        assert answer.status_code in (200, 413, 422), answer.text
