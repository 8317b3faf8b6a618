"""What a process keeps of files, and for how long."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from guda_cli.store import CorruptBlob, Store, memory
from guda_cli.store.memory import Memory
from tests.store.inside import blob_file

LATER = 10_000_000_000  # nanoseconds


def length(data: bytes) -> list[int]:
    """A value that can be told from an equal one."""
    return [len(data)]


def text(path: Path) -> list[str]:
    return [path.read_text()]


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """This process keeps what it reads."""
    monkeypatch.setattr(memory, "_shared", None)  # and so it is again afterwards
    return memory.keep(1 << 20)


def test_what_is_made_of_a_blob_is_kept_between_stores(tmp_path: Path, keeping: Memory) -> None:
    digest = Store.open(tmp_path / "s").put_bytes(b"four")
    time.sleep(0.05)  # until its times are settled
    first = Store.open(tmp_path / "s").parsed(digest, length)
    assert first == [4]
    assert Store.open(tmp_path / "s").parsed(digest, length) is first
    assert keeping.missed == [
        ("bytes tests.store.test_memory:length", str(blob_file(Store.open(tmp_path / "s"), digest)))
    ]


def test_a_plain_process_keeps_no_blobs(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s")
    digest = store.put_bytes(b"four")
    assert store.parsed(digest, length) is not store.parsed(digest, length)


def test_damage_is_noticed_though_it_was_kept(tmp_path: Path, keeping: Memory) -> None:
    store = Store.open(tmp_path / "s")
    digest = store.put_bytes(b"four")
    assert store.read_bytes(digest) == b"four"
    path = blob_file(store, digest)
    path.chmod(0o644)
    path.write_bytes(b"five")
    os.utime(path, ns=(LATER, LATER))
    with pytest.raises(CorruptBlob):
        Store.open(tmp_path / "s").read_bytes(digest)


def test_segments_of_a_table_are_read_once(tmp_path: Path, keeping: Memory) -> None:
    """And what others add is seen."""
    table, rows = "a" * 64, ["b" * 64, "c" * 64]
    store, other = Store.open(tmp_path / "s"), Store.open(tmp_path / "s")
    store.table_publish(table, {}, rows, {"x": np.arange(6.0).reshape(2, 3)}, {})
    time.sleep(0.05)  # until its times are settled
    for wanted in (rows, rows[1:], rows[:1]):
        found, missing = Store.open(tmp_path / "s").table_read(table, wanted)
        assert missing == []
        assert (
            found["x"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]][rows.index(wanted[0]) :][: len(wanted)]
        )
    made = [maker for maker, _ in keeping.missed if maker == "path guda_cli.store.segments:read"]
    assert len(made) == 1
    other.table_publish(table, {}, ["d" * 64], {"x": np.zeros((1, 3))}, {})
    assert store.table_rows(table) == {*rows, "d" * 64}


def test_records_are_read_anew_when_they_were_replaced(tmp_path: Path) -> None:
    kept, path = Memory(), tmp_path / "file"
    path.write_text("one")
    first = kept.small(path, text)
    assert kept.small(path, text) is first
    path.write_text("another")
    assert kept.small(path, text) == ["another"]
    path.unlink()
    with pytest.raises(FileNotFoundError):
        kept.small(path, text)


def test_no_more_is_kept_than_allowed(tmp_path: Path) -> None:
    kept = Memory(10)
    paths = [tmp_path / str(i) for i in range(3)]
    for path in paths:
        path.write_text("five!")
    time.sleep(0.05)  # until their times are settled
    first = [kept.large(path, text) for path in paths]
    assert kept.large(paths[2], text) is first[2]
    assert kept.large(paths[0], text) is not first[0]


def test_another_process_reads_what_was_missed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    mine, theirs = Memory(100), Memory(100)
    time.sleep(0.05)  # until its times are settled
    theirs.large(path, text)
    for missed in theirs.missed:
        mine.recall(*missed)
    first = mine.large(path, text)
    assert mine.missed == theirs.missed
    path.write_text("another")
    mine.forget_stale()
    assert mine.large(path, text) is not first


def test_a_file_that_has_just_changed_is_not_kept(tmp_path: Path, keeping: Memory) -> None:
    """It may change again without any other time."""
    path = tmp_path / "x"
    for number in range(100):
        path.write_text(f"{number:03}")
        assert keeping.large(path, text) == [f"{number:03}"]
    now = path.stat().st_ctime_ns
    assert not memory._settled((1, 3, now, now), now + 1_000_000)
    assert memory._settled((1, 3, now, now), now + 50_000_000)
    whole = now - now % 1_000_000_000
    assert not memory._settled((1, 3, whole, whole), whole + 1_900_000_000)
    assert memory._settled((1, 3, whole, whole), whole + 2_100_000_000)
