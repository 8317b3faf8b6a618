"""Every view of a ranking takes its columns from the one list."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from guda_cli.report.answers import columns, formats, page, terminal
from guda_cli.report.answers.columns import Kind, ScoreColumn, View
from guda_cli.report.answers.content import GroupScore, QueryResult
from guda_cli.report.answers.image_rows import ImageRows
from guda_cli.report.pieces.csv_cells import csv_cell
from tests.report.builders import query, report
from tests.report.test_html import Page
from tests.report.test_tables import schema
from tests.report.test_terminal import shown

FORMATS = Path(__file__).parents[2] / "docs" / "table-formats.md"
PEOPLE = [view for view in View if view not in {View.CSV, View.JSON}]

BARE = GroupScore("cat", 0.5)
SURE = GroupScore("dog", 0.25, 0.1, 0.05, 0.45)
JUDGED = GroupScore("cow", 0.25, z=2.0, p=0.01, stands_out=True)


LAST = ("draws", "spread", "retrained", "retrained_low", "retrained_high")


def names(view: View, *entries: GroupScore) -> list[str]:
    return [column.name for column in columns.pick(view, entries)]


def test_columns_of_each_view() -> None:
    judged = ["rank", "group", "score", "se", "low", "high", "z", "p", "stands_out"]
    csv_names = ["query", "digest", "looks_like", *judged, "weighting", "method", *LAST]
    assert [column.name for column in columns.pick(View.CSV)] == csv_names
    assert [column.name for column in columns.pick(View.JSON)] == [*judged, *LAST]
    every = (SURE, JUDGED)
    assert names(View.TABLE, *every) == ["rank", "group", "score", "se", "interval", "z"]
    for view in (View.LIST, View.NARROW):
        assert names(view, *every) == ["query", "group", "score", "se", "z", "stands_out"]
    assert names(View.CARD, *every) == ["group", "score", "z"]
    assert names(View.LINE, *every) == ["query", "group", "score", "se", "z", "stands_out"]


def test_columns_without_anything_to_show_are_left_out() -> None:
    assert names(View.TABLE, BARE) == ["rank", "group", "score"]
    assert names(View.TABLE, BARE, SURE) == ["rank", "group", "score", "se", "interval"]
    assert names(View.TABLE, BARE, JUDGED) == ["rank", "group", "score", "z"]
    assert names(View.CARD, BARE) == ["group", "score"]
    assert names(View.LIST) == ["query", "group", "score", "stands_out"]


def test_names_are_unique_and_all_are_shown_somewhere() -> None:
    known = [column.name for column in columns.COLUMNS]
    assert len(set(known)) == len(known)
    for column in columns.COLUMNS:
        assert column.data or column.cells, column.name
        assert column.data <= {View.CSV, View.JSON}
        assert not column.cells.keys() & {View.CSV, View.JSON}
        assert (column.value is None) == (not column.data)


def test_columns_of_csv_and_json_are_documented() -> None:
    (table,) = re.findall(
        r"## CSV: `guda score --csv`.*?(?=\n## )", FORMATS.read_text(encoding="utf-8"), re.S
    )
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    told = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert told == [column.name for column in columns.pick(View.CSV)]
    for name in ("score", "report"):
        assert schema(name)["$defs"]["score"]["required"] == [c.name for c in columns.pick(View.JSON)]


def test_cells_by_hand() -> None:
    one = query("x.png", {}, scores=(JUDGED, SURE), looks="cat", answer=("cow",))
    first, second = columns.ranked(one, method="guda", weighting="elbo")
    scale = columns.scale_of([JUDGED, SURE])
    text = {
        view: [[c.text(view, line, scale) for c in columns.pick(view)] for line in (first, second)]
        for view in PEOPLE
    }
    assert text[View.TABLE] == [
        ["   1", "cow", "+0.250", "–", "–", "2.0"],
        ["   2", "dog", "+0.250", "0.100", "+0.050 … +0.450", "–"],
    ]
    assert text[View.LIST] == [
        ["x.png", "cow", "+0.250", "–", "2.0", "◀ stands out"],
        ["", "dog", "+0.250", "0.100", "–", ""],
    ]
    assert [cells[-1] for cells in text[View.NARROW]] == ["◀", ""]
    assert text[View.CARD] == [["cow", "+0.250", "2.0"], ["dog", "+0.250 ± 0.100", "–"]]
    assert text[View.LINE] == [
        ["x.png", "cow*", "+0.250", "–", "2.0", "stands out"],
        ["x.png", "dog", "+0.250", "0.100", "–", "stands out"],
    ]
    assert [column.datum(first) for column in columns.pick(View.CSV)] == [
        *("x.png", "ab" * 32, "cat", 1, "cow", 0.25),
        *(None, None, None, 2.0, 0.01, True, "elbo", "guda", *[None] * len(LAST)),
    ]


def test_none_stands_out_is_said_once() -> None:
    one = query("x", {}, scores=(GroupScore("a", 2.0, stands_out=False), GroupScore("b", 1.0)), answer=())
    (mark,) = [column for column in columns.pick(View.LIST) if column.kind is Kind.MARK]
    scale = columns.scale_of(one.scores)
    said = [mark.text(view, line, scale) for view in (View.LIST, View.NARROW) for line in columns.ranked(one)]
    assert said == ["no group stands out", "", "none", ""]


@pytest.mark.parametrize(
    ("value", "number", "cell"),
    [
        *((0.1 + 0.2, True, "0.30000000000000004"), (2, True, "2.0"), (float("inf"), True, "")),
        *((None, True, ""), (None, False, ""), (True, False, "true"), (3, False, 3), ("=a", False, "=a")),
        *(({}, False, ""), ({"b": float("nan"), "a": (1,)}, False, '{"a": [1], "b": null}')),
    ],
)
def test_csv_cells(value: object, number: bool, cell: object) -> None:
    assert csv_cell(value, number=number) == cell


def share(line: columns.Line) -> float:
    """The score over the image's highest."""
    return line.entry.score / line.query.scores[0].score


@pytest.fixture
def with_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more column before `p`, as somebody may add it."""
    added = ScoreColumn(
        "share",
        "of the highest",
        value=share,
        data=frozenset({View.CSV, View.JSON}),
        cells=dict.fromkeys(PEOPLE, lambda line, scale: f" {share(line):.0%}"),
        when=lambda entries: any(entry.score > 0 for entry in entries),
    )
    at = [column.name for column in columns.COLUMNS].index("p")
    monkeypatch.setattr(columns, "COLUMNS", (*columns.COLUMNS[:at], added, *columns.COLUMNS[at:]))


def answered(*scores: float, **changes: Any) -> QueryResult:
    return query("a.png", dict(zip(("cat", "dog"), scores, strict=True)), **changes)


@pytest.mark.usefixtures("with_a_share")
class TestAColumnAddedToTheList:
    def test_csv_and_json(self) -> None:
        model = report((answered(4.0, 1.0),))
        rows = list(csv.DictReader(io.StringIO(formats.to_csv(model))))
        assert [row["share"] for row in rows] == ["1.0", "0.25"]
        assert list(rows[0]).index("share") == list(rows[0]).index("p") - 1
        (found,) = json.loads(json.dumps(formats.to_json(model), allow_nan=False))["queries"]
        assert [entry["share"] for entry in found["scores"]] == [1.0, 0.25]

    @pytest.mark.parametrize("width", [80, 120])
    def test_terminal(self, width: int) -> None:
        one = answered(4.0, 1.0)
        table = shown([terminal.query_table(one, 2, "nats")], width)
        every = shown(terminal.render(report((one,)), 2, width), width)
        for text in (table, every):
            assert "of the highest" in text
            (dog,) = [line for line in text.splitlines() if "dog" in line and "25%" in line]
            assert dog.index("2.5") < dog.index("25%")  # z, then the share
        rows = ImageRows(["a.png"], ["cat", "dog"], [one], width, 2)
        heads, cells = next(rows.heads()).plain, rows.row(one).plain
        wanted = ["a.png", "no", "group", "cat", "+4.00", "0.10", "2.5", "100%"]
        assert cells.split() == wanted + (["dog", "+1.00"] if width == 120 else [])
        assert heads.index("of the highest") + len("of the highest") == cells.index("100%") + len("100%")

    def test_page(self) -> None:
        said = Page(page.render(report((answered(4.0, 1.0), answered(2.0, 1.0))))).words
        assert said.count("of the highest") == 2
        shares = [text.strip() for text in said if text.strip() in {"25%", "50%", "100%"}]
        assert shares == ["100%", "25%", "100%", "50%"]

    def test_it_is_left_out_where_it_has_nothing_to_show(self) -> None:
        below = answered(-1.0, -4.0)
        assert "of the highest" not in shown([terminal.query_table(below, 2, "nats")], 120)
        assert "of the highest" not in page.render(report((below,)))
        assert "share" in formats.to_csv(report((below,))).splitlines()[0]
