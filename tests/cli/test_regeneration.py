"""`guda report --regeneration`: pictures without the highest groups, beside others."""

# ruff: noqa: F401, F811
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guda_cli.attribution.picture_changes import levels
from guda_cli.attribution.rivals import similarity
from tests.cli.test_gallery import drawings, no_torch, pixels, plain_copy
from tests.workflow.fixtures import GROUPS, QUERIES, Cli, cli, here, one_thread, project, template


def test_each_image_without_its_highest_group_and_without_all_others(cli: Cli, project: Path) -> None:
    done = cli("report", "--regeneration", QUERIES, "--json", "--html", "r.html")
    found = done.document["regeneration"]
    assert (found["top"], found["by"], found["notes"]) == (1, "guda", [])
    for row, query in zip(found["images"], done.document["queries"], strict=True):
        highest = query["scores"][0]["group"]
        assert row["groups"] == [highest]
        assert row["others"] == sorted(set(GROUPS) - {highest})
        assert row["changes"].keys() == {"pixels", "structure"}
    assert len(drawings()) == QUERIES * (1 + len(GROUPS))
    page = Path("r.html").read_text()
    assert "Drawn without the groups" in page
    assert "without the highest" in page.lower()
    [again] = no_torch("report", "--regeneration", str(QUERIES), "--json")
    assert again["regeneration"] == found
    assert "regeneration" not in cli("report", "--json").document


def test_changes_are_those_of_the_pictures_that_guda_sample_draws(cli: Cli, project: Path) -> None:
    [row] = cli("report", "--regeneration", 1, "--json").document["regeneration"]["images"]
    found: dict[str, float] = {}
    for group in GROUPS:
        cli("sample", "-n", 1, "--without", group, "--out", f"w-{group}")
        other = pixels(f"w-{group}/without-{group}-00000.png")
        found[group] = levels(pixels(row["image"]), other)
    change = row["changes"]["pixels"]
    assert change["top"] == pytest.approx(found[row["groups"][0]], abs=0.1)
    assert change["others"] == pytest.approx(sum(found[g] for g in row["others"]) / 3, abs=0.1)


def test_means_and_table(cli: Cli, project: Path) -> None:
    found = cli("report", "--regeneration", 3, "--json").document["regeneration"]
    for change in found["changes"]:
        tops = [row["changes"][change["measure"]]["top"] for row in found["images"]]
        assert change["top"] == pytest.approx(sum(tops) / 3)
        assert change["difference"] == pytest.approx(change["top"] - change["others"])
        assert change["low"] <= change["difference"] <= change["high"]
    shown = cli("report", "--regeneration", 3).stdout
    assert "Drawn without the groups" in shown
    assert "3 images drawn again" in shown.replace("\n", " ")


def test_two_groups_at_once_need_a_model_without_both(cli: Cli, project: Path) -> None:
    args = ("report", "--regeneration", QUERIES, "--regeneration-top", 2, "--json")
    done = cli(*args)
    assert done.document["regeneration"]["images"] == []
    assert "guda unlearn --group" in done.stderr
    query = done.document["queries"][0]
    names = sorted(entry["group"] for entry in query["scores"][:2])
    rest = sorted(set(GROUPS) - set(names))
    cli("unlearn", "--group", "+".join(names), "--no-null")
    cli("score", "q")
    assert "2 other groups" in " ".join(cli(*args).document["regeneration"]["notes"])
    cli("unlearn", "--group", "+".join(rest), "--no-null")
    cli("score", "q")
    rows = {row["image"]: row for row in cli(*args).document["regeneration"]["images"]}
    assert rows[query["image"]]["groups"] == names
    assert rows[query["image"]]["others"] == ["+".join(rest)]


def test_a_method_without_models_is_judged_by_those_there_are(cli: Cli, project: Path) -> None:
    cli("score", "q", "--method", "similarity")
    args = ("report", "--method", "similarity", "--regeneration", 2, "--json")
    done = cli(*args)
    found = done.document["regeneration"]
    assert found["by"] == "guda"
    tops = {query["image"]: query["scores"][0]["group"] for query in done.document["queries"]}
    assert all(row["groups"] == [tops[row["image"]]] for row in found["images"])
    cli("train", "--each-group", "--seeds", 2)
    assert cli(*args).document["regeneration"]["by"] == "logo"
    assert cli(*args, "--regeneration-by", "guda").document["regeneration"] == found
    assert cli("report", "--regeneration", 1, "--regeneration-by", "logo", "--json").document["regeneration"]


def test_an_encoder_of_the_recipe_is_a_third_measure(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Halves:
        def embed(self, images: np.ndarray) -> np.ndarray:
            means = images.reshape(len(images), 2, -1).mean(2) + 1
            return means / np.linalg.norm(means, axis=1, keepdims=True)

    monkeypatch.setattr(similarity, "load_encoder", lambda name, training, device: Halves())
    args = ("report", "--regeneration", 2, "--set", "attribution.encoder=mine", "--json")
    found = cli(*args).document["regeneration"]
    assert [change["measure"] for change in found["changes"]] == ["pixels", "structure", "embedding"]
    assert all(row["changes"]["embedding"]["top"] > 0 for row in found["images"])


def test_images_that_guda_did_not_draw_are_left_out(cli: Cli, project: Path) -> None:
    cli("score", "--", plain_copy("q/00000.png", "a-user's.png", 3))
    found: dict[str, Any] = cli("report", "--regeneration", 99, "--json").document["regeneration"]
    assert len(found["images"]) == QUERIES
    assert found["notes"] == ["1 image is left out: nothing says how guda sample drew it"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--regeneration", "2", "--against", "logo"], "does not go with --against"),
        (["--regeneration", "2", "--regeneration-by", "das"], "guda and logo"),
        (["--regeneration-top", "2"], "goes with --regeneration"),
        (["--regeneration", "2", "--regeneration-by", "logo"], "no leave-one-group-out model"),
    ],
)
def test_what_cannot_be(cli: Cli, project: Path, args: list[str], said: str) -> None:
    before = drawings()
    done = cli("report", *args, code=4 if "logo" in args[-1] and len(args) == 4 and "by" in args[2] else 2)
    assert said in done.stderr
    assert drawings() == before
