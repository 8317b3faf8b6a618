"""Which unlearning settings are tried: the recipe's own, then seeded draws from a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from guda_cli.errors import RecipeError, UsageError
from guda_cli.sections import Recipe, to_dict
from guda_cli.settings import bounded_yaml
from guda_cli.settings.reading import apply_sets, from_dict
from guda_cli.unlearning import catalog


def parse_space(entries: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """`unlearn.lr=1e-4,1e-3` entries as values by key, read as YAML. UsageError for another form or key."""
    space: dict[str, tuple[Any, ...]] = {}
    for entry in entries:
        key, eq, text = entry.partition("=")
        if not eq or not text:
            raise UsageError(f"--space {entry!r} is not of the form unlearn.key=value,value")
        if not key.startswith("unlearn."):
            raise UsageError(f"--space {key}: only unlearn.* settings can be tuned")
        try:
            space[key] = tuple(bounded_yaml.load(part, f"--space {key}: a value") for part in text.split(","))
        except RecipeError as err:
            raise UsageError(err.message, why=err.why, fix=err.fix) from None
    return space


def with_settings(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with settings such as `unlearn.lr` replaced; RecipeError for a bad key or value."""
    return from_dict(apply_sets(to_dict(recipe), [f"{k}={_text(v)}" for k, v in settings.items()]))


def _text(value: Any) -> str:
    return "null" if value is None else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]


def candidates(
    recipe: Recipe,
    trials: int,
    seed: int,
    space: Mapping[str, Sequence[Any]] | None = None,
    check: Callable[[Recipe], None] = lambda recipe: None,
) -> list[dict[str, Any]]:
    """At most `trials` different settings, the recipe's own (`{}`) first, then draws without repetition.

    `space` replaces the operator's default space. The choice depends on the space and the seed alone, and
    more trials begin with the same ones. `check` raises RecipeError for a recipe that cannot be unlearned
    with; such combinations are passed over. RecipeError for a bad entry, for a recipe that is none itself,
    or when there is nothing else to try.
    """
    check(recipe)
    chosen = dict(space or catalog.tuning_space(recipe.unlearn.operator))
    for key, values in chosen.items():
        for value in values:
            catalog.settings(with_settings(recipe, {key: value}).unlearn)
    names = sorted(chosen)
    total = math.prod(len(chosen[name]) for name in names)
    rng = np.random.Generator(np.random.PCG64([0x7D11, seed]))
    order = rng.permutation(total) if total <= 1 << 20 else rng.integers(0, total, 4 * trials)
    seen = {str(catalog.settings(recipe.unlearn))}
    out: list[dict[str, Any]] = [{}]
    refused: RecipeError | None = None
    for number in order.tolist():
        if len(out) >= trials:
            break
        settings = _decode(int(number), chosen, names)
        try:
            made = with_settings(recipe, settings)
            check(made)
            text = str(catalog.settings(made.unlearn))
        except RecipeError as err:  # values that do not go together, or not with the model
            refused = err
            continue
        if text not in seen:
            seen.add(text)
            out.append(settings)
    if refused and len(out) == 1 < trials:
        raise refused
    return out


def _decode(number: int, space: Mapping[str, Sequence[Any]], names: Sequence[str]) -> dict[str, Any]:
    settings = {}
    for name in names:
        number, place = divmod(number, len(space[name]))
        settings[name] = space[name][place]
    return settings
