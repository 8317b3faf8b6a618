import os
import time

import numpy as np
import pytest

from guda_cli.store import action_key
from tests.store.inside import blob_file

NOW = -10.0  # a grace time in the future: everything is old enough
TABLE = action_key("table", 1, {}, {})


def names(removed):
    return {each.name for each in removed}


@pytest.fixture
def chain(publish):
    """data <- model <- unlearned, and a model of its own."""
    data = publish("data")
    model = publish("model", data=data and b"model", source=data.outputs["out"])
    unlearned = publish("unlearned", b"unlearned", model=model.outputs["out"])
    return data, model, unlearned, publish("other")


def test_dry_run_lists_and_keeps(store, chain):
    before = store.usage()
    report = store.gc(grace_seconds=NOW)
    assert report.dry_run
    assert names(report.records) == {record.key for record in chain}
    assert names(report.blobs) == {record.outputs["out"] for record in chain}
    assert report.bytes == sum(each.bytes for each in report.records + report.blobs) > 0
    assert store.usage() == before


def test_roots_keep_all_they_were_made_from(store, chain):
    data, model, unlearned, other = chain
    report = store.gc([unlearned.key], dry_run=False, grace_seconds=NOW)
    assert names(report.records) == {other.key}
    assert names(report.blobs) == {other.outputs["out"]}
    assert list(store.records()) == [data, model, unlearned]
    assert not store.has_blob(other.outputs["out"])
    assert store.verify().clean


def test_ancestors_do_not_keep_descendants(store, chain):
    data, model, *_ = chain
    store.gc([model.key], dry_run=False, grace_seconds=NOW)
    assert list(store.records()) == [data, model]


def test_inputs_may_be_action_keys_or_plain_blobs(store, publish):
    loose = store.put_bytes(b"a blob no record made")
    first = publish("first")
    second = publish("second", parent=first.key, extra=loose)
    report = store.gc([second.key], dry_run=False, grace_seconds=NOW)
    assert report.records == report.blobs == []


def test_a_blob_may_be_a_root(store, chain):
    data, model, *_ = chain
    store.gc([model.outputs["out"]], dry_run=False, grace_seconds=NOW)
    assert list(store.records()) == [data, model]


def test_pins_keep(store, chain):
    *_, other = chain
    store.pin(other.key, "for the paper")
    assert store.pins()[other.key]["note"] == "for the paper"
    store.gc(dry_run=False, grace_seconds=NOW)
    assert list(store.records()) == [other]
    store.unpin(other.key)
    store.unpin(other.key)
    store.gc(dry_run=False, grace_seconds=NOW)
    assert list(store.records()) == []


def test_a_live_lease_keeps_its_key_state_and_what_it_holds(store, chain):
    data, model, *_ = chain
    key = action_key("running", 1, {}, {})
    store.save_state(key, 3, b"state")
    with store.lease(key, holds=[model.key]):
        store.gc(dry_run=False, grace_seconds=NOW)
        assert list(store.records()) == [data, model]
        assert store.load_state(key) == (3, b"state")
    report = store.gc(dry_run=False, grace_seconds=NOW)
    assert names(report.states) == {key}
    assert store.load_state(key) is None


def test_the_state_of_a_finished_action_goes(store, publish):
    record = publish("op")
    store.save_state(record.key, 3, b"state")
    store.gc([record.key], dry_run=False)
    assert store.load_state(record.key) == (3, b"state")
    report = store.gc([record.key], dry_run=False, grace_seconds=NOW)
    assert names(report.states) == {record.key}
    assert list(store.records()) == [record]


def test_nothing_young_goes(store, chain):
    (store.root / "tmp" / "leftover").write_bytes(b"half")
    report = store.gc(dry_run=False)
    assert report.bytes == 0
    assert len(list(store.records())) == 4


def test_a_young_record_keeps_its_old_blob(store, publish):
    record = publish("op")
    path = blob_file(store, record.outputs["out"])
    os.utime(path, (1, 1))
    store.gc(dry_run=False, grace_seconds=100)
    assert store.lookup(record.key) is not None


def test_reused_blobs_are_young_again(store):
    digest = store.put_bytes(b"reused")
    os.utime(blob_file(store, digest), (1, 1))
    store.put_bytes(b"reused")
    assert store.gc(dry_run=False, grace_seconds=100).blobs == []


def test_old_temporary_files_and_dead_leases_go(store):
    old = store.root / "tmp" / "leftover"
    old.write_bytes(b"half")
    lease = store.root / "leases" / f"{TABLE}.json"
    lease.write_text('{"pid": 1, "host": "gone"}')
    for path in (old, lease):
        os.utime(path, (1, 1))
    assert names(store.gc().temp) == {old.name, lease.name}
    assert old.exists()
    store.gc(dry_run=False)
    assert not old.exists()
    assert not lease.exists()


def fill(store, table, count=3):
    for n in range(count):
        store.table_publish(table, {}, [f"{n:064x}"], {"x": np.array([float(n)])}, {})


def test_tables_stay_unless_roots_are_given(store):
    other = action_key("other table", 1, {}, {})
    fill(store, TABLE)
    fill(store, other, 2)
    assert store.gc(dry_run=False, grace_seconds=NOW).bytes == 0
    store.gc(table_roots=[TABLE], dry_run=False, grace_seconds=NOW)
    assert len(store.table_rows(TABLE)) == 3
    assert store.table_rows(other) == set()
    assert store.verify().clean
    assert [table["table"] for table in store.tables()] == [TABLE]


def test_merged_segments_are_collected(store):
    fill(store, TABLE)
    assert store.table_compact(TABLE, above=2)
    report = store.gc(dry_run=False, grace_seconds=NOW)
    assert len(report.blobs) == 3
    rows = [f"{n:064x}" for n in range(3)]
    assert store.table_read(TABLE, rows)[0]["x"].tolist() == [0.0, 1.0, 2.0]


def test_collection_keeps_documents_and_quarantine(store, flip):
    store.set_document("current", {"a": 1})
    digest = store.put_bytes(b"bad")
    flip(blob_file(store, digest))
    store.verify()
    store.gc(dry_run=False, grace_seconds=NOW)
    assert store.get_document("current") == {"a": 1}
    assert store.usage()["quarantine"]["count"] == 1


def test_grace_is_measured_by_age(store):
    digest = store.put_bytes(b"x")
    path = blob_file(store, digest)
    for age, stays in ((50, True), (150, False)):
        os.utime(path, (time.time() - age,) * 2)
        store.gc(dry_run=False, grace_seconds=100)
        assert path.exists() == stays
