"""Which scores a report is of: the recipe's settings unless others are asked for, nothing unsaid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.workflow.fixtures import QUERIES, Cli, save


def shown(document: dict[str, Any]) -> list[str]:
    return [query["image"] for query in document["queries"]]


S = ("--set", "score.seed=11")  # under which the template has scored nothing
USUAL = "guda report --grid strata --timesteps 8 --draws 2 --seed"


def others(document: dict[str, Any]) -> list[str]:
    return [text for text in document["warnings"] if "other settings" in text]


def test_one_image_scored_otherwise_does_not_hide_the_others(cli: Cli, project: Path) -> None:
    cli("score", "q", *S)
    cli("score", "q/00001.png", "--seed", 4, *S)
    cli("score", "q/00002.png", "--draws", 1, *S)
    found = cli("report", "--json", *S).document
    assert len(shown(found)) == QUERIES
    assert (found["seed"], found["draws"]) == (11, 2)
    assert not others(found), "each is shown with the recipe's"
    other = cli("report", "--seed", 4, "--json", *S).document
    assert shown(other) == ["q/00001.png"]
    assert other["seed"] == 4
    assert sum(int(text.split()[0]) for text in others(other)) == QUERIES - 1, "each is counted once"
    assert shown(cli("report", "--draws", 1, "--json", *S).document) == ["q/00002.png"]
    done = cli("report", "--seed", 9, code=4)
    assert "guda score IMAGE --seed 9" in done.stderr


def test_what_was_scored_only_otherwise_is_named(cli: Cli, project: Path) -> None:
    cli("score", "q/00000.png", *S)
    cli("score", "q/00001.png", "q/00002.png", "--seed", 4, *S)
    found = cli("report", "--json", *S).document
    assert shown(found) == ["q/00000.png"]
    told = f"2 images were scored with other settings: {USUAL} 4"
    assert told in others(found)
    again = cli(*told.partition("guda ")[2].split(), "--json", *S).document
    assert shown(again) == ["q/00001.png", "q/00002.png"]


def test_nothing_with_the_recipes_settings(cli: Cli, project: Path) -> None:
    cli("score", "q", "--seed", 4)
    found = cli("report", "--json", *S).document
    assert (len(shown(found)), found["seed"]) == (QUERIES, 4)
    assert any(text.startswith("nothing was scored with the recipe's settings") for text in found["warnings"])


def test_scores_of_more_draws_hold_those_of_fewer(cli: Cli, project: Path) -> None:
    cli("score", "q/00000.png", "--draws", 4, *S)
    cli("score", "q/00001.png", *S)
    assert shown(cli("report", "--json", *S).document) == ["q/00000.png", "q/00001.png"]
    assert shown(cli("report", "--draws", 4, "--json", *S).document) == ["q/00000.png"]


def test_a_report_of_chosen_images(cli: Cli, project: Path) -> None:
    save(Path("blank/noise.png"), np.random.default_rng(0).integers(0, 256, (8, 8)))
    cli("score", "q", "blank")
    assert len(shown(cli("report", "--json").document)) == QUERIES + 1
    assert len(shown(cli("report", "q", "--json").document)) == QUERIES
    one = cli("report", "q/00003.png", "blank", "--json").document
    assert shown(one) == ["blank/noise.png", "q/00003.png"]
    assert sum(one["matrix"][i]["queries"] for i in range(len(one["matrix"]))) == 2
    save(Path("new.png"), np.full((8, 8), 77))
    done = cli("report", "new.png", code=4)
    assert "none of these images has been scored" in done.stderr
    assert "guda score IMAGE" in done.stderr
    Path("torn.png").write_bytes(b"no image")
    assert shown(cli("report", "torn.png", "q/00000.png", "--json").document) == ["q/00000.png"]
    cli("score", "q", "blank", "--method", "similarity")
    assert shown(cli("report", "blank", "--method", "similarity", "--json").document) == ["blank/noise.png"]
