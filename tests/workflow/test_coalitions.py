"""`guda unlearn --coalitions` and `guda score --shares`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guda_cli.errors import UsageError
from guda_cli.workflow.keys import coalitions
from guda_cli.workflow.keys.removal import Removal
from tests.workflow.fixtures import GROUPS, QUERIES, Cli, here, scores, terms
from tests.workflow.oracle import without_torch

PLAYERS = ("amber", "blue", "cyan")
NAMED = [word for name in PLAYERS for word in ("--group", name)]


def make(cli: Cli, *more: object) -> dict[str, Any]:
    return cli("unlearn", "--coalitions", 8, *NAMED, "--json", *more).document


def test_which_coalitions() -> None:
    assert [what.name for what in coalitions.needed(("a", "b", "c"), 2, 0)] == [
        *("a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"),
    ]
    five = tuple("abcde")
    few, many = coalitions.needed(five, 3, 1), coalitions.needed(five, 9, 1)
    assert [what.groups for what in few[:5]] == [(name,) for name in five]
    assert {*few} < {*many}
    assert Removal(five) in few
    orders = coalitions.permutations(5, 4, 7)
    assert orders == coalitions.permutations(5, 9, 7)[:4]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert {*coalitions.beginnings(five, orders[:1])} == {
        *(Removal((name,)) for name in five),
        *(coalitions.joint(five, orders[0][:k]) for k in range(1, 6)),
    }


@pytest.mark.parametrize(
    ("players", "said"),
    [(["a"], "1 of 3"), (["a", "b", "c"], "3 of 3"), (["a", "x"], "'x' is no group"), (["a", "a"], "1 of 3")],
)
def test_who_can_share(players: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        coalitions.check_players(players, ("a", "b", "c"))
    assert coalitions.check_players(["b", "a", "b"], ("a", "b", "c")) == ("a", "b")


def test_shares_are_those_of_the_scores(cli: Cli, project: Path, documents) -> None:
    before = sorted(entry["group"] for entry in cli("score", "q/00000.png", "--json").document["scores"])
    [plan] = cli("unlearn", "--coalitions", 8, *NAMED, "--dry-run", "--json").documents
    assert [step["status"] for step in plan["steps"]] == ["cached"] * 4 + ["to do"] * 4
    done = make(cli)
    assert (done["ran"], len(done["models"])) == (4, 7)
    assert make(cli)["ran"] == 0
    found = documents(cli("score", "q", "--shares", *NAMED, "--json", "--weighting", "elbo").stdout)
    assert len(found) == QUERIES
    pairs = ["amber+blue", "amber+cyan", "blue+cyan"]
    named = [word for name in (*PLAYERS, *pairs, "+".join(PLAYERS)) for word in ("--group", name)]
    values = scores(cli("score", "q", *named, "--json", "--weighting", "elbo").documents)
    for document in found:
        v = values[document["digest"]]
        a, b, c = (share for share in document["shares"])
        assert document["exact"]
        assert document["total"] == pytest.approx(v["amber+blue+cyan"])
        assert sum(share["shapley"] for share in (a, b, c)) == pytest.approx(document["total"])
        assert [share["alone"] for share in (a, b, c)] == pytest.approx([v[name] for name in PLAYERS])
        gained = (
            v["amber"],
            v["amber+blue"] - v["blue"],
            v["amber+cyan"] - v["cyan"],
            v["amber+blue+cyan"] - v["blue+cyan"],
        )
        weighted = gained[0] / 3 + gained[1] / 6 + gained[2] / 6 + gained[3] / 3
        assert a["shapley"] == pytest.approx(weighted)
        assert a["banzhaf"] == pytest.approx(sum(gained) / 4)
        assert a["shapley_se"] > 0
        expected = {name: v[name] - sum(v[one] for one in name.split("+")) for name in pairs}
        shown = {"+".join(pair["groups"]): pair["excess"] for pair in document["additivity"]}
        assert shown == pytest.approx(expected)
    after = cli("score", "q/00000.png", "--json").document["scores"]
    assert sorted(entry["group"] for entry in after) == before, "coalitions are no columns"
    text = cli("score", "q/00000.png", "--shares", *NAMED).stdout
    assert "Shapley" in text
    assert "stand in for each other" in text
    without_torch(["score", "q", "--shares", *NAMED], ["unlearn", "--coalitions", 8, *NAMED])


def test_sampled_shares(cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch, documents) -> None:
    make(cli)
    query = ("score", "q/00001.png", "--shares", *NAMED, "--json")
    [exact] = documents(cli(*query).stdout)
    monkeypatch.setattr(coalitions, "EXACT", 2)
    kept = terms(here())
    [found] = documents(cli(*query).stdout)
    assert {*terms(here())} == {*kept}, "nothing is computed"
    assert (found["exact"], found["permutations"]) == (False, coalitions.MOST)
    assert found["total"] == exact["total"]
    assert sum(share["shapley"] for share in found["shares"]) == pytest.approx(found["total"])
    for name in ("shapley", "banzhaf"):
        for mine, true in zip(found["shares"], exact["shares"], strict=True):
            assert abs(mine[name] - true[name]) < 5 * mine[f"{name}_se"]
    assert found["additivity"] == exact["additivity"]
    assert "over 1000 permutations" in cli(*query[:-1]).stdout


def test_what_is_missing(cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fix = "guda unlearn --group amber --group blue --group cyan --coalitions 8"
    done = cli("score", "q", "--shares", *NAMED, "--json", code=4)
    assert done.document["fix"] == fix
    assert "4 coalitions" in done.document["error"]
    monkeypatch.setattr(coalitions, "EXACT", 2)
    assert cli("score", "q", "--shares", *NAMED, "--json", code=4).document["fix"] == fix


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("score", "q", "--shares"), "--shares needs the groups"),
        (("score", "q", "--shares", *NAMED, "--csv"), "--shares goes with"),
        (("score", "q", "--shares", *NAMED, "--method", "logo"), "--shares goes with"),
        (("score", "q", "--shares", *NAMED, "--group", "dune"), f"{len(GROUPS)} of {len(GROUPS)}"),
        (("unlearn", "--coalitions", 4, "--all"), "--coalitions needs the groups"),
        (("unlearn", "--coalitions", 4, "--group", "amber+blue", "--group", "cyan"), "is no group"),
    ],
)
def test_bad_options(cli: Cli, project: Path, command: tuple[object, ...], said: str) -> None:
    assert said in cli(*command, code=2).stderr
