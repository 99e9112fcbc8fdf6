"""`sempic serve`: start, options, and the end of the process."""

import contextlib
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2 as httpx
import pytest
import standin
from conftest import ROOT
from standin import live, pixels, stream

import sempic
from sempic import cli
from sempic.errors import InputError, install_hint
from sempic.server import app

PROCESS = """
import functools
from fakecoder import FakeCoder
from standin import pool, settings
from sempic.server import app
app.make_pool = lambda s: pool(functools.partial(FakeCoder, until="end"))
app.serve(settings(), port=0)
"""


PATHS = os.pathsep.join([str(Path(__file__).parent), str(ROOT / "tests"), str(ROOT / "src")])


@contextlib.contextmanager
def serving(folder, seconds, **more):
    """A server in a process of its own, which is killed after some seconds; its URL; its log."""
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": PATHS},
        cwd=folder,
        **more,
    ) as process:
        stop = threading.Timer(seconds, process.kill)
        stop.start()
        lines = map(json.loads, iter(process.stderr.readline, ""))
        url = next(line["url"] for line in lines if line["message"] == "serving")
        yield process, url, lines
        stop.cancel()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_accepted_requests_are_answered_after_a_signal(tmp_path, name):
    """Service managers and terminals send it to the whole process group."""
    with serving(tmp_path, 100, start_new_session=True) as (process, url, lines):
        answers = {}

        def decode(i):
            answers[i] = httpx.post(
                f"{url}/decode", params={"seed": i}, content=stream(), timeout=60
            )

        threads = [threading.Thread(target=decode, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        while "sempic_jobs_accepted 2.0" not in httpx.get(f"{url}/metrics", timeout=60).text:
            time.sleep(0.05)
        os.killpg(process.pid, signal.Signals[name])
        with contextlib.suppress(httpx.TransportError):
            while True:  # until it accepts no more
                httpx.get(f"{url}/healthz", timeout=60)
        assert not answers
        (tmp_path / "end").touch()
        for thread in threads:
            thread.join(60)
        assert [answers[i].status_code for i in range(2)] == [200, 200]
        assert [pixels(answers[i].content)[0, 0, 2] for i in range(2)] == [0, 1]
        rest = list(lines)
        assert process.wait(60) == 0
        assert [line["status"] for line in rest if line.get("path") == "/decode"] == [200, 200]
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz")


def test_a_second_sigint_ends_a_server_amid_a_job(tmp_path):
    with serving(tmp_path, 60) as (process, url, lines):
        host = url.removeprefix("http://")
        with contextlib.closing(http.client.HTTPConnection(host, timeout=60)) as client:
            client.request("POST", "/decode", stream())
            while "sempic_jobs_running 1.0" not in httpx.get(f"{url}/metrics", timeout=60).text:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            next(line for line in lines if line["message"].startswith("Waiting for connections"))
            process.send_signal(signal.SIGINT)
            process.stderr.read()
            assert process.wait() == 0


class Clock:
    """The time of the server, which stands still except in `passes`."""

    def __init__(self) -> None:
        self._now, self._looks = 0.0, threading.Semaphore(0)

    def monotonic(self) -> float:
        self._looks.release()
        return self._now

    def passes(self, seconds: float) -> None:
        """The server looks at its connections before and after the time."""
        for step in (0, seconds):
            self._now += step
            while self._looks.acquire(blocking=False):
                pass
            for _ in range(2):  # the first look ends before the second begins
                assert self._looks.acquire(timeout=60)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(app, "time", clock)
    return clock


def test_a_connection_waits_for_headers_for_a_limited_time(clock):
    healthz = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with live() as url:
        address = "127.0.0.1", int(url.rpartition(":")[2])
        with contextlib.ExitStack() as stack:
            waiting = []
            for head in (b"", b"GET / HTTP/1.1\r\n", healthz + b"GET /"):
                client = stack.enter_context(socket.create_connection(address, timeout=60))
                client.sendall(head)
                waiting.append(client)
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert answer.read() == b'{"status":"ok"}'  # the server has accepted all three
            clock.passes(0.9 * app.STALL)
            assert not select.select(waiting, [], [], 0)[0]
            clock.passes(0.2 * app.STALL)
            assert [client.recv(1) for client in waiting] == [b""] * 3
        with contextlib.closing(http.client.HTTPConnection(*address, timeout=60)) as kept:
            for _ in range(2):
                kept.request("GET", "/healthz")
                assert kept.getresponse().read() == b'{"status":"ok"}'
                clock.passes(0.9 * app.STALL)
            body = stream()
            kept.putrequest("POST", "/info")
            kept.putheader("Content-Length", str(len(body)))
            kept.putheader("Expect", "100-continue")
            kept.endheaders()
            assert select.select([kept.sock], [], [], 60)[0]  # the server reads the body
            kept.send(body[:9])
            clock.passes(2.5 * app.STALL)
            kept.send(body[9:])
            assert json.load(kept.getresponse())


def test_a_client_that_does_not_read_its_answers_is_cut_off(clock, monkeypatch):
    """Otherwise it would keep a place, and the process at its end, for ever."""
    servers = []
    monkeypatch.setattr(
        standin, "Server", lambda config: servers.append(app.Server(config)) or servers[0]
    )
    with live() as url:
        bundle = re.search(r'src="([^"]+)"', httpx.get(f"{url}/docs", timeout=60).text)[1]
        head = f"GET /{bundle} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(60)
            client.connect(("127.0.0.1", int(url.rpartition(":")[2])))
            client.sendall(head * 20)  # more than the buffers of the system hold
            for _ in range(100):  # until nothing more can be sent, and the client is cut off
                clock.passes(app.STALL + 1)
                if not servers[0].server_state.connections:
                    break
            with contextlib.suppress(ConnectionResetError):
                got = sum(map(len, iter(lambda: client.recv(1 << 20), b"")))
                assert got < 20 * len(httpx.get(f"{url}/{bundle}", timeout=60).content)


def test_the_connections_that_wait_longest_are_closed_for_new_ones(clock, monkeypatch):
    monkeypatch.setattr(app, "IDLE", 3)
    with live() as url, contextlib.ExitStack() as stack:
        address = "127.0.0.1", int(url.rpartition(":")[2])
        idle = []
        for _ in range(5):
            idle.append(stack.enter_context(socket.create_connection(address, timeout=60)))
            clock.passes(1)
        assert [client.recv(1) for client in idle[:2]] == [b"", b""]
        for client in idle[2:]:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("options", "settings", "port"),
    [
        ([], app.Settings(), 8000),
        (
            ["--port", "81", "--workers", "3", "--seconds", "5"],
            app.Settings(workers=3, seconds=5),
            81,
        ),
    ],
)
def test_options_become_settings(monkeypatch, options, settings, port):
    calls = []
    monkeypatch.setattr(app, "serve", lambda *args, **where: calls.append((*args, where)))
    assert cli.main(["serve", *options]) == 0
    assert calls == [(settings, {"host": "127.0.0.1", "port": port})]


def test_an_address_in_use_is_named(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main(["serve", "--port", str(port)]) == 2
    assert re.fullmatch(
        rf"sempic: cannot listen on 127.0.0.1:{port}: .+\n", capsys.readouterr().err
    )


def test_more_workers_than_a_machine_bears_are_refused():
    with pytest.raises(InputError, match="workers is 1…"):
        app.Settings(workers=100000)


def test_a_time_limit_beyond_the_clock_s_is_refused():
    with pytest.raises(InputError, match="seconds must be 86400 or less"):
        app.Settings(seconds=1e99)


@pytest.mark.parametrize(
    ("host", "cause"),
    [
        ("no.such.host.invalid", "cannot listen"),
        ("a" * 70 + ".example", "cannot listen"),
        ("", "an empty value"),
    ],
)
def test_an_address_that_cannot_be_is_refused(host, cause, capsys):
    assert cli.main(["serve", "--port", "0", "--host", host]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1, told
    assert cause in told


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_ports_out_of_range_are_refused(port, capsys):
    assert cli.main(["serve", "--port", str(port)]) == 2
    assert capsys.readouterr().err == f"sempic: a port is 0…65535, not {port}\n"


def test_a_missing_extra_is_named(monkeypatch, capsys):
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
    ],
)
def test_a_failed_start_prints_one_line(options, cause, tmp_path):
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
def test_workers_end_with_a_killed_server(tmp_path):
    code = (
        "import functools; from fakecoder import FakeCoder; from sempic.server import app, pool\n"
        "if __name__ == '__main__':\n"
        "    app.make_pool = lambda s: pool.Pool(FakeCoder, workers=2, queue=1, seconds=60)\n"
        "    app.serve(app.Settings(), port=0)\n"
    )
    (tmp_path / "main.py").write_text(code)
    with subprocess.Popen(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": PATHS},
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert any(b"serving" in line for line in process.stderr)
        process.kill()
        process.communicate(timeout=60)  # ends only when no worker holds the pipe
