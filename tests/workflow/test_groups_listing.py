"""`guda groups`: what there is of every group."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from guda_cli.report import group_rows
from guda_cli.report.group_rows import GroupRow
from tests.report.test_tables import schema
from tests.report.test_terminal import shown
from tests.workflow.fixtures import GROUPS, IMAGES, QUERIES, Cli, draw

FORMATS = Path(__file__).parents[2] / "docs" / "table-formats.md"


def test_of_a_trained_project(cli: Cli, project: Path, documents) -> None:
    [document] = documents(cli("groups", "--json").stdout)
    assert (document["recipe"], document["images"]) == ("tiny", IMAGES * len(GROUPS))
    assert [row["group"] for row in document["groups"]] == list(GROUPS)  # all of one size: by name
    means = {m["group"]: m["mean"] for m in cli("report", "--json").document["mean_scores"]}
    for row in document["groups"]:
        assert (row["images"], row["held_out"], row["retrained"]) == (IMAGES, 0, 0)
        assert (row["unlearned"], row["current"]) == ("retrack", True)
        assert row["check"] in ("passed", "doubtful", "failed")
        assert row["score"] == means[row["group"]]
        assert row["stands_out"] is row["judged"] is None  # nothing is calibrated
    text = cli("groups").stdout
    assert "4 groups, 48 images, 4 unlearned" in text
    assert f"{QUERIES} images scored" in text


def test_of_a_model_with_other_settings(cli: Cli, project: Path) -> None:
    changed = ("--set", "unlearn.steps=6")
    rows = cli("groups", "--json", *changed).document["groups"]
    assert {(row["unlearned"], row["current"]) for row in rows} == {("retrack", False)}
    assert {row["score"] for row in rows} == {None}
    text = cli("groups", *changed).stdout
    assert "(retrack)" in text
    assert "0 unlearned" in text
    assert group_rows.OTHERS in text


def test_retrained_ones_are_counted(cli: Cli, project: Path) -> None:
    cli("train", "--without", "blue", "--seeds", "2,3")
    cli("train", "--without", "amber+cyan")  # of no single group
    rows = cli("groups", "--json").document["groups"]
    assert {row["group"]: row["retrained"] for row in rows} == {"amber": 0, "blue": 2, "cyan": 0, "dune": 0}


def test_held_out_images_are_counted(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw(Path("images"), ("a", "b"), images=8)
    draw(Path("images"), ("c",), images=4)
    Path("r.yaml").write_text("data: {source: folder, path: images, size: 8, channels: 1, held_out: 0.25}")
    rows = cli("groups", "--recipe", "r.yaml", "--json").document["groups"]
    assert [(r["group"], r["images"], r["held_out"]) for r in rows] == [("a", 6, 2), ("b", 6, 2), ("c", 4, 0)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "r.yaml"], "looking makes no store"
    assert "16 images, 4 held out, 0 unlearned" in cli("groups", "--recipe", "r.yaml").stdout


def test_csv_has_the_documented_columns(cli: Cli, project: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(cli("groups", "--csv").stdout)))
    (table,) = re.findall(r"## The groups: .*?(?=\n## )", FORMATS.read_text("utf-8"), re.S)
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    told = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert told == list(rows[0]) == list(group_rows.COLUMNS)
    assert schema("groups")["properties"]["groups"]["items"]["required"] == told
    cli("groups", "--csv", "--json", code=2)


def test_orders() -> None:
    rows = [
        GroupRow("b", 3, check="passed", score=-1.0, stands_out=2),
        GroupRow("a", 3, check="failed", score=2.0, stands_out=0),
        GroupRow("c", 9),
    ]
    by = {name: "".join(row.group for row in group_rows.ordered(rows, name)) for name in group_rows.SORTS}
    assert by == {"size": "cab", "name": "abc", "check": "abc", "score": "abc", "stands-out": "bac"}


@pytest.mark.parametrize("width", [50, 80, 120, 200])
def test_three_hundred_groups_are_a_line_each(width: int) -> None:
    rows = [
        GroupRow(f"Artist {i} of the Netherlands, born {1500 + i}", i, 1, "retrack", i % 2 == 0, "failed",
                 "because", 2, i / 7, 0.1, 3, 64)
        for i in range(300)
    ]  # fmt: skip
    lines = shown([group_rows.table(rows, width)], width).splitlines()
    assert max(map(len, lines)) <= width
    named = [line for line in lines if "FAILED" in line and ("3 of 64" in line or width < 80)]
    assert len(named) == 300, "neither names nor verdicts wrap or are cut"
    assert all(str(1500 + i) in line for i, line in enumerate(named))
    assert json.dumps(group_rows.to_json("x", 9, rows), allow_nan=False)
