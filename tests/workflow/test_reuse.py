"""What is in the store is not made again; what a changed setting touches is, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from guda_cli.store import Store
from tests.store.inside import live_leases
from tests.workflow.fixtures import (
    GROUPS,
    MODELS,
    QUERIES,
    ROWS,
    Cli,
    here,
    record,
    scores,
    terms,
    tree,
)

AGAIN = {
    "train": (["train"], "nothing to do, all 1 in the store"),
    "unlearn": (["unlearn", "--all"], "nothing to do, all 7 in the store"),
    "sample": (["sample", "-n", str(QUERIES), "--out", "q"], "from the store"),
    "score": (["score", "q"], "no model was run"),
    "report": (["report", "--csv"], ""),
    "status": (["status"], "nothing to do: every step is in the store"),
}


def test_a_second_run_imports_no_torch(project: Path) -> None:
    """One process runs every command twice and would notice torch at the first."""
    script = (
        "import sys, json; from guda_cli import app\n"
        "for args in json.loads(sys.argv[1]):\n"
        "    assert app.run(args) == 0, args\n"
        "    heavy = [name for name in ('torch', 'diffusers') if name in sys.modules]\n"
        "    assert not heavy, (args, heavy)\n"
    )
    commands = [args for args, _ in AGAIN.values() for _ in range(2)]
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(commands)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", AGAIN)
def test_a_second_run_says_so_and_prints_the_same(cli: Cli, project: Path, name: str) -> None:
    args, remark = AGAIN[name]
    first, second = cli(*args), cli(*args)
    assert remark in first.stdout + first.stderr
    assert first.stdout == second.stdout


def test_a_second_run_changes_no_file(cli: Cli, project: Path) -> None:
    before = tree(project / ".guda")
    for args, _ in AGAIN.values():
        cli(*args)
    assert tree(project / ".guda") == before


def forwards(stderr: str) -> tuple[int, int]:
    """Forwards done and reused, from the summary of `guda score`."""
    [line] = [line for line in stderr.splitlines() if re.match(r"\d+ images?: ", line)]
    if "no model was run" in line:
        return 0, -1
    words = line.replace(",", "").split()
    return int(words[2]), int(words[5])


class TestChanges:
    @pytest.mark.parametrize("weighting", ["elbo", "uniform", "min-snr:1", "band:10-40"])
    def test_weighting_redoes_nothing(self, cli: Cli, project: Path, weighting: str) -> None:
        default = cli("score", "q", "--json").documents
        other = cli("score", "q", "--json", "--weighting", weighting)
        assert forwards(other.stderr)[0] == 0
        assert {d["weighting"] for d in other.documents} == {weighting}
        assert scores(other.documents) != scores(default)

    def test_seed_of_scoring_redoes_cells_only(self, cli: Cli, project: Path) -> None:
        before = {r.key for r in here().records()}
        assert forwards(cli("score", "q", "--seed", 1).stderr) == (QUERIES * MODELS * ROWS, 0)
        made = [r.operation for r in here().records() if r.key not in before]
        assert made == ["score"]

    def test_more_timesteps_redo_cells(self, cli: Cli, project: Path) -> None:
        assert forwards(cli("score", "q/00000.png", "--timesteps", 4).stderr) == (MODELS * 4 * 2, 0)

    def test_unlearning_steps_redo_unlearned_models_and_their_cells(self, cli: Cli, project: Path) -> None:
        change = ["--set", "unlearn.steps=6"]
        done = cli("unlearn", "--group", "amber", "--no-null", "--json", *change)
        assert done.document["ran"] == 1
        assert len(list(here().records("train"))) == 1, "the full model stays"
        done = cli("score", "q", "--group", "amber", *change)
        assert forwards(done.stderr) == (QUERIES * ROWS, QUERIES * ROWS), "the full model's cells stay"

    def test_more_null_groups_add_only_these(self, cli: Cli, project: Path) -> None:
        done = cli("unlearn", "--all", "--json", "--set", "unlearn.null_groups=4")
        assert done.document["ran"] == 1

    def test_learning_rate_redoes_the_full_model(self, cli: Cli, project: Path) -> None:
        change = ["--set", "train.lr=2e-3"]
        missing = cli("score", "q", *change, code=4)
        assert "try: guda train" in missing.stderr
        status = cli("status", *change).stdout
        assert "made before with other settings or data: train.lr" in status
        assert cli("train", "--json", *change).document["ran"] == 1
        missing = cli("score", "q", code=4)
        assert "try: guda unlearn --all" in missing.stderr
        assert cli("train", "--json", "--set", "train.lr=1e-3").document["ran"] == 0, "going back is free"
        assert forwards(cli("score", "q").stderr)[0] == 0

    def test_words_redo_nothing(self, cli: Cli, project: Path) -> None:
        change = ["--set", "name=other", "--set", "description=words"]
        assert cli("train", "--json", *change).document["ran"] == 0
        assert cli("unlearn", "--all", "--json").document["ran"] == 0

    def test_other_settings_of_the_operator_not_used_redo_nothing(self, cli: Cli, project: Path) -> None:
        change = ["--operator", "finetune", "--no-null", "--group", "amber"]
        assert cli("unlearn", *change, "--json").document["ran"] == 1
        assert cli("unlearn", *change, "--json", "--set", "unlearn.neighbours=7").document["ran"] == 0
        assert cli("unlearn", "--all", "--json", "--set", "unlearn.neighbours=3").document["ran"] == 7


def test_a_fresh_store_gives_the_same_digests(cli: Cli, project: Path, template: Path) -> None:
    place = ["--store", project / "second"]
    cli("train", template / "tiny.yaml", *place)
    cli("unlearn", "--all", *place)
    cli("sample", "-n", QUERIES, "--out", "again", *place)
    cli("score", "again", *place)
    first, second = here(), Store.open("second")
    for operation in ("dataset", "train", "unlearn", "sample"):
        old = {r.key: r.outputs for r in first.records(operation)}
        assert old == {r.key: r.outputs for r in second.records(operation)}, operation
    for i in range(QUERIES):
        old_image, new_image = (project / folder / f"{i:05d}.png" for folder in ("q", "again"))
        assert old_image.read_bytes() == new_image.read_bytes()
    old, new = terms(first), terms(second)
    assert old.keys() == new.keys()
    assert len(old) == QUERIES * MODELS
    assert all(np.array_equal(old[key], new[key]) for key in old)


def test_only_tensors_that_differ_are_stored(project: Path) -> None:
    from safetensors.numpy import load

    store = here()
    full = load(store.read_bytes(record("train").outputs["weights"]))
    for group in GROUPS:
        delta = load(store.read_bytes(record("unlearn", group).outputs["weights"]))
        assert set(delta) <= set(full)
        assert all(not np.array_equal(delta[name], full[name]) for name in delta)


def test_leases_and_states_are_gone(project: Path) -> None:
    assert live_leases(here()) == []
    assert not list((project / ".guda" / "states").iterdir())
    assert not list((project / ".guda" / "tmp").iterdir())
