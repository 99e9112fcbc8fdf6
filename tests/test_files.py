"""Searching folders, and writing files whole or not at all."""

import errno
import os
import stat
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from sempic import files
from sempic.errors import OutputError


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_search_follows_links_and_reports_skipped_files(tmp_path):
    touch(tmp_path / "in/deep/a.PNG")
    touch(tmp_path / "in/b.png")
    touch(tmp_path / "elsewhere/c.png")
    (tmp_path / "in/linked").symlink_to("../elsewhere")
    (tmp_path / "in/again").symlink_to("../elsewhere")
    (tmp_path / "in/loop").symlink_to(".")
    (tmp_path / "elsewhere/up").symlink_to("../in")
    (tmp_path / "in/gone.png").symlink_to("nowhere.png")
    (tmp_path / "in/itself.png").symlink_to("itself.png")
    (tmp_path / "in/folder.png").mkdir()
    touch(tmp_path / "in/folder.png/d.png")
    os.mkfifo(tmp_path / "in/pipe.png")
    for name in ("._b.png", ".hidden/e.png", ".ipynb_checkpoints/b-checkpoint.png", "notes.txt"):
        touch(tmp_path / "in" / name)
    for name in ("1.heic", "deep/2.HEIC", "linked/3.dng", "heic"):
        touch(tmp_path / "in" / name)
    found = files.search(tmp_path / "in", {".png"}, {".heic", ".dng"})
    names = [p.relative_to(tmp_path / "in").as_posix() for p in found.files]
    assert names == ["again/c.png", "b.png", "deep/a.PNG", "folder.png/d.png", "linked/c.png"]
    faults = {p.name: why for p, why in found.faults}
    assert faults.keys() == {"gone.png", "itself.png", "pipe.png"}
    assert "link" in faults["gone.png"]
    assert found.foreign == {".heic": 2, ".dng": 2}  # 3.dng is found under two names


def test_unreadable_folders_are_reported(tmp_path, monkeypatch):
    touch(tmp_path / "a.png")
    touch(tmp_path / "shut/b.png")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = files.search(tmp_path, {".png"})
    assert [p.name for p in found.files] == ["a.png"]
    assert found.faults == [(tmp_path / "shut", "cannot search: Permission denied")]


def test_files_of_folders_that_cannot_be_entered_are_reported(tmp_path, monkeypatch):
    touch(tmp_path / "a.png")
    listed = touch(tmp_path / "shut/b.png")
    real = os.stat

    def denied(path, *args, **options):
        if path == listed:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "stat", denied)
    found = files.search(tmp_path, {".png"})
    assert [p.name for p in found.files] == ["a.png"]
    assert found.faults == [(listed, "cannot read: Permission denied")]


@pytest.mark.parametrize("script", ["x", "ä", "漢", "😀"])
def test_names_of_the_greatest_length_can_be_written(tmp_path, script):
    name = script * (255 // len(script.encode()))
    for data in (b"one", b"two"):
        files.write(tmp_path / name, data)
        assert (tmp_path / name).read_bytes() == data
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(OutputError, match="too long"):
        files.write(tmp_path / (name + "xxxx"), b"x")


def test_an_existing_file_keeps_its_permissions(tmp_path):
    target = touch(tmp_path / "a")
    for mode in (0o600, 0o640, 0o755):
        target.chmod(mode)
        files.write(target, b"new")
        assert stat.S_IMODE(target.stat().st_mode) == mode


def test_a_read_only_file_stays(tmp_path, monkeypatch):
    target = touch(tmp_path / "a")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as for users other than root
    with pytest.raises(OutputError, match="Permission denied"):
        files.write(target, b"new")
    assert target.read_bytes() == b"x"


def test_outputs_are_checked_before_the_work(tmp_path, monkeypatch):
    file = touch(tmp_path / "a")
    new = tmp_path / "new/folder"
    files.check_writable(file)
    files.check_writable(new)
    files.check_writable(new, folder=True)
    for path, folder, why in [
        (file, True, "not a writable folder: Not a directory"),
        (file / "below", False, "cannot write: Not a directory"),
        (tmp_path, False, "cannot write: Is a directory"),
    ]:
        with pytest.raises(OutputError, match=f"{path}: {why}"):
            files.check_writable(path, folder=folder)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as for users other than root
    for path, folder in [(file, False), (new, True)]:
        with pytest.raises(OutputError, match="Permission denied"):
            files.check_writable(path, folder=folder)
    disk = types.SimpleNamespace(f_flag=os.ST_RDONLY)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    for write in (files.check_writable, lambda path: files.write(path, b"new")):
        with pytest.raises(OutputError, match="cannot write: Read-only file system"):
            write(file)
    assert os.listdir(tmp_path) == ["a"]


def test_locks_of_network_disks(tmp_path, monkeypatch):
    """NFS locks what is open for writing, and some disks lock nothing."""
    fcntl = pytest.importorskip("fcntl")

    def flock(file, _):
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        raise BlockingIOError

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / "m.jsonl").touch()
    with pytest.raises(OutputError, match="another run"), files.locked(tmp_path / "m.jsonl"):
        pass
    with files.locked(tmp_path):
        (tmp_path / "m.jsonl").unlink()
    assert not list(tmp_path.iterdir())


def test_a_drive_that_is_not_there_is_named(monkeypatch):
    def stat(path):
        raise FileNotFoundError  # as of Q:\\ on Windows

    monkeypatch.setattr(Path, "stat", stat)
    for folder in (False, True):
        with pytest.raises(OutputError, match=r"^q.a: .*: No such file or directory"):
            files.check_writable(Path("q/a"), folder=folder)


def test_a_writable_file_in_a_read_only_folder_is_written(tmp_path, monkeypatch):
    """For example a single file mounted into a container."""
    target = touch(tmp_path / "a")

    def refuse(*_):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match="busy"):  # the file is no mount
        files.write(target, b"new")
    (part := tmp_path / "part").write_bytes(b"new")
    with pytest.raises(OutputError, match=rf"{target}: .* busy: a mount point, or in use by the"):
        files.move_to_target(part, target)
    assert target.read_bytes() == b"x"
    part.unlink()
    monkeypatch.setattr(files, "_mounted", lambda path: True)
    files.write(target, b"new")
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("limit", [0, 3, 8])
def test_a_file_that_is_written_in_place_stays_where_the_new_one_has_no_room(
    tmp_path, monkeypatch, limit
):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(files, "_mounted", lambda path: True)
    path = tmp_path / "dear.bin"
    path.write_bytes(b"12345")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OutputError, match=r"dear\.bin: cannot write: File too large"):
            files.write(path, bytes(9))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"12345"
    files.write(path, b"123")
    assert path.read_bytes() == b"123"


def test_a_file_mounted_from_the_disk_of_its_folder_is_written(tmp_path, monkeypatch):
    """Both have the same number of a device."""
    target = touch(tmp_path / "my picture")
    name = str(target).replace(" ", r"\040")
    (tmp_path / "mounts").write_text(f"64 44 254:0 /other {name} rw - ext4 /dev/vda rw\n")
    monkeypatch.setattr(files, "_MOUNTS", tmp_path / "mounts")

    def busy(*_):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "replace", busy)
    files.write(target, b"new")
    assert target.read_bytes() == b"new"
    (tmp_path / "part").write_bytes(b"newer")
    files.move_to_target(tmp_path / "part", target)
    assert target.read_bytes() == b"newer"
    assert sorted(os.listdir(tmp_path)) == ["mounts", "my picture"]


def test_a_file_of_another_device_than_its_folder_is_replaced(tmp_path, monkeypatch):
    """As on an overlay of several disks, where it is no mount."""
    target = touch(tmp_path / "a")
    (tmp_path / "mounts").touch()
    monkeypatch.setattr(files, "_MOUNTS", tmp_path / "mounts")
    before, real = target.stat().st_ino, Path.stat

    def on_overlay(path, **how):
        mode, number, device, *rest = real(path, **how)
        return os.stat_result((mode, number, device + (path == target), *rest))

    monkeypatch.setattr(Path, "stat", on_overlay)
    files.write(target, b"new")
    assert target.read_bytes() == b"new"
    assert target.stat().st_ino != before


def test_pipes(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    files.write(tmp_path / "pipe", b"data")
    reader.join(60)
    assert got == [b"data"]


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="this system has no /dev/fd")
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("redirection", [">", ">>", "| cat >"])
def test_open_files_of_the_process_are_written_to(tmp_path, name, redirection):
    (tmp_path / "link").symlink_to("/dev/stdout")
    (tmp_path / "log").write_text("before\n")
    code = f"from sempic import files; files.write({name!r}, b'one\\n'); print('two')"
    command = f'{sys.executable} -c "{code}" {redirection} log'
    subprocess.run(command, shell=True, cwd=tmp_path, check=True, timeout=60)
    before = "before\n" if redirection == ">>" else ""
    assert (tmp_path / "log").read_text() == before + "one\ntwo\n"


def test_write_replaces_a_file(tmp_path):
    target = tmp_path / "a.bin"
    files.write(target, b"one")
    files.write(target, b"two")
    assert target.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.bin"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask


def test_a_disk_without_permissions(tmp_path, monkeypatch):
    """Files of such, as of memory cards, have all the same, and a chmod is refused."""

    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chmod", refuse)
    for data in (b"old", b"new"):
        files.write(tmp_path / "x", data)
        assert (tmp_path / "x").read_bytes() == data


def test_a_staged_file_replaces_its_target_when_placed(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    target.chmod(0o640)
    with files.replacing(target, b"new"):
        assert target.read_bytes() == b"old"
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (b"new", 0o640)
    assert os.listdir(tmp_path) == ["a.bin"]
    with pytest.raises(OutputError, match="No such file"):
        write_replacing(tmp_path / "none" / "a.bin", b"x")
    with pytest.raises(ValueError, match="block"), files.replacing(target, b"newer"):
        raise ValueError("block")
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.bin"]


def write_replacing(path, data):
    with files.replacing(path, data):
        pass


def test_write_goes_through_links(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real" / "a.bin")
    files.write(link, b"one")
    assert link.is_symlink()
    assert (tmp_path / "real" / "a.bin").read_bytes() == b"one"


def test_a_failed_write_leaves_no_trace(tmp_path, monkeypatch):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for write in (files.write, write_replacing):
        with pytest.raises(OutputError, match="No space left"):
            write(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("part", ["folder", "file/part"])
def test_a_file_that_cannot_be_removed_hides_no_failure(tmp_path, part):
    """As on a read-only disk, whose error named the temporary file."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="why"), files.removed_on_failure(tmp_path / part):
        raise OutputError("why")


def test_a_failed_write_names_file_and_cause(tmp_path):
    """files.write itself names them, for all commands."""
    target = tmp_path / "none" / "a.bin"
    for write in (files.write, write_replacing):
        with pytest.raises(OutputError, match=f"^{target}: cannot write: No such file"):
            write(target, b"x")
    with pytest.raises(OutputError, match=f"^{tmp_path}: cannot write: Is a directory"):
        files.write(tmp_path, b"x")
    (tmp_path / "part").write_bytes(b"x")
    with pytest.raises(OutputError, match=f"^{tmp_path}: cannot write: Is a directory"):
        files.move_to_target(tmp_path / "part", tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_devices_are_written_to_and_never_replaced():
    with pytest.raises(OutputError, match="No space left"):
        files.write("/dev/full", b"x")
    files.write("/dev/null", b"x")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
