"""Training, unlearning and scoring as keys: all that decides their results. No torch here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from guda_cli.errors import RecipeError
from guda_cli.families.family import CLASS
from guda_cli.families.known import family_of
from guda_cli.plain_text import quoted
from guda_cli.sections import DROPOUT, Recipe, to_dict, total_steps
from guda_cli.store import ActionRecord
from guda_cli.unlearning import catalog
from guda_cli.workflow.keys import text_settings
from guda_cli.workflow.keys.operations import (
    REGISTER,
    TRAIN,
    UNLEARN,
    Action,
    DataRef,
    model_blobs,
    table_spec,
)
from guda_cli.workflow.keys.removal import Removal


def check_one_group(data: DataRef) -> None:
    """RecipeError unless every image is in one group, which a class-conditional model takes for its class."""
    if sum(data.counts.values()) != data.images:  # every image is in one at least
        raise RecipeError(
            "model.class_conditional needs every image in exactly one group, its class",
            why=f"{data.images} images are in {sum(data.counts.values())} groups, counted by image",
            fix="--set model.class_conditional=false",
        )


# Settings that came later: they are left out where they change nothing, so that older keys stay.
_LATER = {
    "params": "full",
    "gradient_accumulation": 1,
    "gradient_checkpointing": False,
    "mixed_precision": "no",
}


def _train_settings(recipe: Recipe) -> dict[str, Any]:
    """The `train` section as it enters a key, less the length and what other conditions need."""
    found = to_dict(recipe.train)
    unread = {"epochs", *DROPOUT.values()} - {DROPOUT.get(family_of(recipe).told(recipe))}
    found = {name: value for name, value in found.items() if name not in unread and name not in _LATER}
    return found | _later(recipe)


def _later(recipe: Recipe) -> dict[str, Any]:
    """The settings of `train` that came later, as far as they are not the default."""
    found = {name: getattr(recipe.train, name) for name in _LATER}
    return {name: value for name, value in found.items() if value != _LATER[name]}


def check_params(recipe: Recipe) -> None:
    """RecipeError where `train.params` cannot be: with no pipeline to start from, or not installed."""
    params = recipe.train.params
    if params != "full" and not recipe.model.base:
        raise RecipeError(
            f"train.params: {params} needs a model to start from",
            why="all weights of a model that is trained from scratch are trained",
            fix="--set train.params=full",
        )
    family = family_of(recipe)
    catalog.check_params(params, family.traits({}, family.told(recipe)), "train.params")


def train(
    recipe: Recipe,
    data: DataRef,
    removal: Removal | None,
    full: ActionRecord | None = None,
    seed: int | None = None,
) -> Action:
    """Training the full model (`removal` None) or a leave-one-group-out model.

    A registered full model lends its configuration to the models trained without a group. `seed` is that
    of an oracle trained apart from the full model (None: the recipe's own). Text-to-image models need all of
    `data.parts`.
    """
    steps = total_steps(recipe.train, data.images)
    settings, family = _train_settings(recipe), family_of(recipe)
    settings["steps"] = steps
    if family.told(recipe) == CLASS:
        check_one_group(data)
    if seed is not None:
        settings["seed"] = seed
    params: dict[str, Any] = {"train": settings, "without": removal.params if removal else None}
    inputs = {"dataset": data.blob}
    if full is not None and full.operation == REGISTER:
        inputs |= {name: blob for name, blob in model_blobs(full).items() if name != "weights"}
    elif recipe.model.base is None:
        params["configs"] = family.configs(recipe, data.shape, data.counts)
    if family.latent:
        params |= {"posterior": recipe.latent.posterior, "base": recipe.model.base}
        inputs |= data.parts
    what = f"model without {removal.short}" if removal else "full model"
    command = "guda train"
    if removal and not removal.is_null:
        command += f" --without {quoted(removal.typed)}"
    if settings["seed"] != recipe.train.seed:
        what, command = f"{what}, seed {seed}", f"{command} --seeds {seed}"
    forwards = 3.0 * steps * recipe.train.batch_size
    return Action(TRAIN, params, inputs, what, forwards, steps, command)


def unlearn(
    recipe: Recipe, data: DataRef, full: ActionRecord, removal: Removal, seed: int | None = None
) -> Action:
    """Unlearning `removal` from the full model; `seed` where it is not the recipe's."""
    other = seed is not None and seed != recipe.unlearn.seed
    if seed is not None:
        recipe = dataclasses.replace(recipe, unlearn=dataclasses.replace(recipe.unlearn, seed=seed))
    params: dict[str, Any] = {
        "unlearn": text_settings.operator_settings(recipe),
        "without": removal.params,
        **text_settings.read_latents(recipe, full),
    }
    params |= {name: value for name, value in _later(recipe).items() if name != "params"}
    dropout = DROPOUT.get(family_of(recipe).told(recipe))
    if dropout:
        params[dropout] = getattr(recipe.train, dropout)
    params |= text_settings.settings(recipe)
    inputs = {"dataset": data.blob, **data.held_out, **model_blobs(full)}  # its check looks at all of these
    options = "--all" if removal.is_null else f"--group {quoted(removal.typed)}"
    removed = min(removal.images(data.counts), data.images)
    forwards = catalog.forwards(recipe.unlearn, removed, data.images)
    what, command = f"unlearn {removal.short}", f"guda unlearn {options}"
    if other:
        what, command = f"{what}, seed {seed}", f"{command} --seeds {seed}"
    return Action(UNLEARN, params, inputs, what, forwards, recipe.unlearn.steps, command)


def elbo_table(
    model: ActionRecord, grid: Mapping[str, Any], seed: int, compute: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Key and spec of the table of one model's ELBO terms (the queries are its rows)."""
    inputs = model_blobs(model)
    if model.operation == UNLEARN:
        inputs = {f"base-{name}": blob for name, blob in inputs.items()}
        inputs["weights"] = model.outputs["weights"]
    params = {"grid": dict(grid), "noise_seed": seed, "compute": dict(compute)}
    return table_spec("elbo-table", params, inputs)
