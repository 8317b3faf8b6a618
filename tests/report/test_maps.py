from __future__ import annotations

import numpy as np
import pytest

from guda_cli.report.answers import maps


@pytest.mark.parametrize("level", [0, 128, 255])
def test_colours_tell_the_sign(level: int) -> None:
    pixels = np.full((1, 1, 3), level, np.uint8)
    image = maps.overlay(pixels, np.array([[-2.0, 0.0, 2.0]]), limit=1.0, scale=2)
    assert image.size == (6, 2)
    blue, neutral, red = np.asarray(image).astype(int)[0, [0, 2, 4]]
    assert blue[2] > blue[0] + 100
    assert red[0] > red[2] + 100
    assert neutral[0] == neutral[1] == neutral[2]


def test_strength_grows_up_to_the_limit() -> None:
    pixels = np.full((3, 1, 4), 100, np.uint8)
    image = np.asarray(maps.overlay(pixels, np.array([[0.1, 0.5, 1.0, 9.0]]), limit=1.0, scale=1)).astype(int)
    excess = image[0, :, 0] - image[0, :, 2]
    assert excess[0] < excess[1] < excess[2] == excess[3]


def test_pixels_that_are_not_finite_show_the_image() -> None:
    pixels = np.full((1, 1, 1), 9, np.uint8)
    image = np.asarray(maps.overlay(pixels, np.array([[np.nan]]), limit=1.0, scale=1))
    assert len(set(image[0, 0].tolist())) == 1


def test_map_of_another_size_is_stretched() -> None:
    pixels = np.zeros((3, 4, 4), np.uint8)
    image = np.asarray(maps.overlay(pixels, np.array([[1.0, -1.0]]), limit=1.0, scale=1)).astype(int)
    assert (image[:, :2, 0] > image[:, :2, 2]).all()
    assert (image[:, 2:, 0] < image[:, 2:, 2]).all()


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="limit"):
        maps.overlay(np.zeros((1, 2, 2), np.uint8), np.zeros((2, 2)), limit=0.0, scale=1)
    with pytest.raises(ValueError, match="channels"):
        maps.overlay(np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2)), limit=1.0, scale=1)


def test_shared_limit() -> None:
    assert maps.shared_limit([np.zeros((2, 2))]) == 1.0
    assert maps.shared_limit([]) == 1.0
    assert maps.shared_limit([np.full((2, 2), -3.0), np.full((2, 2), np.nan)]) == 3.0


@pytest.mark.parametrize(("side", "channels", "count"), [(8, 1, 3), (32, 3, 10), (512, 3, 2)])
def test_panel_holds_every_tile(side: int, channels: int, count: int) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (channels, side, side), dtype=np.uint8)
    pairs = [(f"group {i} with a rather long name", rng.normal(size=(side, side))) for i in range(count)]
    image = maps.panel(pixels, pairs, "A caption with “odd” characters \u2212 日本")
    tile = side * max(1, round(208 / side))
    columns = image.width // (tile + maps.GAP)
    assert columns * -(-(count + 1) // columns) >= count + 1
    assert image.width <= max(1400, 2 * (tile + maps.GAP) + maps.GAP)
    assert image.height > -(-(count + 1) // columns) * tile


def test_panel_shows_the_query_itself() -> None:
    pixels = np.zeros((3, 2, 2), np.uint8)
    pixels[1] = 200
    image = maps.panel(pixels, [("g", np.ones((2, 2)))], "", scale=100)
    found = np.asarray(image).reshape(-1, 3)
    assert (found == (0, 200, 0)).all(axis=1).sum() == 200 * 200
