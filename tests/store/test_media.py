"""Media without permissions, hard links, locks or the syncing of folders hold a store."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from guda_cli.store import Store, StoreFull, StoreReadOnly, action_key, layout
from guda_cli.store.layout import place
from tests.store.inside import live_leases

KEY = action_key("op", 1, {}, {})


def refusing(code: int):
    def refuse(*arguments, **options):
        raise OSError(code, os.strerror(code))

    return refuse


def use(root: Path) -> Store:
    """Every way of writing, and of reading what was written."""
    store = Store.open(root)
    digest = store.put_bytes(b"blob")
    fields = {"operation": "op", "version": 1, "params": {}, "inputs": {}, "provenance": {}}
    record = store.publish(KEY, **fields, outputs={"out": digest})
    assert store.publish(KEY, **fields, outputs={"out": store.put_bytes(b"another")}) == record
    for step in range(3):
        store.save_state(KEY, step, b"state")
    store.set_document("doc", {"a": 1})
    store.pin(KEY)
    store.attend()
    for n in range(3):
        store.table_publish(KEY, {}, [f"row {n}"], {"x": np.array([float(n)])}, {})
    assert store.table_compact(KEY, above=1)
    with store.lease(KEY):
        assert KEY in {lease["key"] for lease in live_leases(store)}
    store.gc([KEY], dry_run=False, grace_seconds=-10)
    assert store.verify().clean
    assert store.lookup(KEY) == record
    assert store.table_read(KEY, ["row 2", "row 0"])[0]["x"].tolist() == [2.0, 0.0]
    return store


REFUSED = {
    "chmod": ("os.chmod", errno.EPERM),
    "chmod, by another word": ("os.chmod", errno.EOPNOTSUPP),
    "links": ("os.link", errno.EPERM),
    "links, by another word": ("os.link", errno.EACCES),
    "links, by a third": ("os.link", errno.ENOTTY),
    "locks": ("fcntl.flock", errno.ENOLCK),
    "locks, by another word": ("fcntl.flock", errno.ENOSYS),
    "times": ("os.utime", errno.EPERM),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_medium_without(tmp_path, monkeypatch, what):
    name, code = REFUSED[what]
    monkeypatch.setattr(name, refusing(code))
    use(tmp_path / "store")


def test_a_medium_with_none_of_them(tmp_path, monkeypatch):
    for name in ("chmod", "link"):
        monkeypatch.setattr(os, name, refusing(errno.EPERM))
    monkeypatch.setattr("fcntl.flock", refusing(errno.ENOTSUP))
    use(tmp_path / "store")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EBADF, errno.EACCES])
def test_a_medium_that_does_not_sync_folders(tmp_path, monkeypatch, code):
    before = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(code, os.strerror(code))
        before(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    use(tmp_path / "store")


def test_a_disk_that_fails_to_sync_a_folder_is_said(store, monkeypatch):
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    with pytest.raises(Exception, match="failed"):
        store.set_document("doc", {})


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, StoreFull), (errno.EROFS, StoreReadOnly)])
def test_what_is_no_lack_of_links_is_said(store, monkeypatch, code, error):
    monkeypatch.setattr(os, "link", refusing(code))
    with pytest.raises(error):
        store.publish(KEY, operation="op", version=1, params={}, inputs={}, outputs={}, provenance={})


def test_without_links_one_of_many_takes_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    for turn in range(20):
        target, won = tmp_path / f"target-{turn}", []
        for n in range(4):
            (tmp_path / f"{turn}-{n}").write_text(str(n))

        def take(n: int, turn: int = turn, target: Path = target, won: list[int] = won) -> None:
            if place(tmp_path / f"{turn}-{n}", target, exclusive=True):
                won.append(n)

        threads = [threading.Thread(target=take, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [target.read_text()] == [str(n) for n in won]
    assert not list(tmp_path.glob(".*.claim"))


def test_the_claim_of_a_process_that_was_killed_is_taken_over(store, monkeypatch):
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    monkeypatch.setattr(layout, "_CLAIM_SECONDS", 0.02)
    (store.root / "leases" / f".{KEY}.json.claim").touch()
    with store.lease(KEY, wait=False):
        assert len(live_leases(store)) == 1


def test_a_folder_whose_times_are_whole_seconds_shows_what_was_added(store, monkeypatch):
    from guda_cli.store import tables

    monkeypatch.setattr(tables, "_changed", lambda path: path.stat().st_mtime_ns // 10**9 * 10**9)
    rows = [f"row {n}" for n in range(2)]
    store.table_publish(KEY, {}, rows[:1], {"x": np.zeros(1)}, {})
    folder = store.root / "tables" / KEY
    os.utime(folder, (folder.stat().st_mtime - 1,) * 2)
    assert store.table_rows(KEY) == {rows[0]}
    now = folder.stat().st_mtime_ns
    Store.open(store.root).table_publish(KEY, {}, rows[1:], {"x": np.ones(1)}, {})
    os.utime(folder, ns=(now, now))  # within the same second, by this clock
    assert store.table_rows(KEY) == set(rows)


def test_a_part_of_the_store_that_cannot_be_written_makes_it_read_only(store, monkeypatch):
    before = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "states" not in str(path) and before(path, mode))
    opened = Store.open(store.root)
    assert opened.read_only
    with pytest.raises(StoreReadOnly):
        opened.require_writable("training")
