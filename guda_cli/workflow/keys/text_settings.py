"""What of prompts, styles and latents decides an unlearning. No torch here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from guda_cli.checkpoints import clip_folder
from guda_cli.data.styles import read_descriptors
from guda_cli.families.known import family_of
from guda_cli.families.stable_diffusion import READ
from guda_cli.jsonable import canonical
from guda_cli.sections import Recipe
from guda_cli.store import ActionRecord
from guda_cli.unlearning import catalog
from guda_cli.workflow.keys.operations import REGISTER


def given_styles(recipe: Recipe) -> dict[str, tuple[str, ...]] | None:
    """The style descriptors of the file that `text.descriptors` names, if any; DataError."""
    return read_descriptors(Path(recipe.text.descriptors)) if recipe.text.descriptors else None


def settings(recipe: Recipe) -> dict[str, Any]:
    """What of the `text` section decides an unlearning by an anchor, as it enters the action's key."""
    if "prompts" not in catalog.row(recipe.unlearn.operator).needs or not family_of(recipe).prompts:
        return {}
    found: dict[str, Any] = {name: getattr(recipe.text, name) for name in READ}
    given = given_styles(recipe)
    if given is not None:
        found["descriptors"] = hashlib.sha256(canonical(given)).hexdigest()
    return {"text": found}


def operator_settings(recipe: Recipe) -> dict[str, Any]:
    """`catalog.settings` with what the encoder of the anchors' descriptors is instead of where it lies."""
    found = catalog.settings(recipe.unlearn) | orientations(recipe)
    if found.get("anchor_encoder"):
        found["anchor_encoder"] = clip_folder.identity(found["anchor_encoder"])
    return found


def orientations(recipe: Recipe) -> dict[str, bool]:
    """`flip`, where images are unlearned as they are trained on, mirrored half of the time.

    Left out where they are not: the keys of these unlearnings are as before.
    """
    return {"flip": True} if recipe.train.flip else {}


def read_latents(recipe: Recipe, full: ActionRecord) -> dict[str, str]:
    """Which latents of the images are read, where the key of the full model does not say it.

    A registered model may have been trained on others than the recipe names; posterior means are left out.
    """
    taken = family_of(recipe).latent and full.operation == REGISTER
    return {"posterior": recipe.latent.posterior} if taken and recipe.latent.posterior != "mean" else {}
