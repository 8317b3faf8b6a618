"""The class a query was scored with stands beside its name, wherever the name stands for the query."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from guda_cli.report.answers import formats, terminal, words
from guda_cli.report.answers import page as pages
from guda_cli.report.answers.image_rows import ImageRows
from tests.report.builders import GROUPS, HOSTILE, query, report

VALUES = dict(zip(GROUPS, (1.0, 0.5, -0.25), strict=True))
WITH = query("a.png", VALUES, condition="dog")
WITHOUT = query("a.png", VALUES)


def test_caption() -> None:
    assert words.caption(WITH) == "a.png (class dog)"
    assert words.caption(WITHOUT) == "a.png"


def test_documents_hold_it_only_where_there_is_one() -> None:
    assert formats.query_document(WITH) == {**formats.query_document(WITHOUT), "class": "dog"}


@pytest.mark.parametrize("one", [WITH, WITHOUT])
def test_text(one) -> None:
    out = io.StringIO()
    console = Console(file=out, width=120)
    console.print(terminal.query_table(one, 2, "nats"))
    for part in terminal.render(report((one,)), 2, 120):
        console.print(part)
    row = ImageRows([one.name], ["cat", "dog"], [one], 120, 2).row(one).plain
    shown = [out.getvalue().count("class dog"), row.count("class dog")]
    assert shown == ([2, 1] if one is WITH else [0, 0])


def test_page_escapes_it() -> None:
    page = pages.render(report((query("a.png", VALUES, condition=HOSTILE),)))
    assert ">class &lt;script&gt;" in page
    assert "<script>alert" not in page
