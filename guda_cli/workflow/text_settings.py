"""What of the `text` section decides an unlearning by an anchor. No torch here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from guda_cli.data.styles import read_descriptors
from guda_cli.latent.components import canonical
from guda_cli.recipe import Recipe
from guda_cli.unlearning import catalog

_READ = ("pattern", "template", "separator")


def given_styles(recipe: Recipe) -> dict[str, tuple[str, ...]] | None:
    """The style descriptors of the file that `text.descriptors` names, if any; DataError."""
    return read_descriptors(Path(recipe.text.descriptors)) if recipe.text.descriptors else None


def settings(recipe: Recipe) -> dict[str, Any]:
    """What of the `text` section decides an unlearning by an anchor, as it enters the action's key."""
    if recipe.unlearn.operator not in catalog.ANCHORS:
        return {}
    found: dict[str, Any] = {name: getattr(recipe.text, name) for name in _READ}
    given = given_styles(recipe)
    if given is not None:
        found["descriptors"] = hashlib.sha256(canonical(given)).hexdigest()
    return {"text": found}
