"""How many bytes an image and a group add to the page."""

from __future__ import annotations

import re

import pytest

from guda_cli.report.answers import page
from tests.scripts import load

large = load("page")


def size(images: int, groups: int, side: int) -> int:
    return len(page.render(large.model(images, groups, side)).encode())


@pytest.mark.parametrize(("side", "most"), [(8, 4_000), (32, 9_000), (512, 30_000)])
def test_an_image_stays_small_whatever_its_size(side: int, most: int) -> None:
    """The pictures are noise, which takes most: a photo takes about half."""
    assert (size(24, 10, side) - size(4, 10, side)) / 20 < most


def test_pictures_get_smaller_where_there_are_many() -> None:
    few, many = (
        sum(map(len, re.findall(r'src="([^"]*)"', page.render(large.model(n, 4, 300))))) / n for n in (4, 70)
    )
    assert many < 0.7 * few


def test_groups_add_to_an_image_what_is_shown_of_them() -> None:
    """The 300 scores of an image are in the tables of the JSON document, not on its card."""
    cards = [page.render(large.model(3, n, 8)).split('id="means"')[0] for n in (10, 300)]
    assert len(cards[1]) < 1.2 * len(cards[0])
