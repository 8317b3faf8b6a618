"""Several unlearned models a group: their scores are averaged, and the interval covers their spread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from guda_cli.workflow.scoring.refining import Scores
from tests.workflow.fixtures import GROUPS, Cli, flip, here, scores


def test_the_interval_by_hand() -> None:
    """Error 3 (exactly known), deviation 4 between 2 seeds: variance 9 + 16 x 1.5 = 33, d.f. 33^2 / 24^2."""
    one = np.ones((1, 1))
    found = Scores(10 * one, 3 * one, 1e12 * one, 2 * np.ones((1, 1), dtype=np.int64), 4 * one, 2)
    assert found.reach[0, 0] == pytest.approx(stats.t.ppf(0.975, 33**2 / 24**2) * np.sqrt(33), rel=1e-6)
    alike = Scores(10 * one, 3 * one, 1e12 * one, 2 * np.ones((1, 1), dtype=np.int64), 0 * one, 2)
    assert alike.reach[0, 0] == pytest.approx(1.95996 * 3, rel=1e-4)


def test_unlearned_with_several_seeds(cli: Cli, project: Path) -> None:
    plan = cli("unlearn", "--all", "--no-null", "--seeds", "0,5", "--dry-run", "--json").document["steps"]
    assert sum(step["status"] == "to do" for step in plan) == len(GROUPS)
    done = cli("unlearn", "--all", "--no-null", "--seeds", "0,5", "--json").document
    assert done["ran"] == len(GROUPS)
    parts = [cli("score", "q", "--seeds", seed, "--json").documents for seed in (0, 5)]
    both = cli("score", "q", "--seeds", "0,5", "--json").documents
    assert scores(parts[0]) == scores(cli("score", "q", "--json").documents)  # seed 0 is the recipe's own
    one, other, mean = (scores(documents) for documents in (*parts, both))
    for digest, found in mean.items():
        for group, value in found.items():
            assert value == pytest.approx((one[digest][group] + other[digest][group]) / 2, rel=1e-9)
    entry, alone = both[0]["scores"][0], parts[0][0]["scores"][0]
    digest, group = both[0]["digest"], entry["group"]
    assert entry["spread"] == pytest.approx(
        abs(one[digest][group] - other[digest][group]) / np.sqrt(2), rel=1e-6
    )
    assert alone["spread"] is None
    assert "mean of seeds 0, 5" in cli("score", "q", "--seeds", "0,5").stdout
    report = cli("report", "--set", "unlearn.seeds=[0, 5]", "--json").document
    assert scores([{**q, "scores": q["scores"]} for q in report["queries"]]) == mean


def test_a_damaged_model_of_another_seed_is_made_again(cli: Cli, project: Path) -> None:
    cli("unlearn", "--group", "blue", "--no-null", "--seeds", "5")
    [made] = [r for r in here().records("unlearn") if r.params["unlearn"]["seed"] == 5]
    flip(here(), made.outputs["weights"])
    done = cli("score", "q/00000.png", "--group", "blue", "--seeds", "5", "--seed", "3", "--json")
    assert "rebuilding unlearn blue, seed 5" in done.stderr
    assert here().read_bytes(made.outputs["weights"])


def test_seeds_go_with_one_method(cli: Cli, project: Path) -> None:
    assert "one method" in cli("score", "q", "--method", "guda,logo", "--seeds", "1", code=2).stderr
    missing = cli("score", "q", "--seeds", "9", "--json", code=4).document
    assert missing["fix"] == "guda unlearn --all --seeds 9"
