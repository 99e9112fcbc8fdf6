"""Standard streams and encodings of the command."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sempic
from sempic import console

STREAM = sempic.pack(width=8, height=8, coarse=b"x")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.sempic").write_bytes(STREAM)
    return tmp_path


def shell(command, **environment):
    return subprocess.run(
        command.replace("sempic ", f"{sys.executable} -m sempic ", 1),
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        env=os.environ | environment,
        timeout=120,
        check=False,
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "command", ["info a.sempic", "info a.sempic a.sempic --json", "--help", "--version", "info -"]
)
def test_a_full_disk_takes_one_line(command):
    done = shell(f"sempic {command} < a.sempic > /dev/full")
    assert done.returncode == 2
    assert done.stderr == b"sempic: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("info a.sempic <&-", 0, b""),
        ("info - <&-", 2, b"sempic: -: standard input is closed\n"),
        ("info a.sempic >&-", 2, b"sempic: standard output is closed\n"),
        ("info a.sempic 2>&-", 0, b""),
        ("info gone.sempic 2>&-", 2, b""),
        ("info a.sempic gone.sempic <&- >&- 2>&-", 2, b""),
        ("decode a.sempic -o - --only coarse >&-", 2, None),
    ],
)
def test_closed_streams_cause_no_traceback(command, code, said):
    done = shell(f"sempic {command}")
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    if said is not None:
        assert done.stderr == said


@pytest.mark.skipif(os.name == "nt", reason="there is no such limit")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_disk_that_takes_a_part_of_the_output_is_full(unbuffered):
    # Python 3.11 would leave a part of each .pyc file, too, for all later imports.
    more = {"PYTHONUNBUFFERED": unbuffered, "PYTHONDONTWRITEBYTECODE": "1"}
    done = shell("ulimit -f 1; sempic encode --help > out", **more)
    assert done.returncode == 2
    assert done.stderr == b"sempic: cannot write to standard output: File too large\n"


@pytest.mark.skipif(os.name == "nt", reason="there are no such pipes")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_streams_that_do_not_block_are_read_and_written_to_their_end(place, unbuffered):
    """Node.js and others leave such; a read before the first byte seemed to be the end."""
    (ours, stdin), (stdout, out) = os.pipe(), os.pipe()
    for end in (ours, out):
        os.set_blocking(end, False)
    process = subprocess.Popen(
        [sys.executable, "-m", "sempic", "info", "-", *2000 * ["a.sempic"], "--json"],
        stdin=ours,
        stdout=out,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    )
    os.close(out)
    time.sleep(1)
    os.write(stdin, STREAM)
    os.close(stdin)
    time.sleep(0.5)
    with open(stdout, "rb") as file:
        assert len(file.readlines()) == 2001
    assert process.wait() == 0
    os.close(ours)


@pytest.mark.parametrize(
    "encoding", ["cp1252", "latin-1", "ascii", "utf-8:strict", "utf-16", "cp437", "koi8-r"]
)
def test_every_message_can_be_printed_in_every_encoding(encoding):
    code = (
        "import sys; from sempic import processes\n"
        "text = 'caf\\xe9 \\udce9 → 漢 × 😀 …'\n"
        "def say():\n    print(text); print(text, file=sys.stderr); return 0\n"
        "sys.exit(processes.as_program(say))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0
    name = encoding.partition(":")[0]
    for out in (done.stdout, done.stderr):
        text = out.decode(name)
        assert "\\udce9" in text  # as in the name of a file that is not UTF-8
        assert "→" in text or "->" in text
        assert "×" in text or "x" in text
    if name == "ascii":
        assert done.stdout == b"caf\\xe9 \\udce9 -> \\u6f22 x \\U0001f600 ...\n"


def test_help_is_printed_in_ascii():
    done = shell("sempic --help", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert b"->" in done.stdout
    assert not done.stderr


def test_names_are_printed_on_one_line():
    names = [
        "a\nb.sempic",
        "c\rd.sempic",
        "e\u2028f.sempic",
        "g\x1b[31m.sempic",
        "caf\udce9.sempic",
    ]
    for name in names:
        Path(name).write_bytes(STREAM)
    os.remove("a.sempic")
    done = shell("sempic info . --json")
    assert len(done.stdout.splitlines()) == len(names)
    done = shell("sempic info .")
    heads = [line for line in done.stdout.decode().split("\n") if "version" in line]
    assert len(heads) == len(names)
    assert b"\x1b" not in done.stdout
    done = shell(r"sempic info $'no\nsuch.sempic'")
    assert done.stderr.count(b"\n") == 1


def test_json_is_of_valid_text_and_numbers():
    found = console.as_json(
        {"caf\udce9": ("\ud800", 1 / 3, 1e-9), "é": [math.inf, -math.inf, math.nan], "n": 12345678},
        decimals=5,
    )
    assert found.encode() == (
        rb'{"caf\\udce9": ["\\ud800", 0.33333, 0.0], "\u00e9": ["inf", "-inf", "nan"], '
        rb'"n": 12345678}'
    )
    assert console.as_json(1 / 3) == str(1 / 3)
