"""`guda score --race`: only as many forwards as the first groups need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflow.fixtures import GROUPS, MODELS, QUERIES, Cli

FORWARDS, FIRST, MOST = 4, 2, 32


def test_it_draws_as_far_as_it_needs(cli: Cli, project: Path) -> None:
    done = cli("score", "q", "--race", "60%", "--json")
    forwards = 0
    for document in done.documents:
        race, scores = document["race"], document["scores"]
        assert (race["places"], race["level"]) == (1, 0.6)
        assert document["answer"] is None
        assert "confidence" not in document
        draws = {entry["group"]: entry["draws"] for entry in scores}
        assert set(draws) == set(GROUPS)
        assert min(draws.values()) >= FIRST
        assert race["forwards"] == FORWARDS * (sum(draws.values()) + max(draws.values()))
        assert race["decided"] or max(draws.values()) == MOST
        assert scores[0]["draws"] == max(draws.values())  # the first was in it to the end
        forwards += race["forwards"]
    decided = sum(document["race"]["decided"] for document in done.documents)
    assert f"{decided} of {QUERIES} races decided" in done.stderr
    assert f"{forwards / QUERIES / MODELS:.3g} forwards a model and image" in done.stderr


def test_again_nothing_is_run_and_finer_questions_go_on(cli: Cli, project: Path) -> None:
    first = cli("score", "q/00000.png", "--race", "50%", "--json")
    again = cli("score", "q/00000.png", "--race", "50%", "--json")
    assert again.documents == first.documents
    assert "no model was run" in again.stderr
    finer = cli("score", "q/00000.png", "--race", "99%", "--json")
    assert finer.document["race"]["forwards"] >= first.document["race"]["forwards"]


def test_alone_or_with_others_an_image_is_the_same(cli: Cli, project: Path) -> None:
    alone = cli("score", "q/00001.png", "--race", "80%", "--json").document
    [together] = [d for d in cli("score", "q", "--race", "80%", "--json").documents if "00001" in d["image"]]
    assert alone["race"] == together["race"]
    assert [e["group"] for e in alone["scores"]] == [e["group"] for e in together["scores"]]


def test_it_is_told_in_words(cli: Cli, project: Path) -> None:
    one = cli("score", "q/00000.png", "--race", "50%").stdout
    assert "a race until the first group can be told at 50 %" in " ".join(one.split())
    assert "told at 50 % with" in one or "not told apart at 50 %" in one
    many = cli("score", "q", "--race", "99.99%", "--top", "2").stdout
    assert "? ahead, but not told apart from the groups behind." in many
    [row] = [line for line in many.splitlines() if line.startswith("q/00000.png")]
    told = cli("score", "q/00000.png", "--race", "99.99%", "--top", "2", "--json").document["race"]
    assert ("?" in row) is not told["decided"]
    assert told["places"] == 2


def test_it_is_not_remembered_for_reports(cli: Cli, project: Path) -> None:
    cli("score", "q")
    before = cli("report", "--json").document["queries"]
    cli("score", "q", "--race", "50%")
    assert cli("report", "--json").document["queries"] == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--race", "often"], "no share of certainty"),
        (["--race", "0%"], "no share of certainty"),
        (["--race", "100%"], "no share of certainty"),
        (["--race", "95%", "--until", "95%"], "--race and --until exclude each other"),
        (["--race", "95%", "--timesteps", "2"], "--race and --timesteps exclude each other"),
        (["--race", "95%", "--map", "m.png"], "--race and --map exclude each other"),
        (["--race", "95%", "--rank", "z"], "ranks by score"),
        (["--race", "95%", "--method", "similarity"], "is for guda and logo"),
    ],
)
def test_what_it_does_not_go_with(options: list[str], message: str, cli: Cli, project: Path) -> None:
    assert message in cli("score", "q", *options, code=2).stderr
