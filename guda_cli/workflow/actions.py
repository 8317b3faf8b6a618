"""Every cached step as an action: its operation, version and all that decides its result.

No torch here: a plan, `guda status` and `guda report` need keys, not networks. When the numbers of
an operation change, its version must go up (a golden test holds that).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from guda_cli.errors import RecipeError
from guda_cli.recipe import Recipe, to_dict, total_steps
from guda_cli.unlearning import catalog
from guda_cli.workflow import text_settings
from guda_cli.workflow.configs import configs
from guda_cli.workflow.removal import Removal
from store import ActionRecord, action_key

VERSIONS = {
    "dataset": 1,
    "train": 1,
    "register": 1,
    "unlearn": 2,
    "elbo-table": 1,
    "score": 1,
    "sample": 1,
    "attribution": 1,
    "instance-scores": 1,
    "import": 1,
    "pipeline": 1,
    "vae": 1,
    "text-encoder": 1,
    "latents": 1,
    "embeddings": 1,
    "small-copies": 1,
}


@dataclass(frozen=True)
class Action:
    """One step to look up or run. `inputs` are blob digests; `forwards` its forward-equivalents."""

    operation: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    what: str
    forwards: float = 0.0
    steps: int = 0
    command: str = ""
    version: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", VERSIONS[self.operation])

    @property
    def key(self) -> str:
        """The action's key in the store."""
        return action_key(self.operation, self.version, self.params, self.inputs)


@dataclass(frozen=True)
class DataRef:
    """What is known of a dataset without loading it; `blob` is its digest in the store."""

    key: str
    blob: str
    counts: Mapping[str, int]
    images: int
    shape: tuple[int, int, int]
    notes: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    """Digests of what turns images and prompts into latents and embeddings; text-to-image recipes only."""

    @staticmethod
    def of(record: ActionRecord) -> DataRef:
        """From the record of a `dataset` action."""
        seen = record.provenance
        return DataRef(
            record.key,
            record.outputs["data"],
            seen["groups"],
            seen["images"],
            tuple(seen["shape"]),
            tuple(seen["notes"]),
        )


def check_one_group(data: DataRef) -> None:
    """RecipeError unless every image is in one group, which a class-conditional model takes for its class."""
    if sum(data.counts.values()) != data.images:  # every image is in one at least
        raise RecipeError(
            "model.class_conditional needs every image in exactly one group, its class",
            why=f"{data.images} images are in {sum(data.counts.values())} groups, counted by image",
            fix="--set data.group=folder or one metadata column, or --set model.class_conditional=false",
        )


def train_steps(recipe: Recipe, images: int) -> int:
    """Optimiser steps of one training."""
    return total_steps(recipe.train, images)


# Settings that came later: they are left out where they change nothing, so that older keys stay.
_LATER = {
    "params": "full",
    "gradient_accumulation": 1,
    "gradient_checkpointing": False,
    "mixed_precision": "no",
}


def _train_settings(recipe: Recipe) -> dict[str, Any]:
    """The `train` section as it enters a key, less the length and what conditions need."""
    found = to_dict(recipe.train)
    found.pop("epochs")
    if not recipe.model.text_conditional:
        found.pop("prompt_dropout")
    return {name: value for name, value in found.items() if name not in _LATER} | _later(recipe)


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
            fix="guda train --from DIR (text-to-image recipes); or --set train.params=full",
        )
    catalog.check_params(params, {}, recipe.model.text_conditional, "train.params")


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
    steps = train_steps(recipe, data.images)
    settings = _train_settings(recipe)
    settings["steps"] = steps
    if recipe.model.class_conditional:
        check_one_group(data)
    else:
        settings.pop("class_dropout")
    if seed is not None:
        settings["seed"] = seed
    params: dict[str, Any] = {"train": settings, "without": removal.params if removal else None}
    inputs = {"dataset": data.blob}
    if full is not None and full.operation == "register":
        inputs |= {"config": full.outputs["config"], "betas": full.outputs["betas"]}
    elif recipe.model.base is None:
        params["configs"] = configs(recipe, data.shape, data.counts)
    if recipe.model.text_conditional:
        params |= {"posterior": recipe.latent.posterior, "base": recipe.model.base}
        inputs |= data.parts
    what = f"model without {removal.name}" if removal else "full model"
    command = "guda train"
    if removal and not removal.is_null:
        command += f" --without {shlex.quote(removal.name)}"
    if settings["seed"] != recipe.train.seed:
        what, command = f"{what}, seed {seed}", f"{command} --seeds {seed}"
    forwards = 3.0 * steps * recipe.train.batch_size
    return Action("train", params, inputs, what, forwards, steps, command)


def unlearn(recipe: Recipe, data: DataRef, full: ActionRecord, removal: Removal) -> Action:
    """Unlearning `removal` from the full model."""
    params: dict[str, Any] = {
        "unlearn": text_settings.operator_settings(recipe),
        "without": removal.params,
        **text_settings.read_latents(recipe, full),
    }
    if recipe.model.class_conditional:
        params["class_dropout"] = recipe.train.class_dropout
    params |= {name: value for name, value in _later(recipe).items() if name != "params"}
    if recipe.model.text_conditional:
        params |= {"prompt_dropout": recipe.train.prompt_dropout, **text_settings.settings(recipe)}
    inputs = {"dataset": data.blob, **{name: full.outputs[name] for name in ("weights", "config", "betas")}}
    command = "guda unlearn --all" if removal.is_null else f"guda unlearn --group {shlex.quote(removal.name)}"
    removed = removal.size or sum(data.counts.get(name, 0) for name in removal.groups)
    forwards = catalog.forwards(recipe.unlearn, min(removed, data.images), data.images)
    return Action(
        "unlearn", params, inputs, f"unlearn {removal.name}", forwards, recipe.unlearn.steps, command
    )


def elbo_table(
    model: ActionRecord, grid: Mapping[str, Any], seed: int, compute: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Key and spec of the table of one model's ELBO terms (the queries are its rows)."""
    names = ("weights", "config", "betas") if model.operation != "unlearn" else ("weights",)
    inputs = {name: model.outputs[name] for name in names}
    if model.operation == "unlearn":
        inputs |= {f"base-{name}": model.inputs[name] for name in ("weights", "config", "betas")}
    params = {"grid": dict(grid), "noise_seed": seed, "compute": dict(compute)}
    version = VERSIONS["elbo-table"]
    spec = {"operation": "elbo-table", "version": version, "params": params, "inputs": inputs}
    return action_key("elbo-table", version, params, inputs), spec


def differences(records: Iterable[ActionRecord], action: Action) -> list[str]:
    """In which settings and inputs `action` differs from the last of `records` of the same subject.

    Empty when there is none: then nothing like it was ever made.
    """
    same = [r for r in records if r.params.get("without") == action.params.get("without")]
    if not same:
        return []
    record = same[-1]
    old, new = _flat(record.params), _flat(action.params)
    names = [name for name in sorted(set(old) | set(new)) if old.get(name) != new.get(name)]
    names += [name for name in sorted(action.inputs) if record.inputs.get(name) != action.inputs[name]]
    return names[:6] or ["guda's version"]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out
