import contextlib
import os
import subprocess

import numpy as np
import pytest

from guda_cli.store import (
    CorruptBlob,
    Store,
    StoreError,
    StoreFormatError,
    StoreFull,
    StoreMissing,
    StoreReadOnly,
    action_key,
)
from guda_cli.store.files import read_only_error
from tests.store.inside import blob_file, live_leases

KEY = action_key("op", 1, {}, {})


def test_a_new_store_says_what_it_is(store):
    assert (store.root / "format.json").read_text() == '{"format":"guda-store","version":1}\n'
    assert not store.read_only
    assert Store.open(store.root, create=False).root == store.root


def test_a_missing_store_is_made_only_when_asked_for(tmp_path):
    for root in (tmp_path / "none", tmp_path):
        with pytest.raises(StoreMissing) as caught:
            Store.open(root, create=False)
        assert caught.value.fix
    assert list(tmp_path.iterdir()) == []
    Store.open(tmp_path / "a" / "b")
    Store.open(str(tmp_path / "a" / "c"))


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="not a store") as caught:
        Store.open(tmp_path)
    assert caught.value.why
    assert caught.value.fix
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(StoreError, match="not a folder"):
        Store.open(tmp_path / "thesis.tex")


def test_an_interrupted_creation_is_finished(tmp_path):
    (tmp_path / ".format.json.0123").write_text('{"form')
    store = Store.open(tmp_path)
    assert store.verify().clean
    store.gc(dry_run=False, grace_seconds=-10.0)
    assert not list(tmp_path.glob(".format.json.*"))


def test_many_processes_may_make_one_store(tmp_path, python):
    code = """
import sys
from guda_cli.store import Store
print("ready", flush=True)
sys.stdin.readline()
Store.open(sys.argv[1]).put_bytes(b"x")
"""
    children = [python(code, tmp_path / "store") for _ in range(4)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=60)
    assert [child.returncode for child in children] == [0] * 4


@pytest.mark.parametrize(
    ("version", "word", "fix"), [(2, "newer", "upgrade"), (0, "older", "release that made it")]
)
def test_other_versions_are_refused_with_what_to_do(store, version, word, fix):
    (store.root / "format.json").write_text(f'{{"format": "guda-store", "version": {version}}}')
    with pytest.raises(StoreFormatError, match=word) as caught:
        Store.open(store.root)
    assert fix in caught.value.fix


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "other", "version": 1}'])
def test_a_damaged_format_file_is_refused(store, text):
    (store.root / "format.json").write_text(text)
    with pytest.raises(StoreFormatError):
        Store.open(store.root)


def writes(store):
    """Every way of writing."""
    fields = {"operation": "op", "version": 1, "params": {}, "inputs": {}, "outputs": {}, "provenance": {}}
    yield lambda: store.put_bytes(b"new" * 30_000)
    yield lambda: store.publish(KEY, **fields)
    yield lambda: store.save_state(KEY, 1, b"x" * 90_000)
    yield lambda: store.set_document("doc", {"long": "x" * 90_000})
    yield lambda: store.pin(KEY, "x" * 90_000)
    yield lambda: store.table_publish(KEY, {}, ["aa"], {"x": np.zeros((1, 30_000))}, {})


def fill(path):
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while True:
            out.write(b"\0" * 4096)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 512 KiB; skipped where mounting is not permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_file_system_opens_read_only(small_disk, publish, flip):
    store = Store.open(small_disk / "store")
    record = publish("made", into=store)
    store.set_document("doc", {"a": 1})
    table = action_key("table", 1, {}, {})
    store.table_publish(table, {}, ["aa"], {"x": np.ones(1)}, {})
    flip(blob_file(store, store.put_bytes(b"bad")))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for write in writes(store):  # opened while it could be written
        with pytest.raises(StoreReadOnly):
            write()
    opened = Store.open(small_disk / "store")
    assert opened.read_only
    assert opened.lookup(record.key) == record
    assert opened.read_bytes(record.outputs["out"]) == b"made"
    assert opened.get_document("doc") == {"a": 1}
    assert opened.table_read(table, ["aa"])[0]["x"].tolist() == [1.0]
    with opened.lease(KEY):
        pass
    for write in writes(opened):
        with pytest.raises(StoreReadOnly) as caught:
            write()
        assert caught.value.fix
    for write in (lambda: opened.gc(dry_run=False), lambda: opened.forget(KEY), lambda: opened.unpin(KEY)):
        with pytest.raises(StoreReadOnly):
            write()
    assert len(opened.verify().corrupt) == 1
    assert "read-only" in opened.notices[0]
    with pytest.raises(CorruptBlob):
        opened.read_bytes(opened.verify().corrupt[0].digest)
    with pytest.raises(StoreReadOnly):
        Store.open(small_disk / "another")


def test_a_full_disk_leaves_nothing_half_written(small_disk, publish):
    store = Store.open(small_disk / "store")
    record = publish("made", b"x" * 90_000, into=store)
    ballast = small_disk / "ballast"
    fill(ballast)
    for write in writes(store):
        with pytest.raises(StoreFull) as caught:
            write()
        assert "space" in caught.value.message
        assert caught.value.why
        assert caught.value.fix
        assert list((store.root / "tmp").iterdir()) == []
    with pytest.raises(StoreFull):
        Store.open(small_disk / "another")
    ballast.unlink()
    assert store.verify().clean
    assert store.lookup(record.key) == record
    store.put_bytes(b"new" * 30_000)


@pytest.mark.parametrize("call", ["write", "fsync", "link"])
def test_a_full_disk_at_any_call(store, publish, monkeypatch, call):
    record = publish("made")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        fields = {
            "operation": "op",
            "version": 1,
            "params": {},
            "inputs": {},
            "outputs": {},
            "provenance": {},
        }
        with pytest.raises(StoreFull):
            store.publish(KEY, **fields)
        assert list((store.root / "tmp").iterdir()) == []
    assert store.lookup(KEY) is None or call == "fsync"
    assert store.lookup(record.key) == record


def test_file_systems_without_links_still_publish(store, publish, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    first = publish("op", b"one")
    assert publish("op", b"two") == first
    with store.lease(KEY):
        assert len(live_leases(store)) == 1
    assert live_leases(store) == []


def test_usage_counts_by_kind(store, publish):
    assert store.usage()["bytes"] == 0
    publish("op", b"12345")
    store.save_state(KEY, 1, b"state")
    usage = store.usage()
    assert usage["blobs"] == {"count": 1, "bytes": 5}
    assert usage["actions"]["count"] == usage["states"]["count"] == 1
    assert usage["quarantine"]["count"] == 0
    assert usage["bytes"] == sum(part["bytes"] for name, part in usage.items() if name != "bytes")


def test_a_refused_write_is_a_sentence(tmp_path):
    error = read_only_error("storing a blob", tmp_path, "why")
    assert error.message == f"the store {tmp_path} is read-only: storing a blob failed"
