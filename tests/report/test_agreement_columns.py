"""Every view of the methods takes its columns from the one list."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest

from guda_cli.report.agreement import columns, formats, page, terminal, words
from guda_cli.report.agreement.columns import MetricColumn, RowColumn, Shown, View
from guda_cli.report.agreement.content import CEILING, AgreementRow, Interval
from guda_cli.report.agreement.standing import placed
from tests.report.agreement_builders import EVERY, metrics, report, row, table
from tests.report.test_columns import FORMATS
from tests.report.test_html import Page
from tests.report.test_tables import schema
from tests.report.test_terminal import shown

COSTS = ["prepare_forwards", "prepare_seconds", "query_forwards", "query_seconds"]
COSTS += ["speedup_forwards", "speedup_seconds"]
FREE = replace(row("free", 0.1), **dict.fromkeys(COSTS))
TABLED = [name for name in EVERY if not name.endswith(":linear")]
SELDOM = [column.name for column in columns.metrics(View.TABLE) if column.seldom]


def names(view: View, *rows: AgreementRow) -> list[str]:
    return [column.name for column in columns.pick(view, rows or None)]


def test_columns_of_each_view() -> None:
    kinds = ["method", "kind", "standing"]
    rest = ["reliability", "reliability_mean", "settings", "note"]
    assert names(View.CSV) == ["weighting", "unit", "rank", *kinds, *EVERY, *COSTS, *rest]
    assert names(View.JSON) == [*kinds, *EVERY, *COSTS, *rest[2:]]
    for view in (View.PAGE, View.LATEX):
        assert names(view, row("a", 0.5)) == ["method", *TABLED, *COSTS[::2]]
        assert names(view, FREE) == ["method", *TABLED]
    assert names(View.TABLE, row("a", 0.5)) == ["method", *TABLED]
    assert names(View.COSTS, row("a", 0.5)) == ["method", *COSTS]
    assert names(View.BRIEF) == ["top1", "ndcg@3", "spearman"]


def test_a_metric_that_no_row_has_is_not_shown() -> None:
    without = replace(row("a", 0.5), metrics={n: v for n, v in metrics(0.5).items() if n not in SELDOM})
    for view in (View.PAGE, View.LATEX, View.TABLE):
        assert not {*SELDOM} & {*names(view, without)}
        assert {*SELDOM} < {*names(view, without, row("b", 0.5))}
    assert {*SELDOM} < {*names(View.CSV)}


def test_names_are_unique() -> None:
    known = [column.name for column in columns.COLUMNS]
    assert len(set(known)) == len(known)


def test_columns_of_csv_and_json_are_documented() -> None:
    part = FORMATS.read_text(encoding="utf-8").split("**CSV** (`--csv`)")[1].split("**LaTeX**")[0]
    cells = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    assert [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)] == names(View.CSV)
    told = schema("agreement")["$defs"]["row"]["required"]
    assert [name for name in told if name != "metrics"] == [n for n in names(View.JSON) if n not in EVERY]


def test_the_highest_value_is_that_of_a_method() -> None:
    (top,) = [metric for metric in columns.metrics(View.TABLE) if metric.name == "top1"]
    assert columns.highest(table(), top) == "0.60"  # the ceiling's 0.65 is none
    assert columns.highest(table(rows=(row("x", float("nan")),)), top) == ""


def test_standing_and_rank_by_hand() -> None:
    one = table(rows=(row("a", 0.6), row("b", 0.58), row("c", 0.1), row("ceiling", 0.9, CEILING)))
    by_name = {column.name: column for column in columns.COLUMNS if isinstance(column, RowColumn)}
    told = [[by_name[name].datum(one, p) for name in ("rank", "method", "standing")] for p in placed(one)]
    assert told == [[1, "a", "best"], [2, "b", "close"], [3, "c", "behind"], [None, "ceiling", None]]


def both(known: Mapping[str, Interval]) -> Interval | None:
    """Top-1 and MRR in the middle."""
    one, other = known.get("top1"), known.get("mrr")
    return Interval(*((a + b) / 2 for a, b in zip(one, other, strict=True))) if one and other else None


@pytest.fixture
def with_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """One metric and one column of text more, as somebody may add them."""
    every = frozenset(View) - {View.COSTS}
    letters = Shown("Letters", lambda one: f"{len(one.row.name)} <&>", lambda one: "below")
    more = (
        MetricColumn("both", "Both", every, both),
        RowColumn(
            "letters",
            lambda table, one: len(one.row.name),
            frozenset({View.CSV, View.JSON}),
            dict.fromkeys((View.TABLE, View.PAGE, View.LATEX, View.COSTS), letters),
            number=False,
        ),
    )
    monkeypatch.setattr(columns, "COLUMNS", columns.COLUMNS + more)


@pytest.mark.usefixtures("with_more")
class TestColumnsAddedToTheList:
    def test_csv_and_json(self) -> None:
        model = report(tables=(table(rows=(row("guda", 0.5),)),))
        (line,) = csv.DictReader(io.StringIO(formats.to_csv(model)))
        assert [float(line[name]) for name in ("both", "both_low", "both_high")] == pytest.approx(
            [0.505, 0.455, 0.555]
        )
        assert line["letters"] == "4"
        document = json.loads(json.dumps(formats.to_json(model), allow_nan=False))
        (found,) = document["tables"][0]["rows"]
        assert found["letters"] == 4
        assert found["metrics"]["both"]["value"] == pytest.approx(0.505)
        assert document["bands"][0]["metrics"]["both"]["value"] == pytest.approx(0.406)
        assert document["steps"][0]["metrics"]["both"]["low"] == pytest.approx(0.26)

    def test_terminal(self) -> None:
        model = report(tables=(table(rows=(row("guda", 0.5, metrics=metrics(0.5, 0.25)),)),))
        text = shown(terminal.render_terminal(model, 160), 160)
        assert text.count("Both") == 3  # the table, bands and steps
        assert text.count("Letters") == 2  # the table and the costs
        assert text.count("4 <&>") == 2
        assert re.search(r"guda +0\.50±\.25.* 0\.5[01]±\.25 +4 <&>", text)

    def test_page(self) -> None:
        text = page.render_html(report(tables=(table(rows=(row("guda", 0.5),)),)))
        said = Page(text).words
        assert said.count("Both") == 3
        assert said.count("Letters") == 1
        assert "4 &lt;&amp;&gt;</span>" + '<span class="below">below</span>' in text
        assert re.search(r'<strong>0\.5[01]</strong><span class="below">0\.4[56] to 0\.5[56]</span>', text)

    def test_latex(self) -> None:
        text = formats.to_latex(report(tables=(table(rows=(row("guda", 0.5),)),)))
        lines = text.splitlines()
        assert lines[0] == rf"\begin{{tabular}}{{l{'r' * (len(TABLED) + 4)}l}}"
        assert lines[2].startswith(rf"\multicolumn{{{len(TABLED) + 6}}}{{l}}")
        assert lines[4].endswith(r" & Both & Letters \\")
        assert lines[6].endswith(r" & 4 \textless{}\&\textgreater{} \\")

    def test_a_low_ceiling_is_told_of_every_metric(self) -> None:
        one = table(rows=(row("guda", 0.2), row("ceiling", 0.1, CEILING)))
        assert "Both 0.1" in " ".join(words.notes(report(), one))
