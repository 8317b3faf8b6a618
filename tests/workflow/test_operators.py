"""Operators, guard and parameter subsets through the command: refused in time, stored small, scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from tests.workflow.fixtures import Cli, here, record, tree


@pytest.mark.parametrize(
    ("options", "said"),  # 3: the model cannot; 2: what was typed is nothing
    [
        (("--operator", "esd"), "class-conditional"),
        (("--operator", "negrad"), "did you mean 'neggrad'"),
        (("--params", "attn"), "attention"),
        (("--params", "cross-attn-kv"), "cross-attention"),
        (("--params", "lora:0"), "lora:R"),
        (("--operator", "finetune", "--guard"), "guard"),
        (("--steps", "0"), "unlearn.steps"),
        (("--lr", "0"), "unlearn.lr"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    project: Path, cli: Cli, options: tuple[str, ...], said: str
) -> None:
    before = tree(project / ".guda")
    for more in ((), ("--dry-run",)):
        typed = said in ("did you mean 'neggrad'", "lora:R", "unlearn.steps", "unlearn.lr")
        assert said in cli("unlearn", "--all", *options, *more, code=2 if typed else 3).stderr
    assert tree(project / ".guda") == before


def test_options_stand_for_settings(project: Path, cli: Cli) -> None:
    cli(
        "unlearn", "--group", "blue", "--no-null", "--operator", "siss", "--guard", "--steps", 2, "--lr", 1e-4
    )
    made = record("unlearn", "blue").params["unlearn"]
    assert (made["operator"], made["guard"], made["steps"], made["lr"]) == ("siss", True, 2, 1e-4)
    sets = [f"unlearn.{each}" for each in ("operator=siss", "guard=true", "steps=2", "lr=1e-4")]
    again = cli("unlearn", "--group", "blue", "--no-null", "--json", *(x for s in sets for x in ("--set", s)))
    assert again.document["ran"] == 0


def test_a_low_rank_update_is_small_and_scores(project: Path, cli: Cli) -> None:
    found = {}
    for params in ("full", "lora:1"):
        cli("unlearn", "--group", "cyan", "--no-null", "--params", params, "--lr", 5e-3)
        kept = load(here().read_bytes(record("unlearn", "cyan").outputs["weights"]))
        score = cli("score", "q", "--group", "cyan", "--json",
                    "--set", f"unlearn.params={params}", "--set", "unlearn.lr=5e-3")  # fmt: skip
        found[params] = kept, [d["scores"][0]["score"] for d in score.documents]
    full, low = found["full"], found["lora:1"]
    assert all(".lora_" in name for name in low[0])
    assert sum(v.size for v in low[0].values()) < 0.2 * sum(v.size for v in full[0].values())
    assert np.all(np.isfinite(low[1]))
    assert low[1] != full[1]
    assert any(value != 0 for value in low[1])


def test_an_exported_low_rank_model_is_merged(project: Path, cli: Cli) -> None:
    cli("unlearn", "--group", "dune", "--no-null", "--params", "lora:2", "--lr", 5e-3)
    made = record("unlearn", "dune")
    cli("store", "export", made.key, "out")
    whole = load((project / "out/unet/diffusion_pytorch_model.safetensors").read_bytes())
    base = load(here().read_bytes(made.inputs["weights"]))
    kept = load(here().read_bytes(made.outputs["weights"]))
    assert whole.keys() == base.keys()
    low, high = (kept[f"conv_in.lora_{side}.weight"] for side in "AB")
    update = np.einsum("or,rihw->oihw", high[:, :, 0, 0], low)
    np.testing.assert_allclose(whole["conv_in.weight"], base["conv_in.weight"] + update, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(whole["conv_in.bias"], base["conv_in.bias"])


def test_esd_on_a_class_conditional_model(project: Path, cli: Cli) -> None:
    cli("train", "--set", "model.class_conditional=true")
    cli("unlearn", "--group", "blue", "--no-null", "--operator", "esd", "--params", "lora:1")
    made = record("unlearn", "blue").params
    assert made["unlearn"]["guidance"] == 1.0
    assert made["class_dropout"] == 0.1


def test_what_was_trained_with_flips_is_unlearned_with_flips(template: Path, project: Path, cli: Cli) -> None:
    """Training, unlearning and check; without flips the same group is another unlearning."""
    recipe, flipped = template / "tiny.yaml", ("--set", "train.flip=true")
    cli("train", recipe, *flipped)
    cli("unlearn", "--group", "amber", "--no-null", *flipped)
    made = record("unlearn", "amber")
    assert made.params["unlearn"]["flip"] is True
    assert set(made.provenance["check"]) == set(record("unlearn", "blue").provenance["check"])
    assert "flip" not in record("unlearn", "blue").params["unlearn"]
    assert cli("train", recipe, "--json").document["ran"] == 0
    assert cli("unlearn", "--group", "amber", "--no-null", "--json").document["ran"] == 0
