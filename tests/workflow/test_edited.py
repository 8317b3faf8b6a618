"""An edited recipe file, and settings of the command line that are remembered, are noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from guda_cli.settings.lookup import differences
from tests.workflow.fixtures import RECIPE, Cli, draw


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "images", ("amber", "blue"), images=4)
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE.replace("steps: 20", "steps: 3"))
    return path


def test_differences_by_section() -> None:
    old = {"name": "a", "train": {"steps": 3, "lr": 0.1}, "gone": 1}
    new = {"name": "a", "train": {"steps": 4, "lr": 0.1}, "new": {"x": 1}}
    assert differences(old, new) == {"train.steps": (3, 4), "gone": (1, None), "new": (None, {"x": 1})}


def test_an_edit_is_noticed_at_the_next_command_and_taken_up_where_asked(cli: Cli, mine: Path) -> None:
    cli("train", "mine.yaml")
    assert "was edited" not in cli("status").stderr
    mine.write_text(mine.read_text().replace("steps: 3", "steps: 4"))
    for command in (["status"], ["unlearn", "--group", "amber", "--dry-run"], ["train", "--dry-run"]):
        done = cli(*command)
        assert done.stderr.count("was edited") == 1, command
        assert "train.steps 3 -> 4" in done.stderr
        assert f"guda train {mine}" in done.stderr
    cli("train")  # of the recipe as it was
    assert "was edited" in cli("status").stderr
    cli("train", "mine.yaml")
    assert "was edited" not in cli("status").stderr
    mine.unlink()
    assert "was edited" not in cli("status").stderr


def test_a_comment_is_no_edit(cli: Cli, mine: Path) -> None:
    cli("train", "mine.yaml")
    mine.write_text("# mine\n" + mine.read_text())
    assert "was edited" not in cli("status").stderr


def test_what_the_command_line_set_is_shown(cli: Cli, mine: Path) -> None:
    cli("train", "mine.yaml", "--set", "train.lr=2e-3", "--set", "unlearn.steps=2")
    assert "with train.lr=0.002, unlearn.steps=2)" in " ".join(cli("status").stdout.split())
    assert "was edited" not in cli("status").stderr
    cli("train", "mine.yaml")
    assert "with" not in cli("status").stdout.splitlines()[0]


def test_stores_of_before_say_nothing(cli: Cli, mine: Path) -> None:
    from tests.workflow.fixtures import here

    cli("train", "mine.yaml")
    document = here().get_document("current")
    assert document is not None
    here().set_document("current", {key: value for key, value in document.items() if key != "file"})
    mine.write_text(mine.read_text().replace("steps: 3", "steps: 4"))
    assert "was edited" not in cli("status").stderr


class TestImages:
    """Of a project whose folder of images is its own."""

    @pytest.fixture
    def scored(self, cli: Cli, mine: Path) -> Path:
        cli("train", "mine.yaml")
        cli("unlearn", "--all", "--no-null", "--set", "unlearn.steps=1")
        cli("score", "images/amber/00.png", "--set", "unlearn.steps=1")
        return mine.parent / "images"

    @pytest.fixture
    def sets(self) -> tuple[str, ...]:
        return ("--set", "unlearn.steps=1")

    def test_touched_or_moved_they_are_the_same(self, cli: Cli, scored: Path, sets: tuple[str, ...]) -> None:
        (scored / "amber" / "00.png").touch()
        steps = cli("status", "--json", *sets).document["steps"]
        assert {step["status"] for step in steps if "random" not in step["what"]} == {"cached"}
        (scored / "blue" / "01.png").touch()
        assert len(cli("report", "--json", *sets).document["queries"]) == 1
        scored.rename(scored.with_name("elsewhere"))
        done = cli("report", "--json", *sets)
        assert len(done.document["queries"]) == 1
        assert "using the copy in the store" in done.stderr

    def test_of_changed_ones_it_is_said_which(self, cli: Cli, scored: Path, sets: tuple[str, ...]) -> None:
        (scored / "amber" / "03.png").unlink()
        done = cli("report", *sets, code=4)
        assert "the images have changed since a model was trained on them (amber 4 -> 3)" in done.stderr
        draw(scored.with_name("other"), ("amber", "blue"), images=4, seed=9)
        (scored.with_name("other") / "amber" / "03.png").rename(scored / "amber" / "03.png")
        done = cli("score", "images/amber/00.png", *sets, code=4)
        assert "have changed since a model was trained on them, though not in number" in done.stderr
