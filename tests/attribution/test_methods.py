"""The rows of methods are complete. See tests/plugins for those of other packages."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from guda_cli.attribution import methods
from guda_cli.attribution.methods import COUNTERFACTUAL, GROUPS, IMAGES, METHODS, Method
from guda_cli.attribution.rivals.engine import Engine, GroupEngine
from guda_cli.errors import UsageError
from guda_cli.sections import AttributionSpec, Bounds, Setting
from guda_cli.workflow.project.counterfactual_kinds import KINDS
from guda_cli.workflow.scoring import instance_settings

DOCS = Path(__file__).parents[2] / "docs"
ROW = Method(
    "mine",
    IMAGES,
    "mine",
    "it was asked",
    ("s", "n"),
    "guda_cli.attribution.rivals.influence:Trak",
    (Setting("seed"),),
)


@pytest.mark.parametrize("row", METHODS, ids=lambda row: row.name)
def test_a_row_is_complete(row: Method) -> None:
    assert row.name
    assert row.help.startswith(row.name)
    assert row.sentence
    assert all(row.doc)
    assert len(row.doc) == 2
    assert f"| `{row.name}` | {row.doc[0]} | {row.doc[1]} |\n" in (DOCS / "methods.md").read_text("utf-8")
    settings = {f.name for f in dataclasses.fields(AttributionSpec)}
    assert settings.issuperset(row.reads)
    assert methods.find(row.name) is row
    if row.kind == COUNTERFACTUAL:
        assert not row.engine
        return
    assert row.reads
    assert issubclass(methods.engine(row), {IMAGES: Engine, GROUPS: GroupEngine}[row.kind])


def test_names_are_distinct_and_bounds_agree() -> None:
    assert len({row.name for row in METHODS}) == len(METHODS)
    assert tuple(KINDS) == methods.COMPARING
    bounds: dict[str, set[Bounds]] = {}
    for setting in (setting for row in METHODS for setting in row.settings):
        bounds.setdefault(setting.name, set()).add(setting.bounds)
    assert all(len(found) == 1 for found in bounds.values())


def test_a_method_without_an_engine_is_no_other_method() -> None:
    """It used to be scored as mucs, under its own name."""
    row = dataclasses.replace(ROW, engine="")
    for each in (row, METHODS[0]):
        with pytest.raises(ValueError, match="Empty module name"):
            methods.engine(each)
    with pytest.raises(UsageError, match="did you mean 'mucs'"):
        methods.find("mucks")
    with pytest.raises(UsageError, match="did you mean 'mucs'"):
        instance_settings.settings("mucks", AttributionSpec())


def test_settings_that_came_later_are_in_the_key_where_they_are_in_force() -> None:
    """Scores of earlier versions stay: their keys know nothing of these settings."""
    plain = {"per_group", "timesteps", "draws", "projection", "ridge", "seed"}
    assert set(methods.values(methods.find("das"), AttributionSpec())) == plain
    spec = AttributionSpec(das_squared=True, das_profile=True, damping_by_layer=True)
    found = methods.values(methods.find("das"), spec)
    assert {name: found[name] for name in found.keys() - plain} == {"das_squared": True, "das_profile": True}
    assert methods.values(methods.find("trak"), spec).keys() == plain
    assert methods.values(methods.find("unlearn-query"), spec)["damping_by_layer"] is True
