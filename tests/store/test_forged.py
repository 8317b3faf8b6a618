"""Files that somebody made up, with the right checksums or none: a clean error, never a hang."""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from guda_cli.store import Store, StoreError, StoreFormatError, action_key
from guda_cli.store.files import seal
from guda_cli.store.keys import canonical_json, sha256_hex
from tests.store.inside import blob_file

NOW = -10.0
KEY = action_key("table", 1, {}, {})
OTHER = action_key("another table", 1, {}, {})
ROWS = [action_key("row", 1, {"n": n}, {}) for n in range(3)]
DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def zero(path):
    path.symlink_to("/dev/zero")


def itself(path):
    path.symlink_to(path.name)


def nowhere(path):
    path.symlink_to("/nowhere/at/all")


def sparse(path):
    with path.open("wb") as file:
        file.truncate(1 << 34)


STRANGE = {
    "a link to a device": zero,
    "a link to itself": itself,
    "a link to nothing": nowhere,
    "a pipe": os.mkfifo,
    "a folder": lambda path: path.mkdir(),
    "deep JSON": lambda path: path.write_bytes(DEEP),
    "16 GB of nothing": sparse,
    "an empty file": lambda path: path.touch(),
}
PLACES = ["action", "table", "segment", "document", "pin", "state", "lease"]


def file_of(store, place, record):
    segment = next(iter((store.root / "tables" / KEY).glob("?" * 64 + ".json")))
    return {
        "action": store.root / "actions" / f"{record.key}.json",
        "table": store.root / "tables" / KEY / "table.json",
        "segment": segment,
        "document": store.root / "documents" / "current.json",
        "pin": store.root / "pins" / f"{record.key}.json",
        "state": store.root / "states" / f"{OTHER}.state",
        "lease": store.root / "leases" / f"{OTHER}.json",
    }[place]


def filled(store, publish):
    record = publish("op")
    store.table_publish(KEY, {}, ROWS, {"x": np.arange(3.0)}, {})
    store.set_safe_document("current", {"a": 1})
    store.pin(record.key)
    store.save_state(OTHER, 1, b"state")
    return record


def look(store, record):
    """Every way of reading; what is raised is the store's own."""
    for ask in (
        lambda: store.lookup(record.key),
        lambda: list(store.records()),
        lambda: store.table_read(KEY, ROWS),
        store.tables,
        lambda: store.get_document("current"),
        lambda: store.get_safe_document("current"),
        store.pins,
        lambda: store.state_step(OTHER),
        lambda: store.load_state(OTHER),
        store.usage,
        store.lost,
        store.verify,
        lambda: store.gc(grace_seconds=NOW),
        lambda: store.gc([record.key], dry_run=False, grace_seconds=3600),
    ):
        with contextlib.suppress(StoreError):
            ask()


@pytest.mark.parametrize("what", STRANGE)
@pytest.mark.parametrize("place", PLACES)
def test_something_else_in_the_place_of_a_file(store, publish, place, what):
    record = filled(store, publish)
    path = file_of(store, place, record)
    path.unlink(missing_ok=True)
    STRANGE[what](path)
    began = time.monotonic()
    look(store, record)
    assert time.monotonic() - began < 5
    assert publish("op").key == record.key
    store.set_safe_document("current", {"a": 2})
    assert store.get_document("current") == {"a": 2}
    store.save_state(OTHER, 2, b"again")
    assert store.load_state(OTHER) == (2, b"again")
    store.table_publish(KEY, {}, ROWS, {"x": np.arange(3.0)}, {})
    assert store.table_read(KEY, ROWS)[0]["x"].tolist() == [0.0, 1.0, 2.0]
    assert store.lookup(record.key) is not None


@pytest.mark.parametrize("what", ["a link to a device", "a link to nothing", "a pipe", "a folder"])
def test_something_else_in_the_place_of_a_blob(store, publish, what):
    record = filled(store, publish)
    path = blob_file(store, record.outputs["out"])
    path.unlink()
    STRANGE[what](path)
    with pytest.raises(StoreError):
        store.read_bytes(record.outputs["out"])
    look(store, record)
    assert publish("op").outputs == record.outputs
    assert store.read_bytes(record.outputs["out"]) == b"op"


@pytest.mark.parametrize(
    "what", ["a link to a device", "a pipe", "a folder", "deep JSON", "16 GB of nothing"]
)
def test_something_else_in_the_place_of_the_format(store, what):
    path = store.root / "format.json"
    path.unlink()
    STRANGE[what](path)
    with pytest.raises(StoreFormatError) as caught:
        Store.open(store.root)
    assert caught.value.fix


LEASES = {
    "holds a number": {"holds": 5},
    "holds anything": {"holds": [5, None, [1], {"a": 1}, "short"]},
    "a pid beyond all": {"pid": 10**30},
    "a pid below all": {"pid": -1},
    "a pid that is true": {"pid": True},
    "no patience": {"stale_after": -5},
    "patience without end": {"stale_after": 1e308},
    "patience that is text": {"stale_after": "30"},
    "no token": {"token": None},
}


@pytest.mark.parametrize("what", LEASES)
@pytest.mark.parametrize("here", [True, False])
def test_a_forged_lease_stops_nobody(store, publish, what, here):
    record = publish("op")
    me = {"host": os.uname().nodename, "pid": os.getpid()} if here else {}
    if here:
        me["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        me["space"] = str(Path("/proc/self/ns/pid").readlink())
    lease = store.root / "leases" / f"{KEY}.json"
    lease.write_bytes(json.dumps(me | LEASES[what]).encode())
    report = store.gc(dry_run=False, grace_seconds=NOW)
    assert [each.name for each in report.records] == [record.key]
    os.utime(lease, (1, 1))
    with store.lease(KEY, wait=False):
        pass


@pytest.mark.parametrize(
    "text", [b"NaN", b"5", b"[]", b"\xff", DEEP, b'{"stale_after": NaN}', b'{"pid": 1e999}']
)
def test_a_lease_that_is_no_lease_goes_when_it_is_old(store, text):
    lease = store.root / "leases" / f"{KEY}.json"
    lease.write_bytes(text)
    store.gc(dry_run=False)
    assert lease.exists()
    os.utime(lease, (1, 1))
    store.gc(dry_run=False)
    assert not lease.exists()


def test_a_heart_that_beats_in_the_future_has_stopped(store):
    lease = store.root / "leases" / f"{KEY}.json"
    lease.write_text("{}")
    os.utime(lease, (4_000_000_000, 4_000_000_000))
    with store.lease(KEY, wait=False):
        pass


def resealed(path, **changes):
    body = json.loads(path.read_bytes())
    del body["sha256"]
    path.write_bytes(seal(body | changes))


def test_a_table_under_the_name_of_another(store):
    for table, spec in ((KEY, {"a": 1}), (OTHER, {"b": 2})):
        store.table_publish(table, spec, ROWS, {"x": np.arange(3.0)}, {})
    folder = store.root / "tables"
    (folder / KEY / "table.json").write_bytes((folder / OTHER / "table.json").read_bytes())
    report = store.verify()
    assert report.damaged_records == [f"tables/{KEY}/table.json"]
    store.table_publish(KEY, {"a": 1}, ROWS, {"x": np.arange(3.0)}, {})
    assert store.table_specs() == {KEY: {"a": 1}, OTHER: {"b": 2}}
    assert store.verify().clean


SEGMENTS = {
    "rows in another order": {"rows": ROWS[::-1]},
    "rows of others": {"rows": ["aa", "bb", "cc"]},
    "fewer rows": {"rows": ROWS[:2]},
    "a row twice": {"rows": [ROWS[0]] * 3},
    "rows that are numbers": {"rows": [1, 2, 3]},
    "rows that are lists": {"rows": [[1], [2], [3]]},
    "no rows": {"rows": []},
    "other arrays": {"arrays": {"x": {"dtype": "<f4", "shape": []}}},
    "arrays that are none": {"arrays": 5},
    "other attributes": {"attrs": {"unit": "metres"}},
    "attributes that are none": {"attrs": None},
}


@pytest.mark.parametrize("what", SEGMENTS)
@pytest.mark.parametrize("verified", [True, False])
def test_a_segment_whose_record_says_something_else(store, what, verified):
    digest = store.table_publish(KEY, {}, ROWS, {"x": np.arange(3.0)}, {"unit": "nats"})
    path = store.root / "tables" / KEY / f"{digest}.json"
    resealed(path, **SEGMENTS[what])
    if verified:
        assert store.verify().damaged_records == [f"tables/{KEY}/{digest}.json"]
    arrays, missing = store.table_read(KEY, SEGMENTS[what].get("rows") if what == "rows of others" else ROWS)
    assert arrays == {}
    assert missing
    assert store.table_rows(KEY) == set()
    assert store.table_publish(KEY, {}, ROWS, {"x": np.arange(3.0)}, {"unit": "nats"}) == digest
    assert store.table_read(KEY, ROWS)[0]["x"].tolist() == [0.0, 1.0, 2.0]
    assert store.verify().clean


def hdf5(meta, fill):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        if meta is not None:
            file["meta"] = np.frombuffer(meta, dtype=np.uint8)
        fill(file.create_group("arrays"))
    return buffer.getvalue()


META = canonical_json({"attrs": {}, "rows": ROWS})


def endless(group):
    group.create_dataset("x", shape=(3, 1 << 40), dtype="f8", chunks=(1, 1024))


def outside(group):
    group["x"] = h5py.ExternalLink("/etc/passwd", "x")


def aside(group):
    group.create_dataset("x", shape=(3,), dtype="f8", external=[("/etc/passwd", 0, 24)])


BLOBS = {
    "no HDF5": b"no HDF5",
    "no meta": hdf5(None, lambda group: None),
    "meta that is a list": hdf5(b"[]", lambda group: None),
    "deep meta": hdf5(DEEP, lambda group: None),
    "meta without rows": hdf5(b'{"attrs": {}}', lambda group: None),
    "rows that are a number": hdf5(b'{"attrs": {}, "rows": 5}', lambda group: None),
    "arrays without end": hdf5(META, endless),
    "a link to another file": hdf5(META, outside),
    "numbers of another file": hdf5(META, aside),
    "fewer numbers than rows": hdf5(META, lambda group: group.create_dataset("x", data=np.zeros(2))),
    "a group for an array": hdf5(META, lambda group: group.create_group("x")),
}


@pytest.mark.parametrize("what", BLOBS)
def test_a_segment_that_is_none(store, what):
    digest = store.put_bytes(BLOBS[what])
    body = {"table": KEY, "blob": digest, "rows": ROWS, "attrs": {}}
    body["arrays"] = {"x": {"dtype": "<f8", "shape": [1 << 40] if what == "arrays without end" else []}}
    store.table_publish(KEY, {}, ["aa"], {"x": np.zeros(1)}, {})
    (store.root / "tables" / KEY / f"{digest}.json").write_bytes(seal(body))
    assert store.table_read(KEY, ROWS) == ({}, ROWS)
    assert store.table_rows(KEY) == {"aa"}


STATES = [b"5", b"[]", b"{}", b'{"step": "a"}', b'{"step": -1}', b'{"step": true}', DEEP, b"\xff"]


@pytest.mark.parametrize("head", STATES)
def test_a_state_with_a_forged_head(store, head):
    path = store.root / "states" / f"{KEY}.state"
    if head.startswith(b'{"step'):
        data = json.loads(head) | {"key": KEY, "size": 4, "data": sha256_hex(b"data")}
        head = canonical_json(data)
    path.write_bytes(head + b" " + sha256_hex(head).encode() + b"\ndata")
    assert store.state_step(KEY) is None
    assert store.load_state(KEY) is None
    assert not path.exists()
    store.save_state(KEY, 1, b"data")
    assert store.load_state(KEY) == (1, b"data")


def test_an_action_nested_too_deep_for_its_key(store):
    params: object = 1
    for _ in range(900):
        params = [params]
    body = {"operation": "op", "version": 1, "params": {"a": params}, "inputs": {}, "outputs": {}}
    body |= {"provenance": {}, "created": "now", "key": KEY}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    checksum = sha256_hex(text.encode())
    sealed = json.dumps({**body, "sha256": checksum}, sort_keys=True, separators=(",", ":")) + "\n"
    (store.root / "actions" / f"{KEY}.json").write_text(sealed)
    assert store.lookup(KEY) is None
    assert list(store.records()) == []


LITTER = [
    "current (conflicted copy).json",
    "current (Anna's conflicted copy 2026-01-01).json",
    "._current.json",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    "current.sync-conflict-20260101-120000-ABCDEFG.json",
    "~current.json",
    "current (1).json",
]


@pytest.mark.parametrize("name", LITTER)
def test_what_desktops_and_synchronising_leave_is_passed_over(store, publish, name):
    record = filled(store, publish)
    for folder in sorted(path for path in store.root.rglob("*") if path.is_dir()):
        (folder / name).write_bytes(b"whatever")
    store.lookup(record.key)
    report = store.verify()
    assert report.clean, report
    store.gc([record.key], dry_run=False, grace_seconds=3600)
    assert store.get_document("current") == {"a": 1}
    assert list(store.pins()) == [record.key]


def test_a_folder_with_a_desktops_litter_becomes_a_store(tmp_path):
    (tmp_path / ".DS_Store").touch()
    Store.open(tmp_path).put_bytes(b"x")


def test_a_document_that_is_there_twice_survives_one_bit(store, flip):
    for name in ("current.json", "current.copy.json"):
        store.set_safe_document("current", {"recipe": "mine"})
        flip(store.root / "documents" / name, 30)
        assert Store.open(store.root).get_safe_document("current") == {"recipe": "mine"}
        assert store.get_document("current") == store.get_document("current.copy") == {"recipe": "mine"}
    for name in ("current.json", "current.copy.json"):
        flip(store.root / "documents" / name, 30)
    assert store.get_safe_document("current") is None


def test_a_document_of_an_older_store_gets_its_copy(store, flip):
    store.set_document("current", {"recipe": "mine"})
    assert store.get_safe_document("current") == {"recipe": "mine"}
    flip(store.root / "documents" / "current.json", 30)
    assert store.get_safe_document("current") == {"recipe": "mine"}


def test_what_was_lost_is_known_until_it_is_made_again(store, publish, flip):
    first, second, whole = publish("first"), publish("second"), publish("whole")
    assert store.lost() == []
    flip(store.root / "actions" / f"{first.key}.json", 30)
    flip(blob_file(store, second.outputs["out"]))
    store.verify()
    assert {loss.key for loss in store.lost()} == {first.key, second.key}
    publish("first")
    assert [(loss.key, loss.what) for loss in store.lost()] == [(second.key, "second")]
    publish("second")
    assert store.lost() == []
    assert store.lookup(whole.key) is not None
