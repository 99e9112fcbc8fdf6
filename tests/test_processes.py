"""Signals and environment of the command, and child processes."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import sempic
from sempic import processes
from sempic.batch.work import attempt
from sempic.errors import SempicError
from sempic.jobs import Job

SOURCE = Path(sempic.__file__).parent.parent


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=120, check=False
    )


WAITS = (
    "import sys, time; from sempic import processes\n"
    "def wait():\n"
    "    try:\n"
    "        print('begun', flush=True)\n"
    "        time.sleep(600)\n"
    "    finally: print('cleaned up')\n"
    "sys.exit(processes.as_program(wait))"
)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_unwind_and_set_the_exit_status(name):
    number = signal.Signals[name]
    with subprocess.Popen([sys.executable, "-c", WAITS], stdout=-1, stderr=-1) as process:
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (out, err) == (b"cleaned up\n", b"sempic: interrupted\n")
    assert process.returncode == -number


@pytest.mark.parametrize(
    "program",
    [
        # As C extensions do when interrupted while they load.
        "def program():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(600)\n"
        "    except KeyboardInterrupt as stop:\n"
        "        raise ImportError('initialization failed') from stop\n",
        # What is half-made must not complain when it is freed.
        "class program:\n"
        "    def __init__(self):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        self.made = True\n"
        "    def __del__(self):\n"
        "        self.made\n",
    ],
    ids=["wrapped in an error", "in a constructor"],
)
def test_ctrl_c_in_a_library_is_ctrl_c(program):
    code = "import os, signal, sys, time\nfrom sempic import processes\n" + program
    code += "sys.exit(processes.as_program(lambda: bool(program())))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGINT
    assert done.stderr == b"sempic: interrupted\n"


CLOSING = (
    "import os, signal, sys, time\n"
    "from sempic import processes\n"
    "class Closing:\n"
    "    def __del__(self):\n"
    "        os.kill(os.getpid(), signal.SIGTERM)\n"
    "        [None for _ in range(1000)]\n"
)
"""The start of a program: an object gets SIGTERM while it is destroyed."""


def test_ctrl_c_in_a_destructor_is_not_lost():
    """Python ignores exceptions there, so that the next read waited forever."""
    code = (
        CLOSING + "class Broken:\n"
        "    def __del__(self):\n"
        "        raise ValueError('of another kind')\n"
        "def run():\n"
        "    Broken()\n"
        "    Closing()\n"
        "    time.sleep(600)\n"
        "sys.exit(processes.as_program(run))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGTERM
    assert done.stderr.startswith(b"Exception ignored ")
    assert done.stderr.endswith(b"ValueError: of another kind\nsempic: interrupted\n")


def test_a_signal_in_a_destructor_of_a_worker_is_not_lost():
    """As above: the traceback of the exception was printed, and the worker went on."""
    Path("closing.py").write_text(
        CLOSING + "def work(pipe):\n"
        "    processes.end_with_parent()\n"
        "    Closing()\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    process, _ = processes.child(work)\n"
        "    process.join(30)\n"
        "    sys.exit(process.exitcode)"
    )
    done = subprocess.run([sys.executable, "closing.py"], capture_output=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == b""


def test_a_worker_ignores_ctrl_c_where_it_cannot_be_blocked(monkeypatch):
    monkeypatch.delattr(signal, "pthread_sigmask", raising=False)  # as on Windows
    monkeypatch.setattr(processes, "watch_parent", lambda: None)
    monkeypatch.setattr(sys, "unraisablehook", None)
    handled = {}
    monkeypatch.setattr(signal, "signal", handled.__setitem__)
    processes.end_with_parent()
    assert handled[signal.SIGINT] == signal.SIG_IGN


def test_ctrl_c_wrapped_in_an_error_ends_a_run_of_files(monkeypatch):
    """It is no error of the file at which it came, and no more files are begun."""
    job = Job(source=Path("a.png"), relative=Path("a.png"), target=None, mkdir=False)
    assert attempt(lambda _: 1 / 0, job)[0]["error"].startswith("ZeroDivisionError")
    caught = []
    monkeypatch.setattr(processes, "_caught", caught)
    with pytest.raises(KeyboardInterrupt):
        attempt(lambda _: caught.append(signal.SIGINT) or 1 / 0, job)
    with pytest.raises(KeyboardInterrupt):
        attempt(lambda _: {}, job)


def test_a_process_that_cannot_start_is_no_fault_of_standard_output(monkeypatch):
    def no_pipe(_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(type(multiprocessing.get_context("spawn")), "Pipe", no_pipe)
    with pytest.raises(SempicError, match=r"cannot start a process: Too many open files"):
        processes.child(print)


def test_signals_stay_blocked_in_the_first_process():
    """The resource tracker of multiprocessing, which it starts, unblocks them: Ctrl-C in a terminal
    ended the first worker with a traceback."""
    code = (
        "import signal; from multiprocessing import resource_tracker\n"
        "from sempic import processes\n"
        "with processes.signals_held():\n"
        "    resource_tracker.ensure_running()\n"
        "    print(*sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))))"
    )
    assert run(code).stdout.split() == [b"1", b"2", b"15"]


def test_one_ctrl_c_ends_a_shell_loop():
    Path("wait.py").write_text(WAITS)
    loop = f"for i in 1 2 3; do {sys.executable} wait.py; done; echo went on"
    with subprocess.Popen(["bash", "-c", loop], stdout=-1, stderr=-1, start_new_session=True) as it:
        assert it.stdout.readline() == b"begun\n"
        os.killpg(it.pid, signal.SIGINT)
        out, _ = it.communicate(timeout=60)
    assert out == b"cleaned up\n"


def test_an_ignored_signal_stays_ignored():
    code = "import signal, sempic; print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"
    command = f"trap '' INT; {sys.executable} -c '{code}'"
    assert subprocess.check_output(["bash", "-c", command]) == b"True\n"


@pytest.mark.parametrize(
    ("name", "handler"),
    [("sempic", "SIG_DFL"), ("sempic.exe", "SIG_DFL"), ("tool", "default_int")],
)
def test_ctrl_c_while_the_command_loads(name, handler):
    """The command then ends at once; programs that import sempic keep their handler."""
    code = f"import sys; sys.argv[0] = '/bin/{name}'; import sempic, signal"
    assert handler in run(f"{code}; print(repr(signal.getsignal(signal.SIGINT)))").stdout.decode()
    thread = f"import sys, threading; sys.argv[0] = '/bin/{name}'\n" + (
        "t = threading.Thread(target=lambda: print(__import__('sempic').__name__)); t.start()"
    )
    assert run(thread).stdout == b"sempic\n"


@pytest.mark.parametrize("command", ["-m sempic", "-m sempic.cli", "-X utf8 -m sempic"])
def test_ctrl_c_while_a_module_loads_as_the_command(command, tmp_path):
    """A stand-in for numpy, the first import of the package, prints the signal handler."""
    says = "import signal; print(repr(signal.getsignal(signal.SIGINT))); raise SystemExit"
    (tmp_path / "numpy.py").write_text(says)
    done = subprocess.run(
        [sys.executable, *command.split(), "--version"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{SOURCE}"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert b"SIG_DFL" in done.stdout, done.stderr


def test_telemetry_is_off_unless_the_user_sets_it():
    code = "import os, sempic; print(*(os.environ.get(n) for n in {}))"
    names = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED")
    given = dict.fromkeys(names, "")
    clean = {k: v for k, v in os.environ.items() if k not in given}
    command = [sys.executable, "-c", code.format(names)]
    done = subprocess.run(command, env=clean, capture_output=True, check=True, timeout=60)
    assert done.stdout.split() == [b"1", b"1", b"0"]
    done = subprocess.run(
        command, env=clean | {names[0]: "0"}, capture_output=True, check=True, timeout=60
    )
    assert done.stdout.split()[0] == b"0"  # the user's choice wins


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_a_container_limits_the_cores(tmp_path, monkeypatch, files, cores):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(processes, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert processes.quota() == cores
    assert processes.cores() == (cores or 8)


def test_windows_limits_the_processes(monkeypatch):
    monkeypatch.setattr(processes, "_MOST", 61)
    monkeypatch.setattr(processes, "quota", lambda: None)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert (processes.cores(), processes.most()) == (61, 61)


def test_cores_where_the_system_does_not_tell(monkeypatch):
    def refuse(_):
        raise PermissionError  # as in some sandboxes

    monkeypatch.setattr(processes, "quota", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", refuse, raising=False)
    assert processes.cores() == os.cpu_count()
    monkeypatch.delattr(os, "sched_getaffinity")
    assert processes.cores() == os.cpu_count()
