"""The page as people use it: in Chromium, with a real drop."""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.view.conftest import Viewed

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
PATIENCE = 60_000  # milliseconds
# A drop as a browser makes it: a DataTransfer with a file in it.
DROP = """([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type: "image/png" }));
  const drop = document.getElementById("drop");
  for (const kind of ["dragenter", "dragover", "drop"]) {
    drop.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }
}"""


@pytest.fixture(scope="module")
def page(viewed: Viewed) -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        made = browser.new_page()
        made.set_default_timeout(PATIENCE)
        made.complaints = []
        made.on(
            "console",
            lambda message: made.complaints.append(message.text) if message.type == "error" else None,
        )
        made.on("pageerror", lambda error: made.complaints.append(str(error)))
        made.goto(viewed.address)
        yield made
        browser.close()


def dropped(page: Any, name: str, data: bytes) -> None:
    page.evaluate(DROP, [name, base64.b64encode(data).decode()])


def test_a_picture_is_dropped_and_drawn_again(page: Any, viewed: Viewed) -> None:
    assert viewed.address.rpartition("/")[2] not in page.url, "the token is not to stay in the address"
    page.locator("#recipe", has_text="tiny").wait_for()
    dropped(page, "../new <b>7</b>.png", (viewed.folder / "new" / "7.png").read_bytes())
    card = page.locator("#cards .card").first
    card.wait_for()
    assert "b_7__b_.png" in card.inner_text() or "b_.png" in card.inner_text()
    assert card.locator("table.bars tbody tr").count() == 4
    page.locator("#cards .answer-of").first.get_by_role("button").click()
    page.get_by_text("nothing says how guda sample drew it").wait_for()
    dropped(page, "sample.png", (viewed.folder / "q" / "00000.png").read_bytes())
    page.get_by_role("heading", name="sample.png").first.wait_for()
    page.locator("#cards .answer-of").first.get_by_role("button").click()
    page.get_by_text("drawn again: same").wait_for()
    assert page.locator("#cards .answer-of").first.locator("img.drawn").count() == 4
    assert page.complaints == []


def test_what_is_no_picture_is_said(page: Any) -> None:
    dropped(page, "text.png", b"this is no picture")
    page.get_by_text("it is no JPEG, PNG").wait_for()


def test_a_file_is_chosen(page: Any, viewed: Viewed) -> None:
    page.set_input_files("#file", str(viewed.folder / "q" / "00001.png"))
    page.get_by_role("heading", name="00001.png").first.wait_for()


def test_the_store_is_browsed(page: Any, viewed: Viewed) -> None:
    page.get_by_role("button", name="Scored images").click()
    page.locator("#scored .card").nth(3).wait_for()
    page.get_by_role("button", name="Store").click()
    page.get_by_role("cell", name="cached").first.wait_for()
    assert "unlearn amber" in page.locator("#store").inner_text()
    page.get_by_role("button", name="A picture").click()
    with page.expect_navigation():
        page.get_by_role("link", name="Report").click()
    page.get_by_role("heading", level=1).wait_for()
    done = viewed.run("report", "--html", "-")
    assert page.title() in done.out.decode()
    page.go_back()
    assert [text for text in page.complaints if "409" not in text] == []


def test_nothing_is_left_of_what_was_dropped(viewed: Viewed, page: Any) -> None:
    assert not list(Path(tempfile.gettempdir()).glob("guda-view-*/*.png"))
