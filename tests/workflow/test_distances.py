"""`guda check`: stored verdicts, and distances to retrained models, once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guda_cli.unlearning.judgement import completed
from tests.report.test_tables import validate
from tests.workflow.fixtures import GROUPS, Cli, record
from tests.workflow.oracle import SEEDS, without_torch

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/schemas/check.json").read_text())


def test_without_an_oracle_it_shows_the_verdicts(cli: Cli, project: Path) -> None:
    document = cli("check", "--json").document
    validate(document, SCHEMA, SCHEMA)
    assert [model["group"] for model in document["models"]] == list(GROUPS)
    assert document["unit"] is None
    assert all(model["distances"] is None for model in document["models"])
    assert document["models"][0]["check"]["verdict"] in ("passed", "doubtful", "failed")
    assert "guda train --each-group --seeds 2,3" in cli("check").stdout


def test_distances_are_worked_out_once(cli: Cli, bench: Path) -> None:
    command = ("check", "--group", "amber", "-n", "6")
    plan = cli(*command, "--dry-run", "--json").document["steps"]
    assert [step["status"] for step in plan] == ["to do"] * 5
    assert plan[-1]["forwards"] == 6 * 4 * 4 * 16
    document = cli(*command, "--json").document
    validate(document, SCHEMA, SCHEMA)
    assert document["oracle_seeds"] == list(SEEDS)
    [model] = document["models"]
    found = model["distances"]
    assert all(found[name]["se"] > 0 for name in ("unlearned", "full", "retrained"))
    assert model["check"] == completed(record("unlearn", "amber").provenance["check"])
    plan = cli(*command, "--dry-run", "--json").document["steps"]
    assert [step["status"] for step in plan[:-1]] == ["cached"] * 4
    without_torch(command)
    assert cli(*command, "--json").document == document


def test_classes_that_the_retrained_model_never_saw_are_not_drawn(
    cli: Cli, project: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = ("--set", "model.class_conditional=true")
    cli("train", template / "tiny.yaml", *sets)
    cli("unlearn", "--group", "amber", "--no-null")
    cli("train", "--without", "amber", "--seeds", "2,3")
    [model] = cli("check", "--group", "amber", "-n", "4", "--json").document["models"]
    assert model["distances"]["full"]["se"] > 0
    assert record("sample").params["classes"] == ["blue", "cyan", "dune"]
