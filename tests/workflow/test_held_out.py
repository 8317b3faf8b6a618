"""Images held out of training: kept in the store, never trained on, looked at by checks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from guda_cli.data.dataset import from_bytes
from guda_cli.data.images import pixels_digest
from guda_cli.workflow.scoring.remembered import unpack
from tests.workflow.fixtures import Cli, draw, flip, here, once, record, run

SET = ("--set", "data.held_out=0.25")


def build(home: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store with a full model and the models without two groups, a quarter of the images held out."""
    monkeypatch.chdir(home)
    assert run("train", template / "tiny.yaml", *SET) == 0
    assert run("unlearn", "--group", "amber", "--group", "blue", "--null") == 0


@pytest.fixture
def held(
    template: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    home = once(tmp_path_factory, "held-out-project", lambda home: build(home, template, monkeypatch))
    shutil.copytree(home / ".guda", tmp_path / ".guda")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_they_lie_beside_the_training_images(cli: Cli, held: Path) -> None:
    found = record("dataset")
    assert set(found.outputs) == {"data", "held_out"}
    assert found.provenance["images"] == 36
    assert set(found.provenance["groups"].values()) == {9}
    assert "12 images are held out" in found.provenance["notes"][-1]
    assert found.outputs["held_out"] not in record("train").inputs.values()
    assert record("unlearn", "amber").inputs["held_out"] == found.outputs["held_out"]
    assert "nothing to do" in cli("unlearn", "--group", "amber", "--no-null").stderr


def test_checks_look_at_them_but_not_for_random_sets(cli: Cli, held: Path) -> None:
    models = cli("unlearn", "--group", "amber", "--group", "blue", "--json").document["models"]
    assert len(models) == 5
    for model in models:
        check = model["check"]
        assert ("held_out" in check) == ("membership" in check) == (not model["null"])
    area = models[0]["check"]["membership"]
    assert 0 <= area["before"] <= 1
    assert area["after_se"] > 0
    assert "told apart" in cli("unlearn", "--group", "amber").stdout
    status = cli("status", "--json").document["steps"]
    [amber] = [step for step in status if step["what"] == "unlearn amber"]
    assert amber["why"].startswith("check " + models[0]["check"]["verdict"])


def test_strict_ends_with_a_code_of_its_own(cli: Cli, held: Path) -> None:
    command = ("unlearn", "--group", "amber", "--set", "unlearn.lr=1", "--no-null")
    [model] = cli(*command, "--json").document["models"]
    assert model["check"]["verdict"] == "failed"  # a rate of 1 ruins the rest
    assert cli(*command).stderr.splitlines()[-1].endswith("all 1 in the store; checks: 1 failed")
    done = cli(*command, "--strict", code=7)
    assert "error: checks: 1 failed\n" in done.stderr
    assert "FAILED: " in done.stdout


def test_a_damaged_copy_is_read_again(cli: Cli, held: Path) -> None:
    flip(here(), record("dataset").outputs["held_out"])
    cli("unlearn", "--group", "cyan", "--no-null")
    assert record("unlearn", "cyan").provenance["check"]["held_out"]
    cli("store", "verify")


def test_garbage_collection_keeps_them(cli: Cli, held: Path) -> None:
    cli("store", "gc", "--force", "--grace", "0")
    assert here().read_bytes(record("dataset").outputs["held_out"])


def test_without_any_nothing_is_asked_of_them(cli: Cli, project: Path) -> None:
    assert set(record("dataset").outputs) == {"data"}
    [model] = cli("unlearn", "--group", "amber", "--no-null", "--json").document["models"]
    assert "membership" not in model["check"]
    assert "told apart" not in cli("unlearn", "--group", "amber", "--no-null").stdout


def test_verdicts_are_calibrated_on_them_where_there_are_enough(cli: Cli, template: Path, held: Path) -> None:
    cli("sample", "-n", "1", "--out", "q")
    many = ("--set", "score.calibration=48")
    cli("score", "q", "--group", "amber", *many)  # 12 held-out images are too few, and so are 36 others
    assert not list(here().records("calibration"))
    half = ("--set", "data.held_out=0.5", "--set", "data.path=" + str(draw(held / "more", images=24)), *many)
    cli("train", template / "tiny.yaml", *half)
    cli("unlearn", "--all", "--no-null")
    cli("score", "q")
    found = record("calibration")
    assert found.inputs["held_out"] == list(here().records("dataset"))[-1].outputs["held_out"]
    told = cli("report", "--json").document["null"]
    assert told["held_out"] is True
    assert told["description"] == "48 images held out of training, of known groups"
    chosen = {query.pixels_digest for query in unpack(here().read_bytes(found.outputs["queries"]))}
    held_out = from_bytes(here().read_bytes(found.inputs["held_out"]))
    assert chosen == {pixels_digest(image) for image in held_out.images}
