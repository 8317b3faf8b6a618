"""The main job, from training to the report, as the real command; then every way of asking for scores."""

# ruff: noqa: F401, F811
from __future__ import annotations

import csv
import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.workflow import processes
from tests.workflow.fixtures import (
    GROUPS,
    RECIPE,
    SIGN,
    Cli,
    cli,
    draw,
    one_thread,
    project,
    scores,
    template,
    tree,
)

CHEAP = ["--set", "unlearn.null_groups=2", "--set", "train.steps=5", "--set", "unlearn.steps=2"]


@pytest.mark.slow
def test_the_whole_chain(guda, documents, tmp_path: Path) -> None:
    draw(tmp_path / "images", GROUPS[:3])
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    env = {"GUDA_THREADS": "1"}

    def json(*args: str) -> list[dict]:
        # Processes that accelerate launches start these two from nothing (tests/training/test_launch.py).
        if os.name == "posix" and args[0] in ("train", "unlearn"):
            return documents(processes.run(tmp_path, *args, "--json").stdout)
        return documents(guda(*args, "--json", code=0, env=env).stdout)

    [plan] = json("status", "--recipe", "tiny.yaml")
    assert plan["steps"] == []
    [trained] = json("train", "tiny.yaml", *CHEAP)
    assert trained["ran"] == 1
    [unlearned] = json("unlearn", "--all")
    assert unlearned["ran"] == 5
    assert [m["group"] for m in unlearned["models"]][:3] == list(GROUPS[:3])
    [sampled] = json("sample", "-n", "5", "--out", "q")
    assert sampled["images"] == [f"{i:05d}.png" for i in range(5)]
    found = json("score", "q")
    assert [d["image"] for d in found] == [f"q/{i:05d}.png" for i in range(5)]
    [report] = json("report", "--html", "r.html")
    assert scores(report["queries"]) == scores(found)
    rows = list(csv.DictReader(io.StringIO(guda("report", "--csv", code=0).stdout)))
    assert len(rows) == 5 * 3
    assert {row["group"] for row in rows} == set(GROUPS[:3])
    [plan] = json("status")
    assert {step["status"] for step in plan["steps"]} == {"cached"}
    assert_self_contained((tmp_path / "r.html").read_text())
    assert "as it was written" in guda("store", "verify", code=0).stdout


def assert_self_contained(page: str) -> None:
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)[^"']*""", page)
    assert not re.findall(r"url\((?!['\"]?(?:data:|#))", page)
    assert "@import" not in page
    assert "data:image/png;base64," in page
    assert SIGN in page.lower().replace("this group", "the group")


class TestDryRuns:
    @pytest.mark.parametrize(
        "command",
        [
            ["train", "--set", "train.steps=3"],
            ["train", "--each-group", "--null"],
            ["unlearn", "--all", "--set", "unlearn.steps=6"],
            ["sample", "-n", "9", "--out", "new"],
            ["score", "q", "--seed", "5"],
        ],
    )
    def test_writes_nothing(self, cli: Cli, project: Path, documents, command: list[str]) -> None:
        before = tree(project)
        text = cli(*command, "--dry-run").stdout
        assert "to do" in text
        [plan] = documents(cli(*command, "--dry-run", "--json").stdout)
        assert any(step["status"] == "to do" for step in plan["steps"])
        assert tree(project) == before

    def test_score_counts_images_and_forwards(self, cli: Cli, project: Path) -> None:
        steps = cli("score", "q", "--dry-run", "--json", "--seed", "5").document["steps"]
        assert [step["what"] for step in steps][:2] == ["sizes of the terms", "terms under the full model"]
        assert [step["forwards"] for step in steps] == [0.0, *[4 * 16] * 5]
        steps = cli("score", "q", "--dry-run", "--json").document["steps"]
        assert {step["status"] for step in steps} == {"cached"}
        assert {step["seconds"] for step in steps} == {None}

    @pytest.mark.parametrize(
        "command",
        [
            ["score", "q", "--seed", "5"],
            ["sample", "-n", "9", "--out", "new"],
            ["score", "q/00000.png", "--seed", "5"],
        ],
    )
    def test_every_step_has_its_seconds(self, cli: Cli, project: Path, command: list[str]) -> None:
        for _ in range(2):  # as training took, then as scoring took
            left = [
                step
                for step in cli(*command, "--dry-run", "--json").document["steps"]
                if step["status"] != "cached"
            ]
            assert left
            assert all(0 < step["seconds"] < 60 for step in left)
            rates = {round(step["seconds"] / step["forwards"], 9) for step in left}
            assert len(rates) == 1
            assert "steps to do, about " in cli(*command, "--dry-run").stdout
            cli("score", "q", "--seed", "6")


class TestWhatIsScored:
    def test_paths_on_standard_input(self, cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for text in ("q/00001.png\nq/00000.png\n", "q/00001.png\0q/00000.png\0"):
            monkeypatch.setattr("sys.stdin", io.StringIO(text))
            found = cli("score", "-", "--json").documents
            assert [d["image"] for d in found] == ["q/00001.png", "q/00000.png"]

    @pytest.mark.parametrize("what", ["q", "q/*.png", "**/0000?.png", "q/../q"])
    def test_folders_and_globs(self, cli: Cli, project: Path, what: str) -> None:
        assert len(cli("score", what, "--json").documents) == 4

    def test_odd_file_names(self, cli: Cli, project: Path) -> None:
        names = ["new\nline.png", 'it\'s "q".png', "-k.png", "[x].png", "é*.png"]
        for name in names:
            shutil.copy("q/00000.png", name)
        found = cli("score", "--json", "--", *names).documents
        assert [d["image"] for d in found] == names
        cli("score", "--", *names)
        cli("score", "--csv", "--", *names)

    def test_a_bad_image_does_not_stop_the_others(self, cli: Cli, project: Path, documents) -> None:
        Path("q/00001.png").write_bytes(b"no image at all")
        done = cli("score", "q", "--json", code=3)
        *found, error = documents(done.stdout)
        assert [d["image"] for d in found] == [f"q/0000{i}.png" for i in (0, 2, 3)]
        assert error["exit_code"] == 3
        assert "q/00001.png" in done.stderr
        assert "1 of 4 images could not be read" in done.stderr

    def test_a_missing_image_names_the_nearest(self, cli: Cli, project: Path) -> None:
        assert "did you mean q/0000" in cli("score", "q/0000.png", code=3).stderr


class TestHowItIsPrinted:
    def test_a_json_line_an_image(self, cli: Cli, project: Path, documents) -> None:
        done = cli("score", "q", "--json")
        assert len(done.stdout.splitlines()) == len(documents(done.stdout)) == 4

    def test_csv(self, cli: Cli, project: Path) -> None:
        rows = list(csv.DictReader(io.StringIO(cli("score", "q", "--csv").stdout)))
        assert len(rows) == 4 * 4
        assert {row["query"] for row in rows} == {f"q/0000{i}.png" for i in range(4)}
        found = scores(cli("score", "q", "--json").documents)
        assert sorted(float(row["score"]) for row in rows) == pytest.approx(
            sorted(value for each in found.values() for value in each.values())
        )

    def test_top(self, cli: Cli, project: Path) -> None:
        one, every = (cli("score", "q/00000.png", "--top", n).stdout for n in (1, 4))
        assert sum(group in one for group in GROUPS) < sum(group in every for group in GROUPS) == 4

    def test_maps(self, cli: Cli, project: Path) -> None:
        cli("score", "q/00000.png", "--map", "deep/map.png", "--top", "2")
        with Image.open("deep/map.png") as image:
            narrow = image.size[0]
        cli("score", "q", "--map", "maps", "--top", "4")
        assert sorted(path.name for path in Path("maps").iterdir()) == [f"0000{i}.map.png" for i in range(4)]
        with Image.open("maps/00000.map.png") as image:
            assert image.size[0] > narrow
            assert np.asarray(image).std() > 0
        assert "--map FOLDER" in cli("score", "q", "--map", "one.png", code=2).stderr

    @pytest.mark.parametrize("place", ["amber/map.png", "maps"])
    def test_no_map_becomes_a_training_image(
        self, cli: Cli, project: Path, template: Path, place: str
    ) -> None:
        images = template / "images"
        before = sorted(images.rglob("*"))
        done = cli("score", "q/00000.png", "--map", images / place, code=3)
        assert "among the training images" in done.stderr
        assert sorted(images.rglob("*")) == before


class TestMethods:
    def test_leave_one_group_out(self, cli: Cli, project: Path, documents) -> None:
        short = ["--set", "train.steps=3"]
        cli("train", *short)
        assert cli("train", "--each-group", "--json").document["ran"] == 4
        assert cli("train", "--each-group", "--json").document["ran"] == 0
        found = documents(cli("score", "q", "--method", "logo", "--json").stdout)
        assert {d["method"] for d in found} == {"logo"}
        assert all(sorted(s["group"] for s in d["scores"]) == sorted(GROUPS) for d in found)
        cli("report", "--method", "logo", "--html", "r.html")
        cli("sample", "-n", "1", "--out", "s", "--without", "blue", "--method", "logo")

    def test_only_some_groups_unlearned(self, cli: Cli, project: Path) -> None:
        change = ["--set", "unlearn.steps=6"]
        cli("unlearn", "--group", "amber", "--no-null", *change)
        done = cli("score", "q/00000.png", "--json", *change)
        assert [s["group"] for s in done.document["scores"]] == ["amber"]
        assert done.document["not_scored"] == ["blue", "cyan", "dune"]
        assert "blue, cyan, dune" in done.stderr
        assert "guda unlearn --group blue" in done.stderr

    def test_samples_do_not_depend_on_how_many(self, cli: Cli, project: Path) -> None:
        cli("sample", "-n", "2", "--out", "two")
        for name in ("00000.png", "00001.png"):
            assert Path("two", name).read_bytes() == Path("q", name).read_bytes()
        cli("sample", "-n", "2", "--out", "ddpm", "--sampler", "ddpm", "--seed", "3")
        cli("sample", "-n", "2", "--out", "w", "--without", "blue")
        made = {path.read_bytes() for name in ("two", "ddpm", "w") for path in Path(name).iterdir()}
        assert len(made) == 2 + 2 + 2 + 3
