"""What is promised of a GPU (docs/methods.md), and one command of each kind there from end to end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guda_cli.store import Store
from tests.text_to_image.fixtures import RECIPE as STUDIO
from tests.text_to_image.fixtures import paint
from tests.workflow.fixtures import RECIPE as TINY
from tests.workflow.fixtures import draw

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

OF_THE_CPUS, ALONE = 5e-3, 1e-4
"""Relative differences of terms that docs/methods.md allows: to the CPU's, and between batches."""


@pytest.mark.parametrize("what", ["trained", "trained on prompts", "unlearned"])
def test_the_same_run_twice_is_the_same_bits(what: str, on_device: Callable[..., Any]) -> None:
    once, again = on_device(what)
    assert once == again
    assert all(repeatable for _, repeatable in once)
    digests = [digest for digest, _ in once]
    assert len(set(digests)) == len(digests)


def test_terms_are_those_of_the_cpu_within_what_is_allowed(
    on_device: Callable[..., Any], device: str
) -> None:
    found = on_device("terms")
    assert found["of the CPU's"] <= (0.0 if device == "cpu" else OF_THE_CPUS)
    assert found["alone"] <= ALONE


def test_a_training_goes_the_same_way(on_device: Callable[..., Any]) -> None:
    there, here = on_device("losses")
    assert there == pytest.approx(here, rel=0.02)


@pytest.mark.parametrize("recipe", ["tiny", "studio"])
def test_commands_end_to_end(
    recipe: str, guda_there: Callable[..., Any], tmp_path: Path, device: str
) -> None:
    if recipe == "tiny":
        draw(tmp_path / "images")
    else:
        paint(tmp_path / "paintings")
    (tmp_path / f"{recipe}.yaml").write_text(TINY if recipe == "tiny" else STUDIO)

    guda_there("train", f"{recipe}.yaml")
    record = _full(tmp_path)
    assert record.provenance["device"] == device
    guda_there("unlearn", "--all")
    guda_there("sample", "-n", "2", "--out", "q")
    documents = guda_there("score", "q", "--json").stdout.splitlines()
    assert len(documents) >= 1
    assert all(json.loads(line)["schema"] for line in documents)
    guda_there("check", network=False)
    guda_there("report", "--html", "report.html", network=False)
    assert (tmp_path / "report.html").stat().st_size > 10_000
    shutil.rmtree(tmp_path / ".guda")
    guda_there("train", f"{recipe}.yaml")
    assert _full(tmp_path).outputs == record.outputs


def _full(home: Path) -> Any:
    """The record of the full model."""
    [record] = Store.open(home / ".guda", create=False).records("train")
    return record
