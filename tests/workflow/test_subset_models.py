"""`guda train --subsets`: models without random halves of the groups, and sums of scores judged by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.workflow.fixtures import GROUPS, QUERIES, Cli, here, record
from tests.workflow.oracle import RIVALS, SEEDS, matrix, without_torch

HALVES = 6  # that four groups have
CEILING = "ceiling (LOGO, other seed)"
NAMES = {"guda": "guda (retrack)", "similarity": "similarity (pixels)"}


@pytest.fixture
def subsets(cli: Cli, bench: Path) -> Path:
    """The bench with the halves' models of seed 2, and every image's terms under them."""
    cli("train", "--subsets", 16, "--seeds", 2)
    cli("score", "q", "--method", "subsets")
    return bench


def report(cli: Cli, *more: object) -> dict[str, Any]:
    return cli("report", "--against", "logo", "--json", *more).document


def lds(cli: Cli, *more: object) -> dict[str, Any]:
    [table] = report(cli, *more)["tables"]
    return {row["method"]: row["metrics"].get("lds") for row in table["rows"]}


def scored(cli: Cli, method: str, names: tuple[str, ...] = GROUPS, *more: object) -> np.ndarray:
    return matrix(cli("score", "q", "--method", method, "--json", *more).documents, names)


def mean_rank_correlation(scores: np.ndarray, removed: np.ndarray, measured: np.ndarray) -> float:
    sums = scores @ removed.T
    return float(np.mean([stats.spearmanr(a, b).statistic for a, b in zip(sums, measured, strict=True)]))


def test_a_plan_then_halves_once_each(cli: Cli, bench: Path) -> None:
    before = {r.key for r in here().records()}
    [plan] = cli("train", "--subsets", 4, "--seeds", 2, "--dry-run", "--json").documents
    steps = [step for step in plan["steps"] if step["what"].startswith("model without")]
    assert [step["status"] for step in steps] == ["to do"] * 4
    assert {r.key for r in here().records()} == before
    done = cli("train", "--subsets", 4, "--seeds", 2, "--json").document
    assert done["ran"] == 4
    assert [model["key"] for model in done["models"]] == [step["key"] for step in steps]
    assert all(model["what"].count("+") == 1 for model in done["models"]), "halves of four groups"
    more = cli("train", "--subsets", 16, "--seeds", 2, "--json")
    assert "have 6 different halves" in more.stderr
    assert (more.document["ran"], len(more.document["models"])) == (2, HALVES)
    assert cli("train", "--subsets", 16, "--seeds", 2, "--json").document["ran"] == 0


def test_the_score_is_that_of_its_definition(cli: Cli, subsets: Path, documents) -> None:
    found = documents(cli("score", "q", "--method", "subsets", "--json", "--weighting", "elbo").stdout)
    names = tuple(sorted(entry["group"] for entry in found[0]["scores"]))
    assert len(names) == HALVES
    assert found[0]["answer"] is None, "halves stand out of nothing"
    removed = np.array([[group in name.split("+") for group in GROUPS] for name in names])
    measured = matrix(found, names)
    shown = lds(cli, "--weighting", "elbo")
    for method in ("guda", *RIVALS):
        if method != "random":
            scores = scored(cli, method, GROUPS, "--weighting", "elbo")
            value = mean_rank_correlation(scores, removed, measured)
            assert shown[NAMES.get(method, method)]["value"] == pytest.approx(value, abs=1e-9), method
    assert shown["random"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    own = [
        mean_rank_correlation(
            scored(cli, "logo", GROUPS, "--weighting", "elbo", "--seeds", s), removed, measured
        )
        for s in SEEDS
    ]
    assert shown[CEILING]["value"] == pytest.approx(np.mean(own), abs=1e-9)
    alone = lds(cli, "--weighting", "elbo", "--seeds", 3)
    assert alone["LOGO itself"]["value"] == pytest.approx(own[1], abs=1e-9)
    text = " ".join(cli("report", "--against", "logo").stdout.split())
    assert "LDS is over 6 random halves of the groups; their models have seed 2." in text


def test_the_oracle_keeps_its_columns(cli: Cli, subsets: Path) -> None:
    """Halves are asked for by nobody: no method has to know them, unless they are named."""
    assert sorted(report(cli)["groups"]) == sorted(GROUPS)
    [first, *_] = cli("score", "q", "--method", "logo", "--json").documents
    assert sorted(entry["group"] for entry in first["scores"]) == sorted(GROUPS)
    half = "+".join(record("train").params["without"]["groups"])
    named = cli("score", "q/00000.png", "--method", "logo", "--group", half, "--seeds", 2, "--json").document
    assert [entry["group"] for entry in named["scores"]] == [half]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_methods_are_named_at_any_width(
    cli: Cli, subsets: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """With every column that there can be."""
    monkeypatch.setenv("COLUMNS", str(width))
    lines = cli("report", "--against", "logo").stdout.splitlines()
    assert any("LDS" in line for line in lines)
    assert sum(line.strip(" *≈").startswith("unlearn") for line in lines) >= 2, "agreement and cost"
    assert not any("…" in line for line in lines if "0." in line)


def test_what_is_missing_is_said(cli: Cli, bench: Path) -> None:
    assert not any(lds(cli).values())
    done = cli("score", "q", "--method", "subsets", "--json", code=4)
    assert done.document["fix"] == "guda train --subsets 16"
    cli("train", "--subsets", 6, "--seeds", 2)
    found = report(cli)["tables"][0]
    assert "guda score IMAGES --method subsets" in " ".join(found["notes"])
    cli("score", "q/00000.png", "--method", "subsets")
    said = " ".join(report(cli)["tables"][0]["notes"])
    assert f"There is no LDS: {QUERIES - 1} images have no terms" in said
    assert not any(lds(cli).values())


def test_reading_needs_no_torch_and_is_collected_never(cli: Cli, subsets: Path) -> None:
    before = report(cli)
    cli("store", "gc", "--force", "--grace", 0)
    assert report(cli)["tables"] == before["tables"]
    without_torch(
        ["train", "--subsets", 6, "--seeds", 2],
        ["score", "q", "--method", "subsets"],
        ["report", "--against", "logo"],
        ["report", "--method", "subsets"],
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--subset-seed", 1), "--subset-seed goes with --subsets"),
        (("--subsets", 1), "--subsets"),
        (("--subsets", 4, "--from", "x"), "--subsets"),
    ],
)
def test_bad_options(cli: Cli, project: Path, options: tuple[object, ...], said: str) -> None:
    assert said in cli("train", *options, code=2).stderr
