"""Which groups settings were tuned on: they are left out of reported agreement."""

from __future__ import annotations

from collections.abc import Iterable

from guda_cli.store import ActionRecord
from guda_cli.workflow.project.project import Project


def _document(full: ActionRecord) -> str:
    return f"tuned-{full.outputs['weights'][:32]}"


def tuned_groups(project: Project, full: ActionRecord) -> tuple[str, ...]:
    """Groups that `guda tune` has looked at for this full model, sorted."""
    document = project.store.get_safe_document(_document(full)) or {}
    return tuple(sorted(document.get("groups", ())))


def note_tuned(project: Project, full: ActionRecord, groups: Iterable[str]) -> None:
    """Remember that settings were chosen by the oracle of `groups`."""
    known = tuned_groups(project, full)
    every = sorted({*known, *groups})
    if every != [*known]:
        project.store.set_safe_document(_document(full), {"groups": every})
