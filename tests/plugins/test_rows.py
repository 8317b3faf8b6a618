"""Rows of another package: found when they are named, refused by the package's name when they are broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guda_cli.attribution import methods
from guda_cli.attribution.rivals.engine import Engine
from guda_cli.errors import RecipeError, UsageError
from guda_cli.sections import AttributionSpec, UnlearnSpec, to_dict
from guda_cli.settings import reading
from guda_cli.unlearning import catalog
from guda_cli.workflow.scoring import instance_settings


def recipe(**sections: Any) -> dict[str, Any]:
    return {"name": "mine", "data": {"source": "digits"}, **sections}


def test_they_are_listed_after_the_programs_own_and_loaded_when_named(package: Path) -> None:
    own = [row.name for row in catalog.ROWS]
    assert catalog.names() == [*own, "broken-operator", "fade"]
    assert catalog.row("fade").backwards == 1
    assert catalog.tuning_space("fade") == {"unlearn.fading": (0.5, 1.0)}
    assert methods.names()[: len(methods.METHODS)] == [row.name for row in methods.METHODS]
    assert "brightness" in methods.names()
    assert issubclass(methods.engine(methods.find("brightness")), Engine)


def test_own_names_win(package: Path) -> None:
    assert catalog.row("retrack") in catalog.ROWS
    assert methods.find("trak") in methods.METHODS
    assert issubclass(methods.engine(methods.find("trak")), Engine)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("broken-method", "guda_example_that_is_not_installed"),
        ("no-row", "leads to a str, not a Method"),
        ("misnamed", "named 'brightness'"),
        ("comparing", "images and groups"),
    ],
)
def test_a_broken_method_is_named(package: Path, name: str, why: str) -> None:
    with pytest.raises(RecipeError, match=f"'{name}' of the package guda-example cannot be used") as err:
        methods.find(name)
    assert why in err.value.why
    assert "guda-example" in err.value.fix


def test_a_broken_engine_or_operator_is_named(package: Path) -> None:
    with pytest.raises(RecipeError, match="'no-engine' of the package guda-example"):
        methods.engine(methods.find("no-engine"))
    with pytest.raises(RecipeError, match="'broken-operator' of the package guda-example"):
        catalog.row("broken-operator")
    assert catalog.row("fade").name == "fade", "one broken row harms no other"


def test_unknown_names_suggest_a_packages(package: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'brightness'"):
        methods.find("brightnes")
    with pytest.raises(RecipeError, match="did you mean 'fade'"):
        catalog.row("fad")


def test_settings_of_their_own_are_entries_of_a_recipe(package: Path) -> None:
    found = reading.from_dict(recipe(unlearn={"operator": "fade", "fading": 1}, attribution={"contrast": 3}))
    assert catalog.settings(found.unlearn)["fading"] == 1.0
    assert instance_settings.settings("brightness", found.attribution).values == {"contrast": 3.0, "seed": 0}
    again = to_dict(found)
    assert again["unlearn"]["fading"] == 1.0
    assert again["attribution"]["contrast"] == 3.0
    assert reading.from_dict(again) == found
    usual = reading.from_dict(recipe(unlearn={"operator": "fade"}))
    assert catalog.settings(usual.unlearn)["fading"] == 0.5
    assert instance_settings.settings("brightness", usual.attribution).values == {"contrast": 2.0, "seed": 0}


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("unlearn", {"operator": "fade", "fading": 0}, "unlearn.fading must be above 0"),
        ("unlearn", {"operator": "fade", "fadings": 1}, "did you mean 'fading'"),
        ("unlearn", {"operator": "retrack", "fading": 1}, "unknown key 'fading' in unlearn"),
        ("unlearn", {"operator": "fade", "fading": "much"}, "unlearn.fading"),
        ("attribution", {"contrast": -1}, "attribution.contrast must be above 0"),
    ],
)
def test_they_are_checked(package: Path, section: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as err:
        reading.from_dict(recipe(**{section: values}))
    assert message in err.value.message


def test_nothing_of_them_is_left_where_the_package_is_not_installed() -> None:
    assert catalog.names() == [row.name for row in catalog.ROWS]
    with pytest.raises(RecipeError, match="'fade'"):
        reading.from_dict(recipe(unlearn={"operator": "fade"}))
    assert UnlearnSpec().options == AttributionSpec().options == ()
