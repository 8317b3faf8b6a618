"""A number that asks for more memory than the machine has is refused with the estimate, before any work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from guda_cli import memory
from guda_cli.errors import RecipeError
from guda_cli.sections import Recipe
from guda_cli.settings import lookup
from guda_cli.workflow.project import needs


def changed(key: str, value: object, recipe: Recipe | None = None) -> Recipe:
    recipe = recipe or lookup.load("digits")[0]
    section, _, name = key.partition(".")
    return replace(recipe, **{section: replace(getattr(recipe, section), **{name: value})})


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "total", lambda: 16 << 30)
    monkeypatch.setattr(needs, "_GPU", tmp_path / "none")


@pytest.mark.parametrize("name", lookup.shipped())
def test_shipped_recipes_are_not_refused(name: str) -> None:
    needs.check(lookup.load(name)[0])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.size", 1 << 20),
        ("data.size", 32_768),
        ("train.batch_size", 50_000_000),
        ("unlearn.batch_size", 50_000_000),
        ("model.block_out_channels", (1_000_000, 8)),
        ("model.layers_per_block", 1_000_000_000),
        ("diffusion.num_train_timesteps", 10**9),
        ("unlearn.null_groups", 10**9),
        ("attribution.projection", 10**6),
        ("data.size", 10**400),
    ],
)
def test_each_number_is_named_with_the_estimate(key: str, value: object) -> None:
    with pytest.raises(
        RecipeError, match=r"asks for [\d.]+ [GT]B of memory or more, and .* has 16\.0 GB"
    ) as caught:
        needs.check(changed(key, value))
    assert caught.value.why.startswith(f"{key} = ")
    assert caught.value.fix.startswith(f"--set {key}=")


@pytest.mark.parametrize("key", ["latent.block_out_channels", "text.hidden_size", "text.vocabulary"])
def test_parts_of_text_to_image_models_count(key: str) -> None:
    value = (1_000_000,) * 3 if key.startswith("latent") else 10**9
    with pytest.raises(RecipeError, match="of memory or more"):
        needs.check(changed(key, value, lookup.load("emoji-styles")[0]))


def test_what_others_made_is_not_judged_by_the_recipes_numbers() -> None:
    wide = changed("model.block_out_channels", (1_000_000, 8))
    needs.check(changed("model.registered", "a" * 64, wide))


def test_the_estimate_is_below_what_training_takes() -> None:
    """Weights: those of a real network of the recipe are more."""
    import torch

    from guda_cli.families.known import family_of

    recipe = lookup.load("cifar10")[0]
    family = family_of(recipe)
    with torch.device("meta"):
        network = family.build(family.configs(recipe, (3, 32, 32))["unet"], 0)
    real = 16 * sum(value.numel() for value in network.parameters())
    estimated = next(need.bytes for need in needs.estimate(recipe) if need.key.startswith("model."))
    assert 0.3 * real < estimated < real


def test_the_smaller_of_machine_and_container_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    whole = memory.total()
    assert whole is not None
    assert whole > 1 << 28
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "LIMITS", (limit, tmp_path / "none"))
    for text, expected in (("max\n", memory._machine()), ("1048576\n", 1 << 20)):
        limit.write_text(text)
        assert memory.total() == expected
