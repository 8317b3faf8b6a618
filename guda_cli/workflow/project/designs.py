"""Joint removals that were drawn as a design, not asked for by name: no columns of their own in scores."""

from __future__ import annotations

from collections.abc import Iterable

from guda_cli.workflow.keys.removal import Removal
from guda_cli.workflow.project.project import Project

SUBSETS = "subsets"
"""Random halves that models are trained without."""
COALITIONS = "coalitions"
"""Groups that are unlearned together for shares among them."""


def _document(project: Project, design: str) -> str:
    return f"{design}-{project.data.blob[:32]}"


def noted(project: Project, design: str) -> list[Removal]:
    """The removals of a design on these images, in the order in which they were drawn; short in name."""
    found = project.store.get_safe_document(_document(project, design)) or {}
    return [Removal(tuple(groups)).titled() for groups in found.get("removals", ())]


def note(project: Project, design: str, removals: Iterable[Removal]) -> None:
    """Remember that these removals belong to a design; does nothing in a read-only store."""
    known = noted(project, design)
    every = list(dict.fromkeys([*known, *removals]))
    if every != known and not project.store.read_only:
        listing = [list(what.groups) for what in every]
        project.store.set_safe_document(_document(project, design), {"removals": listing})
