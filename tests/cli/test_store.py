"""`guda store ...` over a small store made through its own API."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guda_cli.session import Options, Session
from guda_cli.store import Store, action_key
from guda_cli.workflow.keys import steps
from tests.store.inside import blob_file

WHERE = ".guda"


def publish(store: Store, operation: str, data: bytes, inputs: dict[str, str] | None = None) -> str:
    """Record an action with one output; its key."""
    params = {"made": operation}
    key = action_key(operation, 1, params, inputs or {})
    store.publish(
        key, operation=operation, version=1, params=params, inputs=inputs or {},
        outputs={"weights": store.put_bytes(data)}, provenance={"what": f"the {operation}"},
    )  # fmt: skip
    return key


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / WHERE)


def flip(store: Store, key: str) -> Path:
    """Change one bit of a record's output."""
    record = store.lookup(key)
    assert record
    path = blob_file(store, record.outputs["weights"])
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    return path


class TestList:
    def test_no_store(self, guda, tmp_path: Path) -> None:
        done = guda("store", "ls", code=4)
        assert "there is no store" in done.stderr
        assert "guda train" in done.stderr
        assert not (tmp_path / WHERE).exists(), "looking must not make one"

    def test_an_empty_store(self, guda, store: Store, documents) -> None:
        assert "nothing in this store" in guda("store", "ls", code=0).stdout
        [document] = documents(guda("store", "ls", "--json", code=0).stdout)
        assert document["records"] == document["tables"] == []

    def test_records(self, guda, store: Store, documents) -> None:
        first, second = publish(store, "train", b"x" * 2048), publish(store, "unlearn", b"y")
        store.pin(second)
        text = guda("store", "ls", "--all", code=0).stdout
        assert first[:12] in text
        assert "the unlearn" in text
        assert "2.0 KB" in text
        [document] = documents(guda("store", "ls", "--json", code=0).stdout)
        assert [r["key"] for r in document["records"]] == [first, second]
        assert [r["pinned"] for r in document["records"]] == [False, True]
        assert document["records"][0]["bytes"] == 2048

    def test_is_a_line_a_kind(self, guda, store: Store) -> None:
        for i in range(100):
            publish(store, "unlearn", b"x" * 1024, {"n": f"{i:064x}"})
        key = publish(store, "train", b"y")
        store.pin(key)
        lines = guda("store", "ls", code=0).stdout.splitlines()
        assert len(lines) < 10
        rows = {line.split()[0]: line.split() for line in lines if line.startswith((" train", " unlearn"))}
        assert rows["unlearn"][:4] == ["unlearn", "100", "100.0", "KB"]
        assert "1" in rows["train"]
        assert len(guda("store", "ls", "unlearn", code=0).stdout.splitlines()) > 100
        narrow = guda("store", "ls", code=0, env={"COLUMNS": "60"}).stdout.splitlines()
        assert len(narrow) == len(lines)
        assert max(map(len, narrow[:-2])) <= 60
        assert "did you mean 'unlearn'" in guda("store", "ls", "unlern", code=2).stderr
        assert "nothing in this store of kind 'vae'" in guda("store", "ls", "vae", code=0).stdout

    def test_of_one_operation(self, guda, store: Store, documents) -> None:
        publish(store, "train", b"x")
        key = publish(store, "unlearn", b"y")
        [document] = documents(guda("store", "ls", "--operation", "unlearn", "--json", code=0).stdout)
        assert [r["key"] for r in document["records"]] == [key]

    def test_tables(self, guda, store: Store, documents) -> None:
        np = pytest.importorskip("numpy")
        key = action_key("elbo-table", 1, {}, {})
        store.table_publish(key, {"a": 1}, ["ab" * 32], {"terms": np.zeros((1, 2, 3))}, {})
        assert key[:12] in guda("store", "ls", "table", code=0).stdout
        [document] = documents(guda("store", "ls", "--json", code=0).stdout)
        [table] = document["tables"]
        assert (table["key"], table["rows"], table["segments"]) == (key, 1, 1)

    @pytest.mark.parametrize("how", ["option", "environment"])
    def test_where_the_store_is(self, guda, tmp_path: Path, documents, how: str) -> None:
        publish(Store.open(tmp_path / "other"), "train", b"x")
        Store.open(tmp_path / "third")
        if how == "option":
            done = guda("store", "ls", "--json", "--store", "other", env={"GUDA_STORE": "third"}, code=0)
        else:
            done = guda("store", "ls", "--json", env={"GUDA_STORE": "other"}, code=0)
        [document] = documents(done.stdout)
        assert len(document["records"]) == 1

    def test_a_folder_that_is_no_store(self, guda, tmp_path: Path) -> None:
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "file").touch()
        assert "is not a store" in guda("store", "ls", "--store", "x", code=3).stderr

    def test_another_format(self, guda, store: Store) -> None:
        (store.root / "format.json").write_text(json.dumps({"format": "guda-store", "version": 99}))
        assert "version 99" in guda("store", "ls", code=3).stderr


class TestShow:
    def test_by_the_beginning_of_a_key(self, guda, store: Store, documents) -> None:
        key = publish(store, "train", b"x", {"dataset": "ab" * 32})
        text = guda("store", "show", key[:8], code=0).stdout
        assert key in text
        assert "the train" in text
        [document] = documents(guda("store", "show", key[:8], "--json", code=0).stdout)
        assert document["key"] == key
        assert document["sizes"] == {"weights": 1}
        assert document["inputs"] == {"dataset": "ab" * 32}

    def test_unknown_and_short_keys(self, guda, store: Store) -> None:
        publish(store, "train", b"x")
        assert "guda store ls" in guda("store", "show", "0000000", code=3).stderr
        assert "too short" in guda("store", "show", "0", code=3).stderr


class TestVerify:
    def test_clean(self, guda, store: Store, documents) -> None:
        publish(store, "train", b"x")
        assert "as it was written" in guda("store", "verify", code=0).stdout
        [document] = documents(guda("store", "verify", "--json", code=0).stdout)
        assert document["clean"]
        assert document["checked"] == 1

    def test_a_flipped_bit(self, guda, store: Store, documents) -> None:
        key = publish(store, "train", b"x" * 100)
        path = flip(store, key)
        done = guda("store", "verify", code=5)
        assert "the train" in done.stdout or key[:12] in done.stdout
        assert "makes it again" in done.stdout
        assert not path.exists()
        assert len(list((store.root / "quarantine").iterdir())) == 1

    def test_a_flipped_bit_as_a_document(self, guda, store: Store, documents) -> None:
        key = publish(store, "train", b"x" * 100)
        flip(store, key)
        [document] = documents(guda("store", "verify", "--json", code=5).stdout)
        assert not document["clean"]
        assert [entry["actions"] for entry in document["corrupt"]] == [[key]]

    def test_a_damaged_record(self, guda, store: Store, documents) -> None:
        key = publish(store, "train", b"x")
        (store.root / "actions" / f"{key}.json").write_text("{}")
        [document] = documents(guda("store", "verify", "--json", code=5).stdout)
        assert document["damaged_records"]


@pytest.fixture
def in_use(store: Store) -> Store:
    """A store whose current recipe is `digits`, with its images read."""
    from guda_cli.workflow.project.project import Project

    session = Session(Options(store=store.root))
    recipe, source = session.recipe_and_source("digits")
    assert Project(recipe, session.open_store(), session.console).data.images == 1797
    session.make_current(recipe, source)
    return store


class TestGarbage:
    def test_is_only_listed_by_default(self, guda, in_use: Store, documents) -> None:
        key = publish(in_use, "train", b"x" * 100)
        text = guda("store", "gc", "--grace", "0", code=0).stdout
        assert "would be freed" in text
        assert "--force" in text
        [document] = documents(guda("store", "gc", "--grace", "0", "--json", code=0).stdout)
        assert not document["removed"]
        assert [r["name"] for r in document["records"]] == [key]
        assert in_use.lookup(key)

    def test_force_removes(self, guda, in_use: Store, documents) -> None:
        key = publish(in_use, "train", b"x" * 100)
        [document] = documents(guda("store", "gc", "--grace", "0", "--force", "--json", code=0).stdout)
        assert document["removed"]
        assert document["bytes"] >= 100
        assert in_use.lookup(key) is None
        assert "nothing to remove" in guda("store", "gc", "--grace", "0", code=0).stdout
        assert [record.operation for record in in_use.records()] == ["dataset"], "the current images stay"

    def test_young_and_pinned_records_stay(self, guda, in_use: Store) -> None:
        key = publish(in_use, "train", b"x" * 100)
        guda("store", "gc", "--force", code=0)
        assert in_use.lookup(key)
        guda("store", "pin", key[:8], "--note", "for the paper", code=0)
        guda("store", "gc", "--force", "--grace", "0", code=0)
        assert in_use.lookup(key)

    def test_without_a_current_recipe_every_record_stays(self, guda, store: Store) -> None:
        key = publish(store, "train", b"x" * 100)
        store.put_bytes(b"left over")
        done = guda("store", "gc", "--force", "--grace", "0", code=0)
        assert "every record stays" in done.stderr
        assert "9 B freed" in done.stdout
        assert store.lookup(key)

    def test_what_was_made_with_the_current_recipe_stays(self, guda, in_use: Store) -> None:
        """The full model, and what was made from it; not the model of other settings."""
        from guda_cli.workflow.project.project import Project

        session = Session(Options(store=in_use.root))
        project = Project(session.recipe(), session.open_store(), session.console)
        made = []
        for seed in (0, 1):
            recipe = Session(Options(store=in_use.root, sets=(f"train.seed={seed}",))).recipe()
            action = steps.train(recipe, project.data, None)
            outputs = {
                name: in_use.put_bytes(f"{name} {seed}".encode()) for name in ("weights", "config", "betas")
            }
            in_use.publish(
                action.key, operation="train", version=action.version, params=dict(action.params),
                inputs=dict(action.inputs), outputs=outputs, provenance={"what": "full model"},
            )  # fmt: skip
            scores = publish(in_use, f"score{seed}", b"z", {"full": outputs["weights"]})
            made.append({action.key, scores})
        guda("store", "gc", "--force", "--grace", "0", code=0)
        left = {record.key for record in in_use.records()}
        assert made[0] <= left
        assert not made[1] & left


class TestPins:
    def test_pin_and_unpin(self, guda, store: Store, documents) -> None:
        key = publish(store, "train", b"x")
        [document] = documents(guda("store", "pin", key[:8], "--note", "why", "--json", code=0).stdout)
        assert document == {"schema": "guda.store-pin/1", "key": key, "pinned": True, "note": "why"}
        assert store.pins()[key]["note"] == "why"
        assert key[:12] in guda("store", "unpin", key[:8], code=0).stdout
        assert store.pins() == {}

    def test_unpin_what_is_not_pinned(self, guda, store: Store) -> None:
        assert "nothing is pinned" in guda("store", "unpin", "abcd", code=4).stderr
        store.pin(publish(store, "train", b"x"))
        publish(store, "unlearn", b"x")
        assert "no record is called" in guda("store", "unpin", "the unlearn", code=3).stderr

    def test_by_name(self, guda, store: Store) -> None:
        key = publish(store, "train", b"x")
        guda("store", "pin", "the train", code=0)
        assert list(store.pins()) == [key]
        store.forget(key)  # of what is gone the key is left
        guda("store", "unpin", key[:6], code=0)
        assert store.pins() == {}


def test_a_read_only_store_can_be_looked_at(store: Store, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from guda_cli.app import run

    key = publish(store, "train", b"x")
    monkeypatch.setattr("guda_cli.store.layout.os.access", lambda *_: False)
    monkeypatch.setenv("GUDA_STORE", str(store.root))
    assert run(["store", "show", key[:8]]) == 0
    assert run(["store", "pin", key[:8]]) == 3
    assert "cannot be written" in capsys.readouterr().err
