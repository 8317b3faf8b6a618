"""Tables sorted and unfolded by clicking."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guda_cli.report.agreement.page import render_html
from guda_cli.report.answers import page as pages
from guda_cli.report.answers.content import Check
from tests.browser.conftest import Open
from tests.report import agreement_builders
from tests.report.builders import query, report

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

COUNT = 30
GROUPS = tuple(f"group-{i}" for i in range(COUNT))
FAILED = {7, 25}


def html(groups: tuple[str, ...] = GROUPS) -> str:
    """The mean of group i is i (in groups of images), two checks failed."""
    queries = tuple(query(f"{j}.png", {g: float(i) for i, g in enumerate(groups)}, groups[j]) for j in (2, 0))
    checks = tuple(
        Check(g, 0.05, 0.05 + i / 1000, 0.04, 0.041, i not in FAILED, "") for i, g in enumerate(groups)
    )
    return pages.render(report(queries, groups=groups, checks=checks))


def names(table: Locator) -> list[str]:
    return [text.split(" ")[0] for text in table.locator("tbody th:visible").all_inner_texts()]


def head(table: Locator, name: str) -> Locator:
    return table.get_by_role("columnheader", name=name).first


def test_a_click_sorts_then_the_other_way_then_as_it_was(show: Open) -> None:
    tab = show(html(GROUPS[:12]))
    table = tab.locator("#means table")
    listed = names(table)
    assert listed == [f"group-{i}" for i in reversed(range(12))]
    group = head(table, "Group")
    group.get_by_role("button").click()
    assert names(table) == [f"group-{i}" for i in range(12)]  # 2 before 10
    assert group.get_attribute("aria-sort") == "ascending"
    group.get_by_role("button").click()
    assert names(table) == listed
    assert group.get_attribute("aria-sort") == "descending"
    head(table, "mean").get_by_role("button").press("Enter")
    assert group.get_attribute("aria-sort") is None
    assert names(table) == listed
    head(table, "mean").get_by_role("button").press("Enter")
    assert names(table) == listed[::-1]
    head(table, "mean").get_by_role("button").press("Enter")
    assert names(table) == listed
    assert head(table, "mean").get_attribute("aria-sort") is None


def test_a_long_table_shows_its_first_rows_until_asked(show: Open) -> None:
    tab = show(html())
    means = tab.locator("#means table")
    assert names(means) == [f"group-{i}" for i in range(29, 9, -1)]
    button = tab.locator("#means").get_by_role("button", name="Show all 30 rows")
    assert button.get_attribute("aria-expanded") == "false"
    head(means, "mean").get_by_role("button").click()
    head(means, "mean").get_by_role("button").click()
    assert names(means) == [f"group-{i}" for i in range(20)]
    button.click()
    assert names(means) == list(GROUPS)
    tab.get_by_role("button", name="Show the first 20 rows").click()
    assert len(names(means)) == 20


def test_failures_are_never_folded_away(show: Open) -> None:
    tab = show(html())
    checks = tab.locator("#checks table")
    assert names(checks)[:3] == ["group-7", "group-25", "group-0"]
    assert len(names(checks)) == 20
    head(checks, "Group").get_by_role("button").click()
    assert names(checks) == [*GROUPS[:20], "group-25"]
    head(checks, "Change").get_by_role("button").click()
    assert names(checks) == [*reversed(GROUPS[10:]), "group-7"]


def test_the_matrix_sorts_by_any_group(show: Open) -> None:
    tab = show(html(GROUPS[:3]))
    matrix = tab.locator("#matrix table")
    assert names(matrix) == ["group-0", "group-2"]
    head(matrix, "group-1").get_by_role("button").click()
    assert head(matrix, "group-1").get_attribute("aria-sort") == "descending"


def test_of_many_groups_the_matrix_shows_a_few_and_folds_the_rest(show: Open) -> None:
    groups = tuple(f"g{i}" for i in range(50))
    queries = tuple(query(f"{i}.png", dict.fromkeys(groups, 1.0), groups[i % 45]) for i in range(60))
    tab = show(pages.render(report(queries, groups=groups, checks=())))
    few, every = tab.locator("#matrix table").all()
    assert names(few) == [f"g{i}" for i in (*range(15), *range(15, 20))]
    assert few.locator("thead th").count() == 20
    assert names(every) == []
    tab.get_by_text("All 50 groups", exact=True).click()
    assert len(names(every)) == 20
    assert every.locator("thead th").count() == 50
    tab.get_by_role("button", name="Show all 45 rows").click()
    assert len(names(every)) == 45


def test_methods_are_sorted_by_value_and_not_by_digits(show: Open) -> None:
    rows = (
        agreement_builders.row("a", 0.5, prepare=9_000.0),
        agreement_builders.row("b", 0.4, prepare=2.5e6),
        agreement_builders.row("c", 0.3, prepare=12_345.0),
        agreement_builders.row("d", 0.2, prepare=None),
    )
    made = agreement_builders.report(tables=(agreement_builders.table(rows=rows),), bands=(), steps=())
    table = show(render_html(made)).locator("table.agreement").first
    head(table, "Preparation").get_by_role("button").click()
    assert [name[0] for name in names(table)] == ["b", "c", "a", "d"]
    head(table, "Preparation").get_by_role("button").click()
    assert [name[0] for name in names(table)] == ["a", "c", "b", "d"]  # what is unknown stays last
    head(table, "MRR").get_by_role("button").click()
    assert [name[0] for name in names(table)] == ["a", "b", "c", "d"]


def rows_of(tab: Page) -> int:
    return tab.locator("#means tbody tr:visible").count()


def test_without_a_script_the_other_rows_are_in_a_fold(show: Open) -> None:
    tab = show(html(), java_script_enabled=False)
    assert rows_of(tab) == 20
    tab.locator("#means summary").click()
    assert tab.locator("#means summary").inner_text() == "The other 10"
    assert rows_of(tab) == 30
