from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from guda_cli.report.answers import page as pages
from guda_cli.report.pieces.markup import bar, span, thumbnail
from guda_cli.report.pieces.script import script
from tests.report.builders import GROUPS, query, report, score

VOID = {"meta", "img", "input", "br", "line", "rect", "path"}


def without_script(text: str) -> str:
    """The page less its own script, which is there once, as it is in the package."""
    before, found, after = text.partition(f"<script>{script()}</script>")
    assert found
    return before + after


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_tags_are_balanced_and_ids_unique() -> None:
    page = Page(pages.render(report()))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {str(attrs["href"])[1:] for tag, attrs in page.tags if tag == "a"}
    assert links <= set(ids)


def test_hostile_names_stay_text() -> None:
    text = without_script(pages.render(report()))
    page = Page(text)
    assert not any(tag in {"script", "b", "i", "u", "iframe"} for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "<script>alert" in "".join(page.words)
    assert not set(text) & {"\x1b", "\u202e", "\udcff"}
    text.encode("utf-8")


def test_nothing_is_loaded_from_outside() -> None:
    text = without_script(pages.render(report()))
    assert not re.search(r"(?i)(https?:)?//", re.sub(r"data:image/png;base64,[^\"]*", "", text))
    assert "url(" not in text
    assert "@import" not in text
    for _, attrs in Page(text).tags:
        assert str(attrs.get("src", "data:")).startswith("data:")
        assert str(attrs.get("href", "#")).startswith("#")


def test_pictures_have_alternatives_and_tables_heads() -> None:
    page = Page(pages.render(report()))
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")
    assert all(attrs.get("aria-hidden") == "true" for tag, attrs in page.tags if tag == "svg")
    assert all(attrs.get("scope") in {"row", "col"} for tag, attrs in page.tags if tag == "th")
    count = sum(tag == "table" for tag, _ in page.tags)
    assert count == sum(tag == "caption" for tag, _ in page.tags)


def test_the_answer_comes_first_and_everything_is_there() -> None:
    words = " ".join(Page(pages.render(report())).words)
    parts = ["For 1 of 3 images", "min-snr:5", "a.png", "No group stands out", "Mean over 3 images"]
    parts += ["images by the group they look most like", "FAILED", "loss did not rise", "all steps"]
    parts += ["not legal advice", "packages.torch", "lr: 1e-3"]
    places = [words.find(part) for part in parts]
    assert -1 not in places
    assert places == sorted(places)


def test_all_but_the_first_images_are_in_a_fold() -> None:
    queries = tuple(query(f"{i}.png", dict.fromkeys(GROUPS, 0.5)) for i in range(5))
    text = pages.render(report(queries), expanded=2)
    Page(text)
    open_, fold = text.split('<details class="others"><summary>The other 3 images</summary>')
    assert open_.count('<article class="card"') == 2
    assert fold.count('<article class="card"') == 3
    assert 'class="others"' not in pages.render(report(queries), expanded=5)


def policy_of(text: str) -> dict[str, str]:
    [policy] = [a["content"] for t, a in Page(text).tags if a.get("http-equiv") == "Content-Security-Policy"]
    return dict(part.strip().split(" ", 1) for part in str(policy).split(";"))


def test_the_policy_allows_the_page_alone() -> None:
    """What is allowed is found in the page byte by byte, as a browser does it."""
    text = pages.render(report())
    policy = policy_of(text)
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == "data:"
    assert "unsafe" not in str(policy)
    for tag in ("style", "script"):
        [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert not any("style" in attrs for _, attrs in Page(text).tags)


def test_a_long_warning_is_behind_its_first_words() -> None:
    long = "no model without " + ", ".join(f"group-{i}" for i in range(300))
    text = pages.render(report(warnings=(long, "short")))
    assert f'<li><details class="told"><summary>{long[:100]}' in text
    assert f"<p>{long}</p>" in text
    assert "<li>short</li>" in text


def test_script_and_style_are_the_same_in_every_encoding() -> None:
    """A terminal that cannot write all characters has others for some, which their digests would not fit."""
    text = pages.render(report())
    assert script().isascii()
    assert text.partition("<style>")[2].partition("</style>")[0].isascii()


def test_equal_reports_give_equal_pages() -> None:
    assert pages.render(report()) == pages.render(report())


@pytest.mark.parametrize("count", [0, 1])
def test_few_queries(count: int) -> None:
    queries = tuple(query(f"{i}.png", {"cat": 1.0}, answer=None) for i in range(count))
    Page(pages.render(report(queries, null=None, checks=(), costs=(), provenance={})))


def test_numbers_that_are_no_numbers() -> None:
    bad = query("x.png", {}, scores=(score("cat", float("nan")), score("dog", float("inf"))))
    Page(pages.render(report((bad, bad))))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_thumbnail_is_the_picture(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (channels, 8, 8), dtype=np.uint8)
    data = thumbnail(pixels, "x", most=64, css="thumb").split("base64,")[1].split('"')[0]
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.size == (8, 8)
    assert np.array_equal(np.asarray(image.convert("RGB"))[..., 0], pixels[0])


def test_thumbnail_of_a_large_picture_is_small() -> None:
    pixels = np.zeros((3, 300, 600), np.uint8)
    data = thumbnail(pixels, "x", most=64, css="thumb").split("base64,")[1].split('"')[0]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (64, 32)


def test_bars_start_at_zero() -> None:
    shared = span([score("a", 1.0), score("b", -1.0)])
    assert (shared.left, shared.right) == (-1.2, 1.2)
    assert shared.place(0.0) == pytest.approx(100.0)
    assert 'class="neg pale" x="18.3" y="2" width="81.7"' in bar(score("b", -1.0), shared)
    assert 'class="pos" x="100.0"' in bar(score("a", 1.0, out=True), shared)


def test_the_check_of_the_full_model_stands_in_the_head_and_with_its_numbers() -> None:
    names = ("first", "last", "trained", "mean", "untrained", "gain", "gain_se")
    bands = [
        dict(zip(names, values, strict=True))
        for values in ((1, 500, 0.4, 0.7, 1.2, 0.3, 0.01), (501, 1000, 0.3, 0.1, 1.2, -0.2, 0.01))
    ]
    why = "its loss is 30% under that of the mean image, but …"
    found = {"verdict": "doubtful", "why": why, "bands": bands}
    page = pages.render(report(training_check=found))
    assert "check doubtful: its loss is 30% under" in page.partition("</header>")[0]
    assert "Has the model learnt?" in page
    assert "501 to 1000" in page
    assert "Has the model learnt?" not in pages.render(report())
