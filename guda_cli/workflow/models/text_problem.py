"""What anchor operators are told about prompts and styles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guda_cli.data.styles import content_ids, parse_prompt, styles_of
from guda_cli.errors import DataError
from guda_cli.unlearning import catalog
from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.keys.text_settings import given_styles
from guda_cli.workflow.project.project import Project

if TYPE_CHECKING:
    from guda_cli.unlearning.operators.base import TextProblem
    from guda_cli.workflow.models.parts import Parts


def text_problem(project: Project, parts: Parts, removal: Removal) -> TextProblem:
    """Prompts, styles and embeddings for `removal`; groups without descriptors have none here."""
    import torch

    from guda_cli.unlearning.operators.base import TextProblem

    data, spec = project.dataset(), project.recipe.text
    return TextProblem(
        bank=parts.bank,
        prompts=tuple(text or "" for text in data.prompts),
        parsed=tuple(parse_prompt(text, spec) if text else None for text in data.prompts),
        membership=torch.from_numpy(data.membership),
        groups=data.groups,
        styles=styles(project),
        spec=spec,
        embed=parts.embed,
        content=content_ids(data, spec),
        removed=frozenset(removal.groups),
    )


def styles(project: Project) -> dict[str, tuple[str, ...]]:
    """Style descriptors of each group; DataError where a group has none and the operator needs them."""
    data, recipe = project.dataset(), project.recipe
    try:
        return styles_of(data, recipe.text, given_styles(recipe))
    except DataError:
        if "styles" in catalog.row(recipe.unlearn.operator).needs:
            raise
        return dict.fromkeys(data.groups, ())
