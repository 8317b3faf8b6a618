"""What a query looks like, of images too large to compare pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guda_cli.console import Console
from guda_cli.data.images import small
from guda_cli.data.queries import Query, load_query
from guda_cli.settings import reading as recipes
from guda_cli.store import Store
from guda_cli.workflow.project.project import Project
from guda_cli.workflow.scoring.looks import looks_like


def painted(folder: Path, size: int) -> Path:
    """Two groups of five noisy images each: dark and bright."""
    rng = np.random.default_rng(0)
    for group, level in (("dark", 40), ("bright", 160)):
        (folder / group).mkdir(parents=True)
        for i in range(5):
            pixels = level + rng.integers(0, 50, (size, size, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / group / f"{i}.png")
    return folder


@pytest.fixture(params=[64, 96])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    values = {"data": {"path": str(painted(tmp_path / "images", request.param)), "size": request.param}}
    return Project(
        recipes.from_dict({"name": "x", **values}), Store.open(tmp_path / "s"), Console(quiet=True)
    )


def query(project: Project, name: str) -> Query:
    size = project.data.shape[1]
    return load_query(f"{project.recipe.data.path}/{name}", size, 3)


def test_the_nearest_group(project: Project) -> None:
    asked = [query(project, name) for name in ("dark/1.png", "bright/4.png")]
    assert looks_like(project, asked) == ["dark", "bright"]


def test_of_large_images_small_copies_are_kept(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [query(project, "bright/0.png")]
    looks_like(project, asked)
    large = project.data.shape[1] > 64
    assert len(list(project.store.records("small-copies"))) == int(large)
    if large:  # the images themselves are not read again
        monkeypatch.setattr(Project, "dataset", None)
        assert looks_like(project, asked) == ["bright"]


def test_a_small_copy_is_the_mean_of_what_its_pixels_cover() -> None:
    image = np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8)
    expected = image.reshape(1, 1, 4, 2, 4, 2).mean(axis=(3, 5))
    assert np.abs(small(image, 4) - expected).max() <= 0.5
