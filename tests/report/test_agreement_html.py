from __future__ import annotations

import re

import pytest

from guda_cli.report.agreement.page import render_html
from guda_cli.report.agreement.words import CEILING_TITLE, STEPS_TITLE
from guda_cli.report.pieces.text import printable
from tests.report.agreement_builders import report, row, rows, table
from tests.report.test_html import Page, without_script


def test_page_is_well_formed_and_self_contained() -> None:
    text = without_script(render_html(report()))
    page = Page(text)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for tag, a in page.tags if tag == "a"} == set(ids)
    assert not re.search(r"(?i)(https?:)?//", text)
    assert not re.search(r"url\(|@import|src=", text)
    heads = [attrs for tag, attrs in page.tags if tag == "th"]
    assert all(attrs.get("scope") in {"row", "col"} for attrs in heads)
    assert all(attrs.get("aria-label") for tag, attrs in page.tags if tag == "svg")


def test_hostile_names_stay_text() -> None:
    text = without_script(render_html(report()))
    page = Page(text)
    assert not any(tag in {"script", "u", "i", "iframe"} for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "<script>alert" in "".join(page.words)
    assert not set(text) & {"\x1b", "\u202e"}


def test_every_value_with_its_interval_is_there() -> None:
    text = render_html(report())
    said = " ".join(Page(text).words)
    for one in rows():
        assert printable(one.name)[:20] in said
        for metric in ("top1", "ndcg@5", "wpra"):
            value, low, high = one.metrics[metric]
            assert re.search(rf"{value:.2f}(</strong>)?<span class=\"below\">{low:.2f} to {high:.2f}<", text)
    assert "<strong>0.60</strong>" in text
    assert "<strong>0.65</strong>" not in text.split("</tbody>")[1].split("</tfoot>")[0]  # the ceiling
    for part in ("2, 3, 4", "256", "digit 8, digit 9", "2^rel", "RBO ≤0.57", "×20", "10 min 00 s", "careful"):
        assert part in said
    for part in ("no ranking of methods can be trusted", "bootstrap.resamples", "lr: 1e-3", "guda.steps"):
        assert part in said


def test_rows_of_the_tables() -> None:
    tables = [
        t
        for t in re.findall(r"<table class=\"agreement\" data-sort>.*?</table>", render_html(report()))
        if "tfoot" in t
    ]
    assert len(tables) == 2
    for one in tables:
        head, foot = one.split("<tfoot>")
        assert head.count('<th scope="row">') == 4
        assert foot.count('<th scope="row">') == 2
        assert head.index("guda") < head.index("das") < head.index("similarity")
        assert foot.index("random") < foot.index("ceiling")
        assert head.count('class="badge"') == 2


def test_no_headings_without_data() -> None:
    text = render_html(report(tables=(), bands=(), steps=()))
    Page(text)
    assert CEILING_TITLE not in text
    assert STEPS_TITLE not in text
    assert "<svg" not in text
    assert "<h2>Weighting" not in text
    bare = render_html(report(tables=(table(rows=()),), bands=(), steps=(), provenance={}, warnings=()))
    Page(bare)
    assert "Where these numbers come from" not in bare
    assert 'role="note"' not in bare


@pytest.mark.parametrize("prepare", [None, 0.0, 5e5])
def test_a_plot_only_where_a_cost_is_known(prepare: float | None) -> None:
    text = render_html(report(tables=(table(rows=(row("guda", 0.5, prepare=prepare),)),), bands=(), steps=()))
    assert text.count("<svg") == (0 if prepare is None else 2)


def test_methods_that_the_plot_lacks_are_named() -> None:
    assert "Not shown, as their cost is not known: &lt;script&gt;" in render_html(report())
