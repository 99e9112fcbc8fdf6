"""Networks in processes that fork, copy and pickle them, and in odd environments."""

import copy
import functools
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import needs_models

import sempic
from sempic import models, processes, segment
from sempic.errors import InputError, ModelError
from sempic.models import runtime


@pytest.mark.parametrize("given", ["abc", "-1", "1.5", "257", "1e9", "٣", "4 4", "0x10"])
def test_invalid_thread_counts_are_refused(given, monkeypatch):
    monkeypatch.setenv("SEMPIC_THREADS", given)
    with pytest.raises(InputError, match="SEMPIC_THREADS"):
        runtime.threads()


@pytest.mark.parametrize(
    ("given", "meant"), [("", 0), (" ", 0), ("0", 0), (" 4 ", 4), ("256", 256)]
)
def test_valid_thread_counts_are_accepted(given, meant, monkeypatch):
    monkeypatch.setenv("SEMPIC_THREADS", given)
    assert runtime.threads() == meant


@needs_models
@pytest.mark.parametrize(("quota", "count"), [(None, 0), (1, 1), (64, 3)])
def test_a_container_takes_no_more_threads_than_cores(monkeypatch, quota, count):
    monkeypatch.delenv("SEMPIC_THREADS", raising=False)
    monkeypatch.setattr(processes, "quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.setattr(runtime, "_start", lambda path, shown, count: count)
    assert runtime.Session(Path("model.onnx")).inner() == count


@needs_models
@pytest.mark.parametrize("text", ["Failed to allocate memory for a buffer", "std::bad_alloc"])
def test_want_of_memory_is_a_memory_error(monkeypatch, text):
    class Full:
        def run(self, *_):
            raise RuntimeError(text)

    segmenter = segment.load()
    monkeypatch.setattr(runtime.Session, "inner", lambda _: Full())
    with pytest.raises(MemoryError):
        segmenter(np.zeros((32, 32, 3), np.uint8))


@needs_models
def test_networks_share_an_arena_but_for_the_child_of_a_fork(monkeypatch):
    import onnxruntime as ort

    registered, entries = [], []
    monkeypatch.setattr(ort, "create_and_register_allocator", lambda *_: registered.append(1))
    monkeypatch.setattr(runtime, "_arena_of", None)
    modules: dict[str, object] = {}
    monkeypatch.setattr(runtime, "sys", types.SimpleNamespace(modules=modules))

    class Options(ort.SessionOptions):
        def add_session_config_entry(self, *entry):
            entries.append(entry)

    monkeypatch.setattr(ort, "SessionOptions", Options)
    monkeypatch.setattr(ort, "InferenceSession", lambda *_, **__: None)
    monkeypatch.setattr(processes, "keep_at_fork", lambda _: None)
    path = models.find(models.RECEIVER)
    shared = ("session.use_env_allocators", "1")
    for _ in range(2):
        runtime._start(path, path, 1)
        assert shared in entries
        entries.clear()
    assert registered == [1]
    monkeypatch.setattr(os, "getpid", lambda: -1)
    runtime._start(path, path, 1)
    assert shared not in entries
    monkeypatch.setattr(runtime, "_arena_of", None)
    modules["onnxruntime"] = ort  # the program uses it, and may have registered an arena
    runtime._start(path, path, 1)
    assert shared not in entries
    assert registered == [1]


@needs_models
def test_an_allocator_of_the_program_is_not_used():
    """One that is no arena cannot shrink, which was an error of large pictures."""
    code = """
import onnxruntime as ort
import numpy as np
from sempic import segment
from sempic.models import runtime

kind, where = ort.OrtAllocatorType.ORT_DEVICE_ALLOCATOR, ort.OrtMemType.DEFAULT
def register():
    ort.create_and_register_allocator(ort.OrtMemoryInfo("Cpu", kind, 0, where), None)

runtime._LARGE = 0
picture = np.zeros((32, 32, 3), np.uint8)
segment.load()(picture)
register()
segment.load()(picture)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_workers_begin_nothing_after_the_end():
    begun, running, gate = [], threading.Event(), threading.Event()

    def call():
        begun.append(True)
        running.set()
        gate.wait()

    with runtime.workers(1) as begin:
        for _ in range(3):
            begin(call)
        assert running.wait(60)
        threading.Timer(0.2, gate.set).start()
    assert begun == [True]


@needs_models
def test_workers_begin_no_network_after_the_end():
    """After Ctrl-C, a large frame would take its other tiles."""
    segmenter, picture = segment.load(), np.zeros((32, 32, 3), np.uint8)
    running, gate, faults = threading.Event(), threading.Event(), []

    def call():
        segmenter(picture)
        running.set()
        gate.wait(60)
        try:
            segmenter(picture)
        except ModelError as error:
            faults.append(error)

    with runtime.workers(1) as begin:
        begin(call)
        assert running.wait(60)
        threading.Timer(0.2, gate.set).start()
    assert "nobody waits" in str(faults[0])


OUTLIVES = """
import threading
import numpy as np
import sempic
from sempic.models import runtime

image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
image[:40] = 200
runtime.cores = lambda: 2
begun = threading.Event()

def work():
    def calls():
        for number in range(4):
            begun.set()
            threading.main_thread().join()
            yield lambda number=number: number

    assert list(runtime.paired(calls())) == [0, 1, 2, 3]
    stream = sempic.encode(image, check=True)
    assert sempic.decode(stream).size == (64, 64)
    print("done")

threading.Thread(target=work).start()
begun.wait(60)
"""


@needs_models
def test_a_thread_that_outlives_the_main_one_codes():
    """The main thread ends between two tiles, and before an encode with a check."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OUTLIVES],
        env=os.environ | {"SEMPIC_THREADS": "2"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.stderr) == (b"done\n", b"")


def test_pairs_run_two_at_a_time_in_order(monkeypatch):
    monkeypatch.setattr(runtime, "cores", lambda: 6)
    both = threading.Barrier(2)

    def call(number):
        both.wait(60)  # passes only if two calls wait
        return number, runtime._worker.threads

    calls = (functools.partial(call, number) for number in range(4))
    assert list(runtime.paired(calls)) == [(number, 3) for number in range(4)]


@pytest.mark.parametrize("alone", ["one core", "in workers"])
def test_pairs_run_in_turn(alone, monkeypatch):
    monkeypatch.setattr(runtime, "cores", lambda: 1 if alone == "one core" else 2)
    seen = []

    def call():
        seen.append(threading.get_ident())
        return len(seen)

    def run():
        return list(runtime.paired([call] * 3)), threading.get_ident()

    if alone == "one core":
        results, thread = run()
    else:
        with runtime.workers(2) as begin:
            results, thread = begin(run)()
    assert results == [1, 2, 3]
    assert set(seen) == {thread}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_goes_on_without_the_workers():
    with runtime.workers(1) as begin:
        results = [begin(lambda: 7) for _ in range(2)]
        assert results[0]() == 7
        if (child := os.fork()) == 0:
            signal.alarm(10)
            os._exit(results[1]() + begin(lambda: 8)())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 15
        assert begin(lambda: 9)() == 9


def test_a_model_may_have_a_name_that_is_not_utf8(tmp_path):
    path = tmp_path / "caf\udce9.onnx"
    shutil.copy(models.find(models.SEGMENTER), path)
    assert runtime.load(path)[1]


@needs_models
def test_sessions_can_be_copied_and_pickled():
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    segmenter = segment.load()
    labels = segmenter(image)
    for again in (copy.copy(segmenter), copy.deepcopy(segmenter)):
        assert np.array_equal(again(image), labels)
    assert np.array_equal(pickle.loads(pickle.dumps(segmenter))(image), labels)


FORKS = """
import os, signal, sys, threading, time
import numpy as np
from sempic import segment

image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
network = segment.load()
labels = network(image)
use, end = sys.argv[1:]
pid = os.fork()
if pid == 0:
    if end == "TERM":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if use == "use":
        assert (network(image) == labels).all()
    if end == "TERM":
        os.kill(os.getpid(), signal.SIGTERM)
    sys.exit(0)
for _ in range(600):
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        assert (network(image) == labels).all()  # the parent's network still works
        print(os.waitstatus_to_exitcode(status))
        sys.exit(0)
    time.sleep(0.05)
os.kill(pid, signal.SIGKILL)
print("hangs")
"""


@needs_models
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("threads", ["1", "4"])
@pytest.mark.parametrize(("use", "end"), [("use", "exit"), ("leave", "exit"), ("use", "TERM")])
def test_a_forked_child_codes_and_exits(threads, use, end):
    """As under gunicorn --preload and Celery."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, use, end],
        env=os.environ | {"SEMPIC_THREADS": threads},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == b"0\n", done.stderr


@needs_models
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_networks_open_no_connection_and_leave_no_files(tmp_path):
    code = (
        "import time, numpy as np; from sempic import segment\n"
        "segment.load()(np.zeros((32, 32, 3), np.uint8)); time.sleep(3)"
    )
    clean = {k: v for k, v in os.environ.items() if "TELEMETRY" not in k and k != "CI"}
    command = ["strace", "-f", "--seccomp-bpf", "-e", "trace=connect,sendto", "-o", "trace.txt"]
    done = subprocess.run(
        [*command, sys.executable, "-c", code],
        env=clean | {"HOME": str(tmp_path / "home")},
        cwd=tmp_path,
        capture_output=True,
        timeout=300,
        check=False,
    )
    if b"ptrace" in done.stderr:
        pytest.skip("this machine does not let processes be traced")
    assert done.returncode == 0, done.stderr
    assert "AF_INET" not in (tmp_path / "trace.txt").read_text()
    assert not (tmp_path / "home").exists()
    assert models.find(models.SEGMENTER).is_file()
    assert sempic.__version__
