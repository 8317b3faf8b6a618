"""What the settings of scale mean in a recipe: keys that they move, and what is refused before any work."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from guda_cli.errors import RecipeError
from guda_cli.sections import Recipe
from guda_cli.workflow.keys import steps
from tests.golden.test_action_keys import DATA, FULL, ONE, RECIPE, with_

SETTINGS: list[dict[str, Any]] = [
    {"gradient_accumulation": 2},
    {"gradient_checkpointing": True},
    {"mixed_precision": "bf16"},
]


@pytest.mark.parametrize("change", SETTINGS)
def test_settings_of_scale_move_trainings_and_unlearnings(change: dict[str, Any]) -> None:
    other = with_("train", **change)
    assert steps.train(other, DATA, None).key != steps.train(RECIPE, DATA, None).key
    action = steps.unlearn(other, DATA, FULL, ONE)
    assert action.key != steps.unlearn(RECIPE, DATA, FULL, ONE).key
    [(name, value)] = change.items()
    assert action.params[name] == value


def test_what_training_trains_does_not_move_an_unlearning() -> None:
    """Beyond the full model's weights, which are an input."""
    other = with_("train", params="attn")
    assert steps.unlearn(other, DATA, FULL, ONE).key == steps.unlearn(RECIPE, DATA, FULL, ONE).key
    assert steps.train(other, DATA, None).key != steps.train(RECIPE, DATA, None).key


def test_some_parameters_are_trained_only_of_a_given_model() -> None:
    recipe = dataclasses.replace(Recipe(), train=dataclasses.replace(Recipe().train, params="lora:2"))
    with pytest.raises(RecipeError, match="start from"):
        steps.check_params(recipe)
    model = dataclasses.replace(recipe.model, text_conditional=True, base="a" * 64)
    steps.check_params(dataclasses.replace(recipe, model=model))
    steps.check_params(Recipe())
