"""A family that predicts a flow with a transformer is one file and one row: every command works with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from guda_cli.families import known
from tests.families.rectified import Rectified
from tests.workflow.fixtures import GROUPS, Cli, cli, draw, here, one_thread

__all__ = ["cli", "one_thread"]
RECIPE = """\
name: rectified
data: {source: folder, path: images, size: 8, channels: 1}
model: {family: rectified, block_out_channels: [16]}
diffusion: {num_train_timesteps: 40}
train: {steps: 300, batch_size: 16, lr: 0.003, warmup_steps: 2, ema_decay: 0.5}
unlearn: {steps: 40, batch_size: 16, lr: 0.003, null_groups: 2, neighbours: 4}
score: {timesteps: 8}
sample: {steps: 8}
attribution: {per_group: 3, timesteps: 2, projection: 32, mucs_steps: 2}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(known.FAMILIES, Rectified.name, Rectified())
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "images", GROUPS)
    (tmp_path / "rectified.yaml").write_text(RECIPE)
    return tmp_path


def test_every_command_works_with_it(cli: Cli, home: Path) -> None:
    assert cli("train", "rectified.yaml", "--json").document["ran"] == 1
    [full] = here().records("train")
    assert set(full.outputs) == {"weights", "config", "levels"}
    assert json.loads(here().read_bytes(full.outputs["config"]))["family"] == "rectified"
    cli("sample", "-n", "4", "--out", "q")
    made = cli("unlearn", "--all", "--json").document
    assert made["ran"] == len(GROUPS) + 2
    checks = [model["check"] for model in made["models"] if not model["null"]]
    assert all(check["group_after"] > check["group_before"] for check in checks), checks
    images = [str(sorted((home / "images" / name).iterdir())[0]) for name in GROUPS]
    documents = cli("score", *images, "--json").documents
    assert [document["scores"][0]["group"] for document in documents] == list(GROUPS)
    [bound] = cli("score", images[0], "--weighting", "elbo", "--grid", "all", "--json").documents
    assert np.isfinite(bound["elbo"]["nats"])
    assert "every term was in the store" in cli("score", *images).stderr
    methods = "guda,similarity,nda,trak,d-trak,das,ekfac,unlearn-query,mucs,random"
    assert len(cli("score", "q", "--method", methods, "--json").documents) == 4 * 10
    cli("train", "--each-group", "--seeds", "2")
    cli("score", "q", "--method", "logo")
    [table] = cli("report", "--against", "logo", "--json").document["tables"]
    assert len(table["rows"]) >= 8
    cli("report", "--html", "report.html")
    cli("store", "export", full.key, "out")
    assert (home / "out" / "model.safetensors").exists()


@pytest.mark.parametrize("params", ["attn", "lora:2"])
def test_parameter_subsets_are_found_in_it(cli: Cli, home: Path, params: str) -> None:
    cli("train", "rectified.yaml", "--set", "train.steps=5")
    made = cli("unlearn", "--group", "amber", "--params", params, "--no-null", "--json").document
    assert made["ran"] == 1
    [record] = here().records("unlearn")
    from safetensors.torch import load

    moved = set(load(here().read_bytes(record.outputs["weights"])))
    assert moved
    assert all("attention." in name or "embed" in name for name in moved)


def test_a_store_of_a_later_version_is_named(cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("train", "rectified.yaml", "--set", "train.steps=5")
    monkeypatch.delitem(known.FAMILIES, Rectified.name)
    assert "unknown family 'rectified'" in cli("score", "images", code=3).stderr
