"""Pictures enlarged by mouse and keyboard."""

from __future__ import annotations

import numpy as np

from guda_cli.report.answers import page as pages
from guda_cli.report.answers.content import Gallery
from tests.browser.conftest import Open
from tests.report.builders import query, report
from tests.report.test_gallery import row

NAMES = ("a.png", "b.png", "c.png", "d.png")


def html() -> str:
    """The last image is a large one."""
    pixels = [np.full((3, 8, 8), 9 * i, np.uint8) for i in range(3)] + [np.zeros((3, 200, 300), np.uint8)]
    queries = tuple(query(name, {"cat": 1.0}, pixels=one) for name, one in zip(NAMES, pixels, strict=True))
    return pages.render(report(queries, gallery=Gallery((row(),))))


def test_a_click_enlarges_and_escape_goes_back(show: Open) -> None:
    tab = show(html())
    thumb = tab.get_by_role("button", name="query image b.png")
    thumb.click()
    dialog = tab.get_by_role("dialog", name="Enlarged picture")
    image = dialog.locator("img")
    assert image.get_attribute("src") == thumb.get_attribute("src")
    assert dialog.locator("figcaption").inner_text() == "query image b.png (2 of 4)"
    assert image.evaluate("(one) => getComputedStyle(one).imageRendering") == "pixelated"
    assert image.bounding_box()["width"] > 400
    tab.keyboard.press("Escape")
    assert dialog.is_hidden()
    assert thumb.evaluate("(one) => one === document.activeElement")


def test_arrows_go_on_and_round(show: Open) -> None:
    tab = show(html())
    tab.get_by_role("button", name="query image c.png").press("Enter")
    told = tab.locator("dialog figcaption")
    tab.keyboard.press("ArrowRight")
    assert told.inner_text() == "query image d.png (4 of 4)"
    assert tab.locator("dialog img").evaluate("(one) => getComputedStyle(one).imageRendering") == "auto"
    tab.keyboard.press("ArrowRight")
    assert told.inner_text() == "query image a.png (1 of 4)"
    tab.get_by_role("button", name="Previous picture").click()
    tab.get_by_role("button", name="Previous picture").click()
    assert told.inner_text() == "query image c.png (3 of 4)"
    tab.get_by_role("button", name="Close").click()
    assert tab.locator("dialog").is_hidden()
    assert tab.evaluate("document.activeElement.alt") == "query image c.png"


def test_arrows_pass_over_what_is_filtered_away(show: Open) -> None:
    tab = show(html(), "q=b.png")
    tab.get_by_role("button", name="query image b.png").press(" ")
    assert tab.locator("dialog figcaption").inner_text() == "query image b.png"
    assert tab.get_by_role("button", name="Next picture").is_disabled()
    tab.mouse.click(5, 5)  # beside the dialog
    assert tab.locator("dialog").is_hidden()


def test_pictures_of_the_gallery_are_large_and_enlarge_among_themselves(show: Open) -> None:
    tab = show(html())
    first = tab.locator("img.drawn").first
    assert first.bounding_box()["width"] > 180
    first.click()
    assert tab.locator("dialog figcaption").inner_text() == "image a.png (1 of 4)"
    tab.keyboard.press("ArrowLeft")
    assert "without <b>&ship" in tab.locator("dialog figcaption").inner_text()
