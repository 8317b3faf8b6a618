"""The cards of a report, searched, filtered, sorted and unfolded by clicking and typing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guda_cli.report.answers import page as pages
from guda_cli.report.answers.content import QueryResult
from tests.browser.conftest import Open
from tests.report.builders import GROUPS, HOSTILE, query, report, score

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

# name -> z of the first group, which group is first, does it stand out
IMAGES = {"b-one.png": (2.0, "cat", True), "a-two.png": (9.0, "dog", True), "c-ten.png": (None, "cat", False)}


def image(name: str, z: float | None, first: str, out: bool, **changes: object) -> QueryResult:
    others = [score(group, 0.1, 0.0) for group in GROUPS if group != first]
    scores = (score(first, 10.0 + (z or 0.0), z, out), *others)
    return query(name, {}, scores=scores, answer=(first,) if out else (), **changes)


def some() -> list[QueryResult]:
    found = [image(name, *what) for name, what in IMAGES.items()]
    found.append(image("strange.png", 1.0, "dog", False, unlike=True))
    found.append(image("told.png", -3.0, "<b>&ship", False, prompts=("a lighthouse in oil", "")))
    return found


def many(count: int = 30) -> list[QueryResult]:
    return [image(f"{i:02d}.png", float(i % 7), GROUPS[i % 2], i % 3 == 0) for i in range(count)]


def html(queries: list[QueryResult]) -> str:
    return pages.render(report(tuple(queries)))


def shown(tab: Page) -> list[str]:
    """Names on the visible cards, in order."""
    return tab.locator(".card[data-verdict]:visible h3").all_text_contents()


def choice(tab: Page, name: str) -> Locator:
    return tab.get_by_role("combobox", name=name, exact=True)


def count(tab: Page) -> str:
    return tab.locator(".controls output").inner_text()


def test_search_finds_names_prompts_groups_and_digests(show: Open) -> None:
    tab = show(html(some()))
    search = tab.get_by_role("searchbox", name="Search")
    for text, found in {
        "TWO": ["a-two.png"],
        "lighthouse oil": ["told.png"],
        "&ship": ["told.png"],
        "dog": ["a-two.png", "strange.png"],  # named or first, not wherever it is in the ranking
        "abab": [*IMAGES, "strange.png", "told.png"],  # the digest
        "no such": [],
    }.items():
        search.fill(text)
        assert shown(tab) == found
        assert count(tab) == f"{len(found)} of 5 images"
        tab.get_by_role("button", name="Clear").click()
    assert len(shown(tab)) == 5
    assert search.input_value() == ""
    search.press_sequentially("two")
    assert shown(tab) == ["a-two.png"]


def test_a_group_filters_by_what_it_is_for_the_image(show: Open) -> None:
    tab = show(html(some()))
    group, as_ = choice(tab, "Group"), choice(tab, "that")
    assert as_.is_disabled()
    assert group.locator("option").all_inner_texts() == ["all groups", "<b>&ship (1)", "cat (2)", "dog (2)"]
    group.select_option("cat")
    assert shown(tab) == ["b-one.png", "c-ten.png"]
    as_.select_option("stands out")
    assert shown(tab) == ["b-one.png"]
    as_.select_option("is first")
    assert shown(tab) == ["b-one.png", "c-ten.png"]


def test_a_group_that_the_card_has_no_room_for_is_found(show: Open) -> None:
    names = [f"g{i}" for i in range(15)]
    entries = tuple(score(name, 20.0 - i, 3.0, True) for i, name in enumerate(names))
    crowded = query("crowded.png", {}, scores=entries, answer=tuple(names))
    tab = show(html([*some(), crowded]))
    assert tab.locator(".card", has_text="crowded.png").locator("tbody tr").count() == 12
    choice(tab, "Group").select_option("g14")
    assert shown(tab) == ["crowded.png"]


def test_verdicts_filter(show: Open) -> None:
    tab = show(html([*some(), image("open.png", 1.0, "cat", False)]))
    answer = choice(tab, "Answer")
    assert answer.locator("option").all_inner_texts() == [
        "any", "a group stands out (2)", "no group stands out (3)", "unlike the training data (1)"
    ]  # fmt: skip
    answer.select_option("unlike the training data (1)")
    assert shown(tab) == ["strange.png"]
    tab.get_by_role("searchbox", name="Search").fill("told")
    assert shown(tab) == []
    assert count(tab) == "0 of 6 images"


def test_sorting_puts_what_is_unknown_last(show: Open) -> None:
    tab = show(html(some()))
    by = choice(tab, "Sort by")
    for option, names in {
        "highest z first": "a-two b-one strange told c-ten",
        "lowest z first": "told strange b-one a-two c-ten",
        "highest score first": "a-two b-one strange c-ten told",
        "highest error first": "b-one a-two c-ten strange told",  # all alike: as listed
        "name": "b-one a-two c-ten strange told",  # as the report has them
    }.items():
        by.select_option(option)
        assert shown(tab) == [f"{name}.png" for name in names.split()]


def test_the_others_are_in_a_fold_and_come_out_where_they_are_found(show: Open) -> None:
    tab = show(html(many()))
    names = [f"{i:02d}.png" for i in range(30)]
    assert shown(tab) == names[:24]
    fold = tab.locator("details.others > summary")
    assert fold.inner_text() == "The other 6 images"
    fold.click()
    assert shown(tab) == names
    fold.click()
    tab.get_by_role("searchbox", name="Search").fill("29")
    assert shown(tab) == ["29.png"]
    assert fold.is_hidden()
    tab.get_by_role("searchbox", name="Search").fill("")
    assert shown(tab) == names[:24]
    choice(tab, "Sort by").select_option("z+")
    fold.click()
    assert shown(tab) == sorted(names, key=lambda name: (int(name[:2]) % 7, name))
    choice(tab, "Answer").select_option("out")
    tab.get_by_role("button", name="Clear").click()
    assert shown(tab) == names


def test_a_view_can_be_sent(show: Open) -> None:
    tab = show(html(some()))
    tab.get_by_role("searchbox", name="Search").fill("p.ng png")
    tab.get_by_role("searchbox", name="Search").fill("png")
    choice(tab, "Group").select_option("<b>&ship")
    choice(tab, "Sort by").select_option("z-")
    address = tab.url
    other = show(html(some()), address.partition("#")[2])
    assert shown(other) == ["told.png"]
    assert choice(other, "Sort by").input_value() == "z-"
    other.evaluate("location.hash = 'q=two'")
    other.wait_for_function("document.querySelector('output').textContent.startsWith('1 ')")
    assert shown(other) == ["a-two.png"]
    other.get_by_role("link", name="Limits").click()
    assert shown(other) == ["a-two.png"]


def test_a_view_of_another_report_does_no_harm(show: Open) -> None:
    tab = show(html(some()), "group=none&sort=%3Cb%3E&as=x&q=%3Cscript%3E&other=1&verdict=unlike")
    assert choice(tab, "Group").input_value() == ""
    assert choice(tab, "Sort by").input_value() == ""
    assert tab.get_by_role("searchbox", name="Search").input_value() == "<script>"
    assert count(tab) == "0 of 5 images"


def test_it_all_works_by_keyboard(show: Open) -> None:
    tab = show(html(some()))
    tab.get_by_role("link").last.focus()
    tab.keyboard.press("Tab")
    tab.keyboard.type("dog")
    assert shown(tab) == ["a-two.png", "strange.png"]
    tab.keyboard.press("Tab")
    tab.keyboard.type("dog")
    tab.keyboard.press("Tab")
    tab.keyboard.type("is first")
    tab.keyboard.press("Tab")
    tab.keyboard.type("unl")
    assert choice(tab, "Answer").input_value() == "unlike"
    assert shown(tab) == ["strange.png"]
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    assert len(shown(tab)) == 5


def test_a_few_images_have_no_controls(show: Open) -> None:
    tab = show(html(some()[:3]))
    assert tab.locator(".controls").count() == 0
    assert len(shown(tab)) == 3


def test_hostile_names_and_groups_are_text(show: Open) -> None:
    hostile = [image(HOSTILE, 2.0, "<img src=x onerror=alert(1)>", True, prompts=(HOSTILE,)), *some()]
    tab = show(html(hostile))
    assert shown(tab)[0].startswith("<script>alert('x')</script>\" onerror=\"x\\x1b[31m<U+202E>")
    choice(tab, "Group").select_option("<img src=x onerror=alert(1)>")
    assert len(shown(tab)) == 1
    tab.get_by_role("searchbox", name="Search").fill("<script>alert")
    assert len(shown(tab)) == 1
    assert tab.locator("script").count() == 1
