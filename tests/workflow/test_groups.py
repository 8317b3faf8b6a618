"""Unusual groups: one image, several together, odd names, images in several groups."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.workflow.fixtures import (
    GROUPS,
    RECIPE,
    Cli,
    draw,
    record,
    save,
    scores,
)

ODD = ("van gogh", "-rf", "été 印象", 'it\'s "quoted"', "new\nline", "a+b", "$(touch x)")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the recipe, images to be drawn by the test."""
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_groups_together(cli: Cli, project: Path) -> None:
    done = cli("unlearn", "--group", "cyan+amber", "--no-null", "--json").document
    assert done["models"][0]["group"] == "amber+cyan"
    assert done["models"][0]["images"] == 24
    assert cli("unlearn", "--group", "amber+cyan", "--no-null", "--json").document["ran"] == 0
    found = scores(cli("score", "q/00000.png", "--json").documents)
    assert set(*found.values()) == {*GROUPS, "amber+cyan"}
    one = scores(cli("score", "q/00000.png", "--group", "amber+cyan", "--json").documents)
    assert set(*one.values()) == {"amber+cyan"}
    assert "amber+cyan" in cli("report").stdout


def test_all_groups_together_cannot_be_removed(cli: Cli, project: Path) -> None:
    done = cli("unlearn", "--group", "+".join(GROUPS), "--no-null", code=3)
    assert "leaves no image" in done.stderr


def test_a_group_of_one_image(cli: Cli, empty: Path) -> None:
    draw(empty / "images")
    save(empty / "images" / "lonely" / "x.png", np.eye(8) * 250)
    cli("train", "tiny.yaml", "--set", "train.steps=4")
    done = cli("unlearn", "--group", "lonely", "--no-null", "--json").document
    assert done["models"][0]["images"] == 1
    document = cli("score", "images/lonely/x.png", "--json").document
    assert [s["group"] for s in document["scores"]] == ["lonely"]
    assert document["answer"] is None, "without calibration nothing can stand out"
    assert document["not_scored"] == list(GROUPS)


def test_odd_names(cli: Cli, empty: Path) -> None:
    draw(empty / "images", ODD, images=3)
    short = ["--set", "train.steps=2", "--set", "unlearn.steps=1", "--set", "unlearn.null_groups=0"]
    cli("train", "tiny.yaml", *short)
    for name in ODD:
        assert cli("unlearn", "--group", name, "--no-null", "--json").document["models"][0]["group"] == name
    cli("unlearn", "--all")
    query = save(empty / 'it\'s\na "query".png', np.full((8, 8), 99))
    done = cli("score", query, "--json", "--map", "maps")
    assert sorted(s["group"] for s in done.document["scores"]) == sorted(ODD)
    assert done.document["image"] == str(query)
    assert len(list((empty / "maps").iterdir())) == 1
    cli("score", query)
    cli("score", query, "--csv")
    cli("report", "--html", "r.html")
    assert cli("report", "--json").document["queries"][0]["image"] == str(query)
    page = (empty / "r.html").read_text()
    assert "$(touch x)" in page
    assert "été 印象" in page
    cli("sample", "-n", "1", "--out", "w", "--without", "a+b")
    assert not (empty / "x").exists()


@pytest.mark.parametrize("name", ODD)
def test_the_command_for_a_missing_model_can_be_pasted(cli: Cli, empty: Path, name: str) -> None:
    draw(empty / "images", (name, "zzz"), images=2)
    cli("train", "tiny.yaml", "--set", "train.steps=1", "--set", "unlearn.steps=1")
    done = cli("score", "images/zzz/00.png", "--group", name, "--json", code=4)
    shown = f"printf '%s\\0' {done.document['fix']}"
    words = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True).stdout.split(
        "\0"
    )
    assert words[0] == "guda"
    assert words[-3:-1] == ["--group", name]


def test_a_leave_out_command_can_be_pasted(cli: Cli, project: Path) -> None:
    done = cli("score", "q", "--method", "logo", "--group", "blue", "--group", "dune", "--json", code=4)
    assert done.document["fix"] == "guda train --without blue --without dune"


def test_images_in_several_groups(cli: Cli, empty: Path) -> None:
    rng = np.random.default_rng(1)
    rows = []
    for i in range(12):
        save(empty / "images" / f"{i}.png", rng.integers(0, 255, (8, 8)))
        styles = ["dots", "lines"] if i % 3 == 0 else ["dots"] if i % 3 == 1 else ["lines"]
        rows.append({"file_name": f"{i}.png", "artist": "ann/lee" if i < 5 else "bo", "style": styles})
    (empty / "images" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    short = ["--set", "data.group=[artist, style]", "--set", "train.steps=2", "--set", "unlearn.steps=1"]
    cli("train", "tiny.yaml", *short, "--set", "unlearn.null_groups=1")
    counts = record("dataset").provenance["groups"]
    assert sorted(counts.values()) == [5, 7, 8, 8], counts
    done = cli("unlearn", "--all", "--no-null", "--json").document
    assert {m["group"]: m["images"] for m in done["models"]} == counts
    dots, lines = (next(name for name in counts if word in name) for word in ("dots", "lines"))
    both = cli("unlearn", "--group", f"{dots}+{lines}", "--no-null", code=3)
    assert "leaves no image" in both.stderr
    found = scores(cli("score", "images/3.png", "--json").documents)
    assert set(*found.values()) == set(counts)
    slashed = next(name for name in counts if "/" in name)
    cli("sample", "-n", "1", "--out", "s", "--without", slashed)
    assert all("/" not in path.name for path in (empty / "s").rglob("*"))
    cli("report", "--html", "r.html")


def test_two_images_alike_in_name_have_a_map_each(cli: Cli, project: Path) -> None:
    Path("other").mkdir()
    (project / "other" / "00000.png").write_bytes((project / "q" / "00001.png").read_bytes())
    cli("score", "q/00000.png", "other/00000.png", "--map", "maps")
    assert len(list((project / "maps").iterdir())) == 2
