"""Checks and reading of files by their places."""

import sys
from pathlib import Path

import pytest

from sempic import places
from sempic.errors import InputError, OutputError


def test_a_folder_is_not_made_under_the_name_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("report.html", "a/clip.MP4", "x.jpg"):
        with pytest.raises(OutputError, match=f"^{name}: a folder under the name of a file"):
            places.need_folder(Path(name))
        Path(name).mkdir(parents=True)
        places.need_folder(Path(name))
    places.need_folder(Path("run.2"))


def test_a_device_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(places, "_LONGEST", 1 << 20)
    with pytest.raises(InputError, match="no end within 1 MiB"):
        places.read(Path("/dev/zero"))
    with open("/dev/zero") as zeros:
        monkeypatch.setattr(sys, "stdin", zeros)
        with pytest.raises(InputError, match="no end within 1 MiB"):
            places.read(None)
