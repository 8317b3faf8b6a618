"""Numbers that ask for more memory than there is: refused with the estimate, before any work."""

# ruff: noqa: F401, F811
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from guda_cli import memory
from guda_cli.diffusion import cells, grid
from guda_cli.errors import RecipeError, UsageError
from guda_cli.failures import explain
from guda_cli.settings.reading import from_dict
from tests.workflow.fixtures import Cli, cli, one_thread, project, template

MACHINE = 16 << 30


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "total", lambda: MACHINE)


@pytest.mark.parametrize(
    "words",
    [
        "score q --draws 1000000000",
        "score q --draws 1000000000 --dry-run",
        "score q --draws 1000000000 --grid all",
        "score q --draws 1000000000 --grid stride:2",
        "score q --set score.draws=1000000000",
        "score q --method nda --set attribution.draws=1000000000000",
        "sample -n 1000000000 --out more",
        "sample -n 1000000000 --out more --dry-run",
        "sample -n 1000000000 --out more --without blue",
        "run -n 1000000000",
        "run -n 1000000000 --dry-run",
    ],
)
def test_options(words: str, project: Path, cli: Cli) -> None:
    done = cli(*words.split(), code=2)
    assert "1,000,000,000" in done.stderr
    assert "of memory or more, and this machine has 16.0 GB" in done.stderr
    assert "e+" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "unlearn --all --set unlearn.batch_size=1000000000",
        "unlearn --all --params lora:1000000000 --set unlearn.lr=0.001",
    ],
)
def test_recipes(words: str, project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guda_cli.workflow.project.needs._GPU", project / "none")
    assert "this recipe asks for" in cli(*words.split(), code=3).stderr


def test_models_without_number() -> None:
    with pytest.raises(RecipeError, match="at most 10,000, not 1,000,000,000"):
        from_dict({"unlearn": {"null_groups": 10**9}})
    assert from_dict({"unlearn": {"null_groups": 10_000}}).unlearn.null_groups == 10_000


def test_what_fits_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "total", lambda: 1 << 20)
    asked = grid.spec("all", 1, 40, 0)
    assert grid.build(asked, 1000).rows == 40_000
    with pytest.raises(UsageError, match="400 draws at 1,000 timesteps"):
        grid.build(grid.spec("all", 1, 400, 0), 1000)
    assert len(cells.cells(["a"], np.ones((2, 5), dtype=np.int64))) == 10
    with pytest.raises(UsageError, match="90 images at 100 timesteps in 4 draws"):
        cells.cells([str(i) for i in range(90)], np.ones((4, 100), dtype=np.int64))
    monkeypatch.setattr(memory, "total", lambda: None)  # a system that does not say
    memory.check(1 << 80, "these", fix="")


def test_an_allocation_that_failed_is_no_bug() -> None:
    assert explain(RuntimeError("std::bad_alloc")).message == "not enough memory"
