"""Power cuts: after every single write of a store, whatever of it reached the disk, it is sound."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from guda_cli.store import Store, StoreError, action_key
from guda_cli.store import files as store_files
from tests.store.power import Disk, put_back, traced

TABLE = action_key("elbo", 1, {"grid": 4}, {})
ROWS = [hashlib.sha256(b"query %d" % n).hexdigest() for n in range(4)]
Check = Callable[[Store], bool]


@dataclass
class Promises:
    """What a call that returned has promised, from which step on, and until which."""

    disk: Disk
    made: dict[str, tuple[int, int | None, Check]] = field(default_factory=dict)

    def make(self, name: str, check: Check) -> None:
        self.made[name] = self.disk.steps, None, check

    def end(self, name: str) -> None:
        since, _, check = self.made[name]
        self.made[name] = since, self.disk.steps, check

    def at(self, step: int) -> dict[str, Check]:
        return {
            name: check
            for name, (since, until, check) in self.made.items()
            if since <= step and (until is None or step <= until)
        }


def train(store: Store, number: int, inputs: dict[str, str]) -> tuple[str, str]:
    """Key and output of a small action, in two saved steps."""
    params = {"number": number}
    key = action_key("train", 1, params, inputs)
    with store.lease(key):
        for step in (1, 2):
            store.save_state(key, step, b"%d" % step * 50)
        output = store.put_bytes(b"model %d" % number)
        store.publish(
            key, operation="train", version=1, params=params, inputs=inputs,
            outputs={"model": output}, provenance={},
        )  # fmt: skip
    return key, output


def use(root: Path, promises: Promises | None = None) -> None:
    """Everything that is ever done to a store, in small."""

    def keep(name: str, check: Check) -> None:
        if promises is not None:
            promises.make(name, check)

    store = Store.open(root)
    keep("the store", lambda found: True)
    store.attend()
    parent: dict[str, str] = {}
    keys = []
    for number in range(2):
        key, output = train(store, number, parent)
        parent, keys = {"parent": output}, [*keys, key]
        keep(f"record {number}", lambda found, key=key: found.lookup(key) is not None)
        store.drop_state(key)
        store.set_document("current", {"recipe": number})
        store.set_safe_document("safe", {"recipe": number})
        keep(
            f"documents {number}",
            lambda found, number=number: (
                (found.get_document("current") or {"recipe": -1})["recipe"] >= number
                and (found.get_safe_document("safe") or {"recipe": -1})["recipe"] >= number
            ),
        )
    half = action_key("train", 1, {"number": 7}, {})
    for step in (1, 2, 3):
        store.save_state(half, step, b"half %d" % step)
        # What the format says of two renames: the previous one, at the least.
        keep(f"state {step}", lambda found, step=step: (found.load_state(half) or (0, b""))[0] >= step)
    store.pin(half, "keep")
    keep("pin", lambda found: half in found.pins())
    for start in (0, 2):
        block = ROWS[start : start + 2]
        values = {"terms": np.full((2, 3), float(start))}
        store.table_publish(TABLE, {"grid": 4}, block, values, {"model": "full"})
        keep(f"rows {start}", lambda found, block=block: not found.table_read(TABLE, block)[1])
    store.table_compact(TABLE, above=1)
    if promises is not None:
        promises.end("record 1")
    store.gc([keys[0], half], dry_run=False, grace_seconds=-10.0)
    store._layout.held.release()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[Disk, Promises]]:
    """Use a store, traced; the disk and the promises."""

    def call() -> tuple[Disk, Promises]:
        top = tmp_path / "disk"
        top.mkdir()
        with traced(top, monkeypatch) as disk:
            promises = Promises(disk)
            use(top / "store", promises)
        return disk, promises

    return call


def faults(disk: Disk, promises: Promises, folder: Path) -> list[str]:
    """What is wrong after the first power cut that harms, with when it was and what it lost."""
    found: list[str] = []
    for number, (step, lost, tree) in enumerate(disk.trees):
        if found:
            break
        top = folder / str(number)
        top.mkdir(parents=True)
        put_back(tree, top)
        kept = promises.at(step)
        where = f"after step {step}, {lost} lost"
        if kept and not (top / "store" / "format.json").is_file():
            found.append(f"{where}: no store")
            continue
        try:
            store = Store.open(top / "store")
            report = store.verify()
            found += [f"{where}: {name} is broken" for name, check in kept.items() if not check(store)]
        except StoreError as error:
            found.append(f"{where}: {error}")
            continue
        if not report.clean:
            found.append(f"{where}: {report}")
        if number % 16 == 0:
            use(top / "store")
            if not Store.open(top / "store").verify().clean:
                found.append(f"{where}: cannot be gone on from")
        shutil.rmtree(top)
    return found


def test_every_power_cut_leaves_a_sound_store(
    run: Callable[[], tuple[Disk, Promises]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, promises = run()
    assert disk.steps > 150
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    _, lost, last = [each for each in disk.trees if each[1] == "nothing"][-1]
    real = {
        str(path.relative_to(disk.top)): path.read_bytes() if path.is_file() else None
        for path in disk.top.rglob("*")
    }
    assert real == last, f"not all that was written was seen ({lost})"
    assert faults(disk, promises, tmp_path / "cut") == []


@pytest.mark.parametrize("forgotten", ["fsync_folder", "fsync_file"])
def test_what_is_not_synced_would_be_noticed(
    run: Callable[[], tuple[Disk, Promises]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    from guda_cli.store import actions, blobs, gc, layout, states

    for module in (store_files, actions, blobs, gc, layout, states):
        if hasattr(module, forgotten):
            monkeypatch.setattr(module, forgotten, lambda path: None)
    disk, promises = run()
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    assert faults(disk, promises, tmp_path / "cut")
