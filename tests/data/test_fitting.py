"""What is said of images whose shape is not the model's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guda_cli.data.fitting import CUT, SMALL, notes
from tests.workflow.fixtures import Cli, cli, one_thread, project, save, template

__all__ = ["cli", "one_thread", "project", "template"]


@pytest.mark.parametrize(
    ("shape", "cut", "small"),
    [
        ((8, 8), False, False), ((400, 300), False, False), ((16, 8), False, False), ((17, 8), True, False),
        ((8, 17), True, False), ((2000, 10), True, False), ((1, 1), False, True), ((40, 4), True, True),
    ],
)  # fmt: skip
def test_by_width_and_height(tmp_path: Path, shape: tuple[int, int], cut: bool, small: bool) -> None:
    path = str(save(tmp_path / "x.png", np.zeros(shape)))
    found = notes([path, str(tmp_path / "none.png")], 8)
    assert (CUT in found, f"{SMALL} 8 x 8" in found) == (cut, small)
    assert all(names == [path] for names in found.values())


def test_files_that_are_no_images_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    (tmp_path / "y.png").mkdir()
    assert notes([str(tmp_path / "x.png"), str(tmp_path / "y.png")], 8) == {}


def test_a_turned_photo_counts_alike(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 8)).save(tmp_path / "x.jpg", exif=exif)
    assert CUT in notes([str(tmp_path / "x.jpg")], 8)


def test_it_is_said_once_of_every_image_whatever_the_methods(cli: Cli, project: Path) -> None:
    save(Path("long.png"), np.full((8, 90), 9))
    save(Path("tiny.png"), np.full((1, 1), 9))
    done = cli("score", "q/00000.png", "long.png", "tiny.png", "--method", "guda,similarity")
    assert done.stderr.count(f"warning: long.png: {CUT}\n") == 1
    assert done.stderr.count(f"warning: tiny.png: {SMALL} 8 x 8\n") == 1
    assert "00000.png:" not in done.stderr
