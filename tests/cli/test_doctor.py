"""`guda doctor`."""

from __future__ import annotations

from pathlib import Path

import pytest

from guda_cli.commands.doctor import satisfies
from guda_cli.sections import Recipe
from guda_cli.session import Options, Session
from guda_cli.settings.reading import from_dict
from guda_cli.store import Store


def states(documents, stdout: str) -> dict[str, str]:
    [document] = documents(stdout)
    assert document["ok"] == all(check["state"] != "fail" for check in document["checks"])
    return {check["name"]: check["state"] for check in document["checks"]}


def test_an_empty_folder_is_well(guda, documents, tmp_path: Path) -> None:
    found = states(documents, guda("doctor", "--json", code=0).stdout)
    assert {"python", "torch", "diffusers", "store", "recipe", "data", "disk"} <= set(found)
    assert list(tmp_path.iterdir()) == []


def test_text_gives_a_remedy(guda) -> None:
    done = guda("doctor", "--recipe", "cifar10", code=3)
    assert "FAIL" in done.stdout
    assert "--set data.path=DIR" in done.stdout


def test_images_that_are_gone(guda, documents, tmp_path: Path) -> None:
    recipe = from_dict({"data": {"path": str(tmp_path / "gone")}})
    Session(Options(store=tmp_path / ".guda")).make_current(recipe, "digits")
    found = states(documents, guda("doctor", "--json", code=3).stdout)
    assert found["current recipe"] == "ok"
    assert found["data"] == "fail"


def test_a_store_of_another_format(guda, documents, tmp_path: Path) -> None:
    Store.open(tmp_path / ".guda")
    (tmp_path / ".guda" / "format.json").write_text('{"format": "guda-store", "version": 99}')
    assert states(documents, guda("doctor", "--json", code=3).stdout)["store"] == "fail"


def test_a_recipe_that_is_wrong(guda, documents, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("trian: {}")
    found = states(documents, guda("doctor", "--recipe", "x.yaml", "--json", code=3).stdout)
    assert found["recipe"] == "fail"


@pytest.mark.slow
def test_full_imports_torch(guda, documents) -> None:
    found = states(documents, guda("doctor", "--full", "--json", code=0).stdout)
    assert found["devices"] == "ok"


@pytest.mark.parametrize(
    ("version", "spec", "fits"),
    [
        ("2.13.0+cpu", ">=2.3", True),
        ("2.3", ">=2.3.0", True),
        ("0.42.1", "<0.50,>=0.35", True),
        ("0.50.0", "<0.50,>=0.35", False),
        ("0.9", ">=0.16", False),
        ("1.0rc1", ">=1.0", True),
        ("1.0", "", True),
    ],
)
def test_versions(version: str, spec: str, fits: bool) -> None:
    assert satisfies(version, spec) is fits


def test_current_recipe_is_kept_until_another_is_made_current(tmp_path: Path) -> None:
    session = Session(Options(store=tmp_path / "s"))
    assert session.current() is None
    session.make_current(Recipe(name="a"), "a.yaml", ["x"])
    assert session.recipe().name == "a"
    assert Session(Options(store=tmp_path / "s", sets=("train.seed=7",))).recipe().train.seed == 7
    assert session.recipe("digits").name == "digits"
