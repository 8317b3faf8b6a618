import dataclasses

import pytest

from guda_cli.store import MissingBlob, StoreError, action_key
from tests.store.inside import blob_file


def test_record_comes_back_as_published(store, publish):
    record = publish("train", lr="ab")
    assert store.lookup(record.key) == record
    assert record.operation == "train"
    assert record.inputs == {"lr": "ab"}
    assert store.read_bytes(record.outputs["out"]) == b"train"
    assert record.created.endswith("+00:00")
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.key = "other"


def test_unknown_key_is_a_miss(store):
    assert store.lookup(action_key("none", 1, {}, {})) is None


def test_wrong_key_is_refused(store):
    with pytest.raises(ValueError, match="key"):
        store.publish("0" * 64, operation="op", version=1, params={}, inputs={}, outputs={}, provenance={})


def test_absent_output_is_refused(store):
    key = action_key("op", 1, {}, {})
    fields = {"operation": "op", "version": 1, "params": {}, "inputs": {}, "provenance": {}}
    with pytest.raises(MissingBlob):
        store.publish(key, outputs={"out": "0" * 64}, **fields)
    with pytest.raises(ValueError):
        store.publish(key, outputs={"out": "not a digest"}, **fields)
    assert store.lookup(key) is None


def test_the_first_record_stays(store, publish):
    first = publish("op", b"one")
    assert publish("op", b"two") == first
    assert store.lookup(first.key) == first


def test_lost_output_is_a_miss_and_can_be_repaired(store, publish):
    first = publish("op", b"one")
    blob_file(store, first.outputs["out"]).unlink()
    assert store.lookup(first.key) is None
    second = publish("op", b"two")
    assert second.outputs != first.outputs
    assert store.lookup(first.key) == second


def test_records_are_sorted_by_time(store, publish):
    made = [publish(name) for name in ("c", "a", "b")]
    assert list(store.records()) == made
    assert list(store.records("a")) == [made[1]]
    assert list(store.records("z")) == []


def test_forgotten_record_leaves_its_blob(store, publish):
    record = publish("op")
    store.forget(record.key)
    store.forget(record.key)
    assert store.lookup(record.key) is None
    assert store.has_blob(record.outputs["out"])


def test_resolving_prefixes(store, publish, monkeypatch):
    records = [publish(f"op{n}") for n in range(3)]
    for record in records:
        assert store.resolve(record.key) == record
        assert store.resolve(record.key[:16].upper()) == record
    for short in ("", "ab", records[0].key[:3]):
        with pytest.raises(StoreError, match="short"):
            store.resolve(short)
    with pytest.raises(StoreError, match="no record"):
        store.resolve("0000" * 16)


def test_ambiguous_prefix_names_the_candidates(store, publish):
    record = publish("op")
    twin = record.key[:20] + "0" * 44
    (store.root / "actions" / f"{twin}.json").write_bytes(b"{}")
    with pytest.raises(StoreError, match="2 records") as caught:
        store.resolve(record.key[:12])
    assert record.key[:20] in caught.value.why


def test_two_processes_publishing_one_key_agree(store, python):
    code = """
import sys
from guda_cli.store import Store, action_key
store = Store.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for n in range(20):
    key = action_key("race", 1, {"n": n}, {})
    out = store.put_bytes(f"{sys.argv[2]} {n}".encode())
    shared = store.put_bytes(f"shared {n}".encode() * 1000)
    record = store.publish(key, operation="race", version=1, params={"n": n}, inputs={},
                           outputs={"own": out, "shared": shared}, provenance={"who": sys.argv[2]})
    print(record.provenance["who"], record.outputs["own"])
"""
    children = [python(code, store.root, who) for who in "ab"]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    answers = [child.communicate(timeout=60)[0].splitlines() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert answers[0] == answers[1]
    kept = {f"{record.provenance['who']} {record.outputs['own']}" for record in store.records()}
    assert kept == set(answers[0])
    assert store.verify().clean
    assert not list((store.root / "tmp").iterdir())
