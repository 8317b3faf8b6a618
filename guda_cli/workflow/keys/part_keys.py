"""What stands around a network as actions: its parts, and what they make of the data. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from guda_cli.families.family import Family, Maker
from guda_cli.families.known import family_of
from guda_cli.sections import Recipe
from guda_cli.workflow.keys.operations import Action, DataRef

if TYPE_CHECKING:
    from guda_cli.store import ActionRecord, Store


def made(recipe: Recipe, data: DataRef, maker: Maker, parts: Mapping[str, str]) -> Action:
    """Training one part from those of `parts` that it needs."""
    steps, batch = maker.size(recipe)
    inputs = {"dataset": data.blob, **{name: parts[name] for name in maker.needs}}
    forwards = 3.0 * steps * batch
    return Action(maker.operation, maker.params(recipe), inputs, maker.what, forwards, steps, "guda train")


def latents(recipe: Recipe, data: DataRef, family: Family) -> Action:
    """x0 of the training images."""
    inputs = {"dataset": data.blob, **{name: data.parts[name] for name in family.codec_parts}}
    return Action("latents", {"posterior": recipe.latent.posterior}, inputs, "latents")


def embeddings(data: DataRef, family: Family) -> Action:
    """What the training images' prompts become."""
    inputs = {"dataset": data.blob, **{name: data.parts[name] for name in family.prompt_parts}}
    return Action("embeddings", {}, inputs, "text embeddings")


def trained(recipe: Recipe, data: DataRef, store: Store) -> Iterator[tuple[Action, ActionRecord | None]]:
    """The actions that make the parts, in order, with their records; ends with the first that has none.

    Each may need what those before it made.
    """
    parts: dict[str, str] = {}
    for maker in family_of(recipe).makers:
        action = made(recipe, data, maker, parts)
        record = store.lookup(action.key)
        yield action, record
        if record is None:
            return
        parts |= record.outputs


def known(recipe: Recipe, data: DataRef, store: Store) -> dict[str, str]:
    """Digests of the parts that the store has, by their names: of a pipeline, or trained here."""
    source, names = recipe.model.registered or recipe.model.base, family_of(recipe).parts
    if not names:
        return {}
    if source:
        taken = store.lookup(source)
        return {name: taken.outputs[name] for name in names if name in taken.outputs} if taken else {}
    records = (record for _, record in trained(recipe, data, store) if record is not None)
    return {name: digest for record in records for name, digest in record.outputs.items()}


def keys(recipe: Recipe, data: DataRef, store: Store) -> set[str]:
    """Keys of the actions behind the parts, made or still to be made: what garbage collection keeps."""
    if not family_of(recipe).parts:
        return set()
    taken = {key for key in (recipe.model.registered, recipe.model.base) if key}
    return taken or {action.key for action, _ in trained(recipe, data, store)}
