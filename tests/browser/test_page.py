"""The whole page: it needs no script, no network and little width, and nothing else can act in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from guda_cli.report.agreement.page import render_html
from guda_cli.report.answers import page as pages
from guda_cli.report.answers.content import Gallery, GroupImages, Maps, Training
from guda_cli.report.pieces.css import contrast
from tests.browser.conftest import Open
from tests.browser.test_images import many, shown
from tests.browser.test_tables import html as tables
from tests.report import agreement_builders
from tests.report.builders import HOSTILE, query, report
from tests.report.test_gallery import row

if TYPE_CHECKING:
    from playwright.sync_api import Page

ATTACK = """
<script>document.title = "script"</script>
<img src="x:" onerror="document.title = 'handler'">
<a id="go" href="javascript:void(document.title='link')">go</a>
<iframe srcdoc="<script>parent.document.title = 'frame'</script>"></iframe>
<form id="form" action="https://example.org/"><button>send</button></form>
<base href="https://example.org/"><link rel="stylesheet" href="https://example.org/x.css">
<p id="styled" style="color: rgb(1, 2, 3)">styled</p>
"""


def every_part() -> str:
    digest, pixels = "ab" * 32, np.full((3, 8, 8), 255, np.uint8)
    name = "a/very/long/" + 20 * "name" + ".png"
    queries = (
        query(name, {"cat": 1.0}, pixels=pixels),
        *many(5),
        query("b.png", {"cat": 1.0}, prompts=(60 * "oil ",)),
    )
    images = GroupImages("cat", tuple((HOSTILE, pixels) for _ in range(9)))
    return pages.render(
        report(
            queries,
            gallery=Gallery((row(), row(HOSTILE, same=False))),
            training=Training(9, 3, {digest: (images,)}),
            maps=Maps({digest: (("cat", np.ones((8, 8))), (HOSTILE, np.ones((8, 8))))}),
        )
    )


@pytest.mark.parametrize("make", [every_part, tables, lambda: render_html(agreement_builders.report())])
def test_a_phone_needs_no_scrolling_sideways(show: Open, make: Callable[[], str]) -> None:
    tab = show(make(), width=390)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    for bar in tab.locator(".card .bars svg").all()[:3]:
        assert bar.bounding_box()["width"] > 200
    for caption in tab.locator("caption:not(.sr):visible").all():
        assert caption.bounding_box()["width"] > 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_white_image_has_an_edge_and_text_is_legible(show: Open, scheme: str) -> None:
    tab = show(every_part(), color_scheme=scheme)
    style = "(one) => { const s = getComputedStyle(one); return [s.boxShadow, s.color, s.backgroundColor] }"
    shadow, *_ = tab.locator("img.thumb").first.evaluate(style)
    _, ink, card = tab.locator(".card").first.evaluate(style)
    assert contrast(colour(shadow), "#ffffff") > 1.5
    assert contrast(colour(ink), colour(card)) > 7
    assert (contrast(colour(card), "#000000") > 10) is (scheme == "light")


def colour(text: str) -> str:
    """The first rgb(...) of a computed style as hex."""
    numbers = text.partition("rgb(")[2].partition(")")[0].split(",")
    return "#" + "".join(f"{int(number):02x}" for number in numbers)


def test_text_keeps_its_distance_from_the_cards(show: Open) -> None:
    tab = show(pages.render(report()))
    intro, cards = tab.locator(".intro").bounding_box(), tab.locator(".cards").bounding_box()
    assert cards["y"] - (intro["y"] + intro["height"]) >= 12


def test_a_long_prompt_is_behind_its_first_words(show: Open) -> None:
    tab = show(every_part())
    card = tab.locator(".card", has=tab.get_by_role("heading", name="b.png", exact=True))
    before = card.bounding_box()["height"]
    card.locator(".told summary").click()
    assert card.bounding_box()["height"] > before + 40


def test_without_a_script_all_is_there(show: Open) -> None:
    tab = show(pages.render(report(tuple(many()))), java_script_enabled=False)
    assert tab.locator(".controls").is_hidden()
    assert len(shown(tab)) == 24
    tab.locator("details.others > summary").click()
    assert len(shown(tab)) == 30
    assert tab.locator("button:visible").count() == 0


def test_paper_has_no_controls_and_no_folds(show: Open) -> None:
    tab = show(pages.render(report(tuple(many()))))
    tab.emulate_media(media="print")
    assert tab.locator(".controls :is(button, input, select):visible").count() == 0
    assert tab.locator(".controls output").inner_text() == "30 of 30 images"
    last = tab.locator(".card[data-verdict]").last
    assert last.evaluate("(one) => one.checkVisibility()")
    assert last.bounding_box()["height"] > 50
    tab = show(tables())
    tab.emulate_media(media="print")
    assert tab.locator("#means tbody tr:visible").count() == 30
    assert tab.locator(".fold > button:visible").count() == 0
    tab = show(pages.render(report(tuple(many()))), "q=29")
    tab.emulate_media(media="print")
    assert shown(tab) == ["29.png"]
    assert tab.locator(".controls output").inner_text() == "1 of 30 images"


def attacked(show: Open, text: str) -> Page:
    return show(text.replace("<main>", f"<main>{ATTACK}"), errors=True)


def test_the_policy_stops_whatever_else_gets_into_the_page(show: Open) -> None:
    text = pages.render(report(tuple(many())))
    tab = attacked(show, text)
    tab.locator("#go").click()
    tab.wait_for_timeout(50)
    assert tab.title() == "A <title>"
    assert tab.locator("#styled").evaluate("(one) => getComputedStyle(one).color") != "rgb(1, 2, 3)"
    with pytest.raises(Exception, match="TrustedHTML"):
        tab.evaluate("document.body.innerHTML = '<b>x</b>'")
    assert tab.locator(".controls").is_visible()  # its own script runs
    with tab.expect_console_message(lambda message: "form-action 'none'" in message.text):
        tab.evaluate("document.querySelector('#form').requestSubmit()")
    assert tab.url.startswith("file:")


def test_the_attack_works_where_there_is_no_policy(show: Open) -> None:
    """Or else the test above says nothing."""
    text = pages.render(report(tuple(many())))
    tab = attacked(show, text.replace("Content-Security-Policy", "x").replace("https://example.org/", "#"))
    assert tab.title() in {"handler", "frame"}
    tab.locator("#go").click()
    assert tab.title() == "link"
