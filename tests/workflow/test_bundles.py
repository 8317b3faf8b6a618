"""Several groups in one step: as a GPU does it by default, here on a CPU, where the same code runs."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from guda_cli.diffusion.networks import from_bytes
from guda_cli.unlearning import subsets
from guda_cli.workflow.models import bundles
from guda_cli.workflow.project import sharing
from tests.store.inside import live_leases
from tests.workflow.fixtures import GROUPS, Cli, here, record

ALL = ["unlearn", "--all", "--null", "--set", "unlearn.seed=7"]


@pytest.fixture(autouse=True)
def nothing_said_of_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups go together where nothing else is asked for."""
    monkeypatch.delenv("GUDA_JOBS", raising=False)


@pytest.fixture
def stacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is a GPU."""
    monkeypatch.setattr(bundles, "DEVICES", ("cpu",))
    monkeypatch.setattr(sharing, "on_cpu", lambda device: None)


def test_all_groups_in_one_step(cli: Cli, project: Path, stacking: None) -> None:
    shutil.copytree(".guda", "alone")
    done = cli(*ALL, "--json", "--verbose")
    models = done.document["models"]
    assert f"{len(models)} groups are unlearned in one step each" in done.stderr
    assert done.document["ran"] == len(models) == len(GROUPS) + 3
    assert live_leases(here()) == []
    assert not list((project / ".guda" / "states").glob("*.state"))
    alone = cli(*ALL, "--json", "--jobs", 1, "--store", "alone").document["models"]
    base = from_bytes(here().read_bytes(record("train").outputs["weights"]))
    for own, other in zip(models, alone, strict=True):
        assert own["key"] == other["key"]
        made, single = (
            from_bytes(here(s).read_bytes(m["weights"])) for s, m in ((".guda", own), ("alone", other))
        )
        far = [(made[name] - value).abs().flatten() for name, value in single.items()]
        assert float((torch.cat(far) < 1e-5).float().mean()) > 0.99
        moved = torch.cat([(made[name] - base[name]).abs().flatten() for name in made])
        assert float((moved > 1e-4).float().mean()) > 0.5
        for side, value in own["check"].items():
            if isinstance(value, float):
                assert math.isclose(value, other["check"][side], rel_tol=1e-3, abs_tol=1e-4), side
        known = here().lookup(own["key"])
        assert known
        assert known.provenance["together"] == len(models)
        assert known.provenance["images_removed"] == other["images"]
    assert subsets.changes(base, made).keys() <= base.keys()
    assert cli(*ALL, "--json").document["ran"] == 0


def test_an_interrupt_keeps_all_their_states(
    cli: Cli, project: Path, stacking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from guda_cli.training import stacked

    advance = stacked._Runs.advance

    def stopped(self: stacked._Runs, losses_at: Any) -> list[float]:
        if self.step == 3:
            raise KeyboardInterrupt
        return advance(self, losses_at)

    shutil.copytree(".guda", "whole")
    monkeypatch.setattr(stacked._Runs, "advance", stopped)
    done = cli(*ALL, code=130)
    assert "state saved" in done.stderr
    keys = [path.stem for path in (project / ".guda" / "states").glob("*.state")]
    assert len(keys) == len(GROUPS) + 3
    assert {here().state_step(key) for key in keys} == {3}
    monkeypatch.setattr(stacked._Runs, "advance", advance)
    cli("unlearn", "--group", GROUPS[1], "--no-null", "--set", "unlearn.seed=7")  # one of them alone
    went_on = cli(*ALL, "--json").document
    assert went_on["ran"] == len(keys) - 1
    whole = cli(*ALL, "--json", "--store", "whole").document
    for own, other in zip(went_on["models"], whole["models"], strict=True):
        loss, same = own["check"]["group_after"], other["check"]["group_after"]
        assert math.isclose(loss, same, rel_tol=1e-3), own["group"]


def test_one_that_cannot_goes_alone(cli: Cli, project: Path, stacking: None) -> None:
    done = cli(*ALL, "--operator", "erasediff", "--json", "--verbose")
    assert "in one step each" not in done.stderr
    assert done.document["ran"] == len(done.document["models"])
    done = cli(*ALL, "--lr", "1e30", "--json", "--verbose", code=3)
    assert "each goes on alone" in done.stderr
    assert "the learning rate is too high" in done.document["why"]
    assert live_leases(here()) == []


def test_memory_that_does_not_suffice(
    cli: Cli, project: Path, stacking: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from guda_cli.workflow.models.build import Builder

    unlearn_together, tried = Builder.unlearn_together, []

    def crowded(self: Builder, actions: Any, *rest: Any) -> Any:
        tried.append(len(actions))
        if len(actions) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return unlearn_together(self, actions, *rest)

    monkeypatch.setattr(Builder, "unlearn_together", crowded)
    done = cli(*ALL, "--json")
    assert tried == [7, 3, 4]
    assert done.document["ran"] == 7


def test_only_small_networks_on_a_device(project: Path) -> None:
    from guda_cli.console import Console
    from guda_cli.settings.lookup import load
    from guda_cli.workflow.project.project import Project

    def of(*sets: str, jobs: int | None = None) -> Project:
        return Project(load("digits", sets)[0], here(), Console(quiet=True), jobs=jobs)

    assert sharing.stackable(of(), "cuda")
    assert not sharing.stackable(of(jobs=1), "cuda")
    assert not sharing.stackable(of(), "cpu")
    assert not sharing.stackable(of("unlearn.batch_size=2048"), "cuda")
