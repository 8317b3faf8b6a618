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
from guda_cli.workflow.scoring.looks import how_sure, looks_like


def painted(folder: Path, size: int) -> Path:
    """Two groups of ten noisy images each: dark and bright."""
    rng = np.random.default_rng(0)
    for group, level in (("dark", 40), ("bright", 160)):
        (folder / group).mkdir(parents=True)
        for i in range(10):
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


def test_where_it_is_wrong_of_training_images_it_is_not_said(project: Project) -> None:
    assert how_sure(project).value == 1.0
    assert len(list(project.store.records("look-accuracy"))) == 1
    rng = np.random.default_rng(1)
    folder = Path(str(project.recipe.data.path)).parent / "noise"
    for i in range(40):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    noise = Project(
        recipes.from_dict({"name": "n", "data": {"path": str(folder), "size": 8}}),
        project.store,
        project.console,
    )
    assert looks_like(noise, [load_query(str(folder / "a/0.png"), 8, 3)] * 2) == [None, None]
    assert not how_sure(noise).trusted
    record = list(project.store.records("look-accuracy"))[-1]
    assert set(noise.store.read_bytes(record.outputs["accuracy"])) >= set(b'{"chance":0.5,"images":40')


def test_a_small_copy_is_the_mean_of_what_its_pixels_cover() -> None:
    image = np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8)
    expected = image.reshape(1, 1, 4, 2, 4, 2).mean(axis=(3, 5))
    assert np.abs(small(image, 4) - expected).max() <= 0.5
