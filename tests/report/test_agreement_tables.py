from __future__ import annotations

import csv
import io
import json
import re

from guda_cli.report.agreement import columns
from guda_cli.report.agreement import formats as tables
from guda_cli.report.agreement.content import Interval
from tests.report.agreement_builders import EVERY, HOSTILE, metrics, report, row, rows, table
from tests.report.test_tables import schema, validate

NAN = float("nan")
TABLED = len(columns.metrics(columns.View.LATEX))


def test_csv_parses_back_and_loses_no_row() -> None:
    found = list(csv.DictReader(io.StringIO(tables.to_csv(report()))))
    assert len(found) == 2 * len(rows())
    assert {line["weighting"] for line in found} == {"min-snr:5", "elbo"}
    by_name = {line["method"]: line for line in found[: len(rows())]}
    assert by_name.keys() == {r.name for r in rows()}
    for one in rows():
        for name in EVERY:
            ends = [float(by_name[one.name][name + end]) for end in ("", "_low", "_high")]
            assert Interval(*ends) == one.metrics[name]
    assert [by_name[n]["rank"] for n in ("guda", "das", "random")] == ["1", "2", ""]
    assert [by_name[n]["standing"] for n in ("guda", "das", "similarity", "random")] == [
        "best",
        "close",
        "behind",
        "",
    ]
    assert by_name["random"]["prepare_forwards"] == ""
    assert by_name["similarity"]["prepare_forwards"] == "0.0"
    assert json.loads(by_name["guda"]["settings"]) == {"steps": 100}


def test_json_is_strict_and_fits_its_schema() -> None:
    odd = row("odd", 0.1, metrics=metrics(0.1, mrr=Interval(NAN, NAN, NAN)), query_seconds=float("inf"))
    model = report(tables=(table(rows=(*rows(), odd)),))
    document = json.loads(json.dumps(tables.to_json(model), allow_nan=False))
    validate(document, schema("agreement"), schema("agreement"))
    (found,) = document["tables"]
    assert len(found["rows"]) == len(rows()) + 1
    assert found["rows"][0]["method"] == "guda"
    assert found["rows"][0]["metrics"]["ndcg@3:linear"]["value"] == metrics(0.6)["ndcg@3:linear"].value
    assert {r["method"]: r for r in found["rows"]}["odd"]["metrics"]["mrr"]["value"] is None
    assert len(document["bands"]) == 3
    assert len(document["steps"]) == 6


def test_json_of_an_empty_report_fits_too() -> None:
    document = tables.to_json(report(tables=(), bands=(), steps=(), logo_forwards=None, logo_seconds=None))
    validate(document, schema("agreement"), schema("agreement"))


def body(text: str) -> list[list[str]]:
    """The cells of every line of a tabular that has cells."""
    return [line.removesuffix(r" \\").split(" & ") for line in text.splitlines() if " & " in line]


def test_latex_has_every_row_and_one_bold_value_a_column() -> None:
    text = tables.to_latex(report(tables=(table(),)))
    head, *lines = body(text)
    assert len(lines) == len(rows())
    assert {len(line) for line in lines} == {len(head)} == {4 + TABLED}
    assert lines[0][:2] == ["guda", r"\textbf{0.60} {\scriptsize [0.55, 0.65]}"]
    assert [sum("textbf" in line[j] for line in lines) for j in range(1, 1 + TABLED)] == [1] * TABLED
    assert "textbf" not in "".join(lines[-1] + lines[-2])
    assert head[7] == r"RBO ($\le 0.57$)"
    assert lines[1][1 + TABLED :] == ["900 k", "800", r"$\times$44"]
    assert text.count(r"\midrule") == 3
    apart = text.rindex(r"\midrule")
    assert text.index("similarity") < apart < text.index("random") < text.index("ceiling (LOGO")


def test_latex_escapes_names() -> None:
    text = tables.to_latex(report(tables=(table("band:1_2%", rows=(row(HOSTILE, 0.2),)),)))
    assert r"\input" not in text
    assert r"\textbackslash{}input\{y\}\%\$\&\#\_\{\}\textasciitilde{}\textasciicircum{}" in text
    assert r"band:1\_2\%" in text
    assert not set(text) & {"\x1b", "\u202e", "\ufffd"}
    assert not re.search(r"(?<!\\)[%#_~]", text)


def test_latex_without_costs_and_values() -> None:
    free = {
        **dict.fromkeys(("prepare_forwards", "prepare_seconds", "query_forwards", "query_seconds")),
        **dict.fromkeys(("speedup_forwards", "speedup_seconds")),
    }
    (head, line) = body(tables.to_latex(report(tables=(table(rows=(row("x", 0.1, **free, metrics={}),)),))))
    seldom = sum(column.seldom for column in columns.metrics(columns.View.LATEX))
    assert len(head) == 1 + TABLED - seldom
    assert line[1:] == ["--"] * (TABLED - seldom)
