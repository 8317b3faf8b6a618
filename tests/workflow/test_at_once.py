"""Several models at once: the same as one after the other, whatever happens to the processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from guda_cli import memory, processors
from guda_cli.console import Console
from guda_cli.sections import Recipe
from guda_cli.settings.lookup import load
from guda_cli.store import Store
from guda_cli.store.leases import running
from guda_cli.workflow.keys.operations import TRAIN, UNLEARN, Action
from guda_cli.workflow.project import sharing
from guda_cli.workflow.project.project import Project
from tests.store.inside import live_leases
from tests.workflow import processes
from tests.workflow.fixtures import GROUPS, Cli, here

ALL = ["unlearn", "--all", "--no-null"]
OTHER = ["--set", "unlearn.seed=7"]  # than the template's, of which nothing is in the store
LONG = [*OTHER, "--set", "unlearn.steps=100"]


def weights(document: dict[str, Any]) -> dict[str, str]:
    return {model["group"]: model["weights"] for model in document["models"]}


def workers_at(store: Path, keys: set[str]) -> dict[str, int]:
    """The process that makes each of these models now."""
    held = live_leases(Store.open(store))
    return {lease["key"]: lease["pid"] for lease in held if lease["key"] in keys}


def test_what_workers_make_is_the_same(cli: Cli, project: Path) -> None:
    shutil.copytree(".guda", "alone")
    one = cli(*ALL, *OTHER, "--jobs", 1, "--json", "--store", "alone").document
    many = cli(*ALL, *OTHER, "--jobs", 3, "--json", "--verbose")
    assert "3 models are made at once" in many.stderr
    assert many.stderr.count(": done, ") == len(GROUPS)
    assert many.document["ran"] == one["ran"] == len(GROUPS)
    assert list(weights(many.document)) == list(GROUPS)
    assert weights(many.document) == weights(one)
    assert [m["check"] for m in many.document["models"]] == [m["check"] for m in one["models"]]
    for model in many.document["models"]:
        record, other = (Store.open(store).lookup(model["key"]) for store in (".guda", "alone"))
        assert record
        assert other
        same = {"threads", "device", "images_removed", "drawn", "forwards", "what", "packages"}
        assert {k: record.provenance[k] for k in same} == {k: other.provenance[k] for k in same}
        assert record.provenance["argv"] == json.loads(json.dumps(other.provenance["argv"]))
    assert live_leases(here()) == []
    assert here().verify().clean
    assert cli(*ALL, *OTHER, "--json").document["ran"] == 0


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_killed_worker_and_an_interrupt(cli: Cli, project: Path) -> None:
    steps = cli(*ALL, *LONG, "--dry-run", "--json").document["steps"]
    keys = {step["key"] for step in steps if step["status"] == "to do"}
    assert len(keys) == len(GROUPS)
    store = project / ".guda"
    command = processes.start(project, *ALL, *LONG, "--jobs", "2", GUDA_CHECKPOINT_SECONDS="0.02")
    command.when(lambda: len(workers_at(store, keys)) == 2)
    key, pid = sorted(workers_at(store, keys).items())[0]
    command.when(lambda: (here().state_step(key) or 0) > 0)
    os.kill(pid, signal.SIGKILL)
    command.when(lambda: workers_at(store, keys).get(key, pid) != pid)  # another goes on with it
    at_work = set(workers_at(store, keys).values())
    assert pid not in at_work
    os.kill(command.pid, signal.SIGINT)  # to the command alone, as a terminal's other processes get none
    code, done = command.wait()
    assert code == 130, done.stderr
    told = " ".join(done.stderr.split())  # out of lines as wide as somebody's terminal
    assert "its process ended early (signal 9); another goes on with it" in told
    assert "state saved, run the same command to go on" in told
    assert "Traceback" not in done.stderr
    assert not [other for other in at_work if running(other)]
    assert live_leases(here()) == []
    assert here().state_step(key)

    shutil.copytree(".guda", "alone")
    shutil.rmtree("alone/states")
    went_on = cli(*ALL, *LONG, "--jobs", 2, "--json")
    assert "going on at step" in went_on.stderr
    assert weights(went_on.document) == weights(
        cli(*ALL, *LONG, "--jobs", 1, "--json", "--store", "alone").document
    )


def test_an_error_of_a_worker_ends_the_command(cli: Cli, project: Path) -> None:
    done = cli(*ALL, "--lr", "1e30", "--jobs", 2, "--json", code=3)
    assert "the learning rate is too high" in done.document["why"]
    assert "unlearn.lr" in done.document["fix"]
    assert live_leases(here()) == []
    assert not [r for r in here().records(UNLEARN) if r.params["unlearn"]["lr"] == 1e30]


def test_leave_one_group_out_models_too(cli: Cli, project: Path) -> None:
    done = cli("train", "--each-group", "--seeds", "5", "--jobs", 2, "--json", "--verbose")
    assert "2 models are made at once" in done.stderr
    assert done.document["ran"] == len(GROUPS)
    [first, *_] = done.document["models"]
    shutil.copytree(".guda", "alone")
    for record in list(here("alone").records(TRAIN)):
        if record.params["without"]:
            here("alone").disown(record.key, "a test makes it again")
    again = cli("train", "--without", GROUPS[0], "--seeds", "5", "--json", "--store", "alone").document
    assert again["ran"] == 1
    assert again["models"][0]["weights"] == first["weights"]


# -- how many ---------------------------------------------------------------------------------------


def of(store: Store, *sets: str, recipe: str = "digits", jobs: int | None = None) -> Project:
    found: Recipe = load(recipe, sets)[0]
    return Project(found, store, Console(quiet=True), jobs=jobs)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores, 64 GB, nothing said in the environment."""
    monkeypatch.delenv("GUDA_THREADS", raising=False)
    monkeypatch.delenv("GUDA_JOBS", raising=False)
    monkeypatch.setattr(processors, "usable", lambda: 8)
    monkeypatch.setattr(memory, "available", lambda: 64 << 30)


def actions(count: int, forwards: float) -> list[Action]:
    return [Action(UNLEARN, {"n": i}, {}, f"unlearn {i}", forwards) for i in range(count)]


def test_threads_follow_from_the_recipe_alone(tmp_path: Path, machine: None, monkeypatch) -> None:
    store = Store.open(tmp_path)
    small = of(store)  # 32 images of 8x8 in 32 channels: 65,536 numbers
    assert sharing.threads(small, UNLEARN, 8) == 1
    assert sharing.threads(small, TRAIN, 8) == 2  # 128 of them
    wider = of(store, "unlearn.batch_size=512")
    assert sharing.threads(wider, UNLEARN, 8) == 8
    assert sharing.threads(wider, UNLEARN, 3) == 3
    for jobs in (1, 5):
        assert sharing.threads(of(store, jobs=jobs), UNLEARN, 8) == 1
    monkeypatch.setenv("GUDA_THREADS", "4")
    assert sharing.threads(small, UNLEARN, 4) == 4


def test_how_many_at_once(tmp_path: Path, machine: None, monkeypatch) -> None:
    store = Store.open(tmp_path)
    project = of(store)
    assert sharing.unknown(project)
    assert sharing.workers(project, actions(10, 1000.0), None) == 1  # nobody knows how long they take
    store.set_document("speed", {"training": 0.1, "scoring": 0.1, "shape": [1, 8]})
    assert not sharing.unknown(project)
    assert sharing.workers(project, actions(10, 1000.0), None) == 8
    assert sharing.workers(project, actions(5, 1000.0), None) == 5
    assert sharing.workers(project, actions(1, 1000.0), None) == 1
    assert sharing.workers(project, actions(10, 3.5 * sharing.WORTH), None) == 3  # seconds of it in all
    assert sharing.workers(project, actions(10, 1.0), None) == 1
    assert sharing.workers(of(store, "unlearn.batch_size=512"), actions(10, 1000.0), None) == 1
    monkeypatch.setattr(memory, "available", lambda: 2 << 30)
    assert sharing.workers(project, actions(10, 1000.0), None) in (2, 3)
    monkeypatch.setenv("GUDA_JOBS", "6")
    assert sharing.workers(project, actions(10, 1.0), None) == 6
    assert sharing.workers(of(store, jobs=4), actions(10, 1.0), None) == 4
    assert sharing.workers(of(store, jobs=4), actions(3, 1.0), None) == 3


def test_a_plan_counts_them(tmp_path: Path, machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from guda_cli.workflow.starting import whole
    from guda_cli.workflow.starting.proposal import Speed

    monkeypatch.setattr(sharing, "on_cpu", lambda device: True)
    project = of(Store.open(tmp_path))
    _ = project.data
    alone = {
        s.name: s.seconds for s in whole.plan(of(project.store, jobs=1), "guda", 1, Speed(1.0, 1.0)).stages
    }
    many = {s.name: s.seconds for s in whole.plan(project, "guda", 1, Speed(1.0, 1.0)).stages}
    assert many["models"] == pytest.approx(alone["models"] / 8)
    assert many["train"] == alone["train"]


def test_memory_that_a_container_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "LIMITS", (limit,))
    machine = memory.available()
    assert machine is None or machine > 1 << 20
    limit.write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert memory.available() == 2_000_000
    limit.write_text("max\n")
    assert (memory.available() is None) == (machine is None)
