import sqlite3
from contextlib import closing

import numpy as np
import pytest

from sempic.errors import OutputError
from sempic.evaluation.benchmark.cache import Cache, digest, key


def test_a_cache_keeps_values_and_refuses_other_files(tmp_path):
    with closing(Cache(tmp_path / "new/cache.sqlite")) as cache:
        assert cache.get("a") is None
        assert "a" not in cache
        cache.put("a", {"x": np.arange(3), "y": 2.5})
        assert "a" in cache
    with closing(Cache(tmp_path / "new/cache.sqlite")) as again:
        found = again.get("a")
    assert found["x"].tolist() == [0, 1, 2]
    assert found["y"] == 2.5
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cache"):
        Cache(tmp_path / "file/cache.sqlite")
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"file: the cache cannot be opened .*another kind"):
        Cache(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_damaged_cache_is_closed_again(tmp_path, monkeypatch):
    """Python 3.13 warns of connections that are left open."""
    closed = []
    monkeypatch.setattr(Cache, "close", lambda self: closed.append(self._db.close()))
    (tmp_path / "damaged").write_bytes(b"SQLite format 3\0" + bytes(100))
    with pytest.raises(OutputError, match=r"damaged: the cache cannot be opened"):
        Cache(tmp_path / "damaged")
    assert len(closed) == 1


def test_two_benchmarks_may_open_a_cache_at_the_same_moment(tmp_path):
    """SQLite does not wait for another process where it changes the mode of a new file."""
    with closing(sqlite3.connect(tmp_path / "cache.sqlite", isolation_level=None)) as other:
        other.execute("CREATE TABLE kept (key TEXT PRIMARY KEY, value BLOB)")
        other.execute("BEGIN IMMEDIATE")
        with closing(Cache(tmp_path / "cache.sqlite")) as cache:
            assert cache.get("a") is None
            other.execute("COMMIT")
            cache.put("a", {"x": 1})


def test_digests_depend_on_the_shape():
    row = np.arange(6, dtype=np.uint8)
    assert digest(row.reshape(2, 3)) != digest(row.reshape(3, 2))
    assert digest(row) == digest(row.copy())
    assert digest(None) == ""
    assert key("a", 1) != key("a1")


def test_a_full_disk_is_named(tmp_path):
    with closing(Cache(tmp_path / "cache.sqlite")) as kept:
        kept._db.execute("PRAGMA max_page_count = 4")
        with pytest.raises(
            OutputError, match=r"cache.sqlite: the cache cannot be written \(.* is full"
        ):
            kept.put("a", {"b": np.zeros(99999)})


@pytest.mark.parametrize("damage", [lambda d: b"no arrays", lambda d: d[:-9], lambda d: d[1:]])
def test_a_damaged_value_is_named(tmp_path, damage):
    with closing(Cache(tmp_path / "cache.sqlite")) as kept:
        kept.put("a", {"b": np.arange(9)})
        with closing(sqlite3.connect(tmp_path / "cache.sqlite")) as other, other:
            (value,) = other.execute("SELECT value FROM kept").fetchone()
            other.execute("UPDATE kept SET value = ?", (damage(value),))
        with pytest.raises(OutputError, match=r"cache.sqlite: the cache cannot be read"):
            kept.get("a")


@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_a_value_with_a_wrong_byte_is_right_or_named(tmp_path, byte):
    with closing(Cache(tmp_path / "cache.sqlite")) as kept:
        kept.put("a", {"b": np.arange(9)})
        (value,) = kept._db.execute("SELECT value FROM kept").fetchone()
        refused = 0
        for at in range(len(value)):
            kept._db.execute("UPDATE kept SET value = ?", (value[:at] + byte + value[at + 1 :],))
            try:
                kept.get("a")
            except OutputError:
                refused += 1
        assert refused > 20
