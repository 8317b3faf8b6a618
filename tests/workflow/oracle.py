"""The tiny project with an oracle of two seeds and every method's scores, made once; tests get copies."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guda_cli.attribution import methods
from tests.workflow.fixtures import once, run

RIVALS = tuple(row.name for row in methods.METHODS if row.kind != methods.COUNTERFACTUAL)
SEEDS = (2, 3)
PER_GROUP = 3  # training images a group that methods with networks look at
CHEAP = (
    f"attribution.per_group={PER_GROUP}", "attribution.timesteps=2", "attribution.projection=32",
    "attribution.mucs_steps=2",
)  # fmt: skip


def build_oracle(template: Path, home: Path) -> None:
    """The template: the oracle's models, and scores of q/ by every method; its current recipe is cheap."""
    shutil.copytree(template / ".guda", home / ".guda")
    shutil.copytree(template / "q", home / "q")
    before = Path.cwd()
    os.chdir(home)
    try:
        for command in (
            ["train", template / "tiny.yaml", *(word for each in CHEAP for word in ("--set", each))],
            ["train", "--each-group", "--seeds", ",".join(map(str, SEEDS))],
            ["score", "q", "--method", ",".join(["logo", *RIVALS])],
        ):
            assert run(*command) == 0, command
    finally:
        os.chdir(before)


@pytest.fixture
def oracle(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Path:
    """The folder all benches are copied from; not to be changed."""
    return once(tmp_path_factory, "tiny-oracle", functools.partial(build_oracle, template))


@pytest.fixture
def bench(oracle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a copy of the project with its oracle."""
    shutil.copytree(oracle / ".guda", tmp_path / ".guda")
    shutil.copytree(oracle / "q", tmp_path / "q")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def matrix(documents: Sequence[dict[str, Any]], groups: Sequence[str]) -> np.ndarray:
    """Scores [images, groups] of `guda score --json`."""
    rows = [{entry["group"]: entry["score"] for entry in document["scores"]} for document in documents]
    return np.array([[row[group] for group in groups] for row in rows])


def without_torch(*commands: Sequence[object]) -> None:
    """Run commands one after the other in a process of their own, which must not import torch."""
    script = (
        "import sys, json; from guda_cli import app\n"
        "for args in json.loads(sys.argv[1]):\n"
        "    assert app.run(args) == 0, args\n"
        "    heavy = [name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules]\n"
        "    assert not heavy, (args, heavy)\n"
    )
    listing = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", script, listing], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
