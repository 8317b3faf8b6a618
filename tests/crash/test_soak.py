"""The soak test itself: a few rounds find nothing, and it would find what goes wrong."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from guda_cli.store import Store
from tests.scripts import load

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks and kills")


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    return load("soak")


def test_a_few_rounds_find_nothing(
    soak: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    args = ["--minutes", "0.05", "--seed", "3", "--only", "kill,together", "--keep", str(tmp_path / "kept")]
    assert soak.main(args) == 0
    said = capfd.readouterr().out
    assert "seed 3" in said
    assert "kills" in said
    assert "collections" in said
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.parametrize("loss", ["record", "blob", "table"])
def test_a_loss_is_found(soak: ModuleType, tmp_path: Path, loss: str) -> None:
    root, journal, writer = tmp_path / "store", tmp_path / "journal", soak.writer
    assert writer.work(root, "0", journal, collect=False) == 0
    campaign = soak.Campaign("kill")
    soak.look_at(campaign, root, journal, "0")
    assert campaign.faults == []
    [number, *_] = [line.split()[1] for line in writer.finished(journal) if line.startswith("action")]
    key = writer.key_of(int(number))
    if loss == "record":
        (root / "actions" / f"{key}.json").unlink()
    elif loss == "blob":
        digest = Store.open(root).lookup(key).outputs["model"]
        (root / "blobs" / "sha256" / digest[:2] / digest).unlink()
    else:
        shutil.rmtree(root / "tables")
    soak.look_at(campaign, root, journal, "0")
    assert campaign.faults


def test_every_damage_changes_a_file(soak: ModuleType, tmp_path: Path) -> None:
    kinds = set()
    for seed in range(60):
        path = tmp_path / "file"
        path.write_bytes(bytes(range(200)))
        kinds.add(soak.writer.damaged(path, random.Random(seed)))
        assert not path.exists() or path.read_bytes() != bytes(range(200))
    assert kinds == {"flipped bit", "cut", "hole", "tail", "removal"}
