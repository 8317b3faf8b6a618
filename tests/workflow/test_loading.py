"""Weights are hashed once a command and mapped; finite they are once and for all; damage is still found."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from guda_cli.diffusion import networks
from guda_cli.diffusion.weight_file import PackedWeights, mapped
from guda_cli.session import Options, Session
from guda_cli.store import ActionRecord
from guda_cli.workflow.models.jobs import LazyJobs
from guda_cli.workflow.models.loaded import Models
from guda_cli.workflow.project.compute import setup
from guda_cli.workflow.project.project import FINITE, Project
from tests.store.inside import blob_file
from tests.workflow.fixtures import GROUPS, Cli, flip, hashed, here, record

__all__ = ["hashed"]


def loaded() -> tuple[Project, Models]:
    session = Session(Options(store=Path(".guda"), device="cpu", quiet=True))
    project = Project(session.recipe(), session.open_store(), session.console)
    return project, LazyJobs(project, lambda: setup("cpu")).models(project.require_full())


def rewrite(found: ActionRecord, outputs: dict[str, str], finite: bool) -> None:
    """The record as another run, or an earlier version, would have left it."""
    facts = {name: value for name, value in found.provenance.items() if name != FINITE}
    facts |= {FINITE: ["weights"]} if finite else {}
    store = here()
    store.forget(found.key)
    own = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    del own["key"], own["created"]
    store.publish(found.key, **{**own, "outputs": outputs, "provenance": facts})


def checks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often weights are looked at for being finite, by what they are."""
    done: Counter[str] = Counter()
    real = networks.check_finite

    def counting(weights: Any, what: str) -> None:
        done[what] += 1
        real(weights, what)

    monkeypatch.setattr(networks, "check_finite", counting)
    return done


def models_of_store() -> dict[str, str]:
    """What each model is, by the digest of its weights."""
    found = [r for operation in ("train", "unlearn") for r in here().records(operation)]
    return {r.outputs["weights"]: str(r.provenance["what"]) for r in found}


def test_a_score_hashes_the_weights_of_each_model_once(cli: Cli, project: Path, hashed: Counter[str]) -> None:
    models = models_of_store()
    cli("sample", "-n", "1", "--seed", "9", "--out", "fresh")
    hashed.clear()
    cli("score", "fresh")
    used = {digest for digest in models if hashed[digest]}
    assert len(used) == 1 + len(GROUPS)  # not those of the null
    for digest in used:
        assert hashed[digest] == blob_file(here(), digest).stat().st_size, models[digest]


def test_unlearning_hashes_what_it_stores_once_and_its_start_once(
    cli: Cli, project: Path, hashed: Counter[str]
) -> None:
    full = record("train").outputs["weights"]
    cli("unlearn", "--group", "blue", "--steps", "2")
    made = record("unlearn", "blue").outputs["weights"]
    assert hashed[full] == blob_file(here(), full).stat().st_size
    # once as it is written; once more where a check of the model that is there reads it
    assert hashed[made] <= 2 * blob_file(here(), made).stat().st_size
    assert not models_of_store().keys().isdisjoint({made})


def test_the_network_lies_in_the_mapped_file(project: Path) -> None:
    _, models = loaded()
    path = blob_file(here(), models.stored.weights).resolve()
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]
    spans = [tuple(int(end, 16) for end in span[0].split("-")) for span in maps]
    assert spans
    for parameter in models.use(models.full).network.parameters():
        assert any(low <= parameter.data_ptr() < high for low, high in spans)


def test_swapped_weights_are_right_and_the_file_stays_as_it_is(cli: Cli, project: Path) -> None:
    cli("unlearn", "--group", "blue", "--params", "lora:2", "--steps", "2")
    project_, models = loaded()
    before = blob_file(here(), models.stored.weights).read_bytes()
    kept = networks.from_bytes(project_.read(record("unlearn", "blue"), "weights"))
    base = networks.from_bytes(before)
    for other in (record("unlearn", "blue"), record("unlearn", "amber"), models.full):
        wanted = dict(base)
        stored = networks.from_bytes(project_.read(other, "weights"))
        for name, value in stored.items():
            if ".lora_A" in name:
                module = name.removesuffix(".lora_A.weight")
                high = stored[f"{module}.lora_B.weight"]
                product = (high.flatten(1) @ value.flatten(1)).view(high.shape[0], *value.shape[1:])
                wanted[f"{module}.weight"] = base[f"{module}.weight"] + product
            elif ".lora_B" not in name:
                wanted[name] = value
        found = models.use(other).network.state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted), other.key
    assert any(".lora_A" in name for name in kept)
    assert blob_file(here(), models.stored.weights).read_bytes() == before


@pytest.mark.parametrize("which", ["train", "unlearn"])
def test_a_flipped_bit_is_found_before_a_number_is_shown(cli: Cli, project: Path, which: str) -> None:
    cli("sample", "-n", "1", "--seed", "9", "--out", "fresh")
    [undamaged] = cli("score", "fresh", "--json").documents
    for table in Path(".guda/tables").iterdir():
        for path in table.iterdir():
            path.unlink()
    flip(here(), record(which, "blue" if which == "unlearn" else None).outputs["weights"])
    done = cli("score", "fresh", "--json")  # it is made again
    assert "quarantined" in done.stderr
    assert done.document["scores"] == undamaged["scores"]


def test_records_say_that_weights_are_finite(project: Path) -> None:
    for operation in ("train", "unlearn"):
        assert record(operation).provenance[FINITE] == ["weights"]


def test_new_models_are_not_looked_at_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = checks(monkeypatch)
    _, models = loaded()
    models.use(record("unlearn", "blue"))
    assert not done


def test_weights_of_an_earlier_version_are_looked_at_once_a_store(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for found in (record("train"), record("unlearn", "blue")):
        rewrite(found, found.outputs, finite=False)
    done = checks(monkeypatch)
    for _ in range(2):
        _, models = loaded()
        models.use(record("unlearn", "blue"))
    assert done == {"the full model": 1, str(record("unlearn", "blue").provenance["what"]): 1}
    assert here().verify().clean


def test_weights_of_an_earlier_version_that_are_not_finite_are_refused(cli: Cli, project: Path) -> None:
    found = record("train")
    weights = dict(here().opened(found.outputs["weights"], mapped))
    name = sorted(weights)[0]
    weights[name] = torch.full_like(weights[name], float("nan"))
    bad = here().put_bytes(networks.to_bytes(weights))
    rewrite(found, {**found.outputs, "weights": bad}, finite=False)
    for _ in range(2):
        done = cli("sample", "-n", "1", "--seed", "5", "--out", "fresh", code=3)
        assert "the full model has NaN or infinite weights" in done.stderr
        assert name in done.stderr
    assert not Path("fresh").exists()


def test_what_was_kept_is_the_files_bytes() -> None:
    """Of what is stored at once by `to_bytes` and piece by piece the digests are the same."""
    weights = {"b": torch.randn(3, 4), "a": torch.arange(5)}
    assert bytes(PackedWeights(weights, "it")) == networks.to_bytes(weights)
