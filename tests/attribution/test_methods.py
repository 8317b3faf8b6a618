"""The rows of methods: complete, and those of other packages used or refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from guda_cli.attribution import methods
from guda_cli.attribution.methods import COUNTERFACTUAL, GROUPS, IMAGES, METHODS, Method
from guda_cli.attribution.rivals.engine import Engine, GroupEngine
from guda_cli.errors import UsageError
from guda_cli.sections import AttributionSpec
from guda_cli.workflow.scoring import instance_settings

DOCS = Path(__file__).parents[2] / "docs"
ROW = Method(
    "mine",
    IMAGES,
    "mine",
    "it was asked",
    ("s", "n"),
    "guda_cli.attribution.rivals.influence:Trak",
    ("seed",),
)
NO_ROW, WRONG_NAME, WRONG_KIND, WRONG_SETTING = (
    3,
    dataclasses.replace(ROW, name="yours"),
    dataclasses.replace(ROW, kind=COUNTERFACTUAL),
    dataclasses.replace(ROW, reads=("seed", "warmth")),
)


class Package:
    name = "guda-mine"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, EntryPoint]]:
    """Entry points as if a package had them, by name of the method."""
    found: dict[str, EntryPoint] = {}
    monkeypatch.setattr(methods, "_entries", lambda: found)
    methods._foreign.cache_clear()
    yield found
    methods._foreign.cache_clear()


def entry(name: str, where: str) -> EntryPoint:
    made = EntryPoint(name, f"tests.attribution.test_methods:{where}" if ":" not in where else where, "")
    vars(made)["dist"] = Package
    return made


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
    assert set(row.reads).issuperset({*row.at_least, *row.above})
    assert methods.find(row.name) is row
    if row.kind == COUNTERFACTUAL:
        assert not row.engine
        return
    assert row.reads
    assert issubclass(methods.engine(row), {IMAGES: Engine, GROUPS: GroupEngine}[row.kind])


def test_names_are_distinct_and_bounds_agree() -> None:
    assert len({row.name for row in METHODS}) == len(METHODS)
    for kind in ("at_least", "above"):
        for row in METHODS:
            assert getattr(row, kind).items() <= methods.bounds(kind).items()


def test_a_method_without_an_engine_is_no_other_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """It used to be scored as mucs, under its own name."""
    row = dataclasses.replace(ROW, engine="")
    monkeypatch.setattr(methods, "METHODS", (*METHODS, row))
    with pytest.raises(TypeError, match="'mine' has no engine"):
        methods.engine(methods.find("mine"))
    with pytest.raises(TypeError, match="'guda' has no engine"):
        methods.engine(METHODS[0])
    with pytest.raises(UsageError, match="did you mean 'mucs'"):
        methods.find("mucks")
    with pytest.raises(UsageError, match="did you mean 'mucs'"):
        instance_settings.settings("mucks", AttributionSpec())


def test_another_packages_method_is_found_when_it_is_named(installed: dict[str, EntryPoint]) -> None:
    installed["mine"] = entry("mine", "ROW")
    assert methods.names() == [*(row.name for row in METHODS), "mine"]
    assert methods.find("mine") is ROW
    assert issubclass(methods.engine(ROW), Engine)
    chosen = instance_settings.settings("mine", AttributionSpec(seed=4))
    assert chosen.values == {"seed": 4}
    assert chosen.scores_images


def test_built_in_names_win(installed: dict[str, EntryPoint]) -> None:
    installed["trak"] = entry("trak", "no.such.module:ROW")
    assert methods.find("trak") in METHODS
    assert methods.names() == [row.name for row in METHODS]


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("no.such.module:ROW", "no"),
        ("NOTHING", "AttributeError"),
        ("NO_ROW", "leads to a int"),
        ("WRONG_NAME", "named 'yours'"),
        ("WRONG_KIND", "kind 'counterfactual'"),
        ("WRONG_SETTING", "warmth"),
    ],
)
def test_a_broken_package_is_named(installed: dict[str, EntryPoint], where: str, why: str) -> None:
    installed["mine"] = entry("mine", where)
    assert "mine" in methods.names(), "naming it loads nothing"
    with pytest.raises(UsageError, match="package guda-mine") as err:
        methods.find("mine")
    assert why in err.value.why
    assert methods.find("trak").name == "trak"


@pytest.mark.parametrize("engine", ["", "no.such.module:Engine", "tests.attribution.test_methods:Package"])
def test_a_packages_engine_that_is_none_is_named(installed: dict[str, EntryPoint], engine: str) -> None:
    installed["mine"] = entry("mine", "ROW")
    with pytest.raises(UsageError, match="package guda-mine"):
        methods.engine(dataclasses.replace(ROW, engine=engine))
