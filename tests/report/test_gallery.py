"""The gallery's part of the page and of the JSON document."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from guda_cli.report.answers import formats
from guda_cli.report.answers import page as pages
from guda_cli.report.answers.content import Counterpart, Gallery, GalleryRow
from guda_cli.report.answers.page_gallery import gallery_section
from tests.report.builders import GROUPS, HOSTILE, report
from tests.report.test_html import Page, without_script

NOISE = {"seed": 0, "index": 2, "sampler": "ddim", "steps": 50, "guidance": 1.0}


def picture(value: int, size: int = 8, channels: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((channels, size, size), value, dtype=np.uint8)


def row(image: str = "a.png", size: int = 8, **changes: Any) -> GalleryRow:
    counterparts = tuple(
        Counterpart(group, rank, 2.0 / rank, picture(40 * rank, size), 12.25 * rank)
        for rank, group in enumerate(GROUPS, 1)
    )
    fields: dict[str, Any] = {
        "redrawn": True, "same": True, "difference": 0.01, "counterparts": counterparts, "noise": NOISE,
    }  # fmt: skip
    return GalleryRow(image, "ab" * 32, picture(10, size), picture(11, size), **{**fields, **changes})


def shown(*rows: GalleryRow, notes: tuple[str, ...] = (), **changes: Any) -> tuple[Page, str]:
    text = gallery_section(report(gallery=Gallery(rows, notes), **changes))
    page = Page(text)
    return page, re.sub(r"\s+", " ", " ".join(page.words))


def pictures(page: Page) -> list[np.ndarray[Any, Any]]:
    found = [str(attrs["src"]).partition("base64,")[2] for tag, attrs in page.tags if tag == "img"]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")) for data in found]


def test_without_a_gallery_there_is_no_section() -> None:
    assert gallery_section(report()) == ""
    text = pages.render(report())
    assert 'id="gallery"' not in text
    assert "img.drawn" not in text
    assert "gallery" not in formats.to_json(report())


def test_the_page_with_a_gallery_is_whole() -> None:
    text = without_script(pages.render(report(gallery=Gallery((row(), row(HOSTILE)), ("<b>left</b>",)))))
    page = Page(text)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert "gallery" in ids
    assert len(ids) == len(set(ids))
    assert not any(tag in {"script", "b"} for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert not re.search(r"(?i)(https?:)?//", re.sub(r"data:image/png;base64,[^\"]*", "", text))
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")


def test_a_row_shows_the_image_then_each_model_in_order() -> None:
    page, words = shown(row())
    assert [int(image[0, 0, 0]) for image in pictures(page)] == [10, 40, 80, 120]
    alts = [str(attrs["alt"]) for tag, attrs in page.tags if tag == "img"]
    assert alts[0] == "image a.png"
    assert all(f"without {group}" in alt for group, alt in zip(GROUPS, alts[1:], strict=True))
    for expected in ("rank 1, score +2.00", "rank 3, score +0.67", "differs by 12.2", "differs by 24.5"):
        assert expected in words
    assert "drawn again: same" in words
    assert "full model does not draw" not in words


def test_an_image_that_is_not_drawn_again_says_so_and_shows_what_is() -> None:
    page, words = shown(row(same=False, difference=33.3))
    assert [int(image[0, 0, 0]) for image in pictures(page)][:2] == [10, 11]
    assert "does not draw this image again" in words
    assert "differs by 33.3 from the image" in words
    assert "drawn again: same" not in words


def test_another_picture_of_the_same_prompt_says_so() -> None:
    page, words = shown(row(redrawn=False, same=False, condition="a dog, in <i>oil</i>"))
    assert "not this image" in words
    assert "from the image" not in words
    assert "“a dog, in <i>oil</i>”" in words
    assert len(pictures(page)) == 5


@pytest.mark.parametrize(("size", "crisp", "side"), [(8, True, 8), (64, True, 64), (512, False, 384)])
def test_small_pictures_stay_crisp_and_large_ones_small(size: int, crisp: bool, side: int) -> None:
    page, _ = shown(row(size=size))
    classes = [str(attrs["class"]).split() for tag, attrs in page.tags if tag == "img"]
    assert all(("crisp" in found) is crisp for found in classes)
    assert {image.shape[:2] for image in pictures(page)} == {(side, side)}


def test_notes_and_an_empty_gallery() -> None:
    page, words = shown(notes=("2 images are left out: another model drew them",))
    assert "nothing to show" in words
    assert "2 images are left out: another model drew them." in words
    assert pictures(page) == []


def test_the_oracle_is_explained() -> None:
    assert "more than the group" in shown(row(), method="logo")[1]
    assert "more than the group" not in shown(row())[1]


def test_the_document_holds_all_but_the_pixels() -> None:
    document = formats.to_json(report(gallery=Gallery((row(condition="a dog"),), ("left out",))))
    [found] = document["gallery"]
    assert found == {
        "image": "a.png", "digest": "ab" * 32, "redrawn": True, "same": True, "difference": 0.01,
        "condition": "a dog", "noise": NOISE,
        "without": [
            {"group": group, "rank": rank, "score": 2.0 / rank, "difference": 12.25 * rank}
            for rank, group in enumerate(GROUPS, 1)
        ],
    }  # fmt: skip
    assert document["gallery_notes"] == ["left out"]
