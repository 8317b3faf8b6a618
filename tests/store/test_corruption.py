"""A flipped bit anywhere is noticed, quarantined, said, and treated as a miss."""

import json
import random

import numpy as np
import pytest

from guda_cli.store import CorruptBlob, MissingBlob, StoreError, action_key
from tests.store.inside import blob_file

KEY = action_key("table", 1, {}, {})
ROWS = [action_key("row", 1, {"n": n}, {}) for n in range(6)]


def quarantined(store):
    return sorted(path.name.partition("-")[0] for path in (store.root / "quarantine").iterdir())


def places(path, count=12):
    """Positions all over a file: both ends and some in between."""
    size = path.stat().st_size
    return sorted({0, size - 1, *random.Random(size).choices(range(size), k=count)})


def test_flipped_bit_in_a_blob(store, flip):
    digest = store.put_bytes(b"a" * 1000)
    flip(blob_file(store, digest), 500)
    with pytest.raises(CorruptBlob) as caught:
        store.read_bytes(digest)
    assert caught.value.digest == digest
    assert caught.value.why
    assert caught.value.fix
    assert quarantined(store) == ["blob"]
    assert any(digest[:12] in notice for notice in store.notices)
    with pytest.raises(MissingBlob):
        store.read_bytes(digest)
    store.put_bytes(b"a" * 1000)
    assert store.read_bytes(digest) == b"a" * 1000


def test_corrupt_output_makes_its_action_a_miss_once_noticed(store, publish, flip):
    record = publish("op")
    flip(blob_file(store, record.outputs["out"]))
    with pytest.raises(CorruptBlob):
        store.read_bytes(record.outputs["out"])
    assert store.lookup(record.key) is None
    assert publish("op").outputs == record.outputs
    assert store.lookup(record.key) is not None


def test_a_bit_flipped_anywhere_in_a_record(store, publish, flip):
    record = publish("op")
    path = store.root / "actions" / f"{record.key}.json"
    for at in places(path):
        flip(path, at)
        assert store.lookup(record.key) is None, f"byte {at}"
        assert not path.exists()
        assert publish("op").key == record.key
        assert store.lookup(record.key) is not None
    assert set(quarantined(store)) == {"record"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b"[" * 9999, b"\xff\xfe", b"\0" * 400])
def test_garbage_for_a_record(store, publish, content):
    record = publish("op")
    (store.root / "actions" / f"{record.key}.json").write_bytes(content)
    assert store.lookup(record.key) is None
    assert quarantined(store) == ["record"]
    assert publish("op").outputs == record.outputs


def test_a_record_under_the_name_of_another(store, publish):
    first, second = publish("a"), publish("b")
    folder = store.root / "actions"
    (folder / f"{first.key}.json").write_bytes((folder / f"{second.key}.json").read_bytes())
    assert store.lookup(first.key) is None
    assert store.lookup(second.key) == second


def test_a_bit_flipped_anywhere_in_a_state(store, flip):
    path = store.root / "states" / f"{KEY}.state"
    store.save_state(KEY, 1, b"\n".join([b"old"] * 20))
    store.save_state(KEY, 2, b"new" * 20)
    for at in places(path):
        flip(path, at)
        assert store.load_state(KEY) == (1, b"\n".join([b"old"] * 20)), f"byte {at}"
        assert not path.exists()
        store.save_state(KEY, 2, b"new" * 20)
        assert store.load_state(KEY) == (2, b"new" * 20)


def test_truncated_states(store):
    store.save_state(KEY, 1, b"data" * 100)
    path = store.root / "states" / f"{KEY}.state"
    whole = path.read_bytes()
    for size in (0, 1, 200, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert store.load_state(KEY) is None
    assert quarantined(store) == ["state"] * 4


def test_a_state_under_the_name_of_another(store):
    store.save_state(KEY, 1, b"data")
    path = store.root / "states" / f"{KEY}.state"
    path.rename(path.with_name(f"{ROWS[0]}.state"))
    assert store.load_state(ROWS[0]) is None


def test_a_bit_flipped_in_a_document(store, flip):
    store.set_document("current", {"recipe": "toy"})
    flip(store.root / "documents" / "current.json", 20)
    assert store.get_document("current") is None
    assert quarantined(store) == ["document"]


def test_a_document_under_the_name_of_another(store):
    store.set_document("a", {"x": 1})
    folder = store.root / "documents"
    (folder / "a.json").rename(folder / "b.json")
    assert store.get_document("b") is None


def test_a_damaged_pin_still_pins(store, publish, flip):
    record = publish("op")
    store.pin(record.key, "keep")
    flip(store.root / "pins" / f"{record.key}.json", 10)
    assert list(store.pins()) == [record.key]
    assert store.gc(grace_seconds=-10).records == []


def segments_of(store):
    return sorted((store.root / "tables" / KEY).glob("?" * 64 + ".json"))


@pytest.mark.parametrize("position", [0.0, 0.3, 0.6, 0.99])
def test_a_bit_flipped_in_a_segment(store, flip, position):
    values = np.arange(6.0)
    for n in (0, 3):
        store.table_publish(KEY, {}, ROWS[n : n + 3], {"x": values[n : n + 3]}, {})
    digest = segments_of(store)[0].stem
    held = json.loads(segments_of(store)[0].read_bytes())["rows"]
    path = blob_file(store, digest)
    flip(path, int(path.stat().st_size * position))
    arrays, missing = store.table_read(KEY, ROWS)
    assert missing == held
    assert arrays["x"].tolist() == [values[n] for n, row in enumerate(ROWS) if row not in held]
    assert quarantined(store) == ["blob", "segment"]
    assert store.table_rows(KEY) == set(ROWS) - set(held)
    again = [ROWS.index(row) for row in missing]
    assert store.table_publish(KEY, {}, missing, {"x": values[again]}, {}) == digest
    assert store.table_read(KEY, ROWS)[0]["x"].tolist() == values.tolist()


def test_a_bit_flipped_in_a_segment_record_or_the_spec(store, flip):
    store.table_publish(KEY, {"a": 1}, ROWS, {"x": np.arange(6.0)}, {})
    flip(segments_of(store)[0], 40)
    assert store.table_rows(KEY) == set()
    assert store.table_read(KEY, ROWS) == ({}, ROWS)
    flip(store.root / "tables" / KEY / "table.json", 40)
    assert store.tables()[0]["spec"] is None
    store.table_publish(KEY, {"a": 1}, ROWS, {"x": np.arange(6.0)}, {})
    assert store.tables()[0]["spec"] == {"a": 1}
    assert store.table_read(KEY, ROWS)[1] == []


def test_verify_reports_everything(store, publish, flip):
    good, bad = publish("good"), publish("bad")
    lost = publish("lost")
    table = store.table_publish(KEY, {}, ROWS, {"x": np.arange(6.0)}, {})
    store.save_state(KEY, 1, b"data")
    store.set_document("doc", {})
    seen = []
    assert store.verify(lambda done, total: seen.append((done, total))).clean
    assert seen[-1][0] == seen[-1][1] == store.verify().bytes
    for digest in (bad.outputs["out"], table):
        flip(blob_file(store, digest))
    blob_file(store, lost.outputs["out"]).unlink()
    for name in (f"actions/{good.key}.json", f"states/{KEY}.state", "documents/doc.json"):
        flip(store.root / name, 30)
    (store.root / "blobs" / "sha256" / "notes.txt").write_text("stray")
    report = store.verify()
    assert not report.clean
    assert report.checked == 3
    owners = {entry.digest: (entry.actions, entry.tables) for entry in report.corrupt}
    assert owners == {bad.outputs["out"]: ([bad.key], []), table: ([], [KEY])}
    assert sorted(report.damaged_records) == sorted(
        [f"actions/{good.key}.json", f"states/{KEY}.state", "documents/doc.json", "blobs/sha256/notes.txt"]
    )
    assert [(each.owner, each.name) for each in report.missing_outputs] == [(lost.key, "out")]
    after = store.verify()
    assert (after.corrupt, after.damaged_records) == ([], [])
    assert {each.owner for each in after.missing_outputs} == {lost.key, bad.key}


def test_an_unreadable_file_is_an_error_not_damage(store, publish, monkeypatch):
    record = publish("op")

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    for ask, name in ((store.lookup, record.key), (store.read_bytes, record.outputs["out"])):
        with pytest.raises(StoreError, match="cannot read"):
            ask(name)
    assert quarantined(store) == []


def test_a_disk_that_cannot_read_is_damage(store, publish, monkeypatch):
    record = publish("op")

    def fail(self):
        raise OSError(5, "Input/output error", str(self))

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.read_bytes", fail)
        with pytest.raises(CorruptBlob):
            store.read_bytes(record.outputs["out"])
        assert store.lookup(record.key) is None
    assert quarantined(store) == ["blob", "record"]
