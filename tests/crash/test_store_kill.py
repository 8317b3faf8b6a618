"""SIGKILL at every publish point and at random moments loses nothing that was published."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from guda_cli.store import Store, action_key
from guda_cli.store.crashpoints import POINTS

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")

SCRIPT = Path(__file__).with_name("store_workload.py")
RANDOM_KILLS = 16
LATER = ["before-write:6", "after-rename:5", "record-before-rename:2", "segment-after-rename:4"]


def load_workload():
    spec = importlib.util.spec_from_file_location("store_workload", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULE = load_workload()
WORKLOAD = MODULE.workload
FIRST = action_key("train", 1, {"number": 0}, {})
ROWS = set(MODULE.ROWS)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """What an uninterrupted run leaves, and the seconds it takes."""
    root = tmp_path_factory.mktemp("reference") / "store"
    WORKLOAD(tmp_path_factory.mktemp("warm") / "store")
    start = time.perf_counter()
    result = WORKLOAD(root)
    seconds = time.perf_counter() - start
    assert result["missing"] == result["states"] == result["temporary"] == result["notices"] == []
    assert len(result["records"]) == 2
    assert len(result["table files"]) == 2
    return result, seconds


def start(root, crash_at=None):
    environment = {name: value for name, value in os.environ.items() if name != "GUDA_TEST_CRASH_AT"}
    if crash_at:
        environment["GUDA_TEST_CRASH_AT"] = crash_at
    command = [sys.executable, str(SCRIPT), str(root)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def check(root, result):
    """The store is whole as it was left, and running again completes it."""
    if (root / "format.json").exists():
        store = Store.open(root, create=False)
        report = store.verify()
        assert report.clean, report
        for record in store.records():
            assert record.outputs == result["records"][record.key]
            assert store.lookup(record.key) == record
        assert store.notices == []
    assert WORKLOAD(root) == result
    assert Store.open(root).verify().clean


@pytest.mark.parametrize("crash_at", [f"{name}:1" for name in POINTS] + LATER)
def test_killed_at_a_publish_point(tmp_path, reference, crash_at):
    root = tmp_path / "store"
    child = start(root, crash_at)
    output, _ = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL, f"never passed {crash_at}: {output}"
    check(root, reference[0])


def state_step(store):
    found = store.load_state(FIRST)
    return found and found[0]


@pytest.mark.parametrize(
    ("crash_at", "look", "expected"),
    [
        ("state-before-rename:1", state_step, None),
        ("state-after-rename:1", state_step, 1),
        ("state-before-rename:2", state_step, 1),
        ("state-between-renames:2", state_step, 1),
        ("state-after-rename:2", state_step, 2),
        ("record-before-rename:1", lambda store: store.lookup(FIRST), None),
        ("record-after-rename:1", lambda store: store.lookup(FIRST).key, FIRST),
        ("document-before-rename:2", lambda store: store.get_document("current"), {"recipe": 0}),
        ("document-after-rename:2", lambda store: store.get_document("current"), {"recipe": 1}),
        ("segment-before-rename:2", lambda store: len(store.table_rows(MODULE.TABLE)), 2),
        ("segment-after-rename:2", lambda store: len(store.table_rows(MODULE.TABLE)), 4),
        ("compact-after-merge:1", lambda store: store.table_rows(MODULE.TABLE), ROWS),
        ("compact-between-removals:2", lambda store: store.table_rows(MODULE.TABLE), ROWS),
        ("gc-between-removals:2", lambda store: store.table_read(MODULE.TABLE, MODULE.ROWS)[1], []),
    ],
)
def test_what_was_published_before_the_kill_is_there(tmp_path, crash_at, look, expected):
    child = start(tmp_path / "store", crash_at)
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    store = Store.open(tmp_path / "store", create=False)
    assert look(store) == expected
    assert store.notices == []


@pytest.mark.parametrize("seed", range(RANDOM_KILLS))
def test_killed_at_a_random_moment(tmp_path, reference, seed):
    result, seconds = reference
    delay = seconds * random.Random(seed).uniform(0.0, 0.9)
    for attempt in range(20):
        root = tmp_path / f"store{attempt}"
        child = start(root)
        assert child.stdout.readline() == "started\n"
        time.sleep(delay)
        child.kill()
        child.communicate(timeout=60)
        if child.returncode == -signal.SIGKILL and root.exists():
            break
        delay *= 0.7 if child.returncode == 0 else 1.3
    assert child.returncode == -signal.SIGKILL
    check(root, result)


def test_killed_again_and_again(tmp_path, reference):
    """One store, killed at one point after the other, always further on, and then left to finish."""
    root = tmp_path / "store"
    kills = 0
    for crash_at in (
        "after-fsync:1",
        "state-between-renames:2",
        "after-rename:2",
        "record-after-rename:1",
        "segment-before-rename:2",
        "compact-between-removals:1",
    ):
        child = start(root, crash_at)
        child.communicate(timeout=60)
        kills += child.returncode == -signal.SIGKILL
        assert Store.open(root, create=False).verify().clean
    assert kills == 6
    check(root, reference[0])
