"""Garbage collection never takes what a live process uses, writes or is about to reuse."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from guda_cli.store import Store, action_key
from guda_cli.store.held import release_all
from guda_cli.store.lock import locked
from tests.store.inside import live_leases

NOW = -10.0  # a grace time in the future: everything is old enough
KEY = action_key("running", 1, {}, {})
OLD = 1_000_000_000  # seconds since 1970


@pytest.fixture(autouse=True)
def nothing_stays_held():
    yield
    release_all()


@pytest.fixture
def other(store: Store) -> Store:
    """The same store as another process sees it."""
    return Store.open(store.root)


def age(store: Store) -> None:
    for path in store.root.rglob("*"):
        if path.is_file() and "leases" not in path.parts:
            os.utime(path, (OLD, OLD))


USES = """
import sys
from guda_cli.store import Store
store = Store.open(sys.argv[1])
store.attend()
store.lookup(sys.argv[2])
print("in use", flush=True)
sys.stdin.readline()
"""


def test_what_another_process_looked_up_stays_while_it_lives(store, publish, python):
    data = publish("data")
    model, idle = publish("model", source=data.outputs["out"]), publish("idle")
    child = python(USES, store.root, model.key)
    assert child.stdout.readline() == "in use\n"
    age(store)
    assert [each.name for each in store.gc(dry_run=False).records] == [idle.key]
    assert list(store.records()) == [data, model]
    child.kill()
    child.wait()
    store.gc(dry_run=False)
    assert list(store.records()) == []
    assert not list((store.root / "leases").glob("*.json"))


def test_a_stopped_process_lives(store, publish, python):
    model = publish("model")
    child = python(USES, store.root, model.key)
    child.stdout.readline()
    os.kill(child.pid, signal.SIGSTOP)
    for path in store.root.rglob("*"):  # its heart does not beat
        if path.is_file():
            os.utime(path, (OLD, OLD))
    assert store.gc(dry_run=False).records == []
    os.kill(child.pid, signal.SIGCONT)


def test_the_collector_does_not_hold_what_it_looks_at(store, publish):
    model = publish("model")
    store.attend()
    store.lookup(model.key)
    assert len(live_leases(store)) == 1
    assert len(store.gc(dry_run=False, grace_seconds=NOW).records) == 1


def test_what_is_put_is_held_before_a_record_names_it(store, other):
    other.attend()
    digest = other.put_bytes(b"output")
    other.save_state(KEY, 3, b"state")
    table = action_key("table", 1, {}, {})
    other.table_publish(table, {}, ["aa"], {"x": np.ones(1)}, {})
    store.gc(table_roots=[], dry_run=False, grace_seconds=NOW)
    assert store.has_blob(digest)
    assert store.load_state(KEY) == (3, b"state")
    assert store.table_read(table, ["aa"])[1] == []
    release_all()
    store.gc(table_roots=[], dry_run=False, grace_seconds=NOW)
    assert not store.has_blob(digest)
    assert store.table_rows(table) == set()


def test_what_others_want_is_worked_out(store, other, publish):
    model, idle = publish("model"), publish("idle")
    other.attend()
    other.want({"recipe": "a"})

    def wanted(note):
        return ([model.key], []) if note == {"recipe": "a"} else ([], [])

    report = store.gc(dry_run=False, grace_seconds=NOW, wanted=wanted)
    assert [each.name for each in report.records] == [idle.key]
    assert store.gc(dry_run=False, grace_seconds=NOW, wanted=lambda note: None).records == []


def test_what_is_begun_to_be_used_during_a_collection_stays(store, other, publish, monkeypatch):
    """The second record is looked up after the marking, when the first has been removed."""
    from guda_cli.store import gc

    records = sorted([publish("a"), publish("b")], key=lambda record: record.key)
    other.attend()
    monkeypatch.setattr(gc, "_SLICE", 1)
    before = gc.unlink

    def removing(path: Path) -> bool:
        if path.stem == records[0].key:
            thread = threading.Thread(target=lambda: found.append(other.lookup(records[1].key)))
            thread.start()
            time.sleep(0.05)
            threads.append(thread)
        return before(path)

    found: list[object] = []
    threads: list[threading.Thread] = []
    monkeypatch.setattr(gc, "unlink", removing)
    store.gc(dry_run=False, grace_seconds=NOW)
    for thread in threads:
        thread.join()
    assert found == [store.lookup(records[1].key)]


def test_temporary_files_of_live_processes_stay(store, python):
    child = python("import sys; sys.stdin.readline()")
    tmp = store.root / "tmp"
    names = {
        "alive": f"{child.pid}-00ff",
        "own": f"{os.getpid()}-00ff.state",
        "no process": "4194303-00ff",
        "no number": "leftover",
        "too large": "9" * 30 + "-00ff",
        "older than its process": f"{child.pid}-old",
    }
    for name in names.values():
        (tmp / name).write_bytes(b"half")
    os.utime(tmp / names["older than its process"], (OLD, OLD))
    store.gc(dry_run=False, grace_seconds=NOW)
    assert {path.name for path in tmp.iterdir()} == {names["alive"], names["own"]}


def test_temporary_files_of_a_process_elsewhere_stay_by_its_lease(store):
    """Its number means nothing here, but its lease says that it lives."""
    (store.root / "tmp" / "4194303-00ff").write_bytes(b"half")
    lease = store.root / "leases" / f"{KEY}.json"
    lease.write_text('{"pid": 4194303, "host": "another machine", "stale_after": 30}')
    store.gc(dry_run=False, grace_seconds=0)
    assert list((store.root / "tmp").iterdir())
    os.utime(lease, (OLD, OLD))
    store.gc(dry_run=False, grace_seconds=NOW)
    assert not list((store.root / "tmp").iterdir())


def test_a_blob_that_is_reused_between_look_and_removal_is_there(store, other, publish, monkeypatch):
    from guda_cli.store import gc

    digest = store.put_bytes(b"old")
    age(store)
    before = gc.unlink
    threads = []

    def removing(path: Path) -> bool:
        threads.append(threading.Thread(target=lambda: publish("again", b"old", into=other)))
        threads[-1].start()
        time.sleep(0.05)
        return before(path)

    monkeypatch.setattr(gc, "unlink", removing)
    assert len(store.gc(dry_run=False).blobs) == 1
    threads[0].join()
    assert store.read_bytes(digest) == b"old"


REUSES = """
import os, sys, time
from guda_cli.store import Store, action_key
store, count = Store.open(sys.argv[1]), int(sys.argv[2])
blob = b"the same bytes"
digest = store.put_bytes(blob)
path = store.root / "blobs" / "sha256" / digest[:2] / digest
print("ready", flush=True)
for n in range(count):
    try:
        os.utime(path, (1, 1))
    except FileNotFoundError:
        pass
    key = action_key("make", 1, {"n": n}, {})
    outputs = {"out": store.put_bytes(blob)}
    fields = {"operation": "make", "version": 1, "params": {"n": n}, "inputs": {}, "provenance": {}}
    store.publish(key, **fields, outputs=outputs)
    assert store.read_bytes(digest) == blob
    store.forget(key)
"""


def test_a_blob_that_is_reused_is_not_taken(store, python):
    """Old blobs are reused and collected as fast as can be; nothing is told of what is used."""
    child = python(REUSES, store.root, 400)
    assert child.stdout.readline() == "ready\n"
    runs = 0
    while child.poll() is None:
        store.gc(dry_run=False, grace_seconds=3600.0)
        runs += 1
    assert child.returncode == 0
    assert runs > 5


def test_a_lock_that_nobody_gives_back_stops_nobody_for_long(tmp_path):
    with locked(tmp_path / "lock", exclusive=True):
        began = time.monotonic()
        with locked(tmp_path / "lock", exclusive=False, patience=0.05):
            pass
    assert 0.04 < time.monotonic() - began < 2


def test_a_fork_has_a_lease_of_its_own(store, publish):
    model, more = publish("model"), publish("more")
    store.attend()
    store.lookup(model.key)
    pid = os.fork()
    if pid == 0:
        store.lookup(more.key)
        release_all()
        os._exit(0)
    os.waitpid(pid, 0)
    [mine] = live_leases(store)
    assert mine["pid"] == os.getpid()
    assert mine["holds"] == [model.key]


def test_a_process_that_ends_leaves_no_lease(store, publish):
    code = USES.replace("sys.stdin.readline()", "")
    subprocess.run([sys.executable, "-c", code, str(store.root), publish("model").key], check=True)
    assert not list((store.root / "leases").glob("*.json"))


@pytest.mark.parametrize("kind", ["record", "segment"])
def test_what_a_process_published_and_ended_during_a_collection_is_whole(
    store, other, publish, monkeypatch, kind
):
    """Its lease is gone when the blobs are looked at, and its record was not there when records were."""
    from guda_cli.store.gc import Collector

    before = Collector._mark_survivors
    published = []

    def marking(self, marks, removed):
        before(self, marks, removed)
        if not published:
            other.attend()
            if kind == "record":
                published.append(publish("short", into=other))
            else:
                published.append(other.table_publish(KEY, {}, [KEY], {"a": np.zeros((1, 2))}, {}))
            release_all()

    monkeypatch.setattr(Collector, "_mark_survivors", marking)
    store.gc([], table_roots=[], dry_run=False, grace_seconds=NOW)
    assert published
    report = store.verify()
    assert report.clean, report


@pytest.mark.skipif(os.name != "posix", reason="no limit on the sizes of files")
def test_where_nothing_can_be_written_no_torn_lease_is_left(store, publish, python):
    record = publish("data")
    child = python(LIMITED, store.root, record.key)
    assert child.stdout.read() == "used\n"
    assert child.wait() == 0
    assert not list((store.root / "leases").glob("*.json"))


LIMITED = """
import os, resource, signal, sys
from guda_cli.store import Store
store = Store.open(sys.argv[1])
store.attend()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
assert store.lookup(sys.argv[2])
print("used", flush=True)
os._exit(0)
"""


@pytest.mark.skipif(os.name != "posix", reason="no limit on the sizes of files")
def test_a_torn_name_does_not_hide_the_next(store, publish, python):
    names = [publish(name).key for name in ("first", "torn", "third")]
    child = python(TORN, store.root, *names)
    assert child.stdout.readline() == "used\n"
    [lease] = live_leases(store)
    assert [name in lease["holds"] for name in names] == [True, False, True]
    child.communicate("\n")


TORN = """
import resource, signal, sys
from guda_cli.store import Store
store = Store.open(sys.argv[1])
store.attend()
first, torn, third = sys.argv[2:]
store.lookup(first)
[lease] = (store.root / "leases").glob("*.json")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (lease.stat().st_size + 30, before[1]))
store.lookup(torn)
resource.setrlimit(resource.RLIMIT_FSIZE, before)
store.lookup(third)
print("used", flush=True)
sys.stdin.readline()
"""
