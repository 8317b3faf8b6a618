"""The parts of a text-to-image model as actions: VAE, text encoder, latents, embeddings. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from guda_cli.checkpoints.components import BLOBS
from guda_cli.sections import Recipe, TextSpec, to_dict
from guda_cli.workflow.keys.operations import Action, DataRef
from guda_cli.workflow.keys.text_settings import READ

if TYPE_CHECKING:
    from guda_cli.store import ActionRecord, Store

VAE = ("vae", "vae_config")
TEXT = ("text_encoder", "text_config", "tokenizer")
_BUILT = ("hidden_size", "layers", "heads", "vocabulary", "steps", "batch_size", "lr", "seed")


def vae(recipe: Recipe, data: DataRef) -> Action:
    """Training the VAE on the images of the recipe."""
    spec = to_dict(recipe.latent)
    for name in ("posterior", "check_scaling"):
        spec.pop(name)
    forwards = 3.0 * recipe.latent.steps * recipe.latent.batch_size
    inputs = {"dataset": data.blob}
    return Action("vae", {"latent": spec}, inputs, "VAE", forwards, recipe.latent.steps, "guda train")


def text_encoder(recipe: Recipe, data: DataRef, parts: Mapping[str, str]) -> Action:
    """Learning the tokenizer and training the text encoder on prompts and latents."""
    given, usual = to_dict(recipe.text), to_dict(TextSpec())
    spec = {name: given[name] for name in _BUILT}
    if recipe.text.steps:  # it is trained on captions taken apart; left out where they are the default
        spec |= {name: given[name] for name in READ if given[name] != usual[name]}
    forwards = 3.0 * recipe.text.steps * recipe.text.batch_size
    inputs = {"dataset": data.blob, **{name: parts[name] for name in VAE}}
    steps = recipe.text.steps
    return Action("text-encoder", {"text": spec}, inputs, "text encoder", forwards, steps, "guda train")


def latents(recipe: Recipe, data: DataRef) -> Action:
    """The latents of the training images."""
    inputs = {"dataset": data.blob, **{name: data.parts[name] for name in VAE}}
    return Action("latents", {"posterior": recipe.latent.posterior}, inputs, "latents")


def embeddings(data: DataRef) -> Action:
    """The text embeddings of the training images' prompts."""
    inputs = {"dataset": data.blob, **{name: data.parts[name] for name in TEXT}}
    return Action("embeddings", {}, inputs, "text embeddings")


def trained(recipe: Recipe, data: DataRef, store: Store) -> Iterator[tuple[Action, ActionRecord | None]]:
    """The actions that make the parts, in order, with their records; ends with the first that has none.

    Each but the first needs what the one before it made.
    """
    first = vae(recipe, data)
    record = store.lookup(first.key)
    yield first, record
    if record is not None:
        second = text_encoder(recipe, data, record.outputs)
        yield second, store.lookup(second.key)


def known(recipe: Recipe, data: DataRef, store: Store) -> dict[str, str]:
    """Digests of the parts that the store has, by the names in BLOBS: of a pipeline, or trained here."""
    source = recipe.model.registered or recipe.model.base
    if source:
        taken = store.lookup(source)
        return {name: taken.outputs[name] for name in BLOBS if name in taken.outputs} if taken else {}
    records = (record for _, record in trained(recipe, data, store) if record is not None)
    return {name: digest for record in records for name, digest in record.outputs.items()}


def keys(recipe: Recipe, data: DataRef, store: Store) -> set[str]:
    """Keys of the actions behind the parts, made or still to be made: what garbage collection keeps."""
    if not recipe.model.text_conditional:
        return set()
    taken = {key for key in (recipe.model.registered, recipe.model.base) if key}
    return taken or {action.key for action, _ in trained(recipe, data, store)}
