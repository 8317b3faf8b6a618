"""Settings, costs and what each operator needs, before anything runs."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from guda_cli import plugins
from guda_cli.errors import RecipeError
from guda_cli.sections import ModelSpec, UnlearnSpec, subset_of, to_dict
from guda_cli.training import loop
from guda_cli.unlearning import catalog
from guda_cli.unlearning.unlearn import unlearn
from tests.diffusion.tiny import bytes_images, make_denoiser, make_schedule
from tests.unlearning.helpers import ANCHORS, COUNT, OPERATORS, mask, problem, traits

DOCS = Path(__file__).parents[2] / "docs"
PLAIN = to_dict(ModelSpec())
ATTENTION = {**PLAIN, "add_attention": True}


def spec(**changes: Any) -> UnlearnSpec:
    return dataclasses.replace(UnlearnSpec(), **changes)


@pytest.mark.parametrize("row", catalog.ROWS, ids=lambda row: row.name)
def test_a_row_is_complete(row: catalog.OperatorRow) -> None:
    """Nothing of an operator lies elsewhere but its class and what it reads of the recipe."""
    assert catalog.row(row.name) is row
    made = plugins.load(catalog.GROUP, row.name, row.where, object)
    taken = inspect.signature(made).parameters
    assert list(taken)[:1] == ["problem"]
    assert {"full", "parameters"} <= taken.keys()
    assert callable(made.loss)
    assert callable(made.shown)
    fields = {f.name for f in dataclasses.fields(UnlearnSpec)}
    assert set(row.reads) <= fields
    assert {"steps", "lr"} <= row.tried.keys() <= fields
    assert all(row.tried.values())
    assert row.needs.keys() <= {"full", "prompts", "styles", "null", "batch"}
    assert all(row.needs.values())
    assert f"| `{row.name}` | {row.summary} |\n" in (DOCS / "methods.md").read_text("utf-8")


@pytest.mark.parametrize("name", [name for name in OPERATORS if name not in ANCHORS])
def test_every_operator_runs_as_it_is(name: str) -> None:
    """Two steps with the operator's own settings; twice, the same bits."""
    schedule = make_schedule("linear", 60)
    full = make_denoiser(schedule, num_class_embeds=4)
    p = problem(name, schedule, t_min=None)
    p = dataclasses.replace(
        p, images=bytes_images(COUNT, (1, 8, 8)), forget=mask(1, 4, 7, 10), cond=torch.arange(COUNT) % 3,
        null=torch.tensor(3), dropout=0.2,
    )  # fmt: skip
    catalog.check(p.spec, traits({**PLAIN, "num_class_embeds": 4}, conditional=True))
    told: list[float] = []
    one, two = (
        unlearn(
            make_denoiser(schedule, num_class_embeds=4), p, teacher=full,
            hooks=loop.Hooks(on_step=told.append),
        )
        for _ in range(2)
    )  # fmt: skip
    assert len(told) == 4
    assert all(torch.equal(one[key], two[key]) for key in one)
    start = full.network.state_dict()
    assert any(not torch.equal(one[key], start[key]) for key in one)


@pytest.mark.parametrize(
    ("operator", "weight", "t_min"),
    [
        ("retrack", 0.3, 0.2),
        ("esd", 1.0, 0.0),
        ("siss", 1.0, 0.0),
        ("neggrad", 0.1, 0.0),
        *((name, 1.0, 0.0) for name in ANCHORS),
    ],
)
def test_null_is_the_operators_own(operator: str, weight: float, t_min: float) -> None:
    found = catalog.settings(spec(operator=operator))
    assert (found["forget_weight"], found["t_min"]) == (weight, t_min)
    assert catalog.settings(spec(operator=operator, forget_weight=weight, t_min=t_min)) == found
    assert catalog.settings(spec(operator=operator, forget_weight=0.7))["forget_weight"] == 0.7


@pytest.mark.parametrize(
    ("change", "readers"),
    [
        ({"guard": True}, set(OPERATORS) - {"finetune"}),
        ({"t_max": 0.9}, set(OPERATORS) - {"finetune"}),
        ({"density_ratio": True}, {"retrack"}),
        ({"params": "attn"}, set(OPERATORS)),
        ({"guard_temperature": 2.0}, set()),
        ({"guidance": 3.0}, {"esd"}),
        ({"erase_rate": 0.1}, {"erasediff"}),
        ({"mixture": 0.1}, {"siss"}),
        ({"superfactor": 0.3}, {"siss"}),
        ({"beta": 1.0}, {"anchor:awss", "anchor:matched"}),
        ({"eta": 0.5}, {"anchor:awss", "anchor:matched"}),
        ({"anchor_encoder": "clip"}, {"anchor:awss", "anchor:matched"}),
        ({"anchor_descriptors": 2}, {"anchor:awss", "anchor:uniform", "anchor:matched"}),
    ],
)
def test_only_settings_that_are_read_are_in_the_key(change: dict[str, Any], readers: set[str]) -> None:
    for name in OPERATORS:
        base, changed = (catalog.settings(spec(operator=name, **c)) for c in ({}, change))
        assert (base != changed) == (name in readers), name


def test_later_settings_leave_older_keys_alone() -> None:
    assert set(catalog.settings(spec())) == {
        "operator", "steps", "batch_size", "lr", "retain", "seed", "forget_weight", "neighbours", "cap",
        "t_min",
    }  # fmt: skip
    assert "guard_temperature" in catalog.settings(spec(guard=True))


@pytest.mark.parametrize(
    ("operator", "retain", "guard", "expected"),
    [
        ("retrack", "denoise", False, 3 * 80),
        ("neggrad", "denoise", False, 3 * 80),
        ("retrack", "distill", False, 4 * 80),
        ("siss", "denoise", False, 5 * 80),
        ("erasediff", "distill", False, 6 * 80),
        ("esd", "denoise", False, 3 * 80 + 2 * 80 * 0.25),  # the full model twice on the group's quarter
        ("anchor:awss", "denoise", False, 3 * 80 + 80 * 0.25),  # once
        ("retrack", "denoise", True, 3 * 80 + 3 * (2 * 10 + 30)),  # 2 draws an image, one for each that stays
    ],
)
def test_cost(operator: str, retain: str, guard: bool, expected: float) -> None:
    settings = spec(operator=operator, retain=retain, guard=guard, steps=10, batch_size=8)
    assert catalog.forwards(settings, 10, 40) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "unet", "conditional", "said"),
    [
        ({"operator": "esd"}, PLAIN, False, "model.class_conditional: true"),
        ({"operator": "esd"}, {**PLAIN, "null_class": False}, True, "class_dropout"),
        ({"operator": "finetune", "guard": True}, PLAIN, False, "retrack --guard"),
        ({"params": "attn"}, PLAIN, False, "AttnDownBlock2D"),
        ({"params": "cross-attn-kv"}, ATTENTION, False, "attn"),
        ({"t_max": 0.1}, PLAIN, False, "t_min=0"),
        *(({"operator": name}, PLAIN, True, "model.text_conditional: true") for name in ANCHORS),
    ],
)
def test_what_cannot_be_says_what_would_make_it_possible(
    changes: dict[str, Any], unet: dict[str, Any], conditional: bool, said: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        catalog.check(spec(**changes), traits(unet, conditional=conditional))
    assert said in f"{caught.value.why} {caught.value.fix}"
    assert caught.value.fix.startswith(("--", "guda unlearn "))


def test_what_can_be_is_not_refused() -> None:
    catalog.check(spec(operator="esd"), traits(PLAIN, conditional=True))
    catalog.check(spec(params="attn"), traits(ATTENTION))
    catalog.check(spec(params="attn"), traits({**PLAIN, "down_block_types": ["AttnDownBlock2D"]}))
    catalog.check(spec(params="lora:3", guard=True, t_max=0.8), traits(PLAIN))
    with pytest.raises(RecipeError, match="did you mean 'neggrad'"):
        catalog.check(spec(operator="negrad"), traits(PLAIN))


@pytest.mark.parametrize("operator", ["esd", "retrack", *ANCHORS])
@pytest.mark.parametrize("params", ["full", "attn", "cross-attn-kv", "lora:4"])
def test_text_models_take_every_subset(operator: str, params: str) -> None:
    """Also while there is no model yet and its configuration is the recipe's."""
    styles = {"ink": ("rough edges",), "oil": ("visible brush",)}
    model = traits(PLAIN, text=True)
    catalog.check(spec(operator=operator, params=params), model, styles=styles, removed=["oil"])


def test_esd_needs_a_text_model_that_knows_the_empty_prompt() -> None:
    with pytest.raises(RecipeError, match="esd") as caught:
        catalog.check(spec(operator="esd"), traits({**PLAIN, "null_class": False}, text=True))
    assert "train.prompt_dropout" in caught.value.why


@pytest.mark.parametrize("text", ["lora", "lora:0", "lora:x", "lora:-1", "all", "attn:2", "", "lora:2:3"])
def test_bad_subsets_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="params"):
        subset_of(text)


def test_subsets() -> None:
    assert subset_of("lora:16") == ("lora", 16)
    assert subset_of("full") == ("full", 0)


@pytest.mark.parametrize("operator", OPERATORS)
def test_prototypes_of_unit_length_are_in_the_keys_of_those_that_have_any(operator: str) -> None:
    """What an earlier version unlearned by them is not this; other operators' keys are as they were."""
    found = catalog.settings(spec(operator=operator))
    assert ("unit_prototypes" in found) == ("beta" in catalog.row(operator).reads)
