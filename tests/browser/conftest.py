"""A headless Chromium that opens pages from files, sees no network, and hears every error."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EXECUTABLES = ("chromium", "chromium-browser", "google-chrome")
Open = Callable[..., "Page"]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
    found = next(filter(None, map(shutil.which, EXECUTABLES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(EXECUTABLES)}")
    with api.sync_playwright() as tools, tools.chromium.launch(executable_path=found) as launched:
        yield launched


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """`show(html, view="q=cat", width=390)` opens a page of that text; no error, no request may come of it.

    Further options are those of a browser's context. `errors=True` for pages that are attacked.
    """
    file, tabs, found = tmp_path / "page.html", [], []

    def open_(text: str, view: str = "", *, width: int = 1200, errors: bool = False, **options: Any) -> Page:
        file.write_text(text, encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        tabs.append(page)
        page.set_default_timeout(60000)  # how long a busy machine may take
        if not errors:
            page.on("pageerror", lambda error: found.append(str(error)))
            page.on("console", lambda message: found.append(message.text))
            page.on("dialog", lambda dialog: found.append(dialog.message))
            page.on("request", lambda request: None if _own(request.url, file) else found.append(request.url))
        page.goto(file.as_uri() + (f"#{view}" if view else ""))
        return page

    yield open_
    for page in tabs:
        page.close()
    assert found == []


def _own(url: str, file: Path) -> bool:
    return url.startswith("data:") or url.partition("#")[0] == file.as_uri()
