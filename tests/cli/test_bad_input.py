"""Wrong and missing input: the exit code, the reason, the next command; never a traceback."""

# ruff: noqa: F401, F811
from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflow.fixtures import RECIPE, Cli, cli, draw, one_thread, project, template


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    draw(tmp_path / "images", images=2)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestNothingThereYet:
    @pytest.mark.parametrize(
        "command", [["unlearn", "--all"], ["score", "x.png"], ["report"], ["sample", "-n", "1", "--out", "q"]]
    )
    def test_no_store(self, cli: Cli, empty: Path, command: list[str]) -> None:
        done = cli(*command, code=4)
        assert "guda train" in done.stderr
        assert not (empty / ".guda").exists()

    @pytest.mark.parametrize(
        "command",
        [["unlearn", "--all"], ["score", "q"], ["report"], ["sample", "-n", "1", "--out", "z"]],
    )
    def test_no_full_model(self, cli: Cli, project: Path, command: list[str]) -> None:
        done = cli(*command, "--set", "train.seed=9", "--json", code=4)
        assert done.document["fix"] == "guda train"
        assert done.document["exit_code"] == 4

    @pytest.mark.parametrize(
        "command", [["score", "q"], ["report"], ["sample", "-n", "1", "--out", "z", "--without", "blue"]]
    )
    def test_no_unlearned_model(self, cli: Cli, project: Path, command: list[str]) -> None:
        done = cli(*command, "--set", "unlearn.seed=9", "--json", code=4)
        wanted = "guda unlearn --group blue" if "--without" in command else "guda unlearn --all"
        assert done.document["fix"] == wanted

    def test_no_model_without_a_group(self, cli: Cli, project: Path) -> None:
        assert (
            cli("score", "q", "--method", "logo", "--json", code=4).document["fix"]
            == "guda train --each-group"
        )

    def test_nothing_scored(self, cli: Cli, project: Path) -> None:
        cli("unlearn", "--all", "--no-null", "--set", "unlearn.steps=1")
        Path(".guda/documents/compute.json").unlink()
        for path in Path(".guda/actions").iterdir():
            if '"operation":"score"' in path.read_text().replace(" ", ""):
                path.unlink()
        assert "guda score" in cli("report", code=4).stderr


class TestUnknownNames:
    @pytest.mark.parametrize(
        ("command", "hint", "code"),
        [
            (["unlearn", "--group", "bleu"], "did you mean 'blue'", 2),
            (["unlearn", "--group", "amber+bleu"], "did you mean 'blue'", 2),
            (["score", "q", "--group", "bleu"], "did you mean 'blue'", 2),
            (["train", "--without", "bleu"], "did you mean 'blue'", 2),
            (["sample", "-n", "1", "--out", "z", "--without", "bleu"], "did you mean 'blue'", 2),
            (["score", "q", "--method", "lgo"], "did you mean 'logo'", 2),
            (["report", "--method", "lgo"], "did you mean 'logo'", 2),
            (["score", "q", "--weighting", "min-snrr:5"], "min-snr", 2),
            (["report", "--weighting", "unifrom"], "uniform", 2),
            (["score", "q", "--weighting", "band:9-1"], "band", 2),
            (["score", "q", "--grid", "strat"], "strata", 2),
            (["score", "q", "--grid", "stride:0"], "stride", 2),
            (["sample", "-n", "1", "--out", "z", "--sampler", "dim"], "ddim", 2),
            (["unlearn", "--all", "--operator", "retrak"], "did you mean 'retrack'", 2),
            (["train", "--set", "train.stepz=3"], "did you mean 'steps'", 2),
            (["train", "--set", "trian.steps=3"], "did you mean 'train'", 2),
            (["train", "--set", "train.steps=many"], "whole number", 2),
            (["train", "--set", "train.steps"], "section.key=value", 2),
            (["train", "digit"], "digits", 3),
            (["unlearn"], "--all", 2),
            (["unlearn", "--all", "--group", "blue"], "--all", 2),
            (["sample", "-n", "0", "--out", "z"], "equal to 1", 2),
            (["score", "q", "--json", "--csv"], "exclude", 2),
            (["train", "--scheduler", "x"], "--from", 2),
            (["train", "--from", "x", "--each-group"], "--from", 2),
            (["score", "q", "--device", "abacus"], "abacus", 2),
        ],
    )
    def test_is_named(self, cli: Cli, project: Path, command: list[str], hint: str, code: int) -> None:
        assert hint in cli(*command, code=code).stderr


class TestRecipesAndData:
    def test_missing_data_path(self, cli: Cli, empty: Path) -> None:
        done = cli("train", "tiny.yaml", "--set", "data.path=imags", code=3)
        assert "imags" in done.stderr

    def test_no_data_path(self, cli: Cli, empty: Path) -> None:
        assert "data.path" in cli("train", "tiny.yaml", "--set", "data.path=null", code=3).stderr

    @pytest.mark.parametrize("text", ["a: [1", "- a list", "data: 3", "train: {steps: -1}", "\t: x", "\0"])
    def test_broken_recipe(self, cli: Cli, empty: Path, text: str) -> None:
        (empty / "broken.yaml").write_text(text)
        cli("train", "broken.yaml", code=3)
        assert (
            not list((empty / ".guda").rglob("*.json"))
            or not (empty / ".guda/documents/current.json").exists()
        )

    def test_a_broken_image_in_the_data(self, cli: Cli, empty: Path) -> None:
        (empty / "images" / "blue" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
        done = cli("train", "tiny.yaml", "--set", "train.steps=1", code=3)
        assert "bad.png" in done.stderr

    @pytest.mark.parametrize("value", ['"\\ud800"', "1e999", '{"name": "x"}', "NaN"])
    def test_a_group_that_is_none(self, cli: Cli, empty: Path, value: str) -> None:
        rows = ('"a"', value)
        lines = [f'{{"file_name": "blue/0{i}.png", "artist": {row}}}' for i, row in enumerate(rows)]
        (empty / "images" / "metadata.jsonl").write_text("\n".join(lines))
        done = cli("train", "tiny.yaml", "--set", "data.group=artist", code=3)
        assert "this is a bug" not in done.stderr
        assert "line 2" in done.stderr or "have no group" in done.stderr

    def test_a_recipe_is_current_only_when_its_data_could_be_read(self, cli: Cli, empty: Path) -> None:
        cli("train", "tiny.yaml", "--set", "data.path=nowhere", code=3)
        cli("status")
        assert "no recipe is current" in cli("unlearn", "--all", code=4).stderr

    def test_one_group_only(self, cli: Cli, empty: Path) -> None:
        done = cli("train", "tiny.yaml", "--set", "data.groups=[blue]", code=3)
        assert "only one group, 'blue'" in done.stderr

    def test_a_network_that_diffusers_refuses(self, cli: Cli, empty: Path) -> None:
        wrong = ["--set", "model.down_block_types=[DownBlock2D, NoBlock]"]
        assert "NoBlock" in cli("train", "tiny.yaml", *wrong, code=3).stderr

    def test_a_loss_that_explodes(self, cli: Cli, empty: Path) -> None:
        done = cli("train", "tiny.yaml", "--set", "train.lr=1e30", code=3)
        assert "train.lr" in done.stderr

    def test_changed_data_ask_for_training(self, cli: Cli, empty: Path) -> None:
        cli("train", "tiny.yaml", "--set", "train.steps=1")
        (empty / "images" / "blue" / "00.png").unlink()
        assert "guda train" in cli("unlearn", "--all", code=4).stderr

    def test_outputs_that_cannot_be_written(self, cli: Cli, project: Path) -> None:
        Path("file").touch()
        assert "cannot write" in cli("report", "--html", "file/r.html", code=3).stderr
        assert "cannot write" in cli("sample", "-n", "4", "--out", "file", code=3).stderr
        assert "cannot write" in cli("score", "q/00000.png", "--map", "file/x.png", code=3).stderr
