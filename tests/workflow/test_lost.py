"""An answer that lacks something which was damaged says so wherever it is read, and ends with code 5."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from guda_cli.store import ActionRecord, Store
from tests.store.inside import blob_file
from tests.workflow.fixtures import Cli, flip, here, record


def spoil(found: ActionRecord, at: int = 40) -> None:
    """Flip a bit in a record's file."""
    path = here().root / "actions" / f"{found.key}.json"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def cut(found: ActionRecord) -> None:
    """Leave nothing that can be read of a record."""
    path = here().root / "actions" / f"{found.key}.json"
    path.write_bytes(path.read_bytes()[:17])


def verified(found: ActionRecord) -> None:
    """Flip a bit in the weights, and let verify find it."""
    flip(here(), found.outputs["weights"])
    here().verify()


def gone(found: ActionRecord) -> None:
    blob_file(here(), found.outputs["weights"]).unlink()


HARM: dict[str, Callable[[ActionRecord], None]] = {
    "record": spoil, "record cut": cut, "verified": verified, "gone": gone,
}  # fmt: skip
SAID = "damaged or gone from the store, so not in this answer: unlearn blue"


@pytest.mark.parametrize("harm", HARM)
def test_a_score_without_a_damaged_model_says_so(cli: Cli, project: Path, harm: str) -> None:
    whole = cli("score", "q", "--json")
    HARM[harm](record("unlearn", "blue"))
    done = cli("score", "q", "--json", code=5)
    *answers, error = done.documents
    assert len(answers) == len(whole.documents)
    assert all(SAID in " ".join(answer["warnings"]) for answer in answers)
    assert error["exit_code"] == 5
    assert f"warning: {SAID} (guda unlearn --group blue)" in done.stderr
    assert "try: guda unlearn --group blue" in done.stderr
    assert SAID in cli("score", "q", code=5).stderr  # what is in quarantine by now is still told
    cli("unlearn", "--group", "blue")
    assert cli("score", "q", "--json").stdout == whole.stdout


@pytest.mark.parametrize("harm", ["record", "verified"])
def test_a_report_without_a_damaged_model_says_so(cli: Cli, project: Path, harm: str) -> None:
    HARM[harm](record("unlearn", "blue"))
    assert SAID in " ".join(cli("report", code=5).stdout.split())
    assert any(SAID in text for text in cli("report", "--json", code=5).documents[0]["warnings"])
    assert SAID in cli("report", "--html", "page.html", code=5).stderr
    assert SAID in (project / "page.html").read_text()
    cli("unlearn", "--group", "blue")
    assert SAID not in cli("report").stdout


def test_groups_that_were_not_asked_for_may_be_damaged(cli: Cli, project: Path) -> None:
    spoil(record("unlearn", "blue"))
    assert "damaged" not in str(cli("score", "q/00000.png", "--json", "-g", "cyan").document["warnings"])
    done = cli("score", "q/00000.png", "--group", "blue", code=4)
    assert SAID in " ".join(done.stderr.split())
    assert "other settings" not in done.stderr


def test_models_of_other_settings_may_be_damaged(cli: Cli, project: Path) -> None:
    old = record("unlearn", "blue")
    cli("train", "--set", "unlearn.steps=6")
    cli("unlearn", "--group", "cyan", "--no-null")
    spoil(old)
    here().verify()
    assert "damaged" not in str(cli("score", "q/00000.png", "--json").document["warnings"])
    assert "damaged" not in cli("status").stdout


@pytest.mark.parametrize("harm", HARM)
def test_status_tells_damage_from_other_settings(cli: Cli, project: Path, harm: str) -> None:
    HARM[harm](record("unlearn", "blue"))
    here().verify()
    steps = {step["what"]: step["why"] for step in cli("status", "--json").document["steps"]}
    assert steps["unlearn blue"] == "damaged or gone from the store"


def test_a_damaged_full_model_is_told_from_one_that_never_was(cli: Cli, project: Path) -> None:
    verified(record("train"))
    assert "it is damaged or gone from the store" in " ".join(cli("score", "q", code=4).stderr.split())


def test_a_damaged_seed_of_the_oracle_is_told(cli: Cli, bench: Path) -> None:
    """Without it the mean is over the other seeds alone, which nothing else would say."""
    whole = cli("score", "q", "--method", "logo", "--json")
    [of_three] = [
        r for r in here().records("train")
        if (r.params.get("without") or {}).get("groups") == ["blue"] and r.params["train"]["seed"] == 3
    ]  # fmt: skip
    spoil(of_three)
    done = cli("score", "q", "--method", "logo", "--json", code=5)
    said = "not in this answer: model without blue, seed 3 (guda train --without blue --seeds 3)"
    assert said in " ".join(done.documents[0]["warnings"])
    assert said in " ".join(cli("report", "--against", "logo", "--json", code=5).documents[0]["warnings"])
    assert said in " ".join(
        cli("report", "--json", code=5).documents[0]["warnings"]
    )  # what it foretells rests on it
    cli("train", "--without", "blue", "--seeds", 3)
    assert cli("score", "q", "--method", "logo", "--json").stdout == whole.stdout


def test_damaged_records_of_scored_images_are_told(cli: Cli, project: Path) -> None:
    cli("score", "q/00000.png", "--seed", 7)
    whole = cli("report", "--json").document
    first = next(r for r in here().records("score") if r.params["grid"]["seed"] == 0)
    spoil(first)
    done = cli("report", "--json", "--seed", 7, code=5)
    assert "scores of 4 images (guda score IMAGE)" in " ".join(done.documents[0]["warnings"])
    cli("score", "q")
    assert cli("report", "--json").document["queries"] == whole["queries"]


def test_damaged_pictures_of_scored_images_are_told(cli: Cli, project: Path) -> None:
    cli("score", "q/00000.png", "q/00001.png", "--draws", 3)
    flip(here(), next(here().records("score")).outputs["queries"])
    done = cli("report", "--json", code=5)
    assert "(guda score IMAGE)" in " ".join(done.documents[0]["warnings"])


def test_a_damaged_check_of_the_full_model_is_told(cli: Cli, project: Path) -> None:
    spoil(record("training-check"))
    said = "the check of the full model is damaged or gone from the store (guda train)"
    assert said in cli("score", "q/00000.png", "--json").document["warnings"]
    cli("train")
    assert said not in cli("score", "q/00000.png", "--json").document["warnings"]


def test_which_models_are_a_design_is_there_twice(cli: Cli, project: Path) -> None:
    """Else halves and coalitions would turn up as groups of their own."""
    from guda_cli.console import Console
    from guda_cli.settings import lookup
    from guda_cli.workflow.keys.removal import Removal
    from guda_cli.workflow.project import designs
    from guda_cli.workflow.project.project import Project

    def opened() -> Project:
        store = Store.open(".guda")
        recipe = lookup.override(store.get_document("current")["recipe"], (), Path.cwd())
        return Project(recipe, store, Console())

    drawn = [Removal(("amber", "blue"))]
    designs.note(opened(), designs.SUBSETS, drawn)
    [path] = [p for p in (here().root / "documents").glob("subsets-*.json") if ".copy" not in p.name]
    path.write_bytes(path.read_bytes()[:-9])
    assert designs.noted(opened(), designs.SUBSETS) == drawn
