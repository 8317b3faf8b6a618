"""Keys of actions for a fixed recipe: they decide what a store still holds after an upgrade.

When one moves, every store's results of that operation are made anew. If that is meant:

    GUDA_REGENERATE_GOLDEN=1 python -m pytest tests/golden
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from guda_cli import sections
from guda_cli.diffusion import grid
from guda_cli.settings import reading as recipes
from guda_cli.store import ActionRecord
from guda_cli.workflow.keys import operations, steps
from guda_cli.workflow.keys.operations import Action, DataRef
from guda_cli.workflow.keys.removal import Removal

FILE = Path(__file__).with_name("action_keys.json")
REGENERATE = os.environ.get("GUDA_REGENERATE_GOLDEN", "") not in ("", "0")
# Every setting that a key covers is written out: a new default is not a new operation.
RECIPE = recipes.from_dict(
    {
        "name": "fixed",
        "data": {"source": "digits", "size": 8, "channels": 1},
        "model": {
            "block_out_channels": [8, 16],
            "layers_per_block": 1,
            "down_block_types": ["DownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "UpBlock2D"],
            "norm_num_groups": 4,
            "attention_head_dim": 8,
            "add_attention": False,
            "dropout": 0.1,
        },
        "diffusion": {
            "num_train_timesteps": 100,
            "beta_schedule": "linear",
            "beta_start": 0.001,
            "beta_end": 0.03,
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": False,
        },
        "train": {
            "epochs": 2.0,
            "batch_size": 16,
            "lr": 0.002,
            "lr_schedule": "cosine",
            "warmup_steps": 5,
            "weight_decay": 0.01,
            "grad_clip": 1.0,
            "ema_decay": 0.9,
            "flip": False,
            "seed": 3,
        },
        "unlearn": {
            "operator": "retrack",
            "steps": 7,
            "batch_size": 16,
            "lr": 0.0003,
            "retain": "denoise",
            "forget_weight": 0.7,
            "neighbours": 4,
            "cap": 1.5,
            "t_min": 0.25,
            "null_groups": 4,
            "seed": 4,
            "params": "full",
            "t_max": 1.0,
            "guard": False,
            "guard_temperature": 1.0,
            "density_ratio": False,
            "guidance": 1.5,
            "erase_rate": 0.6,
            "mixture": 0.4,
            "superfactor": 0.2,
        },
        "score": {"timesteps": 9, "draws": 3, "seed": 5},
    }
)
DATA = DataRef("d" * 64, "0" * 64, {"one": 20, "two": 30}, 50, (1, 8, 8))
COMPUTE = {"device": "cpu", "threads": 2, "dtype": "float32"}
ONE, NULL = Removal(("one",)), Removal(size=24, index=1)


def record_of(action: Action, digit: str) -> ActionRecord:
    """The record that running `action` might leave."""
    outputs = {name: digit * 63 + str(i) for i, name in enumerate(("weights", "config", "betas"))}
    return ActionRecord(
        action.key,
        action.operation,
        action.version,
        dict(action.params),
        dict(action.inputs),
        outputs,
        {},
        "",
    )


FULL = record_of(steps.train(RECIPE, DATA, None), "a")
REGISTERED = ActionRecord("b" * 64, "register", 1, {}, {}, FULL.outputs, {}, "")


def table(record: ActionRecord, kind: str = "strata") -> str:
    score = RECIPE.score
    spec = grid.spec(kind, score.timesteps, score.draws, score.seed)
    return steps.elbo_table(record, spec, score.seed, COMPUTE)[0]


def with_(section: str, **changes: Any) -> sections.Recipe:
    values = sections.to_dict(RECIPE)
    return recipes.from_dict({**values, section: {**values[section], **changes}})


def keys() -> dict[str, str]:
    finetune = with_("unlearn", operator="finetune")
    unlearned = steps.unlearn(RECIPE, DATA, FULL, ONE)
    others = {
        f"unlearn one by {name}": steps.unlearn(with_("unlearn", operator=name), DATA, FULL, ONE).key
        for name in ("esd", "erasediff", "siss", "neggrad")
    }
    changes = {"params": "lora:2", "guard": True, "density_ratio": True, "t_max": 0.9}
    later = {
        f"unlearn one, {name}": steps.unlearn(with_("unlearn", **{name: v}), DATA, FULL, ONE).key
        for name, v in changes.items()
    }
    return (
        others
        | later
        | {
            "train": steps.train(RECIPE, DATA, None).key,
            "train without one": steps.train(RECIPE, DATA, ONE).key,
            "train without one, registered": steps.train(RECIPE, DATA, ONE, REGISTERED).key,
            "train without a random set": steps.train(RECIPE, DATA, NULL).key,
            "unlearn one": unlearned.key,
            "unlearn one by finetune": steps.unlearn(finetune, DATA, FULL, ONE).key,
            "unlearn a random set": steps.unlearn(RECIPE, DATA, FULL, NULL).key,
            "table of the full model": table(FULL),
            "table by stride": table(FULL, "stride:10"),
            "table of an unlearned model": table(record_of(unlearned, "c")),
        }
    )


@pytest.mark.parametrize("name", sorted(keys()))
def test_keys_have_not_moved(name: str) -> None:
    known: dict[str, str] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    found = keys()
    if REGENERATE:
        FILE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return
    assert found.keys() == known.keys()
    assert found[name] == known[name], "the key moved: all stored results of this kind will be made anew"


def test_all_keys_differ() -> None:
    assert len(set(keys().values())) == len(keys())


def test_names_and_scoring_do_not_move_a_training() -> None:
    for other in (with_("score", draws=9), with_("unlearn", steps=1), with_("sample", steps=3)):
        assert steps.train(other, DATA, None).key == FULL.key
    renamed = recipes.from_dict({**sections.to_dict(RECIPE), "name": "other", "description": "of it"})
    assert steps.train(renamed, DATA, None).key == FULL.key


def test_steps_given_or_reckoned_are_the_same_training() -> None:
    """2 epochs of 50 images in batches of 16 are 7 steps."""
    assert steps.train(with_("train", steps=7), DATA, None).key == FULL.key
    assert steps.train(with_("train", steps=8), DATA, None).key != FULL.key


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("train", {"lr": 0.001}), ("train", {"seed": 9}), ("train", {"batch_size": 15}),
        ("train", {"flip": True}), ("train", {"ema_decay": 0.5}), ("model", {"dropout": 0.0}),
        ("diffusion", {"beta_schedule": "sigmoid"}), ("diffusion", {"prediction_type": "sample"}),
    ],
)  # fmt: skip
def test_what_changes_numbers_moves_a_training(section: str, change: dict[str, Any]) -> None:
    assert steps.train(with_(section, **change), DATA, None).key != FULL.key


@pytest.mark.parametrize(
    "change",
    [{"steps": 8}, {"batch_size": 4}, {"lr": 0.1}, {"retain": "distill"}, {"seed": 1}, {"neighbours": 5},
     {"cap": None}, {"t_min": 0.0}, {"forget_weight": 0.5}, {"operator": "finetune"}],
)  # fmt: skip
def test_what_changes_numbers_moves_an_unlearning(change: dict[str, Any]) -> None:
    base = steps.unlearn(RECIPE, DATA, FULL, ONE).key
    assert steps.unlearn(with_("unlearn", **change), DATA, FULL, ONE).key != base


def test_images_unlearned_in_both_orientations_are_another_unlearning() -> None:
    """Earlier versions unlearned images as stored: with flips that is something else."""
    flipped = with_("train", flip=True)
    full = record_of(steps.train(flipped, DATA, None), "a")
    found = steps.unlearn(flipped, DATA, full, ONE)
    assert found.params["unlearn"]["flip"] is True
    earlier = dataclasses.replace(found, params={**found.params, "unlearn": without_flip(found)})
    assert earlier.key == steps.unlearn(RECIPE, DATA, full, ONE).key != found.key


def without_flip(action: Action) -> dict[str, Any]:
    return {name: value for name, value in action.params["unlearn"].items() if name != "flip"}


def test_settings_of_other_operators_move_nothing() -> None:
    one, two = (with_("unlearn", operator="finetune", neighbours=n, null_groups=n) for n in (3, 5))
    assert steps.unlearn(one, DATA, FULL, ONE).key == steps.unlearn(two, DATA, FULL, ONE).key


def test_a_higher_version_moves_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys()
    raised = {"train": operations.VERSIONS["train"] + 1, "elbo-table": operations.VERSIONS["elbo-table"] + 1}
    monkeypatch.setattr(operations, "VERSIONS", {**operations.VERSIONS, **raised})
    after = keys()
    for name in before:
        assert (before[name] == after[name]) == name.startswith("unlearn"), name


def test_compute_and_grid_move_a_table() -> None:
    spec = grid.spec("strata", 9, 3, 5)
    base = steps.elbo_table(FULL, spec, 5, COMPUTE)[0]
    for changed in (
        steps.elbo_table(FULL, spec, 6, COMPUTE),
        steps.elbo_table(FULL, spec, 5, {**COMPUTE, "threads": 4}),
        steps.elbo_table(FULL, {**spec, "draws": 2}, 5, COMPUTE),
        steps.elbo_table(FULL, {**spec, "seed": 6}, 5, COMPUTE),
    ):
        assert changed[0] != base
