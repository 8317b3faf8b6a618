"""`guda recipes ls|show`."""

from __future__ import annotations

from pathlib import Path

import pytest

from guda_cli.settings.lookup import load, shipped, shipped_text


def test_ls_names_every_recipe(guda, documents) -> None:
    text = guda("recipes", "ls", code=0).stdout
    [document] = documents(guda("recipes", "ls", "--json", code=0).stdout)
    assert [row["name"] for row in document["recipes"]] == shipped()
    for row in document["recipes"]:
        assert row["name"] in text
        assert row["description"] in text, "descriptions are not cut off a terminal"


def test_ls_says_which_need_a_path(guda, documents) -> None:
    [document] = documents(guda("recipes", "ls", "--json", code=0).stdout)
    needs = {row["name"] for row in document["recipes"] if row["needs_path"]}
    assert needs == {"cifar10-small", "cifar10-gpu", "cifar10"}


def test_ls_says_which_start_at_once(guda, documents, tmp_path: Path) -> None:
    (tmp_path / "emoji-styles.tar").touch()
    [document] = documents(guda("recipes", "ls", "--json", code=0).stdout)
    rows = {row["name"]: (row["data_here"], row["data_set"]) for row in document["recipes"]}
    assert rows["digits"] == (True, "digits")
    assert rows["cifar10-small"] == rows["cifar10"] == (False, "cifar10")
    assert rows["emoji-styles"] == (True, "emoji-styles")
    assert rows["folder"] == (False, None)
    text = guda("recipes", "ls", code=0).stdout
    assert "get cifar10" in text
    assert "your own" in text


@pytest.mark.parametrize("name", shipped())
def test_show_prints_the_text_as_it_is(guda, name: str) -> None:
    assert guda("recipes", "show", name, code=0).stdout == shipped_text(name)


def test_the_template_becomes_a_recipe(guda, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(guda("recipes", "show", "folder", code=0).stdout)
    recipe, _ = load("my.yaml", cwd=tmp_path)
    assert recipe.data.path == str(tmp_path / "images")


def test_show_as_a_document(guda, documents) -> None:
    [document] = documents(guda("recipes", "show", "digits", "--json", code=0).stdout)
    assert document["recipe"]["data"]["source"] == "digits"
    assert document["text"] == shipped_text("digits")
