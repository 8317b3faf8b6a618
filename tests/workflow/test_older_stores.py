"""A store made by an earlier version: what it holds is used, and nothing is trained again.

`stores/store-0.1.0.tar.gz` was made by guda 0.1.0 with GUDA_THREADS=1:

    guda train digits --set data.per_group=8 --set 'data.groups=[digit-0,digit-1,digit-2]' ...
    guda unlearn --group digit-0 --group digit-1
    guda sample -n 2 --out q && guda score q --json > scores.json

with a network of [4, 8] channels, 50 timesteps, 20 steps of training, 5 of unlearning and no null groups.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from guda_cli.store import Store
from tests.workflow.fixtures import Cli, here

ARCHIVE = Path(__file__).parent / "stores" / "store-0.1.0.tar.gz"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The working directory of that store."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return here()


def made_anew(store: Store) -> set[str]:
    """Keys of what was made; how sure `looks like` is and whether a model learnt was not asked before."""
    asked = ("look-accuracy", "training-check")
    return {record.key for record in store.records() if record.operation not in asked}


def test_everything_is_known_and_scored_alike(cli: Cli, old: Store) -> None:
    before = made_anew(old)
    scored = [json.loads(line) for line in Path("scores.json").read_text().splitlines()]
    found = cli("score", "q", "--grid", "strata:even", "--json")
    assert "every term was in the store, no model was run" in found.stderr
    for one, two in zip(scored, found.documents, strict=True):
        for name in ("group", "score", "se"):  # intervals are Student's now, which are wider
            assert [entry[name] for entry in two["scores"]] == [entry[name] for entry in one["scores"]]
        assert two["models"] == one["models"]
    assert cli("train", "--json").document["ran"] == 0
    status = cli("status", "--json").document["steps"]
    assert {step["what"]: step["status"] for step in status} == {
        "dataset": "cached", "full model": "cached", "unlearn digit-0": "cached",
        "unlearn digit-1": "cached", "unlearn digit-2": "to do",
    }  # fmt: skip
    assert made_anew(old) == before


def test_its_model_is_unlearned_and_scores_other_images(cli: Cli, old: Store) -> None:
    done = cli("unlearn", "--group", "digit-2", "--json")
    assert done.document["ran"] == 1
    cli("sample", "-n", "3", "--out", "more")
    [_, _, third] = cli("score", "more", "--json").documents
    assert {entry["group"] for entry in third["scores"]} == {"digit-0", "digit-1", "digit-2"}
    assert len(list(old.records("train"))) == 1
    assert cli("store", "verify", "--json").document["clean"]


def test_its_models_are_exported(cli: Cli, old: Store) -> None:
    from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline

    [full] = old.records("train")
    [one, _] = old.records("unlearn")
    for record, folder in ((full, "whole"), (one, "without")):
        cli("store", "export", record.key, folder)
        assert DDPMPipeline.from_pretrained(folder).unet.config.sample_size == 8


def test_in_another_environment_the_model_is_found(
    cli: Cli, old: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copied store, and data that lies elsewhere or has other times, as pip makes them: it is read anew.

    Score is the first command there; nothing is trained, and the terms are those that were stored.
    """
    from guda_cli.data.sources import stamp

    before = made_anew(old)
    monkeypatch.setattr(stamp, "digits_file", lambda: ARCHIVE)
    done = cli("score", "q", "--grid", "strata:even", "--json")
    assert "every term was in the store, no model was run" in done.stderr
    scored = [json.loads(line) for line in Path("scores.json").read_text().splitlines()]
    for one, two in zip(scored, done.documents, strict=True):
        for name in ("group", "score", "se"):
            assert [entry[name] for entry in two["scores"]] == [entry[name] for entry in one["scores"]]
    assert made_anew(old) == before
