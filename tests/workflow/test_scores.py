"""A query's terms are its own: they do not depend on companions, order, file name or batch."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.devices import packing
from tests.workflow.fixtures import (
    GROUPS,
    SIGN,
    Cli,
    here,
    scores,
    terms,
)


def test_every_group_is_listed_and_ranked(cli: Cli, project: Path) -> None:
    for document in cli("score", "q", "--json").documents:
        found = document["scores"]
        assert sorted(s["group"] for s in found) == sorted(GROUPS)
        assert [s["rank"] for s in found] == [1, 2, 3, 4]
        values = [s["score"] for s in found]
        assert values == sorted(values, reverse=True)
        for s in found:
            assert s["low"] < s["score"] < s["high"]
            assert math.isclose(s["high"] - s["score"], s["score"] - s["low"], rel_tol=1e-6)
            assert (s["high"] - s["low"]) / (2 * s["se"]) > 1.96  # Student's t
            assert s["z"] is None, "the recipe calibrates nothing"
        assert document["answer"] is None


def test_companions_and_order_and_batches_do_not_matter(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = ["--seed", 7]
    cli("score", "q", *new)
    together = terms(here())
    shutil.rmtree(".guda/tables")
    monkeypatch.setenv("GUDA_BATCH_SIZE", "5")
    for name in sorted(Path("q").glob("*.png"), reverse=True):
        cli("score", name, *new)
    alone = terms(here())
    assert alone
    for key, values in alone.items():
        np.testing.assert_allclose(values, together[key], rtol=packing())


def test_a_copy_elsewhere_costs_nothing(cli: Cli, project: Path) -> None:
    copy = project / "far away" / "it's another.png"
    copy.parent.mkdir()
    shutil.copy("q/00002.png", copy)
    [old] = cli("score", "q/00002.png", "--json").documents
    done = cli("score", copy, "--json")
    assert "no model was run" in done.stderr
    [new] = done.documents
    assert new.pop("image") == str(copy)
    old.pop("image")
    assert new == old


def test_duplicates_are_scored_once_and_shown_as_asked(cli: Cli, project: Path) -> None:
    shutil.copy("q/00000.png", "twin.png")
    done = cli("score", "q/00000.png", "q/00000.png", "./q/00000.png", "twin.png", "--seed", 3, "--json")
    assert [d["image"] for d in done.documents] == ["q/00000.png", "twin.png"]
    assert len(scores(done.documents)) == 1
    assert "2 images: 80 network forwards" in done.stderr, "5 models, 16 cells, one image"


def test_the_sign_is_said_everywhere(cli: Cli, project: Path) -> None:
    def said(text: str) -> bool:
        return SIGN in " ".join(text.split()).lower().replace("this group", "the group")

    assert said(cli("score", "q/00000.png").stdout)
    assert said(cli("score", "q").stdout)
    assert said(cli("score", "q/00000.png", "--json").document["sign"])
    assert said(cli("report").stdout)
    cli("report", "--html", "r.html")
    assert said(Path("r.html").read_text())
    assert said(cli("report", "--json").document["sign"])


@pytest.mark.parametrize(
    ("args", "unit"),
    [
        (["--weighting", "elbo"], "nats"),
        (["--weighting", "elbo", "--grid", "all"], "nats"),
        (["--weighting", "elbo", "--grid", "stride:5"], "weighted squared error"),
        (["--weighting", "uniform"], "weighted squared error"),
        ([], "weighted squared error"),
    ],
)
def test_nats_only_for_the_elbo_on_an_unbiased_grid(
    cli: Cli, project: Path, args: list[str], unit: str
) -> None:
    one = ["score", "q/00000.png", "--group", "amber", *args]
    assert cli(*one, "--json").document["unit"] == unit
    text = cli(*one).stdout
    assert f"({unit})" in text
    assert ("a partial sum" in text) == ("stride:5" in args)
    assert ("nats" in text) == (unit == "nats")


def test_one_group_is_scored_as_among_all(cli: Cli, project: Path) -> None:
    [every] = scores(cli("score", "q/00001.png", "--json").documents).values()
    [one] = scores(cli("score", "q/00001.png", "--group", "cyan", "--json").documents).values()
    assert one == {"cyan": every["cyan"]}


def test_a_report_gives_the_numbers_of_the_scores(cli: Cli, project: Path) -> None:
    scored = scores(cli("score", "q", "--json").documents)
    assert scores(cli("report", "--json").document["queries"]) == scored
    other = scores(cli("score", "q", "--json", "--weighting", "elbo").documents)
    assert scores(cli("report", "--json", "--weighting", "elbo").document["queries"]) == other


def test_bits_are_those_of_the_256_levels(cli: Cli, project: Path) -> None:
    """A level is 2 / 255 of the scale of the density: log2(127.5) = 6.994 bits more."""
    [found] = cli("score", "q/00000.png", "--weighting", "elbo", "--json").documents
    elbo = found["elbo"]
    of_density = -elbo["nats"] / (64 * math.log(2.0))
    assert elbo["bits_per_dim"] == pytest.approx(of_density + 6.9943534, rel=1e-6)
