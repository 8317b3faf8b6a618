"""`guda doctor`."""

from __future__ import annotations

from pathlib import Path

import pytest

from guda_cli import processors
from guda_cli.commands import extras, machine
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


def test_text_gives_a_remedy(guda, tmp_path: Path) -> None:
    done = guda("doctor", "--recipe", "cifar10", code=3)
    assert "FAIL" in done.stdout
    assert "guda data get cifar10" in done.stdout
    (tmp_path / "mine.yaml").write_text("name: mine")
    assert "--set data.path=DIR" in guda("doctor", "--recipe", "mine.yaml", code=3).stdout


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


def test_extras_that_the_recipe_needs(
    guda, documents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is installed here: what is said of it follows from the packages' own metadata."""
    lines = [
        "torch>=2.3", 'peft>=0.13; extra == "lora"', 'transformers>=4.45; extra == "encoders"',
        'accelerate>=0.34; extra == "text"', 'guda[encoders,lora]; extra == "text"',
        'guda[text]; extra == "dev"',
    ]  # fmt: skip
    known = extras.parsed(lines)
    assert known == {
        "lora": {"peft"}, "encoders": {"transformers"}, "text": {"accelerate", "peft", "transformers"},
    }  # fmt: skip
    text = from_dict({"model": {"text_conditional": True}})
    lora = from_dict({"unlearn": {"params": "lora:4"}, "attribution": {"encoder": "some/clip"}})
    assert set(extras.needed(text)) == {"text"}
    assert set(extras.needed(lora)) == {"lora", "encoders"}
    assert extras.needed(Recipe()) == {}
    monkeypatch.setattr(extras, "packages", lambda: known)
    monkeypatch.setattr(extras, "_lacks", lambda name: name == "transformers")
    found = {check.name: check for check in extras.checks(text)}
    assert found["extra text"].state == "fail"
    assert found["extra text"].fix == "pip install 'guda[text]'"
    assert "lora installed; encoders, text not" in found["extras"].detail
    assert [check.state for check in extras.checks(Recipe())] == ["ok"], "what nobody needs is no failure"


def test_the_machine(guda, documents) -> None:
    [document] = documents(guda("doctor", "--json", code=0, env={"GUDA_THREADS": "1"}).stdout)
    details = {check["name"]: check["detail"] for check in document["checks"]}
    assert {"cores", "threads", "GPU", "extras", "AVIF"} <= set(details)
    assert details["threads"] == "GUDA_THREADS=1"
    assert guda("doctor", code=3, env={"GUDA_THREADS": "abc"}).stdout.count("FAIL") == 1


def test_threads_that_help_and_that_do_not() -> None:
    assert machine.threads(None, 2, 1.8).state == "ok"
    slow = machine.threads(None, 2, 0.7)
    assert slow.state == "warn"
    assert slow.fix == "export GUDA_THREADS=1"
    assert "0.7 times as fast as one" in slow.detail
    assert machine.threads(1, 2, None).state == machine.threads(None, 1, None).state == "ok"
    assert 0.01 < machine.speedup() < 4


@pytest.mark.parametrize(
    ("text", "cores"),
    [("200000 100000", 2.0), ("50000 100000", 0.5), ("max 100000", None), ("", None), ("1 0", None)],
)
def test_a_containers_limit(tmp_path: Path, text: str, cores: float | None) -> None:
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert processors.quota(tmp_path / "cpu.max") == cores
    assert processors.quota(tmp_path / "gone") is None


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
